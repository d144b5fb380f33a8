/* Weights on the device: a checkpoint's floats into the layouts that products read, once for each network. A thread has one element. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

struct filter_options {
    const float *in;
    void *out;
    uint32_t o, i, kh, kw, i_pad;
    uint64_t total;
};

template <typename T> __global__ void __launch_bounds__(dn_threads) k_pack_filter(filter_options f)
{
    uint64_t at = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= f.total)
        return;
    uint64_t rest = at / f.i_pad;
    uint32_t i = static_cast<uint32_t>(at - rest * f.i_pad), x = static_cast<uint32_t>(rest % f.kw);
    rest /= f.kw;
    uint32_t y = static_cast<uint32_t>(rest % f.kh);
    uint64_t o = rest / f.kh;
    float v = o < f.o && i < f.i ? f.in[((o * f.i + i) * f.kh + y) * f.kw + x] : 0.0f;
    dn_store(static_cast<T *>(f.out) + at, v);
}

template <typename T> __global__ void __launch_bounds__(dn_threads) k_pack_vector(const float *in, uint64_t count, uint64_t padded, void *out)
{
    uint64_t at = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at < padded)
        dn_store(static_cast<T *>(out) + at, at < count ? in[at] : 0.0f);
}

/* A thread each; false: more than a grid takes, or nothing. */
bool grid_of(dim3 *grid, uint64_t elements)
{
    uint64_t blocks = (elements + dn_threads - 1) / dn_threads;
    *grid = dim3(static_cast<unsigned>(blocks));
    return blocks > 0 && blocks <= 0x7FFFFFFFull;
}

} // namespace

extern "C" int dn_cuda_pack_filter(const dn_cuda_launch *launch, const float *in, uint32_t o, uint32_t i, uint32_t kh, uint32_t kw,
                                   uint32_t o_pad, uint32_t i_pad, void *out)
{
    dim3 grid;
    filter_options f{in, out, o, i, kh, kw, i_pad, static_cast<uint64_t>(o_pad) * kh * kw * i_pad};
    if (!grid_of(&grid, f.total))
        return dn_invalid_value;
    return DN_LAUNCH_FLAT(launch->type == DN_CUDA_F32 ? k_pack_filter<float> : k_pack_filter<dn_bf16>, grid, dim3(dn_threads), 0,
                          launch->stream, f);
}

extern "C" int dn_cuda_pack_vector(const dn_cuda_launch *launch, const float *in, uint64_t count, uint64_t padded, void *out)
{
    dim3 grid;
    if (!grid_of(&grid, padded))
        return dn_invalid_value;
    return DN_LAUNCH_FLAT(launch->type == DN_CUDA_F32 ? k_pack_vector<float> : k_pack_vector<dn_bf16>, grid, dim3(dn_threads), 0,
                          launch->stream, in, count, padded, out);
}
