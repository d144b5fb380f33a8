/* Which products run in 16 bits, and how: by the CPU, by the precision asked for, and by a layer's shape. Owns nothing. Any thread.
 *
 * Invariant: which nodes these are depends on their shapes alone. Attention, norms, what runs over vectors (time and class
 * embeddings, modulations) and 3x3 convolutions stay in float: the first are not products of weights or too small to gain,
 * and Winograd's form in float is as fast as a direct form in 16 bits would be. */
#include "backend/cpu/half.h"

#include <string.h>

/* The table of shapes. Below them converting rows costs more than multiplying them gains. */
#define PIXELS_MIN 16u /* rows of the product that one image brings: fewer wait for weights, not for multiplications */
#define INPUTS_MIN 64u
#define OUTPUTS_MIN 128u
#define OUTPUTS_UNIT 64u /* whole panels of every kind */

/* Pixels a multiple of 4 KB apart share a set of the first cache, which has 12 lines for it (8 on older cores). */
#define CACHE_WAYS 12u
#define CACHE_SET_FLOATS 1024u

/* Whether each pixel is multiplied alone. */
static bool is_pixelwise(const dn_node *node)
{
    bool pointwise = node->kind == DN_NODE_CONV && node->kernel == 1 && node->stride == 1 &&
                     (node->pad_top | node->pad_left | node->pad_bottom | node->pad_right) == 0;
    return node->kind == DN_NODE_LINEAR || pointwise;
}

bool dn_cpu_rows_collide(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    if (!is_pixelwise(node) || kernels->tile_rows < CACHE_WAYS)
        return false;
    dn_shape in = plan->values[node->in[0]].shape;
    return (size_t)in.h * in.w >= PIXELS_MIN && in.c % CACHE_SET_FLOATS == 0;
}

bool dn_cpu_half_fits(const dn_plan *plan, const dn_node *node)
{
    if (!is_pixelwise(node))
        return false;
    dn_shape in = plan->values[node->in[0]].shape, out = plan->values[node->out].shape;
    return (size_t)out.h * out.w >= PIXELS_MIN && in.c >= INPUTS_MIN && out.c >= OUTPUTS_MIN && out.c % OUTPUTS_UNIT == 0;
}

#ifdef DN_CPU_X86_64
static const dn_cpu_half *const halves[DN_PRECISIONS] = {[DN_PRECISION_FP16] = &dn_cpu_half_fp16, [DN_PRECISION_BF16] = &dn_cpu_half_bf16};

/* Asks CPUID. Both want the rest of AVX-512 too, and a device that was not held below it. */
static bool cpu_multiplies(const dn_device *device, dn_precision precision)
{
    if (strcmp(device->kernels->isa, "avx512") != 0)
        return false;
    __builtin_cpu_init();
    return precision == DN_PRECISION_FP16 ? __builtin_cpu_supports("avx512fp16") : __builtin_cpu_supports("avx512bf16");
}

/* Intel's cores multiply pairs of bf16 at half the rate of floats, where they leave it to AMX; AMD's (Zen 4, 5) at nearly twice. */
static bool gains_by_bf16(void)
{
    return !__builtin_cpu_is("intel");
}
#else
static const dn_cpu_half *const halves[DN_PRECISIONS] = {NULL};

static bool cpu_multiplies(const dn_device *device, dn_precision precision)
{
    (void)device;
    (void)precision;
    return false;
}

static bool gains_by_bf16(void)
{
    return false;
}
#endif

/* What to do instead. */
static const char *advice(const dn_device *device, dn_precision refused)
{
    if (refused != DN_PRECISION_FP16 && cpu_multiplies(device, DN_PRECISION_FP16))
        return "--precision fp16 is faster here, and fp32 always runs";
    if (refused != DN_PRECISION_BF16 && cpu_multiplies(device, DN_PRECISION_BF16) && gains_by_bf16())
        return "--precision bf16 is faster here, and fp32 always runs";
    return "use --precision fp32";
}

dn_status dn_cpu_precision_check(const dn_device *device, dn_precision precision, dn_error *error)
{
    const char *isa = device->kernels->isa;
    if (precision == DN_PRECISION_FP32)
        return DN_OK;
    if (!cpu_multiplies(device, precision))
        return dn_fail(error, DN_UNSUPPORTED, "precision %s needs a CPU with %s, and this one runs %s%s: %s", dn_precision_name(precision),
                       precision == DN_PRECISION_FP16 ? "AVX512-FP16" : "AVX512_BF16", isa, strcmp(isa, "avx512") == 0 ? " without it" : "",
                       advice(device, precision));
    if (precision == DN_PRECISION_BF16 && !gains_by_bf16())
        return dn_fail(error, DN_UNSUPPORTED, "precision bf16 is slower than fp32 on this CPU, which multiplies it at half the rate: %s",
                       advice(device, precision));
    return DN_OK;
}

double dn_cpu_precision_flops(const dn_plan *plan, dn_precision precision)
{
    double flops = 0.0;
    for (uint32_t n = 0; precision != DN_PRECISION_FP32 && n < plan->node_count; n++)
        flops += dn_cpu_half_fits(plan, &plan->nodes[n]) ? dn_plan_node_flops(plan, n) : 0.0;
    return flops;
}

const dn_cpu_half *dn_cpu_half_of(const dn_device *device, dn_precision precision)
{
    dn_error error;
    return dn_cpu_precision_check(device, precision, &error) == DN_OK ? halves[precision] : NULL;
}

void dn_cpu_half_pack(float *packed, const dn_cpu_half *half, const float *weight, size_t depth, size_t outputs)
{
    const size_t panel_slots = dn_cpu_half_packed_count(half, depth, half->panel);
    for (size_t panel = 0; panel < outputs / half->panel; panel++)
        half->pack(packed + panel * panel_slots, weight + panel * half->panel * depth, depth);
}
