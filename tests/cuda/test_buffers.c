/* Buffers on the emulated GPU: what they hold, where their memory comes from, pixels, and every fault that their calls may meet. */
#include "base/pixel.h"
#include "tests/cuda/program_draws.h"

static dn_emulator_counts counted(void)
{
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    return counts;
}

/* Not one NaN of the poison that its memory is made of, also in memory that another buffer wrote. */
static void fresh_buffers_are_zero(void)
{
    dn_device *device = NULL;
    static float values[5000];
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    for (int round = 0; round < 20; round++) {
        size_t count = chance(1, 5000);
        dn_buffer *buffer = NULL;
        CHECK(dn_cuda_buffer_create(&buffer, device, count, NULL) == DN_OK);
        CHECK(dn_cuda_buffer_read(buffer, 0, values, count, NULL) == DN_OK);
        for (size_t i = 0; i < count; i++)
            CHECK_MSG(same_bits(values[i], 0.0f), "round %d, float %zu of %zu", round, i, count);
        memset(values, 0x7E, sizeof values);
        CHECK(dn_cuda_buffer_write(buffer, 0, values, count, NULL) == DN_OK);
        dn_cuda_buffer_free(buffer);
    }
    dn_buffer *empty = NULL;
    CHECK(dn_cuda_buffer_create(&empty, device, 0, NULL) == DN_OK && dn_cuda_buffer_read(empty, 0, values, 0, NULL) == DN_OK);
    dn_cuda_buffer_free(empty);
    dn_cuda_buffer_free(NULL);
    dn_cuda_device_close(device);
    CHECK(nothing_lives());
}

/* Any part, of any size beside that of the pinned memory in between; the host's own memory may be changed as soon as a write returns. */
static void what_is_written_is_read(void)
{
    enum { count = 2500001 };
    dn_device *device = NULL;
    dn_buffer *buffer = NULL;
    float *want = chance_floats(count), *have = malloc(count * sizeof *have), *given = malloc(count * sizeof *given);
    CHECK(want && have && given && dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    CHECK(dn_cuda_buffer_create(&buffer, device, count, NULL) == DN_OK);
    CHECK(dn_cuda_buffer_write(buffer, 0, want, count, NULL) == DN_OK);
    static const size_t lengths[] = {0, 1, 3, 262143, 262144, 262145, 1048576, 2000000};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        size_t length = lengths[l], at = chance(0, (uint32_t)(count - length));
        for (size_t i = 0; i < length; i++)
            given[i] = want[at + i] = chance_float();
        CHECK(dn_cuda_buffer_write(buffer, at, given, length, NULL) == DN_OK);
        memset(given, 0xFF, length * sizeof *given);
        at = chance(0, (uint32_t)(count - length));
        CHECK(dn_cuda_buffer_read(buffer, at, have, length, NULL) == DN_OK);
        CHECK_MSG(memcmp(have, want + at, length * sizeof *have) == 0, "%zu floats at %zu", length, at);
    }
    CHECK(dn_cuda_buffer_read(buffer, 0, have, count, NULL) == DN_OK && memcmp(have, want, count * sizeof *have) == 0);
    dn_cuda_buffer_free(buffer);
    dn_cuda_device_close(device);
    free(want);
    free(have);
    free(given);
    CHECK(nothing_lives());
}

static void ends_are_minded(void)
{
    dn_device *device = NULL;
    dn_buffer *buffer = NULL;
    float values[8] = {0};
    uint8_t pixels[8];
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK && dn_cuda_buffer_create(&buffer, device, 8, NULL) == DN_OK);
    static const size_t bad[][2] = {{0, 9}, {8, 1}, {9, 0}, {5, 4}, {SIZE_MAX, 1}, {1, SIZE_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(dn_cuda_buffer_read(buffer, bad[i][0], values, bad[i][1], NULL) == DN_INTERNAL);
        CHECK(dn_cuda_buffer_write(buffer, bad[i][0], values, bad[i][1], NULL) == DN_INTERNAL);
        CHECK(dn_cuda_buffer_read_pixels(buffer, bad[i][0], 1, bad[i][1], false, pixels, NULL) == DN_INTERNAL);
    }
    CHECK(dn_cuda_buffer_read_pixels(buffer, 0, 4, SIZE_MAX / 2, false, pixels, NULL) == DN_INTERNAL);
    CHECK(dn_cuda_buffer_read_pixels(buffer, 0, 3, 3, false, pixels, NULL) == DN_INTERNAL);
    CHECK(dn_cuda_buffer_read_pixels(buffer, 8, 3, 0, false, pixels, NULL) == DN_OK);
    CHECK(dn_cuda_buffer_create(&(dn_buffer *){NULL}, device, SIZE_MAX / 3, NULL) == DN_NO_MEMORY);
    dn_cuda_buffer_free(buffer);
    dn_cuda_device_close(device);
}

