/* Register programs on the emulated GPU against the CPU back end: every operation at every odd size, programs by chance, noise bit for bit. */
#include "tests/cuda/program_draws.h"
#include "tests/cuda/emulator/schedule.h"

static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 31, 64, 100, 999, 1000, 2047, 2048, 2049, 4095, 4096, 4097, 8195, 12288, 12289};
#define SIZES (sizeof sizes / sizeof sizes[0])

/* Numbers that comparisons and roundings stumble over. */
static void spice(float *x, size_t count)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-42f, -1e-42f, 3e38f, 1.0f, -1.0f};
    for (uint32_t i = 0; i < 10 && count; i++)
        x[chance(0, (uint32_t)count - 1)] = odd[i];
}

static void try_kind(const devices *d, uint32_t kind, size_t elements, bool odd)
{
    float *values = chance_floats(5 * elements);
    double scalars[2][2] = {{0}};
    double *handed[2] = {scalars[0], scalars[1]};
    pair p;
    if (odd)
        spice(values, 5 * elements);
    CHECK(values && pair_make(&p, d, values, 5 * elements));
    free(values);
    dn_op ops[2] = {draw_op(kind, 5, elements), draw_op(kind, 5, elements)};
    uint32_t first = kind == DN_OP_ACCEPT ? 0 : 1;
    if (first == 0) {
        ops[0] = draw_op(DN_OP_NORM, 5, elements);
        if (odd)
            ops[0].src[0] = ops[1].src[0];
    }
    bool wants = kind == DN_OP_ACCEPT || kind_gives_scalar(kind);
    CHECK_MSG(pair_execute(&p, d, ops + first, 2 - first, elements, wants ? handed : NULL), "kind %u of %zu", kind, elements);
    double far = pair_distance(&p, d), apart = fabs(scalars[0][0] - scalars[1][0]);
    CHECK_MSG(kind_is_bitwise(kind) ? far == 0.0 : far <= 1e-6, "kind %u of %zu elements%s: %g", kind, elements, odd ? ", odd" : "", far);
    bool both_odd = !isfinite(scalars[0][0]) && !isfinite(scalars[1][0]);
    CHECK_MSG(both_odd || apart <= 1e-12 * fabs(scalars[1][0]), "kind %u of %zu: %.17g and %.17g", kind, elements, scalars[0][0],
              scalars[1][0]);
    pair_free(&p, d);
}

static void every_operation_is_the_cpus(void)
{
    ONE_THREAD();
    devices d;
    CHECK(devices_open(&d));
    for (uint32_t kind = 0; kind < KINDS && !test_failed; kind++)
        for (size_t s = 0; s < SIZES && !test_failed; s++)
            for (int round = 0; round < 2 && !test_failed; round++)
                try_kind(&d, kind, sizes[s], false);
    devices_close(&d);
    CHECK(test_failed || nothing_lives());
}

/* NaN, infinities, zeros of both signs and numbers that are not normal. */
static void odd_numbers_are_the_cpus(void)
{
    ONE_THREAD();
    static const uint32_t kinds[] = {DN_OP_LINEAR, DN_OP_CLIP,      DN_OP_THRESHOLD, DN_OP_SELECT,
                                     DN_OP_BLEND,  DN_OP_EXP_SCALE, DN_OP_ACCEPT,    DN_OP_NORM};
    devices d;
    CHECK(devices_open(&d));
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && !test_failed; k++)
        for (size_t s = 0; s < SIZES && !test_failed; s += 2)
            try_kind(&d, kinds[k], sizes[s], true);
    devices_close(&d);
}

/* Registers that hold one number, or are all zeros, or the same as another one: where sums give nothing to divide by. */
static void flat_registers_are_the_cpus(void)
{
    ONE_THREAD();
    static const uint32_t kinds[] = {DN_OP_SLERP, DN_OP_MATCH_STD, DN_OP_PROJECT, DN_OP_LANGEVIN, DN_OP_THRESHOLD, DN_OP_ERROR_NORM};
    enum { elements = 777 };
    devices d;
    CHECK(devices_open(&d));
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (uint32_t round = 0; round < 6; round++) {
            float values[3 * elements] = {0};
            double scalars[2] = {0}, *handed[2] = {&scalars[0], &scalars[1]};
            for (size_t i = 0; i < 3 * (size_t)elements; i++)
                values[i] = round == 0   ? 0.0f
                            : round == 1 ? 0.7f
                            : round == 2 ? (float)(i / elements)
                            : round == 3 ? (float)(i % elements % 3)
                                         : chance_float();
            for (size_t i = 0; i < elements && round == 5; i++)
                values[elements + i] = -values[i];
            dn_op op = draw_op(kinds[k], 3, elements);
            op.src[0] = 0, op.src[1] = 1, op.src[2] = 2, op.dst = 2;
            pair p;
            CHECK(pair_make(&p, &d, values, 3 * (size_t)elements));
            CHECK(pair_execute(&p, &d, &op, 1, elements, handed));
            CHECK_MSG(pair_distance(&p, &d) <= 1e-6, "kind %u, round %u: %g", kinds[k], round, pair_distance(&p, &d));
            CHECK_MSG(same_bits((float)scalars[0], (float)scalars[1]), "kind %u, round %u: %g %g", kinds[k], round, scalars[0], scalars[1]);
            pair_free(&p, &d);
        }
    }
    devices_close(&d);
}

