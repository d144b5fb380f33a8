/* Register programs that wait: what they ride in, what runs them, and that none is lost, doubled or out of order. */
#include <pthread.h>

#include "backend/cuda/kernels/launch.h"
#include "tests/cuda/program_draws.h"

/* A block as a run has one, in pinned memory and on the device. */
typedef struct ride {
    dn_cuda_block *block, *on_device;
    size_t bytes;
} ride;

static bool ride_make(ride *r, uint32_t slices, uint32_t ops)
{
    dn_cuda_block header = {.slices_max = slices, .ops_max = ops, .rows_at = 32, .slices_at = 32};
    header.ops_at = (uint32_t)((32 + slices * sizeof(dn_cuda_slice) + 15) / 16 * 16);
    r->bytes = header.ops_at + ops * sizeof(dn_cuda_op) + 16;
    void *pinned = NULL, *memory = NULL;
    bool made = cudaMallocHost(&pinned, r->bytes) == cudaSuccess && cudaMalloc(&memory, r->bytes) == cudaSuccess;
    r->block = pinned;
    r->on_device = memory;
    if (made)
        *r->block = header;
    return made;
}

static void ride_free(ride *r)
{
    cudaFreeHost(r->block);
    cudaFree(r->on_device);
}

/* As run.c: takes what waits, copies the block, launches it; all under the device's lock. */
static dn_status ride_run(const ride *r, dn_device *device, dn_error *error)
{
    pthread_mutex_lock(&device->lock);
    dn_status status = dn_cuda_pending_take(device, r->block, error);
    if (status == DN_OK)
        status =
            dn_cuda_check(device, cudaMemcpyAsync(r->on_device, r->block, r->bytes, cudaMemcpyHostToDevice, device->main), "a copy", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, (cudaError_t)dn_cuda_programs(device->main, r->on_device, r->block->slices_max), "a launch", error);
    pthread_mutex_unlock(&device->lock);
    return status;
}

static uint64_t launches(void)
{
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    return counts.calls[DN_EMULATOR_LAUNCH];
}

#define LANES 24u

/* Lanes of different sizes, each with `rounds` programs that wait; every third lane has an operation that needs whole registers. */
static bool lanes_make(pair lanes[LANES], const devices *d, uint32_t count)
{
    bool made = true;
    for (uint32_t i = 0; i < count && made; i++) {
        float *values = chance_floats(4 * (size_t)(300 * i + 5));
        made = values && pair_make(&lanes[i], d, values, 4 * (size_t)(300 * i + 5));
        free(values);
    }
    return made;
}

static bool lanes_execute(pair lanes[LANES], const devices *d, uint32_t count, uint32_t rounds)
{
    bool good = true;
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < count && good; i++) {
            dn_op ops[3] = {draw_op(DN_OP_LINEAR, 4, lanes[i].count / 4), draw_op(DN_OP_NOISE, 4, 0), draw_op(DN_OP_BLEND, 4, 0)};
            if (i % 3 == 0)
                ops[1] = draw_op(DN_OP_THRESHOLD, 4, 0);
            good = pair_execute(&lanes[i], d, ops, 3, lanes[i].count / 4, NULL);
        }
    }
    return good;
}

static void free_all(pair *lanes, const devices *d, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        pair_free(&lanes[i], d);
}

/* Blocks of every size, down to none: what does not fit runs before it. */
static void blocks_take_whole_chains_and_the_rest_runs_first(void)
{
    ONE_THREAD();
    static const struct {
        uint32_t slices, ops;
    } blocks[] = {{2048, 4096}, {40, 100}, {1, 3}, {1000, 8}, {3, 4096}, {0, 0}};
    for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++) {
        devices d;
        pair lanes[LANES];
        ride r;
        CHECK(devices_open(&d) && ride_make(&r, blocks[b].slices, blocks[b].ops) && lanes_make(lanes, &d, LANES));
        for (int tick = 0; tick < 3; tick++) {
            CHECK(lanes_execute(lanes, &d, LANES, 2));
            CHECK(ride_run(&r, d.gpu, NULL) == DN_OK);
            CHECK(r.block->slice_count <= blocks[b].slices);
            for (uint32_t i = 0; i < LANES; i++)
                CHECK_MSG(!lanes[i].gpu->waits, "block %zu leaves lane %u behind", b, i);
            CHECK(cudaStreamSynchronize(d.gpu->main) == cudaSuccess); /* the block is written again */
        }
        for (uint32_t i = 0; i < LANES; i++)
            CHECK_MSG(pair_distance(&lanes[i], &d) == 0.0, "block %zu, lane %u", b, i);
        free_all(lanes, &d, LANES);
        ride_free(&r);
        devices_close(&d);
        CHECK(nothing_lives());
    }
}

