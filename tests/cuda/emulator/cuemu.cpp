/* The emulated GPU's threads: fibers, their scheduler, shared memory. cuemu.h says what it promises.
 *
 * All state is of the one launch that runs and guarded by `running`. Fibers are made once and kept; each waits between blocks in the middle of
 * its loop. A fiber only ever gives way to the scheduler, which is whatever host thread launched. */
#include "cuemu.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>

#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_start_switch_fiber(void **save, const void *stack, size_t bytes);
extern "C" void __sanitizer_finish_switch_fiber(void *save, const void **stack, size_t *bytes);
#endif
#ifdef __SANITIZE_THREAD__
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void *__tsan_get_current_fiber(void);
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

namespace cuemu {

Now now;

namespace {

constexpr size_t stack_bytes = 256 << 10, guard_bytes = 64 << 10;
constexpr unsigned threads_max = 1024;
constexpr size_t shared_max = 48 << 10;

enum class State { ready, at_block, at_warp, done };

/* ---- One way of running, left and taken up again. */
struct Context {
#ifdef __x86_64__
    void *stack_pointer = nullptr;
#else
    ucontext_t saved;
#endif
    const void *stack = nullptr; /* its low end */
    size_t bytes = 0;
#ifdef __SANITIZE_ADDRESS__
    void *fake = nullptr;
#endif
#ifdef __SANITIZE_THREAD__
    void *fiber = nullptr;
#endif
};

struct Fiber {
    Context context;
    State state = State::done;
    unsigned exchanges = 0;
};

struct Piece {
    unsigned char *memory;
    size_t bytes;
    uint64_t block; /* that filled it last */
};

std::mutex running;
std::vector<Fiber *> &fibers = *new std::vector<Fiber *>; /* never freed: a leak checker looks for them after the end */
Context host;
Fiber *current;
unsigned current_index;
const std::function<void()> *kernel;
unsigned threads;             /* of a block */
bool flat_launch;
uint64_t blocks_begun;
uint64_t slots[2][threads_max];
std::vector<Piece> &pieces = *new std::vector<Piece>;      /* by key */
size_t block_shared;          /* bytes that this block declared */
Piece dynamic_piece;
size_t dynamic_bytes;
cuemu_order order;
uint64_t chance = 88172645463325252u;

unsigned draw(unsigned below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return unsigned(chance >> 20) % below;
}

#ifdef __x86_64__
extern "C" void cuemu_switch(void **save, void *load);
asm(R"(
.text
.globl cuemu_switch
.hidden cuemu_switch
.type cuemu_switch, @function
cuemu_switch:
    endbr64
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuemu_switch, . - cuemu_switch
)");
#endif

/* Leaves one context for another; comes back when somebody leaves for it. */
void change(Context *from, Context *to)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->bytes);
#endif
#ifdef __SANITIZE_THREAD__
    from->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
#ifdef __x86_64__
    cuemu_switch(&from->stack_pointer, to->stack_pointer);
#else
    swapcontext(&from->saved, &to->saved);
#endif
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(from->fake, &stack, &bytes);
    if (from != &host) {
        host.stack = stack; /* the launching thread's, which nobody else knows */
        host.bytes = bytes;
    }
#endif
}

void give_way(State why)
{
    Fiber *self = current;
    self->state = why;
    change(&self->context, &host);
}

void live()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &host.stack, &host.bytes);
#endif
    for (;;) {
        (*kernel)();
        give_way(State::done);
    }
}

Fiber *make_fiber()
{
    Fiber *fiber = new Fiber;
    void *memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE))
        fail("no memory for a thread's stack");
    unsigned char *stack = static_cast<unsigned char *>(memory) + guard_bytes;
    fiber->context.stack = stack;
    fiber->context.bytes = stack_bytes;
#ifdef __x86_64__
    /* As a call of live() would leave it: six saved registers, where to go, and a return address that nobody takes. */
    void **top = reinterpret_cast<void **>(stack + stack_bytes) - 2;
    top[0] = reinterpret_cast<void *>(live);
    top[1] = nullptr;
    for (int i = 1; i <= 6; i++)
        top[-i] = nullptr;
    fiber->context.stack_pointer = top - 6;
