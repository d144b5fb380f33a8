/* One slice of a register program, as the threads of one block see it: which elements each has, and sums over all of them.
 *
 * A thread has the same elements in every operation: quads of four, thread t those from 4 t on, and so on by 2048. So operations that are
 * elementwise need no barrier between them, and an operation has read what it needs of an element before it writes it. Sums are in double: a
 * thread's elements in order, then a tree of fixed shape, so that a sum depends on the register alone. */
#ifndef DN_BACKEND_CUDA_KERNELS_PROGRAMS_CUH
#define DN_BACKEND_CUDA_KERNELS_PROGRAMS_CUH

#include "backend/cuda/kernels/programs_math.cuh"

#ifdef DN_CUDA_EMULATED
#define DN_UNROLL_FOUR
#else
#define DN_UNROLL_FOUR _Pragma("unroll 4")
#endif

constexpr unsigned dn_program_threads = 512, dn_program_warps = dn_program_threads / 32;

struct dn_slice_view {
    float *registers; /* of register 0 */
    uint64_t elements, first, count;
    bool aligned; /* quads of every register are 16-byte aligned */
};

__device__ __forceinline__ float *dn_register(const dn_slice_view &slice, uint32_t index)
{
    return slice.registers + index * slice.elements + slice.first;
}

/* Four floats that are all there, and aligned. */
__device__ __forceinline__ dn_quad dn_load_whole_quad(const float *from)
{
    struct alignas(16) vector {
        float at[4];
    };
    vector loaded = *reinterpret_cast<const vector *>(from);
    dn_quad out;
    DN_UNROLL for (unsigned k = 0; k < 4; k++)
        out.at[k] = loaded.at[k];
    return out;
}

/* The quad at element i of the slice; of elements that are not there, zeros. */
__device__ __forceinline__ dn_quad dn_load_quad(const dn_slice_view &slice, const float *from, uint64_t i)
{
    dn_quad out;
    if (slice.aligned && i + 4 <= slice.count) {
        out = dn_load_whole_quad(from + i);
    } else {
        DN_UNROLL for (unsigned k = 0; k < 4; k++)
            out.at[k] = i + k < slice.count ? from[i + k] : 0.0f;
    }
    return out;
}

__device__ __forceinline__ void dn_store_quad(const dn_slice_view &slice, float *to, uint64_t i, const dn_quad &quad)
{
    struct alignas(16) vector {
        float at[4];
    };
    if (slice.aligned && i + 4 <= slice.count) {
        vector stored;
        DN_UNROLL for (unsigned k = 0; k < 4; k++)
            stored.at[k] = quad.at[k];
        *reinterpret_cast<vector *>(to + i) = stored;
    } else {
        DN_UNROLL for (unsigned k = 0; k < 4; k++) {
            if (i + k < slice.count)
                to[i + k] = quad.at[k];
        }
    }
}

/* dst[i] = f(i of the register, src[0][i], src[1][i], src[2][i]) of as many sources as there are; the others are 0. */
template <unsigned sources, typename F> __device__ __forceinline__ void dn_map(const dn_slice_view &slice, const dn_cuda_op &op, F f)
{
    float *dst = dn_register(slice, op.dst);
    for (uint64_t i = threadIdx.x * 4u; i < slice.count; i += dn_program_threads * 4u) {
        dn_quad a = {}, b = {}, c = {}, out;
        if (sources > 0)
            a = dn_load_quad(slice, dn_register(slice, op.src[0]), i);
        if (sources > 1)
            b = dn_load_quad(slice, dn_register(slice, op.src[1]), i);
        if (sources > 2)
            c = dn_load_quad(slice, dn_register(slice, op.src[2]), i);
        DN_UNROLL for (unsigned k = 0; k < 4; k++)
            out.at[k] = f(slice.first + i + k, a.at[k], b.at[k], c.at[k]);
        dn_store_quad(slice, dst, i, out);
    }
}

struct dn_sums {
    double a, b, c;
};

/* Of all threads' numbers the sums, or the smallest (never NaN): the same for every thread. Two barriers. */
__device__ __forceinline__ double dn_fold(double x, double y, bool smallest)
{
    return smallest ? (y < x ? y : x) : x + y;
}
__device__ __forceinline__ dn_sums dn_over_block(const dn_sums &mine, bool smallest)
{
    DN_SHARED(double, partial, [3][dn_program_threads]);
    DN_SHARED(double, columns, [3][32]);
    unsigned t = threadIdx.x;
    partial[0][t] = mine.a;
    partial[1][t] = mine.b;
    partial[2][t] = mine.c;
    __syncthreads();
    if (t < 96) {
        unsigned which = t / 32, lane = t % 32;
        double folded = partial[which][lane];
        for (unsigned w = 1; w < dn_program_warps; w++)
            folded = dn_fold(folded, partial[which][w * 32 + lane], smallest);
        columns[which][lane] = folded;
    }
    __syncthreads();
    dn_sums all = {columns[0][0], columns[1][0], columns[2][0]};
    for (unsigned lane = 1; lane < 32; lane++) {
        all.a = dn_fold(all.a, columns[0][lane], smallest);
        all.b = dn_fold(all.b, columns[1][lane], smallest);
        all.c = dn_fold(all.c, columns[2][lane], smallest);
    }
    return all;
}

/* Sums over all elements: f(sums, src[0][i], src[1][i], src[2][i]) adds what element i gives. Several quads are on their way at once: one
 * block has little else to wait with. */
template <unsigned sources, typename F> __device__ __forceinline__ dn_sums dn_sum(const dn_slice_view &slice, const dn_cuda_op &op, F f)
{
    dn_sums mine = {0.0, 0.0, 0.0};
    const float *x = dn_register(slice, op.src[0]), *y = sources > 1 ? dn_register(slice, op.src[1]) : x;
    const float *z = sources > 2 ? dn_register(slice, op.src[2]) : x;
    uint64_t i = threadIdx.x * 4u, whole = slice.aligned ? slice.count / 4 * 4 : 0;
    DN_UNROLL_FOUR for (; i < whole; i += dn_program_threads * 4u) {
        dn_quad a = dn_load_whole_quad(x + i), b = {}, c = {};
        if (sources > 1)
            b = dn_load_whole_quad(y + i);
        if (sources > 2)
            c = dn_load_whole_quad(z + i);
        DN_UNROLL for (unsigned k = 0; k < 4; k++)
            f(mine, a.at[k], b.at[k], c.at[k]);
    }
    for (; i < slice.count; i += dn_program_threads * 4u) {
        for (uint64_t at = i; at < i + 4 && at < slice.count; at++)
            f(mine, x[at], y[at], z[at]);
    }
    return dn_over_block(mine, false);
}

#endif