/* All of a tick is one launch. */
static void what_fits_rides_in_one_launch(void)
{
    ONE_THREAD();
    devices d;
    pair lanes[LANES];
    ride r;
    CHECK(devices_open(&d) && ride_make(&r, 2048, 4096) && lanes_make(lanes, &d, 20));
    CHECK(cudaStreamSynchronize(d.gpu->main) == cudaSuccess);
    uint64_t before = launches();
    CHECK(lanes_execute(lanes, &d, 20, 4));
    CHECK(launches() == before);
    CHECK(ride_run(&r, d.gpu, NULL) == DN_OK);
    CHECK(launches() == before + 1);
    CHECK(r.block->slice_count >= 20);
    CHECK(cudaStreamSynchronize(d.gpu->main) == cudaSuccess);
    CHECK(ride_run(&r, d.gpu, NULL) == DN_OK);
    CHECK(r.block->slice_count == 0); /* nothing is run twice */
    free_all(lanes, &d, 20);
    ride_free(&r);
    devices_close(&d);
}

/* A buffer that is read or written has what waits for it run; others wait on. */
static void a_read_runs_what_waits_for_its_buffer_alone(void)
{
    devices d;
    pair lanes[LANES];
    float got = 0.0f, one = 1.0f;
    CHECK(devices_open(&d) && lanes_make(lanes, &d, 3));
    CHECK(lanes_execute(lanes, &d, 3, 1));
    uint64_t before = launches();
    CHECK(dn_cuda_buffer_read(lanes[1].gpu, 0, &got, 1, NULL) == DN_OK);
    CHECK(launches() == before + 1);
    CHECK(lanes[0].gpu->waits && !lanes[1].gpu->waits && lanes[2].gpu->waits);
    CHECK(dn_cuda_buffer_write(lanes[2].gpu, 3, &one, 1, NULL) == DN_OK &&
          d.reference->buffer_write(lanes[2].cpu, 3, &one, 1, NULL) == DN_OK);
    CHECK(launches() == before + 2 && lanes[0].gpu->waits);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(pair_distance(&lanes[i], &d) == 0.0);
    free_all(lanes, &d, 3);
    devices_close(&d);
}

/* Programs over registers of other sizes in the same buffer keep their turn; so do more operations than a chain holds. */
static void chains_keep_their_order(void)
{
    ONE_THREAD();
    devices d;
    pair p;
    float *values = chance_floats(8400);
    CHECK(values && devices_open(&d) && pair_make(&p, &d, values, 8400));
    free(values);
    for (int round = 0; round < 80; round++) {
        uint32_t registers = chance(2, 6);
        dn_op ops[48];
        uint32_t count = chance(1, 48);
        for (uint32_t i = 0; i < count; i++)
            ops[i] = draw_op(i % 3 ? DN_OP_LINEAR : i % 2 ? DN_OP_CLIP : DN_OP_SELECT, registers, 8400 / registers);
        CHECK(pair_execute(&p, &d, ops, count, 8400 / (round % 7 ? 6 : registers), NULL));
    }
    CHECK(pair_distance(&p, &d) == 0.0);
    pair_free(&p, &d);
    devices_close(&d);
}

