/* Register programs: each operation against a plain computation, aliasing, many programs at once, refusals; and the back
 * end's own exp, log, sine and cosine against the C library's. */
#include "tests/test.h"

#include "backend/backend.h"
#include "backend/cpu/state.h"

#define ELEMENTS 777
#define REGISTERS 4

static const dn_backend *backend;
static dn_device *device;
static dn_error error;

static dn_buffer *make_registers(unsigned seed)
{
    dn_buffer *buffer = NULL;
    float values[REGISTERS * ELEMENTS];
    dn_noise_normal(values, REGISTERS * ELEMENTS, 0, seed, DN_STREAM_PROBE, 0);
    if (backend->buffer_create(&buffer, device, REGISTERS * ELEMENTS, NULL) == DN_OK)
        backend->buffer_write(buffer, 0, values, REGISTERS * ELEMENTS, NULL);
    return buffer;
}

static dn_status execute(dn_buffer *registers, const dn_op *ops, uint32_t count, double *norms)
{
    dn_program program = {.registers = registers, .elements = ELEMENTS, .ops = ops, .op_count = count, .scalars = norms};
    return backend->execute(device, &program, 1, &error);
}

static void linear_combines_in_order(void)
{
    dn_buffer *r = make_registers(1);
    float before[REGISTERS * ELEMENTS], after[ELEMENTS];
    backend->buffer_read(r, 0, before, REGISTERS * ELEMENTS, NULL);
    dn_op op = {.kind = DN_OP_LINEAR, .dst = 1, .terms = 3, .src = {0, 1, 2}, .coefficient = {0.3f, -1.7f, 2.5f}};
    CHECK_OK(execute(r, &op, 1, NULL), error);
    backend->buffer_read(r, ELEMENTS, after, ELEMENTS, NULL);
    for (int i = 0; i < ELEMENTS; i++) {
        volatile float a = 0.3f * before[i], b = -1.7f * before[ELEMENTS + i], c = 2.5f * before[2 * ELEMENTS + i];
        volatile float ab = a + b;
        CHECK(after[i] == ab + c);
    }
    backend->buffer_free(r);
}

