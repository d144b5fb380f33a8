/* Weights between a checkpoint and a plan. Loading is validation: name, type, shape and finiteness of every tensor are
 * checked, and each refusal names file, tensor and rule. Owns nothing beyond a call; any thread. */
#include "model/weights.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F16_MAX 65504.0f
#define SHAPE_TEXT_BYTES 96

/* Names that older releases of diffusers stored: attention before 0.15, and the first name of a resampling convolution. */
static const struct {
    const char *now, *before;
} old_names[] = {
    {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}, {".conv.", ".Conv2d_0."},
};

/* Writes `name` with its last `from` replaced by `to`; false when `from` is not in it. */
static bool renamed(char out[DN_TENSOR_NAME_BYTES_MAX], const char *name, const char *from, const char *to)
{
    const char *found = NULL;
    for (const char *at = strstr(name, from); at != NULL; at = strstr(at + 1, from))
        found = at;
    if (found == NULL)
        return false;
    int length = snprintf(out, DN_TENSOR_NAME_BYTES_MAX, "%.*s%s%s", (int)(found - name), name, to, found + strlen(from));
    return length > 0 && (size_t)length < DN_TENSOR_NAME_BYTES_MAX;
}

/* Where a part lies by the model's own naming, or under its own name, or under an old one. False: nowhere. */
static bool find_source(const dn_model *model, const dn_tensors *tensors, const char *name, dn_part *out)
{
    out->source = (dn_source){.layout = DN_LAYOUT_PLAIN, .count = 1};
    if (model->naming != NULL) {
        if (!model->naming(model, name, &out->source)) {
            out->source.name[0] = '\0'; /* so that a refusal names the part */
            return false;
        }
        out->info = dn_tensors_find(tensors, out->source.name);
        return out->info != NULL;
    }
    snprintf(out->source.name, sizeof out->source.name, "%s", name);
    out->info = dn_tensors_find(tensors, name);
    for (size_t i = 0; out->info == NULL && i < sizeof old_names / sizeof old_names[0]; i++)
        if (renamed(out->source.name, name, old_names[i].now, old_names[i].before))
            out->info = dn_tensors_find(tensors, out->source.name);
    return out->info != NULL;
}

static void shape_text(char out[SHAPE_TEXT_BYTES], const uint64_t *dims, uint32_t rank)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < rank && used + 1 < SHAPE_TEXT_BYTES; i++)
        used += (size_t)snprintf(out + used, SHAPE_TEXT_BYTES - used, "%s%llu", i ? "," : "", (unsigned long long)dims[i]);
}

static uint32_t part_dims(uint64_t dims[4], const dn_weight_info *weight)
{
    for (uint32_t i = 0; i < weight->rank; i++)
        dims[i] = weight->dims[i];
    dims[0] /= weight->part_count;
    return weight->rank;
}

/* Old attention projections were 1x1 convolutions: trailing dimensions of 1 beyond the plan's rank are dropped. */
static bool shape_agrees(const dn_tensor_info *info, const uint64_t *dims, uint32_t rank)
{
    if (info->rank < rank)
        return false;
    for (uint32_t i = 0; i < info->rank; i++)
        if (info->dims[i] != (i < rank ? dims[i] : 1))
            return false;
    return true;
}

static dn_status check_tensor(const dn_tensor_info *info, const char *path, const uint64_t *dims, uint32_t rank, dn_error *error)
{
    if (info->dtype != DN_F32 && info->dtype != DN_F16 && info->dtype != DN_BF16)
        return dn_fail(error, DN_INVALID, "%s: %s: weights must be F32, F16 or BF16, not %s", path, info->name, dn_dtype_name(info->dtype));
    if (!shape_agrees(info, dims, rank)) {
        char has[SHAPE_TEXT_BYTES], wants[SHAPE_TEXT_BYTES];
        shape_text(has, info->dims, info->rank);
        shape_text(wants, dims, rank);
        return dn_fail(error, DN_INVALID, "%s: %s: shape must be [%s] as config.json says, not [%s]", path, info->name, wants, has);
    }
    return DN_OK;
}

