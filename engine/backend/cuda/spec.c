/* Checks and names of product specs (spec.h). */
#include "backend/cuda/spec.h"

#include <math.h>
#include <stdio.h>

/* What 32-bit indices inside the libraries' kernels may count. */
#define ELEMENTS_MAX ((uint64_t)INT32_MAX)

#define MIDDLE_PIXELS 2048u

/* Bytes of workspace that hold counters of a scheduler, and no parts of sums. */
#define COUNTERS_MAX 4096u

static bool whole_units(uint32_t count)
{
    return count > 0 && count % DN_CUDA_CHANNEL_UNIT == 0;
}

uint64_t dn_cuda_product_in_pitch(const dn_cuda_product_spec *spec)
{
    if (spec->in_row_pitch)
        return spec->in_row_pitch;
    return (uint64_t)spec->h * spec->w * (spec->kind == DN_CUDA_SDPA ? spec->in_pitch : spec->k);
}

uint64_t dn_cuda_product_out_pitch(const dn_cuda_product_spec *spec)
{
    if (spec->out_row_pitch)
        return spec->out_row_pitch;
    if (spec->kind == DN_CUDA_SDPA)
        return (uint64_t)spec->h * spec->w * spec->heads * spec->head_dim;
    return (spec->kind == DN_CUDA_CONV ? (uint64_t)spec->out_h * spec->out_w : (uint64_t)spec->h * spec->w) * spec->n;
}

void dn_cuda_product_name(const dn_cuda_product_spec *spec, char out[DN_CUDA_SPEC_TEXT])
{
    const char *type = spec->type == DN_CUDA_BF16 ? "bf16" : "fp32";
    const char *tail[] = {spec->gelu_tanh ? " gelu" : "", spec->residual ? "+r" : "", spec->bias ? "+b" : ""};
    char scale[24] = "";
    if (spec->scale != 0.0f)
        snprintf(scale, sizeof scale, " x%.9g", (double)spec->scale);
    if (spec->kind == DN_CUDA_SDPA)
        snprintf(out, DN_CUDA_SPEC_TEXT, "sdpa %ux%u heads %ux%u pitch %u %s", spec->h, spec->w, spec->heads, spec->head_dim,
                 spec->in_pitch, type);
    else if (spec->kind == DN_CUDA_CONV)
        snprintf(out, DN_CUDA_SPEC_TEXT, "conv %ux%ux%u %ux%u/%u p%u,%u,%u,%u %ux%ux%u %s%s%s%s", spec->h, spec->w, spec->k, spec->kernel,
                 spec->kernel, spec->stride, spec->pad_top, spec->pad_left, spec->pad_bottom, spec->pad_right, spec->out_h, spec->out_w,
                 spec->n, type, tail[1], tail[2], scale);
    else
        snprintf(out, DN_CUDA_SPEC_TEXT, "gemm %ux%ux%u %u rows %u,%u %s%s%s%s%s", spec->h, spec->w, spec->k, spec->n, spec->in_row_pitch,
                 spec->out_row_pitch, type, tail[1], tail[2], tail[0], scale);
}

static dn_status check_gemm(const dn_cuda_product_spec *spec, dn_error *error)
{
    if (!whole_units(spec->n) || !whole_units(spec->k))
        return dn_fail(error, DN_INVALID, "a matrix product of %u by %u: both must be multiples of %u", spec->n, spec->k,
                       DN_CUDA_CHANNEL_UNIT);
    bool apart = spec->in_row_pitch || spec->out_row_pitch;
    if (apart && (spec->h != 1 || spec->w != 1))
        return dn_fail(error, DN_INVALID, "rows that lie apart are for vectors, not for %u x %u", spec->h, spec->w);
    if ((spec->in_row_pitch && (spec->in_row_pitch < spec->k || !whole_units(spec->in_row_pitch))) ||
        (spec->out_row_pitch && (spec->out_row_pitch < spec->n || !whole_units(spec->out_row_pitch))))
        return dn_fail(error, DN_INVALID, "row pitches %u and %u do not fit vectors of %u and %u", spec->in_row_pitch, spec->out_row_pitch,
                       spec->k, spec->n);
    return DN_OK;
}

static dn_status check_conv(const dn_cuda_product_spec *spec, dn_error *error)
{
    if (!whole_units(spec->n) || !whole_units(spec->k))
        return dn_fail(error, DN_INVALID, "a convolution of %u to %u channels: both must be multiples of %u", spec->k, spec->n,
                       DN_CUDA_CHANNEL_UNIT);
    if (spec->gelu_tanh || spec->in_row_pitch || spec->out_row_pitch)
        return dn_fail(error, DN_INVALID, "a convolution has neither an activation nor rows that lie apart");
    if (spec->scale != 0.0f && !spec->residual)
        return dn_fail(error, DN_INVALID, "a convolution is scaled with its residual alone");
    uint64_t height = (uint64_t)spec->h + spec->pad_top + spec->pad_bottom, width = (uint64_t)spec->w + spec->pad_left + spec->pad_right;
    if (spec->kernel == 0 || spec->stride == 0 || height < spec->kernel || width < spec->kernel ||
        spec->out_h != (height - spec->kernel) / spec->stride + 1 || spec->out_w != (width - spec->kernel) / spec->stride + 1)
        return dn_fail(error, DN_INVALID, "a %u x %u convolution does not make %u x %u of %u x %u", spec->kernel, spec->kernel, spec->out_h,
                       spec->out_w, spec->h, spec->w);
    return DN_OK;
}

