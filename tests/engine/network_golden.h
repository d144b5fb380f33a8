/* Shared by the golden tests of transformers and autoencoders: a case file beside a model, runs of the network, and the
 * comparison of every node that has a module's name. Single-threaded. */
#ifndef DN_TESTS_NETWORK_GOLDEN_H
#define DN_TESTS_NETWORK_GOLDEN_H

#include "tests/test.h"

#include "format/safetensors.h"
#include "model/forward.h"

#define NETWORK_GOLDEN_ROWS_MAX 8

static inline double relative_error(const float *got, const float *expected, size_t count)
{
    double largest = 0.0, difference = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        difference = fmax(difference, fabs((double)got[i] - (double)expected[i]));
    }
    return isfinite(difference) ? difference / fmax(largest, 1e-30) : (double)INFINITY;
}

/* A tensor of the case file as floats, malloc'd; NULL when it is not there. */
static inline float *golden_tensor(const dn_safetensors *file, const char *name, size_t *count)
{
    const dn_tensor_info *info = dn_safetensors_find(file, name);
    float *values = info != NULL ? malloc(info->count * sizeof *values) : NULL;
    if (values == NULL || dn_safetensors_read_f32(file, info, values, NULL) != DN_OK) {
        free(values);
        return NULL;
    }
    if (count != NULL)
        *count = info->count;
    return values;
}

/* What a comparison of activations found. */
typedef struct trace {
    const dn_safetensors *file;
    const dn_plan *plan;
    const char *prefix; /* of module names: only they are compared; "" for all */
    double worst;
    char worst_name[128];
    unsigned compared;
} trace;

/* The node that ends a module: its own name; the name with an activation fused; or the last inside of a block. */
static inline const dn_node *find_node(const dn_plan *plan, const char *module, bool *silu)
{
    char fused[160], table[160], inside[160];
    const dn_node *last = NULL;
    *silu = false;
    snprintf(fused, sizeof fused, "%s+silu", module);
    snprintf(table, sizeof table, "%s.embedding_table", module);
    snprintf(inside, sizeof inside, "%s.", module);
    for (uint32_t n = 0; n < plan->node_count; n++) {
        const char *name = plan->nodes[n].name;
        if (strcmp(name, module) == 0 || strcmp(name, table) == 0)
            return &plan->nodes[n];
        if (strcmp(name, fused) == 0) {
            *silu = true;
            return &plan->nodes[n];
        }
        /* Levels and mid blocks end with their last part; transformer blocks have a node of their own. */
        if ((strstr(module, "blocks.") != NULL || strstr(module, "mid_block") != NULL) && strncmp(module, "transformer", 11) != 0 &&
            strncmp(name, inside, strlen(inside)) == 0)
            last = &plan->nodes[n];
    }
    return last;
}

/* got [C,H,W] against row `row` of an activation stored as [N,C,H,W], or as [N,T,C] for rank 3. */
static inline double node_error(const float *got, const float *expected, const dn_tensor_info *info, dn_shape shape, uint32_t row,
                                bool silu)
{
    const size_t pixels = (size_t)shape.h * shape.w, count = pixels * shape.c;
    double largest = 0.0, difference = 0.0;
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < shape.c; c++) {
            double want = (double)expected[row * count + (info->rank == 3 ? p * shape.c + c : c * pixels + p)];
            want = silu ? want / (1.0 + exp(-want)) : want;
            largest = fmax(largest, fabs(want));
            difference = fmax(difference, fabs((double)got[c * pixels + p] - want));
        }
    }
    return difference / fmax(largest, 1e-30);
}

/* A dn_forward_observer: compares every activation of the case file that a node has. One pass holds all rows. */
static inline dn_status compare_trace(void *payload, dn_forward *forward, uint32_t first, uint32_t count, dn_error *error)
{
    trace *t = payload;
    (void)first;
    for (size_t i = 0; i < dn_safetensors_count(t->file); i++) {
        const dn_tensor_info *info = dn_safetensors_at(t->file, i);
        bool silu = false;
        if (strncmp(info->name, "act/", 4) != 0 || strncmp(info->name + 4, t->prefix, strlen(t->prefix)) != 0)
            continue;
        const dn_node *node = find_node(t->plan, info->name + 4, &silu);
        if (node == NULL)
            continue;
        dn_shape shape = t->plan->values[node->out].shape;
        if (dn_shape_count(shape) * count != info->count)
            return dn_fail(error, DN_INVALID, "%s: another shape", info->name);
        float *expected = golden_tensor(t->file, info->name, NULL), *got = malloc(info->count * sizeof *got);
        dn_status status = DN_OK;
        for (uint32_t r = 0; r < count && status == DN_OK; r++) {
            status = dn_forward_value(forward, node->out, r, got, error);
            double difference = status == DN_OK ? node_error(got, expected, info, shape, r, silu) : 0.0;
            if (!(difference <= t->worst)) {
                t->worst = difference;
                snprintf(t->worst_name, sizeof t->worst_name, "%s", info->name);
            }
        }
        free(expected);
        free(got);
        if (status != DN_OK)
            return status;
        t->compared++;
    }
    return DN_OK;
}

/* Runs `count` rows of samples; answers is malloc'd, NULL on failure. seen: the trace to fill, or NULL. */
static inline float *run_network(const dn_model *model, const dn_forward_rows *rows, trace *seen, dn_error *error)
{
    dn_forward *forward = NULL;
    const dn_plan *plan = model->plan;
    float *answers = malloc(rows->count * dn_shape_count(plan->values[plan->output].shape) * sizeof *answers);
    dn_forward_options options = {.threads = 2, .rows_max = rows->count, .keep_values = seen != NULL};
    dn_status status = dn_forward_open(&forward, model, &options, error);
    if (status == DN_OK)
        status = dn_forward_run(forward, rows, answers, seen != NULL ? compare_trace : NULL, seen, error);
    dn_forward_close(forward);
    if (status != DN_OK) {
        free(answers);
        answers = NULL;
    }
    return answers;
}

#endif
