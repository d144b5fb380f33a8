/* The mean of every channel over a row's pixels. A block has 64 channels of a row and 32 threads for each chunk of them, which take every
 * 32nd pixel and are added in pairs: an order that the shape alone decides. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

constexpr unsigned chunks_a_block = 8, threads_a_chunk = 32;

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_global_pool(dn_cuda_view in, uint32_t activation, dn_cuda_view out, bool aligned, uint32_t rows)
{
    DN_SHARED(float, sums, [threads_a_chunk][chunks_a_block * dn_unit]);
    unsigned chunk = threadIdx.x % chunks_a_block, member = threadIdx.x / chunks_a_block;
    uint32_t channel = (blockIdx.x * chunks_a_block + chunk) * dn_unit, pixels = in.h * in.w;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float sum[dn_unit] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}, v[dn_unit];
        for (uint32_t p = member; p < pixels; p += threads_a_chunk) {
            dn_load_at<T>(in, r, dn_place{p, channel, true}, aligned, v);
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                sum[i] += v[i];
        }
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            sums[member][chunk * dn_unit + i] = sum[i];
        for (unsigned half = threads_a_chunk / 2; half > 0; half /= 2) {
            __syncthreads();
            if (member < half) {
                DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                    sums[member][chunk * dn_unit + i] += sums[member + half][chunk * dn_unit + i];
            }
        }
        if (member == 0 && channel < out.pitch) {
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                v[i] = sums[0][chunk * dn_unit + i] / static_cast<float>(pixels);
            dn_activate<T>(activation, v);
            dn_store_at<T>(out, r, dn_place{0, channel, true}, aligned, v);
        }
        __syncthreads();
    }
}

} // namespace

extern "C" int dn_cuda_global_pool(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_activation activation, dn_cuda_view out)
{
    dim3 grid;
    if (!dn_grid(&grid, dn_pixel_chunks(out), chunks_a_block, launch->rows))
        return dn_invalid_value;
    return DN_LAUNCH(launch->type == DN_CUDA_F32 ? k_global_pool<float> : k_global_pool<dn_bf16>, grid, dim3(dn_threads), 0, launch->stream, in,
                     static_cast<uint32_t>(activation), out, dn_aligned(in, out), launch->rows);
}
