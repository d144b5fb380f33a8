/* Layer norm of every pixel, with what stands before it in a transformer block (gate, residual) and behind it (scale, shift).
 *
 * A warp has one pixel and keeps it in registers: one reading, a mean, a variance about it, one writing. Pixels of more than 2048 channels
 * are read again for each of these. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

constexpr unsigned warps = dn_threads / 32;

/* Eight channels of what is normed: in, or residual + gate * in; channels that are not there are zeros. */
template <typename T>
__device__ __forceinline__ void load_summand(const dn_cuda_layer_norm_options &o, uint32_t row, dn_place at, bool aligned, float *v)
{
    dn_load_at<T>(o.in, row, at, aligned, v);
    if (o.gate.data) {
        float gate[dn_unit], residual[dn_unit];
        dn_load_vector<T>(o.gate, row, at.channel, aligned, gate);
        dn_load_at<T>(o.residual, row, at, aligned, residual);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = residual[i] + gate[i] * v[i];
    }
}

__device__ __forceinline__ float sum_of(const float *v)
{
    float sum = 0.0f;
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
        sum += v[i];
    return sum;
}
__device__ __forceinline__ float squares_of(const float *v, float mean, unsigned valid)
{
    float sum = 0.0f;
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
        sum += i < valid ? (v[i] - mean) * (v[i] - mean) : 0.0f;
    return sum;
}

/* v normed and modulated to out; the sum before that to `sum`. */
template <typename T>
__device__ __forceinline__ void write_chunk(const dn_cuda_layer_norm_options &o, uint32_t row, dn_place at, bool aligned, float mean,
                                            float inverse, float *v)
{
    unsigned valid = dn_valid(at.channel, o.out.c);
    float more[dn_unit];
    if (o.gate.data && at.channel < o.sum.pitch)
        dn_store_at<T>(o.sum, row, at, aligned, v);
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
        v[i] = (v[i] - mean) * inverse;
    if (o.weight) {
        dn_load_chunk(o.weight + at.channel, valid, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] *= more[i];
    }
    if (o.bias) {
        dn_load_chunk(o.bias + at.channel, valid, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] += more[i];
    }
    if (o.scale.data) {
        dn_load_vector<T>(o.scale, row, at.channel, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] *= 1.0f + more[i];
    }
    if (o.shift.data) {
        dn_load_vector<T>(o.shift, row, at.channel, aligned, more);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] += more[i];
    }
    if (at.channel < o.out.pitch)
        dn_store_at<T>(o.out, row, at, aligned, v);
}

/* At most 32 * N chunks a pixel. */
template <typename T, unsigned N>
__global__ void __launch_bounds__(dn_threads) k_layer_norm(dn_cuda_layer_norm_options o, uint32_t chunks, bool aligned, uint32_t rows)
{
    uint32_t lane = threadIdx.x % 32, pixel = blockIdx.x * warps + threadIdx.x / 32, c = o.out.c;
    if (pixel >= o.out.h * o.out.w)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[N][dn_unit], sum = 0.0f, squares = 0.0f;
        DN_UNROLL for (unsigned k = 0; k < N; k++) {
            dn_place at{pixel, (k * 32 + lane) * dn_unit, true};
            load_summand<T>(o, r, at, aligned, v[k]);
            sum += sum_of(v[k]);
        }
        float mean = dn_warp_sum(sum) / static_cast<float>(c);
        DN_UNROLL for (unsigned k = 0; k < N; k++)
            squares += squares_of(v[k], mean, dn_valid((k * 32 + lane) * dn_unit, c));
        float inverse = 1.0f / sqrtf(dn_warp_sum(squares) / static_cast<float>(c) + o.epsilon);
        DN_UNROLL for (unsigned k = 0; k < N; k++) {
            dn_place at{pixel, (k * 32 + lane) * dn_unit, true};
            if (k * 32 + lane < chunks)
                write_chunk<T>(o, r, at, aligned, mean, inverse, v[k]);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads) k_layer_norm_wide(dn_cuda_layer_norm_options o, uint32_t chunks, bool aligned, uint32_t rows)
{
    uint32_t lane = threadIdx.x % 32, pixel = blockIdx.x * warps + threadIdx.x / 32, c = o.out.c;
    if (pixel >= o.out.h * o.out.w)
        return;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float v[dn_unit], sum = 0.0f, squares = 0.0f;
        for (uint32_t k = lane; k < chunks; k += 32) {
            load_summand<T>(o, r, dn_place{pixel, k * dn_unit, true}, aligned, v);
            sum += sum_of(v);
        }
        float mean = dn_warp_sum(sum) / static_cast<float>(c);
        for (uint32_t k = lane; k < chunks; k += 32) {
            load_summand<T>(o, r, dn_place{pixel, k * dn_unit, true}, aligned, v);
            squares += squares_of(v, mean, dn_valid(k * dn_unit, c));
        }
        float inverse = 1.0f / sqrtf(dn_warp_sum(squares) / static_cast<float>(c) + o.epsilon);
        for (uint32_t k = lane; k < chunks; k += 32) {
            dn_place at{pixel, k * dn_unit, true};
            load_summand<T>(o, r, at, aligned, v);
            write_chunk<T>(o, r, at, aligned, mean, inverse, v);
        }
    }
}

template <typename T> auto kernel_for(uint32_t chunks) -> decltype(&k_layer_norm_wide<T>)
{
    switch ((chunks + 31) / 32) {
    case 1:
        return k_layer_norm<T, 1>;
    case 2:
        return k_layer_norm<T, 2>;
    case 3:
        return k_layer_norm<T, 3>;
    case 4:
        return k_layer_norm<T, 4>;
    case 5: /* 1152 channels: DiT-XL */
        return k_layer_norm<T, 5>;
    case 6:
        return k_layer_norm<T, 6>;
    case 7:
    case 8:
        return k_layer_norm<T, 8>;
    default:
        return k_layer_norm_wide<T>;
    }
}

} // namespace

extern "C" int dn_cuda_layer_norm(const dn_cuda_launch *launch, const dn_cuda_layer_norm_options *options)
{
    const dn_cuda_layer_norm_options &o = *options;
    uint32_t chunks = dn_pixel_chunks(o.out);
    if (o.gate.data && dn_pixel_chunks(o.sum) > chunks)
        chunks = dn_pixel_chunks(o.sum);
    bool aligned = dn_aligned(o.in, o.out, o.gate, o.residual, o.sum, o.shift, o.scale) && reinterpret_cast<uintptr_t>(o.weight) % 16 == 0 &&
                   reinterpret_cast<uintptr_t>(o.bias) % 16 == 0;
    dim3 grid;
    if (!dn_grid(&grid, static_cast<uint64_t>(o.out.h) * o.out.w, warps, launch->rows))
        return dn_invalid_value;
    return DN_LAUNCH(launch->type == DN_CUDA_F32 ? kernel_for<float>(chunks) : kernel_for<dn_bf16>(chunks), grid, dim3(dn_threads), 0,
                     launch->stream, o, chunks, aligned, launch->rows);
}
