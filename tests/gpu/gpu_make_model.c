/* A pipeline folder with random weights, for serving and for whole pictures: a denoiser and, for latents, an autoencoder.
 *
 *     gpu_make_model OUT SCHEDULER.json DENOISER.json[@SIDE] [AUTOENCODER.json[@SIDE]] */
#include <sys/stat.h>

#include "base/file.h"
#include "tests/gpu/gpu.h"

/* One component; its folder is named as its pipeline does. */
static dn_status component(const char *out, const char *folder, const char *spec, dn_error *error)
{
    char path[700], config_path[512];
    dn_model *model = NULL;
    cJSON *config = NULL;
    snprintf(config_path, sizeof config_path, "%s", spec);
    char *side = strrchr(config_path, '@');
    if (side != NULL)
        *side++ = '\0';
    snprintf(path, sizeof path, "%s/%s", out, folder);
    dn_status status = dn_make_folder(path, error);
    if (status == DN_OK)
        status = gpu_model(&model, spec, error);
    if (status == DN_OK)
        status = dn_json_read_file(&config, config_path, DN_CONFIG_BYTES_MAX, error);
    if (status == DN_OK && side != NULL)
        cJSON_ReplaceItemInObjectCaseSensitive(config, "sample_size", cJSON_CreateNumber(atoi(side)));
    if (status == DN_OK)
        status = dn_model_save(model, config, path, DN_BF16, error);
    cJSON_Delete(config);
    if (model != NULL)
        dn_model_free(model);
    return status;
}

static dn_status copied(const char *out, const char *folder, const char *name, const char *from, dn_error *error)
{
    char path[700];
    unsigned char *bytes = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", out, folder);
    dn_status status = dn_make_folder(path, error);
    if (status == DN_OK)
        status = dn_file_read(&bytes, &count, from, DN_CONFIG_BYTES_MAX, error);
    snprintf(path, sizeof path, "%s/%s/%s", out, folder, name);
    if (status == DN_OK)
        status = dn_file_write(path, bytes, count, false, error);
    free(bytes);
    return status;
}

static dn_status index_file(const char *out, bool transformer, bool latents, dn_error *error)
{
    char path[700], text[700];
    snprintf(path, sizeof path, "%s/model_index.json", out);
    const int length =
        snprintf(text, sizeof text,
                 "{\"_class_name\": \"%s\", \"%s\": [\"diffusers\", \"%s\"], \"scheduler\": [\"diffusers\", \"DDIMScheduler\"]%s, "
                 "\"denoised\": {\"sampler\": \"ddim\", \"steps\": 20, \"guidance_scale\": 4}}\n",
                 transformer ? "DiTPipeline" : "DDPMPipeline", transformer ? "transformer" : "unet",
                 transformer ? "DiTTransformer2DModel" : "UNet2DModel", latents ? ", \"vae\": [\"diffusers\", \"AutoencoderKL\"]" : "");
    return dn_file_write(path, text, (size_t)length, false, error);
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    if (argc < 4) {
        fprintf(stderr, "usage: gpu_make_model OUT SCHEDULER.json DENOISER.json[@SIDE] [AUTOENCODER.json[@SIDE]]\n");
        return 64;
    }
    const bool transformer = strstr(argv[3], "dit") != NULL;
    dn_status status = component(argv[1], transformer ? "transformer" : "unet", argv[3], &error);
    if (status == DN_OK && argc > 4)
        status = component(argv[1], "vae", argv[4], &error);
    if (status == DN_OK)
        status = copied(argv[1], "scheduler", "scheduler_config.json", argv[2], &error);
    if (status == DN_OK)
        status = index_file(argv[1], transformer, argc > 4, &error);
    if (status != DN_OK)
        fprintf(stderr, "gpu_make_model: %s\n", error.message);
    return status != DN_OK;
}
