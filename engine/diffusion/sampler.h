/* A sampler: a small state machine that never calls the model and never touches a pixel.
 *
 * `next` says which evaluation it wants; the lane has it done (guidance and parametrisation included) and the answer
 * lies in registers; `feed` says in a short register program what becomes of the image. State is plain data, so that a
 * snapshot is a copy. All methods are pure functions of (context, state): any thread, one owner of the state. */
#ifndef DN_DIFFUSION_SAMPLER_H
#define DN_DIFFUSION_SAMPLER_H

#include <math.h>

#include "backend/backend.h"
#include "diffusion/options.h"
#include "diffusion/schedule.h"

/* Registers of a lane. Every one holds one image-shaped array of floats. */
enum {
    DN_REG_X, /* the image at the current level: alpha*x0 + sigma*n */
    DN_REG_COND, /* raw answer of the conditional row; after guidance the folded answer */
    DN_REG_UNCOND, /* raw answer of the null row (autoguidance: of the guide) */
    DN_REG_X0, /* denoised, after clip or threshold */
    DN_REG_EPS, /* noise, not recomputed after clipping (diffusers' convention); with CFG++ that of the null row */
    DN_REG_VARIANCE, /* the network's variance half, where it has one */
    DN_REG_NOISE, /* fresh noise */
    DN_REG_SCRATCH, /* guidance's and conditioning's, within one program */
    DN_REG_GUIDE, /* guidance's own across ticks (APG's momentum) */
    DN_REG_INIT, /* the given picture, clean, in the network's space */
    DN_REG_MASK, /* 1 where it is painted anew */
    DN_REG_H0,
    DN_REG_H1,
    DN_REG_H2,
    DN_REG_H3,
    DN_REG_H4,
    DN_REG_H5,
    DN_REG_H6,
    DN_REG_H7, /* the sampler's own history */
    DN_REG_COUNT
};

#define DN_PROGRAM_OPS_MAX 48
#define DN_SAMPLER_SCALARS_MAX 16
#define DN_PROGRAM_SCALARS_MAX 4

typedef struct dn_ops {
    uint32_t count;
    dn_op op[DN_PROGRAM_OPS_MAX];
} dn_ops;

typedef struct dn_sampler_context {
    const struct dn_sampler *sampler;
    const dn_training_schedule *training; /* rescaled, when the request asked for that */
    dn_scheduler_config config; /* of the class or the folder, with the request's options in it */
    dn_options options; /* of the sampler: what it takes is resolved, what it does not is NaN */
    dn_schedule schedule;
    uint32_t first_step; /* image-to-image: steps before it are left out */
    uint64_t seed; /* of the image: keys its noise */
} dn_sampler_context;

typedef struct dn_sampler_state {
    uint32_t step; /* steps finished */
    uint32_t stage; /* inside a step (Heun: 0 first, 1 second evaluation) */
    uint32_t history; /* the sampler's own count of what it remembers */
    uint32_t live; /* bit r: register r (H0..H7) is read by a later program; kept by the sampler, saved by snapshots */
    uint32_t evaluations; /* done so far */
    double scalar[DN_SAMPLER_SCALARS_MAX]; /* the sampler's own */
} dn_sampler_state;

typedef struct dn_evaluation {
    uint32_t reg; /* register to evaluate, holding alpha*x0 + sigma*n */
    dn_level level;
} dn_evaluation;

