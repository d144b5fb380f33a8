/* Shared by the tests of kernels: activations with exact copies in double, and what every kernel must keep.
 *
 * Inputs have NaN wherever a kernel has no business: padding channels, the gaps between rows, memory around them. Outputs begin as 0xFF bytes:
 * afterwards each wanted element is near the reference, padding channels are zeros, all else is as it was. Every schedule of threads gives
 * the same bytes, and a row alone the bytes that it has among others. Single-threaded. */
#ifndef DN_TESTS_KERNELS_CHECK_H
#define DN_TESTS_KERNELS_CHECK_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "tests/test.h"

#include "backend/cuda/kernels/launch.h"
#include "base/half.h"
#include "tests/cuda/emulator/schedule.h"

static uint32_t draw_state = 20240607;

static inline uint32_t draw(uint32_t low, uint32_t high)
{
    draw_state = draw_state * 1664525u + 1013904223u;
    return low + (draw_state >> 8) % (high - low + 1);
}

static inline float draw_float(void)
{
    return (float)draw(0, 2000000) / 1000000.0f - 1.0f;
}

static inline void *need(size_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!memory)
        abort();
    memset(memory, 0xFF, (bytes + 511) / 256 * 256);
    return memory;
}

/* One value of some rows. */
typedef struct tensor {
    dn_cuda_type type;
    uint32_t rows;
    dn_cuda_view view;
    unsigned char *memory;
    size_t bytes;
    double *exact; /* [rows][h][w][c]: of inputs what they are, of outputs what they should be */
} tensor;

static inline size_t size_of(dn_cuda_type type)
{
    return type == DN_CUDA_F32 ? 4 : 2;
}

static inline size_t tensor_count(const tensor *t)
{
    return (size_t)t->rows * t->view.h * t->view.w * t->view.c;
}

/* Bytes from the memory's start to an element. */
static inline size_t tensor_at(const tensor *t, uint32_t row, size_t pixel, uint32_t channel)
{
    size_t start = (size_t)((unsigned char *)t->view.data - t->memory);
    return start + (row * t->view.row_pitch + pixel * t->view.pitch + channel) * size_of(t->type);
}

static inline double tensor_get(const tensor *t, uint32_t row, size_t pixel, uint32_t channel)
{
    const unsigned char *at = t->memory + tensor_at(t, row, pixel, channel);
    float value;
    uint16_t half;
    if (t->type == DN_CUDA_F32) {
        memcpy(&value, at, sizeof value);
        return (double)value;
    }
    memcpy(&half, at, sizeof half);
    return (double)dn_bf16_to_f32(half);
}

static inline void tensor_put(tensor *t, uint32_t row, size_t pixel, uint32_t channel, float value)
{
    unsigned char *at = t->memory + tensor_at(t, row, pixel, channel);
    uint16_t half = dn_f32_to_bf16(value);
    memcpy(at, t->type == DN_CUDA_F32 ? (void *)&value : (void *)&half, size_of(t->type));
}

/* All 0xFF: NaN. `odd`: neither aligned nor of a pitch that chunks would need. */
static inline tensor tensor_make(dn_cuda_type type, uint32_t rows, uint32_t h, uint32_t w, uint32_t c, bool odd)
{
    tensor t = {.type = type, .rows = rows, .view = {.h = h, .w = w, .c = c}};
    t.view.pitch = (c + 7) / 8 * 8 + (odd ? 3 : draw(0, 3) == 0 ? 8 : 0);
    t.view.row_pitch = (uint64_t)h * w * t.view.pitch + (odd ? 5 : 8 * draw(0, 2));
    t.bytes = (t.rows * t.view.row_pitch + 64) * size_of(type);
    t.memory = need(t.bytes);
    t.view.data = t.memory + (odd ? 3 : 16) * size_of(type);
    t.exact = malloc((tensor_count(&t) + 1) * sizeof *t.exact);
    if (!t.exact)
        abort();
    return t;
}

static inline void tensor_free(tensor *t)
{
    free(t->memory);
    free(t->exact);
    *t = (tensor){0};
}

/* Numbers around `middle`. */
static inline void tensor_fill(tensor *t, float middle, float spread)
{
    size_t i = 0, pixels = (size_t)t->view.h * t->view.w;
    for (uint32_t r = 0; r < t->rows; r++) {
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = 0; c < t->view.c; c++) {
                tensor_put(t, r, p, c, middle + spread * draw_float());
                t->exact[i++] = tensor_get(t, r, p, c);
            }
        }
    }
}

static inline tensor tensor_input(dn_cuda_type type, uint32_t rows, uint32_t h, uint32_t w, uint32_t c, bool odd)
{
    tensor t = tensor_make(type, rows, h, w, c, odd);
    tensor_fill(&t, 0.25f, 2.0f);
    return t;
}

/* An output where an input already is. */
static inline tensor tensor_like(const tensor *of)
{
    tensor t = tensor_make(of->type, of->rows, of->view.h, of->view.w, of->view.c, false);
    free(t.memory);
    t.view = of->view;
    t.bytes = of->bytes;
    t.memory = need(t.bytes);
    t.view.data = t.memory + ((unsigned char *)of->view.data - of->memory);
    return t;
}

static inline dn_cuda_view view_from(const tensor *t, uint32_t row)
{
    dn_cuda_view view = t->view;
    if (view.data)
        view.data = (unsigned char *)view.data + row * view.row_pitch * size_of(t->type);
    return view;
}

static inline double *exact_at(const tensor *t, uint32_t row, size_t pixel)
{
    return t->exact + ((size_t)row * t->view.h * t->view.w + pixel) * t->view.c;
}

/* ---- The checks. Each answers NULL, or what is wrong. */
static char check_why[256];

