/* Folders as they lie on the hub and on people's disks: flat pipelines, pipelines with parts that are not supported, networks without a
 * null class, checkpoints of compiled modules. */
#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "engine.h"
#include "tests/engine/made_weights.h"

#define PIPELINE "tests/golden/pipe_unet_ddpm20"
#define LINKS_MAX 8

static dn_error error;
static char folder[64], links[LINKS_MAX][160];
static int link_count;

static void start(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-hub-XXXXXX");
    link_count = 0;
    if (mkdtemp(folder) == NULL)
        abort();
}

static void put_link(const char *name, const char *target)
{
    char here[512], path[1024];
    if (getcwd(here, sizeof here) == NULL)
        abort();
    snprintf(path, sizeof path, "%s/%s", here, target);
    snprintf(links[link_count], sizeof links[0], "%s/%s", folder, name);
    if (symlink(path, links[link_count++]) != 0)
        abort();
}

static void put_text(const char *name, const char *text)
{
    snprintf(links[link_count], sizeof links[0], "%s/%s", folder, name);
    if (dn_file_write(links[link_count++], text, strlen(text), false, &error) != DN_OK)
        abort();
}

static dn_status finish(dn_engine **out, bool described)
{
    const dn_engine_options options = {.threads = 1, .describe_only = described};
    *out = NULL;
    dn_status status = dn_engine_open(out, folder, &options, &error);
    while (link_count > 0)
        unlink(links[--link_count]);
    rmdir(folder);
    return status;
}

/* google/ddpm-cifar10-32 and its like: every file in the root. */
static void a_flat_pipeline(void)
{
    dn_engine *flat = NULL;
    start();
    put_link("model_index.json", PIPELINE "/model_index.json");
    put_link("config.json", PIPELINE "/unet/config.json");
    put_link("diffusion_pytorch_model.safetensors", PIPELINE "/unet/diffusion_pytorch_model.safetensors");
    put_link("scheduler_config.json", PIPELINE "/scheduler/scheduler_config.json");
    CHECK_OK(finish(&flat, false), error);
    CHECK(strcmp(flat->folder->pipeline_class, "DDPMPipeline") == 0 && flat->folder->scheduler != NULL);
    CHECK(strcmp(flat->scheduler.class_name, "DDPMScheduler") == 0);
    dn_engine_close(flat);
    start();
    put_link("model_index.json", PIPELINE "/model_index.json");
    CHECK(finish(&flat, false) == DN_IO && strstr(error.message, "unet/config.json") != NULL);
}

/* Latents of a VQ-VAE shown as pixels would be a picture of nothing. */
static void parts_that_are_not_supported(void)
{
    dn_engine *engine = NULL;
    start();
    put_text("model_index.json", "{\"_class_name\": \"LDMPipeline\", \"unet\": [\"diffusers\", \"UNet2DModel\"],"
                                 "\"vqvae\": [\"diffusers\", \"VQModel\"], \"scheduler\": [\"diffusers\", \"DDIMScheduler\"]}");
    put_link("unet", PIPELINE "/unet");
    put_link("scheduler", PIPELINE "/scheduler");
    CHECK(finish(&engine, true) == DN_UNSUPPORTED && engine == NULL);
    CHECK_MSG(strstr(error.message, "vqvae") != NULL && strstr(error.message, "VQModel") != NULL, "%s", error.message);
    start();
    put_link("model_index.json", PIPELINE "/model_index.json");
    put_link("unet", PIPELINE "/unet");
    put_link("scheduler", PIPELINE "/scheduler");
    put_link("vae", "tests/golden/unet_cifarlike");
    CHECK(finish(&engine, true) == DN_UNSUPPORTED && engine == NULL);
    CHECK_MSG(strstr(error.message, "/vae") != NULL && strstr(error.message, "autoencoder") != NULL, "%s", error.message);
}

static dn_status open_index(dn_engine **out, const char *pipeline, const char *more)
{
    char text[512];
    snprintf(text, sizeof text,
             "{\"_class_name\": \"%s\", \"unet\": [\"diffusers\", \"UNet2DModel\"], \"scheduler\": [\"diffusers\", \"DDIM\"]%s}", pipeline,
             more);
    start();
    put_text("model_index.json", text);
    put_link("unet", PIPELINE "/unet");
    put_link("scheduler", PIPELINE "/scheduler");
    return finish(out, true);
}

