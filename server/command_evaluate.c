/* `denoised evaluate`: does a model draw what it is asked for, and how far are its pictures from real ones?
 *
 * A classifier trained on the real training split labels generated pictures; its features give Frechet distances, precision
 * and recall against the real test split, beside those of real training pictures. One thread; Ctrl-C leaves no broken file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blas.h"
#include "base/clock.h"
#include "base/file.h"
#include "engine.h"
#include "evaluate/judge_training.h"
#include "server/commands.h"
#include "server/device_option.h"
#include "server/evaluation.h"
#include "server/evaluation_likelihood.h"
#include "server/options.h"
#include "server/progress.h"

#define LANES_OF_A_CHUNK 32u
#define NEIGHBOURS 3u
#define PER_CLASS_MAX 10000

typedef struct evaluation_plan {
    double guidance_scale;
    uint32_t steps;
} evaluation_plan;

typedef struct evaluate_job {
    const char *model_path, *data_path, *classifier_path, *output_path, *sampler;
    device_option device;
    uint64_t per_class, steps, seed, threads, epochs, likelihood, probes;
    bool no_flip;
    dn_engine *engine;
    dn_dataset *train, *test;
    dn_judge *judge;
    dn_gaussian *real; /* of the test split's features */
    dn_verdict *real_subset; /* per_class test pictures of each class */
    uint8_t *wanted, *pixels; /* of one generated set: [count], [count][H][W][C] */
    uint32_t count;
    size_t picture_bytes;
    dn_option_list settings; /* as given */
    evaluation_plan plan[EVALUATION_SETTINGS_MAX];
    uint32_t plan_count;
    evaluation result;
} evaluate_job;

static dn_status open_data(evaluate_job *job, dn_error *error)
{
    const dn_model *model = job->engine->model;
    dn_status status = dn_dataset_open(&job->train, job->data_path, DN_SPLIT_TRAIN, model->width, error);
    if (status == DN_OK)
        status = dn_dataset_open(&job->test, job->data_path, DN_SPLIT_TEST, model->width, error);
    if (status != DN_OK)
        return status;
    if (job->test->channels != model->channels || job->test->height != model->height || job->test->width != model->width)
        return dn_fail(error, DN_INVALID, "%s: pictures of %ux%u with %u channels are not what the model makes", job->data_path,
                       job->test->width, job->test->height, job->test->channels);
    if (job->test->class_count != job->engine->class_count || job->train->class_count != job->engine->class_count)
        return dn_fail(error, DN_INVALID, "%s: has %u classes, the model has %u", job->data_path, job->test->class_count,
                       job->engine->class_count);
    job->picture_bytes = (size_t)model->width * model->height * model->channels;
    job->count = job->engine->class_count * (uint32_t)job->per_class;
    job->wanted = malloc(job->count);
    job->pixels = malloc(job->count * job->picture_bytes);
    if (job->wanted == NULL || job->pixels == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%u pictures: out of memory", job->count);
    for (uint32_t i = 0; i < job->count; i++)
        job->wanted[i] = (uint8_t)(i % job->engine->class_count);
    return DN_OK;
}

static void show_training(void *payload, const dn_train_progress *progress)
{
    char note[64];
    snprintf(note, sizeof note, "loss %.3f", progress->smooth_loss);
    dn_progress_update(payload, (double)progress->images, note);
}

static dn_status train_judge(evaluate_job *job, dn_error *error)
{
    dn_progress_bar bar;
    dn_judge_training training = {.dataset = job->train,
                                  .epochs = (uint32_t)job->epochs,
                                  .seed = 1,
                                  .threads = (unsigned)job->threads,
                                  .flip = !job->no_flip,
                                  .progress = show_training,
                                  .payload = &bar};
    dn_progress_begin(&bar, "training the classifier", (double)job->epochs * job->train->count);
    dn_status status = dn_judge_train(&job->judge, &training, job->classifier_path, error);
    dn_progress_end(&bar);
    return status;
}

static dn_status find_judge(evaluate_job *job, dn_error *error)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", job->classifier_path ? job->classifier_path : "");
    FILE *found = job->classifier_path ? fopen(path, "rbe") : NULL;
    if (found == NULL)
        return train_judge(job, error);
    fclose(found);
    dn_status status = dn_judge_open(&job->judge, job->classifier_path, (unsigned)job->threads, error);
    if (status != DN_OK)
        return status;
    const dn_model *model = dn_judge_model(job->judge);
    if (model->width != job->test->width || model->height != job->test->height || model->channels != job->test->channels ||
        model->out_channels != job->test->class_count)
        return dn_fail(error, DN_INVALID, "%s: the classifier is for other pictures than those of %s", job->classifier_path,
                       job->data_path);
    snprintf(job->result.classifier_sha256, sizeof job->result.classifier_sha256, "%s", model->weights_sha256);
    return DN_OK;
}