/* As many as there can be, with scalars between. */
static void every_lane_gets_its_own_scalars(void)
{
    ONE_THREAD();
    enum { lanes = 256 };
    devices d;
    pair p[lanes];
    static double scalars[2][lanes][3];
    dn_program programs[2][lanes];
    dn_op ops[lanes][4];
    CHECK(devices_open(&d));
    for (uint32_t i = 0; i < lanes; i++) {
        size_t elements = i % 4 ? 40 : 5000; /* of several slices: more in all than the grid has blocks */
        float *values = chance_floats(3 * elements);
        CHECK(values && pair_make(&p[i], &d, values, 3 * elements));
        free(values);
        uint32_t count = i % 4; /* scalars */
        for (uint32_t k = 0; k < count; k++)
            ops[i][k] = draw_op(k % 2 ? DN_OP_ERROR_NORM : DN_OP_NORM, 3, elements);
        ops[i][count] = draw_op(count ? DN_OP_ACCEPT : DN_OP_CLIP, 3, elements);
        programs[0][i] = (dn_program){.registers = p[i].gpu, .elements = elements, .ops = ops[i], .op_count = count + 1};
        programs[0][i].scalars = count ? scalars[0][i] : NULL;
        programs[1][i] = programs[0][i];
        programs[1][i].registers = p[i].cpu;
        programs[1][i].scalars = count ? scalars[1][i] : NULL;
    }
    CHECK(dn_cuda_execute(d.gpu, programs[0], lanes, NULL) == DN_OK && d.reference->execute(d.cpu, programs[1], lanes, NULL) == DN_OK);
    for (uint32_t i = 0; i < lanes; i++) {
        for (uint32_t k = 0; k < i % 4; k++)
            CHECK_MSG(fabs(scalars[0][i][k] - scalars[1][i][k]) <= 1e-12 * scalars[1][i][k], "lane %u, scalar %u", i, k);
        CHECK_MSG(pair_distance(&p[i], &d) == 0.0, "lane %u", i);
        pair_free(&p[i], &d);
    }
    devices_close(&d);
}

/* A program that waits for a buffer that is no more is never run: its memory may be another's. */
static void freeing_a_buffer_drops_its_programs(void)
{
    devices d;
    pair lanes[LANES];
    CHECK(devices_open(&d) && lanes_make(lanes, &d, 4));
    CHECK(lanes_execute(lanes, &d, 4, 1));
    uint64_t before = launches();
    pair_free(&lanes[1], &d);
    pair_free(&lanes[3], &d);
    CHECK(launches() == before);
    dn_buffer *fresh = NULL;
    float values[16];
    CHECK(dn_cuda_buffer_create(&fresh, d.gpu, 4 * 305, NULL) == DN_OK);
    CHECK(dn_cuda_pending_flush(d.gpu, NULL, NULL) == DN_OK);
    CHECK(dn_cuda_buffer_read(fresh, 0, values, 16, NULL) == DN_OK);
    for (int i = 0; i < 16; i++)
        CHECK(same_bits(values[i], 0.0f));
    CHECK(pair_distance(&lanes[0], &d) == 0.0 && pair_distance(&lanes[2], &d) == 0.0);
    dn_cuda_buffer_free(fresh);
    pair_free(&lanes[0], &d);
    pair_free(&lanes[2], &d);
    devices_close(&d);
    CHECK(nothing_lives());
}

