/* Log-densities by the probability flow: against Gaussians whose density is known, and through a network and its gradient. */
#include "tests/test.h"

#include "base/philox.h"
#include "diffusion/family.h"
#include "evaluate/network_field.h"

#define PAIRS 3
#define ELEMENTS (2 * PAIRS)
#define MEAN 0.2
#define SPREAD 0.3
#define CORRELATION 0.8

static dn_error error;

/* Of data whose elements come in correlated pairs, exactly: in the pair's sum and difference everything is one-dimensional. */
static void axis(double time, double x, double mean, double variance, double *velocity, double *slope)
{
    double kept = 1.0 - time, all = kept * kept * variance + time * time, centred = (x - kept * mean) / all;
    *velocity = time * centred - mean - kept * variance * centred;
    *slope = (time - kept * variance) / all;
}

static dn_status exact_field(void *self, double time, const float *x, const float *probes, uint32_t count, float *velocity, float *products,
                             dn_error *unused)
{
    (void)self;
    (void)unused;
    const double root = sqrt(0.5), low = SPREAD * SPREAD * (1.0 - CORRELATION), high = SPREAD * SPREAD * (1.0 + CORRELATION);
    for (int p = 0; p < PAIRS; p++) {
        double a = (double)x[2 * p], b = (double)x[2 * p + 1], v[2], s[2];
        axis(time, root * (a + b), 2.0 * root * MEAN, high, &v[0], &s[0]);
        axis(time, root * (a - b), 0.0, low, &v[1], &s[1]);
        velocity[2 * p] = (float)(root * (v[0] + v[1]));
        velocity[2 * p + 1] = (float)(root * (v[0] - v[1]));
        for (uint32_t k = 0; k < count; k++) {
            const float *e = probes + k * ELEMENTS + 2 * p;
            double sum = root * (double)(e[0] + e[1]) * s[0], difference = root * (double)(e[0] - e[1]) * s[1];
            products[k * ELEMENTS + 2 * p] = (float)(root * (sum + difference));
            products[k * ELEMENTS + 2 * p + 1] = (float)(root * (sum - difference));
        }
    }
    return DN_OK;
}

static const dn_flow_field exact = {.elements = ELEMENTS, .begin = 1.0, .end = 0.0, .deviation = 1.0, .run = exact_field};
static const float picture[ELEMENTS] = {0.1f, 0.35f, -0.2f, -0.5f, 0.9f, 0.4f};

static double exact_log_density(void)
{
    double sum = 0.0, low = SPREAD * SPREAD * (1.0 - CORRELATION), high = SPREAD * SPREAD * (1.0 + CORRELATION);
    for (int p = 0; p < PAIRS; p++) {
        double a = (double)picture[2 * p] - MEAN, b = (double)picture[2 * p + 1] - MEAN;
        sum -= 0.25 * (a + b) * (a + b) / high + 0.25 * (a - b) * (a - b) / low + 0.5 * log(low * high) + log(2.0 * 3.14159265358979);
    }
    return sum;
}

static void exact_trace_is_exact(void)
{
    for (double tolerance = 1e-3; tolerance > 0.5e-6; tolerance /= 10.0) {
        const dn_likelihood_options options = {.probes = 0, .rtol = tolerance, .atol = tolerance};
        dn_likelihood found;
        CHECK_OK(dn_log_density(&found, &exact, picture, &options, &error), error);
        double off = fabs(found.log_density - exact_log_density()) / ELEMENTS;
        printf("     rtol = atol = %.0e: log p = %.6f, off by %.2e nats an element, %u evaluations\n", tolerance, found.log_density, off,
               found.evaluations);
        CHECK_MSG(off < 30.0 * tolerance && found.probe_deviation == 0.0, "off by %.3g at %.0e", off, tolerance);
    }
}

/* Rademacher's probes: right on the average, with a spread that is what it says. */
static void probes_are_right_on_the_average(void)
{
    const dn_likelihood_options options = {.probes = 64, .rtol = 1e-5, .atol = 1e-5, .seed = 5};
    const dn_likelihood_options other = {.probes = 64, .rtol = 1e-5, .atol = 1e-5, .seed = 6};
    dn_likelihood found, again, different;
    CHECK_OK(dn_log_density(&found, &exact, picture, &options, &error), error);
    CHECK_OK(dn_log_density(&again, &exact, picture, &options, &error), error);
    CHECK_OK(dn_log_density(&different, &exact, picture, &other, &error), error);
    double of_mean = found.probe_deviation / 8.0;
    CHECK_MSG(of_mean > 0.01 && fabs(found.log_density - exact_log_density()) < 4.0 * of_mean, "%.4f +- %.4f, not %.4f", found.log_density,
              of_mean, exact_log_density());
    CHECK(again.log_density == found.log_density && different.log_density != found.log_density);
}