/* The first per_class pictures of each class, or as many as there are. *out is malloc'd. */
static dn_status balanced_subset(uint8_t **out, uint32_t *out_count, const evaluate_job *job, const dn_dataset *set, dn_error *error)
{
    uint32_t taken[256] = {0}, count = 0;
    uint8_t *pixels = malloc(job->count * job->picture_bytes);
    if (pixels == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%u pictures: out of memory", job->count);
    for (uint32_t i = 0; i < set->count && count < job->count; i++)
        if (taken[set->labels[i]] < job->per_class) {
            taken[set->labels[i]]++;
            memcpy(pixels + count++ * job->picture_bytes, set->pixels + i * job->picture_bytes, job->picture_bytes);
        }
    *out = pixels;
    *out_count = count;
    return DN_OK;
}

/* Frechet distance to the whole test split; precision and recall against its balanced subset where asked for. */
static dn_status measure(evaluation_distance *out, const evaluate_job *job, const dn_verdict *verdict, bool neighbours, dn_error *error)
{
    dn_gaussian *fit = NULL;
    dn_status status = dn_gaussian_fit(&fit, verdict->features, verdict->count, verdict->dim, error);
    if (status == DN_OK)
        status = dn_frechet_distance(&out->frechet, fit, job->real, error);
    if (status == DN_OK && neighbours)
        status = dn_precision_recall_of(&out->precision_recall, job->real_subset->features, job->real_subset->count, verdict->features,
                                        verdict->count, verdict->dim, NEIGHBOURS, error);
    out->count = verdict->count;
    dn_gaussian_free(fit);
    return status;
}

static dn_status look_at_subset(dn_verdict **out, const evaluate_job *job, const dn_dataset *set, dn_error *error)
{
    uint8_t *pixels = NULL;
    uint32_t count = 0;
    dn_status status = balanced_subset(&pixels, &count, job, set, error);
    if (status == DN_OK)
        status = dn_judge_look(out, job->judge, pixels, count, error);
    free(pixels);
    return status;
}

/* What the judge says of real pictures: its accuracy, and the distances generated ones are to be held against. */
static dn_status measure_real(evaluate_job *job, dn_error *error)
{
    dn_verdict *test = NULL, *train = NULL, *subset = NULL;
    dn_status status = dn_judge_look(&test, job->judge, job->test->pixels, job->test->count, error);
    if (status == DN_OK) {
        dn_agreement_of(&job->result.classifier, test, job->test->labels);
        status = dn_gaussian_fit(&job->real, test->features, test->count, test->dim, error);
    }
    if (status == DN_OK)
        status = look_at_subset(&job->real_subset, job, job->test, error);
    if (status == DN_OK)
        status = look_at_subset(&subset, job, job->train, error);
    if (status == DN_OK)
        status = measure(&job->result.train_subset, job, subset, true, error);
    if (status == DN_OK)
        status = dn_judge_look(&train, job->judge, job->train->pixels, job->train->count, error);
    if (status == DN_OK)
        status = measure(&job->result.train, job, train, false, error);
    dn_verdict_free(test);
    dn_verdict_free(train);
    dn_verdict_free(subset);
    return status;
}

typedef struct chunk_progress {
    dn_progress_bar *bar;
    uint32_t before; /* pictures of earlier chunks */
    uint32_t size;
} chunk_progress;

static bool show_chunk(void *payload, uint32_t steps_done, uint32_t steps_total)
{
    chunk_progress *chunk = payload;
    double share = steps_total ? (double)steps_done / steps_total : 0.0;
    dn_progress_update(chunk->bar, chunk->before + share * chunk->size, "");
    return true;
}

static dn_lane_spec spec_of(const evaluate_job *job, double guidance_scale, uint32_t steps, uint32_t picture)
{
    dn_lane_spec spec = {.seed = job->seed + picture,
                         .has_class = true,
                         .class_index = job->wanted[picture],
                         .guidance_scale = guidance_scale,
                         .steps = steps};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", job->sampler);
    return spec;
}

static dn_status generate(evaluate_job *job, const evaluation_setting *setting, dn_error *error)
{
    char label[48];
    dn_progress_bar bar;
    dn_status status = DN_OK;
    snprintf(label, sizeof label, "s=%g, %u steps", setting->guidance_scale, setting->steps);
    dn_progress_begin(&bar, label, job->count);
    for (uint32_t first = 0; first < job->count && status == DN_OK; first += LANES_OF_A_CHUNK) {
        dn_lane_spec specs[LANES_OF_A_CHUNK];
        uint32_t n = job->count - first < LANES_OF_A_CHUNK ? job->count - first : LANES_OF_A_CHUNK;
        for (uint32_t i = 0; i < n; i++)
            specs[i] = spec_of(job, setting->guidance_scale, setting->steps, first + i);
        chunk_progress chunk = {&bar, first, n};
        status = dn_generate(job->engine, specs, n, job->pixels + first * job->picture_bytes, NULL, show_chunk, &chunk, error);
    }
    dn_progress_end(&bar);
    return status;
}

static dn_status measure_setting(evaluate_job *job, double guidance_scale, uint32_t steps, dn_error *error)
{
    evaluation_setting *setting = &job->result.settings[job->result.setting_count++];
    dn_verdict *verdict = NULL;
    *setting = (evaluation_setting){.guidance_scale = guidance_scale, .steps = steps};
    double started = dn_now_seconds();
    dn_status status = generate(job, setting, error);
    setting->seconds = dn_now_seconds() - started;
    if (status == DN_OK)
        status = dn_judge_look(&verdict, job->judge, job->pixels, job->count, error);
    if (status == DN_OK) {
        dn_agreement_of(&setting->agreement, verdict, job->wanted);
        status = measure(&setting->distance, job, verdict, true, error);
    }
    dn_verdict_free(verdict);
    return status;
}

static void plan_setting(evaluate_job *job, double guidance_scale, uint32_t steps)
{
    job->plan[job->plan_count++] = (evaluation_plan){guidance_scale, steps};
}

/* The settings asked for by --setting, else guidance scales at --steps, and a scale of 2 at few and many steps. */
static dn_status plan_settings(evaluate_job *job, dn_error *error)
{
    static const double scales[] = {1.0, 1.5, 2.0, 3.0};
    static const uint32_t other_steps[] = {10, 50};
    for (uint32_t i = 0; i < job->settings.count; i++) {
        double scale = 0.0;
        unsigned steps = 0;
        char rest = '\0';
        if (sscanf(job->settings.values[i], "%lf:%u%c", &scale, &steps, &rest) != 2 || !(fabs(scale) <= DN_GUIDANCE_SCALE_MAX) ||
            steps < 1 || steps > DN_STEPS_MAX || job->plan_count == EVALUATION_SETTINGS_MAX)
            return dn_fail(error, DN_INVALID, "--setting %s: must be a guidance scale, a colon and a number of steps; at most %d of them",
                           job->settings.values[i], EVALUATION_SETTINGS_MAX);
        plan_setting(job, scale, steps);
    }
    if (job->plan_count > 0)
        return DN_OK;
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++)
        plan_setting(job, scales[i], (uint32_t)job->steps);
    for (size_t i = 0; i < sizeof other_steps / sizeof other_steps[0]; i++)
        if (other_steps[i] != job->steps)
            plan_setting(job, 2.0, other_steps[i]);
    return DN_OK;
}

