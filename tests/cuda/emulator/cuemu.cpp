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
/* To ThreadSanitizer all fibers are the thread that launched, which they are; what is on a stack between blocks must not be counted on one. */
#ifdef __SANITIZE_THREAD__
#define UNCOUNTED __attribute__((no_sanitize_thread, noinline))
#else
#define UNCOUNTED
#endif

namespace cuemu {

Now now;

namespace {

constexpr size_t stack_bytes = 256 << 10, guard_bytes = 64 << 10;
constexpr unsigned threads_max = 1024;
constexpr size_t shared_max = 48 << 10;

enum State : unsigned char { READY, AT_BLOCK, AT_WARP, DONE, STATES };

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
};

struct Fiber {
    Context context;
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
#ifdef __SANITIZE_ADDRESS__
Context *left; /* whence the running context was entered */
#endif
Fiber *current;
unsigned current_index;
State states[threads_max];                /* of each thread */
unsigned in_state[threads_max / warp_size][STATES]; /* how many of each warp */
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
UNCOUNTED void change(Context *from, Context *to)
{
#ifdef __SANITIZE_ADDRESS__
    left = from;
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->bytes);
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
    if (left == &host) {
        host.stack = stack; /* the launching thread's, which nobody else knows */
        host.bytes = bytes;
    }
#endif
}

void enter(unsigned thread, State state)
{
    unsigned *counts = in_state[thread / warp_size];
    counts[states[thread]]--;
    counts[state]++;
    states[thread] = state;
}

UNCOUNTED void give_way(State why);

UNCOUNTED void live()
{
#ifdef __SANITIZE_ADDRESS__
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    if (left == &host) {
        host.stack = stack;
        host.bytes = bytes;
    }
#endif
    for (;;) {
        (*kernel)();
        give_way(DONE);
    }
}

Fiber *make_fiber()
{
    Fiber *fiber = new Fiber;
    void *memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE))
        fail("no memory for a thread's stack");
    unsigned char *stack = static_cast<unsigned char *>(memory) + guard_bytes;
    size_t used = stack_bytes - fibers.size() * 832 % (64 << 10); /* tops of stacks lie in different lines of the cache */
    fiber->context.stack = stack;
    fiber->context.bytes = used;
#ifdef __x86_64__
    /* As a call of live() would leave it: six saved registers, where to go, and a return address that nobody takes. */
    void **top = reinterpret_cast<void **>(stack + used) - 2;
    top[0] = reinterpret_cast<void *>(live);
    top[1] = nullptr;
    for (int i = 1; i <= 6; i++)
        top[-i] = nullptr;
    fiber->context.stack_pointer = top - 6;
#else
    getcontext(&fiber->context.saved);
    fiber->context.saved.uc_stack.ss_sp = stack;
    fiber->context.saved.uc_stack.ss_size = used;
    fiber->context.saved.uc_link = nullptr;
    makecontext(&fiber->context.saved, live, 0);
#endif
    return fiber;
}

void place(unsigned thread)
{
    dim3 d = now.block_dim;
    now.thread = uint3{thread % d.x, thread / d.x % d.y, thread / d.x / d.y};
}

/* To the scheduler; in the usual order straight to the thread that it would take next. */
UNCOUNTED void give_way(State why)
{
    Fiber *self = current;
    unsigned next = current_index + 1;
    enter(current_index, why);
    if (order != CUEMU_FORWARD || next == threads || states[next] != READY) {
        change(&self->context, &host);
        return;
    }
    current = fibers[next];
    current_index = next;
    place(next);
    change(&self->context, &current->context);
}

void resume(unsigned thread)
{
    current = fibers[thread];
    current_index = thread;
    place(thread);
    change(&host, &current->context);
    current = nullptr;
}

/* ---- The scheduler. */
unsigned warps()
{
    return (threads + warp_size - 1) / warp_size;
}
unsigned warp_threads(unsigned warp)
{
    return min(threads - warp * warp_size, warp_size);
}

/* Runs those of a warp that can, once; false: none could. */
bool run_warp(unsigned warp, bool backwards)
{
    unsigned count = warp_threads(warp);
    if (in_state[warp][READY] == 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        unsigned thread = warp * warp_size + (backwards ? count - 1 - i : i);
        if (states[thread] == READY)
            resume(thread);
    }
    return true;
}

/* Every thread that can, runs once; under a skewed order only those of one warp. */
void round()
{
    bool backwards = order == CUEMU_REVERSE || order == CUEMU_HIGH_FIRST;
    if (order != CUEMU_SHUFFLED) {
        for (unsigned k = 0; k < warps(); k++) {
            bool ran = run_warp(backwards ? warps() - 1 - k : k, order == CUEMU_REVERSE);
            if (ran && (order == CUEMU_LOW_FIRST || order == CUEMU_HIGH_FIRST))
                return;
        }
        return;
    }
    static unsigned sequence[threads_max];
    for (unsigned i = 0; i < threads; i++)
        sequence[i] = i;
    for (unsigned i = threads; i > 1; i--)
        std::swap(sequence[i - 1], sequence[draw(i)]);
    for (unsigned i = 0; i < threads; i++) {
        if (states[sequence[i]] == READY)
            resume(sequence[i]);
    }
}

unsigned count(State state)
{
    unsigned found = 0;
    for (unsigned warp = 0; warp < warps(); warp++)
        found += in_state[warp][state];
    return found;
}

void release(unsigned warp)
{
    unsigned size = warp_threads(warp);
    memset(&states[warp * warp_size], READY, size);
    memset(in_state[warp], 0, sizeof in_state[warp]);
    in_state[warp][READY] = size;
}

/* Lets go what has wholly arrived; false: nothing has. */
bool release_any()
{
    bool any = false;
    for (unsigned warp = 0; warp < warps(); warp++) {
        if (in_state[warp][AT_WARP] == warp_threads(warp)) {
            release(warp);
            any = true;
        }
    }
    bool all = !any && count(AT_BLOCK) == threads;
    for (unsigned warp = 0; all && warp < warps(); warp++)
        release(warp);
    return any || all;
}

void run_fibers()
{
    for (unsigned warp = 0; warp < warps(); warp++)
        release(warp);
    for (;;) {
        round();
        if (count(DONE) == threads)
            return;
        if (!release_any() && count(READY) == 0)
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
    if (flat_launch)
        memset(in_state, 0, sizeof in_state);
    fprintf(stderr, "emulated GPU: %s: block %u,%u,%u, %ux%ux%u threads, of them %u done, %u at __syncthreads, %u at a shuffle\n", what,
            now.block.x, now.block.y, now.block.z, now.block_dim.x, now.block_dim.y, now.block_dim.z, count(DONE), count(AT_BLOCK),
            count(AT_WARP));
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
    give_way(AT_BLOCK);
}

void wait_warp(unsigned mask)
{
    if (!current)
        fail("a shuffle in a launch that said it has none (DN_LAUNCH_FLAT)");
    unsigned warp = current_index / warp_size;
    if (mask != full_mask || warp_threads(warp) != warp_size)
        fail("a shuffle of a part of a warp");
    give_way(AT_WARP);
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
