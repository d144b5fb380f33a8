/* Chooses the float backward of an instruction set, and holds the slopes of the activations. */
#include "train/backward.h"

#include <math.h>
#include <string.h>

#include "backend/cpu/reference.h"
#include "train/backward_f32.h"

/* As the Makefile compiles them, by the machine that the program is for; the last one runs on all of those. */
static const dn_backward_table_f32 *const tables[] = {
#if defined(DN_CPU_X86_64)
    &dn_backward_table_avx512, &dn_backward_table_avx2, &dn_backward_table_sse2
#elif defined(DN_CPU_AARCH64)
    &dn_backward_table_neon
#else
    &dn_backward_table_generic
#endif
};
#define TABLE_COUNT (sizeof tables / sizeof tables[0])

const dn_backward_table_f32 *dn_backward_find_f32(const char *isa)
{
    for (size_t i = 0; i < TABLE_COUNT; i++) {
        if (isa && strcmp(isa, tables[i]->isa) == 0) {
            return tables[i];
        }
    }
    return tables[TABLE_COUNT - 1];
}

double dn_activation_value(dn_activation activation, double x)
{
    return dn_reference_activation(activation, x);
}

static double gelu_tanh_slope(double x)
{
    double t = tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.79788456080286535588 * (1.0 + 3.0 * 0.044715 * x * x);
}

static double mish_slope(double x)
{
    double t = tanh(x > 30.0 ? x : log1p(exp(x)));
    return t + x * (1.0 - t * t) / (1.0 + exp(-x));
}

double dn_activation_slope(dn_activation activation, double x)
{
    switch (activation) {
    case DN_ACT_SILU: {
        double s = 1.0 / (1.0 + exp(-x));
        return s * (1.0 + x * (1.0 - s));
    }
    case DN_ACT_GELU:
        return 0.5 * (1.0 + erf(x * 0.70710678118654752440)) + x * 0.39894228040143267794 * exp(-0.5 * x * x);
    case DN_ACT_GELU_TANH:
        return gelu_tanh_slope(x);
    case DN_ACT_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case DN_ACT_MISH:
        return mish_slope(x);
    case DN_ACT_NONE:
        break;
    }
    return 1.0;
}
