/* Register programs and pixels. One block interprets one slice of a program: its operations in order, each over the slice's elements.
 *
 * Invariant: what backend/cpu/program.c and program_norms.c say, element by element with the same roundings; sums are in double but in the
 * order of programs.cuh, and quantiles are exact. Compiled without fused multiply-add. */
#include "backend/cuda/kernels/programs.cuh"

namespace {

/* dn_op_kind's numbers. */
enum op_kind : uint32_t {
    op_linear,
    op_noise,
    op_clip,
    op_threshold,
    op_norm,
    op_select,
    op_blend,
    op_slerp,
    op_match_std,
    op_project,
    op_error_norm,
    op_accept,
    op_langevin,
    op_exp_scale
};

/* NaN stays NaN. */
__device__ __forceinline__ float clamped(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

__device__ __forceinline__ double square_of(float x)
{
    return static_cast<double>(x) * static_cast<double>(x);
}

__device__ __forceinline__ void run_linear(const dn_slice_view &slice, const dn_cuda_op &op)
{
    float *dst = dn_register(slice, op.dst);
    for (uint64_t i = threadIdx.x * 4u; i < slice.count; i += dn_program_threads * 4u) {
        dn_quad sum = dn_load_quad(slice, dn_register(slice, op.src[0]), i);
        DN_UNROLL for (unsigned k = 0; k < 4; k++)
            sum.at[k] = op.coefficient[0] * sum.at[k];
        for (uint32_t t = 1; t < op.terms; t++) {
            dn_quad term = dn_load_quad(slice, dn_register(slice, op.src[t]), i);
            DN_UNROLL for (unsigned k = 0; k < 4; k++)
                sum.at[k] = sum.at[k] + op.coefficient[t] * term.at[k];
        }
        dn_store_quad(slice, dst, i, sum);
    }
}

__device__ __forceinline__ void run_noise(const dn_slice_view &slice, const dn_cuda_op &op)
{
    float *dst = dn_register(slice, op.dst);
    for (uint64_t i = threadIdx.x * 4u; i < slice.count; i += dn_program_threads * 4u)
        dn_store_quad(slice, dst, i, dn_normals((slice.first + i) / 4, op.seed, op.stream, op.draw));
}

/* dst = a x + b y. */
__device__ __forceinline__ void combine(const dn_slice_view &slice, const dn_cuda_op &op, double a, double b)
{
    dn_map<2>(slice, op, [=](uint64_t, float x, float y, float) {
        return static_cast<float>(a * static_cast<double>(x) + b * static_cast<double>(y));
    });
}

/* ---- Quantiles. The bits of floats that are not negative are in the order of the floats; NaN counts as infinity. */
__device__ __forceinline__ uint32_t rank_bits(float x)
{
    return isnan(x) ? 0x7F800000u : __float_as_uint(x) & 0x7FFFFFFFu;
}

/* The bits of the value that would stand at `rank` were the magnitudes sorted: two bits a round, by counting what lies below each. */
__device__ __forceinline__ uint32_t select_rank(const dn_slice_view &slice, const dn_cuda_op &op, double rank)
{
    uint32_t found = 0;
    for (int shift = 30; shift >= 0; shift -= 2) {
        uint32_t one = found | 1u << shift, two = found | 2u << shift, three = found | 3u << shift;
        dn_sums below = dn_sum<1>(slice, op, [=](dn_sums &mine, float x, float, float) {
            uint32_t bits = rank_bits(x);
            mine.a += bits < one;
            mine.b += bits < two;
            mine.c += bits < three;
        });
        found = rank < below.a ? found : rank < below.b ? one : rank < below.c ? two : three;
    }
    return found;
}

/* The next larger magnitude than one that is there; infinity where there is none. */
__device__ __forceinline__ float next_above(const dn_slice_view &slice, const dn_cuda_op &op, uint32_t bits)
{
    double infinity = __longlong_as_double(0x7FF0000000000000ll);
    dn_sums mine = {infinity, infinity, infinity};
    const float *src = dn_register(slice, op.src[0]);
    for (uint64_t i = threadIdx.x * 4u; i < slice.count; i += dn_program_threads * 4u) {
        dn_quad quad = dn_load_quad(slice, src, i);
        DN_UNROLL for (unsigned k = 0; k < 4; k++) {
            uint32_t at = rank_bits(quad.at[k]);
            double x = static_cast<double>(__uint_as_float(at));
            if (i + k < slice.count && at > bits && x < mine.a)
                mine.a = x;
        }
    }
    return static_cast<float>(dn_over_block(mine, true).a);
}

__device__ __forceinline__ void run_threshold(const dn_slice_view &slice, const dn_cuda_op &op)
{
    double position = static_cast<double>(op.ratio) * static_cast<double>(slice.count - 1);
    uint64_t rank = static_cast<uint64_t>(position);
    uint32_t bits = select_rank(slice, op, static_cast<double>(rank));
    float low = __uint_as_float(bits), quantile = low;
    if (rank + 1 < slice.count) {
        dn_sums upto = dn_sum<1>(slice, op, [=](dn_sums &mine, float x, float, float) { mine.a += rank_bits(x) <= bits; });
        float above = next_above(slice, op, bits);
        float high = static_cast<double>(rank + 1) < upto.a ? low : above;
        quantile = low + (high - low) * static_cast<float>(position - static_cast<double>(rank));
    }
    float bound = clamped(quantile, 1.0f, op.high);
    dn_map<1>(slice, op, [=](uint64_t, float x, float, float) { return clamped(x, -bound, bound) / bound; });
}

/* ---- Operations that need sums. */
__device__ __forceinline__ double norm_of(const dn_slice_view &slice, const dn_cuda_op &op)
{
    dn_sums sums = dn_sum<1>(slice, op, [](dn_sums &mine, float x, float, float) { mine.a += square_of(x); });
    return sqrt(sums.a / static_cast<double>(slice.count));
}

__device__ __forceinline__ double error_norm_of(const dn_slice_view &slice, const dn_cuda_op &op)
{
    double low = static_cast<double>(op.low), ratio = static_cast<double>(op.ratio);
    dn_sums sums = dn_sum<3>(slice, op, [=](dn_sums &mine, float difference, float a, float b) {
        double size_a = fabs(static_cast<double>(a)), size_b = fabs(static_cast<double>(b));
        double e = static_cast<double>(difference) / (low + ratio * (size_b < size_a ? size_a : size_b));
        mine.a += e * e;
    });
    return sqrt(sums.a / static_cast<double>(slice.count));
}

/* a: x.x, b: y.y, c: x.y. */
__device__ __forceinline__ dn_sums products_of(const dn_slice_view &slice, const dn_cuda_op &op)
{
    return dn_sum<2>(slice, op, [](dn_sums &mine, float x, float y, float) {
        mine.a += square_of(x);
        mine.b += square_of(y);
        mine.c += static_cast<double>(x) * static_cast<double>(y);
    });
}

__device__ __forceinline__ void run_slerp(const dn_slice_view &slice, const dn_cuda_op &op)
{
    dn_sums sums = products_of(slice, op);
    double t = static_cast<double>(op.ratio), lengths = sqrt(sums.a) * sqrt(sums.b);
    double cosine = lengths > 0.0 ? sums.c / lengths : 1.0;
    cosine = cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine;
    double sine = sqrt((1.0 - cosine) * (1.0 + cosine)), a = 1.0 - t, b = t, unused;
    if (sine >= 1e-4) {
        double angle = dn_acos64(cosine);
        dn_sine_cosine64((1.0 - t) * angle, &a, &unused);
        dn_sine_cosine64(t * angle, &b, &unused);
        a /= sine;
        b /= sine;
    }
    combine(slice, op, a, b);
}

__device__ __forceinline__ void run_match_std(const dn_slice_view &slice, const dn_cuda_op &op)
{
    double count = static_cast<double>(slice.count), ratio = static_cast<double>(op.ratio);
    dn_sums means = dn_sum<2>(slice, op, [](dn_sums &mine, float x, float y, float) {
        mine.a += static_cast<double>(x);
        mine.b += static_cast<double>(y);
    });
    double mean_x = means.a / count, mean_y = means.b / count;
    dn_sums squares = dn_sum<2>(slice, op, [=](dn_sums &mine, float x, float y, float) {
        double from_x = static_cast<double>(x) - mean_x, from_y = static_cast<double>(y) - mean_y;
        mine.a += from_x * from_x;
        mine.b += from_y * from_y;
    });
    double have = slice.count > 1 ? sqrt(squares.a / (count - 1.0)) : 0.0, wanted = slice.count > 1 ? sqrt(squares.b / (count - 1.0)) : 0.0;
    double factor = have == 0.0 ? 1.0 : ratio * (wanted / have) + (1.0 - ratio);
    dn_map<1>(slice, op, [=](uint64_t, float x, float, float) { return static_cast<float>(factor * static_cast<double>(x)); });
}

__device__ __forceinline__ void run_project(const dn_slice_view &slice, const dn_cuda_op &op)
{
    dn_sums sums = products_of(slice, op);
    double bound = static_cast<double>(op.low), size = sqrt(sums.a);
    double scale = bound > 0.0 && size > bound ? bound / size : 1.0;
    double along = sums.b > 0.0 ? scale * sums.c / sums.b : 0.0;
    combine(slice, op, scale, (static_cast<double>(op.ratio) - 1.0) * along);
}

__device__ __forceinline__ void run_langevin(const dn_slice_view &slice, const dn_cuda_op &op)
{
    dn_sums sums = dn_sum<3>(slice, op, [](dn_sums &mine, float, float score, float noise) {
        mine.a += square_of(score);
        mine.b += square_of(noise);
    });
    double size = sqrt(sums.a), ratio = size > 0.0 ? static_cast<double>(op.ratio) * sqrt(sums.b) / size : 0.0;
    double step = 2.0 * static_cast<double>(op.low) * ratio * ratio, spread = sqrt(2.0 * step);
    dn_map<3>(slice, op, [=](uint64_t, float x, float score, float noise) {
        return static_cast<float>(static_cast<double>(x) + step * static_cast<double>(score) + spread * static_cast<double>(noise));
    });
}

/* ---- The interpreter. */
__device__ __forceinline__ void run_exp_scale(const dn_slice_view &slice, const dn_cuda_op &op)
{
    double low = static_cast<double>(op.low), ratio = static_cast<double>(op.ratio);
    dn_map<2>(slice, op, [=](uint64_t, float exponent, float factor, float) {
        return static_cast<float>(dn_exp64(low + ratio * static_cast<double>(exponent))) * factor;
    });
}

/* An operation that writes a register. `scalar`: the last that the program gave. */
__device__ __forceinline__ void run_op(const dn_slice_view &slice, const dn_cuda_op &op, double scalar)
{
    switch (op.kind) {
    case op_linear:
        return run_linear(slice, op);
    case op_noise:
        return run_noise(slice, op);
    case op_clip:
        return dn_map<1>(slice, op, [&](uint64_t, float x, float, float) { return clamped(x, op.low, op.high); });
    case op_threshold:
        return run_threshold(slice, op);
    case op_select:
        return dn_map<2>(slice, op, [&](uint64_t i, float x, float y, float) { return i < op.split ? x : y; });
    case op_blend:
        return dn_map<3>(slice, op, [](uint64_t, float x, float y, float mask) { return mask * x + (1.0f - mask) * y; });
    case op_slerp:
        return run_slerp(slice, op);
    case op_match_std:
        return run_match_std(slice, op);
    case op_project:
        return run_project(slice, op);
    case op_accept:
        return dn_map<2>(slice, op, [=](uint64_t, float x, float y, float) { return scalar <= 1.0 ? x : y; });
    case op_langevin:
        return run_langevin(slice, op);
    case op_exp_scale:
        return run_exp_scale(slice, op);
    default:
        return;
    }
}

__device__ __forceinline__ void run_slice(const dn_cuda_slice &given, const dn_cuda_op *ops)
{
    bool aligned = reinterpret_cast<uintptr_t>(given.registers) % 16 == 0 && given.elements % 4 == 0 && given.first % 4 == 0;
    dn_slice_view slice = {given.registers, given.elements, given.first, given.count, aligned};
    double *scalars = given.scalars;
    double scalar = 0.0;
    for (uint32_t o = 0; o < given.op_count; o++) {
        const dn_cuda_op &op = ops[o];
        if (op.kind != op_norm && op.kind != op_error_norm) {
            run_op(slice, op, scalar);
            continue;
        }
        scalar = op.kind == op_norm ? norm_of(slice, op) : error_norm_of(slice, op);
        if (threadIdx.x == 0)
            *scalars = scalar;
        scalars++;
    }
}

/* A graph's grid is as large as its block of data, and mostly there is little to do: few blocks, each with every so many-th slice. */
constexpr unsigned program_blocks = 256;

__global__ void __launch_bounds__(dn_program_threads, 1) k_programs(const dn_cuda_block *block)
{
    const unsigned char *memory = reinterpret_cast<const unsigned char *>(block);
    const dn_cuda_slice *slices = reinterpret_cast<const dn_cuda_slice *>(memory + block->slices_at);
    const dn_cuda_op *ops = reinterpret_cast<const dn_cuda_op *>(memory + block->ops_at);
    for (uint32_t s = blockIdx.x; s < block->slice_count; s += gridDim.x)
        run_slice(slices[s], ops + slices[s].op_first);
}

/* dn_pixel. */
__device__ __forceinline__ uint8_t pixel_of(float x, bool unit_range)
{
    float value = (unit_range ? 2.0f * x - 1.0f : x) * 0.5f + 0.5f;
    if (!(value > 0.0f))
        return 0;
    return value >= 1.0f ? 255 : static_cast<uint8_t>(rintf(value * 255.0f));
}

__global__ void __launch_bounds__(dn_threads) k_pixels(const float *in, uint32_t c, uint64_t plane, bool unit_range, uint8_t *out)
{
    uint64_t stride = static_cast<uint64_t>(gridDim.x) * blockDim.x;
    for (uint64_t i = blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x; i < plane; i += stride)
        for (uint32_t k = 0; k < c; k++)
            out[i * c + k] = pixel_of(in[k * plane + i], unit_range);
}

} // namespace

extern "C" int dn_cuda_programs(void *stream, const dn_cuda_block *block, uint32_t slices_max)
{
    if (slices_max == 0)
        return DN_CUDA_LAUNCH_OK;
    unsigned blocks = slices_max < program_blocks ? slices_max : program_blocks;
    return DN_LAUNCH(k_programs, dim3(blocks), dim3(dn_program_threads), 0, stream, block);
}

extern "C" int dn_cuda_pixels(void *stream, const float *in, uint32_t c, uint64_t plane, bool unit_range, uint8_t *out)
{
    uint64_t blocks = (plane + dn_threads - 1) / dn_threads;
    if (blocks == 0 || c == 0)
        return DN_CUDA_LAUNCH_OK;
    return DN_LAUNCH_FLAT(k_pixels, dim3(static_cast<unsigned>(blocks < 65535 ? blocks : 65535)), dim3(dn_threads), 0, stream, in, c, plane,
                          unit_range, out);
}