static dn_status find_part(dn_part *out, const dn_model *model, const dn_tensors *tensors, const char *name, const dn_weight_info *weight,
                           dn_error *error)
{
    const char *path = dn_tensors_path(tensors);
    out->rank = part_dims(out->dims, weight);
    if (!find_source(model, tensors, name, out))
        return dn_fail(error, DN_INVALID, "%s: %s: the tensor is missing", path,
                       model->naming != NULL && out->source.name[0] != '\0' ? out->source.name : name);
    const dn_source *source = &out->source;
    bool heads = source->layout == DN_LAYOUT_HEADS_ROWS || source->layout == DN_LAYOUT_HEADS_INNER;
    if (source->index >= source->count || (heads && (source->heads == 0 || out->dims[0] % source->heads != 0)) ||
        (source->layout == DN_LAYOUT_TRANSPOSED && out->rank != 2))
        return dn_fail(error, DN_INTERNAL, "%s: %s: its layout does not fit its shape", path, name);
    uint64_t dims[4] = {0};
    dn_part_stored_dims(out, dims);
    return check_tensor(out->info, path, dims, out->rank, error);
}

static dn_status read_part(const dn_part *part, const dn_tensors *tensors, uint64_t count, float *out, dn_error *error)
{
    dn_status status = dn_part_read(part, tensors, out, error);
    if (status != DN_OK)
        return status;
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(out[i]))
            return dn_fail(error, DN_NUMERIC, "%s: %s: element %llu is %s", dn_tensors_path(tensors), part->info->name,
                           (unsigned long long)i, isnan(out[i]) ? "NaN" : "infinite");
    return DN_OK;
}

/* What any format may hold beside the network: a position table that was stored though it is computed, counters, and a second name
 * of a convolution. */
static bool is_leftover(const dn_model *model, const dn_tensors *tensors, const char *name)
{
    static const char counter[] = ".num_batches_tracked";
    char now[DN_TENSOR_NAME_BYTES_MAX];
    size_t bytes = strlen(name), counter_bytes = sizeof counter - 1;
    return strcmp(name, "pos_embed.pos_embed") == 0 || (bytes > counter_bytes && strcmp(name + bytes - counter_bytes, counter) == 0) ||
           (renamed(now, name, ".Conv2d_0.", ".conv.") && dn_tensors_find(tensors, now) != NULL) ||
           (model->leftover != NULL && model->leftover(model, name));
}

static int compare_pointers(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    return x < y ? -1 : x > y;
}

/* Whatever the plan did not take must be a known leftover. `taken` holds the names of the tensors taken, as the file owns them. */
static dn_status refuse_extra(const dn_model *model, const dn_tensors *tensors, const char **taken, size_t taken_count, dn_error *error)
{
    qsort(taken, taken_count, sizeof *taken, compare_pointers);
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const char *name = dn_tensors_at(tensors, i)->name;
        if (bsearch(&name, taken, taken_count, sizeof *taken, compare_pointers) == NULL && !is_leftover(model, tensors, name))
            return dn_fail(error, DN_INVALID, "%s: %s: the network that config.json describes has no such tensor", dn_tensors_path(tensors),
                           name);
    }
    return DN_OK;
}

static size_t count_parts(const dn_plan *plan)
{
    size_t parts = 0;
    for (uint32_t w = 0; w < plan->weight_count; w++)
        parts += plan->weights[w].part_count;
    return parts;
}

