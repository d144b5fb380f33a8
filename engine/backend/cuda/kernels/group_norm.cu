/* Group norm, with a vector added before it and modulation and activation behind it.
 *
 * A block has a slice of the channels (whole groups and whole chunks, 64 channels or more) of a part of a row's pixels; a thread has one
 * chunk's channels at every so-many-th pixel. Small rows are one part: a block reads its slice for the mean, for the squares about it, and
 * to norm it. Large ones are cut by their shape alone: one kernel leaves each part's mean and squares in scratch, another puts them together
 * (Chan, Golub and LeVeque 1979) and norms. Groups of too many channels for that are read element by element, one block each. */
#include "backend/cuda/kernels/kernel.cuh"

namespace {

constexpr uint32_t slice_channels_min = 64;  /* 128 bytes of bfloat16 */
constexpr uint32_t slice_chunks_max = dn_threads;
constexpr uint32_t groups_a_slice_max = 64;
constexpr uint64_t whole_chunks_max = 4096;  /* of a slice that one block takes whole: 16 a thread */
constexpr uint32_t part_chunks = 2048;
constexpr uint32_t parts_max = 128;

enum { MODE_WHOLE, MODE_STATISTICS, MODE_NORM };

/* Mean, and squares about it, of one part of one group. */
struct moments {
    float mean, squares;
};

struct group_norm {
    dn_cuda_view in, row_bias, modulation, out;
    const float *weight, *bias;
    moments *moments_of; /* [rows][groups][parts] */
    uint32_t groups, per; /* channels a group */
    uint32_t chunks;      /* a slice; 0: too many */
    uint32_t parts, part_pixels;
    float epsilon;
    uint32_t activation;
};

/* How a shape is cut. */
void cut(group_norm *g, uint32_t h, uint32_t w, uint32_t c)
{
    uint64_t pixels = static_cast<uint64_t>(h) * w;
    g->per = c / g->groups;
    uint32_t unit = g->per % 8 == 0 ? g->per : g->per % 4 == 0 ? 2 * g->per : g->per % 2 == 0 ? 4 * g->per : 8 * g->per;
    uint32_t channels = (slice_channels_min + unit - 1) / unit * unit;
    g->chunks = channels / dn_unit <= slice_chunks_max ? channels / dn_unit : 0;
    g->parts = 1;
    g->part_pixels = static_cast<uint32_t>(pixels);
    if (g->chunks == 0 || pixels * g->chunks <= whole_chunks_max)
        return;
    uint64_t step = dn_threads / g->chunks, steps = part_chunks / dn_threads; /* pixels at once, and how often */
    while ((pixels + step * steps - 1) / (step * steps) > parts_max)
        steps *= 2;
    g->part_pixels = static_cast<uint32_t>(step * steps);
    g->parts = static_cast<uint32_t>((pixels + g->part_pixels - 1) / g->part_pixels);
}

/* What a thread keeps while it goes through its pixels. */
struct column {
    uint32_t channel, valid, chunk, member, members, group; /* group: of the slice's first channel */
    bool works;
};

__device__ __forceinline__ uint32_t pixels_of_part(const group_norm &g, uint32_t part)
{
    uint32_t pixels = g.in.h * g.in.w, first = part * g.part_pixels;
    return min(g.part_pixels, pixels - first);
}

/* Sums of all members of a slice's groups, to sums_of[0 .. groups of the slice - 1], for every thread to see. memory: [8][threads]. */
__device__ __forceinline__ void add_members(const group_norm &g, const column &at, const float *v, float (*memory)[dn_threads], float *sums_of)
{
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
        memory[i][threadIdx.x] = v[i];
    for (uint32_t left = at.members; left > 1;) {
        uint32_t half = (left + 1) / 2;
        __syncthreads();
        if (at.member + half < left) {
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                memory[i][threadIdx.x] += memory[i][threadIdx.x + half * g.chunks];
        }
        left = half;
    }
    __syncthreads();
    uint32_t count = g.chunks * dn_unit / g.per, lane = threadIdx.x % 32;
    if (g.per <= 16 && threadIdx.x < count) {
        float sum = 0.0f;
        for (uint32_t c = threadIdx.x * g.per; c < (threadIdx.x + 1) * g.per; c++)
            sum += memory[c % dn_unit][c / dn_unit];
        sums_of[threadIdx.x] = sum;
    }
    for (uint32_t group = threadIdx.x / 32; g.per > 16 && group < count; group += dn_threads / 32) { /* a warp each */
        float sum = 0.0f;
        for (uint32_t c = group * g.per + lane; c < (group + 1) * g.per; c += 32)
            sum += memory[c % dn_unit][c / dn_unit];
        sum = dn_warp_sum(sum);
        if (lane == 0)
            sums_of[group] = sum;
    }
    __syncthreads();
}

/* use(pixel, chunk) for each of this thread's pixels of first .. end - 1, in order, the row's bias added; channels that are not there are zeros.
 * Four chunks are on their way at once. */
template <typename T, typename F>
__device__ __forceinline__ void each_pixel(const group_norm &g, const T *row, const column &at, uint32_t first, uint32_t end, const float *added,
                                           bool aligned, F &&use)
{
    constexpr unsigned ahead = 4;
    float v[dn_unit];
    uint32_t p = first + at.member;
    const T *from = row + at.channel;
    if (!at.works)
        return;
    for (; aligned && at.valid == dn_unit && p + (ahead - 1) * at.members < end; p += ahead * at.members) {
        dn_chunk<T> chunks[ahead];
        DN_UNROLL for (unsigned k = 0; k < ahead; k++)
            chunks[k] = *reinterpret_cast<const dn_chunk<T> *>(from + static_cast<uint64_t>(p + k * at.members) * g.in.pitch);
        DN_UNROLL for (unsigned k = 0; k < ahead; k++) {
            DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
                v[i] = dn_load(&chunks[k].at[i]) + added[i];
            use(p + k * at.members, v);
        }
    }
    for (; p < end; p += at.members) {
        dn_load_chunk(from + static_cast<uint64_t>(p) * g.in.pitch, at.valid, aligned, v);
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] += added[i];
        use(p, v);
    }
}

