/* Attention of our own, in float without matrix units: for float activations and for head sizes that the libraries do not take.
 *
 * A block has 4 warps, a warp some queries of one head. Keys come 32 at a time through shared memory. For the scores a lane has one key; for
 * the sums of values it has every 32nd channel. The softmax is online: a maximum that grows, and sums that are rescaled when it does. What
 * a query gets depends on its row and head alone. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

constexpr unsigned warps = 4, keys_a_tile = 32, tile_channels = 64;

struct heads_of_rows {
    dn_cuda_view qkv, out;
    uint32_t heads, dim, positions;
    float scale;
};

/* 32 keys' (or values') channels first .. first + count - 1; keys behind the last are zeros. By the whole block. */
template <typename T>
__device__ __forceinline__ void load_tile(float (*tile)[tile_channels + 1], const T *from, uint32_t pitch, uint32_t key, uint32_t keys, uint32_t count)
{
    unsigned lane = threadIdx.x % 32;
    for (unsigned k = threadIdx.x / 32; k < keys_a_tile; k += warps) {
        for (unsigned d = lane; d < tile_channels; d += 32)
            tile[k][d] = key + k < keys && d < count ? dn_load(from + static_cast<uint64_t>(key + k) * pitch + d) : 0.0f;
    }
}

typedef float tile_memory[tile_channels + 1]; /* one key's; an odd stride, so that lanes meet different banks */

/* Of Q queries: the largest score so far, what the chances below it add up to (each lane its keys'), and the values weighed with them. */
template <unsigned J, unsigned Q> struct progress {
    float top[Q], total[Q], sum[J][Q];
};

/* A lane's key with every query of its warp. */
template <typename T, unsigned Q>
__device__ __forceinline__ void score_keys(const heads_of_rows &a, const T *keys, uint32_t key, tile_memory *tile, const float (*queries)[Q], float *score)
{
    unsigned lane = threadIdx.x % 32;
    DN_UNROLL for (unsigned i = 0; i < Q; i++)
        score[i] = 0.0f;
    for (uint32_t d0 = 0; d0 < a.dim; d0 += tile_channels) {
        uint32_t count = min(a.dim - d0, tile_channels);
        __syncthreads();
        load_tile(tile, keys + d0, a.qkv.pitch, key, a.positions, count);
        __syncthreads();
        for (uint32_t d = 0; d < count; d++) {
            float at = tile[lane][d];
            DN_UNROLL for (unsigned i = 0; i < Q; i++)
                score[i] += queries[d0 + d][i] * at;
        }
    }
}

/* Scores to chances; what was summed under a smaller maximum fades. */
template <typename T, unsigned J, unsigned Q>
__device__ __forceinline__ void weigh(progress<J, Q> &so_far, const float *score, bool there, float (*chances)[Q])
{
    DN_UNROLL for (unsigned i = 0; i < Q; i++) {
        float mine = there ? score[i] : -INFINITY, top = fmaxf(so_far.top[i], dn_warp_max(mine));
        float fade = dn_exp_of<T>(so_far.top[i] - top), chance = dn_exp_of<T>(mine - top);
        so_far.top[i] = top;
        so_far.total[i] = so_far.total[i] * fade + chance;
        chances[threadIdx.x % 32][i] = chance;
        DN_UNROLL for (unsigned j = 0; j < J; j++)
            so_far.sum[j][i] *= fade;
    }
}

template <typename T, unsigned J, unsigned Q>
__device__ __forceinline__ void add_values(const heads_of_rows &a, const T *values, uint32_t key, tile_memory *tile, const float (*chances)[Q],
                                           progress<J, Q> &so_far)
{
    unsigned lane = threadIdx.x % 32;
    DN_UNROLL for (unsigned j = 0; j < J; j += 2) {
        if (j * 32 >= a.dim)
            continue;
        __syncthreads();
        load_tile(tile, values + j * 32, a.qkv.pitch, key, a.positions, min(a.dim - j * 32, tile_channels));
        __syncthreads();
        for (unsigned n = 0; n < keys_a_tile; n++) {
            float near = tile[n][lane], far = tile[n][lane + 32];
            DN_UNROLL for (unsigned i = 0; i < Q; i++) {
                so_far.sum[j][i] += chances[n][i] * near;
                so_far.sum[j + 1][i] += chances[n][i] * far;
            }
        }
    }
}

