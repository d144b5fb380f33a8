/* The plain reference in float; see reference.h. */
#include "backend/cpu/reference.h"

typedef float real;
#define NAME(stem) stem##_f32
#include "backend/cpu/reference.inc.c"