/* Every tensor is there in its shape, and no other: before memory is taken for what a configuration merely claims. */
dn_status dn_weights_check(const dn_model *model, const dn_tensors *tensors, dn_error *error)
{
    const dn_plan *plan = model->plan;
    size_t taken_count = 0;
    const char **taken = calloc(count_parts(plan) + 1, sizeof *taken);
    if (taken == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", dn_tensors_path(tensors));
    dn_status status = DN_OK;
    for (uint32_t w = 0; w < plan->weight_count && status == DN_OK; w++) {
        const dn_weight_info *weight = &plan->weights[w];
        for (uint32_t p = 0; p < weight->part_count && status == DN_OK; p++) {
            dn_part part = {0};
            status = find_part(&part, model, tensors, weight->parts[p], weight, error);
            if (status == DN_OK)
                taken[taken_count++] = part.info->name;
        }
    }
    if (status == DN_OK)
        status = refuse_extra(model, tensors, taken, taken_count, error);
    free(taken);
    return status;
}

static dn_status read_all(dn_weights *weights, const dn_model *model, const dn_tensors *tensors, dn_error *error)
{
    const dn_plan *plan = model->plan;
    dn_status status = DN_OK;
    for (uint32_t w = 0; w < plan->weight_count && status == DN_OK; w++) {
        const dn_weight_info *weight = &plan->weights[w];
        uint64_t count = weight->count / weight->part_count;
        for (uint32_t p = 0; p < weight->part_count && status == DN_OK; p++) {
            dn_part part = {0};
            status = find_part(&part, model, tensors, weight->parts[p], weight, error);
            if (status == DN_OK)
                status = read_part(&part, tensors, count, weights->data[w] + p * count, error);
        }
    }
    return status;
}

dn_status dn_weights_read(dn_weights **out, const dn_model *model, const dn_tensors *tensors, dn_error *error)
{
    dn_weights *weights = NULL;
    dn_status status = dn_weights_check(model, tensors, error);
    if (status == DN_OK)
        status = dn_weights_create(&weights, model->plan, error);
    if (status == DN_OK)
        status = read_all(weights, model, tensors, error);
    if (status == DN_OK) {
        *out = weights;
        weights = NULL;
    }
    dn_weights_free(weights);
    return status;
}

static dn_status check_storable(const float *values, uint64_t count, int dtype, const char *name, dn_error *error)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(values[i]))
            return dn_fail(error, DN_NUMERIC, "%s: element %llu is not finite and is not saved", name, (unsigned long long)i);
        if (dtype == DN_F16 && fabsf(values[i]) > F16_MAX)
            return dn_fail(error, DN_NUMERIC, "%s: element %llu is %g, more than F16 holds", name, (unsigned long long)i,
                           (double)values[i]);
    }
    return DN_OK;
}

/* One part under its own name and under the further ones that diffusers wants. */
static dn_status add_part(dn_safetensors_writer *writer, const dn_model *model, uint32_t w, uint32_t p, dn_dtype dtype, dn_error *error)
{
    const dn_weight_info *weight = &model->plan->weights[w];
    uint64_t dims[4] = {0}, count = weight->count / weight->part_count;
    uint32_t rank = part_dims(dims, weight);
    const float *values = model->weights->data[w] + p * count;
    char copy[DN_TENSOR_NAME_BYTES_MAX];
    dn_status status = check_storable(values, count, dtype, weight->parts[p], error);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, weight->parts[p], dtype, rank, dims, values, error);
    for (uint32_t i = 0; status == DN_OK && model->copies != NULL && model->copies(model, weight->parts[p], i, copy); i++)
        status = dn_safetensors_writer_add_f32(writer, copy, dtype, rank, dims, values, error);
    return status;
}

dn_status dn_weights_write(const dn_model *model, const char *path, int dtype, dn_error *error)
{
    if (dtype != DN_F32 && dtype != DN_F16 && dtype != DN_BF16)
        return dn_fail(error, DN_INVALID, "%s: weights are saved as F32, F16 or BF16", path);
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_safetensors_writer_create(&writer, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_metadata(writer, "format", "pt", error);
    for (uint32_t w = 0; w < model->plan->weight_count && status == DN_OK; w++)
        for (uint32_t p = 0; p < model->plan->weights[w].part_count && status == DN_OK; p++)
            status = add_part(writer, model, w, p, (dn_dtype)dtype, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, true, error);
    dn_safetensors_writer_free(writer);
    return status;
}
