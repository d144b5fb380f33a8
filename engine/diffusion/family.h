/* Families of training: what a network is given for a noise level and what its answer means, in one function for all of them, so
 * that any sampler that works by x0 and noise serves any network. Pure functions, any thread. */
#ifndef DN_DIFFUSION_FAMILY_H
#define DN_DIFFUSION_FAMILY_H

#include "diffusion/sampler.h"
#include "model/config_reader.h"
#include "model/model.h"

/* At ratio r = sigma / alpha and y = x / alpha = x0 + r n (Karras et al. 2022, eq. 7):
 *   x0 = skip y + out network(in y, time). */
typedef struct dn_precondition {
    double skip, out, in, time;
} dn_precondition;

dn_precondition dn_precondition_at(const dn_training_schedule *training, double ratio);

/* What the network is told at a ratio; for VP a fractional index of its table. Infinity is allowed for FLOW (t = 1). */
double dn_network_time(const dn_training_schedule *training, double ratio);

/* The level alpha x0 + sigma n with the time that the network is told there. */
dn_level dn_level_at(const dn_training_schedule *training, double alpha, double sigma);

/* At x = (1 - t) x0 + t n the velocity n - x0 is own x + answer network(in x, time). FLOW: 0 <= t <= 1; others: 0 < t < 1. */
typedef struct dn_flow_velocity {
    double own, answer, in, time;
} dn_flow_velocity;
dn_flow_velocity dn_flow_velocity_at(const dn_training_schedule *training, double time);

/* Where the probability flow over t of a family begins (the noise) and ends (before the image), and the deviation of x at the begin. */
void dn_flow_range(const dn_training_schedule *training, double *begin, double *end, double *deviation);

/* The ratios a sampler may start from and end at before the image: finite and above 0. */
void dn_family_range(const dn_training_schedule *training, double *low, double *high);

/* FLOW: t' = shift t / (1 + (shift - 1) t). */
double dn_shifted(double shift, double time);

const char *dn_family_title(dn_family family); /* "flow matching" */

/* Training schedules of formats that have no scheduler (dn_model.convention). `cosine`: guided diffusion's cosine table instead of the
 * linear one. sigma_data: EDM's; 0 counts as 0.5. DN_CONVENTION_DIFFUSERS: diffusers' default, a DDPM. */
dn_status dn_training_schedule_for_convention(dn_training_schedule **out, dn_convention convention, double sigma_data, bool cosine,
                                              dn_error *error);
/* How those formats sample: what sampler "model" means for them. */
dn_status dn_scheduler_config_for_convention(dn_scheduler_config *out, dn_convention convention, dn_error *error);

/* Of this folder: the family of a scheduler class, and its own keys. Errors stay in the reader. */
dn_family dn_scheduler_family(const char *class_name);
dn_status dn_training_read_family(dn_training_schedule **out, dn_config_reader *reader, const char *class_name, dn_error *error);
void dn_scheduler_config_read_family(dn_config_reader *reader, dn_scheduler_config *out);

#endif
