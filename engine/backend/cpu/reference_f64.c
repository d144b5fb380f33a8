/* The plain reference in double, and the activation functions both precisions share; see reference.h. */
#include "backend/cpu/reference.h"

#include <math.h>

double dn_reference_activation(dn_activation activation, double x)
{
    switch (activation) {
    case DN_ACT_SILU:
        return x / (1.0 + exp(-x));
    case DN_ACT_GELU:
        return 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
    case DN_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case DN_ACT_RELU:
        return x > 0.0 ? x : 0.0;
    case DN_ACT_MISH:
        return x * tanh(x > 30.0 ? x : log1p(exp(x)));
    case DN_ACT_NONE:
        break;
    }
    return x;
}

typedef double real;
#define NAME(stem) stem##_f64
#include "backend/cpu/reference.inc.c"
