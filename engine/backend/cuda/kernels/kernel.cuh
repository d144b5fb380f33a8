/* What every kernel file begins with: CUDA's language, or the emulator's, launches, bfloat16, chunks of eight channels, activations.
 *
 * Kernels use nothing but this, so that the same sources run on a GPU and on the CPU: no inline assembly, no atomics. A launch that meets no
 * barrier and no shuffle is DN_LAUNCH_FLAT; it answers CUDA's error number. A kernel reads and writes activations by chunks: eight channels
 * of a pixel, which is 16 bytes of bfloat16, in one access where everything is aligned to 16 bytes, else one by one. */
#ifndef DN_BACKEND_CUDA_KERNELS_KERNEL_CUH
#define DN_BACKEND_CUDA_KERNELS_KERNEL_CUH

#ifdef DN_CUDA_EMULATED
#include "cuemu.h"
#define DN_UNROLL
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define DN_UNROLL _Pragma("unroll")
#define DN_SHARED(type, name, extent) __shared__ type name extent
#define DN_DYNAMIC_SHARED(type, name)                                                                                                      \
    extern __shared__ __align__(16) unsigned char dn_dynamic_memory[];                                                                     \
    type *name = reinterpret_cast<type *>(dn_dynamic_memory)

template <typename... P, typename... A>
int dn_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic, void *stream, A... arguments)
{
    kernel<<<grid, block, dynamic, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(arguments)...);
    return static_cast<int>(cudaGetLastError());
}
#define DN_LAUNCH(...) dn_launch(__VA_ARGS__)
#define DN_LAUNCH_FLAT(...) dn_launch(__VA_ARGS__)
#endif

#include "backend/cuda/kernels/launch.h"

constexpr int dn_invalid_value = 1; /* cudaErrorInvalidValue */
constexpr unsigned dn_all_lanes = 0xFFFFFFFFu;
constexpr unsigned dn_unit = DN_CUDA_CHANNEL_UNIT;