static void clip_noise_and_norm(void)
{
    dn_buffer *r = make_registers(2);
    float got[ELEMENTS], noise[ELEMENTS];
    double norms[2] = {0};
    dn_op ops[] = {
        {.kind = DN_OP_NOISE, .dst = 3, .seed = 42, .stream = DN_STREAM_STEP, .draw = 5},
        {.kind = DN_OP_NORM, .src = {3}},
        {.kind = DN_OP_CLIP, .dst = 2, .src = {3}, .low = -0.5f, .high = 0.25f},
        {.kind = DN_OP_NORM, .src = {2}},
    };
    CHECK_OK(execute(r, ops, 4, norms), error);
    backend->buffer_read(r, 2 * ELEMENTS, got, ELEMENTS, NULL);
    dn_noise_normal(noise, ELEMENTS, 0, 42, DN_STREAM_STEP, 5);
    double sum = 0.0, clipped = 0.0;
    for (int i = 0; i < ELEMENTS; i++) {
        float expected = fminf(fmaxf(noise[i], -0.5f), 0.25f);
        CHECK(got[i] == expected);
        sum += (double)noise[i] * (double)noise[i];
        clipped += (double)expected * (double)expected;
    }
    CHECK(norms[0] == sqrt(sum / ELEMENTS) && norms[1] == sqrt(clipped / ELEMENTS));
    backend->buffer_free(r);
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void threshold_is_the_quantile(void)
{
    static const float ratios[] = {0.0f, 0.5f, 0.9f, 0.95f, 0.995f, 0.9999f, 1.0f};
    for (size_t k = 0; k < sizeof ratios / sizeof ratios[0]; k++) {
        dn_buffer *r = make_registers(3 + (unsigned)k);
        float source[ELEMENTS], sorted[ELEMENTS], got[ELEMENTS];
        backend->buffer_read(r, 0, source, ELEMENTS, NULL);
        for (int i = 0; i < ELEMENTS; i++) {
            source[i] = i % 7 ? source[i] * 3.0f : 2.0f; /* repeated values too */
            sorted[i] = fabsf(source[i]);
        }
        backend->buffer_write(r, 0, source, ELEMENTS, NULL);
        qsort(sorted, ELEMENTS, sizeof *sorted, ascending);
        double position = (double)ratios[k] * (ELEMENTS - 1);
        size_t rank = (size_t)position;
        float low = sorted[rank], high = sorted[rank + 1 < ELEMENTS ? rank + 1 : rank];
        float bound = fminf(fmaxf(low + (high - low) * (float)(position - (double)rank), 1.0f), 6.0f);
        dn_op op = {.kind = DN_OP_THRESHOLD, .dst = 0, .src = {0}, .high = 6.0f, .ratio = ratios[k]};
        CHECK_OK(execute(r, &op, 1, NULL), error);
        backend->buffer_read(r, 0, got, ELEMENTS, NULL);
        for (int i = 0; i < ELEMENTS; i++)
            CHECK(got[i] == fminf(fmaxf(source[i], -bound), bound) / bound);
        backend->buffer_free(r);
    }
}

static void exp_scale_is_the_exponential(void)
{
    dn_buffer *r = make_registers(9);
    float source[2 * ELEMENTS], got[ELEMENTS];
    backend->buffer_read(r, 0, source, 2 * ELEMENTS, NULL);
    dn_op op = {.kind = DN_OP_EXP_SCALE, .dst = 2, .src = {0, 1}, .low = -3.0f, .ratio = 2.0f};
    CHECK_OK(execute(r, &op, 1, NULL), error);
    backend->buffer_read(r, 2 * ELEMENTS, got, ELEMENTS, NULL);
    for (int i = 0; i < ELEMENTS; i++) {
        double expected = exp(-3.0 + 2.0 * (double)source[i]) * (double)source[ELEMENTS + i];
        CHECK(fabs((double)got[i] - expected) <= 2e-7 * fabs(expected));
    }
    backend->buffer_free(r);
}

static void nan_is_kept(void)
{
    dn_buffer *r = make_registers(4);
    float bad[2] = {NAN, INFINITY}, got[2];
    dn_op clip = {.kind = DN_OP_CLIP, .dst = 0, .src = {0}, .low = -1.0f, .high = 1.0f};
    dn_op threshold = {.kind = DN_OP_THRESHOLD, .dst = 0, .src = {0}, .high = 2.0f, .ratio = 0.9f};
    backend->buffer_write(r, 0, bad, 2, NULL);
    CHECK_OK(execute(r, &clip, 1, NULL), error);
    backend->buffer_read(r, 0, got, 2, NULL);
    CHECK(isnan(got[0]) && got[1] == 1.0f);
    CHECK_OK(execute(r, &threshold, 1, NULL), error);
    backend->buffer_read(r, 0, got, 2, NULL);
    CHECK(isnan(got[0]));
    backend->buffer_free(r);
}

static void many_programs_are_as_one(void)
{
    enum { COUNT = 24 };
    dn_buffer *together[COUNT], *alone[COUNT];
    dn_program programs[COUNT];
    double norms[COUNT] = {0}, norm = 0.0;
    dn_op ops[COUNT][2];
    for (unsigned i = 0; i < COUNT; i++) {
        together[i] = make_registers(i);
        alone[i] = make_registers(i);
        ops[i][0] = (dn_op){.kind = DN_OP_LINEAR, .dst = 0, .terms = 2, .src = {0, 3}, .coefficient = {0.5f, (float)i}};
        ops[i][1] = (dn_op){.kind = DN_OP_NORM, .src = {0}};
        programs[i] = (dn_program){together[i], ELEMENTS, ops[i], 2, &norms[i]};
    }
    CHECK_OK(backend->execute(device, programs, COUNT, &error), error);
    for (unsigned i = 0; i < COUNT; i++) {
        float a[ELEMENTS], b[ELEMENTS];
        CHECK_OK(execute(alone[i], ops[i], 2, &norm), error);
        backend->buffer_read(together[i], 0, a, ELEMENTS, NULL);
        backend->buffer_read(alone[i], 0, b, ELEMENTS, NULL);
        CHECK(memcmp(a, b, sizeof a) == 0 && norm == norms[i]);
        backend->buffer_free(together[i]);
        backend->buffer_free(alone[i]);
    }
}

static void refuses_what_is_not_there(void)
{
    dn_buffer *r = make_registers(5);
    dn_op far = {.kind = DN_OP_CLIP, .dst = REGISTERS, .src = {0}};
    CHECK(execute(r, &far, 1, NULL) == DN_INTERNAL);
    dn_op source = {.kind = DN_OP_LINEAR, .dst = 0, .terms = 2, .src = {0, REGISTERS}};
    CHECK(execute(r, &source, 1, NULL) == DN_INTERNAL);
    dn_op none = {.kind = DN_OP_LINEAR, .dst = 0, .terms = 0};
    CHECK(execute(r, &none, 1, NULL) == DN_INTERNAL);
    dn_op norm = {.kind = DN_OP_NORM, .src = {0}};
    CHECK(execute(r, &norm, 1, NULL) == DN_INTERNAL);
    float value = 0.0f;
    CHECK(backend->buffer_read(r, REGISTERS * ELEMENTS, &value, 1, &error) == DN_INTERNAL);
    CHECK(backend->buffer_write(r, 0, &value, REGISTERS * ELEMENTS + 1, &error) == DN_INTERNAL);
    backend->buffer_free(r);
}

static void own_functions_are_accurate(void)
{
    for (int i = -4000; i < 4000; i++) {
        double x = i * 0.1731, sine, cosine;
        dn_sine_cosine(x * 100.0, &sine, &cosine);
        CHECK_MSG(fabs(sine - sin(x * 100.0)) < 1e-14 && fabs(cosine - cos(x * 100.0)) < 1e-14, "sine, cosine of %g", x * 100.0);
        double e = exp(x);
        CHECK_MSG(fabs(dn_exp(x) - e) <= 1e-15 * e, "exp(%g)", x);
        double positive = 1e-3 + fabs(x) * 57.0;
        CHECK_MSG(fabs(dn_log(positive) - log(positive)) < 1e-14, "log(%g)", positive);
    }
    CHECK(dn_exp(-1e9) == 0.0 && isinf(dn_exp(1e9)) && isnan(dn_exp(NAN)));
}

int main(void)
{
    backend = dn_backend_cpu();
    if (backend->device_open(&device, NULL, &error) != DN_OK) {
        printf("FAIL device_open: %s\n", error.message);
        return 1;
    }
    RUN(linear_combines_in_order);
    RUN(clip_noise_and_norm);
    RUN(threshold_is_the_quantile);
    RUN(exp_scale_is_the_exponential);
    RUN(nan_is_kept);
    RUN(many_programs_are_as_one);
    RUN(refuses_what_is_not_there);
    RUN(own_functions_are_accurate);
    backend->device_close(device);
    return test_end();
}
