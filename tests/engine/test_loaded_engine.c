/* Opening a model folder onto a device: the rule of the null class, defaults, classes by name, and refusals. The folders
 * are made of the golden network (11 embedding rows) with other words around it. */
#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "engine.h"
#include "format/safetensors.h"
#include "model/classifier.h"

#define PIPELINE "\"_class_name\":\"DDPMPipeline\",\"unet\":[\"diffusers\",\"UNet2DModel\"],\"scheduler\":[\"diffusers\",\"DDIMScheduler\"]"

static dn_error error;

static void must(bool good)
{
    if (!good)
        abort();
}

/* The comma-separated entries of id2label for n classes. */
static const char *names(uint32_t n)
{
    static char text[1024];
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < n; i++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s\"%u\":\"class %u, C%u%s\"", i ? "," : "", i, i, i, i < 2 ? ", pair" : "");
    return text;
}

/* Opens a folder whose model_index.json has `more` behind the pipeline's keys. */
static dn_status open_with(dn_engine **out, const char *more, const char *scheduler)
{
    char folder[] = "/tmp/denoised-engine-XXXXXX", here[512], path[1024], target[1024], text[4096];
    must(mkdtemp(folder) != NULL && getcwd(here, sizeof here) != NULL);
    snprintf(path, sizeof path, "%s/unet", folder);
    snprintf(target, sizeof target, "%s/tests/golden/unet_default", here);
    must(symlink(target, path) == 0);
    snprintf(path, sizeof path, "%s/scheduler", folder);
    must(dn_make_folder(path, &error) == DN_OK);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    must(dn_file_write(path, scheduler, strlen(scheduler), false, &error) == DN_OK);
    snprintf(text, sizeof text, "{" PIPELINE "%s}", more);
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    must(dn_file_write(path, text, strlen(text), false, &error) == DN_OK);
    dn_engine_options options = {.threads = 1};
    dn_status status = dn_engine_open(out, folder, &options, &error);
    static const char *const leftovers[] = {"model_index.json", "scheduler/scheduler_config.json", "unet"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, leftovers[i]);
        (void)unlink(path);
    }
    snprintf(path, sizeof path, "%s/scheduler", folder);
    (void)rmdir(path);
    (void)rmdir(folder);
    return status;
}

static dn_status open_names(dn_engine **out, uint32_t n)
{
    char more[1200];
    snprintf(more, sizeof more, ",\"id2label\":{%s}", names(n));
    return open_with(out, more, "{\"_class_name\":\"DDIMScheduler\"}");
}

static void null_class_rule(void)
{
    static const struct {
        uint32_t names, classes, null;
    } rows[] = {{0, 10, 10}, {10, 10, 10}, {11, 11, DN_NONE}};
    for (size_t i = 0; i < 3; i++) {
        dn_engine *engine = NULL;
        CHECK_OK(open_names(&engine, rows[i].names), error);
        CHECK_MSG(engine->class_count == rows[i].classes && engine->null_class == rows[i].null, "%u names: %u classes, null %u",
                  rows[i].names, engine->class_count, engine->null_class);
        dn_lane_spec spec = {.steps = 2, .guidance_scale = 1.0, .sampler = "ddim"};
        bool has_null = rows[i].null != DN_NONE;
        CHECK((dn_lane_spec_check(engine, &spec, &error) == DN_OK) == has_null);
        spec.has_class = true;
        CHECK_OK(dn_lane_spec_check(engine, &spec, &error), error);
        spec.guidance_scale = 2.0;
        CHECK((dn_lane_spec_check(engine, &spec, &error) == DN_OK) == has_null);
        dn_engine_close(engine);
    }
    dn_engine *engine = NULL;
    CHECK(open_names(&engine, 7) == DN_INVALID && engine == NULL);
    CHECK_MSG(strstr(error.message, "id2label") != NULL && strstr(error.message, "11") != NULL, "%s", error.message);
}