/* What cannot be sampled is refused now, not after minutes of training a judge. */
static dn_status check_settings(const evaluate_job *job, dn_error *error)
{
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < job->plan_count && status == DN_OK; i++) {
        dn_lane_spec spec = spec_of(job, job->plan[i].guidance_scale, job->plan[i].steps, 0);
        status = dn_lane_spec_check(job->engine, &spec, error);
    }
    return status;
}

static dn_status evaluate_likelihood(const evaluate_job *job, dn_error *error)
{
    const likelihood_request request = {.engine = job->engine,
                                        .test = job->test,
                                        .count = (uint32_t)job->likelihood,
                                        .probes = (uint32_t)job->probes,
                                        .seed = job->seed,
                                        .threads = (unsigned)job->threads,
                                        .output_path = job->output_path};
    return likelihood_evaluate(&request, error);
}

static dn_status evaluate(evaluate_job *job, dn_error *error)
{
    dn_engine_options options = {.threads = (unsigned)job->threads};
    dn_status status = device_option_settle(&job->device, &options, "evaluate", job->likelihood > 0 ? "cpu" : "auto", error);
    if (status == DN_OK && job->likelihood > 0 && !job->device.choice.backend->host_values)
        status = dn_fail(error, DN_UNSUPPORTED, "--likelihood runs on the CPU alone, which has the gradients it needs: --device cpu");
    if (status == DN_OK)
        status = dn_engine_open(&job->engine, job->model_path, &options, error);
    if (status == DN_OK && !job->engine->backend->host_values)
        fprintf(stderr, "pictures are made on %s; their judge learns and works on the CPU\n", job->engine->device_text);
    if (status == DN_OK)
        status = open_data(job, error);
    if (status == DN_OK && job->likelihood > 0)
        return evaluate_likelihood(job, error);
    if (status == DN_OK)
        status = check_settings(job, error);
    if (status == DN_OK && job->output_path != NULL)
        status = dn_file_check_target(job->output_path, error);
    if (status == DN_OK)
        status = dn_blas_open(error);
    if (status == DN_OK)
        fprintf(stderr, "linear algebra: %s, 1 thread\n", dn_blas_describe());
    if (status == DN_OK)
        status = find_judge(job, error);
    if (status == DN_OK)
        status = measure_real(job, error);
    job->result.engine = job->engine;
    job->result.sampler = job->sampler;
    job->result.per_class = (uint32_t)job->per_class;
    job->result.seed = job->seed;
    for (uint32_t i = 0; i < job->plan_count && status == DN_OK; i++)
        status = measure_setting(job, job->plan[i].guidance_scale, job->plan[i].steps, error);
    if (status == DN_OK)
        evaluation_print(&job->result);
    if (status == DN_OK && job->output_path != NULL)
        status = evaluation_save(&job->result, job->output_path, error);
    return status;
}