/* Mean and squares of this block's pixels, to means and squares of the slice's groups. */
template <typename T>
__device__ __forceinline__ void measure(const group_norm &g, const T *row, const column &at, uint32_t part, const float *added, bool aligned,
                                        float (*memory)[dn_threads], float *means, float *squares)
{
    uint32_t first = part * g.part_pixels, end = first + pixels_of_part(g, part);
    float count = static_cast<float>(end - first) * static_cast<float>(g.per);
    float sum[dn_unit], middle[dn_unit];
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
        sum[i] = 0.0f;
    each_pixel(g, row, at, first, end, added, aligned, [&](uint32_t, const float *v) {
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            sum[i] += v[i];
    });
    add_members(g, at, sum, memory, means);
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++) {
        middle[i] = i < at.valid ? means[(at.chunk * dn_unit + i) / g.per] / count : 0.0f;
        sum[i] = 0.0f;
    }
    each_pixel(g, row, at, first, end, added, aligned, [&](uint32_t, const float *v) {
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            sum[i] += (v[i] - middle[i]) * (v[i] - middle[i]);
    });
    add_members(g, at, sum, memory, squares);
    if (threadIdx.x < g.chunks * dn_unit / g.per)
        means[threadIdx.x] /= count;
    __syncthreads();
}

/* Puts the parts of the slice's groups together: a warp for each group. */
__device__ __forceinline__ void merge(const group_norm &g, uint32_t row, const column &at, float *means, float *squares)
{
    uint32_t lane = threadIdx.x % 32, count = at.group < g.groups ? min(g.chunks * dn_unit / g.per, g.groups - at.group) : 0;
    float pixels = static_cast<float>(g.in.h * g.in.w);
    for (uint32_t group = threadIdx.x / 32; group < count; group += dn_threads / 32) {
        const moments *of = g.moments_of + (static_cast<uint64_t>(row) * g.groups + at.group + group) * g.parts;
        float mean = 0.0f, square = 0.0f;
        for (uint32_t p = lane; p < g.parts; p += 32)
            mean += of[p].mean * (static_cast<float>(pixels_of_part(g, p)) / pixels);
        mean = dn_warp_sum(mean);
        for (uint32_t p = lane; p < g.parts; p += 32) {
            float off = of[p].mean - mean;
            square += of[p].squares + off * off * (static_cast<float>(pixels_of_part(g, p)) * static_cast<float>(g.per));
        }
        square = dn_warp_sum(square);
        if (lane == 0) {
            means[group] = mean;
            squares[group] = square;
        }
    }
    __syncthreads();
}