static dn_status check_sdpa(const dn_cuda_product_spec *spec, dn_error *error)
{
    if (!dn_cuda_takes_sdpa(spec))
        return dn_fail(error, DN_UNSUPPORTED, "cuDNN has no attention for %u heads of %u %s", spec->heads, spec->head_dim,
                       spec->type == DN_CUDA_BF16 ? "bfloat16" : "float");
    return DN_OK;
}

bool dn_cuda_takes_sdpa(const dn_cuda_product_spec *spec)
{
    uint64_t width = (uint64_t)spec->heads * spec->head_dim;
    return spec->type == DN_CUDA_BF16 && spec->heads > 0 && whole_units(spec->head_dim) && spec->head_dim <= DN_CUDA_HEAD_DIM_MAX &&
           whole_units(spec->in_pitch) && spec->in_pitch >= 3 * width && !spec->in_row_pitch && !spec->out_row_pitch && !spec->bias &&
           !spec->residual && !spec->gelu_tanh && spec->scale == 0.0f;
}

uint32_t dn_cuda_product_rows_max(const dn_cuda_product_spec *spec)
{
    uint64_t in = dn_cuda_product_in_pitch(spec), out = dn_cuda_product_out_pitch(spec);
    uint64_t widest = in > out ? in : out;
    return widest ? (uint32_t)(ELEMENTS_MAX / widest) : 0;
}

dn_status dn_cuda_product_check(const dn_cuda_product_spec *spec, const uint32_t *buckets, uint32_t bucket_count, dn_error *error)
{
    if (bucket_count == 0 || bucket_count > DN_CUDA_BUCKETS_MAX)
        return dn_fail(error, DN_INVALID, "%u batch sizes: 1 to %u may be asked for", bucket_count, DN_CUDA_BUCKETS_MAX);
    if (spec->h == 0 || spec->w == 0 || (spec->type != DN_CUDA_F32 && spec->type != DN_CUDA_BF16))
        return dn_fail(error, DN_INVALID, "a product over nothing, or of no type");
    if (!isfinite(spec->scale))
        return dn_fail(error, DN_INVALID, "a product times what is no number");
    dn_status status = spec->kind == DN_CUDA_GEMM   ? check_gemm(spec, error)
                       : spec->kind == DN_CUDA_CONV ? check_conv(spec, error)
                       : spec->kind == DN_CUDA_SDPA ? check_sdpa(spec, error)
                                                    : dn_fail(error, DN_INVALID, "no kind of product: %d", (int)spec->kind);
    if (status)
        return status;
    for (uint32_t i = 0; i < bucket_count; i++) {
        if (buckets[i] == 0 || buckets[i] > dn_cuda_product_rows_max(spec))
            return dn_fail(error, DN_INVALID, "a batch of %u where 1 to %u fit 32-bit indices", buckets[i], dn_cuda_product_rows_max(spec));
    }
    return DN_OK;
}

uint32_t dn_cuda_middle_bucket(const dn_cuda_product_spec *spec, const uint32_t *buckets, uint32_t first, uint32_t end)
{
    const uint64_t pixels = spec->kind == DN_CUDA_CONV ? (uint64_t)spec->out_h * spec->out_w : (uint64_t)spec->h * spec->w;
    const bool whole = spec->kind == DN_CUDA_SDPA || pixels == 1;
    uint32_t bucket = first;
    while (bucket + 1 < end && (whole || pixels * buckets[bucket] < MIDDLE_PIXELS))
        bucket++;
    return bucket;
}

bool dn_cuda_workspace_steady(const uint32_t *buckets, const size_t *workspace, uint32_t count)
{
    bool small = true, even = true;
    for (uint32_t i = 0; i < count; i++) {
        small = small && workspace[i] <= COUNTERS_MAX;
        if (i < 2)
            continue;
        /* (w[i] - w[0]) / (b[i] - b[0]) == (w[1] - w[0]) / (b[1] - b[0]), multiplied out: at most 2^41 bytes times 2^21 rows. */
        int64_t step = (int64_t)workspace[1] - (int64_t)workspace[0], rows = (int64_t)buckets[1] - buckets[0];
        even = even && ((int64_t)workspace[i] - (int64_t)workspace[0]) * rows == step * ((int64_t)buckets[i] - buckets[0]);
    }
    return small || even;
}

dn_status dn_cuda_operands_check(const dn_cuda_product_spec *spec, const dn_cuda_operands *operands, size_t workspace, dn_error *error)
{
    bool weighted = spec->kind != DN_CUDA_SDPA;
    const void *pointers[] = {operands->in, operands->out, operands->weight, operands->bias, operands->residual, operands->workspace};
    const bool needed[] = {true, true, weighted, spec->bias, spec->residual, workspace > 0};
    static const char *const names[] = {"input", "output", "weight", "bias", "residual", "workspace"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (!needed[i])
            continue;
        if (!pointers[i] || (uintptr_t)pointers[i] % 16)
            return dn_fail(error, DN_INTERNAL, "a product's %s %s", names[i], pointers[i] ? "does not lie at 16 bytes" : "is missing");
    }
    return DN_OK;
}