static void free_job(evaluate_job *job)
{
    free(job->wanted);
    free(job->pixels);
    dn_gaussian_free(job->real);
    dn_verdict_free(job->real_subset);
    dn_judge_free(job->judge);
    dn_dataset_free(job->train);
    dn_dataset_free(job->test);
    dn_engine_close(job->engine);
}

int dn_command_evaluate(int argc, char **argv)
{
    evaluate_job job = {.sampler = "dpmpp_2m", .per_class = 100, .steps = 20, .seed = 1, .epochs = 8, .probes = 4};
    const dn_option options[] = {
        DN_NEEDED_OPTION("model", "DIR", job.model_path, "the model to judge"),
        DN_NEEDED_OPTION("data", "DIR", job.data_path, "real pictures: a folder of IDX files"),
        DN_TEXT_OPTION("classifier", "DIR", job.classifier_path, "the judge; trained and kept there if missing"),
        DN_COUNT_OPTION("classifier-epochs", job.epochs, 1, 1000, "passes over the pictures to train it; 8"),
        DN_FLAG_OPTION("no-flip", job.no_flip, "train it without mirrored pictures (digits, letters)"),
        DN_COUNT_OPTION("per-class", job.per_class, 2, PER_CLASS_MAX, "generated pictures of each class; 100"),
        DN_COUNT_OPTION("steps", job.steps, 1, DN_STEPS_MAX, "sampler steps for s = 1, 1.5, 2, 3; 20"),
        DN_LIST_OPTION("setting", "S:STEPS", job.settings, "only this scale and steps; may be given several times"),
        DN_TEXT_OPTION("sampler", "NAME", job.sampler, "dpmpp_2m"),
        DN_COUNT_OPTION("likelihood", job.likelihood, 1, UINT32_MAX, "instead: bits per dimension of so many test pictures"),
        DN_COUNT_OPTION("probes", job.probes, 1, 64, "random vectors for each of these; 4"),
        DN_COUNT_OPTION("seed", job.seed, 0, UINT64_MAX, "of the first picture; 1"),
        DN_TEXT_OPTION("output", "FILE", job.output_path, "the numbers as JSON"),
        DN_DEVICE_OPTIONS(job.device, "auto; --likelihood: cpu"),
        DN_COUNT_OPTION("threads", job.threads, 0, DN_THREADS_MAX, "0, the default: all available"),
    };
    const dn_command_line line = {.command = "evaluate",
                                  .operands = "",
                                  .summary = "Judges generated pictures by a classifier trained on real ones.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0]};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    dn_error error = {DN_OK, ""};
    if (plan_settings(&job, &error) != DN_OK) {
        (void)dn_command_failed("evaluate", &error);
        return DN_EXIT_USAGE;
    }
    dn_status result = evaluate(&job, &error);
    free_job(&job);
    return result == DN_OK ? DN_EXIT_OK : dn_command_failed("evaluate", &error);
}
