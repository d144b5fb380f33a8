/* Backward in float for generic; see backward.inc.c. Compiled with this instruction set's flags, chosen at run time. */
#include "train/backward.h"
#include "train/backward_f32.h"

typedef float real;
#define VECTOR_BYTES 16
#define TILE 4
#define TABLE dn_backward_table_f32
#define RUN dn_backward_f32
#define EXPONENTIAL fast_exp
#include "train/backward.inc.c"

const dn_backward_table_f32 dn_backward_table_generic = {"generic", backward_rows, pack, unpack};
