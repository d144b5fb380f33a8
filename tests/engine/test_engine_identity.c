/* The build identity of an engine: the same for the same folder, another for whatever changes its pictures though the denoiser's
 * weights stay: the autoencoder, the guide, and the configurations. */
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine.h"

#define GOLDEN "tests/golden/pipe_dit_ddpm10_cfg4"
#define PIXELS (64 * 64 * 3)
#define COPY_BYTES_MAX (64u << 20)

static dn_error error;
static const char *const files[] = {"model_index.json",        "scheduler/scheduler_config.json",
                                    "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors",
                                    "vae/config.json",         "vae/diffusion_pytorch_model.safetensors"};
static const char *const folders[] = {"scheduler", "transformer", "vae"};

/* `find` becomes `put` where it stands first; with no `find` a bit of the file's last byte but `back` changes. */
typedef struct change {
    const char *file, *find, *put;
    size_t back;
} change;

static bool copy_file(const char *to, const char *file, const change *wanted)
{
    char path[300];
    unsigned char *bytes = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", GOLDEN, file);
    bool fine = dn_file_read(&bytes, &count, path, COPY_BYTES_MAX, &error) == DN_OK;
    if (fine && wanted != NULL && strcmp(wanted->file, file) == 0) {
        char *found = wanted->find != NULL ? strstr((char *)bytes, wanted->find) : NULL;
        if (wanted->find == NULL)
            bytes[count - 1 - wanted->back] ^= 0x10;
        else if (found != NULL)
            memcpy(found, wanted->put, strlen(wanted->put));
        fine = wanted->find == NULL || found != NULL;
    }
    snprintf(path, sizeof path, "%s/%s", to, file);
    fine = fine && dn_file_write(path, bytes, count, false, &error) == DN_OK;
    free(bytes);
    return fine;
}

static void remove_copy(const char *folder)
{
    char path[300];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, folders[i]);
        (void)rmdir(path);
    }
    (void)rmdir(folder);
}

/* The golden pipeline with one change: its build, the hash of its denoiser and a picture of it. */
static dn_status open_changed(char build[65], char weights[65], uint8_t *pixels, const change *wanted, bool described)
{
    char folder[] = "/tmp/denoised-identity-XXXXXX", path[300];
    const dn_engine_options options = {.threads = 1, .describe_only = described};
    const dn_lane_spec spec = {.seed = 5, .has_class = true, .class_index = 3, .guidance_scale = 1.0, .steps = 2, .sampler = "ddim"};
    dn_engine *engine = NULL;
    bool copied = mkdtemp(folder) != NULL;
    for (size_t i = 0; copied && i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, folders[i]);
        copied = mkdir(path, 0755) == 0;
    }
    for (size_t i = 0; copied && i < sizeof files / sizeof files[0]; i++)
        copied = copy_file(folder, files[i], wanted);
    dn_status status = copied ? dn_engine_open(&engine, folder, &options, &error) : dn_fail(&error, DN_IO, "the copy failed");
    if (status == DN_OK) {
        memcpy(build, engine->build, sizeof engine->build);
        memcpy(weights, engine->model->weights_sha256, sizeof engine->model->weights_sha256);
    }
    if (status == DN_OK && pixels != NULL)
        status = dn_generate(engine, &spec, 1, pixels, NULL, NULL, NULL, &error);
    dn_engine_close(engine);
    remove_copy(folder);
    return status;
}

static void the_same_folder_twice(void)
{
    char first[65], second[65], weights[65];
    CHECK_OK(open_changed(first, weights, NULL, NULL, false), error);
    CHECK_OK(open_changed(second, weights, NULL, NULL, false), error);
    CHECK(strlen(first) == 64 && strcmp(first, second) == 0);
}

static void a_description_has_none(void)
{
    char build[65], weights[65];
    CHECK_OK(open_changed(build, weights, NULL, NULL, true), error);
    CHECK(build[0] == '\0' && weights[0] == '\0');
}

static void whatever_changes_pictures(void)
{
    static const change changes[] = {
        {"vae/diffusion_pytorch_model.safetensors", NULL, NULL, 352}, /* in post_quant_conv.bias */
        {"vae/config.json", "\"scaling_factor\": 0.18215", "\"scaling_factor\": 0.19215", 0},
        {"scheduler/scheduler_config.json", "\"beta_end\": 0.02", "\"beta_end\": 0.03", 0},
        {"transformer/config.json", "\"num_vector_embeds\": null", "\"norm_eps\": 0.10000000000", 0},
    };
    static uint8_t plain[PIXELS], changed[PIXELS];
    char build[65], weights[65], other[65], other_weights[65];
    CHECK_OK(open_changed(build, weights, plain, NULL, false), error);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        CHECK_OK(open_changed(other, other_weights, changed, &changes[i], false), error);
        CHECK_MSG(memcmp(plain, changed, sizeof plain) != 0, "%s: the picture is the same", changes[i].file);
        CHECK_MSG(strcmp(weights, other_weights) == 0, "%s: the denoiser's weights are not the same", changes[i].file);
        CHECK_MSG(strcmp(build, other) != 0, "%s: another picture under the same build", changes[i].file);
    }
}

int main(void)
{
    RUN(the_same_folder_twice);
    RUN(a_description_has_none);
    RUN(whatever_changes_pictures);
    return test_end();
}