/* In the words of the CPU's. */
static void bad_programs_are_refused(void)
{
    devices d;
    pair p;
    float values[40] = {0};
    double scalar = 0.0;
    CHECK(devices_open(&d) && pair_make(&p, &d, values, 40));
    for (int c = 0; c < 9; c++) {
        dn_op ops[2] = {{.kind = DN_OP_CLIP}, {.kind = DN_OP_LINEAR, .terms = 1, .src = {3}, .dst = 3}};
        dn_program program = {.elements = 10, .ops = ops, .op_count = 2};
        switch (c) {
        case 0:
            ops[1].src[0] = 4;
            break;
        case 1:
            ops[1].dst = 4;
            break;
        case 2:
            ops[1].terms = 0;
            break;
        case 3:
            ops[1].terms = 9;
            break;
        case 4:
            ops[1].kind = DN_OP_NORM;
            break; /* nowhere to put it */
        case 5:
            ops[1].kind = DN_OP_ACCEPT;
            program.scalars = &scalar;
            break;
        case 6:
            ops[1].kind = (dn_op_kind)14;
            break;
        case 7:
            program.elements = 41;
            break;
        default:
            program.elements = 0;
            break;
        }
        dn_error gpu = {0}, cpu = {0};
        program.registers = p.gpu;
        CHECK_MSG(dn_cuda_execute(d.gpu, &program, 1, &gpu) == DN_INTERNAL, "case %d", c);
        program.registers = p.cpu;
        CHECK_MSG(d.reference->execute(d.cpu, &program, 1, &cpu) == DN_INTERNAL, "case %d", c);
        CHECK_MSG(strcmp(gpu.message, cpu.message) == 0, "case %d: %s", c, gpu.message);
        CHECK(!p.gpu->waits);
    }
    static dn_op many[300];
    dn_program program = {.registers = p.gpu, .elements = 10, .ops = many, .op_count = 300};
    for (int i = 0; i < 300; i++)
        many[i] = (dn_op){.kind = DN_OP_CLIP};
    CHECK(dn_cuda_execute(d.gpu, &program, 1, NULL) == DN_INTERNAL);
    CHECK(dn_cuda_execute(d.gpu, &program, DN_LANES_MAX + 1, NULL) == DN_INTERNAL);
    CHECK(dn_cuda_execute(d.gpu, NULL, 0, NULL) == DN_OK);
    pair_free(&p, &d);
    devices_close(&d);
}

/* Two threads, each with lanes of its own, on one device. */
typedef struct helper {
    const devices *d;
    pair p;
    bool good;
} helper;

static void *use_device(void *payload)
{
    helper *h = payload;
    double gpu = 0.0, cpu = 0.0, *scalars[2] = {&gpu, &cpu};
    h->good = true;
    for (uint32_t round = 0; round < 30 && h->good; round++) {
        dn_op ops[3] = {{.kind = DN_OP_NOISE, .seed = round, .dst = 1},
                        {.kind = DN_OP_LINEAR, .terms = 2, .src = {0, 1}, .coefficient = {0.5f, 0.25f}, .dst = 0},
                        {.kind = DN_OP_NORM, .src = {0}}};
        bool asks = round % 5 == 4;
        h->good = pair_execute(&h->p, h->d, ops, asks ? 3 : 2, 1500, asks ? scalars : NULL) && fabs(gpu - cpu) <= 1e-12 * fabs(cpu);
        if (round % 7 == 6)
            h->good = h->good && pair_distance(&h->p, h->d) == 0.0;
    }
    return NULL;
}

static void two_threads_share_a_device(void)
{
    devices d;
    helper helpers[2];
    pthread_t threads[2];
    CHECK(devices_open(&d));
    for (int i = 0; i < 2; i++) {
        float values[3000] = {0};
        helpers[i].d = &d;
        CHECK(pair_make(&helpers[i].p, &d, values, 3000));
    }
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, use_device, &helpers[i]) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        CHECK(helpers[i].good && pair_distance(&helpers[i].p, &d) == 0.0);
        pair_free(&helpers[i].p, &d);
    }
    devices_close(&d);
    CHECK(nothing_lives());
}

static void at_once(void (*test)(void))
{
    CHECK(dn_emulator_configure("work=now"));
    test();
    CHECK(dn_emulator_configure(NULL));
}
static void blocks_take_whole_chains_when_work_is_done_at_once(void)
{
    at_once(blocks_take_whole_chains_and_the_rest_runs_first);
}

int main(void)
{
    RUN(blocks_take_whole_chains_and_the_rest_runs_first);
    RUN(blocks_take_whole_chains_when_work_is_done_at_once);
    RUN(what_fits_rides_in_one_launch);
    RUN(a_read_runs_what_waits_for_its_buffer_alone);
    RUN(chains_keep_their_order);
    RUN(every_lane_gets_its_own_scalars);
    RUN(freeing_a_buffer_drops_its_programs);
    RUN(bad_programs_are_refused);
    RUN(two_threads_share_a_device);
    return test_end();
}
