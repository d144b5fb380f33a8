/* What the daemon knows of a model without opening it: the worker describes, the store keeps, requests are validated
 * against it while the worker is down or loading. Immutable once parsed; freed whole. */
#ifndef API_MODEL_DESCRIPTION_H
#define API_MODEL_DESCRIPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "diffusion/options.h"
#include "diffusion/schedule.h"

typedef struct api_model {
    char name[65];
    char architecture[64];
    uint32_t width, height, channels; /* of the pictures */
    bool latent; /* the network denoises latents, and a codec makes the pictures */
    uint32_t latent_width, latent_height, latent_channels; /* 0 where not latent */
    bool guidance; /* has a null row */
    uint32_t null_class; /* that row; meant for people: no request names it */
    uint32_t guidance_methods; /* bit dn_guidance_method */
    uint32_t field_count; /* options of guidance and conditioning that this model takes */
    dn_option_field fields[DN_OPT_COUNT];
    uint64_t samplers; /* bit i: dn_sampler_at(i) can serve it */
    char model_sampler[32]; /* which sampler "model" is; "": the folder's scheduler has none here */
    bool unconditional; /* makes pictures of no class */
    bool learned_variance; /* the network answers with one */
    /* What samplers are tried against before a job is accepted; kept in the stored form, not shown. NULL: not tried. */
    dn_training_schedule *training;
    dn_scheduler_config scheduler;
    char *scheduler_json; /* the folder's scheduler_config.json; NULL: none, and the checkpoint's format says it */
    uint32_t convention; /* dn_convention */
    double sigma_data;
    bool cosine;
    uint32_t class_count;
    char **class_names; /* [class_count] comma-separated synonyms; NULL entries never */
    char default_sampler[32];
    uint32_t default_steps;
    double default_guidance;
    char weights_sha256[65];
    char device[64];
    char precision[8]; /* "fp32", "fp16", "bf16" */
    char gpu[192]; /* card and libraries; "": on a CPU */
    char plan[65]; /* what a GPU's products were pinned to; "": nothing, or not known */
    char build[65];
} api_model;

/* JSON <-> value; both malloc'd, api_model_free accepts NULL. The JSON form is the MODEL body of the wire without state and error. */
dn_status api_model_from_json(api_model **out, const char *json, size_t bytes, dn_error *error);
char *api_model_to_json(const api_model *model);
void api_model_free(api_model *model);

/* Fills training, scheduler and what they are made from. scheduler: the folder's configuration, borrowed, or NULL. After
 * learned_variance. */
dn_status api_model_set_training(api_model *model, const cJSON *scheduler, uint32_t convention, double sigma_data, bool cosine,
                                 dn_error *error);

struct dn_sampler;
bool api_model_serves(const api_model *model, const struct dn_sampler *sampler);
/* The model's rule for an option of guidance or conditioning; NULL: it takes none. */
const dn_option_field *api_model_field(const api_model *model, dn_option_id id);

/* ^[A-Za-z0-9._-]{1,64}$ */
bool api_model_name_valid(const char *name);

/* The next of a class's comma-separated synonyms, blanks around it trimmed, empty ones skipped; advances *rest; false at the end. */
bool api_next_synonym(const char **rest, const char **name, size_t *bytes);

#define API_BATCH_POINTS_MAX 8 /* 1, 2, 4, ... 128 rows */

/* What running batches of a model cost: rows and the milliseconds of a tick that has them. */
typedef struct api_batch {
    uint32_t rows_max; /* of a tick */
    uint32_t count, rows[API_BATCH_POINTS_MAX];
    double milliseconds[API_BATCH_POINTS_MAX];
} api_batch;

/* The wire's MODEL. model NULL: one that has never been described, whose name, state and error alone are shown. state is
 * "unloaded|loading|ready|failed", error may be NULL; classes are left out in lists; batch NULL: not in memory. malloc'd. */
char *api_model_body(const api_model *model, const char *name, const char *state, const char *error, bool with_classes, const api_batch *batch);

#endif
