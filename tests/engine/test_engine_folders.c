/* What an engine makes of every kind of folder: pipelines, bare components, checkpoints of original formats, guide and classifier
 * beside a model; what it tells of itself without being loaded; and what it refuses. */
#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine.h"
#include "format/safetensors.h"
#include "model/classifier.h"
#include "tests/engine/made_weights.h"
#include "train/train.h"

static dn_error error;

static dn_status open_at(dn_engine **out, const char *folder, bool described)
{
    const dn_engine_options options = {.threads = 1, .describe_only = described};
    *out = NULL;
    return dn_engine_open(out, folder, &options, &error);
}

/* A folder of links to the golden U-Net pipeline, with something else linked beside it under `name`. */
static dn_status open_beside(dn_engine **out, const char *name, const char *other, bool described)
{
    static const char *const parts[] = {"model_index.json", "scheduler", "unet"};
    char folder[] = "/tmp/denoised-folder-XXXXXX", here[512], path[1024], target[1024];
    if (mkdtemp(folder) == NULL || getcwd(here, sizeof here) == NULL)
        abort();
    for (int i = 0; i < 3; i++) {
        snprintf(target, sizeof target, "%s/tests/golden/pipe_unet_ddim10_cfg3/%s", here, parts[i]);
        snprintf(path, sizeof path, "%s/%s", folder, parts[i]);
        if (symlink(target, path) != 0)
            abort();
    }
    snprintf(target, sizeof target, "%s%s%s", other[0] == '/' ? "" : here, other[0] == '/' ? "" : "/", other);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (symlink(target, path) != 0)
        abort();
    dn_status status = open_at(out, folder, described);
    (void)unlink(path);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, parts[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
    return status;
}

static const dn_option_field *field_of(const dn_engine *engine, dn_option_id id)
{
    for (uint32_t i = 0; dn_engine_field_at(engine, i) != NULL; i++)
        if (dn_engine_field_at(engine, i)->id == id)
            return dn_engine_field_at(engine, i);
    return NULL;
}

static void a_dit_pipeline(void)
{
    dn_engine *engine = NULL;
    CHECK_OK(open_at(&engine, "tests/golden/pipe_dit_ddpm10_cfg4", false), error);
    CHECK(engine->class_count == 1000 && engine->null_class == 1000);
    CHECK(engine->default_steps == 50 && engine->default_guidance == 4.0 && strcmp(engine->default_sampler, "model") == 0);
    CHECK(engine->codec_path != NULL && engine->image_channels == 3);
    CHECK_MSG(engine->image_width == 64 && engine->image_height == 64, "%u x %u", engine->image_width, engine->image_height);
    CHECK(field_of(engine, DN_OPT_GUIDANCE_CHANNELS)->standard == 0.0 && field_of(engine, DN_OPT_GUIDANCE_CHANNELS)->maximum == 4.0);
    dn_engine_close(engine);
}

/* Latents are not clipped by a sampler's standard that is meant for pixels. */
static void named_samplers_leave_latents_whole(void)
{
    static float whole[4 * 8 * 8], clipped[4 * 8 * 8];
    dn_engine *engine = NULL;
    float most = 0.0f, bound = 0.0f;
    CHECK_OK(open_at(&engine, "tests/golden/pipe_dit_ddpm10_cfg4", false), error);
    dn_lane_spec spec = {.seed = 3, .has_class = true, .class_index = 7, .guidance_scale = 1.0, .steps = 6, .sampler = "ddim"};
    CHECK_OK(dn_generate(engine, &spec, 1, NULL, whole, NULL, NULL, &error), error);
    dn_option_set(&spec.options, DN_OPT_CLIP_SAMPLE, 1.0);
    CHECK_OK(dn_generate(engine, &spec, 1, NULL, clipped, NULL, NULL, &error), error);
    for (int i = 0; i < 256; i++) {
        most = fmaxf(most, fabsf(whole[i]));
        bound = fmaxf(bound, fabsf(clipped[i]));
    }
    CHECK_MSG(most > 1.0f && bound <= 1.0f, "%g, clipped %g", (double)most, (double)bound);
    dn_engine_close(engine);
}

/* A given picture goes through the encoder, its mask to the latents' size by the nearest pixel; strength 0 comes back as latents. */
static void pictures_for_latents(void)
{
    static uint8_t pixels[64 * 64 * 3], grey[64 * 64];
    static float init[4 * 8 * 8], made[4 * 8 * 8], mask[8 * 8];
    dn_engine *engine = NULL;
    double sum = 0.0;
    CHECK_OK(open_at(&engine, "tests/golden/pipe_dit_ddpm10_cfg4", false), error);
    for (int i = 0; i < 64 * 64 * 3; i++)
        pixels[i] = (uint8_t)(i * 7 % 251);
    for (int i = 0; i < 64 * 64; i++)
        grey[i] = i / 64 % 8 == 0 && i % 8 == 0 ? (uint8_t)(i / 64 * 4) : 77; /* only the pixels that count differ */
    CHECK_OK(dn_engine_prepare_init(engine, pixels, grey, init, mask, &error), error);
    for (int i = 0; i < 64; i++)
        CHECK_MSG(mask[i] == (i / 8 * 8 * 4 >= 128 ? 1.0f : 0.0f), "mask element %d is %g", i, (double)mask[i]);
    for (int i = 0; i < 256; i++)
        sum += fabs((double)init[i]);
    CHECK(isfinite(sum) && sum > 0.0);
    dn_lane_spec spec = {
        .seed = 3, .has_class = true, .class_index = 7, .guidance_scale = 4.0, .steps = 6, .sampler = "ddim", .init = init};
    dn_option_set(&spec.options, DN_OPT_STRENGTH, 0.0);
    CHECK_OK(dn_generate(engine, &spec, 1, pixels, made, NULL, NULL, &error), error);
    CHECK(memcmp(made, init, sizeof made) == 0);
    dn_option_set(&spec.options, DN_OPT_STRENGTH, 0.5);
    spec.mask = mask;
    CHECK_OK(dn_generate(engine, &spec, 1, pixels, made, NULL, NULL, &error), error);
    for (int i = 0; i < 256; i++)
        CHECK((mask[i % 64] == 0.0f) == (made[i] == init[i]));
    dn_engine_close(engine);
}

static uint8_t to_pixel(float x)
{
    return (uint8_t)rintf(255.0f * fminf(fmaxf(x, 0.0f), 1.0f));
}

/* The score-based pipelines of variance-exploding training make and take pictures in [0, 1]. */
static void pictures_in_the_unit_range(void)
{
    static const char scheduler[] = "{\"_class_name\": \"ScoreSdeVeScheduler\", \"sigma_max\": 50.0}";
    static uint8_t pixels[16 * 8 * 3], made[16 * 8 * 3];
    static float init[16 * 8 * 3], floats[16 * 8 * 3];
    dn_engine *engine = NULL;
    char folder[] = "/tmp/denoised-unit-XXXXXX", path[128];
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(made_folder(folder, "tests/golden/unet_ncsnpp", &error), error);
    snprintf(path, sizeof path, "%s/scheduler_config.json", folder);
    CHECK_OK(dn_file_write(path, scheduler, sizeof scheduler - 1, false, &error), error);
    dn_status status = open_at(&engine, folder, false);
    (void)unlink(path);
    made_folder_remove(folder);
    CHECK_OK(status, error);
    CHECK(engine->training->family == DN_FAMILY_VE);
    for (int i = 0; i < 16 * 8 * 3; i++)
        pixels[i] = (uint8_t)(i * 7 % 256);
    CHECK_OK(dn_engine_prepare_init(engine, pixels, NULL, init, NULL, &error), error);
    for (int i = 0; i < 16 * 8 * 3; i++)
        CHECK(fabs((double)init[i % 3 * 128 + i / 3] - pixels[i] / 255.0) < 1e-6);
    dn_lane_spec spec = {.seed = 3, .guidance_scale = 1.0, .steps = 3, .sampler = "model", .init = init};
    dn_option_set(&spec.options, DN_OPT_STRENGTH, 0.0);
    CHECK_OK(dn_generate(engine, &spec, 1, made, NULL, NULL, NULL, &error), error);
    CHECK(memcmp(made, pixels, sizeof made) == 0);
    dn_option_set(&spec.options, DN_OPT_STRENGTH, 0.7);
    CHECK_OK(dn_generate(engine, &spec, 1, made, floats, NULL, NULL, &error), error);
    for (int i = 0; i < 16 * 8 * 3; i++)
        CHECK_MSG(made[i] == to_pixel(floats[i % 3 * 128 + i / 3]), "%g became %u", (double)floats[i % 3 * 128 + i / 3], made[i]);
    dn_engine_close(engine);
}

static void original_checkpoints(void)
{
    static const struct {
        const char *folder;
        dn_family family;
        uint32_t guided; /* channels by the format's own convention */
        bool classes, null;
    } rows[] = {
        {"tests/golden/dit_original", DN_FAMILY_VP, 3, true, true},
        {"tests/golden/sit_original", DN_FAMILY_FLOW, 3, true, true},
        {"tests/golden/edm_adm", DN_FAMILY_EDM, 0, true, true},
        {"tests/golden/guided_diffusion_new", DN_FAMILY_VP, 0, false, false},
        {"tests/golden/guided_diffusion_legacy", DN_FAMILY_VP, 0, true, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_engine *engine = NULL;
        char folder[] = "/tmp/denoised-original-XXXXXX";
        CHECK(mkdtemp(folder) != NULL);
        CHECK_OK(made_folder(folder, rows[i].folder, &error), error);
        dn_status status = open_at(&engine, folder, false);
        made_folder_remove(folder);
        CHECK_OK(status, error);
        CHECK_MSG(engine->training->family == rows[i].family, "%s: family %d", rows[i].folder, (int)engine->training->family);
        CHECK_MSG((engine->null_class != DN_NONE) == rows[i].null, "%s: null class %u", rows[i].folder, engine->null_class);
        CHECK_MSG((engine->class_count > 0) == rows[i].classes && engine->class_count + rows[i].null == engine->model->class_rows,
                  "%s: %u classes", rows[i].folder, engine->class_count);
        const dn_option_field *channels = field_of(engine, DN_OPT_GUIDANCE_CHANNELS);
        CHECK_MSG(channels == NULL ? !rows[i].null : channels->standard == (double)rows[i].guided, "%s: guided channels", rows[i].folder);
        dn_lane_spec spec = {.seed = 1, .has_class = rows[i].classes, .guidance_scale = engine->default_guidance, .steps = 5};
        snprintf(spec.sampler, sizeof spec.sampler, "%s", engine->default_sampler);
        float *x = malloc(dn_engine_elements(engine) * sizeof *x);
        CHECK_OK(dn_generate(engine, &spec, 1, NULL, x, NULL, NULL, &error), error);
        free(x);
        dn_engine_close(engine);
    }
}

/* Samplers of another family are refused by name, those that serve are the ones told. */
static void samplers_that_serve(void)
{
    dn_engine *engine = NULL;
    uint32_t serving = 0, refused = 0;
    CHECK_OK(open_at(&engine, "tests/golden/pipe_unet_ddim10_cfg3", true), error);
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++) {
        const dn_sampler *sampler = dn_sampler_at(i);
        dn_lane_spec spec = {.has_class = true, .guidance_scale = 1.0, .steps = 5};
        float nothing = 0.0f;
        spec.init = sampler->inverts ? &nothing : NULL;
        snprintf(spec.sampler, sizeof spec.sampler, "%s", sampler->name);
        dn_status serves = dn_engine_serves(engine, sampler, &error), accepted = dn_lane_spec_check(engine, &spec, &error);
        serving += serves == DN_OK;
        refused += serves != DN_OK;
        CHECK_MSG((serves == DN_OK) == (accepted == DN_OK), "%s: serves %d, accepted %d: %s", sampler->name, serves == DN_OK,
                  accepted == DN_OK, error.message);
        CHECK_MSG(serves == DN_OK || strstr(error.message, sampler->name) != NULL, "%s: %s", sampler->name, error.message);
    }
    CHECK_MSG(serving > 10 && refused > 0, "%u serve, %u do not", serving, refused);
    dn_engine_close(engine);
}

static void described_without_weights(void)
{
    dn_engine *told = NULL, *loaded = NULL;
    dn_batch *batch = NULL;
    CHECK_OK(open_beside(&told, "guide", "tests/golden/unet_scaleshift", true), error);
    CHECK_OK(open_beside(&loaded, "guide", "tests/golden/unet_scaleshift", false), error);
    CHECK(told->network == NULL && told->guide == NULL && told->guide_model != NULL && told->model->weights_sha256[0] == '\0');
    CHECK(told->class_count == loaded->class_count && told->null_class == loaded->null_class);
    CHECK(told->guidance_methods == loaded->guidance_methods && told->field_count == loaded->field_count);
    CHECK(strcmp(told->default_sampler, loaded->default_sampler) == 0);
    CHECK(told->build[0] == '\0' && strlen(loaded->build) == 64); /* the build is of weights too */
    CHECK(dn_batch_create(&batch, told, 4, &error) != DN_OK && batch == NULL);
    dn_engine_close(told);
    dn_engine_close(loaded);
}

static void guides_and_methods(void)
{
    dn_engine *engine = NULL;
    const uint32_t usual = 1u << DN_GUIDE_CFG | 1u << DN_GUIDE_CFG_PP | 1u << DN_GUIDE_APG;
    CHECK_OK(open_at(&engine, "tests/golden/pipe_unet_ddim10_cfg3", true), error);
    CHECK(engine->guidance_methods == usual && field_of(engine, DN_OPT_CLASSIFIER_SCALE) == NULL);
    CHECK(field_of(engine, DN_OPT_GUIDANCE_METHOD)->maximum == DN_GUIDE_APG);
    dn_engine_close(engine);
    CHECK_OK(open_beside(&engine, "guide", "tests/golden/unet_scaleshift", false), error);
    CHECK(engine->guidance_methods == (usual | 1u << DN_GUIDE_AUTO));
    dn_engine_close(engine);
    CHECK(open_beside(&engine, "guide", "tests/golden/unet_oddsize", false) == DN_INVALID && engine == NULL);
    CHECK_MSG(strstr(error.message, "guide") != NULL && strstr(error.message, "cannot guide") != NULL, "%s", error.message);
    CHECK_OK(open_beside(&engine, "guide", "tests/golden/pipe_unet_ddpm20", false), error); /* trained alike, by another sampler's file */
    dn_engine_close(engine);
    CHECK(open_beside(&engine, "guide", "tests/golden/tiny", false) == DN_INVALID && engine == NULL);
    CHECK_MSG(strstr(error.message, "cannot guide") != NULL, "%s", error.message);
    CHECK(open_beside(&engine, "guide", "tests/golden", false) != DN_OK && engine == NULL);
    CHECK_OK(open_at(&engine, "tests/golden/unet_cifarlike", true), error); /* it takes no class */
    CHECK(engine->guidance_methods == 0 && field_of(engine, DN_OPT_GUIDANCE_METHOD) == NULL && field_of(engine, DN_OPT_STRENGTH) != NULL);
    dn_engine_close(engine);
}

static dn_status open_with_classifier(dn_engine **out, uint32_t side, bool noise_aware, bool described)
{
    char folder[] = "/tmp/denoised-classifier-XXXXXX", path[128];
    dn_model *model = NULL;
    cJSON *config = dn_classifier_config(side, side, 3, 10);
    if (noise_aware)
        cJSON_AddTrueToObject(config, "noise_aware");
    if (mkdtemp(folder) == NULL || dn_model_from_config(&model, config, "the classifier", &error) != DN_OK ||
        dn_weights_create(&model->weights, model->plan, &error) != DN_OK)
        abort();
    dn_initialise(model->plan, model->weights, 5, false);
    if (dn_model_save(model, config, folder, DN_F32, &error) != DN_OK)
        abort();
    dn_status status = open_beside(out, "classifier", folder, described);
    snprintf(path, sizeof path, "%s/config.json", folder);
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    (void)unlink(path);
    (void)rmdir(folder);
    dn_model_free(model);
    cJSON_Delete(config);
    return status;
}

static void classifiers(void)
{
    dn_engine *engine = NULL;
    for (int described = 0; described < 2; described++) {
        CHECK_OK(open_with_classifier(&engine, 8, true, described == 1), error);
        CHECK(engine->guidance_methods >> DN_GUIDE_CLASSIFIER & 1u);
        CHECK(field_of(engine, DN_OPT_CLASSIFIER_SCALE) != NULL && (engine->classifier.run != NULL) == (described == 0));
        dn_engine_close(engine);
    }
    CHECK(open_with_classifier(&engine, 8, false, false) == DN_INVALID && strstr(error.message, "noise_aware") != NULL);
    CHECK(open_with_classifier(&engine, 16, true, false) == DN_INVALID && strstr(error.message, "classifier looks at 16x16x3") != NULL);
    CHECK(open_beside(&engine, "classifier", "tests/golden/unet_default", false) == DN_INVALID && strstr(error.message, "guides nothing"));
}

/* An unconditional network's classes are its classifier's. */
static void a_classifier_for_a_network_without_classes(void)
{
    dn_engine *engine = NULL;
    dn_gradient classifier = {.class_count = 10};
    CHECK_OK(open_at(&engine, "tests/golden/unet_cifarlike", true), error);
    dn_engine_set_classifier(engine, classifier);
    CHECK(engine->class_count == 10 && engine->guidance_methods == 1u << DN_GUIDE_CLASSIFIER);
    dn_lane_spec none = {.guidance_scale = 1.0, .steps = 4, .sampler = "ddim"}, some = none;
    some.has_class = true;
    CHECK_OK(dn_lane_spec_check(engine, &none, &error), error);
    CHECK_OK(dn_lane_spec_check(engine, &some, &error), error);
    CHECK(dn_lane_spec_rows(engine, &none) == 1 && dn_lane_spec_rows(engine, &some) == 2);
    some.guidance_scale = 2.0;
    CHECK(dn_lane_spec_check(engine, &some, &error) == DN_INVALID && strstr(error.message, "guidance_scale must be 1"));
    some.guidance_scale = 1.0;
    some.class_index = 10;
    CHECK(dn_lane_spec_check(engine, &some, &error) == DN_INVALID && strstr(error.message, "class_label"));
    dn_engine_close(engine);
}

static void folders_that_are_no_models(void)
{
    static const struct {
        const char *folder, *word;
    } rows[] = {{"tests/golden", "tests/golden"},
                {"tests/golden/nowhere", "no such folder"},
                {"tests/golden/vae_default", "denoiser"},
                {"tests/golden/pipe_unet_ddim10_cfg3/scheduler", "scheduler"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_engine *engine = NULL;
        CHECK_MSG(open_at(&engine, rows[i].folder, false) != DN_OK && engine == NULL, "%s was opened", rows[i].folder);
        CHECK_MSG(strstr(error.message, rows[i].word) != NULL, "%s: %s", rows[i].folder, error.message);
    }
}

int main(void)
{
    RUN(a_dit_pipeline);
    RUN(named_samplers_leave_latents_whole);
    RUN(pictures_for_latents);
    RUN(pictures_in_the_unit_range);
    RUN(original_checkpoints);
    RUN(samplers_that_serve);
    RUN(described_without_weights);
    RUN(guides_and_methods);
    RUN(classifiers);
    RUN(a_classifier_for_a_network_without_classes);
    RUN(folders_that_are_no_models);
    return test_end();
}
