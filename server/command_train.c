/* `denoised train`: a network trained from a recipe and labelled pictures, with a bar on standard error and 400 lines of
 * train.log in a whole run. SIGINT and SIGTERM end it after its step, with a checkpoint. One thread calls
 * the trainer, which owns a pool. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "server/commands.h"
#include "server/options.h"
#include "server/training_samples.h"
#include "train/train.h"

#define PATH_BYTES 4096
#define BAR_CELLS 24
#define LOG_LINES 400u /* of train.log in a whole run */

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

typedef struct train_job {
    const char *recipe_path, *data, *output, *init, *isa;
    uint64_t threads;
    bool resume;
    dn_recipe *recipe;
    dn_dataset *dataset;
    FILE *log;
    bool terminal;
    double drawn; /* when the bar was last drawn */
    uint64_t logged; /* log line number last written */
} train_job;

static void draw_bar(train_job *job, const dn_train_progress *p)
{
    char cells[BAR_CELLS + 1];
    int filled = (int)(p->images * BAR_CELLS / (p->images_total ? p->images_total : 1));
    double now = dn_now_seconds();
    bool last = p->images + job->recipe->batch > p->images_total;
    if (now - job->drawn < (job->terminal ? 0.25 : 30) && !last) {
        return;
    }
    job->drawn = now;
    for (int i = 0; i < BAR_CELLS; i++) {
        cells[i] = i < filled ? '#' : '.';
    }
    cells[BAR_CELLS] = 0;
    unsigned left = (unsigned)p->seconds_left;
    fprintf(stderr, "%s[%s] %llu/%llu images  loss %.4f  %.1f images/s  %u:%02u:%02u left%s", job->terminal ? "\r" : "", cells,
            (unsigned long long)p->images, (unsigned long long)p->images_total, p->smooth_loss, p->images_per_second, left / 3600,
            left / 60 % 60, left % 60, job->terminal && !last ? "\033[K" : "\n");
}

/* A sheet that cannot be drawn is no reason to stop training. */
static void draw_samples(const train_job *job, uint64_t images)
{
    dn_error error = {0};
    if (dn_training_samples(job->output, images, (unsigned)job->threads, &error) != DN_OK) {
        fprintf(job->log, "images %llu samples: %s\n", (unsigned long long)images, error.message);
    }
}

static void on_progress(void *payload, const dn_train_progress *p)
{
    train_job *job = payload;
    uint64_t line = p->images * LOG_LINES / (p->images_total ? p->images_total : 1);
    draw_bar(job, p);
    if (line != job->logged || p->saved) {
        job->logged = line;
        fprintf(job->log, "images %llu loss %.5f gradient %.4f rate %.3g images_per_second %.1f%s\n", (unsigned long long)p->images,
                p->smooth_loss, p->gradient_norm, p->learning_rate, p->images_per_second, p->saved ? " saved" : "");
        fflush(job->log);
    }
    if (p->samples_due) {
        draw_samples(job, p->images);
    }
}

/* --init is a change of the recipe, so that a resumed run knows of it. */
static dn_status read_recipe(train_job *job, dn_error *error)
{
    dn_status status = dn_recipe_read(&job->recipe, job->recipe_path, error);
    if (status != DN_OK || !job->init) {
        return status;
    }
    cJSON *json = cJSON_Duplicate(job->recipe->json, true);
    dn_recipe_free(job->recipe);
    job->recipe = NULL;
    cJSON_DeleteItemFromObjectCaseSensitive(json, "init");
    if (!json || !cJSON_AddStringToObject(json, "init", job->init)) {
        cJSON_Delete(json);
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", job->recipe_path);
    }
    return dn_recipe_from_json(&job->recipe, json, job->recipe_path, error);
}

/* Always appended to: what a finished or refused run left there is the record of hours. */
static dn_status open_log(train_job *job, dn_error *error)
{
    char path[PATH_BYTES];
    dn_status status = dn_make_folder(job->output, error);
    if (status != DN_OK) {
        return status;
    }
    snprintf(path, sizeof path, "%.4000s/train.log", job->output);
    job->log = fopen(path, "ae");
    return job->log ? DN_OK : dn_fail(error, DN_IO, "%s: %s", path, strerror(errno));
}

static dn_status train(train_job *job, dn_error *error)
{
    dn_status status = read_recipe(job, error);
    if (status == DN_OK) {
        status = dn_dataset_open(&job->dataset, job->data, DN_SPLIT_TRAIN, job->recipe->pad, error);
    }
    if (status == DN_OK) {
        status = open_log(job, error);
    }
    if (status != DN_OK) {
        return status;
    }
    const dn_train_options options = {.recipe = job->recipe,
                                      .dataset = job->dataset,
                                      .output = job->output,
                                      .threads = (unsigned)job->threads,
                                      .isa = job->isa,
                                      .resume = job->resume,
                                      .cancel = &stop,
                                      .progress = on_progress,
                                      .payload = job};
    return dn_train(&options, error);
}

int dn_command_train(int argc, char **argv)
{
    train_job job = {.terminal = isatty(STDERR_FILENO) == 1};
    const dn_option options[] = {
        DN_NEEDED_OPTION("recipe", "FILE", job.recipe_path, "what to train, and how"),
        DN_NEEDED_OPTION("data", "DIR", job.data, "folder of an IDX data set (train-images-idx3-ubyte[.gz])"),
        DN_NEEDED_OPTION("output", "DIR", job.output, "receives the model, train.log and checkpoint/"),
        DN_TEXT_OPTION("init", "DIR", job.init, "start from this model's weights instead of random ones"),
        DN_COUNT_OPTION("threads", job.threads, 0, DN_THREADS_MAX, "processor threads (default: all)"),
        DN_TEXT_OPTION("isa", "NAME", job.isa, "instruction set, one that inspect --cpu lists (the best)"),
        DN_FLAG_OPTION("resume", job.resume, "go on from DIR/checkpoint"),
    };
    const dn_command_line line = {.command = "train",
                                  .operands = "",
                                  .summary = "Trains a class-conditional diffusion network, on the CPU.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0]};
    char **operands = NULL;
    int operand_count = 0, exit_status = dn_options_parse(&line, argc, argv, &operands, &operand_count);
    if (exit_status != DN_OPTIONS_GO_ON) {
        return exit_status;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    dn_error error = {0};
    dn_status status = train(&job, &error);
    if (job.log) {
        fclose(job.log);
    }
    dn_dataset_free(job.dataset);
    dn_recipe_free(job.recipe);
    return status == DN_OK ? DN_EXIT_OK : dn_command_failed("train", &error);
}