static void networks_without_a_null_class(void)
{
    static const struct {
        const char *pipeline, *more;
        uint32_t classes; /* of 11 rows */
    } cases[] = {
        {"DDPMPipeline", "", 10},
        {"ConsistencyModelPipeline", "", 11},
        {"DDPMPipeline", ", \"denoised\": {\"null_class\": false}", 11},
        {"ConsistencyModelPipeline", ", \"denoised\": {\"null_class\": true}", 10},
    };
    dn_engine *engine = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(open_index(&engine, cases[i].pipeline, cases[i].more), error);
        CHECK_MSG(engine->class_count == cases[i].classes, "%s%s: %u classes", cases[i].pipeline, cases[i].more, engine->class_count);
        CHECK((engine->null_class == DN_NONE) == (cases[i].classes == 11));
        CHECK(engine->default_steps == (cases[i].pipeline[0] == 'C' ? 1 : 20)); /* that pipeline's own number */
        dn_engine_close(engine);
    }
    CHECK(open_index(&engine, "DDPMPipeline", ", \"denoised\": {\"null_class\": \"no\"}") == DN_INVALID);
    CHECK_MSG(strstr(error.message, "denoised.null_class") != NULL, "%s", error.message);
}

/* torch.compile puts a name of its own before every tensor, a trainer's module another. */
static void checkpoints_of_compiled_modules(void)
{
    char path[160], name[256];
    cJSON *list = NULL, *entry = NULL;
    dn_safetensors_writer *writer = NULL;
    dn_engine *engine = NULL;
    start();
    CHECK_OK(dn_json_read_file(&list, "tests/golden/dit_original/tensors.json", 1 << 20, &error), error);
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    cJSON_ArrayForEach(entry, list)
    {
        snprintf(name, sizeof name, "state_dict.model._orig_mod.%s", cJSON_GetArrayItem(entry, 0)->valuestring);
        cJSON *renamed = cJSON_CreateArray();
        cJSON_AddItemToArray(renamed, cJSON_CreateString(name));
        cJSON_AddItemToArray(renamed, cJSON_Duplicate(cJSON_GetArrayItem(entry, 1), true));
        CHECK_OK(made_tensor(writer, renamed, &error), error);
        cJSON_Delete(renamed);
    }
    snprintf(path, sizeof path, "%s/last.safetensors", folder);
    CHECK_OK(dn_safetensors_writer_save(writer, path, false, &error), error);
    dn_safetensors_writer_free(writer);
    cJSON_Delete(list);
    put_text("config.json", "{\"_class_name\": \"DiT\", \"num_heads\": 4, \"input_size\": 8}");
    snprintf(links[link_count++], sizeof links[0], "%s", path);
    CHECK_OK(finish(&engine, false), error);
    CHECK(strcmp(engine->model->architecture, "DiT") == 0 && engine->class_count == 5);
    dn_engine_close(engine);
}

/* The file that is meant of several stands for its folder: what lies beside it counts as if the folder were named. */
static void a_file_stands_for_its_folder(void)
{
    char path[160];
    const dn_engine_options options = {.threads = 1, .describe_only = true};
    dn_engine *engine = NULL;
    start();
    put_link("config.json", "tests/golden/pipe_dit_ddpm10_cfg4/transformer/config.json");
    put_link("one.safetensors", "tests/golden/pipe_dit_ddpm10_cfg4/transformer/diffusion_pytorch_model.safetensors");
    put_link("two.safetensors", "tests/golden/pipe_dit_ddpm10_cfg4/transformer/diffusion_pytorch_model.safetensors");
    put_link("vae", "tests/golden/pipe_dit_ddpm10_cfg4/vae");
    put_text("scheduler_config.json", "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 500}");
    snprintf(path, sizeof path, "%s/two.safetensors", folder);
    dn_status status = dn_engine_open(&engine, path, &options, &error);
    dn_error reason = error;
    dn_engine *whole = NULL;
    CHECK(finish(&whole, true) == DN_INVALID && strstr(error.message, "name the one that is meant") != NULL);
    CHECK_OK(status, reason);
    CHECK(engine->training->timesteps == 500 && strcmp(engine->scheduler.class_name, "DDIMScheduler") == 0);
    CHECK(engine->codec_path != NULL && engine->image_channels == 3 && engine->model->channels == 4);
    dn_engine_close(engine);
}

int main(void)
{
    RUN(a_flat_pipeline);
    RUN(parts_that_are_not_supported);
    RUN(networks_without_a_null_class);
    RUN(checkpoints_of_compiled_modules);
    RUN(a_file_stands_for_its_folder);
    return test_end();
}
