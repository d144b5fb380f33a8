/* A sampler: a small state machine that never calls the model and never touches a pixel.
 *
 * `next` says which evaluation it wants; the lane has it done (guidance and parametrisation included) and the answer
 * lies in registers; `feed` says in a short register program what becomes of the image. State is plain data, so that a
 * snapshot is a copy. All methods are pure functions of (context, state): any thread, one owner of the state. */
#ifndef DN_DIFFUSION_SAMPLER_H
#define DN_DIFFUSION_SAMPLER_H

#include <math.h>

#include "backend/backend.h"
#include "diffusion/schedule.h"

/* Registers of a lane. Every one holds one image-shaped array of floats. */
enum {
    DN_REG_X, /* the image at the current level: alpha*x0 + sigma*n */
    DN_REG_COND, /* raw answer of the conditional row; after guidance the folded answer */
    DN_REG_UNCOND, /* raw answer of the null row */
    DN_REG_X0, /* denoised, after clip or threshold */
    DN_REG_EPS, /* noise, not recomputed after clipping (diffusers' convention) */
    DN_REG_VARIANCE, /* the network's variance half, where it has one */
    DN_REG_NOISE, /* fresh noise */
    DN_REG_H0,
    DN_REG_H1,
    DN_REG_H2,
    DN_REG_H3, /* the sampler's own history */
    DN_REG_COUNT
};

#define DN_PROGRAM_OPS_MAX 24

typedef struct dn_ops {
    uint32_t count;
    dn_op op[DN_PROGRAM_OPS_MAX];
} dn_ops;

/* Options a request may set; NaN means "the sampler's own default". */
typedef struct dn_sampler_options {
    double eta; /* ddim 0..1, euler_ancestral 0..1 */
    double s_churn, s_noise; /* euler */
    double s_tmin, s_tmax; /* euler: the range of sigma where s_churn works */
    int karras; /* -1 default, 0, 1; euler, heun, dpmpp_2m */
} dn_sampler_options;
#define DN_SAMPLER_OPTIONS_INIT                                                                                                            \
    {                                                                                                                                      \
        .eta = NAN, .s_churn = NAN, .s_noise = NAN, .s_tmin = NAN, .s_tmax = NAN, .karras = -1                                             \
    }

typedef struct dn_sampler_context {
    const struct dn_sampler *sampler;
    const dn_training_schedule *training;
    dn_scheduler_config config;
    dn_sampler_options options; /* resolved: no NaN */
    dn_schedule schedule;
    uint64_t seed; /* of the image: keys its noise */
} dn_sampler_context;

typedef struct dn_sampler_state {
    uint32_t step; /* steps finished */
    uint32_t stage; /* inside a step (Heun: 0 first, 1 second evaluation) */
    uint32_t history; /* valid history registers */
    double scalar[8]; /* the sampler's own */
} dn_sampler_state;

typedef struct dn_evaluation {
    uint32_t reg; /* register to evaluate, holding alpha*x0 + sigma*n */
    dn_level level;
} dn_evaluation;

typedef struct dn_sampler_field {
    const char *name;
    const char *type; /* "number" or "boolean" */
    double minimum, maximum, standard;
} dn_sampler_field;

typedef struct dn_sampler {
    const char *name, *title; /* "dpmpp_2m", "DPM-Solver++(2M)" */
    const char *scheduler_class; /* diffusers class whose defaults and tables it follows */
    uint32_t order, evaluations_per_step;
    bool stochastic, adaptive;
    const dn_sampler_field *fields;
    uint32_t field_count;
    dn_status (*schedule)(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);
    bool (*next)(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out); /* false: the image is done */
    void (*feed)(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out);
} dn_sampler;

const dn_sampler *dn_sampler_find(const char *name); /* NULL: unknown */
const dn_sampler *dn_sampler_for_scheduler(const char *class_name); /* DDIMScheduler -> ddim; NULL: unknown */
const dn_sampler *dn_sampler_at(uint32_t index); /* the table, in the order of /samplers; NULL past its end */

/* Sets the option that a field of a sampler's table names ("eta", "karras": 0 or 1). False: no such option. */
bool dn_sampler_option_set(dn_sampler_options *options, const char *field, double value);

/* Resolves a sampler chosen by name (its own class's tables, the folder's training schedule), or "model" (the folder's
 * scheduler_config whole). Refusals name the field. `training` is borrowed. */
dn_status dn_sampler_context_init(dn_sampler_context *out, const char *sampler, uint32_t steps, const dn_sampler_options *options,
                                  uint64_t seed, const dn_training_schedule *training, const dn_scheduler_config *folder_config,
                                  dn_error *error);

/* Parametrisation: from the raw answer in register `raw` of an evaluation at `level` to DN_REG_X0 (clipped or thresholded as
 * the config says) and DN_REG_EPS. The network's input scale is 1 / sqrt(alpha^2 + sigma^2) for variance-preserving training. */
double dn_input_scale(const dn_sampler_context *context, const dn_level *level);
void dn_parametrise(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out);

/* Network evaluations of the whole image (Heun: two a step but the last). */
uint32_t dn_sampler_evaluations(const dn_sampler_context *context);

/* Small helpers that keep sampler files short: they append one operation. */
void dn_ops_linear(dn_ops *ops, uint32_t dst, uint32_t terms, const uint32_t *src, const double *coefficient);
void dn_ops_noise(dn_ops *ops, uint32_t dst, uint64_t seed, dn_noise_stream stream, uint32_t draw);

#endif
