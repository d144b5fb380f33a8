/* Classifiers from recipes: one that reads noised pictures learns them, the same bytes with one thread and two; the folder it leaves
 * opens and guides a model of its shape; recipes refused by name. */
#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "base/philox.h"
#include "format/json.h"
#include "model/classifier.h"
#include "model/forward.h"
#include "train/train.h"

#define COUNT 60u
#define PIXELS 64

static dn_error error;
static double last_loss;

static const char recipe_text[] =
    "{\"classifier\":{\"_class_name\":\"DenoisedClassifier\",\"height\":8,\"width\":8,\"in_channels\":1,\"num_classes\":3,"
    "\"stem_channels\":8,\"feature_channels\":16,\"norm_num_groups\":4,\"block_out_channels\":[8,16],\"noise_aware\":%s},"
    "\"scheduler\":{\"_class_name\":\"%s\",\"num_train_timesteps\":100,\"beta_schedule\":\"squaredcos_cap_v2\"},"
    "\"images\":%u,\"batch\":12,\"learning_rate\":0.01,\"seed\":5%s}";

static dn_status recipe_of(dn_recipe **out, const char *noise, const char *scheduler, unsigned images, const char *more)
{
    char text[2048];
    cJSON *json = NULL;
    snprintf(text, sizeof text, recipe_text, noise, scheduler, images, more);
    dn_status status = dn_json_parse(&json, text, strlen(text), &(dn_json_limits){.bytes_max = sizeof text}, NULL, &error);
    return status == DN_OK ? dn_recipe_from_json(out, json, "recipe.json", &error) : status;
}

/* Three easy classes: bright above, below, at the right. */
static const dn_dataset *dataset(void)
{
    static uint8_t pixels[COUNT * PIXELS], labels[COUNT];
    static const dn_dataset data = {
        .count = COUNT, .width = 8, .height = 8, .channels = 1, .class_count = 3, .pixels = pixels, .labels = labels};
    for (unsigned i = 0; i < COUNT; i++) {
        labels[i] = (uint8_t)(i % 3);
        for (unsigned p = 0; p < PIXELS; p++) {
            bool bright = i % 3 == 0 ? p / 8 < 4 : i % 3 == 1 ? p / 8 >= 4 : p % 8 >= 4;
            pixels[i * PIXELS + p] = (uint8_t)(bright ? 190 + i : 10 + p % 5);
        }
    }
    return &data;
}

static void keep_loss(void *payload, const dn_train_progress *p)
{
    (void)payload;
    last_loss = p->smooth_loss;
}

static dn_status train_into(const char *folder, const dn_recipe *recipe, unsigned threads, bool resume)
{
    const dn_train_options options = {
        .recipe = recipe, .dataset = dataset(), .output = folder, .threads = threads, .resume = resume, .progress = keep_loss};
    return dn_train(&options, &error);
}

static void drop(const char *folder)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors", "recipe.json"};
    char path[160];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

/* How many of the data's pictures, noised to one time, are told right. */
static uint32_t right_at(dn_model *model, float time, float alpha, float sigma)
{
    static float samples[COUNT * PIXELS], logits[COUNT * 3], times[COUNT];
    dn_forward *forward = NULL;
    const dn_forward_options options = {.threads = 1, .rows_max = COUNT};
    uint32_t right = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        float noise[PIXELS];
        dn_noise_normal(noise, PIXELS, 0, 99, DN_STREAM_TRAIN, i);
        times[i] = time;
        for (uint32_t p = 0; p < PIXELS; p++)
            samples[i * PIXELS + p] = alpha * ((float)dataset()->pixels[i * PIXELS + p] / 127.5f - 1.0f) + sigma * noise[p];
    }
    const dn_forward_rows rows = {.count = COUNT, .samples = samples, .times = times};
    if (dn_forward_open(&forward, model, &options, &error) != DN_OK || dn_forward_run(forward, &rows, logits, NULL, NULL, &error) != DN_OK)
        abort();
    for (uint32_t i = 0; i < COUNT; i++) {
        const float *l = logits + (size_t)i * 3;
        uint32_t best = l[0] >= l[1] && l[0] >= l[2] ? 0 : l[1] >= l[2] ? 1 : 2;
        right += best == dataset()->labels[i];
    }
    dn_forward_close(forward);
    return right;
}