typedef struct dn_sampler {
    const char *name, *title; /* "dpmpp_2m", "DPM-Solver++(2M)" */
    const char *scheduler_class; /* diffusers class whose defaults and tables it follows */
    const char *algorithm; /* algorithm_type that its name means; NULL: the class's own */
    const char *source; /* paper and equation or algorithm */
    uint32_t order, evaluations_per_step;
    bool stochastic, adaptive;
    bool renoises; /* goes from x0 and noise straight to the next level, so that CFG++ means something */
    bool memoryless; /* one evaluation a step and nothing remembered between steps: a step can be taken again (RePaint) */
    bool inverts; /* goes from a given picture to noise: needs one */
    uint32_t families; /* bit dn_family: trainings it can serve */
    bool consistency_only; /* of these, consistency models alone */
    bool score_only; /* of these, no consistency models: their score is 0 at the last level */
    const dn_option_field *fields;
    uint32_t field_count;
    dn_status (*schedule)(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);
    bool (*next)(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out); /* false: the image is done */
    void (*feed)(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out);
    /* What must happen to the registers before the evaluation that `next` asks for, when that was not known while the feed before it
     * wrote its program (rk45: the length of a step). Changes nothing but the register to be evaluated, so that it may be repeated; may
     * append nothing. NULL: not needed. */
    void (*prepare)(const dn_sampler_context *context, const dn_sampler_state *state, dn_ops *out);
    /* After the program of a feed has run, with the scalars it computed; before the next `next`. NULL: not needed. */
    void (*settle)(const dn_sampler_context *context, dn_sampler_state *state, const double *scalars);
    /* How far the image is, 0 to 1. NULL: steps finished of all steps. */
    double (*fraction)(const dn_sampler_context *context, const dn_sampler_state *state);
    /* Whether it can be in this state, which was read from somewhere. NULL: when its feeds lead there from the first state. */
    bool (*possible)(const dn_sampler_context *context, const dn_sampler_state *state);
    /* Why `next` has answered false although the image is not done. NULL: it never does. */
    const char *(*failure)(const dn_sampler_context *context, const dn_sampler_state *state);
} dn_sampler;

/* Whether it can sample a network of this training. */
bool dn_sampler_serves(const dn_sampler *sampler, const dn_training_schedule *training);

/* How far the image is, 0 to 1: what progress is made of where the number of evaluations is not known beforehand (adaptive). */
double dn_sampler_fraction(const dn_sampler_context *context, const dn_sampler_state *state);
/* After `next` has answered false: why the sampler gave up, or NULL when the image is done. */
const char *dn_sampler_failure(const dn_sampler_context *context, const dn_sampler_state *state);

const dn_sampler *dn_sampler_find(const char *name); /* NULL: unknown */
const dn_sampler *dn_sampler_for_scheduler(const char *class_name); /* DDIMScheduler -> ddim; NULL: unknown */
const dn_sampler *dn_sampler_at(uint32_t index); /* the table, in the order of /samplers; NULL past its end */

/* The field of an option that this sampler takes; NULL: it does not. */
const dn_option_field *dn_sampler_field_of(const dn_sampler *sampler, dn_option_id id);

/* What a configuration says of an option that mirrors one of its keys; NaN: nothing (the table's own level), or no such key. */
double dn_config_option(const dn_scheduler_config *config, const dn_training_schedule *training, dn_option_id id);

/* Resolves a sampler chosen by name (its own class's tables, the folder's training schedule), or "model" (the folder's
 * scheduler_config whole). Refusals name the field. `training` is borrowed. */
dn_status dn_sampler_context_init(dn_sampler_context *out, const char *sampler, uint32_t steps, const dn_options *options, uint64_t seed,
                                  const dn_training_schedule *training, const dn_scheduler_config *folder_config, dn_error *error);

/* A resolved option of the sampler's. */
static inline double dn_option_value(const dn_sampler_context *context, dn_option_id id)
{
    return context->options.value[id];
}

/* Parametrisation: from the raw answer in register `raw` of an evaluation at `level` to DN_REG_X0 (clipped or thresholded as
 * the config says) and DN_REG_EPS. The network's input scale is 1 / sqrt(alpha^2 + sigma^2) for variance-preserving training. */
double dn_input_scale(const dn_sampler_context *context, const dn_level *level);
void dn_parametrise(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out);

/* Network evaluations of the whole image (Heun: two a step but the last). Adaptive samplers: a guess, as if no step was refused
 * and none grew. */
uint32_t dn_sampler_evaluations(const dn_sampler_context *context);

/* Small helpers that keep sampler files short: they append one operation. */
void dn_ops_linear(dn_ops *ops, uint32_t dst, uint32_t terms, const uint32_t *src, const double *coefficient);
void dn_ops_noise(dn_ops *ops, uint32_t dst, uint64_t seed, dn_noise_stream stream, uint32_t draw);

#endif
