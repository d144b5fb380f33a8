/* A classifier run over sets of pictures. Owns the model and its forward run. One thread. */
#include "evaluate/judge.h"

#include <math.h>
#include <stdlib.h>

#include "model/classifier.h"
#include "model/forward.h"

#define ROWS_OF_A_PASS 32u

struct dn_judge {
    dn_model *model;
    dn_forward *forward;
    dn_value features;
};

dn_status dn_judge_from_model(dn_judge **out, dn_model *model, unsigned threads, dn_error *error)
{
    dn_value features = dn_classifier_features(model->plan);
    if (features == DN_NONE || model->out_channels > 256)
        return dn_fail(error, DN_INVALID, "a judge must be a %s of at most 256 classes, not a %s", DN_CLASSIFIER_CLASS,
                       model->architecture);
    dn_judge *judge = calloc(1, sizeof *judge);
    if (judge == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    dn_forward_options options = {.threads = threads, .rows_max = ROWS_OF_A_PASS, .keep_values = true};
    dn_status status = dn_forward_open(&judge->forward, model, &options, error);
    if (status != DN_OK) {
        free(judge);
        return status;
    }
    judge->model = model;
    judge->features = features;
    *out = judge;
    return DN_OK;
}

dn_status dn_judge_open(dn_judge **out, const char *folder, unsigned threads, dn_error *error)
{
    dn_model *model = NULL;
    dn_status status = dn_model_open(&model, folder, 0, 0, error);
    if (status == DN_OK)
        status = dn_judge_from_model(out, model, threads, error);
    if (status != DN_OK)
        dn_model_free(model);
    return status;
}

void dn_judge_free(dn_judge *judge)
{
    if (judge == NULL)
        return;
    dn_forward_close(judge->forward);
    dn_model_free(judge->model);
    free(judge);
}

const dn_model *dn_judge_model(const dn_judge *judge)
{
    return judge->model;
}

/* 8-bit [H][W][C] to [-1, 1] as [C][H][W]: what the network was trained on. */
static void to_samples(float *out, const uint8_t *pixels, uint32_t count, const dn_model *model)
{
    size_t plane = (size_t)model->height * model->width, channels = model->channels;
    for (uint32_t n = 0; n < count; n++)
        for (size_t p = 0; p < plane; p++)
            for (size_t c = 0; c < channels; c++)
                out[(n * channels + c) * plane + p] = (float)pixels[(n * plane + p) * channels + c] / 127.5f - 1.0f;
}

typedef struct looking {
    const dn_judge *judge;
    dn_verdict *verdict;
    uint32_t first; /* of the pass's first picture */
} looking;

static dn_status keep_features(void *payload, dn_forward *forward, uint32_t first, uint32_t count, dn_error *error)
{
    looking *look = payload;
    dn_status status = DN_OK;
    for (uint32_t r = 0; r < count && status == DN_OK; r++)
        status = dn_forward_value(forward, look->judge->features, r,
                                  look->verdict->features + (size_t)(look->first + first + r) * look->verdict->dim, error);
    return status;
}

static uint8_t largest(const float *logits, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return (uint8_t)best;
}

static dn_status look_at(dn_verdict *verdict, dn_judge *judge, const uint8_t *pixels, uint32_t count, dn_error *error)
{
    size_t elements = dn_shape_count(judge->model->plan->values[judge->model->plan->input].shape);
    float *samples = malloc(ROWS_OF_A_PASS * elements * sizeof *samples);
    float *logits = malloc(ROWS_OF_A_PASS * verdict->class_count * sizeof *logits);
    dn_status status = samples != NULL && logits != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory");
    for (uint32_t first = 0; first < count && status == DN_OK; first += ROWS_OF_A_PASS) {
        uint32_t rows = count - first < ROWS_OF_A_PASS ? count - first : ROWS_OF_A_PASS;
        looking look = {judge, verdict, first};
        to_samples(samples, pixels + first * elements, rows, judge->model);
        dn_forward_rows pass = {.count = rows, .samples = samples};
        status = dn_forward_run(judge->forward, &pass, logits, keep_features, &look, error);
        for (uint32_t r = 0; r < rows && status == DN_OK; r++)
            verdict->labels[first + r] = largest(logits + (size_t)r * verdict->class_count, verdict->class_count);
    }
    free(samples);
    free(logits);
    return status;
}

dn_status dn_judge_look(dn_verdict **out, dn_judge *judge, const uint8_t *pixels, uint32_t count, dn_error *error)
{
    dn_verdict *verdict = calloc(1, sizeof *verdict);
    if (verdict == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    verdict->count = count;
    verdict->dim = judge->model->plan->values[judge->features].shape.c;
    verdict->class_count = judge->model->out_channels;
    verdict->labels = calloc(count + 1, sizeof *verdict->labels);
    verdict->features = calloc((size_t)count * verdict->dim + 1, sizeof *verdict->features);
    dn_status status = verdict->labels != NULL && verdict->features != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK)
        status = look_at(verdict, judge, pixels, count, error);
    if (status != DN_OK) {
        dn_verdict_free(verdict);
        return status;
    }
    *out = verdict;
    return DN_OK;
}

void dn_verdict_free(dn_verdict *verdict)
{
    if (verdict == NULL)
        return;
    free(verdict->labels);
    free(verdict->features);
    free(verdict);
}

void dn_agreement_of(dn_agreement *out, const dn_verdict *verdict, const uint8_t *wanted)
{
    uint32_t right[256] = {0}, asked[256] = {0}, all = 0;
    for (uint32_t i = 0; i < verdict->count; i++) {
        bool agrees = verdict->labels[i] == wanted[i];
        asked[wanted[i]]++;
        right[wanted[i]] += agrees;
        all += agrees;
    }
    *out = (dn_agreement){.overall = (double)all / verdict->count, .class_count = verdict->class_count};
    double lowest = 2.0;
    for (uint32_t c = 0; c < 256; c++) {
        out->per_class[c] = asked[c] ? (double)right[c] / asked[c] : (double)NAN;
        if (asked[c] && out->per_class[c] < lowest) {
            lowest = out->per_class[c];
            out->worst = c;
        }
    }
}
