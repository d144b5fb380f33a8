/* Training schedules: the table of alpha-bar that a network was trained on, read from a scheduler_config.json.
 *
 * A table is immutable once made and owned by whoever asked for it. Everything is computed in double, except that the
 * alphas and their product are rounded to float where diffusers 0.31 keeps floats: near alpha-bar = 1 that rounding
 * shows in sigma (1e-4), and rounded timesteps depend on it. Pure functions, any thread.
 *
 * The seed documents clip cosine betas from below at 1e-4; the paper (Nichol and Dhariwal 2021, eq. 17) and diffusers
 * clip from above only, at 0.999. */
#include "diffusion/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/scheduler_class.h"
#include "model/config_reader.h"

#define DN_BETA_MAX 0.999
#define DN_PI 3.14159265358979323846

static void betas_linear(double *betas, uint32_t count, double first, double last)
{
    for (uint32_t i = 0; i < count; i++)
        betas[i] = count == 1 ? first : first + (last - first) * i / (count - 1);
}

/* Latent diffusion's schedule: linear in the square root. */
static void betas_scaled_linear(double *betas, uint32_t count, double first, double last)
{
    betas_linear(betas, count, sqrt(first), sqrt(last));
    for (uint32_t i = 0; i < count; i++)
        betas[i] *= betas[i];
}

static double cosine_alpha_bar(double time)
{
    double value = cos((time + 0.008) / 1.008 * DN_PI / 2.0);
    return value * value;
}

/* diffusers' "laplace": log signal-to-noise ratios with the tails of a Laplace distribution. */
static double laplace_alpha_bar(double time)
{
    double lambda = -0.5 * copysign(1.0, 0.5 - time) * log(1.0 - 2.0 * fabs(0.5 - time) + 1e-6);
    double snr = exp(lambda);
    return sqrt(snr / (1.0 + snr));
}

static void betas_of_alpha_bar(double *betas, uint32_t count, double (*alpha_bar)(double time))
{
    for (uint32_t i = 0; i < count; i++)
        betas[i] = fmin(1.0 - alpha_bar((i + 1.0) / count) / alpha_bar((double)i / count), DN_BETA_MAX);
}

/* A logistic curve between the ends (GeoDiff). */
static void betas_sigmoid(double *betas, uint32_t count, double first, double last)
{
    for (uint32_t i = 0; i < count; i++)
        betas[i] = (last - first) / (1.0 + exp(6.0 - 12.0 * i / (count - 1))) + first;
}

static void cumulate(dn_training_schedule *schedule)
{
    double product = 1.0;
    for (uint32_t i = 0; i < schedule->timesteps; i++) {
        product *= (double)(1.0f - (float)schedule->betas[i]);
        schedule->alphas_cumprod[i] = (double)(float)product;
    }
}

/* Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", algorithm 1: shift and scale
 * sqrt(alpha-bar) so that the last is exactly 0 and the first keeps its value. */
static void rescale_zero_snr(dn_training_schedule *schedule)
{
    uint32_t count = schedule->timesteps;
    double *bar = schedule->alphas_cumprod;
    double first = sqrt(bar[0]), last = sqrt(bar[count - 1]);
    for (uint32_t i = 0; i < count; i++) {
        double root = (sqrt(bar[i]) - last) * (first / (first - last));
        bar[i] = root * root;
    }
    bar[count - 1] = 0.0;
    schedule->zero_snr = true;
    for (uint32_t i = count; i-- > 0;)
        schedule->betas[i] = 1.0 - (i == 0 ? bar[0] : bar[i] / bar[i - 1]);
}

static void read_trained_betas(dn_config_reader *reader, dn_training_schedule *schedule)
{
    const cJSON *list = dn_config_item(reader, "trained_betas"), *item = NULL;
    if (!cJSON_IsArray(list) || (uint32_t)cJSON_GetArraySize(list) != schedule->timesteps) {
        dn_config_fail(reader, DN_INVALID, "trained_betas", "must be a list of num_train_timesteps (%u) numbers", schedule->timesteps);
        return;
    }
    uint32_t i = 0;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0.0 && item->valuedouble < 1.0)) {
            dn_config_fail(reader, DN_INVALID, "trained_betas", "number %u must lie between 0 and 1", i);
            return;
        }
        schedule->betas[i++] = item->valuedouble;
    }
}

static void read_betas(dn_config_reader *reader, dn_training_schedule *schedule, const dn_scheduler_class *row)
{
    if (!dn_config_is_null(reader, "trained_betas")) {
        read_trained_betas(reader, schedule);
        return;
    }
    double first = dn_config_number(reader, "beta_start", row->beta_start, 1e-12, 0.999999);
    double last = dn_config_number(reader, "beta_end", row->beta_end, 1e-12, 0.999999);
    const char *kind = dn_config_text(reader, "beta_schedule", row->beta_schedule);
    if (strcmp(kind, "linear") == 0) {
        betas_linear(schedule->betas, schedule->timesteps, first, last);
    } else if (strcmp(kind, "scaled_linear") == 0) {
        betas_scaled_linear(schedule->betas, schedule->timesteps, first, last);
    } else if (strcmp(kind, "squaredcos_cap_v2") == 0) {
        betas_of_alpha_bar(schedule->betas, schedule->timesteps, cosine_alpha_bar);
        schedule->cosine = true;
    } else if (strcmp(kind, "laplace") == 0) {
        betas_of_alpha_bar(schedule->betas, schedule->timesteps, laplace_alpha_bar);
    } else if (strcmp(kind, "sigmoid") == 0) {
        betas_sigmoid(schedule->betas, schedule->timesteps, first, last);
    } else {
        dn_config_fail(reader, DN_UNSUPPORTED, "beta_schedule",
                       "\"%.60s\" is not one of linear, scaled_linear, squaredcos_cap_v2, laplace, sigmoid", kind);
    }
}

