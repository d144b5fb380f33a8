/* Pictures from original checkpoints: the engine's lanes against the loops of the authors' samplers, followed by hand with the same
 * network. What is proved is what a format means: direction and scale of time, sign of the answer, which channels are guided, which
 * half of the answer counts, and that no scheduler and no index file are needed.
 *
 * Each case is a bare folder: weights, config.json, and an autoencoder beside them. */
#include "tests/engine/network_golden.h"

#include <limits.h>
#include <unistd.h>

#include "engine.h"
#include "tests/engine/made_weights.h"

#define LATENT (4 * 8 * 8)
#define STEPS 6
#define GUIDANCE 2.5
#define CLASS 3u
#define NULL_CLASS 5u
#define TOLERANCE 2e-5 /* of the largest |x|: the lane keeps x in float, the loop in double */

static char folder[96];
static dn_error error;

/* The golden's tensors under this configuration, and vae/. */
static bool write_folder(const char *config)
{
    char path[160], vae[PATH_MAX];
    if (made_folder(folder, "tests/golden/sit_original", &error) != DN_OK || realpath("tests/golden/vae_4lvl", vae) == NULL)
        return false;
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (dn_file_write(path, config, strlen(config), false, &error) != DN_OK)
        return false;
    snprintf(path, sizeof path, "%s/vae", folder);
    unlink(path);
    return symlink(vae, path) == 0;
}

static void remove_folder(void)
{
    char path[160];
    snprintf(path, sizeof path, "%s/vae", folder);
    unlink(path);
    made_folder_remove(folder);
}

/* The network at (x, time), guided on the first `channels` of four; the others are the conditional answer's. */
static bool guided(dn_forward *forward, const double *x, double time, uint32_t channels, double *answer)
{
    float in[2 * LATENT], out[2 * 2 * LATENT], times[2] = {(float)time, (float)time};
    const uint32_t classes[2] = {CLASS, NULL_CLASS};
    for (size_t i = 0; i < 2 * LATENT; i++)
        in[i] = (float)x[i % LATENT];
    if (dn_forward_run(forward, &(dn_forward_rows){2, in, times, classes}, out, NULL, NULL, &error) != DN_OK)
        return false;
    for (size_t i = 0; i < LATENT; i++) {
        const double cond = (double)out[i], null = (double)out[2 * LATENT + i];
        answer[i] = i / 64 < channels ? null + GUIDANCE * (cond - null) : cond;
    }
    return true;
}

/* willisma/SiT: t from 0 (noise) to 1, x' = x + v dt; forward_with_cfg guides three channels. */
static bool sit_loop(dn_forward *forward, double *x)
{
    double v[LATENT];
    for (int step = 0; step < STEPS; step++) {
        if (!guided(forward, x, (double)step / STEPS, 3, v))
            return false;
        for (size_t i = 0; i < LATENT; i++)
            x[i] += v[i] / STEPS;
    }
    return true;
}

/* sihyun-yu/REPA: t from 1 (noise) to 0, x' = x + (t' - t) v; all channels are guided. */
static bool repa_loop(dn_forward *forward, double *x)
{
    double v[LATENT];
    for (int step = 0; step < STEPS; step++) {
        if (!guided(forward, x, 1.0 - (double)step / STEPS, 4, v))
            return false;
        for (size_t i = 0; i < LATENT; i++)
            x[i] -= v[i] / STEPS;
    }
    return true;
}

static double alpha_bar(int t)
{
    double product = 1.0;
    for (int i = 0; i <= t; i++)
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * i / 999.0);
    return product;
}

/* facebookresearch/DiT's network in DDIM (Song et al. 2021, eq. 12, eta 0), over diffusers' leading times. */
static bool dit_ddim_loop(dn_forward *forward, double *x)
{
    double e[LATENT];
    const int stride = 1000 / STEPS;
    for (int step = 0; step < STEPS; step++) {
        const int time = (STEPS - 1 - step) * stride;
        const double a = alpha_bar(time), next = time >= stride ? alpha_bar(time - stride) : 1.0;
        if (!guided(forward, x, time, 3, e))
            return false;
        for (size_t i = 0; i < LATENT; i++)
            x[i] = sqrt(next) * (x[i] - sqrt(1.0 - a) * e[i]) / sqrt(a) + sqrt(1.0 - next) * e[i];
    }
    return true;
}

typedef bool sampler_loop(dn_forward *forward, double *x);

static void check_pictures(const char *config, const char *sampler, sampler_loop *loop)
{
    dn_engine *engine = NULL;
    dn_model *model = NULL;
    dn_forward *forward = NULL;
    float start[LATENT], latents[LATENT];
    double x[LATENT], most = 0.0, off = 0.0;
    uint8_t *pixels = malloc(3 * 64 * 64);
    CHECK_MSG(write_folder(config), "%s", error.message);
    CHECK_OK(dn_engine_open(&engine, folder, NULL, &error), error);
    CHECK(engine->class_count == 5 && engine->null_class == NULL_CLASS && engine->image_width == 64);
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    const dn_forward_options options = {.threads = 2, .rows_max = 2};
    CHECK_OK(dn_forward_open(&forward, model, &options, &error), error);
    dn_noise_normal(start, LATENT, 0, 77, DN_STREAM_START, 0);
    dn_lane_spec spec = {.has_class = true, .class_index = CLASS, .guidance_scale = GUIDANCE, .steps = STEPS, .start = start};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", sampler);
    CHECK_OK(dn_generate(engine, &spec, 1, pixels, latents, NULL, NULL, &error), error);
    for (size_t i = 0; i < LATENT; i++)
        x[i] = (double)start[i];
    CHECK_MSG(loop(forward, x), "%s", error.message);
    for (size_t i = 0; i < LATENT; i++) {
        most = fmax(most, fabs(x[i]));
        off = fmax(off, fabs(x[i] - (double)latents[i]));
    }
    free(pixels);
    dn_forward_close(forward);
    dn_model_free(model);
    dn_engine_close(engine);
    remove_folder();
    CHECK_MSG(most > 0.5 && off <= TOLERANCE * most, "%s: latents are off by %.2e of %.3g", config, off, most);
}

static void sit_flows_from_noise_at_zero(void)
{
    check_pictures("{\"_class_name\":\"SiT\",\"num_heads\":4,\"input_size\":8}", "flow_euler", sit_loop);
    if (!test_failed)
        check_pictures("{\"_class_name\":\"SiT\",\"num_heads\":4,\"input_size\":8}", "model", sit_loop);
}

static void repa_flows_from_noise_at_one(void)
{
    check_pictures("{\"_class_name\":\"REPA\",\"num_heads\":4,\"input_size\":8,\"learn_sigma\":true}", "flow_euler", repa_loop);
}

static void dit_guides_three_channels(void)
{
    check_pictures("{\"_class_name\":\"DiT\",\"num_heads\":4,\"input_size\":8}", "ddim", dit_ddim_loop);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-original-%ld", (long)getpid());
    RUN(sit_flows_from_noise_at_zero);
    RUN(repa_flows_from_noise_at_one);
    RUN(dit_guides_three_channels);
    return test_end();
}
