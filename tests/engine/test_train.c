/* Training: the same bytes straight and resumed, with one thread and two; losses against finite differences; recipes
 * refused by name; a tiny network learns; the folder it leaves opens. */
#include "tests/test.h"

#include <ftw.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "format/model_folder.h"
#include "model/model.h"
#include "train/shards.h"
#include "train/train.h"

static const char recipe_text[] =
    "{\"unet\":{\"_class_name\":\"UNet2DModel\",\"sample_size\":8,\"in_channels\":1,\"out_channels\":1,"
    "\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],\"up_block_types\":[\"AttnUpBlock2D\",\"UpBlock2D\"],"
    "\"block_out_channels\":[8,16],\"layers_per_block\":1,\"norm_num_groups\":4,\"attention_head_dim\":8,\"num_class_embeds\":4},"
    "\"scheduler\":{\"_class_name\":\"DDIMScheduler\",\"num_train_timesteps\":100,\"beta_schedule\":\"squaredcos_cap_v2\","
    "\"prediction_type\":\"v_prediction\"},\"images\":%u,\"batch\":11,\"learning_rate\":0.01,\"warmup_images\":33,\"ema\":0.9,"
    "\"class_dropout\":0.2,\"flip\":true,\"seed\":5,\"weight_decay\":0.01,%s\"class_names\":[\"low\",\"high\",\"side\"]}";

static char folder[64];

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-train-XXXXXX");
    if (!mkdtemp(folder)) {
        abort();
    }
}

static void drop_folder(void)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static dn_status recipe_of(dn_recipe **out, unsigned images, const char *extra, dn_error *error)
{
    char text[2048];
    cJSON *json = NULL;
    snprintf(text, sizeof text, recipe_text, images, extra);
    dn_status status = dn_json_parse(&json, text, strlen(text), &(dn_json_limits){.bytes_max = sizeof text}, NULL, error);
    return status == DN_OK ? dn_recipe_from_json(out, json, "recipe.json", error) : status;
}

/* Three easy classes: dark below, dark above, dark at the left. */
static dn_dataset *make_dataset(void)
{
    enum { COUNT = 50 };
    dn_dataset *d = calloc(1, sizeof *d);
    *d = (dn_dataset){.count = COUNT, .width = 8, .height = 8, .channels = 1, .class_count = 3};
    d->pixels = malloc(COUNT * 64);
    d->labels = malloc(COUNT);
    for (int i = 0; i < COUNT; i++) {
        d->labels[i] = (uint8_t)(i % 3);
        for (int p = 0; p < 64; p++) {
            int bright = i % 3 == 0 ? p / 8 < 4 : i % 3 == 1 ? p / 8 >= 4 : p % 8 >= 4;
            d->pixels[i * 64 + p] = (uint8_t)(bright ? 200 + i : 10 + p % 5);
        }
    }
    return d;
}

static void free_dataset(dn_dataset *d)
{
    free(d->pixels);
    free(d->labels);
    free(d);
}

static double first_loss, last_loss;

static void keep_loss(void *payload, const dn_train_progress *p)
{
    (void)payload;
    first_loss = p->step == 1 ? p->loss : first_loss;
    last_loss = p->smooth_loss;
}

static dn_status train_into(const char *name, const dn_recipe *recipe, const dn_dataset *data, unsigned threads, bool resume,
                            uint64_t steps_max, dn_error *error)
{
    char output[128];
    snprintf(output, sizeof output, "%s/%s", folder, name);
    const dn_train_options options = {.recipe = recipe,
                                      .dataset = data,
                                      .output = output,
                                      .threads = threads,
                                      .resume = resume,
                                      .steps_max = steps_max,
                                      .progress = keep_loss};
    return dn_train(&options, error);
}

static int same_files(const char *first, const char *second, const char *file)
{
    unsigned char *a = NULL, *b = NULL;
    size_t a_bytes = 0, b_bytes = 1;
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", folder, first, file);
    int same = dn_file_read(&a, &a_bytes, path, 1 << 26, NULL) == DN_OK;
    snprintf(path, sizeof path, "%s/%s/%s", folder, second, file);
    same = same && dn_file_read(&b, &b_bytes, path, 1 << 26, NULL) == DN_OK && a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0;
    free(a);
    free(b);
    return same;
}

