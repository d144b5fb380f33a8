/* Whole latent pipelines against diffusers: a diffusion transformer, a scheduler's own tables, guidance, the stored start and step
 * noises, then the autoencoder: final latents, the decoded picture, and its bytes. */
#include "tests/engine/network_golden.h"

#include "batch/codec.h"
#include "engine.h"

#define IMAGES 2
#define LATENT (4 * 8 * 8)
#define PICTURE (3 * 64 * 64)
#define RELATIVE_TOLERANCE 1e-4 /* of the largest |x| on the way: a random network blows x up, and its rounding with it */
#define DECODED_TOLERANCE 2e-4 /* of the largest |x| of the picture */

static dn_error error;

typedef struct pipeline {
    dn_engine *engine;
    dn_safetensors *file;
    dn_lane_spec specs[IMAGES];
    float start[IMAGES * LATENT];
    float *noise; /* [image][draw] */
    size_t draws;
} pipeline;

/* [draws][images][elements] to [images][draws][elements]. */
static float *noise_by_image(const float *noise, size_t draws)
{
    float *out = malloc(IMAGES * draws * LATENT * sizeof *out);
    for (size_t d = 0; out != NULL && d < draws; d++)
        for (size_t i = 0; i < IMAGES; i++)
            memcpy(out + (i * draws + d) * LATENT, noise + (d * IMAGES + i) * LATENT, LATENT * sizeof *out);
    return out;
}

static void pipeline_close(pipeline *p)
{
    free(p->noise);
    dn_safetensors_close(p->file);
    dn_engine_close(p->engine);
}

static bool pipeline_open(pipeline *p, const char *folder, uint32_t steps)
{
    char path[256];
    int64_t labels[IMAGES] = {0};
    memset(p, 0, sizeof *p);
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    if (dn_engine_open(&p->engine, folder, NULL, &error) != DN_OK || dn_safetensors_open(&p->file, path, &error) != DN_OK ||
        dn_safetensors_read_i64(p->file, dn_safetensors_find(p->file, "class_labels"), labels, &error) != DN_OK)
        return false;
    float *start = golden_tensor(p->file, "init_latents", NULL), *scale = golden_tensor(p->file, "guidance_scale", NULL);
    float *noise = golden_tensor(p->file, "noise", NULL);
    if (start == NULL || scale == NULL || noise == NULL)
        return false;
    p->draws = (size_t)dn_safetensors_find(p->file, "noise")->dims[0];
    p->noise = noise_by_image(noise, p->draws);
    memcpy(p->start, start, sizeof p->start);
    for (size_t i = 0; i < IMAGES; i++)
        p->specs[i] = (dn_lane_spec){.has_class = true,
                                     .class_index = (uint32_t)labels[i],
                                     .guidance_scale = (double)scale[0],
                                     .steps = steps,
                                     .sampler = "model",
                                     .start = p->start + i * LATENT,
                                     .noise = p->noise + i * p->draws * LATENT};
    free(noise);
    free(scale);
    free(start);
    return p->noise != NULL;
}

static void check_latents(const pipeline *p, const float *latents)
{
    size_t count = 0;
    double most = 0.0, off = 0.0;
    float *way = golden_tensor(p->file, "latents", &count);
    const float *last = way + (count - IMAGES * LATENT);
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)way[i]));
    for (size_t i = 0; i < IMAGES * LATENT; i++)
        off = fmax(off, fabs((double)last[i] - (double)latents[i]));
    free(way);
    CHECK_MSG(off <= RELATIVE_TOLERANCE * most, "latents are off by %.3g of %.3g", off, most);
}

static void check_pixels(const pipeline *p, const uint8_t *pixels)
{
    size_t count = 0;
    double worst = 0.0;
    float *expected = golden_tensor(p->file, "image_u8", &count);
    CHECK(expected != NULL && count == IMAGES * PICTURE);
    for (size_t i = 0; i < count; i++)
        worst = fmax(worst, fabs((double)expected[i] - (double)pixels[i]));
    free(expected);
    CHECK_MSG(worst <= 1.0, "a pixel is off by %g levels", worst);
}