/* Programs of up to twelve operations of any kinds over up to eight registers. */
static void try_program(const devices *d, uint32_t round)
{
    uint32_t registers = chance(1, 8), count = chance(1, 12), scalars = 0;
    size_t elements = chance(0, 3) ? chance(1, 600) : chance(1, 5000);
    double values[2][12], *handed[2] = {values[0], values[1]};
    dn_op ops[12];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t kind = chance(0, KINDS - 1);
        while (kind == DN_OP_ACCEPT && scalars == 0)
            kind = chance(0, KINDS - 1);
        ops[i] = draw_op(kind, registers, elements);
        scalars += kind_gives_scalar(kind);
    }
    float *floats = chance_floats(registers * elements);
    pair p;
    CHECK(floats && pair_make(&p, d, floats, registers * elements));
    free(floats);
    CHECK_MSG(pair_execute(&p, d, ops, count, elements, scalars ? handed : NULL), "program %u", round);
    double far = pair_distance(&p, d);
    CHECK_MSG(far <= 1e-5, "program %u: %u operations over %u registers of %zu: %g", round, count, registers, elements, far);
    for (uint32_t s = 0; s < scalars; s++)
        CHECK_MSG(fabs(values[0][s] - values[1][s]) <= 1e-6 * fabs(values[1][s]), "program %u, scalar %u: %g %g", round, s, values[0][s],
                  values[1][s]);
    pair_free(&p, d);
}

static void programs_by_chance_are_the_cpus(void)
{
    ONE_THREAD();
    devices d;
    chance_state = 20;
    CHECK(devices_open(&d));
    for (int round = 0; round < test_rounds(400) && !test_failed; round++)
        try_program(&d, (uint32_t)round);
    devices_close(&d);
}

static void normals_are_the_cpus_bit_for_bit(void)
{
    ONE_THREAD();
    enum { count = 1 << 20 };
    static const struct {
        uint64_t seed;
        dn_noise_stream stream;
        uint32_t draw;
    } cases[] = {{0, DN_STREAM_START, 0}, {UINT64_MAX, DN_STREAM_STEP, 999}, {UINT64_C(0x123456789ABCDEF), DN_STREAM_ENCODE, UINT32_MAX}};
    devices d;
    float *want = malloc(count * sizeof *want), *have = malloc(count * sizeof *have);
    dn_buffer *buffer = NULL;
    CHECK(want && have && devices_open(&d));
    CHECK(dn_cuda_buffer_create(&buffer, d.gpu, count, NULL) == DN_OK);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        dn_op op = {.kind = DN_OP_NOISE, .seed = cases[c].seed, .stream = cases[c].stream, .draw = cases[c].draw};
        dn_program program = {.registers = buffer, .elements = count, .ops = &op, .op_count = 1};
        CHECK(dn_cuda_execute(d.gpu, &program, 1, NULL) == DN_OK);
        CHECK(dn_cuda_buffer_read(buffer, 0, have, count, NULL) == DN_OK);
        dn_noise_normal(want, count, 0, op.seed, op.stream, op.draw);
        for (size_t i = 0; i < count; i++)
            CHECK_MSG(same_bits(want[i], have[i]), "case %zu, element %zu: %a and %a", c, i, (double)want[i], (double)have[i]);
    }
    dn_cuda_buffer_free(buffer);
    devices_close(&d);
    free(want);
    free(have);
}

/* Whatever the order in which threads and blocks run. */
static void every_schedule_gives_the_same_bytes(void)
{
    ONE_THREAD();
    enum { elements = 6001, registers = 4 };
    static float first[registers * elements], bytes[registers * elements];
    dn_device *device = NULL;
    float *values = chance_floats((size_t)registers * elements);
    CHECK(values && dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    dn_op ops[2 * KINDS];
    uint32_t count = 0;
    chance_state = 3;
    for (uint32_t kind = 0; kind < KINDS; kind++)
        if (kind != DN_OP_ACCEPT && !kind_gives_scalar(kind))
            ops[count++] = draw_op(kind, registers, elements);
    ops[count++] = draw_op(DN_OP_NORM, registers, elements);
    ops[count++] = draw_op(DN_OP_ACCEPT, registers, elements);
    for (int order = 0; order < CUEMU_ORDERS; order++) {
        cuemu_schedule((cuemu_order)order);
        dn_buffer *buffer = NULL;
        double scalar = 0.0;
        CHECK(dn_cuda_buffer_create(&buffer, device, (size_t)registers * elements, NULL) == DN_OK);
        CHECK(dn_cuda_buffer_write(buffer, 0, values, (size_t)registers * elements, NULL) == DN_OK);
        dn_program program = {.registers = buffer, .elements = elements, .ops = ops, .op_count = count, .scalars = &scalar};
        CHECK(dn_cuda_execute(device, &program, 1, NULL) == DN_OK);
        CHECK(dn_cuda_buffer_read(buffer, 0, order ? bytes : first, (size_t)registers * elements, NULL) == DN_OK);
        CHECK_MSG(order == 0 || memcmp(first, bytes, sizeof first) == 0, "schedule %d", order);
        dn_cuda_buffer_free(buffer);
    }
    cuemu_schedule(CUEMU_FORWARD);
    dn_cuda_device_close(device);
    free(values);
}

int main(void)
{
    RUN(every_operation_is_the_cpus);
    RUN(odd_numbers_are_the_cpus);
    RUN(flat_registers_are_the_cpus);
    RUN(programs_by_chance_are_the_cpus);
    RUN(normals_are_the_cpus_bit_for_bit);
    RUN(every_schedule_gives_the_same_bytes);
    return test_end();
}
