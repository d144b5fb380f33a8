/* Which form a convolution is computed in, and its weight in that form.
 *
 * Invariant: the form is a function of the layer's shape alone (channels, height, width), by the table below: never of a
 * clock, the number of rows or of threads, so that a row's bytes depend on nothing else. Any thread. */
#include "backend/cpu/winograd.h"

/* The first line that fits holds. Small images leave a kept transform little work for what it reads from memory; there a
 * large weight is read as it is and transformed in registers. tests/bench/NOTES.md has the figures. */
static const struct shape_rule {
    size_t pixels; /* of an image, at most */
    size_t weights; /* inputs * outputs, at most */
    dn_winograd_form form;
} shape_rules[] = {
    {16, 24576, {.side = 2, .kept = true}},
    {64, 24576, {.side = 4, .kept = true}},
    {64, SIZE_MAX, {.side = 4, .kept = false}},
    {SIZE_MAX, SIZE_MAX, {.side = 4, .kept = true}},
};

#define TAPS 9u
#define CHANNELS_MIN 32u /* with fewer, transforms cost more than multiplications saved */

dn_winograd_form dn_cpu_winograd_form(const dn_plan *plan, const dn_node *node)
{
    const dn_winograd_form direct = {0};
    if (node->kind != DN_NODE_CONV || node->kernel != 3 || node->stride != 1)
        return direct;
    bool border = node->pad_top == 1 && node->pad_left == 1 && node->pad_bottom == 1 && node->pad_right == 1;
    dn_shape in = plan->values[node->in[0]].shape, out = plan->values[node->out].shape;
    if (!border || in.c < CHANNELS_MIN || out.c < CHANNELS_MIN || in.c % DN_CPU_LINE_FLOATS != 0 || out.c % DN_CPU_LINE_FLOATS != 0)
        return direct;
    const struct shape_rule *rule = shape_rules;
    while ((size_t)out.h * out.w > rule->pixels || (size_t)in.c * out.c > rule->weights)
        rule++;
    return rule->form;
}

#define TOGETHER 8u /* kernels that are transformed at once, one in each place of a vector */
typedef double eight __attribute__((vector_size(TOGETHER * sizeof(double))));

/* u = G g along one direction, of three weights that lie `step` apart; in double, for F(4x4)'s points have no end of digits. */
static void transform_line(eight *u, const eight *g, size_t step, size_t side)
{
    const eight even = g[0] + g[2 * step], odd = g[step];
    u[0] = g[0];
    u[side + 1] = g[2 * step];
    if (side == 2) {
        u[1] = 0.5 * (even + odd);
        u[2] = 0.5 * (even - odd);
        return;
    }
    const double a = 0.70710678118654752440;
    u[1] = g[0] + 0.5 * g[2 * step] + a * odd;
    u[2] = g[0] + 0.5 * g[2 * step] - a * odd;
    u[3] = 0.5 * g[0] + g[2 * step] + a * odd;
    u[4] = 0.5 * g[0] + g[2 * step] - a * odd;
}

/* G g G^T of 3x3 kernels. */
static void transform_kernels(eight *out, const eight *g, size_t side)
{
    const size_t points = side + 2;
    eight half[3][DN_WINOGRAD_POINTS_MAX];
    for (size_t x = 0; x < 3; x++)
        transform_line(half[x], g + x, 3, side);
    for (size_t y = 0; y < points; y++)
        transform_line(out + y * points, (const eight[]){half[0][y], half[1][y], half[2][y]}, 1, side);
}

size_t dn_cpu_winograd_packed_count(const dn_cpu_kernels *kernels, dn_winograd_form form, size_t inputs, size_t outputs)
{
    size_t positions = (form.side + 2) * (form.side + 2);
    return (form.kept ? positions : TAPS) * dn_cpu_packed_count(kernels, inputs, outputs);
}

/* The kernels of one input to eight outputs, which lie `stride` floats apart; their points `matrix` apart. */
static void pack_points(float *to, size_t matrix, const float *kernels, size_t stride, size_t side)
{
    const size_t positions = (side + 2) * (side + 2);
    eight g[TAPS], point[DN_WINOGRAD_POINTS_MAX * DN_WINOGRAD_POINTS_MAX];
    for (size_t j = 0; j < TOGETHER; j++)
        for (size_t t = 0; t < TAPS; t++)
            g[t][j] = (double)kernels[j * stride + t];
    transform_kernels(point, g, side);
    for (size_t p = 0; p < positions; p++)
        for (size_t j = 0; j < TOGETHER; j++)
            to[p * matrix + j] = (float)point[p][j];
}

/* [position][panel][inputs][width]: every position is one packed matrix. Outputs are a multiple of DN_CPU_LINE_FLOATS, so panels are
 * of TOGETHER. */
static void pack_positions(float *packed, const dn_cpu_kernels *kernels, size_t side, const float *weight, size_t inputs, size_t outputs)
{
    const size_t matrix = dn_cpu_packed_count(kernels, inputs, outputs), stride = inputs * TAPS;
    for (size_t panel = 0; panel < dn_cpu_panels(kernels, outputs); panel++) {
        const size_t column = panel * kernels->panel, width = dn_cpu_panel_width(kernels, outputs, panel);
        for (size_t i = 0; i < inputs; i++) {
            float *to = packed + column * inputs + i * width;
            const float *from = weight + column * stride + i * TAPS;
            for (size_t j = 0; j < width; j += TOGETHER)
                pack_points(to + j, matrix, from + j * stride, stride, side);
        }
    }
}

/* [outputs / lanes][inputs][tap][lanes]: the kernel's nine weights, to be transformed where they are used. */
static void pack_taps(float *packed, const dn_cpu_kernels *kernels, const float *weight, size_t inputs, size_t outputs)
{
    const size_t lanes = kernels->lanes;
    for (size_t j = 0; j < outputs; j++) {
        float *to = packed + j / lanes * inputs * TAPS * lanes + j % lanes;
        const float *from = weight + j * inputs * TAPS;
        for (size_t i = 0; i < inputs * TAPS; i++)
            to[i * lanes] = from[i];
    }
}

void dn_cpu_winograd_pack(float *packed, const dn_cpu_kernels *kernels, dn_winograd_form form, const float *weight, size_t inputs,
                          size_t outputs)
{
    if (form.kept)
        pack_positions(packed, kernels, form.side, weight, inputs, outputs);
    else
        pack_taps(packed, kernels, weight, inputs, outputs);
}
