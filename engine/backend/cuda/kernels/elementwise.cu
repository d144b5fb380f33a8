/* Nodes that give each element from its own place alone: finish, affine, activation, position, division by the row's time.
 *
 * A thread has one chunk of one pixel; it has read all that it needs when it writes, so that out may be an input. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_finish(dn_cuda_finish_options o, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(o.out);
    if (!at.inside)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float y[dn_unit], more[dn_unit], kept[dn_unit];
        dn_load_at<T>(o.x, r, at, aligned, y);
        dn_load_chunk(static_cast<const T *>(o.bias) + at.channel, o.bias ? dn_valid(at.channel, o.out.c) : 0u, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            y[i] += more[i];
        dn_load_vector<T>(o.row_bias, r, at.channel, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            y[i] += more[i];
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            kept[i] = 0.0f;
        if (o.residual.data)
            dn_load_at<T>(o.residual, r, at, aligned, kept);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            y[i] = (o.residual_last ? y[i] : y[i] + kept[i]) * o.scale;
        dn_activate<T>(o.activation, y);
        if (o.gate.data) {
            dn_load_vector<T>(o.gate, r, at.channel, aligned, more);
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                y[i] *= more[i];
        }
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            y[i] = o.residual_last ? y[i] + kept[i] : y[i];
        dn_store_at<T>(o.out, r, at, aligned, y);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_affine(dn_cuda_view in, float a, float b, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        dn_load_at<T>(in, r, at, aligned, v);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = a * v[i] + b;
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_activate(dn_cuda_view in, uint32_t activation, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        dn_load_at<T>(in, r, at, aligned, v);
        dn_activate<T>(activation, v);
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_position(dn_cuda_view in, const float *table, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    float place[dn_unit];
    dn_load_chunk(table + static_cast<uint64_t>(at.pixel) * out.c + at.channel, dn_valid(at.channel, out.c), aligned && out.c % dn_unit == 0, place);
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        dn_load_at<T>(in, r, at, aligned, v);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] += place[i];
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

/* Rows that nobody wants have no time: they are left as they are. */
template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_divide_by_time(const dn_cuda_block *block, dn_cuda_view in, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    const dn_cuda_row *wanted = dn_rows_of(block);
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit], time = r < block->row_count ? wanted[r].time : 1.0f;
        dn_load_at<T>(in, r, at, aligned, v);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = v[i] / time;
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

} // namespace

extern "C" int dn_cuda_finish(const dn_cuda_launch *launch, const dn_cuda_finish_options *options)
{
    const dn_cuda_finish_options &o = *options;
    bool aligned = dn_aligned(o.x, o.row_bias, o.residual, o.gate, o.out) && reinterpret_cast<uintptr_t>(o.bias) % 16 == 0;
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_finish<float> : k_finish<dn_bf16>, launch, o.out, aligned, o);
}

extern "C" int dn_cuda_affine(const dn_cuda_launch *launch, dn_cuda_view in, float a, float b, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_affine<float> : k_affine<dn_bf16>, launch, out, dn_aligned(in, out), in, a, b, out);
}

extern "C" int dn_cuda_activate(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_activation activation, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_activate<float> : k_activate<dn_bf16>, launch, out, dn_aligned(in, out), in,
                            static_cast<uint32_t>(activation), out);
}

extern "C" int dn_cuda_position(const dn_cuda_launch *launch, dn_cuda_view in, const float *table, dn_cuda_view out)
{
    bool aligned = dn_aligned(in, out) && reinterpret_cast<uintptr_t>(table) % 16 == 0;
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_position<float> : k_position<dn_bf16>, launch, out, aligned, in, table, out);
}

extern "C" int dn_cuda_divide_by_time(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view in, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_divide_by_time<float> : k_divide_by_time<dn_bf16>, launch, out, dn_aligned(in, out),
                            block, in, out);
}