static void read_prediction(dn_config_reader *reader, dn_training_schedule *schedule)
{
    const char *text = dn_config_text(reader, "prediction_type", "epsilon");
    if (strcmp(text, "epsilon") == 0)
        schedule->prediction = DN_PREDICT_EPSILON;
    else if (strcmp(text, "sample") == 0)
        schedule->prediction = DN_PREDICT_SAMPLE;
    else if (strcmp(text, "v_prediction") == 0)
        schedule->prediction = DN_PREDICT_V;
    else
        dn_config_fail(reader, DN_UNSUPPORTED, "prediction_type", "\"%.60s\" is not one of epsilon, sample, v_prediction", text);
}

static dn_status training_create(dn_training_schedule **out, uint32_t timesteps, dn_error *error)
{
    dn_training_schedule *schedule = calloc(1, sizeof *schedule);
    if (schedule != NULL) {
        schedule->timesteps = timesteps;
        schedule->alphas_cumprod = calloc(timesteps, sizeof *schedule->alphas_cumprod);
        schedule->betas = calloc(timesteps, sizeof *schedule->betas);
    }
    if (schedule == NULL || schedule->alphas_cumprod == NULL || schedule->betas == NULL) {
        dn_training_schedule_free(schedule);
        return dn_fail(error, DN_NO_MEMORY, "no memory for a training schedule of %u timesteps", timesteps);
    }
    *out = schedule;
    return DN_OK;
}

/* The same schedule rescaled, for requests that want it so: made once, so that none makes it. */
static dn_status make_rescaled(dn_training_schedule *schedule, dn_error *error)
{
    dn_training_schedule *copy = NULL;
    dn_status status = training_create(&copy, schedule->timesteps, error);
    if (status != DN_OK)
        return status;
    double *bars = copy->alphas_cumprod, *betas = copy->betas;
    *copy = *schedule;
    copy->alphas_cumprod = bars;
    copy->betas = betas;
    memcpy(bars, schedule->alphas_cumprod, schedule->timesteps * sizeof *bars);
    rescale_zero_snr(copy);
    schedule->rescaled = copy;
    return DN_OK;
}

static dn_status training_read(dn_training_schedule **out, const cJSON *config, const char *path, dn_error *error)
{
    dn_training_schedule *schedule = NULL;
    const dn_scheduler_class *row = NULL;
    dn_config_reader reader;
    dn_status status = dn_config_reader_init(&reader, config, path, error);
    if (status != DN_OK)
        return status;
    if (dn_scheduler_class_of(&row, &reader) == DN_OK && dn_scheduler_family(row->name) != DN_FAMILY_VP)
        return dn_training_read_family(out, &reader, row->name, error);
    uint32_t timesteps = dn_config_count(&reader, "num_train_timesteps", 1000, 2, DN_TRAIN_TIMESTEPS_MAX);
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        status = training_create(&schedule, timesteps, error);
    if (status != DN_OK)
        return status;
    read_betas(&reader, schedule, row);
    read_prediction(&reader, schedule);
    cumulate(schedule);
    if (dn_config_bool(&reader, "rescale_betas_zero_snr", false))
        rescale_zero_snr(schedule);
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK && !schedule->zero_snr)
        status = make_rescaled(schedule, error);
    if (status == DN_OK)
        *out = schedule;
    else
        dn_training_schedule_free(schedule);
    return status;
}

dn_status dn_training_schedule_from_json(dn_training_schedule **out, const cJSON *config, const char *path, dn_error *error)
{
    if (config != NULL)
        return training_read(out, config, path, error);
    cJSON *empty = cJSON_CreateObject();
    if (empty == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a training schedule");
    dn_status status = training_read(out, empty, path != NULL ? path : "default scheduler", error);
    cJSON_Delete(empty);
    return status;
}

void dn_training_schedule_free(dn_training_schedule *schedule)
{
    if (schedule == NULL)
        return;
    dn_training_schedule_free(schedule->rescaled);
    free(schedule->alphas_cumprod);
    free(schedule->betas);
    free(schedule);
}

/* An alpha-bar of exactly 0 (zero terminal SNR) has no finite sigma: diffusers puts 2^-24 in its place. */
static double sigma_at(const dn_training_schedule *schedule, uint32_t index)
{
    double bar = schedule->alphas_cumprod[index];
    if (bar <= 0.0)
        bar = 0x1p-24;
    return sqrt((1.0 - bar) / bar);
}

double dn_training_sigma(const dn_training_schedule *schedule, double time)
{
    if (!(time > 0.0))
        return sigma_at(schedule, 0);
    if (time >= schedule->timesteps - 1)
        return sigma_at(schedule, schedule->timesteps - 1);
    uint32_t low = (uint32_t)time;
    double part = time - low;
    double sigma = sigma_at(schedule, low);
    return part > 0.0 ? sigma + (sigma_at(schedule, low + 1) - sigma) * part : sigma;
}
