/* `evaluate` from end to end on a tiny untrained network and three easy classes: every number is there and in its range. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "base/philox.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/model.h"
#include "server/commands.h"
#include "server/options.h"
#include "train/train.h"

#define SIDE 16
#define COUNT 240

static char root[64], text[8][160];

static char *at(int slot, const char *name)
{
    snprintf(text[slot], sizeof text[slot], "%s/%s", root, name);
    return text[slot];
}

static dn_status write_idx(const char *images, const char *labels, uint64_t seed, dn_error *error)
{
    static unsigned char picture_file[16 + COUNT * SIDE * SIDE], label_file[8 + COUNT];
    static const unsigned char picture_head[16] = {0, 0, 8, 3, 0, 0, 0, COUNT, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
    static const unsigned char label_head[8] = {0, 0, 8, 1, 0, 0, 0, COUNT};
    memcpy(picture_file, picture_head, sizeof picture_head);
    memcpy(label_file, label_head, sizeof label_head);
    for (uint32_t n = 0; n < COUNT; n++) {
        uint32_t label = n % 3, shift = dn_noise_word(seed, DN_STREAM_PROBE, 0, n) % 8;
        label_file[8 + n] = (unsigned char)label;
        for (uint32_t y = 0; y < SIDE; y++)
            for (uint32_t x = 0; x < SIDE; x++) {
                uint32_t place = label == 0 ? x : label == 1 ? y : (x + y) % SIDE;
                picture_file[16 + (n * SIDE + y) * SIDE + x] = place / 2 == shift ? 220 : (unsigned char)((x * y + n) % 50);
            }
    }
    dn_status status = dn_file_write(at(0, images), picture_file, sizeof picture_file, false, error);
    return status == DN_OK ? dn_file_write(at(0, labels), label_file, sizeof label_file, false, error) : status;
}

static dn_status write_model(dn_error *error)
{
    static const char config_text[] =
        "{\"_class_name\":\"UNet2DModel\",\"sample_size\":16,\"in_channels\":1,\"out_channels\":1,"
        "\"block_out_channels\":[8],\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":[\"UpBlock2D\"],"
        "\"layers_per_block\":1,\"norm_num_groups\":4,\"add_attention\":false,\"num_class_embeds\":4}";
    cJSON *config = cJSON_Parse(config_text);
    dn_model *model = NULL;
    dn_status status = dn_model_from_config(&model, config, "tiny", error);
    if (status == DN_OK)
        status = dn_weights_create(&model->weights, model->plan, error);
    if (status == DN_OK) {
        dn_initialise(model->plan, model->weights, 1, false);
        status = dn_model_save(model, config, at(0, "model"), DN_F32, error);
    }
    dn_model_free(model);
    cJSON_Delete(config);
    return status;
}

static bool in_range(const cJSON *object, const char *key, double low, double high)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) && item->valuedouble >= low && item->valuedouble <= high;
}

static bool settings_are_whole(const cJSON *settings)
{
    const cJSON *setting = NULL;
    cJSON_ArrayForEach(setting, settings)
    {
        const cJSON *agreement = cJSON_GetObjectItemCaseSensitive(setting, "agreement");
        const cJSON *distance = cJSON_GetObjectItemCaseSensitive(setting, "against_real_test");
        if (!in_range(agreement, "overall", 0, 1) || !in_range(agreement, "worst", 0, 1) || !in_range(distance, "frechet", 0, 1e9) ||
            !in_range(distance, "precision", 0, 1) || !in_range(distance, "recall", 0, 1) || !in_range(distance, "pictures", 12, 12))
            return false;
    }
    return cJSON_GetArraySize(settings) == 6;
}

/* The command with its table in a file. */
static int quietly(int count, char **words)
{
    int kept = dup(1), status;
    fflush(stdout);
    if (freopen(at(4, "table.txt"), "w", stdout) == NULL)
        return -1;
    status = dn_command_evaluate(count, words);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    return status;
}

static int evaluate(void)
{
    char *words[] = {"evaluate",
                     "--model",
                     at(1, "model"),
                     "--data",
                     root,
                     "--classifier",
                     at(2, "judge"),
                     "--classifier-epochs",
                     "12",
                     "--per-class",
                     "4",
                     "--steps",
                     "2",
                     "--output",
                     at(3, "out.json"),
                     "--threads",
                     "2",
                     "--no-flip"};
    return quietly((int)(sizeof words / sizeof words[0]), words);
}

