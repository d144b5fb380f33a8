/* Kernels with planted faults: what cuemu.h promises to find, and what it promises to do right. */
#include "cuemu.h"

#include "planted.h"

namespace {

constexpr unsigned threads = 256;

void k_sum(const float *in, float *out, bool barrier)
{
    DN_SHARED(float, values, [threads]);
    unsigned t = threadIdx.x;
    values[t] = in[t];
    for (unsigned half = threads / 2; half > 0; half /= 2) {
        if (barrier)
            __syncthreads();
        else
            __syncwarp();
        if (t < half)
            values[t] += values[t + half];
    }
    __syncthreads();
    out[t] = values[0];
}

void k_unwritten(float *out)
{
    DN_SHARED(float, values, [threads]);
    if (threadIdx.x != 7)
        values[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

void k_shuffles(uint32_t *out)
{
    uint32_t t = threadIdx.x;
    out[t] = __shfl_sync(cuemu::full_mask, t, 3);
    out[64 + t] = __shfl_xor_sync(cuemu::full_mask, t, 5);
    out[128 + t] = __shfl_down_sync(cuemu::full_mask, t, 2u);
    out[192 + t] = __shfl_up_sync(cuemu::full_mask, t, 1u);
    out[256 + t] = __ballot_sync(cuemu::full_mask, t % 2 == 1);
    out[320 + t] = uint32_t(__any_sync(cuemu::full_mask, t == 40));
    out[384 + t] = uint32_t(__all_sync(cuemu::full_mask, t < 40));
    double twice = __shfl_xor_sync(cuemu::full_mask, __shfl_xor_sync(cuemu::full_mask, double(t), 1), 2);
    out[448 + t] = uint32_t(twice);
}

void k_blocks(uint32_t *out, bool wait)
{
    if (wait)
        __syncthreads();
    if (threadIdx.x == 1 && threadIdx.y == 2 && threadIdx.z == 3)
        out[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x]++;
}

void k_left()
{
    if (threadIdx.x == 100)
        return;
    __syncthreads();
}

void k_half_a_shuffle()
{
    if (threadIdx.x % 2)
        (void)__shfl_sync(0x55555555u, 1, 0);
}

void k_barrier()
{
    __syncthreads();
}

void k_much_shared()
{
    DN_SHARED(double, values, [5000]);
    DN_SHARED(double, more, [5000]);
    values[0] = more[0] = 1.0;
}

} // namespace

extern "C" int planted_sum(const float *in, float *out, bool barrier)
{
    return DN_LAUNCH(k_sum, dim3(1), dim3(threads), 0, nullptr, in, out, barrier);
}

extern "C" int planted_unwritten(float *out)
{
    return DN_LAUNCH(k_unwritten, dim3(1), dim3(threads), 0, nullptr, out);
}

extern "C" int planted_shuffles(uint32_t *out)
{
    return DN_LAUNCH(k_shuffles, dim3(1), dim3(64), 0, nullptr, out);
}

extern "C" int planted_blocks(uint32_t *out, bool flat)
{
    return flat ? DN_LAUNCH_FLAT(k_blocks, dim3(3, 4, 5), dim3(2, 3, 4), 0, nullptr, out, false)
                : DN_LAUNCH(k_blocks, dim3(3, 4, 5), dim3(2, 3, 4), 0, nullptr, out, true);
}

extern "C" int planted_left_before_barrier(void)
{
    return DN_LAUNCH(k_left, dim3(1), dim3(threads), 0, nullptr);
}

extern "C" int planted_half_a_shuffle(void)
{
    return DN_LAUNCH(k_half_a_shuffle, dim3(1), dim3(threads), 0, nullptr);
}

extern "C" int planted_flat_barrier(void)
{
    return DN_LAUNCH_FLAT(k_barrier, dim3(1), dim3(threads), 0, nullptr);
}

extern "C" int planted_much_shared(void)
{
    return DN_LAUNCH(k_much_shared, dim3(1), dim3(32), 0, nullptr);
}

extern "C" int planted_launch(uint32_t blocks_x, uint32_t blocks_y, uint32_t count, uint64_t shared)
{
    return DN_LAUNCH(k_barrier, dim3(blocks_x, blocks_y), dim3(count), size_t(shared), nullptr);
}
