/* Vectors that come from a row's time and condition: sinusoids, and lines of tables.
 *
 * The CPU's operations in the CPU's order without fused multiply-add, so that in float they are the CPU's bits: sinusoids in double, rounded
 * once. Rows that nobody wants have time 1 and line 0 of tables. A thread has a sine and its cosine, or one channel. */
#include "backend/cuda/kernels/programs_math.cuh"

namespace {

__device__ __forceinline__ bool wanted(const dn_cuda_block *block, uint32_t row)
{
    return row < block->row_count;
}

/* The place of a thread among a row's `half` waves; behind them, zeros to the pitch. */
template <typename T> struct waves {
    T *out;
    uint32_t at, half, pitch;
    bool flip;

    __device__ __forceinline__ void write(double sine, double cosine) const
    {
        dn_store(out + at, static_cast<float>(flip ? cosine : sine));
        dn_store(out + half + at, static_cast<float>(flip ? sine : cosine));
    }
    /* Whether this thread has a wave. */
    __device__ __forceinline__ bool begins() const
    {
        if (at >= half && at + half < pitch)
            dn_store(out + half + at, 0.0f);
        return at < half;
    }
};

template <typename T> __device__ __forceinline__ waves<T> waves_of(const dn_cuda_view &out, uint32_t row, bool flip)
{
    return waves<T>{dn_row_of<T>(out, row), blockIdx.x * blockDim.x + threadIdx.x, out.c / 2, out.pitch, flip};
}

template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_time_embedding(const dn_cuda_block *block, const double *frequencies, bool flip, dn_cuda_view out, uint32_t rows)
{
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        waves<T> to = waves_of<T>(out, r, flip);
        if (!to.begins())
            continue;
        double sine, cosine, time = wanted(block, r) ? static_cast<double>(dn_rows_of(block)[r].time) : 1.0;
        dn_sine_cosine64(time * frequencies[to.at], &sine, &cosine);
        to.write(sine, cosine);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_class_sinusoid(const dn_cuda_block *block, const double *frequencies, bool flip, dn_cuda_view out, uint32_t rows)
{
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        waves<T> to = waves_of<T>(out, r, flip);
        if (!to.begins())
            continue;
        const dn_cuda_row *row = dn_rows_of(block) + r;
        double sines = 0.0, cosines = 0.0;
        for (uint32_t k = 0; wanted(block, r) && k < min(row->class_count, DN_CUDA_CLASSES_MAX); k++) {
            double sine, cosine;
            dn_sine_cosine64(static_cast<double>(row->classes[k]) * frequencies[to.at], &sine, &cosine);
            sines += static_cast<double>(row->weights[k]) * sine;
            cosines += static_cast<double>(row->weights[k]) * cosine;
        }
        to.write(sines, cosines);
    }
}

/* A time of zero or less has no logarithm: its row is NaN. */
template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_fourier_embedding(const dn_cuda_block *block, const float *weight, bool log_time, bool flip, dn_cuda_view out, uint32_t rows)
{
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        waves<T> to = waves_of<T>(out, r, flip);
        if (!to.begins())
            continue;
        double sine, cosine, f = wanted(block, r) ? static_cast<double>(dn_rows_of(block)[r].time) : 1.0;
        if (log_time)
            f = f > 0.0 ? dn_log64(f) : __longlong_as_double(0x7FF8000000000000ll);
        dn_sine_cosine64(6.28318530717958647693 * f * static_cast<double>(weight[to.at]), &sine, &cosine);
        to.write(sine, cosine);
    }
}

/* Of a line, or of the weighted sum of some: this thread's channel. */
template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_time_table(const dn_cuda_block *block, const float *table, uint32_t table_rows, dn_cuda_view out, uint32_t rows)
{
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    for (uint32_t r = blockIdx.y; r < rows && c < out.pitch; r += gridDim.y) {
        float time = wanted(block, r) ? dn_rows_of(block)[r].time : 0.0f;
        uint64_t line = time >= 0.0f && time < static_cast<float>(table_rows) ? static_cast<uint64_t>(time) : 0;
        dn_store(dn_row_of<T>(out, r) + c, c < out.c ? table[line * out.c + c] : 0.0f);
    }
}

template <typename T>
__global__ void __launch_bounds__(dn_threads)
    k_class_embedding(const dn_cuda_block *block, const float *table, uint32_t table_rows, dn_cuda_view out, uint32_t rows)
{
    uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
    for (uint32_t r = blockIdx.y; r < rows && c < out.pitch; r += gridDim.y) {
        const dn_cuda_row *row = dn_rows_of(block) + r;
        float sum = 0.0f;
        if (c < out.c && !wanted(block, r))
            sum = table[c];
        for (uint32_t k = 0; c < out.c && wanted(block, r) && k < min(row->class_count, DN_CUDA_CLASSES_MAX); k++) {
            uint64_t line = row->classes[k] < table_rows ? row->classes[k] : 0;
            sum += row->weights[k] * table[line * out.c + c];
        }
        dn_store(dn_row_of<T>(out, r) + c, sum);
    }
}

/* A thread for each channel and each of the padding, more than waves need. */
template <typename K, typename... A> int launch_vector(K kernel, const dn_cuda_launch *launch, const dn_cuda_view &out, const A &...arguments)
{
    dim3 grid;
    if (!dn_grid(&grid, out.pitch, dn_threads, launch->rows))
        return dn_invalid_value;
    return DN_LAUNCH_FLAT(kernel, grid, dim3(dn_threads), 0, launch->stream, arguments..., out, launch->rows);
}

} // namespace

extern "C" int dn_cuda_time_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const double *frequencies, bool flip,
                                      dn_cuda_view out)
{
    return launch_vector(launch->type == DN_CUDA_F32 ? k_time_embedding<float> : k_time_embedding<dn_bf16>, launch, out, block, frequencies,
                         flip);
}

extern "C" int dn_cuda_class_sinusoid(const dn_cuda_launch *launch, const dn_cuda_block *block, const double *frequencies, bool flip,
                                      dn_cuda_view out)
{
    return launch_vector(launch->type == DN_CUDA_F32 ? k_class_sinusoid<float> : k_class_sinusoid<dn_bf16>, launch, out, block, frequencies,
                         flip);
}

extern "C" int dn_cuda_fourier_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *weight, bool log_time, bool flip,
                                         dn_cuda_view out)
{
    return launch_vector(launch->type == DN_CUDA_F32 ? k_fourier_embedding<float> : k_fourier_embedding<dn_bf16>, launch, out, block, weight,
                         log_time, flip);
}

extern "C" int dn_cuda_time_table(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *table, uint32_t table_rows,
                                  dn_cuda_view out)
{
    return launch_vector(launch->type == DN_CUDA_F32 ? k_time_table<float> : k_time_table<dn_bf16>, launch, out, block, table, table_rows);
}

extern "C" int dn_cuda_class_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *table, uint32_t table_rows,
                                       dn_cuda_view out)
{
    return launch_vector(launch->type == DN_CUDA_F32 ? k_class_embedding<float> : k_class_embedding<dn_bf16>, launch, out, block, table,
                         table_rows);
}