/* ---- Elements. */
struct dn_bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float dn_load(const float *from)
{
    return *from;
}
__device__ __forceinline__ float dn_widen(dn_bf16 x)
{
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float dn_load(const dn_bf16 *from)
{
    return dn_widen(*from);
}
/* To nearest, ties to even; NaN becomes 0x7FFF, as on the GPU. */
__device__ __forceinline__ dn_bf16 dn_narrow(float x)
{
#ifdef DN_CUDA_EMULATED
    unsigned bits = __float_as_uint(x);
    return dn_bf16{static_cast<uint16_t>(isnan(x) ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
#else
    return dn_bf16{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
}
__device__ __forceinline__ void dn_store(float *to, float x)
{
    *to = x;
}
__device__ __forceinline__ void dn_store(dn_bf16 *to, float x)
{
    *to = dn_narrow(x);
}
/* What a float is worth once it lies in memory. */
template <typename T> __device__ __forceinline__ float dn_rounded(float x);
template <> __device__ __forceinline__ float dn_rounded<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ float dn_rounded<dn_bf16>(float x)
{
    return dn_widen(dn_narrow(x));
}

/* ---- Chunks. `valid`: how many of the eight exist, and may be read; the others are zeros. */
template <typename T> struct alignas(16) dn_chunk {
    T at[dn_unit];
};

template <typename T> __device__ __forceinline__ void dn_load_chunk(const T *from, unsigned valid, bool aligned, float *v)
{
    if (aligned && valid == dn_unit) {
        dn_chunk<T> chunk = *reinterpret_cast<const dn_chunk<T> *>(from);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = dn_load(&chunk.at[i]);
    } else {
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = i < valid ? dn_load(from + i) : 0.0f;
    }
}

/* Writes `room` elements, those from valid on zeros. */
template <typename T> __device__ __forceinline__ void dn_store_chunk(T *to, unsigned valid, unsigned room, bool aligned, const float *v)
{
    if (aligned && room == dn_unit) {
        dn_chunk<T> chunk;
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            dn_store(&chunk.at[i], i < valid ? v[i] : 0.0f);
        *reinterpret_cast<dn_chunk<T> *>(to) = chunk;
    } else {
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++) {
            if (i < room)
                dn_store(to + i, i < valid ? v[i] : 0.0f);
        }
    }
}

/* ---- Views. */
template <typename T> __device__ __forceinline__ T *dn_row_of(const dn_cuda_view &view, uint32_t row)
{
    return static_cast<T *>(view.data) + row * view.row_pitch;
}
/* Of the eight channels from `channel` on, how many lie below `end`. */
__host__ __device__ __forceinline__ unsigned dn_valid(uint32_t channel, uint32_t end)
{
    return channel >= end ? 0u : end - channel < dn_unit ? end - channel : dn_unit;
}
/* A vector of the row, channels from `channel` on; none: zeros. */
template <typename T>
__device__ __forceinline__ void dn_load_vector(const dn_cuda_view &view, uint32_t row, uint32_t channel, bool aligned, float *v)
{
    unsigned valid = view.data ? dn_valid(channel, view.c) : 0u;
    dn_load_chunk(valid ? dn_row_of<T>(view, row) + channel : static_cast<const T *>(nullptr), valid, aligned, v);
}

/* Whether chunks of the view are aligned; views that are not there are. */
template <typename... V> inline bool dn_aligned(const V &...views)
{
    bool all = true;
    for (const dn_cuda_view *v : {&views...})
        all = all && (!v->data || (reinterpret_cast<uintptr_t>(v->data) % 16 == 0 && v->pitch % dn_unit == 0 && v->row_pitch % dn_unit == 0));
    return all;
}
/* Chunks of one pixel, padding and all. */
__host__ __device__ __forceinline__ uint32_t dn_pixel_chunks(const dn_cuda_view &view)
{
    return (view.pitch + dn_unit - 1) / dn_unit;
}

/* The rows of a block on the device. */
__device__ __forceinline__ const dn_cuda_row *dn_rows_of(const dn_cuda_block *block)
{
    return reinterpret_cast<const dn_cuda_row *>(reinterpret_cast<const unsigned char *>(block) + block->rows_at);
}

/* ---- Grids: x over what one row has, y over rows (in turns, where there are more than a grid takes). */
constexpr unsigned dn_threads = 256;
inline bool dn_grid(dim3 *grid, uint64_t items, unsigned per_block, uint32_t rows)
{
    uint64_t blocks = (items + per_block - 1) / per_block;
    *grid = dim3(static_cast<unsigned>(blocks), rows < 65535u ? rows : 65535u);
    return items > 0 && rows > 0 && items < 0x7FFFFFFFull;
}

/* Where a thread of an elementwise kernel works: one chunk of a row. */
struct dn_place {
    uint32_t pixel, channel;
    bool inside;
};
__device__ __forceinline__ dn_place dn_chunk_place(const dn_cuda_view &out)
{
    uint32_t chunks = dn_pixel_chunks(out), item = blockIdx.x * blockDim.x + threadIdx.x, pixel = item / chunks;
    return dn_place{pixel, (item - pixel * chunks) * dn_unit, pixel < out.h * out.w};
}
template <typename T>
__device__ __forceinline__ void dn_load_at(const dn_cuda_view &view, uint32_t row, dn_place at, bool aligned, float *v)
{
    dn_load_chunk(dn_row_of<T>(view, row) + static_cast<uint64_t>(at.pixel) * view.pitch + at.channel, dn_valid(at.channel, view.c), aligned, v);
}
template <typename T>
__device__ __forceinline__ void dn_store_at(const dn_cuda_view &view, uint32_t row, dn_place at, bool aligned, const float *v)
{
    dn_store_chunk(dn_row_of<T>(view, row) + static_cast<uint64_t>(at.pixel) * view.pitch + at.channel, dn_valid(at.channel, view.c),
                   dn_valid(at.channel, view.pitch), aligned, v);
}
/* Launches kernel<T>(arguments, aligned, rows) with a thread for each chunk of out. */
template <typename K, typename... A>
int dn_launch_chunks(K kernel, const dn_cuda_launch *launch, const dn_cuda_view &out, bool aligned, const A &...arguments)
{
    dim3 grid;
    if (!dn_grid(&grid, static_cast<uint64_t>(out.h) * out.w * dn_pixel_chunks(out), dn_threads, launch->rows))
        return dn_invalid_value;
    return DN_LAUNCH_FLAT(kernel, grid, dim3(dn_threads), 0, launch->stream, arguments..., aligned, launch->rows);
}

/* ---- Over a warp, every lane the same result: lanes in pairs, pairs of pairs, and so on. */
__device__ __forceinline__ float dn_warp_sum(float x)
{
    DN_UNROLL for (int with = 16; with > 0; with /= 2)
        x += __shfl_xor_sync(dn_all_lanes, x, with);
    return x;
}
__device__ __forceinline__ float dn_warp_max(float x)
{
    DN_UNROLL for (int with = 16; with > 0; with /= 2)
        x = fmaxf(x, __shfl_xor_sync(dn_all_lanes, x, with));
    return x;
}

/* ---- Activations: activation's of eight, in place. bfloat16 takes the GPU's fast exponential and division, whose errors it cannot hold. */
template <typename T> __device__ __forceinline__ float dn_exp_of(float x);
template <> __device__ __forceinline__ float dn_exp_of<float>(float x)
{
    return expf(x);
}
template <> __device__ __forceinline__ float dn_exp_of<dn_bf16>(float x)
{
    return __expf(x);
}
template <typename T> __device__ __forceinline__ float dn_over(float a, float b);
template <> __device__ __forceinline__ float dn_over<float>(float a, float b)
{
    return a / b;
}
template <> __device__ __forceinline__ float dn_over<dn_bf16>(float a, float b)
{
    return __fdividef(a, b);
}

/* x / (1 + e^-x). */
template <typename T> __device__ __forceinline__ float dn_silu(float x)
{
    return dn_over<T>(x, 1.0f + dn_exp_of<T>(-x));
}
/* x (1 + tanh u) / 2 is x / (1 + e^-2u). */
template <typename T> __device__ __forceinline__ float dn_gelu_tanh(float x)
{
    return dn_over<T>(x, 1.0f + dn_exp_of<T>(-1.59576912160573071176f * (x + 0.044715f * x * x * x)));
}
/* tanh(log(1 + e)) is (e^2 + 2e) / (e^2 + 2e + 2), which is 1 for any e above e^20. */
template <typename T> __device__ __forceinline__ float dn_mish(float x)
{
    float e = dn_exp_of<T>(fminf(x, 20.0f)), n = e * (e + 2.0f);
    return x * dn_over<T>(n, n + 2.0f);
}
template <typename T> __device__ __forceinline__ void dn_activate(uint32_t activation, float *v, unsigned count = dn_unit)
{
    switch (activation) {
    case DN_CUDA_ACT_SILU:
        DN_UNROLL for (unsigned i = 0; i < count; i++)
            v[i] = dn_silu<T>(v[i]);
        break;
    case DN_CUDA_ACT_GELU:
        DN_UNROLL for (unsigned i = 0; i < count; i++)
            v[i] = 0.5f * v[i] * (1.0f + erff(v[i] * 0.70710678118654752440f));
        break;
    case DN_CUDA_ACT_GELU_TANH:
        DN_UNROLL for (unsigned i = 0; i < count; i++)
            v[i] = dn_gelu_tanh<T>(v[i]);
        break;
    case DN_CUDA_ACT_RELU:
        DN_UNROLL for (unsigned i = 0; i < count; i++)
            v[i] = v[i] > 0.0f ? v[i] : 0.0f;
        break;
    case DN_CUDA_ACT_MISH:
        DN_UNROLL for (unsigned i = 0; i < count; i++)
            v[i] = dn_mish<T>(v[i]);
        break;
    default:
        break;
    }
}

#endif