static void pixels_are_the_cpus(void)
{
    devices d;
    static const uint32_t channels[] = {1, 3, 4};
    CHECK(devices_open(&d));
    for (int round = 0; round < 12; round++) {
        uint32_t c = channels[round % 3];
        size_t plane = round < 3 ? 1 : chance(1, 90000), count = c * plane;
        bool unit_range = round % 2;
        float *values = chance_floats(count + 7);
        uint8_t *have = malloc(count), *want = malloc(count);
        CHECK(values && have && want);
        for (size_t i = 0; i < count && round > 3; i += 3)
            values[i] = ((float)chance(0, 1020) / 510.0f - 1.0f) + (i % 2 ? 1e-7f : 0.0f); /* halves of a step, which round to even */
        values[count / 2] = NAN;
        values[count] = INFINITY;
        pair p;
        CHECK(pair_make(&p, &d, values, count + 7));
        CHECK(dn_cuda_buffer_read_pixels(p.gpu, 5, c, plane, unit_range, have, NULL) == DN_OK);
        CHECK(d.reference->buffer_read_pixels(p.cpu, 5, c, plane, unit_range, want, NULL) == DN_OK);
        CHECK_MSG(memcmp(have, want, count) == 0, "%u channels of %zu", c, plane);
        pair_free(&p, &d);
        free(values);
        free(have);
        free(want);
    }
    devices_close(&d);
    CHECK(nothing_lives());
}

/* A lane that comes after one of its size asks the driver for nothing. */
static void memory_is_used_again(void)
{
    dn_device *device = NULL;
    dn_buffer *buffers[20] = {NULL};
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    for (int i = 0; i < 20; i++)
        CHECK(dn_cuda_buffer_create(&buffers[i], device, 1000 * (size_t)(i % 5 + 1), NULL) == DN_OK);
    uint64_t asked = counted().calls[DN_EMULATOR_MALLOC];
    for (int round = 0; round < 50; round++) {
        int at = (int)chance(0, 19);
        size_t count = buffers[at]->count;
        dn_cuda_buffer_free(buffers[at]);
        CHECK(dn_cuda_buffer_create(&buffers[at], device, count - chance(0, 20), NULL) == DN_OK);
    }
    CHECK(counted().calls[DN_EMULATOR_MALLOC] == asked);
    for (int i = 0; i < 20; i++)
        dn_cuda_buffer_free(buffers[i]);
    dn_cuda_device_close(device);
    CHECK(nothing_lives());
}

/* At most a sixteenth of the card's memory; and all of that goes back before an allocation fails. */
static void what_is_kept_is_bounded(void)
{
    dn_device *device = NULL;
    CHECK(dn_emulator_configure("memory=60M"));
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK);
    size_t before = counted().device_bytes;
    dn_buffer *buffers[10] = {NULL}, *large = NULL;
    for (int i = 0; i < 10; i++)
        CHECK(dn_cuda_buffer_create(&buffers[i], device, (1 << 18) - 100, NULL) == DN_OK); /* of 1 MiB */
    for (int i = 0; i < 10; i++)
        dn_cuda_buffer_free(buffers[i]);
    CHECK_MSG(counted().device_bytes == before + (3u << 20), "%zu", counted().device_bytes - before);
    CHECK(dn_cuda_buffer_create(&large, device, (56u << 20) / sizeof(float), NULL) == DN_OK);
    dn_error error = {0};
    dn_buffer *more = NULL;
    CHECK(dn_cuda_buffer_create(&more, device, (8u << 20) / sizeof(float), &error) == DN_NO_MEMORY && !more);
    CHECK_MSG(strstr(error.message, "reserving 8 MB") && strstr(error.message, "of the 60 MB"), "%s", error.message);
    CHECK(dn_cuda_buffer_create(&more, device, 100, &error) == DN_OK); /* that was not the end */
    dn_cuda_buffer_free(more);
    dn_cuda_buffer_free(large);
    dn_cuda_device_close(device);
    CHECK(dn_emulator_configure(NULL) && nothing_lives());
}

/* Everything that the host side of a device does, from open to close; the first failure is handed back. */
static dn_status whole_life(dn_error *error)
{
    dn_device *device = NULL;
    dn_status status = dn_cuda_device_open(&device, NULL, error);
    dn_buffer *buffers[3] = {NULL};
    float values[600] = {1.0f, 2.0f};
    uint8_t pixels[300];
    double scalar = 0.0;
    for (int i = 0; i < 3 && status == DN_OK; i++)
        status = dn_cuda_buffer_create(&buffers[i], device, 600 + 3000 * (size_t)i, error);
    dn_op ops[2] = {{.kind = DN_OP_NOISE, .dst = 1}, {.kind = DN_OP_NORM, .src = {1}}};
    for (int i = 0; i < 3 && status == DN_OK; i++) {
        dn_program program = {.registers = buffers[i], .elements = 300, .ops = ops, .op_count = i == 1 ? 2 : 1, .scalars = &scalar};
        status = dn_cuda_buffer_write(buffers[i], 0, values, 600, error);
        if (status == DN_OK)
            status = dn_cuda_execute(device, &program, 1, error);
    }
    if (status == DN_OK)
        status = dn_cuda_buffer_read(buffers[0], 0, values, 600, error);
    if (status == DN_OK)
        status = dn_cuda_buffer_read_pixels(buffers[2], 0, 3, 100, true, pixels, error);
    for (int i = 0; i < 3; i++)
        dn_cuda_buffer_free(buffers[i]);
    dn_cuda_device_close(device);
    return status;
}

