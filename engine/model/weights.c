/* Weights between a safetensors file and a plan. Loading is validation: name, type, shape and finiteness of every tensor are
 * checked, and each refusal names file, tensor and rule. Owns nothing beyond a call; any thread. */
#include "model/weights.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"

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

static const dn_tensor_info *find_tensor(const dn_safetensors *file, const char *name)
{
    const dn_tensor_info *info = dn_safetensors_find(file, name);
    char old[DN_TENSOR_NAME_BYTES_MAX];
    for (size_t i = 0; info == NULL && i < sizeof old_names / sizeof old_names[0]; i++)
        if (renamed(old, name, old_names[i].now, old_names[i].before))
            info = dn_safetensors_find(file, old);
    return info;
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

static dn_status find_part(const dn_tensor_info **out, const dn_safetensors *file, const char *name, const dn_weight_info *weight,
                           dn_error *error)
{
    const char *path = dn_safetensors_path(file);
    const dn_tensor_info *info = find_tensor(file, name);
    if (info == NULL)
        return dn_fail(error, DN_INVALID, "%s: %s: the tensor is missing", path, name);
    uint64_t dims[4] = {0};
    uint32_t rank = part_dims(dims, weight);
    *out = info;
    return check_tensor(info, path, dims, rank, error);
}

static dn_status read_part(const dn_safetensors *file, const char *name, const dn_weight_info *weight, float *out, dn_error *error)
{
    const dn_tensor_info *info = NULL;
    dn_status status = find_part(&info, file, name, weight, error);
    if (status == DN_OK)
        status = dn_safetensors_read_f32(file, info, out, error);
    if (status != DN_OK)
        return status;
    for (uint64_t i = 0; i < info->count; i++)
        if (!isfinite(out[i]))
            return dn_fail(error, DN_NUMERIC, "%s: %s: element %llu is %s", dn_safetensors_path(file), info->name, (unsigned long long)i,
                           isnan(out[i]) ? "NaN" : "infinite");
    return DN_OK;
}

/* Every tensor is there in its shape: before memory is taken for what a configuration merely claims. */
static dn_status check_all(const dn_plan *plan, const dn_safetensors *file, dn_error *error)
{
    const dn_tensor_info *info = NULL;
    dn_status status = DN_OK;
    for (uint32_t w = 0; w < plan->weight_count; w++)
        for (uint32_t p = 0; p < plan->weights[w].part_count && status == DN_OK; p++)
            status = find_part(&info, file, plan->weights[w].parts[p], &plan->weights[w], error);
    return status;
}

/* Leftovers of old releases: a position table that was stored though it is computed, and a second name of a convolution. */
static bool is_leftover(const dn_safetensors *file, const char *name)
{
    char now[DN_TENSOR_NAME_BYTES_MAX];
    return strcmp(name, "pos_embed.pos_embed") == 0 ||
           (renamed(now, name, ".Conv2d_0.", ".conv.") && dn_safetensors_find(file, now) != NULL);
}

static int compare_pointers(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    return x < y ? -1 : x > y;
}

/* Whatever the plan did not take must be a known leftover. `taken` holds the names of the tensors taken, as the file owns them. */
static dn_status refuse_extra(const dn_safetensors *file, const char **taken, size_t taken_count, dn_error *error)
{
    qsort(taken, taken_count, sizeof *taken, compare_pointers);
    for (size_t i = 0; i < dn_safetensors_count(file); i++) {
        const char *name = dn_safetensors_at(file, i)->name;
        if (bsearch(&name, taken, taken_count, sizeof *taken, compare_pointers) == NULL && !is_leftover(file, name))
            return dn_fail(error, DN_INVALID, "%s: %s: the network that config.json describes has no such tensor",
                           dn_safetensors_path(file), name);
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

static dn_status read_all(dn_weights *weights, const dn_plan *plan, const dn_safetensors *file, dn_error *error)
{
    size_t taken_count = 0;
    const char **taken = calloc(count_parts(plan) + 1, sizeof *taken);
    if (taken == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", dn_safetensors_path(file));
    dn_status status = DN_OK;
    for (uint32_t w = 0; w < plan->weight_count && status == DN_OK; w++) {
        const dn_weight_info *weight = &plan->weights[w];
        for (uint32_t p = 0; p < weight->part_count && status == DN_OK; p++) {
            status = read_part(file, weight->parts[p], weight, weights->data[w] + p * (weight->count / weight->part_count), error);
            if (status == DN_OK)
                taken[taken_count++] = find_tensor(file, weight->parts[p])->name;
        }
    }
    if (status == DN_OK)
        status = refuse_extra(file, taken, taken_count, error);
    free(taken);
    return status;
}

dn_status dn_weights_read(dn_weights **out, const dn_plan *plan, const char *path, dn_error *error)
{
    dn_safetensors *file = NULL;
    dn_weights *weights = NULL;
    dn_status status = dn_safetensors_open(&file, path, error);
    if (status == DN_OK)
        status = check_all(plan, file, error);
    if (status == DN_OK)
        status = dn_weights_create(&weights, plan, error);
    if (status == DN_OK)
        status = read_all(weights, plan, file, error);
    if (status == DN_OK) {
        *out = weights;
        weights = NULL;
    }
    dn_weights_free(weights);
    dn_safetensors_close(file);
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

dn_status dn_weights_write(const dn_plan *plan, const dn_weights *weights, const char *path, int dtype, dn_error *error)
{
    if (dtype != DN_F32 && dtype != DN_F16 && dtype != DN_BF16)
        return dn_fail(error, DN_INVALID, "%s: weights are saved as F32, F16 or BF16", path);
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_safetensors_writer_create(&writer, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_metadata(writer, "format", "pt", error);
    for (uint32_t w = 0; w < plan->weight_count && status == DN_OK; w++) {
        const dn_weight_info *weight = &plan->weights[w];
        uint64_t dims[4] = {0}, part_count = weight->count / weight->part_count;
        uint32_t rank = part_dims(dims, weight);
        for (uint32_t p = 0; p < weight->part_count && status == DN_OK; p++) {
            const float *values = weights->data[w] + p * part_count;
            status = check_storable(values, part_count, dtype, weight->parts[p], error);
            if (status == DN_OK)
                status = dn_safetensors_writer_add_f32(writer, weight->parts[p], (dn_dtype)dtype, rank, dims, values, error);
        }
    }
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, true, error);
    dn_safetensors_writer_free(writer);
    return status;
}