#else
    getcontext(&fiber->context.saved);
    fiber->context.saved.uc_stack.ss_sp = stack;
    fiber->context.saved.uc_stack.ss_size = stack_bytes;
    fiber->context.saved.uc_link = nullptr;
    makecontext(&fiber->context.saved, live, 0);
#endif
#ifdef __SANITIZE_THREAD__
    fiber->context.fiber = __tsan_create_fiber(0);
#endif
    return fiber;
}

void place(unsigned thread)
{
    dim3 d = now.block_dim;
    now.thread = uint3{thread % d.x, thread / d.x % d.y, thread / d.x / d.y};
}

void resume(unsigned thread)
{
    current = fibers[thread];
    current_index = thread;
    place(thread);
    change(&host, &current->context);
    current = nullptr;
}

bool resume_if_ready(unsigned thread)
{
    bool ready = fibers[thread]->state == State::ready;
    if (ready)
        resume(thread);
    return ready;
}

/* ---- The scheduler. */
unsigned warps()
{
    return (threads + warp_size - 1) / warp_size;
}
unsigned warp_end(unsigned warp)
{
    return min(threads, (warp + 1) * warp_size);
}

/* Every thread that can, runs once; under a skewed order only those of one warp. */
void round()
{
    static unsigned sequence[threads_max];
    if (order == CUEMU_LOW_FIRST || order == CUEMU_HIGH_FIRST) {
        for (unsigned k = 0; k < warps(); k++) {
            unsigned warp = order == CUEMU_LOW_FIRST ? k : warps() - 1 - k;
            bool ran = false;
            for (unsigned i = warp * warp_size; i < warp_end(warp); i++)
                ran |= resume_if_ready(i);
            if (ran)
                return;
        }
        return;
    }
    for (unsigned i = 0; i < threads; i++)
        sequence[i] = order == CUEMU_REVERSE ? threads - 1 - i : i;
    for (unsigned i = threads; order == CUEMU_SHUFFLED && i > 1; i--)
        std::swap(sequence[i - 1], sequence[draw(i)]);
    for (unsigned i = 0; i < threads; i++)
        resume_if_ready(sequence[i]);
}

unsigned count(unsigned first, unsigned end, State state)
{
    unsigned found = 0;
    for (unsigned i = first; i < end; i++)
        found += fibers[i]->state == state;
    return found;
}

void release(unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++)
        fibers[i]->state = State::ready;
}

/* Lets go what has wholly arrived; false: nothing has. */
bool release_any()
{
    bool any = false;
    for (unsigned warp = 0; warp < warps(); warp++) {
        unsigned first = warp * warp_size, end = warp_end(warp);
        if (fibers[first]->state == State::at_warp && count(first, end, State::at_warp) == end - first) {
            release(first, end);
            any = true;
        }
    }
    if (!any && count(0, threads, State::at_block) == threads) {
        release(0, threads);
        any = true;
    }
    return any;
}

void run_fibers()
{
    release(0, threads);
    for (;;) {
        round();
        if (count(0, threads, State::done) == threads)
            return;
        if (!release_any() && count(0, threads, State::ready) == 0)
            fail("some threads wait for others that never come");
    }
}

void run_block()
{
    blocks_begun++;
    block_shared = dynamic_bytes;
    if (dynamic_bytes)
        memset(dynamic_piece.memory, 0xFF, dynamic_bytes);
    if (!flat_launch) {
        run_fibers();
        return;
    }
    for (unsigned i = 0; i < threads; i++) {
        place(order == CUEMU_REVERSE || order == CUEMU_HIGH_FIRST ? threads - 1 - i : i);
        (*kernel)();
    }
}

/* A step through all blocks that meets each once. */
uint64_t stride_through(uint64_t blocks)
{
    auto common = [](uint64_t a, uint64_t b) {
        while (b) {
            uint64_t rest = a % b;
            a = b;
            b = rest;
        }
        return a;
    };
    uint64_t stride = 1 + draw(1u << 20) % blocks;
    while (common(stride, blocks) != 1)
        stride++;
    return stride;
}

} // namespace