/* Every call of every kind fails once, in every way: the right status, a message, and nothing left behind. */
static void every_fault_is_told_and_leaks_nothing(void)
{
    ONE_THREAD();
    static const struct {
        const char *what;
        dn_status status;
    } faults[] = {{"oom", DN_NO_MEMORY},      {"invalid", DN_INTERNAL},    {"unsupported", DN_UNSUPPORTED},
                  {"resources", DN_INTERNAL}, {"lost", DN_DEVICE_LOST},    {"illegal", DN_DEVICE_LOST},
                  {"ecc", DN_DEVICE_LOST},    {"failure", DN_DEVICE_LOST}, {"timeout", DN_DEVICE_LOST}};
    static const struct {
        const char *name;
        dn_emulator_kind kind;
    } kinds[] = {{"malloc", DN_EMULATOR_MALLOC}, {"pinned", DN_EMULATOR_PINNED}, {"copy", DN_EMULATOR_COPY},
                 {"launch", DN_EMULATOR_LAUNCH}, {"sync", DN_EMULATOR_SYNC},     {"stream", DN_EMULATOR_STREAM},
                 {"event", DN_EMULATOR_EVENT}};
    uint32_t met = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
            for (uint64_t call = 1;; call++) {
                char settings[64];
                dn_error error = {0};
                snprintf(settings, sizeof settings, "fault=%s:%u:%s", kinds[k].name, (unsigned)call, faults[f].what);
                CHECK(dn_emulator_configure(settings));
                dn_status status = whole_life(&error);
                CHECK_MSG(nothing_lives(), "%s leaks", settings);
                if (counted().calls[kinds[k].kind] < call)
                    break;
                met++;
                bool closing = status == DN_OK && kinds[k].kind == DN_EMULATOR_SYNC; /* what waits at the end has nobody to tell */
                CHECK_MSG(closing || (status == faults[f].status && error.status == status), "%s: %d: %s", settings, status, error.message);
                CHECK_MSG(closing || strlen(error.message) > 20, "%s: %s", settings, error.message);
            }
        }
    }
    CHECK_MSG(met > 300, "only %u faults", met);
    CHECK(dn_emulator_configure(NULL));
}

/* The first cause stays, whatever is asked later. */
static void a_lost_device_says_why_for_good(void)
{
    dn_device *device = NULL;
    dn_buffer *buffer = NULL, *other = NULL;
    dn_error first = {0}, later = {0};
    float value = 1.0f;
    dn_op op = {.kind = DN_OP_CLIP};
    CHECK(dn_cuda_device_open(&device, NULL, NULL) == DN_OK && dn_cuda_buffer_create(&buffer, device, 4, NULL) == DN_OK);
    CHECK(dn_emulator_configure("fault=launch:1:illegal"));
    dn_program program = {.registers = buffer, .elements = 4, .ops = &op, .op_count = 1};
    CHECK(dn_cuda_execute(device, &program, 1, &first) == DN_OK);
    CHECK(dn_cuda_buffer_read(buffer, 0, &value, 1, &first) == DN_DEVICE_LOST);
    CHECK_MSG(
        strstr(first.message, "cuda:0 Emulated GPU is lost: an illegal memory access was encountered (cudaErrorIllegalAddress) while ") ==
            first.message,
        "%s", first.message);
    CHECK(dn_cuda_buffer_write(buffer, 0, &value, 1, &later) == DN_DEVICE_LOST && strcmp(first.message, later.message) == 0);
    CHECK(dn_cuda_buffer_create(&other, device, 4, &later) == DN_DEVICE_LOST && !other && strcmp(first.message, later.message) == 0);
    CHECK(dn_cuda_execute(device, &program, 1, &later) == DN_DEVICE_LOST && strcmp(first.message, later.message) == 0);
    dn_cuda_buffer_free(buffer);
    dn_cuda_device_close(device);
    CHECK(nothing_lives() && dn_emulator_configure(NULL));
}

int main(void)
{
    RUN(fresh_buffers_are_zero);
    RUN(what_is_written_is_read);
    RUN(ends_are_minded);
    RUN(pixels_are_the_cpus);
    RUN(memory_is_used_again);
    RUN(what_is_kept_is_bounded);
    RUN(every_fault_is_told_and_leaks_nothing);
    RUN(a_lost_device_says_why_for_good);
    return test_end();
}