static void classes_by_name(void)
{
    dn_engine *engine = NULL;
    uint32_t found = 99;
    CHECK_OK(open_names(&engine, 10), error);
    CHECK(dn_engine_find_class(engine, "class 3", &found, &error) == DN_OK && found == 3);
    CHECK(dn_engine_find_class(engine, "c7", &found, &error) == DN_OK && found == 7);
    CHECK(dn_engine_find_class(engine, "CLASS 4, C4", &found, &error) == DN_OK && found == 4);
    CHECK(dn_engine_find_class(engine, "pair", &found, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "0, 1") != NULL, "%s", error.message);
    CHECK(dn_engine_find_class(engine, "clas 3", &found, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "class 3") != NULL, "%s", error.message);
    CHECK(dn_engine_find_class(engine, "", &found, &error) == DN_INVALID);
    CHECK(found == 4);
    dn_engine_close(engine);
}

static void defaults(void)
{
    dn_engine *engine = NULL;
    CHECK_OK(open_with(&engine, "", "{\"_class_name\":\"DDIMScheduler\"}"), error);
    CHECK(strcmp(engine->default_sampler, "model") == 0 && engine->default_steps == 20 && engine->default_guidance == 1.0);
    CHECK(strlen(engine->build) == 64 && strncmp(engine->device_text, "cpu ", 4) == 0);
    dn_engine_close(engine);
    CHECK_OK(open_with(&engine, "", "{\"_class_name\":\"UniPCMultistepScheduler\",\"lambda_min_clipped\": -Infinity}"), error);
    CHECK(strcmp(engine->default_sampler, "model") == 0);
    dn_engine_close(engine);
    CHECK_OK(open_with(&engine, ",\"denoised\":{\"sampler\":\"heun\",\"steps\":7,\"guidance_scale\":2.5}", "{}"), error);
    CHECK(strcmp(engine->default_sampler, "heun") == 0 && engine->default_steps == 7 && engine->default_guidance == 2.5);
    dn_engine_close(engine);
}

static void refusals(void)
{
    static const struct {
        const char *more, *scheduler, *word;
    } rows[] = {
        {",\"denoised\":{\"sampler\":\"nope\"}", "{}", "sampler"},
        {",\"denoised\":{\"sampler\":3}", "{}", "sampler"},
        {",\"denoised\":{\"steps\":0}", "{}", "steps"},
        {",\"denoised\":{\"steps\":2.5}", "{}", "steps"},
        {",\"denoised\":{\"guidance_scale\":1000}", "{}", "guidance_scale"},
        {"", "{\"_class_name\":\"NoSuchScheduler\"}", "_class_name"},
        {"", "{\"beta_schedule\":\"nope\"}", "scheduler_config.json"},
        {"", "{\"beta_end\": Infinity}", "scheduler_config.json"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_engine *engine = NULL;
        CHECK_MSG(open_with(&engine, rows[i].more, rows[i].scheduler) != DN_OK && engine == NULL, "row %zu was accepted", i);
        CHECK_MSG(strstr(error.message, rows[i].word) != NULL, "row %zu: %s", i, error.message);
    }
}

/* A classifier of two classes answers with as many numbers as a denoiser of grey pictures has channels, but no picture. */
static void a_classifier_is_no_denoiser(void)
{
    char folder[] = "/tmp/denoised-engine-XXXXXX", path[1024];
    dn_model *model = NULL;
    dn_engine *engine = NULL;
    cJSON *config = dn_classifier_config(16, 16, 1, 2);
    must(mkdtemp(folder) != NULL);
    CHECK_OK(dn_model_from_config(&model, config, "classifier", &error), error);
    CHECK_OK(dn_weights_create(&model->weights, model->plan, &error), error);
    CHECK_OK(dn_model_save(model, config, folder, DN_F32, &error), error);
    dn_status status = dn_engine_open(&engine, folder, NULL, &error);
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
    dn_model_free(model);
    dn_engine_close(engine);
    cJSON_Delete(config);
    CHECK_MSG(status == DN_UNSUPPORTED && strstr(error.message, "no denoiser") != NULL, "status %d: %s", status, error.message);
}

int main(void)
{
    RUN(null_class_rule);
    RUN(classes_by_name);
    RUN(defaults);
    RUN(refusals);
    RUN(a_classifier_is_no_denoiser);
    return test_end();
}