static void limits_are_kept(void)
{
    dn_likelihood found;
    const dn_likelihood_options many = {.probes = DN_PROBES_MAX + 1, .rtol = 1e-3, .atol = 1e-3};
    CHECK(dn_log_density(&found, &exact, picture, &many, &error) == DN_INVALID);
    dn_flow_field wide = exact;
    wide.elements = DN_EXACT_TRACE_ELEMENTS_MAX + 1;
    const dn_likelihood_options all = {.probes = 0, .rtol = 1e-3, .atol = 1e-3};
    CHECK(dn_log_density(&found, &wide, picture, &all, &error) == DN_INVALID);
}

/* A network of one convolution of one tap: three channels mixed, the same at each pixel, whatever the time. */
static const double mix[3][3] = {{0.5, -0.3, 0.2}, {0.7, -0.4, 0.1}, {-0.2, 0.6, 0.3}}, shift[3] = {0.1, -0.2, 0.05};

typedef struct linear_model {
    dn_model model;
    dn_device *device;
    dn_training_schedule *training;
    dn_network_field *field;
} linear_model;

static dn_status open_linear(linear_model *l, dn_convention convention)
{
    dn_plan_builder builder;
    const dn_device_options device = {.threads = 1};
    *l = (linear_model){.model = {.channels = 3, .out_channels = 3, .height = 2, .width = 2}};
    dn_status status = dn_plan_begin(&builder, (dn_shape){.h = 2, .w = 2, .c = 3}, &error);
    if (status != DN_OK)
        return status;
    dn_conv_options conv = DN_CONV_INIT;
    conv.module = "mix";
    conv.out_channels = 3;
    conv.kernel = 1;
    conv.pad_top = conv.pad_left = conv.pad_bottom = conv.pad_right = 0;
    status = dn_plan_end(&l->model.plan, &builder, dn_plan_conv(&builder, builder.plan->input, &conv), &error);
    if (status == DN_OK)
        status = dn_weights_create(&l->model.weights, l->model.plan, &error);
    if (status == DN_OK)
        status = dn_training_schedule_for_convention(&l->training, convention, 0.0, false, &error);
    if (status == DN_OK)
        status = dn_backend_cpu()->device_open(&l->device, &device, &error);
    if (status != DN_OK)
        return status;
    for (int i = 0; i < 9; i++)
        l->model.weights->data[0][i] = (float)mix[i / 3][i % 3];
    for (int i = 0; i < 3; i++)
        l->model.weights->data[1][i] = (float)shift[i];
    const dn_network_field_options options = {
        .backend = dn_backend_cpu(), .device = l->device, .model = &l->model, .training = l->training, .threads = 2, .products_max = 12};
    return dn_network_field_create(&l->field, &options, &error);
}

static void close_linear(linear_model *l)
{
    dn_network_field_free(l->field);
    if (l->device != NULL)
        dn_backend_cpu()->device_close(l->device);
    dn_training_schedule_free(l->training);
    dn_weights_free(l->model.weights);
    dn_plan_free(l->model.plan);
}

/* dx/dt = mix x + shift from t = 0 to 1, by a thousand steps of the classical Runge-Kutta method. */
static void flow_of_linear(double x[3])
{
    for (int step = 0; step < 1000; step++) {
        double k[4][3], at[3];
        for (int s = 0; s < 4; s++) {
            double part = s == 0 ? 0.0 : s == 3 ? 1e-3 : 0.5e-3;
            for (int i = 0; i < 3; i++)
                at[i] = x[i] + (s > 0 ? part * k[s - 1][i] : 0.0);
            for (int i = 0; i < 3; i++)
                k[s][i] = mix[i][0] * at[0] + mix[i][1] * at[1] + mix[i][2] * at[2] + shift[i];
        }
        for (int i = 0; i < 3; i++)
            x[i] += 1e-3 / 6.0 * (k[0][i] + 2.0 * k[1][i] + 2.0 * k[2][i] + k[3][i]);
    }
}

