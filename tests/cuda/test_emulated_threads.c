/* The emulated threads themselves: they do what CUDA's do, and kernels that are wrong are found out. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/test.h"

#include "tests/cuda/emulator/planted.h"
#include "tests/cuda/emulator/schedule.h"

#define THREADS 256

static bool done(int refused)
{
    return refused == 0 && cudaDeviceSynchronize() == cudaSuccess;
}

/* How many of the orders give every thread the sum. */
static int orders_that_are_right(bool barrier)
{
    float in[THREADS], out[THREADS];
    int right = 0;
    for (int i = 0; i < THREADS; i++)
        in[i] = (float)i;
    for (int order = 0; order < CUEMU_ORDERS; order++) {
        cuemu_schedule((cuemu_order)order);
        bool good = done(planted_sum(in, out, barrier));
        for (int i = 0; i < THREADS; i++)
            good = good && out[i] == 32640.0f;
        right += good;
    }
    cuemu_schedule(CUEMU_FORWARD);
    return right;
}

static void a_missing_barrier_is_found_by_some_order(void)
{
    CHECK(orders_that_are_right(true) == CUEMU_ORDERS);
    CHECK(orders_that_are_right(false) < CUEMU_ORDERS);
}

static void shared_memory_that_nobody_wrote_is_nan(void)
{
    float out[THREADS];
    for (int round = 0; round < 2; round++) {
        CHECK(done(planted_unwritten(out)));
        for (int i = 0; i < THREADS; i++)
            CHECK(i == 7 ? isnan(out[i]) : out[i] == 1.0f);
    }
}

static void shuffles_are_cudas(void)
{
    for (int order = 0; order < CUEMU_ORDERS; order++) {
        uint32_t out[8][64];
        cuemu_schedule((cuemu_order)order);
        CHECK(done(planted_shuffles(out[0])));
        cuemu_schedule(CUEMU_FORWARD);
        for (uint32_t t = 0; t < 64; t++) {
            uint32_t warp = t / 32 * 32, lane = t % 32;
            CHECK(out[0][t] == warp + 3);
            CHECK(out[1][t] == warp + (lane ^ 5u));
            CHECK(out[2][t] == (lane < 30 ? t + 2 : t));
            CHECK(out[3][t] == (lane > 0 ? t - 1 : t));
            CHECK(out[4][t] == 0xAAAAAAAAu);
            CHECK(out[5][t] == (warp == 32));
            CHECK(out[6][t] == (warp == 0));
            CHECK(out[7][t] == warp + (lane ^ 3u));
        }
    }
}

static void every_block_runs_once(void)
{
    for (int order = 0; order < 2 * CUEMU_ORDERS; order++) {
        uint32_t met[60] = {0};
        cuemu_schedule((cuemu_order)(order / 2));
        CHECK(done(planted_blocks(met, order % 2)));
        cuemu_schedule(CUEMU_FORWARD);
        for (int b = 0; b < 60; b++)
            CHECK(met[b] == 1);
    }
}

static void *launch_often(void *failed)
{
    for (int i = 0; i < 20; i++) {
        uint32_t out[8][64];
        if (!done(planted_shuffles(out[0])) || out[1][0] != 5)
            *(bool *)failed = true;
    }
    return NULL;
}

static void host_threads_launch_at_once(void)
{
    pthread_t threads[4];
    bool failed[4] = {false};
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, launch_often, &failed[i]) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(!failed[0] && !failed[1] && !failed[2] && !failed[3]);
}

/* Whether a child that runs it is ended by abort, having said `word`. */
static bool ends(int (*wrong)(void), const char *word)
{
    int pipe_of[2], status = 0;
    char said[512] = "";
    if (pipe(pipe_of))
        return false;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipe_of[1], STDERR_FILENO);
        (void)wrong();
        (void)cudaDeviceSynchronize();
        _exit(0);
    }
    close(pipe_of[1]);
    size_t used = 0;
    for (ssize_t n = 1; n > 0 && used<sizeof said - 1; used += n> 0 ? (size_t)n : 0)
        n = read(pipe_of[0], said + used, sizeof said - 1 - used);
    close(pipe_of[0]);
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0) && strstr(said, word) != NULL;
}

static void wrong_kernels_end_the_process(void)
{
    CHECK(ends(planted_left_before_barrier, "never come"));
    CHECK(ends(planted_half_a_shuffle, "part of a warp"));
    CHECK(ends(planted_flat_barrier, "DN_LAUNCH_FLAT"));
    CHECK(ends(planted_much_shared, "more shared memory"));
}

static void what_no_gpu_takes_is_refused(void)
{
    CHECK(planted_launch(1, 1, 1025, 0) == cudaErrorInvalidConfiguration);
    CHECK(planted_launch(1, 1, 0, 0) == cudaErrorInvalidConfiguration);
    CHECK(planted_launch(0, 1, 32, 0) == cudaErrorInvalidConfiguration);
    CHECK(planted_launch(0x80000000u, 1, 32, 0) == cudaErrorInvalidConfiguration);
    CHECK(planted_launch(1, 65536, 32, 0) == cudaErrorInvalidConfiguration);
    CHECK(planted_launch(1, 1, 32, 49153) == cudaErrorInvalidConfiguration);
    CHECK(done(planted_launch(2, 3, 1024, 49152)));
}

int main(void)
{
    RUN(wrong_kernels_end_the_process); /* first: ThreadSanitizer knows no fork of many threads */
    RUN(a_missing_barrier_is_found_by_some_order);
    RUN(shared_memory_that_nobody_wrote_is_nan);
    RUN(shuffles_are_cudas);
    RUN(every_block_runs_once);
    RUN(host_threads_launch_at_once);
    RUN(what_no_gpu_takes_is_refused);
    return test_end();
}
