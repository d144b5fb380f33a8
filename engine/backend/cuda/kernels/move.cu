/* Nodes that move elements, or filter each channel alone: doubling and halving, the FIR filter, unpatchify, concatenation.
 *
 * A thread has one chunk of one pixel of the output. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_upsample(dn_cuda_view in, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    uint32_t y = at.pixel / out.w, x = at.pixel - y * out.w;
    dn_place from{y / 2 * in.w + x / 2, at.channel, true};
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        dn_load_at<T>(in, r, from, aligned, v);
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_average_pool(dn_cuda_view in, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    uint32_t y = at.pixel / out.w, x = at.pixel - y * out.w, corner = 2 * y * in.w + 2 * x;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float sum[dn_unit], v[dn_unit];
        dn_load_at<T>(in, r, dn_place{corner, at.channel, true}, aligned, sum);
        DN_UNROLL for (unsigned k = 1; k < 4; k++) {
            dn_load_at<T>(in, r, dn_place{corner + k / 2 * in.w + k % 2, at.channel, true}, aligned, v);
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                sum[i] += v[i];
        }
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            sum[i] *= 0.25f;
        dn_store_at<T>(out, r, at, aligned, sum);
    }
}

/* Along one axis: the input that tap k of output j reads, or -1 where it reads a zero. */
__device__ __forceinline__ int64_t fir_source(bool up, uint32_t j, uint32_t k, uint32_t before, uint32_t side)
{
    int64_t at = static_cast<int64_t>(up ? j : 2ull * j) - before + k;
    if (at < 0 || (up && at % 2 != 0))
        return -1;
    at = up ? at / 2 : at;
    return at < side ? at : -1;
}
__device__ __forceinline__ float fir_tap(uint32_t k)
{
    return k == 0 || k == 3 ? 0.125f : 0.375f;
}

struct fir_options {
    dn_cuda_view in, out;
    bool up;
    uint32_t pad_top, pad_left;
};

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_fir(fir_options o, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(o.out);
    if (!at.inside)
        return;
    uint32_t y = at.pixel / o.out.w, x = at.pixel - y * o.out.w;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float sum[dn_unit] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        for (uint32_t k = 0; k < 16; k++) {
            int64_t from_y = fir_source(o.up, y, k / 4, o.pad_top, o.in.h), from_x = fir_source(o.up, x, k % 4, o.pad_left, o.in.w);
            if (from_y < 0 || from_x < 0)
                continue;
            float v[dn_unit], tap = fir_tap(k / 4) * fir_tap(k % 4);
            dn_load_at<T>(o.in, r, dn_place{static_cast<uint32_t>(from_y) * o.in.w + static_cast<uint32_t>(from_x), at.channel, true}, aligned, v);
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                sum[i] += tap * v[i];
        }
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            sum[i] = o.up ? 4.0f * sum[i] : sum[i];
        dn_store_at<T>(o.out, r, at, aligned, sum);
    }
}

/* Channels of the input: row in the patch, column in the patch, channel. */
template <typename T>
__global__ void __launch_bounds__(dn_threads) k_unpatchify(dn_cuda_view in, uint32_t patch, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    uint32_t y = at.pixel / out.w, x = at.pixel - y * out.w;
    uint64_t pixel = static_cast<uint64_t>(y / patch) * in.w + x / patch, first = (y % patch * patch + x % patch) * out.c;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        const T *from = dn_row_of<T>(in, r) + pixel * in.pitch + first + at.channel;
        dn_load_chunk(from, dn_valid(at.channel, out.c), aligned && out.c % dn_unit == 0, v);
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_concat(dn_cuda_view first, dn_cuda_view second, dn_cuda_view out, bool aligned, uint32_t rows)
{
    dn_place at = dn_chunk_place(out);
    if (!at.inside)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit];
        const T *one = dn_row_of<T>(first, r) + static_cast<uint64_t>(at.pixel) * first.pitch;
        const T *other = dn_row_of<T>(second, r) + static_cast<uint64_t>(at.pixel) * second.pitch;
        if (at.channel + dn_unit <= first.c) {
            dn_load_chunk(one + at.channel, dn_unit, aligned, v);
        } else if (at.channel >= first.c) {
            dn_load_chunk(other + (at.channel - first.c), dn_valid(at.channel, out.c), aligned && first.c % dn_unit == 0, v);
        } else {
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++) {
                uint32_t c = at.channel + i;
                v[i] = c < first.c ? dn_load(one + c) : c < out.c ? dn_load(other + (c - first.c)) : 0.0f;
            }
        }
        dn_store_at<T>(out, r, at, aligned, v);
    }
}

} // namespace

extern "C" int dn_cuda_upsample_nearest2(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_upsample<float> : k_upsample<dn_bf16>, launch, out, dn_aligned(in, out), in, out);
}

extern "C" int dn_cuda_average_pool2(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_average_pool<float> : k_average_pool<dn_bf16>, launch, out, dn_aligned(in, out), in,
                            out);
}

extern "C" int dn_cuda_fir2(const dn_cuda_launch *launch, dn_cuda_view in, bool up, uint32_t pad_top, uint32_t pad_left, dn_cuda_view out)
{
    fir_options options{in, out, up, pad_top, pad_left};
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_fir<float> : k_fir<dn_bf16>, launch, out, dn_aligned(in, out), options);
}

extern "C" int dn_cuda_unpatchify(const dn_cuda_launch *launch, dn_cuda_view in, uint32_t patch, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_unpatchify<float> : k_unpatchify<dn_bf16>, launch, out, dn_aligned(in, out), in,
                            patch, out);
}

extern "C" int dn_cuda_concat(const dn_cuda_launch *launch, dn_cuda_view first, dn_cuda_view second, dn_cuda_view out)
{
    return dn_launch_chunks(launch->type == DN_CUDA_F32 ? k_concat<float> : k_concat<dn_bf16>, launch, out, dn_aligned(first, second, out),
                            first, second, out);
}