/* A warp's queries, of which the first is number `first`; head 0 writes the padding too. */
template <typename T, unsigned J, unsigned Q>
__device__ __forceinline__ void write_heads(const heads_of_rows &a, uint32_t row, uint32_t head, uint32_t first, const progress<J, Q> &done)
{
    unsigned lane = threadIdx.x % 32;
    DN_UNROLL for (unsigned i = 0; i < Q; i++) {
        float whole = dn_warp_sum(done.total[i]);
        T *out = dn_row_of<T>(a.out, row) + static_cast<uint64_t>(first + i) * a.out.pitch;
        if (first + i >= a.positions)
            continue;
        DN_UNROLL for (unsigned j = 0; j < J; j++) {
            if (j * 32 + lane < a.dim)
                dn_store(out + head * a.dim + j * 32 + lane, done.sum[j][i] / whole);
        }
        for (uint32_t pad = a.out.c + lane; head == 0 && pad < a.out.pitch; pad += 32)
            dn_store(out + pad, 0.0f);
    }
}

/* Heads of at most 32 * J channels, Q queries a warp. Grid: queries, heads, rows. */
template <typename T, unsigned J, unsigned Q>
__global__ void __launch_bounds__(warps * 32, 4) k_attention(heads_of_rows a, uint32_t rows)
{
    DN_SHARED(float, tile, [keys_a_tile][tile_channels + 1]);
    DN_SHARED(float, queries, [warps][J * 32][Q]);
    DN_SHARED(float, chances, [warps][keys_a_tile][Q]);
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first = (blockIdx.x * warps + warp) * Q, head = blockIdx.y;
    for (uint32_t r = blockIdx.z; r < rows; r += gridDim.z) {
        const T *q = dn_row_of<T>(a.qkv, r) + static_cast<uint64_t>(head) * a.dim, *keys = q + a.out.c, *values = keys + a.out.c;
        progress<J, Q> so_far;
        DN_UNROLL for (unsigned i = 0; i < Q; i++) {
            so_far.top[i] = -INFINITY;
            so_far.total[i] = 0.0f;
            const T *from = q + static_cast<uint64_t>(first + i) * a.qkv.pitch;
            for (unsigned d = lane; d < J * 32; d += 32)
                queries[warp][d][i] = first + i < a.positions && d < a.dim ? a.scale * dn_load(from + d) : 0.0f;
            DN_UNROLL for (unsigned j = 0; j < J; j++)
                so_far.sum[j][i] = 0.0f;
        }
        for (uint32_t key = 0; key < a.positions; key += keys_a_tile) {
            float score[Q];
            score_keys<T, Q>(a, keys, key, tile, queries[warp], score);
            weigh<T, J, Q>(so_far, score, key + lane < a.positions, chances[warp]);
            add_values<T, J, Q>(a, values, key, tile, chances[warp], so_far);
        }
        write_heads<T, J, Q>(a, r, head, first, so_far);
        __syncthreads();
    }
}

template <typename T, unsigned J, unsigned Q> int launch_heads(const dn_cuda_launch *launch, const heads_of_rows &a)
{
    dim3 grid((a.positions + warps * Q - 1) / (warps * Q), a.heads, launch->rows < 65535u ? launch->rows : 65535u);
    return DN_LAUNCH(k_attention<T, J, Q>, grid, dim3(warps * 32), 0, launch->stream, a, launch->rows);
}

template <typename T> int launch_attention(const dn_cuda_launch *launch, const heads_of_rows &a)
{
    return a.dim <= 64    ? launch_heads<T, 2, 8>(launch, a)
           : a.dim <= 128 ? launch_heads<T, 4, 8>(launch, a)
           : a.dim <= 256 ? launch_heads<T, 8, 4>(launch, a)
                          : launch_heads<T, 16, 2>(launch, a);
}

} // namespace

extern "C" int dn_cuda_attention(const dn_cuda_launch *launch, dn_cuda_view qkv, dn_cuda_view out, uint32_t heads)
{
    uint64_t positions = static_cast<uint64_t>(out.h) * out.w;
    if (heads == 0 || out.c % heads != 0 || out.c / heads > 512 || out.c == 0 || positions == 0 || positions > 0x40000000u)
        return dn_invalid_value;
    uint32_t dim = out.c / heads;
    heads_of_rows a{qkv, out, heads, dim, static_cast<uint32_t>(positions), 1.0f / sqrtf(static_cast<float>(dim))};
    return launch->type == DN_CUDA_F32 ? launch_attention<float>(launch, a) : launch_attention<dn_bf16>(launch, a);
}
