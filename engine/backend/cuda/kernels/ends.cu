/* The ends of a pass: callers' planes of floats to activations, and back.
 *
 * A thread has one chunk of one pixel; threads beside each other have pixels beside each other, so that planes are read and written in
 * whole lines. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

/* Pixels first, then chunks. */
__device__ __forceinline__ dn_place plane_place(const dn_cuda_view &view)
{
    uint32_t pixels = view.h * view.w, item = blockIdx.x * blockDim.x + threadIdx.x, chunk = item / pixels;
    return dn_place{item - chunk * pixels, chunk * dn_unit, chunk < dn_pixel_chunks(view)};
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_gather(const dn_cuda_block *block, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = plane_place(out);
    if (!at.inside)
        return;
    const dn_cuda_row *wanted = dn_rows_of(block);
    uint64_t plane = static_cast<uint64_t>(out.h) * out.w;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        bool there = r < block->row_count;
        const float *in = there ? wanted[r].in + at.channel * plane + at.pixel : nullptr;
        float scale = there ? wanted[r].in_scale : 0.0f;
        unsigned valid = there ? dn_valid(at.channel, out.c) : 0u;
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = i < valid ? scale * in[i * plane] : 0.0f;
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

__global__ void __launch_bounds__(dn_threads) k_call_finite(uint32_t *finite, uint32_t rows)
{
    uint32_t r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r < rows)
        finite[r] = 1;
}

/* Whoever meets a bad element says so; all who do write the same. */
template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_scatter(const dn_cuda_block *block, dn_cuda_view in, uint32_t *finite, bool aligned, uint32_t rows)
{
    dn_place at = plane_place(in);
    if (!at.inside)
        return;
    const dn_cuda_row *wanted = dn_rows_of(block);
    uint64_t plane = static_cast<uint64_t>(in.h) * in.w;
    for (uint32_t r = blockIdx.y; r < rows && r < block->row_count; r += gridDim.y) {
        float v[dn_unit];
        dn_load_at<T>(in, r, at, aligned, v);
        float *out = wanted[r].out + at.channel * plane + at.pixel;
        unsigned valid = dn_valid(at.channel, in.c);
        bool bad = false;
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++) {
            if (i < valid) {
                out[i * plane] = v[i];
                bad = bad || !isfinite(v[i]);
            }
        }
        if (bad)
            finite[r] = 0;
    }
}

} // namespace

extern "C" int dn_cuda_gather(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_gather<float> : k_gather<dn_bf16>, launch, out, dn_aligned(out), block, out);
}

extern "C" int dn_cuda_scatter(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view in, uint32_t *finite)
{
    dim3 grid((launch->rows + dn_threads - 1) / dn_threads);
    int refused = DN_LAUNCH_FLAT(k_call_finite, grid, dim3(dn_threads), 0, launch->stream, finite, launch->rows);
    if (refused)
        return refused;
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_scatter<float> : k_scatter<dn_bf16>, launch, in, dn_aligned(in), block, in, finite);
}
