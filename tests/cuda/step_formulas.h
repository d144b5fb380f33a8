/* What every kind of step means, for one row: the words of launch.h and libraries.h as loops. Included by step_interpreter.h. */
#ifndef DN_TESTS_CUDA_STEP_FORMULAS_H
#define DN_TESTS_CUDA_STEP_FORMULAS_H

#include "backend/cpu/reference.h"

typedef struct formula_operands {
    interpreter *m;
    const dn_cuda_step *step;
    const dn_node *node;
    const dn_row *row;
    field in[DN_CUDA_STEP_INPUTS], out[2];
    const void *weight, *bias;
} formula_operands;

static inline float activated(dn_activation activation, float x)
{
    return activation == DN_ACT_NONE ? x : (float)dn_reference_activation(activation, (double)x);
}

/* Element c of a vector, or of a value's pixel p; 0: there is none. */
static inline float element(field f, size_t p, uint32_t c)
{
    return f.at ? f.at[p * f.pitch + c] : 0.0f;
}

static inline void formula_gather(const formula_operands *o)
{
    const float *in = o->m->samples + o->row->in_offset;
    for (size_t p = 0; p < o->out[0].pixels; p++)
        for (uint32_t c = 0; c < o->out[0].c; c++)
            o->out[0].at[p * o->out[0].pitch + c] = o->row->in_scale * in[c * o->out[0].pixels + p];
}

static inline void formula_scatter(const formula_operands *o)
{
    for (size_t p = 0; p < o->in[0].pixels; p++)
        for (uint32_t c = 0; c < o->in[0].c; c++)
            o->m->answers[o->row->out_offset + c * o->in[0].pixels + p] = element(o->in[0], p, c);
}

/* One output of a convolution over padded channels; a matrix product is one of a single tap. */
static inline double product_sum(const formula_operands *o, const dn_cuda_product_spec *s, uint32_t y, uint32_t x, uint32_t n)
{
    const uint32_t kernel = s->kernel ? s->kernel : 1, stride = s->stride ? s->stride : 1;
    const float *filter = (const float *)o->weight + (size_t)n * kernel * kernel * s->k;
    double sum = 0.0;
    for (uint32_t tap = 0; tap < kernel * kernel; tap++) {
        int64_t iy = (int64_t)y * stride + tap / kernel - s->pad_top, ix = (int64_t)x * stride + tap % kernel - s->pad_left;
        if (iy < 0 || ix < 0 || iy >= s->h || ix >= s->w)
            continue;
        const float *pixel = o->in[0].at + ((size_t)iy * s->w + (size_t)ix) * s->k;
        float lanes[DN_CUDA_CHANNEL_UNIT] = {0.0f}; /* several sums, for speed */
        for (uint32_t k = 0; k < s->k; k += DN_CUDA_CHANNEL_UNIT)
            for (uint32_t j = 0; j < DN_CUDA_CHANNEL_UNIT; j++)
                lanes[j] += pixel[k + j] * filter[(size_t)tap * s->k + k + j];
        for (uint32_t j = 0; j < DN_CUDA_CHANNEL_UNIT; j++)
            sum += (double)lanes[j];
    }
    return sum;
}

/* Whether operands are what the spec says; each at 16 bytes. */
static inline bool spec_fits(const formula_operands *o, const dn_cuda_product_spec *s)
{
    const dn_cuda_slot_info *slots = o->m->compiled->slots;
    const dn_cuda_slot_info *in = &slots[o->step->in[0]], *out = &slots[o->step->out[0]];
    bool fits = s->h == in->h && s->w == in->w && s->type == o->m->compiled->type && (uintptr_t)o->in[0].at % 16 == 0;
    fits = fits && out->view_at == 0 && out->row_pitch == (uint64_t)out->h * out->w * out->pitch && s->out_row_pitch == 0;
    fits = fits && in->row_pitch == (s->in_row_pitch ? s->in_row_pitch : (uint64_t)in->h * in->w * in->pitch);
    if (s->kind == DN_CUDA_SDPA)
        return fits && s->in_pitch == in->pitch && out->pitch == s->heads * s->head_dim && in->c == 3 * out->c;
    fits = fits && s->k == in->pitch && s->n == out->pitch && s->bias == (o->bias != NULL) && s->residual == (o->in[1].at != NULL);
    fits = fits && (!o->in[1].at || slots[o->step->in[1]].row_pitch == out->row_pitch) && padding_is_clear(o->in[0]);
    if (s->kind == DN_CUDA_CONV)
        return fits && !s->gelu_tanh && (s->residual || s->scale == 0.0f) && s->kernel > 0 && s->out_h == out->h && s->out_w == out->w;
    return fits && s->kernel == 0 && out->h == in->h && out->w == in->w;
}

