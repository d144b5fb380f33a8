/* What `denoised evaluate` measures, and how it is printed and saved. Plain values. */
#ifndef DN_SERVER_EVALUATION_H
#define DN_SERVER_EVALUATION_H

#include "batch/loaded_engine.h"
#include "evaluate/frechet.h"
#include "evaluate/judge.h"

#define EVALUATION_SETTINGS_MAX 16

/* One set of pictures against the real test split. */
typedef struct evaluation_distance {
    uint32_t count;
    double frechet;
    dn_precision_recall precision_recall;
} evaluation_distance;

typedef struct evaluation_setting {
    double guidance_scale;
    uint32_t steps;
    dn_agreement agreement;
    evaluation_distance distance;
    double seconds;
} evaluation_setting;

typedef struct evaluation {
    const dn_engine *engine;
    const char *sampler;
    uint32_t per_class;
    uint64_t seed;
    char classifier_sha256[65]; /* empty when it was trained just now and not kept */
    dn_agreement classifier; /* on the real test split */
    evaluation_distance train_subset; /* as many real training pictures as are generated for a setting */
    evaluation_distance train; /* the whole training split; precision and recall not measured */
    uint32_t setting_count;
    evaluation_setting settings[EVALUATION_SETTINGS_MAX];
} evaluation;

void evaluation_print(const evaluation *evaluation);
dn_status evaluation_save(const evaluation *evaluation, const char *path, dn_error *error);

#endif
