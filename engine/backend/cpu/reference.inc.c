/* The plain reference, written once for `real` (float or double) and NAME(stem). Included by reference_f32.c and
 * reference_f64.c. Sums run in `real`, in the order of the loops; no blocking, no reuse, nothing clever. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/reference.h"

/* One node of one row: its operands resolved. Absent ones are NULL. */
typedef struct work {
    const dn_plan *plan;
    const dn_node *node;
    const dn_reference_row *row;
    real *out;
    const real *in[3];
    const real *weight, *bias;
    dn_shape to, from; /* shapes of out and in[0] */
} work;

static real activate(dn_activation activation, real x)
{
    return activation == DN_ACT_NONE ? x : (real)dn_reference_activation(activation, (double)x);
}

static void run_affine(const work *w)
{
    for (size_t i = 0; i < dn_shape_count(w->to); i++) {
        w->out[i] = (real)w->node->scale * w->in[0][i] + (real)w->node->shift;
    }
}

/* The sum over one window: taps outside the picture are zero. */
static real window_sum(const work *w, uint32_t y, uint32_t x, uint32_t o)
{
    const dn_node *n = w->node;
    real sum = 0;
    for (uint32_t ky = 0; ky < n->kernel; ky++) {
        for (uint32_t kx = 0; kx < n->kernel; kx++) {
            int64_t iy = (int64_t)y * n->stride + ky - n->pad_top;
            int64_t ix = (int64_t)x * n->stride + kx - n->pad_left;
            if (iy < 0 || ix < 0 || iy >= w->from.h || ix >= w->from.w) {
                continue;
            }
            const real *pixel = w->in[0] + ((size_t)iy * w->from.w + (size_t)ix) * w->from.c;
            for (uint32_t c = 0; c < w->from.c; c++) {
                sum += pixel[c] * w->weight[(((size_t)o * w->from.c + c) * n->kernel + ky) * n->kernel + kx];
            }
        }
    }
    return sum;
}

static void run_conv(const work *w)
{
    for (uint32_t y = 0; y < w->to.h; y++) {
        for (uint32_t x = 0; x < w->to.w; x++) {
            for (uint32_t o = 0; o < w->to.c; o++) {
                size_t at = ((size_t)y * w->to.w + x) * w->to.c + o;
                real sum = window_sum(w, y, x, o) + (w->bias ? w->bias[o] : 0);
                sum += w->in[1] ? w->in[1][o] : 0;
                sum += w->in[2] ? w->in[2][at] : 0;
                w->out[at] = sum * (real)w->node->scale;
            }
        }
    }
}

static void run_linear(const work *w)
{
    const real *gate = w->in[2] ? w->in[2] + w->node->gate_offset : NULL;
    for (size_t p = 0; p < (size_t)w->to.h * w->to.w; p++) {
        for (uint32_t o = 0; o < w->to.c; o++) {
            real sum = 0;
            for (uint32_t c = 0; c < w->from.c; c++) {
                sum += w->in[0][p * w->from.c + c] * w->weight[(size_t)o * w->from.c + c];
            }
            sum += w->bias ? w->bias[o] : 0;
            if (gate) {
                w->out[p * w->to.c + o] = w->in[1][p * w->to.c + o] + gate[o] * activate(w->node->activation, sum);
                continue;
            }
            sum += w->in[1] ? w->in[1][p * w->to.c + o] : 0;
            w->out[p * w->to.c + o] = activate(w->node->activation, sum * (real)w->node->scale);
        }
    }
}

static void run_group_norm(const work *w)
{
    uint32_t channels = w->to.c, per = channels / w->node->groups;
    size_t pixels = (size_t)w->to.h * w->to.w;
    for (uint32_t g = 0; g < w->node->groups; g++) {
        real mean = 0, variance = 0, count = (real)(pixels * per);
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = g * per; c < (g + 1) * per; c++) {
                mean += w->in[0][p * channels + c];
            }
        }
        mean /= count;
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = g * per; c < (g + 1) * per; c++) {
                real d = w->in[0][p * channels + c] - mean;
                variance += d * d;
            }
        }
        real inverse = (real)(1.0 / sqrt((double)(variance / count) + (double)w->node->epsilon));
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = g * per; c < (g + 1) * per; c++) {
                real y = (w->in[0][p * channels + c] - mean) * inverse;
                y = y * (w->weight ? w->weight[c] : 1) + (w->bias ? w->bias[c] : 0);
                y = w->in[1] ? y * (1 + w->in[1][c]) + w->in[1][channels + c] : y;
                w->out[p * channels + c] = activate(w->node->activation, y);
            }
        }
    }
}