void fail(const char *what)
{
    unsigned known = flat_launch || fibers.size() < threads ? 0 : threads;
    fprintf(stderr, "emulated GPU: %s: block %u,%u,%u, %ux%ux%u threads, of them %u done, %u at __syncthreads, %u at a shuffle\n", what,
            now.block.x, now.block.y, now.block.z, now.block_dim.x, now.block_dim.y, now.block_dim.z, count(0, known, State::done),
            count(0, known, State::at_block), count(0, known, State::at_warp));
    abort();
}

int check(dim3 grid, dim3 block, size_t dynamic)
{
    const int invalid_configuration = 9;
    bool grid_fits = grid.x && grid.y && grid.z && grid.x <= 0x7FFFFFFFu && grid.y <= 65535 && grid.z <= 65535;
    bool block_fits = block.x && block.y && block.z && block.z <= 64 && uint64_t(block.x) * block.y * block.z <= threads_max;
    return grid_fits && block_fits && dynamic <= shared_max ? 0 : invalid_configuration;
}

void run(dim3 grid, dim3 block, size_t dynamic, bool flat, const std::function<void()> &thread)
{
    std::lock_guard<std::mutex> hold(running);
    kernel = &thread;
    threads = block.x * block.y * block.z;
    flat_launch = flat;
    while (!flat && fibers.size() < threads)
        fibers.push_back(make_fiber());
#ifdef __SANITIZE_THREAD__
    host.fiber = __tsan_get_current_fiber();
#endif
    dynamic_bytes = dynamic;
    if (dynamic_piece.bytes != dynamic) {
        delete[] dynamic_piece.memory;
        dynamic_piece = Piece{dynamic ? new unsigned char[dynamic] : nullptr, dynamic, 0};
    }
    now.block_dim = block;
    now.grid_dim = grid;
    uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z, stride = 1, at = 0;
    if (order == CUEMU_REVERSE || order == CUEMU_HIGH_FIRST)
        stride = blocks - 1, at = blocks - 1;
    else if (order == CUEMU_SHUFFLED)
        stride = stride_through(blocks), at = draw(1u << 20) % blocks;
    for (uint64_t i = 0; i < blocks; i++, at = (at + stride) % blocks) {
        now.block = uint3{unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
        run_block();
    }
    kernel = nullptr;
}

unsigned lane()
{
    return current_index % warp_size;
}

void wait_block()
{
    if (!current)
        fail("a barrier in a launch that said it has none (DN_LAUNCH_FLAT)");
    give_way(State::at_block);
}

void wait_warp(unsigned mask)
{
    if (!current)
        fail("a shuffle in a launch that said it has none (DN_LAUNCH_FLAT)");
    unsigned warp = current_index / warp_size;
    if (mask != full_mask || warp_end(warp) - warp * warp_size != warp_size)
        fail("a shuffle of a part of a warp");
    give_way(State::at_warp);
}

/* Two sets of slots in turn: who is ahead by one exchange writes beside what others have yet to read. */
const uint64_t *exchange(unsigned mask, uint64_t value)
{
    if (!current)
        fail("a shuffle in a launch that said it has none (DN_LAUNCH_FLAT)");
    unsigned thread = current_index, turn = current->exchanges++ % 2;
    slots[turn][thread] = value;
    wait_warp(mask);
    return &slots[turn][thread / warp_size * warp_size];
}

unsigned shared_key()
{
    pieces.push_back(Piece{nullptr, 0, 0});
    return unsigned(pieces.size() - 1);
}

void *shared(unsigned key, size_t bytes)
{
    Piece &piece = pieces[key];
    if (!piece.memory)
        piece = Piece{new unsigned char[bytes], bytes, 0};
    if (piece.block != blocks_begun) {
        piece.block = blocks_begun;
        block_shared += bytes;
        if (block_shared > shared_max)
            fail("more shared memory than a block has");
        memset(piece.memory, 0xFF, bytes);
    }
    return piece.memory;
}

void *dynamic_shared()
{
    return dynamic_piece.memory;
}

} // namespace cuemu

extern "C" void cuemu_schedule(cuemu_order wanted)
{
    std::lock_guard<std::mutex> hold(cuemu::running);
    cuemu::order = wanted;
    cuemu::chance = 88172645463325252u;
}
