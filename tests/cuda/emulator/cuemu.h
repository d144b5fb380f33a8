/* CUDA kernels on the CPU, for tests without a GPU: the language that kernels are written in, as ordinary C++.
 *
 * Every thread of a block is a fiber of its own with its own stack; it runs until a barrier or a shuffle, where another one goes on
 * (schedule.h says which). Blocks run one after another. Kernels without barriers and shuffles (DN_LAUNCH_FLAT) run as plain loops. Shared
 * memory (DN_SHARED, DN_DYNAMIC_SHARED) is 0xFF bytes when a block begins, so that what is read before it is written shows, and lies in
 * allocations of its own, so that AddressSanitizer sees its ends. Stricter than a GPU: all threads of a block must reach a __syncthreads, all
 * of a warp a shuffle, none may have returned before, and masks are full; what breaks that ends the process with a message, as does a wait
 * that never ends. No atomics, no textures, no inline assembly.
 *
 * One launch at a time: a lock is held while one runs, so any host thread may launch. */
#ifndef DN_TESTS_CUDA_CUEMU_H
#define DN_TESTS_CUDA_CUEMU_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "schedule.h"

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
struct uint3 {
    unsigned x, y, z;
};

namespace cuemu {

/* Enqueues work on an emulated stream, or records it in the graph that the stream captures; a CUDA error number. By the fake runtime. */
int submit(void *stream, std::function<void()> work);

/* What the running thread sees of itself. */
struct Now {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern Now now;

constexpr unsigned warp_size = 32, full_mask = 0xFFFFFFFFu;

/* CUDA's own limits: 0, or the error number of a launch that no GPU would take. */
int check(dim3 grid, dim3 block, size_t dynamic);
/* Runs a kernel now: `thread` is called once as every thread of the grid. flat: it meets no barrier and no shuffle. */
void run(dim3 grid, dim3 block, size_t dynamic, bool flat, const std::function<void()> &thread);

void wait_block();
void wait_warp(unsigned mask);
/* Every lane's value; readable until the lane's next exchange but one. */
const uint64_t *exchange(unsigned mask, uint64_t value);
unsigned lane();
[[noreturn]] void fail(const char *what);

/* Shared memory of the running block: one piece for each declaration, known by its key. */
unsigned shared_key();
void *shared(unsigned key, size_t bytes);
void *dynamic_shared();

template <typename T> uint64_t bits_of(T value)
{
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= sizeof(uint64_t), "a register or two");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <typename T> T value_of(uint64_t bits)
{
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

/* Arguments are taken by value, as the kernel's parameters: a graph replays them later. */
template <typename... P, typename... A>
int launch(bool flat, void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic, void *stream, A... arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "the kernel takes other arguments");
    int refused = check(grid, block, dynamic);
    return refused ? refused
                   : submit(stream, [=] { run(grid, block, dynamic, flat, [&] { kernel(static_cast<P>(arguments)...); }); });
}

} // namespace cuemu

/* ---- The language. */
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static /* without the filling and the checked ends that DN_SHARED gives */

#define DN_LAUNCH(...) cuemu::launch(false, __VA_ARGS__)
#define DN_LAUNCH_FLAT(...) cuemu::launch(true, __VA_ARGS__)
/* DN_SHARED(float, sums, [8][33]): where every thread of the block passes. */
#define DN_SHARED(type, name, extent)                                                                                                      \
    static const unsigned name##_key = cuemu::shared_key();                                                                                \
    type(&name) extent = *static_cast<type(*) extent>(cuemu::shared(name##_key, sizeof(type extent)))
#define DN_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(cuemu::dynamic_shared())

#define threadIdx (cuemu::now.thread)
#define blockIdx (cuemu::now.block)
#define blockDim (cuemu::now.block_dim)
#define gridDim (cuemu::now.grid_dim)
constexpr int warpSize = 32;

inline void __syncthreads()
{
    cuemu::wait_block();
}
inline void __syncwarp(unsigned mask = cuemu::full_mask)
{
    cuemu::wait_warp(mask);
}
template <typename T> T __shfl_sync(unsigned mask, T value, int source)
{
    return cuemu::value_of<T>(cuemu::exchange(mask, cuemu::bits_of(value))[unsigned(source) % cuemu::warp_size]);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int with)
{
    return __shfl_sync(mask, value, int(cuemu::lane() ^ unsigned(with)));
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned by)
{
    unsigned lane = cuemu::lane();
    return __shfl_sync(mask, value, int(lane + by < cuemu::warp_size ? lane + by : lane));
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned by)
{
    unsigned lane = cuemu::lane();
    return __shfl_sync(mask, value, int(lane >= by ? lane - by : lane));
}
inline unsigned __ballot_sync(unsigned mask, int said)
{
    const uint64_t *all = cuemu::exchange(mask, said != 0);
    unsigned ballot = 0;
    for (unsigned i = 0; i < cuemu::warp_size; i++)
        ballot |= unsigned(all[i]) << i;
    return ballot;
}
inline int __any_sync(unsigned mask, int said)
{
    return __ballot_sync(mask, said) != 0;
}
inline int __all_sync(unsigned mask, int said)
{
    return __ballot_sync(mask, said) == cuemu::full_mask;
}

/* ---- Arithmetic: the names that CUDA has and the C library has not. Built with -ffp-contract=off, so nothing is fused but fma. */
inline unsigned __float_as_uint(float x)
{
    return cuemu::value_of<unsigned>(cuemu::bits_of(x));
}
inline float __uint_as_float(unsigned x)
{
    return cuemu::value_of<float>(x);
}
inline int __float_as_int(float x)
{
    return int(__float_as_uint(x));
}
inline float __int_as_float(int x)
{
    return __uint_as_float(unsigned(x));
}
inline long long __double_as_longlong(double x)
{
    return cuemu::value_of<long long>(cuemu::bits_of(x));
}
inline double __longlong_as_double(long long x)
{
    return cuemu::value_of<double>(uint64_t(x));
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
    return unsigned(uint64_t(a) * b >> 32);
}
inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __fdividef(float a, float b)
{
    return a / b;
}
/* The C library declares a function of this name. */
#define __expf(x) expf(x)
inline float __fadd_rn(float a, float b)
{
    return a + b;
}
inline float __fsub_rn(float a, float b)
{
    return a - b;
}
inline float __fmul_rn(float a, float b)
{
    return a * b;
}
inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
inline double __dadd_rn(double a, double b)
{
    return a + b;
}
inline double __dsub_rn(double a, double b)
{
    return a - b;
}
inline double __dmul_rn(double a, double b)
{
    return a * b;
}
inline double __ddiv_rn(double a, double b)
{
    return a / b;
}
inline double __dsqrt_rn(double x)
{
    return sqrt(x);
}
inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
using std::isfinite;
using std::isinf;
using std::isnan;
template <typename T> constexpr T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> constexpr T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