static inline void formula_attention(const formula_operands *o)
{
    const uint32_t channels = o->out[0].c, dim = channels / o->node->heads;
    const size_t pixels = o->out[0].pixels;
    double *scores = malloc(pixels * sizeof *scores);
    for (size_t at = 0; scores && at < pixels * o->node->heads; at++) {
        const size_t query = at / o->node->heads, head = at % o->node->heads * dim;
        double top = -INFINITY, total = 0.0;
        for (size_t j = 0; j < pixels; j++) {
            scores[j] = 0.0;
            for (size_t c = head; c < head + dim; c++)
                scores[j] += (double)o->in[0].at[query * o->in[0].pitch + c] * (double)o->in[0].at[j * o->in[0].pitch + channels + c];
            scores[j] /= sqrt((double)dim);
            top = fmax(top, scores[j]);
        }
        for (size_t j = 0; j < pixels; j++)
            total += scores[j] = exp(scores[j] - top);
        for (size_t c = head; c < head + dim; c++) {
            double sum = 0.0;
            for (size_t j = 0; j < pixels; j++)
                sum += scores[j] * (double)o->in[0].at[j * o->in[0].pitch + 2 * channels + c];
            o->out[0].at[query * o->out[0].pitch + c] = (float)(sum / total);
        }
    }
    free(scores);
}

static inline void formula_product(const formula_operands *o)
{
    const dn_cuda_product_spec *s = &o->m->compiled->products[o->step->product];
    if (!spec_fits(o, s)) {
        complain(o->m, "%s: the product is not what its operands are", o->step->name);
        return;
    }
    if (s->kind == DN_CUDA_SDPA) {
        formula_attention(o);
        return;
    }
    for (size_t p = 0; p < o->out[0].pixels; p++) {
        for (uint32_t n = 0; n < s->n; n++) {
            double sum = product_sum(o, s, (uint32_t)(p / o->out[0].w), (uint32_t)(p % o->out[0].w), n);
            sum = (sum + (double)element(o->in[1], p, n)) * (s->scale != 0.0f ? (double)s->scale : 1.0);
            sum += s->bias ? (double)((const float *)o->bias)[n] : 0.0;
            o->out[0].at[p * s->n + n] = activated(s->gelu_tanh ? DN_ACT_GELU_TANH : DN_ACT_NONE, (float)sum);
        }
    }
    if (!padding_is_clear(o->out[0]))
        complain(o->m, "%s: a product of zeros is not zero", o->step->name);
}

static inline void formula_finish(const formula_operands *o)
{
    const dn_cuda_step *step = o->step;
    for (size_t p = 0; p < o->out[0].pixels; p++) {
        for (uint32_t c = 0; c < o->out[0].c; c++) {
            float residual = element(o->in[2], p, c);
            float y = element(o->in[0], p, c) + element(o->in[1], 0, c) + (step->residual_last ? 0.0f : residual);
            y = activated(step->activated ? o->node->activation : DN_ACT_NONE, y * (step->scaled ? o->node->scale : 1.0f));
            y = (o->in[3].at ? y * o->in[3].at[c] : y) + (step->residual_last ? residual : 0.0f);
            o->out[0].at[p * o->out[0].pitch + c] = y;
        }
    }
}

static inline void formula_group_norm(const formula_operands *o)
{
    const float *weight = o->weight, *bias = o->bias;
    const uint32_t channels = o->out[0].c, per = channels / o->node->groups;
    for (uint32_t first = 0; first < channels; first += per) {
        double sum = 0.0, squares = 0.0, count = (double)(o->in[0].pixels * per);
        for (size_t p = 0; p < o->in[0].pixels; p++)
            for (uint32_t c = first; c < first + per; c++)
                sum += (double)(element(o->in[0], p, c) + element(o->in[2], 0, c));
        for (size_t p = 0; p < o->in[0].pixels; p++)
            for (uint32_t c = first; c < first + per; c++)
                squares += pow((double)(element(o->in[0], p, c) + element(o->in[2], 0, c)) - sum / count, 2.0);
        double inverse = 1.0 / sqrt(squares / count + (double)o->node->epsilon);
        for (size_t p = 0; p < o->in[0].pixels; p++) {
            for (uint32_t c = first; c < first + per; c++) {
                float y = (float)(((double)(element(o->in[0], p, c) + element(o->in[2], 0, c)) - sum / count) * inverse);
                y = y * weight[c] + bias[c];
                y = o->in[1].at ? y * (1.0f + o->in[1].at[c]) + o->in[1].at[channels + c] : y;
                o->out[0].at[p * o->out[0].pitch + c] = activated(o->node->activation, y);
            }
        }
    }
}

