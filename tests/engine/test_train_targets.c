/* What training asks of a network: the first loss of each prediction against its definition, with and without min-SNR
 * weights; dropped labels; the order, mirroring and choices of pictures; the running average; the optimizer's second step. */
#include "tests/test.h"

#include <ftw.h>
#include <unistd.h>

#include "base/philox.h"
#include "diffusion/schedule.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/model.h"
#include "train/draw.h"
#include "train/train.h"

#define SIDE 8
#define PICTURES 20
#define BATCH 16
#define SEED 5
#define UNET                                                                                                                               \
    "{\"_class_name\":\"UNet2DModel\",\"sample_size\":8,\"in_channels\":1,\"out_channels\":1,"                                             \
    "\"block_out_channels\":[8],\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":[\"UpBlock2D\"],"                                \
    "\"layers_per_block\":1,\"norm_num_groups\":4,\"add_attention\":false,\"num_class_embeds\":3}"

static dn_error error;
static uint8_t pixels[PICTURES * SIDE * SIDE], labels[PICTURES];
static const dn_dataset data = {
    .count = PICTURES, .width = SIDE, .height = SIDE, .channels = 1, .class_count = 2, .pixels = pixels, .labels = labels};

static dn_status read_json(cJSON **out, const char *text)
{
    return dn_json_parse(out, text, strlen(text), &(dn_json_limits){.bytes_max = 4096}, NULL, &error);
}

static void keep_loss(void *payload, const dn_train_progress *p)
{
    *(double *)payload = p->loss;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

/* Trains from random weights into a folder, which stays. */
static dn_status train_into(const char *folder, double *loss, const char *prediction, double gamma, double dropout, int images)
{
    char text[1024], weights[48] = "";
    cJSON *json = NULL;
    dn_recipe *recipe = NULL;
    if (gamma > 0)
        snprintf(weights, sizeof weights, "\"min_snr_gamma\":%g,", gamma);
    snprintf(text, sizeof text,
             "{\"unet\":" UNET ","
             "\"scheduler\":{\"_class_name\":\"DDIMScheduler\",\"prediction_type\":\"%s\"},%s"
             "\"images\":%d,\"batch\":%d,\"flip\":true,\"class_dropout\":%g,\"seed\":%d}",
             prediction, weights, images, BATCH, dropout, SEED);
    dn_status status = read_json(&json, text);
    if (status == DN_OK)
        status = dn_recipe_from_json(&recipe, json, "recipe.json", &error);
    if (status != DN_OK)
        return status;
    const dn_train_options options = {
        .recipe = recipe, .dataset = &data, .output = folder, .threads = 1, .progress = keep_loss, .payload = loss};
    status = dn_train(&options, &error);
    dn_recipe_free(recipe);
    return status;
}

/* One step: the last layer starts at zero, so the answer is 0, and the loss the target's size. */
static dn_status first_loss(double *loss, const char *prediction, double gamma)
{
    char folder[] = "/tmp/denoised-targets-XXXXXX";
    if (mkdtemp(folder) == NULL)
        return DN_IO;
    dn_status status = train_into(folder, loss, prediction, gamma, 0.3, BATCH);
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return status;
}

/* The mean over a batch of weight * mean(target^2), from the definitions: x_t = a x0 + s n; the targets n, x0 and a n - s x0;
 * min-SNR (Hang et al. 2023) by the signal-to-noise ratio a^2 / s^2. */
static double expected_loss(const char *prediction, double gamma, const double *bar, uint32_t timesteps)
{
    uint32_t order[BATCH];
    dn_draw *draw = NULL;
    double sum = 0;
    if (dn_draw_create(&draw, &data, SEED, &error) != DN_OK)
        return NAN;
    dn_draw_order(draw, 0, BATCH, order);
    for (uint64_t g = 0; g < BATCH; g++) {
        float noise[SIDE * SIDE];
        int mirrored = dn_draw_choice(SEED, g, DN_CHOICE_FLIP) < 0.5;
        double a2 = bar[(uint32_t)(dn_draw_choice(SEED, g, DN_CHOICE_TIME) * timesteps)], a = sqrt(a2), s = sqrt(1 - a2);
        double snr = a2 / (1 - a2), low = fmin(snr, gamma), weight = 1, squares = 0;
        dn_noise_normal(noise, SIDE * SIDE, 0, SEED, DN_STREAM_TRAIN, (uint32_t)g);
        for (int p = 0; p < SIDE * SIDE; p++) {
            int x = mirrored ? SIDE - 1 - p % SIDE : p % SIDE;
            double x0 = pixels[order[g] * SIDE * SIDE + (uint32_t)(p / SIDE * SIDE + x)] / 127.5 - 1, n = (double)noise[p];
            double target = prediction[0] == 'e' ? n : prediction[0] == 's' ? x0 : a * n - s * x0;
            squares += target * target;
        }
        if (gamma > 0)
            weight = prediction[0] == 'e' ? low / snr : prediction[0] == 's' ? low : low / (snr + 1);
        sum += weight * squares / (SIDE * SIDE);
    }
    dn_draw_free(draw);
    return sum / BATCH;
}

static void the_first_loss_is_the_targets_size(void)
{
    static const char *const predictions[] = {"epsilon", "sample", "v_prediction"};
    dn_training_schedule *schedule = NULL;
    CHECK_OK(dn_training_schedule_from_json(&schedule, NULL, NULL, &error), error);
    for (int i = 0; i < 6; i++) {
        double got = 0, gamma = i < 3 ? 0 : 5;
        CHECK_OK(first_loss(&got, predictions[i % 3], gamma), error);
        double expected = expected_loss(predictions[i % 3], gamma, schedule->alphas_cumprod, schedule->timesteps);
        CHECK_MSG(fabs(got - expected) <= 1e-5 * expected, "%s, min-SNR %g: loss %.8g, not %.8g", predictions[i % 3], gamma, got, expected);
    }
    dn_training_schedule_free(schedule);
}

#define ROWS 3 /* of the class table: two classes, then the null class */
#define WIDTH 32

static bool read_table(float out[ROWS * WIDTH], const char *folder, const char *file, const char *tensor)
{
    char path[256];
    dn_safetensors *opened = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    bool read = dn_safetensors_open(&opened, path, &error) == DN_OK;
    const dn_tensor_info *info = read ? dn_safetensors_find(opened, tensor) : NULL;
    read = info != NULL && info->count == ROWS * WIDTH && dn_safetensors_read_f32(opened, info, out, &error) == DN_OK;
    dn_safetensors_close(opened);
    return read;
}

/* Trains a little with labels dropped always or never. Bit r of *moved: row r of the class table left its start. The folder's
 * model must hold the running average, not the last weights. */
static void train_classes(double dropout, unsigned *moved)
{
    float start[ROWS * WIDTH], last[ROWS * WIDTH], average[ROWS * WIDTH], kept[ROWS * WIDTH];
    char folder[] = "/tmp/denoised-classes-XXXXXX";
    double loss = 0;
    CHECK(mkdtemp(folder) != NULL);
    dn_status status = train_into(folder, &loss, "epsilon", 0, dropout, 5 * BATCH);
    bool read = read_table(last, folder, "checkpoint/state.safetensors", "weights/class_embedding.weight") &&
                read_table(average, folder, "checkpoint/state.safetensors", "average/class_embedding.weight") &&
                read_table(kept, folder, "unet/diffusion_pytorch_model.safetensors", "class_embedding.weight");
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    CHECK_OK(status, error);
    CHECK(read);
    CHECK(memcmp(kept, average, sizeof kept) == 0 && memcmp(kept, last, sizeof kept) != 0);
    cJSON *config = NULL;
    dn_model *model = NULL;
    CHECK_OK(read_json(&config, UNET), error);
    CHECK_OK(dn_model_from_config(&model, config, "unet", &error), error);
    CHECK_OK(dn_weights_create(&model->weights, model->plan, &error), error);
    dn_initialise(model->plan, model->weights, SEED, true);
    for (uint32_t w = 0; w < model->plan->weight_count; w++)
        if (strcmp(model->plan->weights[w].parts[0], "class_embedding.weight") == 0)
            memcpy(start, model->weights->data[w], sizeof start);
    dn_model_free(model);
    cJSON_Delete(config);
    *moved = 0;
    for (unsigned r = 0; r < ROWS; r++)
        *moved |= memcmp(start + r * WIDTH, last + r * WIDTH, WIDTH * sizeof *start) != 0 ? 1u << r : 0;
}

/* A dropped label is the null class, the last row; one that is kept is its own row. */
static void dropped_labels_are_the_null_class(void)
{
    unsigned moved = 0;
    train_classes(1, &moved);
    if (!test_failed)
        CHECK_MSG(moved == 4, "always dropped: rows %x learned", moved);
    if (!test_failed)
        train_classes(0, &moved);
    if (!test_failed)
        CHECK_MSG(moved == 3, "never dropped: rows %x learned", moved);
}

static void an_epoch_is_a_permutation(void)
{
    enum { EPOCHS = 3 };
    uint32_t order[EPOCHS * PICTURES], again[PICTURES];
    dn_draw *draw = NULL;
    CHECK_OK(dn_draw_create(&draw, &data, SEED, &error), error);
    dn_draw_order(draw, 0, EPOCHS * PICTURES, order);
    dn_draw_order(draw, PICTURES, PICTURES, again);
    dn_draw_free(draw);
    CHECK(memcmp(again, order + PICTURES, sizeof again) == 0);
    CHECK(memcmp(order, order + PICTURES, sizeof again) != 0);
    for (int e = 0; e < EPOCHS; e++) {
        unsigned seen = 0;
        for (int i = 0; i < PICTURES; i++)
            seen |= 1u << order[e * PICTURES + i];
        CHECK_MSG(seen == (1u << PICTURES) - 1, "epoch %d leaves pictures out", e);
    }
}

static void choices_are_even_and_apart(void)
{
    enum { COUNT = 20000 };
    double sum[3] = {0}, product = 0;
    for (uint64_t g = 0; g < COUNT; g++) {
        double of[3];
        for (int c = 0; c < 3; c++) {
            of[c] = dn_draw_choice(SEED, g, (dn_choice)c);
            CHECK(of[c] >= 0 && of[c] < 1);
            sum[c] += of[c] - 0.5;
        }
        product += (of[DN_CHOICE_FLIP] - 0.5) * (of[DN_CHOICE_DROP] - 0.5);
    }
    for (int c = 0; c < 3; c++)
        CHECK_MSG(fabs(sum[c] / COUNT) < 0.01, "choice %d has the mean %.4f", c, 0.5 + sum[c] / COUNT);
    CHECK_MSG(fabs(product / COUNT) < 0.003, "flips and drops go together: %.5f", product / COUNT);
}

static dn_status make_pair(dn_plan **plan, dn_weights **first, dn_weights **second)
{
    static const char *const name[] = {"layer"};
    dn_plan_builder builder;
    dn_linear_options linear = DN_LINEAR_INIT;
    linear.modules = name;
    linear.out_channels = 1;
    dn_status status = dn_plan_begin(&builder, (dn_shape){1, 1, 2}, &error);
    if (status == DN_OK)
        status = dn_plan_end(plan, &builder, dn_plan_linear(&builder, builder.plan->input, &linear), &error);
    if (status == DN_OK)
        status = dn_weights_create(first, *plan, &error);
    return status == DN_OK ? dn_weights_create(second, *plan, &error) : status;
}

/* average += (1 - d)(w - average), d = min(decay, (1 + step) / (10 + step)). */
static void the_average_follows(void)
{
    dn_plan *plan = NULL;
    dn_weights *average = NULL, *weights = NULL;
    CHECK_OK(make_pair(&plan, &average, &weights), error);
    dn_weight w = plan->nodes[0].weight;
    double expected = 0;
    weights->data[w][0] = 1;
    for (uint64_t step = 0; step < 40; step++) {
        double early = (1.0 + (double)step) / (10.0 + (double)step);
        expected += (1 - fmin(0.7, early)) * (1 - expected);
        dn_average_step(NULL, plan, average, weights, 0.7, step);
        CHECK_MSG(fabs((double)average->data[w][0] - expected) < 1e-6, "step %d: %.7g, not %.7g", (int)step, (double)average->data[w][0],
                  expected);
    }
    CHECK((double)average->data[w][1] == 0.0);
    dn_weights_free(average);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

/* Loshchilov and Hutter 2019, algorithm 2, in double beside the optimizer, for five steps of changing gradients. */
static void adamw_takes_five_known_steps(void)
{
    dn_plan *plan = NULL;
    dn_weights *weights = NULL, *gradient = NULL;
    dn_adamw *adamw = NULL;
    dn_adamw_options options = {.learning_rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .weight_decay = 0.5};
    CHECK_OK(make_pair(&plan, &weights, &gradient), error);
    CHECK_OK(dn_adamw_create(&adamw, plan, &options, &error), error);
    dn_weight w = plan->nodes[0].weight, b = plan->nodes[0].bias;
    double x[2] = {1, 0.5}, m[2] = {0}, v[2] = {0};
    weights->data[w][0] = (float)x[0];
    weights->data[b][0] = (float)x[1];
    for (int step = 1; step <= 5; step++) {
        for (int i = 0; i < 2; i++) {
            double g = (i ? -2 : 1) * (step % 2 ? 0.3 : -0.1) * step, decay = i ? 0 : 0.5; /* a bias is not decayed */
            gradient->data[i ? b : w][0] = (float)g;
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            x[i] -= 0.1 * (m[i] / (1 - pow(0.9, step)) / (sqrt(v[i] / (1 - pow(0.99, step))) + 1e-8) + decay * x[i]);
        }
        CHECK_OK(dn_adamw_step(adamw, NULL, weights, gradient, (uint64_t)step, 0, NULL, &error), error);
        CHECK_MSG(fabs((double)weights->data[w][0] - x[0]) < 1e-5 && fabs((double)weights->data[b][0] - x[1]) < 1e-5,
                  "step %d: %.7g and %.7g, not %.7g and %.7g", step, (double)weights->data[w][0], (double)weights->data[b][0], x[0], x[1]);
    }
    dn_adamw_free(adamw);
    dn_weights_free(weights);
    dn_weights_free(gradient);
    dn_plan_free(plan);
}

int main(void)
{
    for (uint32_t i = 0; i < PICTURES * SIDE * SIDE; i++)
        pixels[i] = (uint8_t)(dn_noise_word(3, DN_STREAM_PROBE, 0, i) % 256);
    for (uint32_t i = 0; i < PICTURES; i++)
        labels[i] = (uint8_t)(i % 2);
    RUN(the_first_loss_is_the_targets_size);
    RUN(dropped_labels_are_the_null_class);
    RUN(an_epoch_is_a_permutation);
    RUN(choices_are_even_and_apart);
    RUN(the_average_follows);
    RUN(adamw_takes_five_known_steps);
    return test_end();
}
