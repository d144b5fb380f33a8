/* Whole pictures from bare folders of EDM's and guided-diffusion's formats, against their authors' own sampling loops in float64:
 * start and step noises given, no scheduler, no index file. */
#include "tests/test.h"

#include "engine.h"
#include "tests/engine/made_weights.h"

#define TOLERANCE 2e-5 /* of the largest |x| of the result: the lane keeps x in float */

static char folder[64];
static dn_error error;

static float *load(const dn_safetensors *file, const char *name)
{
    const dn_tensor_info *info = dn_safetensors_find(file, name);
    float *values = info != NULL ? malloc(info->count * sizeof *values) : NULL;
    if (values != NULL && dn_safetensors_read_f32(file, info, values, &error) != DN_OK)
        abort();
    return values;
}

static dn_status set_schedule(const char *name)
{
    char path[96];
    cJSON *config = NULL;
    snprintf(path, sizeof path, "%s/config.json", folder);
    dn_status status = dn_json_read_file(&config, path, 1 << 20, &error);
    if (status != DN_OK)
        return status;
    cJSON_AddStringToObject(config, "noise_schedule", name);
    char *text = cJSON_PrintUnformatted(config);
    status = dn_file_write(path, text, strlen(text), false, &error);
    cJSON_free(text);
    cJSON_Delete(config);
    return status;
}

/* The largest difference of the lane's end from the golden's, relative to its largest value; -1 on failure. */
static double run_lane(const char *golden, const char *schedule, const char *end, dn_lane_spec spec)
{
    char path[160];
    dn_engine *engine = NULL;
    dn_safetensors *file = NULL;
    double most = 0.0, off = -1.0;
    snprintf(path, sizeof path, "%s/case.safetensors", golden);
    if (made_folder(folder, golden, &error) != DN_OK || (schedule != NULL && set_schedule(schedule) != DN_OK) ||
        dn_safetensors_open(&file, path, &error) != DN_OK)
        return -1.0;
    dn_status status = dn_engine_open(&engine, folder, NULL, &error);
    size_t elements = status == DN_OK ? dn_engine_elements(engine) : 1;
    float *start = load(file, "pipe_start"), *noise = load(file, "pipe_noise"), *expected = load(file, end);
    float *x = malloc(elements * sizeof *x);
    uint8_t *pixels = malloc(elements);
    spec.start = start;
    spec.noise = noise;
    if (status == DN_OK && x != NULL && pixels != NULL && expected != NULL)
        status = dn_generate(engine, &spec, 1, pixels, x, NULL, NULL, &error);
    for (size_t i = 0; i < elements && status == DN_OK && expected != NULL && x != NULL; i++) {
        most = fmax(most, fabs((double)expected[i]));
        off = fmax(off, fabs((double)expected[i] - (double)x[i]));
    }
    free(pixels);
    free(x);
    free(expected);
    free(noise);
    free(start);
    dn_safetensors_close(file);
    dn_engine_close(engine);
    made_folder_remove(folder);
    return status == DN_OK ? off / most : -1.0;
}

static void check_lane(const char *golden, const char *schedule, const char *end, const dn_lane_spec *spec)
{
    double off = run_lane(golden, schedule, end, *spec);
    CHECK_MSG(off >= 0.0 && off <= TOLERANCE, "%s: off by %.2e %s", golden, off, error.message);
}

static void edm_heun_with_classes(void)
{
    dn_lane_spec spec = {.has_class = true, .class_index = 2, .guidance_scale = 1.0, .steps = 18, .sampler = "edm_heun"};
    check_lane("tests/golden/edm_ddpmpp", NULL, "pipe_end", &spec);
    if (!test_failed)
        check_lane("tests/golden/edm_adm", NULL, "pipe_end", &spec);
}

static void edm_heun_unconditional(void)
{
    dn_lane_spec spec = {.guidance_scale = 1.0, .steps = 18, .sampler = "edm_heun"};
    check_lane("tests/golden/edm_ncsnpp", NULL, "pipe_end", &spec);
}

static void guided_diffusion_ten_respaced_steps(void)
{
    dn_lane_spec spec = {.has_class = true, .class_index = 3, .guidance_scale = 1.0, .steps = 10, .sampler = "model"};
    check_lane("tests/golden/guided_diffusion_legacy", "linear", "pipe_end_linear", &spec);
    if (!test_failed)
        check_lane("tests/golden/guided_diffusion_legacy", "cosine", "pipe_end_cosine", &spec);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-pipelines-%ld", (long)getpid());
    RUN(edm_heun_with_classes);
    RUN(edm_heun_unconditional);
    RUN(guided_diffusion_ten_respaced_steps);
    return test_end();
}