/* The codec on latents: the stored picture, and its bytes within a level. */
static void check_decoded(const pipeline *p, const float *latents)
{
    dn_codec *codec = NULL;
    const dn_codec_options options = {.backend = p->engine->backend, .device = p->engine->device, .channels = 4, .height = 8, .width = 8};
    float *picture = malloc(IMAGES * PICTURE * sizeof *picture), *expected = golden_tensor(p->file, "decoded", NULL);
    uint8_t *pixels = malloc(IMAGES * PICTURE);
    CHECK(p->engine->codec_path != NULL);
    CHECK_OK(dn_codec_open(&codec, p->engine->codec_path, &options, &error), error);
    for (size_t i = 0; i < IMAGES; i++) {
        CHECK_OK(dn_codec_decode_floats(codec, latents + i * LATENT, picture + i * PICTURE, &error), error);
        CHECK_OK(dn_codec_decode(codec, latents + i * LATENT, pixels + i * PICTURE, &error), error);
    }
    double off = relative_error(picture, expected, IMAGES * PICTURE);
    check_pixels(p, pixels);
    free(pixels);
    free(expected);
    free(picture);
    dn_codec_close(codec);
    if (!test_failed)
        CHECK_MSG(off <= DECODED_TOLERANCE, "the decoded picture is off by %.2e", off);
}

static void ddpm_10_steps_guided(void)
{
    pipeline p;
    float latents[IMAGES * LATENT];
    uint8_t *pixels = malloc(IMAGES * PICTURE);
    CHECK_MSG(pipeline_open(&p, "tests/golden/pipe_dit_ddpm10_cfg4", 10), "%s", error.message);
    CHECK(p.engine->image_width == 64 && p.engine->image_height == 64 && p.engine->image_channels == 3);
    CHECK_OK(dn_generate(p.engine, p.specs, IMAGES, pixels, latents, NULL, NULL, &error), error);
    check_latents(&p, latents);
    if (!test_failed)
        check_decoded(&p, latents);
    if (!test_failed)
        check_pixels(&p, pixels);
    free(pixels);
    pipeline_close(&p);
}

/* ---- Euler. DiTPipeline neither multiplies its start by the scheduler's scale nor steps from x: it hands scheduler.step the
 * scaled input of the network, so that with Euler (whose inputs are scaled) x' = c_in x + (sigma' - sigma) eps instead of
 * x + (sigma' - sigma) eps. The stored latents are of that; the lane's are of the right form, and both are followed here by hand. */

#define EULER_STEPS 8

typedef struct by_hand {
    dn_model *model;
    dn_forward *forward;
    float times[EULER_STEPS];
    double sigmas[EULER_STEPS + 1];
    uint32_t classes[2 * IMAGES];
    double guidance;
} by_hand;

/* Sigmas of the linear schedule (1e-4 to 0.02 over 1000), between its entries at fractional times; then 0. */
static bool by_hand_open(by_hand *h, const pipeline *p)
{
    double table[1001], product = 1.0;
    memset(h, 0, sizeof *h);
    for (int t = 0; t < 1000; t++) {
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * t / 999.0);
        table[t] = sqrt((1.0 - product) / product);
    }
    table[1000] = 0.0; /* reached with a share of 0 alone */
    if (dn_safetensors_read_f32(p->file, dn_safetensors_find(p->file, "timesteps"), h->times, &error) != DN_OK)
        return false;
    for (size_t i = 0; i < EULER_STEPS; i++) {
        const int low = (int)h->times[i];
        h->sigmas[i] = table[low] + ((double)h->times[i] - low) * (table[low + 1] - table[low]);
    }
    for (size_t i = 0; i < 2 * IMAGES; i++)
        h->classes[i] = i < IMAGES ? p->specs[i].class_index : 1000;
    h->guidance = p->specs[0].guidance_scale;
    const dn_forward_options options = {.threads = 2, .rows_max = 2 * IMAGES};
    return dn_model_open(&h->model, "tests/golden/dit_default", 0, 0, &error) == DN_OK &&
           dn_forward_open(&h->forward, h->model, &options, &error) == DN_OK;
}

static void by_hand_close(by_hand *h)
{
    dn_forward_close(h->forward);
    dn_model_free(h->model);
}

