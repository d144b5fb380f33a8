/* Register operations of guidance, inpainting and adaptive steps: each against the same formula in double with the C
 * library's functions, with the destination apart and on top of a source; their edges; what is refused. */
#include "tests/test.h"

#include "backend/backend.h"
#include "backend/cpu/state.h"

#define ELEMENTS 517
#define REGISTERS 4
#define TOLERANCE 3e-7 /* of the largest element: one rounding to float and a sum in another order */

static const dn_backend *backend;
static dn_device *device;
static dn_error error;
static float before[REGISTERS][ELEMENTS];

/* Registers of different sizes and means, kept in `before`. */
static dn_buffer *make_registers(unsigned seed)
{
    dn_buffer *buffer = NULL;
    dn_noise_normal(before[0], REGISTERS * ELEMENTS, 0, seed, DN_STREAM_PROBE, 0);
    for (int i = 0; i < ELEMENTS; i++) {
        before[1][i] = 0.3f * before[0][i] + 1.7f * before[1][i] + 0.25f;
        before[2][i] *= 0.6f;
    }
    if (backend->buffer_create(&buffer, device, REGISTERS * ELEMENTS, NULL) == DN_OK)
        backend->buffer_write(buffer, 0, before[0], REGISTERS * ELEMENTS, NULL);
    return buffer;
}

static dn_status execute(dn_buffer *registers, const dn_op *ops, uint32_t count, double *scalars)
{
    dn_program program = {.registers = registers, .elements = ELEMENTS, .ops = ops, .op_count = count, .scalars = scalars};
    return backend->execute(device, &program, 1, &error);
}

/* Runs the op into register 3, then onto each of its first `sources` sources, and compares with `expected`. */
static void check_op(dn_op op, unsigned sources, const double *expected)
{
    double largest = 1e-3;
    for (int i = 0; i < ELEMENTS; i++)
        largest = fmax(largest, fabs(expected[i]));
    for (unsigned place = 0; place <= sources; place++) {
        dn_buffer *r = make_registers(7);
        float got[ELEMENTS];
        op.dst = place == sources ? 3 : op.src[place];
        CHECK_OK(execute(r, &op, 1, NULL), error);
        backend->buffer_read(r, op.dst * ELEMENTS, got, ELEMENTS, NULL);
        for (int i = 0; i < ELEMENTS; i++)
            CHECK_MSG(fabs((double)got[i] - expected[i]) <= TOLERANCE * largest, "op %d into register %u, element %d: %.9g, not %.9g",
                      (int)op.kind, op.dst, i, (double)got[i], expected[i]);
        backend->buffer_free(r);
    }
}

