/* How the rows of a weight are picked out of a tensor of another layout. One call owns at most one tensor's floats. Any thread.
 *
 * A part has `rows` rows of `width` floats (its first dimension, and the product of the others). Layouts of an attention's three
 * projections: guided-diffusion, unet.py (QKVAttention, QKVAttentionLegacy); EDM, training/networks.py (UNetBlock). */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

static uint64_t width_of(const dn_part *part)
{
    uint64_t width = 1;
    for (uint32_t i = 1; i < part->rank; i++)
        width *= part->dims[i];
    return width;
}

void dn_part_stored_dims(const dn_part *part, uint64_t dims[4])
{
    memcpy(dims, part->dims, sizeof part->dims);
    switch (part->source.layout) {
    case DN_LAYOUT_PLAIN:
        return;
    case DN_LAYOUT_ROWS:
    case DN_LAYOUT_HEADS_ROWS:
    case DN_LAYOUT_HEADS_INNER:
        dims[0] *= part->source.count;
        return;
    case DN_LAYOUT_TRANSPOSED:
        dims[0] = part->dims[1];
        dims[1] = part->info->rank >= 2 && part->info->dims[1] < part->dims[0] ? part->info->dims[1] : part->dims[0];
        return;
    }
}

/* The stored row that is row `row` of the part; d rows belong to one head. */
static uint64_t stored_row(const dn_source *source, uint64_t row, uint64_t d)
{
    uint64_t head = row / d, inside = row % d;
    if (source->layout == DN_LAYOUT_HEADS_ROWS)
        return (head * source->count + source->index) * d + inside;
    return (head * d + inside) * source->count + source->index;
}

static void pick_rows(const dn_part *part, const float *stored, float *out)
{
    uint64_t width = width_of(part), d = part->dims[0] / part->source.heads;
    for (uint64_t row = 0; row < part->dims[0]; row++)
        memcpy(out + row * width, stored + stored_row(&part->source, row, d) * width, (size_t)width * sizeof *out);
}

static void transpose(const dn_part *part, const float *stored, float *out)
{
    uint64_t rows = part->dims[0], width = part->dims[1], columns = part->info->dims[1];
    memset(out, 0, (size_t)(rows * width) * sizeof *out);
    for (uint64_t i = 0; i < width; i++)
        for (uint64_t k = 0; k < columns && k < rows; k++)
            out[k * width + i] = stored[i * columns + k];
}

static dn_status read_picked(const dn_part *part, const dn_tensors *tensors, float *out, dn_error *error)
{
    float *stored = malloc((size_t)part->info->count * sizeof *stored);
    if (stored == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: %s: out of memory", dn_tensors_path(tensors), part->info->name);
    dn_status status = dn_tensors_read_f32(tensors, part->info, stored, error);
    if (status == DN_OK && part->source.layout == DN_LAYOUT_TRANSPOSED)
        transpose(part, stored, out);
    else if (status == DN_OK)
        pick_rows(part, stored, out);
    free(stored);
    return status;
}

/* A table takes in the bias of the linear layer that it was: every class passes it, the null class too. */
static dn_status add_bias(const dn_part *part, const dn_tensors *tensors, float *out, dn_error *error)
{
    const char *path = dn_tensors_path(tensors), *name = part->source.bias;
    uint64_t rows = part->dims[0], width = part->dims[1];
    const dn_tensor_info *info = dn_tensors_find(tensors, name);
    if (info == NULL || info->rank != 1 || info->dims[0] != width)
        return dn_fail(error, DN_INVALID, "%s: %s: %s", path, name,
                       info == NULL ? "the tensor is missing" : "it does not fit the class table");
    float *bias = malloc((size_t)width * sizeof *bias);
    if (bias == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: %s: out of memory", path, name);
    dn_status status = dn_tensors_read_f32(tensors, info, bias, error);
    for (uint64_t i = 0; i < rows * width && status == DN_OK; i++)
        out[i] += bias[i % width];
    free(bias);
    return status;
}

dn_status dn_part_read(const dn_part *part, const dn_tensors *tensors, float *out, dn_error *error)
{
    uint64_t count = part->dims[0] * width_of(part);
    dn_status status;
    if (part->source.layout == DN_LAYOUT_PLAIN)
        status = dn_tensors_read_f32(tensors, part->info, out, error);
    else if (part->source.layout == DN_LAYOUT_ROWS)
        status = dn_tensors_read_part_f32(tensors, part->info, part->source.index * count, count, out, error);
    else
        status = read_picked(part, tensors, out, error);
    if (part->source.scale != 0.0f && part->source.scale != 1.0f)
        for (uint64_t i = 0; i < count && status == DN_OK; i++)
            out[i] *= part->source.scale;
    if (status == DN_OK && part->source.bias[0] != '\0')
        status = add_bias(part, tensors, out, error);
    return status;
}