/* With REPA's convention the answer is the velocity itself: log p = log N(x at 1) + 4 trace(mix). */
static void network_of_one_mix(void)
{
    linear_model l;
    float x[12];
    double expected = 4.0 * (mix[0][0] + mix[1][1] + mix[2][2]) - 6.0 * log(2.0 * 3.14159265358979);
    dn_status status = open_linear(&l, DN_CONVENTION_REPA);
    for (int pixel = 0; pixel < 4; pixel++) {
        double at[3];
        for (int c = 0; c < 3; c++)
            at[c] = (double)(x[c * 4 + pixel] = 0.3f * (float)c - 0.2f * (float)pixel);
        flow_of_linear(at);
        expected -= 0.5 * (at[0] * at[0] + at[1] * at[1] + at[2] * at[2]);
    }
    dn_likelihood found = {0}, probed = {0};
    const dn_likelihood_options all = {.probes = 0, .rtol = 1e-5, .atol = 1e-5},
                                some = {.probes = 12, .rtol = 1e-5, .atol = 1e-5, .seed = 3};
    if (status == DN_OK) {
        dn_flow_field field = dn_network_field_of(l.field, NULL);
        status = dn_log_density(&found, &field, x, &all, &error);
        if (status == DN_OK)
            status = dn_log_density(&probed, &field, x, &some, &error);
    }
    close_linear(&l);
    CHECK_MSG(status == DN_OK, "%s", error.message);
    CHECK_MSG(fabs(found.log_density - expected) < 1e-3, "%.6f, not %.6f", found.log_density, expected);
    CHECK_MSG(probed.probe_deviation > 0.0 && fabs(probed.log_density - expected) < 4.0 * probed.probe_deviation / sqrt(12.0),
              "%.4f +- %.4f, not %.4f", probed.log_density, probed.probe_deviation, expected);
}

/* Products with probes against central differences of the velocity, in each family's parametrisation. */
static void products_are_differences(void)
{
    static const dn_convention conventions[] = {DN_CONVENTION_SIT, DN_CONVENTION_REPA, DN_CONVENTION_EDM, DN_CONVENTION_GUIDED_DIFFUSION};
    for (int k = 0; k < 4 && !test_failed; k++) {
        linear_model l;
        float x[12], probe[12], way[12], moved[2][12], velocity[2][12], product[12], unused[12];
        const float step = 1.0f / 64;
        dn_status status = open_linear(&l, conventions[k]);
        dn_noise_normal(x, 12, 0, 1, DN_STREAM_PROBE, 9);
        dn_noise_normal(probe, 12, 0, 2, DN_STREAM_PROBE, 9);
        dn_noise_normal(way, 12, 0, 3, DN_STREAM_PROBE, 9);
        dn_flow_field field = {0};
        if (status == DN_OK)
            field = dn_network_field_of(l.field, NULL);
        for (int side = 0; side < 2 && status == DN_OK; side++) {
            for (int i = 0; i < 12; i++)
                moved[side][i] = x[i] + (side ? step : -step) * way[i];
            status = field.run(field.self, 0.4, moved[side], probe, 1, velocity[side], unused, &error);
        }
        if (status == DN_OK)
            status = field.run(field.self, 0.4, x, probe, 1, unused, product, &error);
        close_linear(&l);
        CHECK_MSG(status == DN_OK, "%s", error.message);
        double by_product = 0.0, by_difference = 0.0;
        for (int i = 0; i < 12; i++) {
            by_product += (double)product[i] * (double)way[i];
            by_difference += (double)probe[i] * (double)(velocity[1][i] - velocity[0][i]) / (2.0 * (double)step);
        }
        CHECK_MSG(fabs(by_product - by_difference) < 1e-4 * (1.0 + fabs(by_product)), "convention %d: %.6f and %.6f", k, by_product,
                  by_difference);
    }
}

/* Density that is even over the 256 values of a pixel costs 8 bits. */
static void eight_bits(void)
{
    CHECK(fabs(dn_bits_per_dimension(-12.0 * log(256.0 / 127.5), 12) - 8.0) < 1e-12);
    static const uint8_t pixels[6] = {0, 255, 128, 7, 200, 31};
    float x[6], again[6];
    dn_dequantise(x, pixels, 1, 3, 2, 4);
    dn_dequantise(again, pixels, 1, 3, 2, 4);
    CHECK(memcmp(x, again, sizeof x) == 0);
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 3; i++) {
            double back = ((double)x[c * 3 + i] + 1.0) * 127.5 - pixels[i * 2 + c];
            CHECK_MSG(back >= -0.50001 && back < 0.50001 && back != 0.0, "%g", back);
        }
}

int main(void)
{
    RUN(exact_trace_is_exact);
    RUN(probes_are_right_on_the_average);
    RUN(limits_are_kept);
    RUN(network_of_one_mix);
    RUN(products_are_differences);
    RUN(eight_bits);
    return test_end();
}