static double dot(const float *a, const float *b)
{
    double sum = 0.0;
    for (int i = ELEMENTS - 1; i >= 0; i--)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void select_takes_the_first_elements(void)
{
    static const uint64_t splits[] = {0, 1, 200, ELEMENTS, ELEMENTS + 9};
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    for (size_t k = 0; k < sizeof splits / sizeof splits[0] && !test_failed; k++) {
        for (int i = 0; i < ELEMENTS; i++)
            expected[i] = (double)before[(uint64_t)i < splits[k] ? 0 : 1][i];
        check_op((dn_op){.kind = DN_OP_SELECT, .src = {0, 1}, .split = splits[k]}, 2, expected);
    }
}

static void blend_follows_the_mask(void)
{
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    for (int i = 0; i < ELEMENTS; i++)
        expected[i] = (double)before[2][i] * (double)before[0][i] + (1.0 - (double)before[2][i]) * (double)before[1][i];
    check_op((dn_op){.kind = DN_OP_BLEND, .src = {0, 1, 2}}, 3, expected);
}

static void slerp_follows_the_circle(void)
{
    static const float places[] = {0.0f, 0.25f, 0.5f, 1.0f, 1.5f};
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    double angle = acos(dot(before[0], before[1]) / sqrt(dot(before[0], before[0]) * dot(before[1], before[1])));
    for (size_t k = 0; k < sizeof places / sizeof places[0] && !test_failed; k++) {
        double t = (double)places[k];
        for (int i = 0; i < ELEMENTS; i++)
            expected[i] = (sin((1.0 - t) * angle) * (double)before[0][i] + sin(t * angle) * (double)before[1][i]) / sin(angle);
        check_op((dn_op){.kind = DN_OP_SLERP, .src = {0, 1}, .ratio = places[k]}, 2, expected);
    }
}

/* A register with itself, and with zeros, is interpolated along the line. */
static void slerp_of_parallels_is_linear(void)
{
    dn_buffer *r = make_registers(7);
    float got[ELEMENTS], zeros[ELEMENTS] = {0};
    dn_op same = {.kind = DN_OP_SLERP, .dst = 3, .src = {0, 0}, .ratio = 0.3f};
    dn_op nothing = {.kind = DN_OP_SLERP, .dst = 3, .src = {0, 2}, .ratio = 0.25f};
    backend->buffer_write(r, 2 * ELEMENTS, zeros, ELEMENTS, NULL);
    CHECK_OK(execute(r, &same, 1, NULL), error);
    backend->buffer_read(r, 3 * ELEMENTS, got, ELEMENTS, NULL);
    for (int i = 0; i < ELEMENTS; i++)
        CHECK(fabsf(got[i] - before[0][i]) <= 2e-7f * fabsf(before[0][i]));
    CHECK_OK(execute(r, &nothing, 1, NULL), error);
    backend->buffer_read(r, 3 * ELEMENTS, got, ELEMENTS, NULL);
    for (int i = 0; i < ELEMENTS; i++)
        CHECK(got[i] == 0.75f * before[0][i]);
    backend->buffer_free(r);
}

static double deviation(const float *x)
{
    double mean = 0.0, sum = 0.0;
    for (int i = 0; i < ELEMENTS; i++)
        mean += (double)x[i] / ELEMENTS;
    for (int i = 0; i < ELEMENTS; i++)
        sum += pow((double)x[i] - mean, 2.0);
    return sqrt(sum / (ELEMENTS - 1));
}

static void match_std_matches(void)
{
    static const float ratios[] = {0.0f, 0.7f, 1.0f};
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    for (size_t k = 0; k < sizeof ratios / sizeof ratios[0] && !test_failed; k++) {
        double factor = (double)ratios[k] * deviation(before[1]) / deviation(before[0]) + 1.0 - (double)ratios[k];
        for (int i = 0; i < ELEMENTS; i++)
            expected[i] = (double)before[0][i] * factor;
        check_op((dn_op){.kind = DN_OP_MATCH_STD, .src = {0, 1}, .ratio = ratios[k]}, 2, expected);
    }
}

static void project_splits_off_the_parallel_part(void)
{
    static const float bounds[] = {0.0f, 2.5f, 1e4f};
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    for (size_t k = 0; k < sizeof bounds / sizeof bounds[0] && !test_failed; k++) {
        double size = sqrt(dot(before[0], before[0])), scale = bounds[k] > 0.0f ? fmin(1.0, (double)bounds[k] / size) : 1.0;
        double along = scale * dot(before[0], before[1]) / dot(before[1], before[1]);
        for (int i = 0; i < ELEMENTS; i++) {
            double d = scale * (double)before[0][i], p = along * (double)before[1][i];
            expected[i] = (d - p) + (double)0.2f * p;
        }
        check_op((dn_op){.kind = DN_OP_PROJECT, .src = {0, 1}, .low = bounds[k], .ratio = 0.2f}, 2, expected);
    }
}

static void langevin_steps_by_the_signal_to_noise_ratio(void)
{
    double expected[ELEMENTS];
    backend->buffer_free(make_registers(7));
    double ratio = (double)0.17f * sqrt(dot(before[2], before[2]) / dot(before[1], before[1])), e = 2.0 * (double)0.9f * ratio * ratio;
    for (int i = 0; i < ELEMENTS; i++)
        expected[i] = (double)before[0][i] + e * (double)before[1][i] + sqrt(2.0 * e) * (double)before[2][i];
    check_op((dn_op){.kind = DN_OP_LANGEVIN, .src = {0, 1, 2}, .low = 0.9f, .ratio = 0.17f}, 3, expected);
}

/* Two scalars in one program; the accept after each sees the one before it. */
static void error_norm_accepts_or_not(void)
{
    dn_buffer *r = make_registers(7);
    double scalars[3] = {0}, expected = 0.0;
    float got[2][ELEMENTS];
    dn_op ops[] = {
        {.kind = DN_OP_ERROR_NORM, .src = {0, 1, 2}, .low = 0.01f, .ratio = 0.02f},
        {.kind = DN_OP_ACCEPT, .dst = 3, .src = {0, 1}},
        {.kind = DN_OP_ERROR_NORM, .src = {0, 1, 2}, .low = 10.0f, .ratio = 0.5f},
        {.kind = DN_OP_ACCEPT, .dst = 2, .src = {0, 1}},
        {.kind = DN_OP_NORM, .src = {2}},
    };
    CHECK_OK(execute(r, ops, 5, scalars), error);
    for (int i = 0; i < ELEMENTS; i++) {
        double size = fmax(fabs((double)before[1][i]), fabs((double)before[2][i]));
        expected += pow((double)before[0][i] / ((double)0.01f + (double)0.02f * size), 2.0) / ELEMENTS;
    }
    CHECK(fabs(scalars[0] - sqrt(expected)) < 1e-12 * scalars[0] && scalars[0] > 1.0 && scalars[1] < 1.0);
    CHECK(fabs(scalars[2] - sqrt(dot(before[0], before[0]) / ELEMENTS)) < 1e-12);
    backend->buffer_read(r, 3 * ELEMENTS, got[0], ELEMENTS, NULL);
    backend->buffer_read(r, 2 * ELEMENTS, got[1], ELEMENTS, NULL);
    CHECK(memcmp(got[0], before[1], sizeof got[0]) == 0 && memcmp(got[1], before[0], sizeof got[1]) == 0);
    backend->buffer_free(r);
}

static void nan_is_not_accepted(void)
{
    dn_buffer *r = make_registers(7);
    float bad = NAN, got[ELEMENTS];
    double scalar = 0.0;
    dn_op ops[] = {{.kind = DN_OP_ERROR_NORM, .src = {0, 1, 2}, .low = 10.0f}, {.kind = DN_OP_ACCEPT, .dst = 3, .src = {0, 1}}};
    backend->buffer_write(r, 100, &bad, 1, NULL);
    CHECK_OK(execute(r, ops, 2, &scalar), error);
    backend->buffer_read(r, 3 * ELEMENTS, got, ELEMENTS, NULL);
    CHECK(isnan(scalar) && memcmp(got, before[1], sizeof got) == 0);
    backend->buffer_free(r);
}

static void refuses_what_is_not_there(void)
{
    dn_buffer *r = make_registers(7);
    double scalar = 0.0;
    dn_op accept = {.kind = DN_OP_ACCEPT, .dst = 3, .src = {0, 1}}, mask = {.kind = DN_OP_BLEND, .src = {0, 1, REGISTERS}};
    dn_op difference = {.kind = DN_OP_ERROR_NORM, .src = {0, 1, 2}, .low = 1.0f};
    dn_op unknown = {.kind = (dn_op_kind)(DN_OP_EXP_SCALE + 1)};
    CHECK(execute(r, &accept, 1, &scalar) == DN_INTERNAL);
    CHECK(execute(r, &mask, 1, &scalar) == DN_INTERNAL);
    CHECK(execute(r, &difference, 1, NULL) == DN_INTERNAL);
    CHECK(execute(r, &unknown, 1, &scalar) == DN_INTERNAL);
    backend->buffer_free(r);
}

static void arc_cosine_is_accurate(void)
{
    for (int i = -100000; i <= 100000; i++) {
        double x = i / 100000.0;
        CHECK_MSG(fabs(dn_acos(x) - acos(x)) < 1e-14, "acos(%g)", x);
    }
}

int main(void)
{
    backend = dn_backend_cpu();
    if (backend->device_open(&device, NULL, &error) != DN_OK) {
        printf("FAIL device_open: %s\n", error.message);
        return 1;
    }
    RUN(select_takes_the_first_elements);
    RUN(blend_follows_the_mask);
    RUN(slerp_follows_the_circle);
    RUN(slerp_of_parallels_is_linear);
    RUN(match_std_matches);
    RUN(project_splits_off_the_parallel_part);
    RUN(langevin_steps_by_the_signal_to_noise_ratio);
    RUN(error_norm_accepts_or_not);
    RUN(nan_is_not_accepted);
    RUN(refuses_what_is_not_there);
    RUN(arc_cosine_is_accurate);
    backend->device_close(device);
    return test_end();
}