static void every_number_is_there(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_make_folder(root, &error), error);
    CHECK_OK(write_idx("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 1, &error), error);
    CHECK_OK(write_idx("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 2, &error), error);
    CHECK_OK(write_model(&error), error);
    CHECK(evaluate() == DN_EXIT_OK);
    cJSON *json = NULL;
    CHECK_OK(dn_json_read_file(&json, at(3, "out.json"), 1 << 20, &error), error);
    const cJSON *classifier = cJSON_GetObjectItemCaseSensitive(json, "classifier");
    bool judged = in_range(cJSON_GetObjectItemCaseSensitive(classifier, "real_test"), "overall", 0.9, 1);
    bool whole = settings_are_whole(cJSON_GetObjectItemCaseSensitive(json, "settings"));
    bool real = in_range(cJSON_GetObjectItemCaseSensitive(json, "real_train_subset"), "precision", 0.2, 1);
    cJSON_Delete(json);
    CHECK(judged);
    CHECK(whole);
    CHECK(real);
}

/* A network that has learned nothing gives pictures of two broad stripes a density all the same, in bits that are numbers. */
static void likelihood_is_measured(void)
{
    dn_error error = {DN_OK, ""};
    char *words[] = {"evaluate", "--model",  at(1, "model"),           "--data",    root, "--likelihood", "3", "--probes",
                     "2",        "--output", at(3, "likelihood.json"), "--threads", "2"};
    CHECK(quietly((int)(sizeof words / sizeof words[0]), words) == DN_EXIT_OK);
    cJSON *json = NULL;
    CHECK_OK(dn_json_read_file(&json, at(3, "likelihood.json"), 1 << 20, &error), error);
    bool whole = in_range(json, "bits_per_dimension", 0, 64) && in_range(json, "standard_error", 0, 64) &&
                 in_range(json, "pictures", 3, 3) && in_range(json, "probes", 2, 2) && in_range(json, "evaluations_per_picture", 7, 6000);
    cJSON_Delete(json);
    CHECK(whole);
    words[6] = (char[]){"100000"};
    CHECK(quietly((int)(sizeof words / sizeof words[0]), words) == DN_EXIT_DATA);
}

static void a_missing_model_is_refused(void)
{
    char *words[] = {"evaluate", "--model", at(1, "nothing"), "--data", root};
    CHECK(dn_command_evaluate(5, words) != DN_EXIT_OK);
    CHECK(dn_command_evaluate(3, words) == DN_EXIT_USAGE);
}

static void settings_are_checked(void)
{
    static const char *const wrong[] = {"2", "2:", ":20", "x:20", "2:0", "2:20x", "nan:20", "2:100000"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char *words[] = {"evaluate", "--model", at(1, "model"), "--data", root, "--setting", (char *)(uintptr_t)wrong[i]};
        CHECK_MSG(dn_command_evaluate(7, words) == DN_EXIT_USAGE, "%s", wrong[i]);
    }
}

/* A sampler that is none, or a file that cannot be written, is told before a judge is trained. */
static void what_cannot_work_costs_nothing(void)
{
    char *words[] = {"evaluate",     "--model",         at(1, "model"),        "--data", root,        "--sampler", "nope",
                     "--classifier", at(2, "unwanted"), "--classifier-epochs", "1",      "--threads", "1"};
    CHECK(dn_command_evaluate(13, words) == DN_EXIT_DATA);
    words[5] = (char[]){"--output"};
    words[6] = at(3, "none/out.json");
    CHECK(dn_command_evaluate(13, words) == DN_EXIT_IO);
    CHECK(access(at(2, "unwanted"), F_OK) != 0);
}

static void remove_everything(void)
{
    static const char *const names[] = {"train-images-idx3-ubyte",
                                        "train-labels-idx1-ubyte",
                                        "t10k-images-idx3-ubyte",
                                        "t10k-labels-idx1-ubyte",
                                        "out.json",
                                        "likelihood.json",
                                        "table.txt",
                                        "model/config.json",
                                        "model/diffusion_pytorch_model.safetensors",
                                        "judge/config.json",
                                        "judge/diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(at(0, names[i]));
    rmdir(at(0, "model"));
    rmdir(at(0, "judge"));
    rmdir(root);
}

int main(void)
{
    snprintf(root, sizeof root, "/tmp/denoised-evaluate-%ld", (long)getpid());
    RUN(every_number_is_there);
    RUN(likelihood_is_measured);
    RUN(a_missing_model_is_refused);
    RUN(settings_are_checked);
    RUN(what_cannot_work_costs_nothing);
    remove_everything();
    return test_end();
}