/* in, gate 3, residual 4: the sum goes to out[1], which may be the residual. */
static inline void formula_layer_norm(const formula_operands *o)
{
    const float *weight = o->weight, *bias = o->bias;
    const uint32_t channels = o->out[0].c;
    for (size_t p = 0; p < o->out[0].pixels; p++) {
        float *line = o->in[0].at + p * o->in[0].pitch;
        double sum = 0.0, squares = 0.0;
        for (uint32_t c = 0; c < channels && o->in[3].at; c++)
            o->out[1].at[p * o->out[1].pitch + c] = element(o->in[4], p, c) + o->in[3].at[c] * line[c];
        if (o->in[3].at)
            line = o->out[1].at + p * o->out[1].pitch;
        for (uint32_t c = 0; c < channels; c++)
            sum += (double)line[c];
        for (uint32_t c = 0; c < channels; c++)
            squares += pow((double)line[c] - sum / channels, 2.0);
        double inverse = 1.0 / sqrt(squares / channels + (double)o->node->epsilon);
        for (uint32_t c = 0; c < channels; c++) {
            float y = (float)(((double)line[c] - sum / channels) * inverse);
            y = y * (weight ? weight[c] : 1.0f) + (bias ? bias[c] : 0.0f);
            o->out[0].at[p * o->out[0].pitch + c] = o->in[2].at ? y * (1.0f + o->in[2].at[c]) + o->in[1].at[c] : y;
        }
    }
}

/* sin and cos of `angle`, times `weight`, added to place i. */
static inline void add_wave(const formula_operands *o, uint32_t i, double angle, double weight)
{
    const uint32_t half = o->out[0].c / 2;
    o->out[0].at[i] += (float)(weight * (o->node->flip_sin_to_cos ? cos(angle) : sin(angle)));
    o->out[0].at[half + i] += (float)(weight * (o->node->flip_sin_to_cos ? sin(angle) : cos(angle)));
}

static inline void formula_waves(const formula_operands *o)
{
    const double *frequencies = o->weight;
    memset(o->out[0].at, 0, o->out[0].c * sizeof(float));
    for (uint32_t i = 0; i < o->out[0].c / 2; i++) {
        if (o->step->kind == DN_CUDA_STEP_TIME_EMBEDDING)
            add_wave(o, i, (double)o->row->time * frequencies[i], 1.0);
        for (uint32_t k = 0; o->step->kind == DN_CUDA_STEP_CLASS_SINUSOID && k < o->row->condition.count; k++)
            add_wave(o, i, o->row->condition.classes[k] * frequencies[i], (double)o->row->condition.weights[k]);
    }
}

static inline void formula_fourier(const formula_operands *o)
{
    double f = o->node->log_time ? log((double)o->row->time) : (double)o->row->time;
    memset(o->out[0].at, 0, o->out[0].c * sizeof(float));
    for (uint32_t i = 0; i < o->out[0].c / 2; i++)
        add_wave(o, i, 2.0 * 3.14159265358979323846 * f * (double)((const float *)o->weight)[i], 1.0);
}

static inline void formula_table(const formula_operands *o)
{
    const float *table = o->weight;
    const dn_condition time = {.count = 1, .classes = {(uint32_t)o->row->time}, .weights = {1.0f}};
    const dn_condition *rows = o->step->kind == DN_CUDA_STEP_TIME_TABLE ? &time : &o->row->condition;
    for (uint32_t c = 0; c < o->out[0].c; c++) {
        o->out[0].at[c] = 0.0f;
        for (uint32_t k = 0; k < rows->count; k++)
            o->out[0].at[c] += rows->weights[k] * table[(size_t)rows->classes[k] * o->out[0].c + c];
    }
}

/* Every element from the same one of in[0], and of a table. */
static inline void formula_each(const formula_operands *o)
{
    for (size_t p = 0; p < o->out[0].pixels; p++) {
        for (uint32_t c = 0; c < o->out[0].c; c++) {
            float x = element(o->in[0], p, c);
            if (o->step->kind == DN_CUDA_STEP_AFFINE)
                x = o->node->scale * x + o->node->shift;
            else if (o->step->kind == DN_CUDA_STEP_ACTIVATE)
                x = activated(o->node->activation, x);
            else if (o->step->kind == DN_CUDA_STEP_POSITION)
                x += ((const float *)o->weight)[p * o->out[0].c + c];
            else
                x /= o->row->time;
            o->out[0].at[p * o->out[0].pitch + c] = x;
        }
    }
}