static void it_learns_noised_pictures(void)
{
    char one[] = "/tmp/denoised-noise-XXXXXX", two[] = "/tmp/denoised-noise-XXXXXX", path[160];
    unsigned char *first = NULL, *second = NULL;
    size_t first_bytes = 0, second_bytes = 0;
    dn_recipe *recipe = NULL;
    dn_model *model = NULL;
    CHECK(mkdtemp(one) != NULL && mkdtemp(two) != NULL);
    CHECK_OK(recipe_of(&recipe, "true", "DDIMScheduler", 2400, ""), error);
    CHECK_OK(train_into(one, recipe, 1, false), error);
    CHECK_MSG(last_loss < 0.9, "the loss ends at %.3f, from log 3 = 1.099", last_loss);
    CHECK_OK(train_into(two, recipe, 2, false), error);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", one);
    CHECK_OK(dn_file_read(&first, &first_bytes, path, 1 << 20, &error), error);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", two);
    CHECK_OK(dn_file_read(&second, &second_bytes, path, 1 << 20, &error), error);
    CHECK(first_bytes == second_bytes && memcmp(first, second, first_bytes) == 0);
    CHECK_OK(dn_model_open(&model, one, 0, 0, &error), error);
    CHECK(dn_classifier_knows_noise(model->plan) && model->out_channels == 3);
    uint32_t clear = right_at(model, 10.0f, 0.98f, 0.2f), blurred = right_at(model, 60.0f, 0.55f, 0.83f);
    CHECK_MSG(clear >= COUNT * 9 / 10 && blurred > COUNT / 2, "%u and %u of %u are right", clear, blurred, COUNT);
    dn_model_free(model);
    dn_recipe_free(recipe);
    free(first);
    free(second);
    drop(one);
    drop(two);
}

/* What is told no time learns clean pictures, as the judge does. */
static void one_of_clean_pictures(void)
{
    char folder[] = "/tmp/denoised-clean-XXXXXX";
    dn_recipe *recipe = NULL;
    dn_model *model = NULL;
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(recipe_of(&recipe, "false", "DDIMScheduler", 600, ""), error);
    CHECK_OK(train_into(folder, recipe, 1, false), error);
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    CHECK(!dn_classifier_knows_noise(model->plan));
    CHECK(right_at(model, 0.0f, 1.0f, 0.0f) >= COUNT * 9 / 10);
    dn_model_free(model);
    dn_recipe_free(recipe);
    drop(folder);
}

static void recipes_are_refused_by_name(void)
{
    char folder[] = "/tmp/denoised-refused-XXXXXX";
    dn_recipe *recipe = NULL;
    CHECK(recipe_of(&recipe, "true", "DDIMScheduler", 600, ",\"unet\":{}") == DN_INVALID && strstr(error.message, "classifier") != NULL);
    CHECK(mkdtemp(folder) != NULL);
    CHECK_OK(recipe_of(&recipe, "true", "DDIMScheduler", 600, ""), error);
    CHECK(train_into(folder, recipe, 1, true) == DN_INVALID && strstr(error.message, "not resumed") != NULL);
    dn_recipe_free(recipe);
    recipe = NULL;
    CHECK_OK(recipe_of(&recipe, "true", "FlowMatchEulerDiscreteScheduler", 600, ""), error);
    CHECK(train_into(folder, recipe, 1, false) == DN_UNSUPPORTED && strstr(error.message, "scheduler") != NULL);
    dn_recipe_free(recipe);
    drop(folder);
}

int main(void)
{
    RUN(it_learns_noised_pictures);
    RUN(one_of_clean_pictures);
    RUN(recipes_are_refused_by_name);
    return test_end();
}