static void run_layer_norm(const work *w)
{
    uint32_t channels = w->to.c;
    for (size_t p = 0; p < (size_t)w->to.h * w->to.w; p++) {
        const real *x = w->in[0] + p * channels;
        real mean = 0, variance = 0;
        for (uint32_t c = 0; c < channels; c++) {
            mean += x[c];
        }
        mean /= (real)channels;
        for (uint32_t c = 0; c < channels; c++) {
            variance += (x[c] - mean) * (x[c] - mean);
        }
        real inverse = (real)(1.0 / sqrt((double)(variance / (real)channels) + (double)w->node->epsilon));
        for (uint32_t c = 0; c < channels; c++) {
            real y = (x[c] - mean) * inverse * (w->weight ? w->weight[c] : 1) + (w->bias ? w->bias[c] : 0);
            if (w->in[1]) {
                y = y * (1 + w->in[1][w->node->scale_offset + c]) + w->in[1][w->node->shift_offset + c];
            }
            w->out[p * channels + c] = y;
        }
    }
}

/* One query of one head: softmax over the keys, twice through them, so that no scratch is needed. */
static void attend(const work *w, size_t query, uint32_t head)
{
    uint32_t channels = w->to.c, dim = channels / w->node->heads;
    size_t pixels = (size_t)w->to.h * w->to.w, row = 3 * (size_t)channels;
    const real *q = w->in[0] + query * row + (size_t)head * dim;
    const real *k = w->in[0] + channels + (size_t)head * dim, *v = k + channels;
    real *out = w->out + query * channels + (size_t)head * dim;
    real scale = (real)(1.0 / sqrt((double)dim)), top = -INFINITY, total = 0;
    memset(out, 0, dim * sizeof *out);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t j = 0; j < pixels; j++) {
            real dot = 0;
            for (uint32_t c = 0; c < dim; c++) {
                dot += q[c] * k[j * row + c];
            }
            dot *= scale;
            if (pass == 0) {
                top = dot > top ? dot : top;
                continue;
            }
            real p = (real)exp((double)(dot - top));
            total += p;
            for (uint32_t c = 0; c < dim; c++) {
                out[c] += p * v[j * row + c];
            }
        }
    }
    for (uint32_t c = 0; c < dim; c++) {
        out[c] /= total;
    }
}

static void run_attention(const work *w)
{
    for (uint32_t head = 0; head < w->node->heads; head++) {
        for (size_t query = 0; query < (size_t)w->to.h * w->to.w; query++) {
            attend(w, query, head);
        }
    }
}

#include "backend/cpu/reference_embedding.inc.c"
#include "backend/cpu/reference_move.inc.c"

static void run_global_pool(const work *w)
{
    size_t pixels = (size_t)w->from.h * w->from.w;
    for (uint32_t c = 0; c < w->to.c; c++) {
        real sum = 0;
        for (size_t p = 0; p < pixels; p++) {
            sum += w->in[0][p * w->from.c + c];
        }
        w->out[c] = activate(w->node->activation, sum / (real)pixels);
    }
}

static void run_activation(const work *w)
{
    for (size_t i = 0; i < dn_shape_count(w->to); i++) {
        w->out[i] = activate(w->node->activation, w->in[0][i]);
    }
}