static inline void formula_move(const formula_operands *o)
{
    const field in = o->in[0], out = o->out[0];
    for (size_t p = 0; p < out.pixels; p++) {
        const size_t y = p / out.w, x = p % out.w, patch = o->node->kernel;
        for (uint32_t c = 0; c < out.c; c++) {
            float *to = &out.at[p * out.pitch + c];
            if (o->step->kind == DN_CUDA_STEP_UPSAMPLE_NEAREST2)
                *to = element(in, y / 2 * in.w + x / 2, c);
            else if (o->step->kind == DN_CUDA_STEP_AVERAGE_POOL2)
                *to = (element(in, 2 * y * in.w + 2 * x, c) + element(in, 2 * y * in.w + 2 * x + 1, c) +
                       element(in, (2 * y + 1) * in.w + 2 * x, c) + element(in, (2 * y + 1) * in.w + 2 * x + 1, c)) /
                      4.0f;
            else if (o->step->kind == DN_CUDA_STEP_UNPATCHIFY)
                *to = element(in, y / patch * in.w + x / patch, (uint32_t)(y % patch * patch + x % patch) * out.c + c);
            else
                *to = c < in.c ? element(in, p, c) : element(o->in[1], p, c - in.c);
        }
    }
}

/* What tap k of output j reads along one axis; -1: a zero. */
static inline int64_t fir_tap(bool up, size_t j, size_t k, uint32_t before, uint32_t side)
{
    int64_t at = (int64_t)(up ? j : 2 * j) + (int64_t)k - before;
    if (at < 0 || (up && at % 2 != 0) || (up ? at / 2 : at) >= side)
        return -1;
    return up ? at / 2 : at;
}

static inline void formula_fir(const formula_operands *o)
{
    static const double taps[4] = {0.125, 0.375, 0.375, 0.125};
    const field in = o->in[0], out = o->out[0];
    bool up = o->node->kind == DN_NODE_UPSAMPLE_FIR2;
    for (size_t at = 0; at < out.pixels * out.c; at++) {
        size_t p = at / out.c;
        double sum = 0.0;
        for (size_t k = 0; k < 16; k++) {
            int64_t y = fir_tap(up, p / out.w, k / 4, o->node->pad_top, in.h), x = fir_tap(up, p % out.w, k % 4, o->node->pad_left, in.w);
            if (y >= 0 && x >= 0)
                sum += taps[k / 4] * taps[k % 4] * (double)element(in, (size_t)y * in.w + (size_t)x, (uint32_t)(at % out.c));
        }
        out.at[p * out.pitch + at % out.c] = (float)(up ? 4.0 * sum : sum);
    }
}

static inline void formula_pool(const formula_operands *o)
{
    for (uint32_t c = 0; c < o->out[0].c; c++) {
        double sum = 0.0;
        for (size_t p = 0; p < o->in[0].pixels; p++)
            sum += (double)element(o->in[0], p, c);
        o->out[0].at[c] = activated(o->node->activation, (float)(sum / (double)o->in[0].pixels));
    }
}

static void (*const formulas[DN_CUDA_STEP_KINDS])(const formula_operands *) = {
    [DN_CUDA_STEP_GATHER] = formula_gather,
    [DN_CUDA_STEP_SCATTER] = formula_scatter,
    [DN_CUDA_STEP_PRODUCT] = formula_product,
    [DN_CUDA_STEP_FINISH] = formula_finish,
    [DN_CUDA_STEP_GROUP_NORM] = formula_group_norm,
    [DN_CUDA_STEP_LAYER_NORM] = formula_layer_norm,
    [DN_CUDA_STEP_ATTENTION] = formula_attention,
    [DN_CUDA_STEP_TIME_EMBEDDING] = formula_waves,
    [DN_CUDA_STEP_CLASS_SINUSOID] = formula_waves,
    [DN_CUDA_STEP_FOURIER_EMBEDDING] = formula_fourier,
    [DN_CUDA_STEP_TIME_TABLE] = formula_table,
    [DN_CUDA_STEP_CLASS_EMBEDDING] = formula_table,
    [DN_CUDA_STEP_AFFINE] = formula_each,
    [DN_CUDA_STEP_ACTIVATE] = formula_each,
    [DN_CUDA_STEP_UPSAMPLE_NEAREST2] = formula_move,
    [DN_CUDA_STEP_AVERAGE_POOL2] = formula_move,
    [DN_CUDA_STEP_FIR2] = formula_fir,
    [DN_CUDA_STEP_POSITION] = formula_each,
    [DN_CUDA_STEP_UNPATCHIFY] = formula_move,
    [DN_CUDA_STEP_DIVIDE_BY_TIME] = formula_each,
    [DN_CUDA_STEP_CONCAT] = formula_move,
    [DN_CUDA_STEP_GLOBAL_POOL] = formula_pool,
};

#endif