/* Norms this block's pixels: (x - mean) * factor + offset, then the activation. */
template <typename T>
__device__ __forceinline__ void norm(const group_norm &g, uint32_t row, const column &at, uint32_t part, const float *added, bool aligned,
                                     const float *means, const float *squares)
{
    float middle[dn_unit], factor[dn_unit], offset[dn_unit], scale[dn_unit];
    float count = static_cast<float>(g.in.h * g.in.w) * static_cast<float>(g.per);
    dn_load_chunk(g.weight + at.channel, g.weight ? at.valid : 0u, aligned, factor);
    dn_load_chunk(g.bias + at.channel, g.bias ? at.valid : 0u, aligned, offset);
    dn_load_vector<T>(g.modulation, row, at.channel, aligned, scale);
    DN_UNROLL for (unsigned i = 0; i < dn_unit; i++) {
        uint32_t group = i < at.valid ? (at.chunk * dn_unit + i) / g.per : 0;
        float shift = g.modulation.data && i < at.valid ? dn_load(dn_row_of<T>(g.modulation, row) + g.out.c + at.channel + i) : 0.0f;
        float inverse = 1.0f / sqrtf(squares[group] / count + g.epsilon), more = 1.0f + (i < at.valid ? scale[i] : 0.0f);
        middle[i] = means[group];
        factor[i] = inverse * (g.weight ? factor[i] : 1.0f) * more;
        offset[i] = offset[i] * more + shift;
    }
    T *to = dn_row_of<T>(g.out, row) + at.channel;
    unsigned room = dn_valid(at.channel, g.out.pitch);
    uint32_t first = part * g.part_pixels, end = first + pixels_of_part(g, part);
    each_pixel(g, dn_row_of<T>(g.in, row), at, first, end, added, aligned, [&](uint32_t p, float *v) {
        DN_UNROLL for (unsigned i = 0; i < dn_unit; i++)
            v[i] = (v[i] - middle[i]) * factor[i] + offset[i];
        dn_activate<T>(g.activation, v);
        dn_store_chunk(to + static_cast<uint64_t>(p) * g.out.pitch, at.valid, room, aligned, v);
    });
}

/* Grid: parts of slices, rows. */
template <typename T, int MODE> __global__ void __launch_bounds__(dn_threads, 2) k_group_norm(group_norm g, bool aligned, uint32_t rows)
{
    DN_SHARED(float, memory, [dn_unit][dn_threads]);
    DN_SHARED(float, means, [groups_a_slice_max]);
    DN_SHARED(float, squares, [groups_a_slice_max]);
    uint32_t slice = blockIdx.x / g.parts, part = blockIdx.x - slice * g.parts;
    column at;
    at.chunk = threadIdx.x % g.chunks;
    at.member = threadIdx.x / g.chunks;
    at.members = dn_threads / g.chunks;
    at.channel = (slice * g.chunks + at.chunk) * dn_unit;
    at.valid = dn_valid(at.channel, g.out.c);
    at.group = slice * g.chunks * dn_unit / g.per;
    at.works = at.member < at.members && at.channel < g.out.pitch;
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        float added[dn_unit];
        dn_load_vector<T>(g.row_bias, r, at.channel, aligned, added);
        if (MODE == MODE_NORM)
            merge(g, r, at, means, squares);
        else
            measure(g, dn_row_of<T>(g.in, r), at, part, added, aligned, memory, means, squares);
        if (MODE == MODE_STATISTICS) {
            uint32_t group = at.group + threadIdx.x;
            if (threadIdx.x < g.chunks * dn_unit / g.per && group < g.groups)
                g.moments_of[(static_cast<uint64_t>(r) * g.groups + group) * g.parts + part] = moments{means[threadIdx.x], squares[threadIdx.x]};
        } else {
            norm<T>(g, r, at, part, added, aligned, means, squares);
        }
        __syncthreads();
    }
}

/* ---- Groups of any size, element by element. */
__device__ __forceinline__ float add_block(float x, float *memory)
{
    x = dn_warp_sum(x);
    if (threadIdx.x % 32 == 0)
        memory[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned w = 0; w < dn_threads / 32; w++)
        sum += memory[w];
    __syncthreads();
    return sum;
}