static void (*const run_kind[DN_NODE_KINDS])(const work *) = {
    [DN_NODE_AFFINE] = run_affine,
    [DN_NODE_CONV] = run_conv,
    [DN_NODE_LINEAR] = run_linear,
    [DN_NODE_GROUP_NORM] = run_group_norm,
    [DN_NODE_ATTENTION] = run_attention,
    [DN_NODE_TIME_EMBEDDING] = run_time_embedding,
    [DN_NODE_CLASS_EMBEDDING] = run_class_embedding,
    [DN_NODE_UPSAMPLE_NEAREST2] = run_upsample,
    [DN_NODE_AVERAGE_POOL2] = run_average_pool,
    [DN_NODE_CONCAT] = run_concat,
    [DN_NODE_GLOBAL_POOL] = run_global_pool,
    [DN_NODE_ACTIVATION] = run_activation,
    [DN_NODE_LAYER_NORM] = run_layer_norm,
    [DN_NODE_CLASS_SINUSOID] = run_class_sinusoid,
    [DN_NODE_FOURIER_EMBEDDING] = run_fourier_embedding,
    [DN_NODE_TIME_TABLE] = run_time_table,
    [DN_NODE_UPSAMPLE_FIR2] = run_fir,
    [DN_NODE_DOWNSAMPLE_FIR2] = run_fir,
    [DN_NODE_POSITION] = run_position,
    [DN_NODE_UNPATCHIFY] = run_unpatchify,
    [DN_NODE_DIVIDE_BY_TIME] = run_divide_by_time,
};

dn_status NAME(dn_reference_table)(real ***out, const dn_plan *plan, uint32_t row_count, dn_error *error)
{
    size_t head = plan->value_count * sizeof(real *), total = 0;
    head = (head + 63) / 64 * 64;
    for (uint32_t v = 0; v < plan->value_count; v++) {
        total += row_count * dn_shape_count(plan->values[v].shape);
    }
    real **table = calloc(1, head + total * sizeof(real));
    if (!table) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the values of %u rows", row_count);
    }
    real *next = (real *)(void *)((char *)table + head);
    for (uint32_t v = 0; v < plan->value_count; v++) {
        table[v] = next;
        next += row_count * dn_shape_count(plan->values[v].shape);
    }
    *out = table;
    return DN_OK;
}

static void run_node(const dn_plan *plan, const dn_node *node, const real *const *weights, const dn_reference_row *rows, uint32_t row_count,
                     real *const *table)
{
    for (uint32_t r = 0; r < row_count; r++) {
        work w = {.plan = plan, .node = node, .row = &rows[r], .to = plan->values[node->out].shape};
        w.out = table[node->out] + r * dn_shape_count(w.to);
        for (int i = 0; i < 3; i++) {
            if (node->in[i] != DN_NONE) {
                w.in[i] = table[node->in[i]] + r * dn_shape_count(plan->values[node->in[i]].shape);
            }
        }
        w.from = node->in[0] != DN_NONE ? plan->values[node->in[0]].shape : (dn_shape){0};
        w.weight = node->weight != DN_NONE ? weights[node->weight] : NULL;
        w.bias = node->bias != DN_NONE ? weights[node->bias] : NULL;
        run_kind[node->kind](&w);
    }
}

dn_status NAME(dn_reference_run)(const dn_plan *plan, const real *const *weights, const real *samples, const dn_reference_row *rows,
                                 uint32_t row_count, real *const *table, dn_error *error)
{
    for (uint32_t r = 0; r < row_count; r++) {
        if (plan->time_rows && !(rows[r].time >= 0.0 && rows[r].time < plan->time_rows && rows[r].time == floor(rows[r].time))) {
            return dn_fail(error, DN_INVALID, "the time %g of row %u is none of the table's %u", rows[r].time, r, plan->time_rows);
        }
        for (uint32_t i = 0; plan->class_rows && i < rows[r].condition.count; i++) {
            if (rows[r].condition.classes[i] >= plan->class_rows) {
                return dn_fail(error, DN_INVALID, "class %u of row %u is outside the table of %u", rows[r].condition.classes[i], r,
                               plan->class_rows);
            }
        }
    }
    memcpy(table[plan->input], samples, row_count * dn_shape_count(plan->values[plan->input].shape) * sizeof(real));
    for (uint32_t n = 0; n < plan->node_count; n++) {
        run_node(plan, &plan->nodes[n], weights, rows, row_count, table);
    }
    return DN_OK;
}