/* One step of x in place; eps: the guided answer. from_scaled: the pipeline's form. */
static bool euler_step(by_hand *h, size_t step, bool from_scaled, double *x, double *eps)
{
    const double scale = 1.0 / sqrt(h->sigmas[step] * h->sigmas[step] + 1.0);
    float in[2 * IMAGES * LATENT], out[2 * IMAGES * 2 * LATENT], times[2 * IMAGES];
    for (size_t i = 0; i < 2 * IMAGES * LATENT; i++)
        in[i] = (float)(scale * x[i % (IMAGES * LATENT)]);
    for (size_t i = 0; i < 2 * IMAGES; i++)
        times[i] = h->times[step];
    if (dn_forward_run(h->forward, &(dn_forward_rows){2 * IMAGES, in, times, h->classes}, out, NULL, NULL, &error) != DN_OK)
        return false;
    for (size_t i = 0; i < IMAGES * LATENT; i++) {
        const size_t at = i / LATENT * 2 * LATENT + i % LATENT; /* the answer's second half is the variance */
        const double cond = (double)out[at], null = (double)out[at + (size_t)IMAGES * 2 * LATENT];
        eps[i] = null + h->guidance * (cond - null);
        x[i] = (from_scaled ? scale : 1.0) * x[i] + (h->sigmas[step + 1] - h->sigmas[step]) * eps[i];
    }
    return true;
}

/* The pipeline's own form, step by step: guided answers, latents, and the picture at the end. */
static void euler_8_steps_as_the_pipeline(void)
{
    pipeline p;
    by_hand h;
    double x[IMAGES * LATENT], eps[IMAGES * LATENT];
    CHECK_MSG(pipeline_open(&p, "tests/golden/pipe_dit_euler8_cfg2.5", EULER_STEPS) && by_hand_open(&h, &p), "%s", error.message);
    float *way = golden_tensor(p.file, "latents", NULL), *answers = golden_tensor(p.file, "guided_eps", NULL);
    float last[IMAGES * LATENT];
    for (size_t i = 0; i < IMAGES * LATENT; i++)
        x[i] = (double)p.start[i];
    for (size_t step = 0; step < EULER_STEPS; step++) {
        double most = 0.0, off = 0.0, answer_off = 0.0;
        CHECK_MSG(euler_step(&h, step, true, x, eps), "%s", error.message);
        for (size_t i = 0; i < IMAGES * LATENT; i++) {
            const size_t at = step * IMAGES * LATENT + i;
            most = fmax(most, fabs((double)way[at]));
            off = fmax(off, fabs(x[i] - (double)way[at]));
            answer_off = fmax(answer_off, fabs(eps[i] - (double)answers[at]));
            last[i] = (float)x[i];
        }
        CHECK_MSG(off <= RELATIVE_TOLERANCE * most && answer_off <= RELATIVE_TOLERANCE, "step %zu: x off by %.2e of %.3g, eps by %.2e",
                  step, off, most, answer_off);
    }
    check_decoded(&p, last);
    free(answers);
    free(way);
    by_hand_close(&h);
    pipeline_close(&p);
}

/* The lane's form from the same start, multiplied by the start scale. */
static void euler_8_steps_as_a_lane(void)
{
    pipeline p;
    by_hand h;
    double x[IMAGES * LATENT], eps[IMAGES * LATENT], most = 0.0, off = 0.0;
    float latents[IMAGES * LATENT];
    CHECK_MSG(pipeline_open(&p, "tests/golden/pipe_dit_euler8_cfg2.5", EULER_STEPS) && by_hand_open(&h, &p), "%s", error.message);
    CHECK_OK(dn_generate(p.engine, p.specs, IMAGES, NULL, latents, NULL, NULL, &error), error);
    for (size_t i = 0; i < IMAGES * LATENT; i++) {
        x[i] = h.sigmas[0] * (double)p.start[i];
        most = fmax(most, fabs(x[i]));
    }
    for (size_t step = 0; step < EULER_STEPS; step++)
        CHECK_MSG(euler_step(&h, step, false, x, eps), "%s", error.message);
    for (size_t i = 0; i < IMAGES * LATENT; i++)
        off = fmax(off, fabs(x[i] - (double)latents[i]));
    by_hand_close(&h);
    pipeline_close(&p);
    CHECK_MSG(off <= 1e-6 * most, "off by %.2e of %.3g", off, most);
}

int main(void)
{
    RUN(ddpm_10_steps_guided);
    RUN(euler_8_steps_as_the_pipeline);
    RUN(euler_8_steps_as_a_lane);
    return test_end();
}