static inline bool is_ff(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != 0xFF)
            return false;
    }
    return true;
}

/* Padding is zeros and nothing around it was written. */
static inline const char *check_edges(const tensor *t)
{
    size_t size = size_of(t->type), pixels = (size_t)t->view.h * t->view.w, end = tensor_at(t, 0, 0, 0);
    static const unsigned char zeros[4];
    if (!is_ff(t->memory, end))
        return "it wrote before its output";
    for (uint32_t r = 0; r < t->rows; r++) {
        if (!is_ff(t->memory + end, tensor_at(t, r, 0, 0) - end))
            return "it wrote between rows";
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = t->view.c; c < t->view.pitch; c++) {
                if (memcmp(t->memory + tensor_at(t, r, p, c), zeros, size) != 0)
                    return "a padding channel is not zero";
            }
        }
        end = tensor_at(t, r, pixels, 0);
    }
    return is_ff(t->memory + end, t->bytes - end) ? NULL : "it wrote behind its output";
}

/* Against `exact`, relative to its largest element. */
static inline const char *check_values(const tensor *t, double tolerance)
{
    double largest = 1e-3, worst = 0.0;
    size_t pixels = (size_t)t->view.h * t->view.w;
    for (size_t i = 0; i < tensor_count(t); i++)
        largest = fmax(largest, fabs(t->exact[i]));
    for (uint32_t r = 0; r < t->rows; r++) {
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = 0; c < t->view.c; c++) {
                double difference = fabs(tensor_get(t, r, p, c) - exact_at(t, r, p)[c]) / largest;
                worst = difference <= worst ? worst : difference; /* NaN stays */
            }
        }
    }
    if (worst <= tolerance)
        return NULL;
    snprintf(check_why, sizeof check_why, "off by %.3g of its largest element (%ux%ux%u, %u rows, %s)", worst, t->view.h, t->view.w, t->view.c,
             t->rows, t->type == DN_CUDA_F32 ? "float" : "bfloat16");
    return check_why;
}

/* Runs a kernel over rows first .. first + launch->rows - 1 of its tensors; an error number. */
typedef int run_function(void *what, const dn_cuda_launch *launch, uint32_t first);

typedef struct trial {
    dn_cuda_type type;
    uint32_t rows;
    run_function *run;
    void *what;
    tensor *out[2]; /* NULL: none */
    double tolerance;
} trial;

static inline void poison_outputs(const trial *t)
{
    for (int i = 0; i < 2 && t->out[i]; i++)
        memset(t->out[i]->memory, 0xFF, t->out[i]->bytes);
}

static inline int trial_launch(const trial *t, uint32_t first, uint32_t rows)
{
    dn_cuda_launch launch = {.stream = NULL, .type = t->type, .rows = rows};
    int refused = t->run(t->what, &launch, first);
    int failed = (int)cudaDeviceSynchronize(); /* work waits until then */
    return refused ? refused : failed;
}

/* Each row alone writes what it wrote among the others, and nothing else. */
static inline const char *check_rows_alone(const trial *t, unsigned char *const *whole)
{
    for (uint32_t r = 0; r < t->rows; r++) {
        poison_outputs(t);
        if (trial_launch(t, r, 1) != DN_CUDA_LAUNCH_OK)
            return "a row alone was refused";
        for (int i = 0; i < 2 && t->out[i]; i++) {
            const tensor *out = t->out[i];
            size_t from = tensor_at(out, r, 0, 0), end = tensor_at(out, r, (size_t)out->view.h * out->view.w, 0);
            if (memcmp(out->memory + from, whole[i] + from, end - from) != 0)
                return "a row alone has other bytes than among others";
            if (!is_ff(out->memory, from) || !is_ff(out->memory + end, out->bytes - end))
                return "a row alone wrote into another's memory";
        }
    }
    return NULL;
}

/* All of it: values, edges, schedules, rows alone. Leaves the outputs as a whole run writes them. */
static inline const char *check_trial(const trial *t)
{
    unsigned char *whole[2] = {NULL, NULL};
    const char *why = NULL;
    for (int order = 0; order < CUEMU_ORDERS && !why; order++) {
        cuemu_schedule((cuemu_order)order);
        poison_outputs(t);
        if (trial_launch(t, 0, t->rows) != DN_CUDA_LAUNCH_OK)
            why = "the launch was refused";
        for (int i = 0; i < 2 && t->out[i] && !why; i++) {
            if (order == 0) {
                whole[i] = memcpy(need(t->out[i]->bytes), t->out[i]->memory, t->out[i]->bytes);
                why = check_edges(t->out[i]);
                why = why ? why : check_values(t->out[i], t->tolerance);
            } else if (memcmp(whole[i], t->out[i]->memory, t->out[i]->bytes) != 0) {
                why = "another order of threads gives other bytes";
            }
        }
    }
    cuemu_schedule(CUEMU_FORWARD);
    why = why ? why : check_rows_alone(t, whole);
    for (int i = 0; i < 2 && t->out[i] && whole[i]; i++)
        memcpy(t->out[i]->memory, whole[i], t->out[i]->bytes);
    free(whole[0]);
    free(whole[1]);
    return why;
}

static inline double tolerance_of(dn_cuda_type type)
{
    return type == DN_CUDA_F32 ? 2e-6 : 4e-3;
}

/* Shapes that are awkward: one pixel, one channel, primes, and one of a transformer. */
static inline void draw_shape(uint32_t *h, uint32_t *w, uint32_t *c)
{
    static const uint32_t channels[] = {1, 3, 5, 8, 16, 33, 72, 130};
    static const uint32_t sides[] = {1, 2, 3, 5, 8, 17};
    *h = sides[draw(0, 5)];
    *w = sides[draw(0, 5)];
    *c = channels[draw(0, 7)];
}

#endif