/* Grid: groups, rows. */
template <typename T> __global__ void __launch_bounds__(dn_threads) k_group_norm_wide(group_norm g, uint32_t rows)
{
    DN_SHARED(float, memory, [dn_threads / 32]);
    uint32_t first = blockIdx.x * g.per, last = first + g.per == g.out.c ? g.out.pitch : first + g.per; /* the last group has the padding */
    uint64_t pixels = static_cast<uint64_t>(g.in.h) * g.in.w;
    float count = static_cast<float>(pixels) * static_cast<float>(g.per);
    for (uint32_t r = blockIdx.y; r < rows; r += gridDim.y) {
        const T *in = dn_row_of<T>(g.in, r), *added = g.row_bias.data ? dn_row_of<T>(g.row_bias, r) : nullptr;
        const T *modulation = g.modulation.data ? dn_row_of<T>(g.modulation, r) : nullptr;
        T *out = dn_row_of<T>(g.out, r);
        float sum = 0.0f, squares = 0.0f;
        for (uint64_t p = 0; p < pixels; p++) {
            for (uint32_t c = first + threadIdx.x; c < first + g.per; c += dn_threads)
                sum += dn_load(in + p * g.in.pitch + c) + (added ? dn_load(added + c) : 0.0f);
        }
        float mean = add_block(sum, memory) / count;
        for (uint64_t p = 0; p < pixels; p++) {
            for (uint32_t c = first + threadIdx.x; c < first + g.per; c += dn_threads) {
                float off = dn_load(in + p * g.in.pitch + c) + (added ? dn_load(added + c) : 0.0f) - mean;
                squares += off * off;
            }
        }
        float inverse = 1.0f / sqrtf(add_block(squares, memory) / count + g.epsilon);
        for (uint32_t c = first + threadIdx.x; c < last; c += dn_threads) {
            bool there = c < g.out.c;
            float factor = there && g.weight ? g.weight[c] : 1.0f, offset = there && g.bias ? g.bias[c] : 0.0f;
            float more = there && modulation ? 1.0f + dn_load(modulation + c) : 1.0f;
            float more_added = there && added ? dn_load(added + c) : 0.0f;
            factor *= inverse * more;
            offset = offset * more + (there && modulation ? dn_load(modulation + g.out.c + c) : 0.0f);
            for (uint64_t p = 0; p < pixels; p++) {
                float y = there ? (dn_load(in + p * g.in.pitch + c) + more_added - mean) * factor + offset : 0.0f;
                dn_activate<T>(g.activation, &y, 1);
                dn_store(out + p * g.out.pitch + c, there ? y : 0.0f);
            }
        }
    }
}

template <typename T> int launch_norm(const dn_cuda_launch *launch, const group_norm &g, bool aligned)
{
    dim3 grid;
    if (g.chunks == 0) {
        if (!dn_grid(&grid, g.groups, 1, launch->rows))
            return dn_invalid_value;
        return DN_LAUNCH(k_group_norm_wide<T>, grid, dim3(dn_threads), 0, launch->stream, g, launch->rows);
    }
    uint64_t slices = (dn_pixel_chunks(g.out) + g.chunks - 1) / g.chunks;
    if (!dn_grid(&grid, slices * g.parts, 1, launch->rows))
        return dn_invalid_value;
    if (g.parts == 1)
        return DN_LAUNCH((k_group_norm<T, MODE_WHOLE>), grid, dim3(dn_threads), 0, launch->stream, g, aligned, launch->rows);
    int refused = DN_LAUNCH((k_group_norm<T, MODE_STATISTICS>), grid, dim3(dn_threads), 0, launch->stream, g, aligned, launch->rows);
    return refused ? refused : DN_LAUNCH((k_group_norm<T, MODE_NORM>), grid, dim3(dn_threads), 0, launch->stream, g, aligned, launch->rows);
}

} // namespace

extern "C" uint64_t dn_cuda_group_norm_scratch(uint32_t rows, uint32_t h, uint32_t w, uint32_t c, uint32_t groups)
{
    group_norm g = {};
    g.groups = groups;
    cut(&g, h, w, c);
    return g.parts == 1 ? 0 : static_cast<uint64_t>(rows) * groups * g.parts * (sizeof(moments) / sizeof(float));
}

extern "C" int dn_cuda_group_norm(const dn_cuda_launch *launch, const dn_cuda_group_norm_options *options)
{
    const dn_cuda_group_norm_options &o = *options;
    group_norm g = {};
    g.in = o.in, g.row_bias = o.row_bias, g.modulation = o.modulation, g.out = o.out;
    g.weight = o.weight, g.bias = o.bias;
    g.moments_of = reinterpret_cast<moments *>(o.scratch);
    g.groups = o.groups, g.epsilon = o.epsilon, g.activation = o.activation;
    if (o.groups == 0 || o.out.c % o.groups != 0 || static_cast<uint64_t>(o.out.h) * o.out.w > 0x40000000u)
        return dn_invalid_value;
    cut(&g, o.out.h, o.out.w, o.out.c);
    if (g.parts > 1 && !o.scratch)
        return dn_invalid_value;
    bool aligned = dn_aligned(o.in, o.row_bias, o.modulation, o.out) && reinterpret_cast<uintptr_t>(o.weight) % 16 == 0 &&
                   reinterpret_cast<uintptr_t>(o.bias) % 16 == 0;
    return launch->type == DN_CUDA_F32 ? launch_norm<float>(launch, g, aligned) : launch_norm<dn_bf16>(launch, g, aligned);
}