static void resumed_run_is_identical(void)
{
    dn_error error = {0};
    dn_recipe *recipe = NULL;
    dn_dataset *data = make_dataset();
    make_folder();
    CHECK_OK(recipe_of(&recipe, 66, "", &error), error);
    CHECK_OK(train_into("one", recipe, data, 1, false, 0, &error), error);
    CHECK_OK(train_into("two", recipe, data, 2, false, 0, &error), error);
    CHECK(train_into("resumed", recipe, data, 2, false, 3, &error) == DN_CANCELLED);
    CHECK_OK(train_into("resumed", recipe, data, 1, true, 0, &error), error);
    CHECK(same_files("one", "two", "checkpoint/state.safetensors"));
    CHECK(same_files("one", "two", "unet/diffusion_pytorch_model.safetensors"));
    CHECK(same_files("one", "resumed", "checkpoint/state.safetensors"));
    CHECK(same_files("one", "resumed", "unet/diffusion_pytorch_model.safetensors"));
    CHECK(train_into("one", recipe, data, 1, false, 0, &error) == DN_INVALID); /* never over a kept run */
    dn_recipe_free(recipe);
    CHECK_OK(recipe_of(&recipe, 77, "", &error), error);
    CHECK(train_into("one", recipe, data, 1, true, 0, &error) == DN_INVALID); /* another recipe's checkpoint */
    dn_recipe_free(recipe);
    free_dataset(data);
    drop_folder();
}

static void network_learns_and_its_folder_opens(void)
{
    dn_error error = {0};
    dn_recipe *recipe = NULL;
    dn_dataset *data = make_dataset();
    dn_model *model = NULL;
    dn_model_folder *opened = NULL;
    char path[128];
    make_folder();
    CHECK_OK(recipe_of(&recipe, 3300, "\"dtype\":\"F16\",\"min_snr_gamma\":5,", &error), error);
    CHECK_OK(train_into("model", recipe, data, 2, false, 0, &error), error);
    CHECK_MSG(last_loss < 0.5 * first_loss, "loss %g at first, %g at last", first_loss, last_loss);
    snprintf(path, sizeof path, "%s/model", folder);
    CHECK_OK(dn_model_folder_open(&opened, path, &error), error);
    CHECK(opened->class_count == 3 && strcmp(opened->class_names[2], "side") == 0);
    CHECK_OK(dn_model_open(&model, opened->network_path, 0, 0, &error), error);
    CHECK(model->class_rows == 4);
    dn_model_free(model);
    dn_model_folder_free(opened);
    dn_recipe_free(recipe);
    char init[256];
    snprintf(init, sizeof init, "\"init\":\"%s\",", path);
    CHECK_OK(recipe_of(&recipe, 110, init, &error), error);
    CHECK_OK(train_into("continued", recipe, data, 1, false, 0, &error), error);
    CHECK_MSG(last_loss < 0.7 * first_loss || first_loss < 0.5, "continued at loss %g", first_loss);
    dn_recipe_free(recipe);
    free_dataset(data);
    drop_folder();
}

