/* Whole pipelines against diffusers: a class-conditional U-Net, a scheduler's own tables, guidance, the stored start and
 * step noises; through the running batch, both images at once. */
#include "tests/test.h"

#include "engine.h"
#include "format/safetensors.h"

#define IMAGES 2
#define RELATIVE_TOLERANCE 1e-4 /* of the largest |x| on the way: a random network blows x up, and its rounding with it */

static dn_error error;

static float *load(const dn_safetensors *file, const char *name, const dn_tensor_info **info)
{
    *info = dn_safetensors_find(file, name);
    if (*info == NULL)
        return NULL;
    float *values = malloc((*info)->count * sizeof *values);
    if (values == NULL || dn_safetensors_read_f32(file, *info, values, &error) != DN_OK)
        abort();
    return values;
}

/* [draws][images][elements] to [images][draws][elements]. */
static float *noise_by_image(const float *noise, size_t draws, size_t elements)
{
    float *out = malloc(IMAGES * draws * elements * sizeof *out);
    if (out == NULL)
        abort();
    for (size_t d = 0; d < draws; d++)
        for (size_t i = 0; i < IMAGES; i++)
            memcpy(out + (i * draws + d) * elements, noise + (d * IMAGES + i) * elements, elements * sizeof *out);
    return out;
}

static void fill_specs(dn_lane_spec *specs, const dn_safetensors *file, const float *start, const float *noise, size_t draws,
                       uint32_t steps)
{
    int64_t labels[IMAGES] = {0};
    float scale = 1.0f;
    const dn_tensor_info *info = dn_safetensors_find(file, "class_labels");
    size_t elements = 3 * 8 * 8;
    if (dn_safetensors_read_i64(file, info, labels, &error) != DN_OK)
        abort();
    info = dn_safetensors_find(file, "guidance_scale");
    if (dn_safetensors_read_f32(file, info, &scale, &error) != DN_OK)
        abort();
    for (size_t i = 0; i < IMAGES; i++)
        specs[i] = (dn_lane_spec){.has_class = true,
                                  .class_index = (uint32_t)labels[i],
                                  .guidance_scale = (double)scale,
                                  .steps = steps,
                                  .sampler = "model",
                                  .start = start + i * elements,
                                  .noise = noise != NULL ? noise + i * draws * elements : NULL};
}

static void compare(const dn_safetensors *file, const float *x, const uint8_t *pixels, size_t elements)
{
    const dn_tensor_info *info = NULL, *bytes_info = dn_safetensors_find(file, "image_u8");
    float *expected = load(file, "x", &info);
    const float *last = expected + (info->count - IMAGES * elements);
    double most = 0.0, off = 0.0;
    for (size_t i = 0; i < info->count; i++)
        most = fmax(most, fabs((double)expected[i]));
    for (size_t i = 0; i < IMAGES * elements; i++)
        off = fmax(off, fabs((double)last[i] - (double)x[i]));
    int64_t *levels = malloc(bytes_info->count * sizeof *levels);
    CHECK_OK(dn_safetensors_read_i64(file, bytes_info, levels, &error), error);
    int64_t worst = 0;
    for (size_t i = 0; i < IMAGES; i++)
        for (size_t c = 0; c < 3; c++)
            for (size_t p = 0; p < 64; p++) {
                int64_t d = levels[(i * 3 + c) * 64 + p] - pixels[(i * 64 + p) * 3 + c];
                worst = d * d > worst ? d * d : worst;
            }
    free(levels);
    free(expected);
    CHECK_MSG(off <= RELATIVE_TOLERANCE * most, "x is off by %.3g of %.3g", off, most);
    CHECK_MSG(worst <= 1, "a pixel is off by more than one level (%lld squared)", (long long)worst);
}

static void run_pipeline(const char *folder, uint32_t steps)
{
    char path[256];
    dn_engine *engine = NULL;
    dn_safetensors *file = NULL;
    dn_lane_spec specs[IMAGES];
    const dn_tensor_info *start_info = NULL, *noise_info = NULL;
    CHECK_OK(dn_engine_open(&engine, folder, NULL, &error), error);
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    CHECK_OK(dn_safetensors_open(&file, path, &error), error);
    size_t elements = dn_engine_elements(engine);
    float *start = load(file, "init_noise", &start_info), *given = load(file, "noise", &noise_info);
    size_t draws = noise_info != NULL ? noise_info->dims[0] : 0;
    float *noise = given != NULL ? noise_by_image(given, draws, elements) : NULL;
    fill_specs(specs, file, start, noise, draws, steps);
    float *x = malloc(IMAGES * elements * sizeof *x);
    uint8_t *pixels = malloc(IMAGES * elements);
    CHECK_OK(dn_generate(engine, specs, IMAGES, pixels, x, NULL, NULL, &error), error);
    compare(file, x, pixels, elements);
    free(x);
    free(pixels);
    free(noise);
    free(given);
    free(start);
    dn_safetensors_close(file);
    dn_engine_close(engine);
}

static void ddpm_20_steps(void)
{
    run_pipeline("tests/golden/pipe_unet_ddpm20", 20);
}

static void ddim_10_steps_guided(void)
{
    run_pipeline("tests/golden/pipe_unet_ddim10_cfg3", 10);
}

static void euler_ancestral_10_steps_guided(void)
{
    run_pipeline("tests/golden/pipe_unet_eulera10_cfg2", 10);
}

int main(void)
{
    RUN(ddpm_20_steps);
    RUN(ddim_10_steps_guided);
    RUN(euler_ancestral_10_steps_guided);
    return test_end();
}
