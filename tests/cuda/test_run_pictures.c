/* Whole pictures by the CUDA back end, over the emulated GPU: every sampler and way of guidance beside the CPU's pictures, the same bytes
 * alone, in company and from a snapshot, and latents through the autoencoder. In float. */
#include "tests/engine/batch_cases.h"

#include "backend/cuda/device.h"

#define LEVELS_MAX 1 /* of 255, by which a picture may differ from the CPU's */

static dn_engine *cpu, *gpu;
static dn_lane_spec specs[CASES_MAX];
static uint32_t spec_count;
static picture in_company[CASES_MAX]; /* the GPU's */

/* Every way of guidance and conditioning, and every sampler from noise, that the GPU's engine serves: it has no classifier. */
static void find_specs(void)
{
    for (uint32_t i = 0; i < CASE_ROWS + case_samplers(); i++) {
        specs[spec_count] = case_spec(i);
        if (dn_lane_spec_check(gpu, &specs[spec_count], &error) == DN_OK)
            spec_count++;
    }
}

static int levels_apart(const uint8_t *a, const uint8_t *b, size_t count)
{
    int most = 0;
    for (size_t i = 0; i < count; i++) {
        int apart = abs((int)a[i] - (int)b[i]);
        most = apart > most ? apart : most;
    }
    return most;
}

static dn_status generate(dn_engine *engine, picture *out)
{
    float *floats = calloc(spec_count, sizeof out->floats);
    uint8_t *pixels = calloc(spec_count, sizeof out->pixels);
    dn_status status = dn_generate(engine, specs, spec_count, pixels, floats, NULL, NULL, &error);
    for (uint32_t i = 0; i < spec_count; i++) {
        memcpy(out[i].floats, floats + (size_t)i * ELEMENTS, sizeof out->floats);
        memcpy(out[i].pixels, pixels + (size_t)i * ELEMENTS, sizeof out->pixels);
    }
    free(floats);
    free(pixels);
    return status;
}

static void every_sampler_paints_as_on_the_cpu(void)
{
    static picture expected[CASES_MAX];
    CHECK_MSG(spec_count + 2 == CASE_ROWS + case_samplers(), "%u of %u cases are served", spec_count, CASE_ROWS + case_samplers());
    CHECK_OK(generate(cpu, expected), error);
    CHECK_OK(generate(gpu, in_company), error);
    for (uint32_t i = 0; i < spec_count; i++) {
        int apart = levels_apart(in_company[i].pixels, expected[i].pixels, ELEMENTS);
        CHECK_MSG(apart <= LEVELS_MAX, "case %u, %s: %d levels from the CPU's picture", i, specs[i].sampler, apart);
    }
}

static void pictures_are_the_same_alone_and_in_company(void)
{
    picture alone;
    for (uint32_t i = 0; i < spec_count; i += 9) {
        CHECK_OK(dn_generate(gpu, &specs[i], 1, alone.pixels, alone.floats, NULL, NULL, &error), error);
        CHECK_MSG(same_picture(&alone, &in_company[i]), "case %u, %s: other bytes alone", i, specs[i].sampler);
    }
}

/* Half of the picture, then the rest from its snapshot in another batch beside a stranger. */
static void pictures_go_on_from_a_snapshot(void)
{
    static dn_tick_report report;
    for (uint32_t i = 3; i < spec_count; i += 17) {
        dn_batch *first = NULL, *second = NULL;
        unsigned char *bytes = NULL;
        size_t count = 0;
        picture resumed;
        CHECK_OK(dn_batch_create(&first, gpu, 4, &error), error);
        CHECK_OK(dn_batch_create(&second, gpu, 4, &error), error);
        CHECK_OK(dn_batch_admit(first, 1, &specs[i], &error), error);
        for (uint32_t tick = 0; tick < specs[i].steps / 2; tick++)
            CHECK_OK(dn_batch_tick(first, &report, &error), error);
        CHECK_OK(dn_batch_snapshot(first, 1, &bytes, &count, &error), error);
        CHECK_OK(dn_batch_admit(second, 3, &specs[(i + 1) % spec_count], &error), error);
        CHECK_OK(dn_batch_restore(second, 7, bytes, count, &error), error);
        CHECK_MSG(finish(second, 7), "case %u does not finish", i);
        read_picture(&resumed, second, 7);
        CHECK_MSG(same_picture(&resumed, &in_company[i]), "case %u, %s: other bytes from a snapshot", i, specs[i].sampler);
        free(bytes);
        dn_batch_free(first);
        dn_batch_free(second);
    }
}

/* Pictures of a folder's first two classes; the caller frees the pixels. */
static dn_status paint(const char *folder, const dn_backend *backend, dn_precision precision, uint32_t steps, uint8_t **pixels,
                       size_t *bytes)
{
    dn_engine *engine = NULL;
    dn_engine_options options = {.threads = 1, .backend = backend, .precision = precision};
    dn_status status = dn_engine_open(&engine, folder, &options, &error);
    dn_lane_spec wanted[2] = {0};
    for (uint32_t i = 0; i < 2 && status == DN_OK; i++) {
        wanted[i] = (dn_lane_spec){.seed = 5 + i, .has_class = true, .class_index = i, .guidance_scale = 2.0, .steps = steps};
        snprintf(wanted[i].sampler, sizeof wanted[i].sampler, "ddim");
    }
    if (status == DN_OK) {
        *bytes = (size_t)2 * engine->image_width * engine->image_height * engine->image_channels;
        *pixels = calloc(1, *bytes);
        status = dn_generate(engine, wanted, 2, *pixels, NULL, NULL, NULL, &error);
    }
    dn_engine_close(engine);
    return status;
}

static void check_folder(const char *folder, uint32_t steps)
{
    uint8_t *expected = NULL, *got = NULL;
    size_t bytes = 0;
    CHECK_OK(paint(folder, dn_backend_cpu(), DN_PRECISION_FP32, steps, &expected, &bytes), error);
    CHECK_OK(paint(folder, dn_backend_cuda(), DN_PRECISION_FP32, steps, &got, &bytes), error);
    int apart = levels_apart(got, expected, bytes);
    free(expected);
    free(got);
    CHECK_MSG(apart <= LEVELS_MAX, "%s: %d levels from the CPU's pictures", folder, apart);
}

static void latents_are_decoded_as_on_the_cpu(void)
{
    check_folder("tests/golden/pipe_dit_euler8_cfg2.5", 3);
}

static void the_built_in_model_paints_as_on_the_cpu(void)
{
    check_folder("models/fashion-mnist", 2);
}

int main(void)
{
    cpu = open_engine(2);
    case_backend = dn_backend_cuda();
    gpu = open_engine(1);
    find_specs();
    RUN(every_sampler_paints_as_on_the_cpu);
    RUN(pictures_are_the_same_alone_and_in_company);
    RUN(pictures_go_on_from_a_snapshot);
    RUN(latents_are_decoded_as_on_the_cpu);
    RUN(the_built_in_model_paints_as_on_the_cpu);
    dn_engine_close(gpu);
    dn_engine_close(cpu);
    return test_end();
}