static void recipes_are_strict(void)
{
    static const char *const cases[][2] = {{"\"epochs\":3,", "epochs"},
                                           {"\"decay\":\"linear\",", "decay"},
                                           {"\"betas\":[0.9],", "betas"},
                                           {"\"betas\":[0.9,1],", "betas"},
                                           {"\"dtype\":\"F64\",", "dtype"},
                                           {"\"clip\":-1,", "clip"},
                                           {"\"save_every_images\":0.5,", "save_every_images"},
                                           {"\"defaults\":3,", "defaults"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dn_recipe *recipe = NULL;
        dn_error error = {0};
        CHECK_MSG(recipe_of(&recipe, 66, cases[i][0], &error) == DN_INVALID, "%s was taken", cases[i][0]);
        CHECK_MSG(strstr(error.message, cases[i][1]), "%s", error.message);
    }
    dn_recipe *recipe = NULL;
    dn_error error = {0};
    CHECK(recipe_of(&recipe, 10, "", &error) == DN_INVALID && strstr(error.message, "images"));
    dn_dataset *data = make_dataset();
    make_folder();
    data->class_count = 4; /* and a null class: five rows are needed, there are four */
    CHECK_OK(recipe_of(&recipe, 66, "", &error), error);
    CHECK(train_into("x", recipe, data, 1, false, 0, &error) == DN_INVALID && strstr(error.message, "class rows"));
    dn_recipe_free(recipe);
    free_dataset(data);
    drop_folder();
}

static void losses_have_their_slopes(void)
{
    float target[5] = {0.3f, -0.2f, 1.0f, 0.0f, 0.7f}, output[5] = {1.5f, -0.5f, 0.25f, 2.0f, 0.1f}, d[5], unused[5];
    dn_example example = {.target = target, .weight = 1.7, .label = 3};
    dn_example_loss *const losses[] = {dn_loss_squared, dn_loss_cross_entropy};
    for (int k = 0; k < 2; k++) {
        losses[k](&example, output, d, 5);
        for (int i = 0; i < 5; i++) {
            float kept = output[i];
            output[i] = kept + 1.0f / 128;
            double up = losses[k](&example, output, unused, 5);
            output[i] = kept - 1.0f / 128;
            double down = losses[k](&example, output, unused, 5);
            output[i] = kept;
            CHECK_MSG(fabs((up - down) * 64 - (double)d[i]) < 1e-4, "loss %d output %d: %g, not %g", k, i, (up - down) * 64, (double)d[i]);
        }
    }
}

/* The first step moves every weight by the rate against its gradient's sign, whatever its size. */
static void adamw_takes_known_steps(void)
{
    dn_error error = {0};
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    dn_weights *weights = NULL, *gradient = NULL;
    dn_adamw *adamw = NULL;
    static const char *const name[] = {"layer"};
    dn_linear_options linear = DN_LINEAR_INIT;
    linear.modules = name;
    linear.out_channels = 1;
    CHECK_OK(dn_plan_begin(&builder, (dn_shape){1, 1, 2}, &error), error);
    dn_value out = dn_plan_linear(&builder, builder.plan->input, &linear);
    CHECK_OK(dn_plan_end(&plan, &builder, out, &error), error);
    CHECK_OK(dn_weights_create(&weights, plan, &error), error);
    CHECK_OK(dn_weights_create(&gradient, plan, &error), error);
    dn_adamw_options options = {.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-12, .weight_decay = 0.5, .clip = 5};
    CHECK_OK(dn_adamw_create(&adamw, plan, &options, &error), error);
    dn_weight w = plan->nodes[0].weight, b = plan->nodes[0].bias;
    double norm = 0;
    weights->data[w][0] = 1;
    gradient->data[w][0] = 30;
    gradient->data[w][1] = -40;
    CHECK_OK(dn_adamw_step(adamw, NULL, weights, gradient, 1, 0, &norm, &error), error);
    CHECK(fabs(norm - 50) < 1e-6);
    CHECK(fabs((double)gradient->data[w][0] - 3) < 1e-5 && fabs((double)gradient->data[w][1] + 4) < 1e-5); /* clipped to 5 */
    CHECK(fabs((double)weights->data[w][0] - (1 * 0.95 - 0.1)) < 1e-6); /* decayed, then moved by the rate */
    CHECK(fabs((double)weights->data[w][1] - 0.1) < 1e-6);
    CHECK((double)weights->data[b][0] == 0.0);
    gradient->data[w][0] = NAN;
    CHECK(dn_adamw_step(adamw, NULL, weights, gradient, 2, 0, NULL, &error) == DN_NUMERIC);
    options = (dn_adamw_options){.learning_rate = 1, .warmup = 9, .total = 109, .cosine = true};
    CHECK(fabs(dn_adamw_rate(&options, 0) - 0.1) < 1e-12 && fabs(dn_adamw_rate(&options, 9) - 1) < 1e-12);
    CHECK(fabs(dn_adamw_rate(&options, 59) - 0.5) < 1e-12 && fabs(dn_adamw_rate(&options, 109)) < 1e-12);
    dn_adamw_free(adamw);
    dn_weights_free(weights);
    dn_weights_free(gradient);
    dn_plan_free(plan);
}

int main(void)
{
    RUN(losses_have_their_slopes);
    RUN(adamw_takes_known_steps);
    RUN(recipes_are_strict);
    RUN(resumed_run_is_identical);
    RUN(network_learns_and_its_folder_opens);
    return test_end();
}
