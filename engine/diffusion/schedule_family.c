/* Training schedules other than a table of alpha-bar: read from diffusers' scheduler classes of EDM, flow matching and
 * variance-exploding training, or known from a format that has no scheduler. Defaults are those of diffusers 0.31's constructors.
 * Pure functions, any thread. */
#include <stdlib.h>
#include <string.h>

#include "diffusion/family.h"

typedef struct family_class {
    const char *name;
    dn_family family;
    uint32_t timesteps; /* num_train_timesteps by default */
} family_class;

static const family_class classes[] = {
    {"EDMEulerScheduler", DN_FAMILY_EDM, 1000},
    {"EDMDPMSolverMultistepScheduler", DN_FAMILY_EDM, 1000},
    {"CMStochasticIterativeScheduler", DN_FAMILY_EDM, 40},
    {"FlowMatchEulerDiscreteScheduler", DN_FAMILY_FLOW, 1000},
    {"FlowMatchHeunDiscreteScheduler", DN_FAMILY_FLOW, 1000},
    {"ScoreSdeVeScheduler", DN_FAMILY_VE, 2000},
};

static const family_class *find(const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i].name, name) == 0)
            return &classes[i];
    return NULL;
}

dn_family dn_scheduler_family(const char *class_name)
{
    const family_class *row = find(class_name);
    return row != NULL ? row->family : DN_FAMILY_VP;
}

static dn_training_schedule training_edm(double sigma_data)
{
    return (dn_training_schedule){.family = DN_FAMILY_EDM,
                                  .timesteps = 1000,
                                  .prediction = DN_PREDICT_EPSILON,
                                  .sigma_data = sigma_data,
                                  .sigma_min = 0.002,
                                  .sigma_max = 80.0,
                                  .shift = 1.0,
                                  .time_scale = 1.0};
}

static dn_training_schedule training_flow(double lowest, double time_scale)
{
    return (dn_training_schedule){.family = DN_FAMILY_FLOW,
                                  .timesteps = 1000,
                                  .prediction = DN_PREDICT_FLOW,
                                  .sigma_min = lowest,
                                  .sigma_max = 1.0,
                                  .shift = 1.0,
                                  .time_scale = time_scale};
}

static void read_range(dn_config_reader *reader, dn_training_schedule *schedule, double low, double high)
{
    schedule->sigma_min = dn_config_number(reader, "sigma_min", low, 1e-6, 1e6);
    schedule->sigma_max = dn_config_number(reader, "sigma_max", high, 1e-6, 1e9);
    if (schedule->sigma_min >= schedule->sigma_max)
        dn_config_fail(reader, DN_INVALID, "sigma_min", "must be below sigma_max");
}

static void read_edm(dn_config_reader *reader, dn_training_schedule *schedule, bool consistency)
{
    *schedule = training_edm(dn_config_number(reader, "sigma_data", 0.5, 1e-6, 1e6));
    read_range(reader, schedule, 0.002, 80.0);
    if (consistency) { /* the network is told 1000 log(sigma) / 4 */
        schedule->boundary = schedule->sigma_min;
        schedule->time_scale = 1000.0;
        return;
    }
    const char *prediction = dn_config_text(reader, "prediction_type", "epsilon");
    if (strcmp(prediction, "v_prediction") == 0)
        schedule->prediction = DN_PREDICT_V;
    else if (strcmp(prediction, "epsilon") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "prediction_type", "\"%.60s\" is not one of epsilon, v_prediction", prediction);
}

static void read_flow(dn_config_reader *reader, dn_training_schedule *schedule, uint32_t timesteps)
{
    static const char *const unserved[] = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas",
                                           "stochastic_sampling"};
    *schedule = training_flow(1.0 / timesteps, timesteps);
    schedule->shift = dn_config_number(reader, "shift", 1.0, 1e-3, 1e3);
    for (size_t i = 0; i < sizeof unserved / sizeof unserved[0]; i++)
        if (!dn_config_is_null(reader, unserved[i]) && dn_config_bool(reader, unserved[i], false))
            dn_config_fail(reader, DN_UNSUPPORTED, unserved[i], "is not supported for flow matching");
    if (!dn_config_is_null(reader, "shift_terminal"))
        dn_config_fail(reader, DN_UNSUPPORTED, "shift_terminal", "is not supported");
}

static void read_ve(dn_config_reader *reader, dn_training_schedule *schedule)
{
    *schedule = (dn_training_schedule){.family = DN_FAMILY_VE, .prediction = DN_PREDICT_EPSILON, .shift = 1.0, .time_scale = 1.0};
    read_range(reader, schedule, 0.01, 1348.0);
    schedule->time_floor = dn_config_number(reader, "sampling_eps", 1e-5, 0.0, 0.5);
}

static dn_status copy_of(dn_training_schedule **out, const dn_training_schedule *schedule, dn_error *error)
{
    *out = malloc(sizeof **out);
    if (*out == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a training schedule");
    **out = *schedule;
    return DN_OK;
}

dn_status dn_training_read_family(dn_training_schedule **out, dn_config_reader *reader, const char *class_name, dn_error *error)
{
    const family_class *row = find(class_name);
    dn_training_schedule schedule = {0};
    uint32_t timesteps = dn_config_count(reader, "num_train_timesteps", row->timesteps, 2, DN_TRAIN_TIMESTEPS_MAX);
    if (row->family == DN_FAMILY_FLOW)
        read_flow(reader, &schedule, timesteps);
    else if (row->family == DN_FAMILY_VE)
        read_ve(reader, &schedule);
    else
        read_edm(reader, &schedule, strcmp(class_name, "CMStochasticIterativeScheduler") == 0);
    schedule.timesteps = timesteps;
    dn_status status = dn_config_reader_end(reader, error);
    return status == DN_OK ? copy_of(out, &schedule, error) : status;
}

void dn_scheduler_config_read_family(dn_config_reader *reader, dn_scheduler_config *out)
{
    dn_family family = dn_scheduler_family(out->class_name);
    if (family == DN_FAMILY_EDM)
        out->rho = dn_config_number(reader, "rho", 7.0, 1.0, 100.0);
    if (family == DN_FAMILY_VE) {
        out->snr = dn_config_number(reader, "snr", 0.15, 1e-6, 100.0);
        out->correct_steps = dn_config_count(reader, "correct_steps", 1, 0, 16);
    }
    if (strcmp(out->class_name, "CMStochasticIterativeScheduler") == 0) {
        out->s_noise = dn_config_number(reader, "s_noise", 1.0, 0.0, 10.0);
        out->clip_sample = dn_config_bool(reader, "clip_denoised", true);
    } else if (family == DN_FAMILY_EDM) {
        const char *spacing = dn_config_text(reader, "sigma_schedule", "karras");
        out->use_exponential_sigmas = strcmp(spacing, "exponential") == 0;
        out->use_karras_sigmas = !out->use_exponential_sigmas;
        if (!out->use_exponential_sigmas && strcmp(spacing, "karras") != 0)
            dn_config_fail(reader, DN_UNSUPPORTED, "sigma_schedule", "\"%.60s\" is not one of karras, exponential", spacing);
    }
}

/* DiT's and ADM's own table, as diffusers writes it down. */
static dn_status guided_diffusion(dn_training_schedule **out, bool cosine, dn_error *error)
{
    cJSON *config = cJSON_CreateObject();
    bool made = config != NULL && cJSON_AddStringToObject(config, "beta_schedule", cosine ? "squaredcos_cap_v2" : "linear") != NULL;
    dn_status status = made ? dn_training_schedule_from_json(out, config, "guided diffusion", error)
                            : dn_fail(error, DN_NO_MEMORY, "no memory for a training schedule");
    cJSON_Delete(config);
    return status;
}

dn_status dn_training_schedule_for_convention(dn_training_schedule **out, dn_convention convention, double sigma_data, bool cosine,
                                              dn_error *error)
{
    dn_training_schedule schedule = training_flow(0.0, 1.0);
    switch (convention) {
    case DN_CONVENTION_DIFFUSERS:
        return dn_training_schedule_from_json(out, NULL, NULL, error);
    case DN_CONVENTION_GUIDED_DIFFUSION:
        return guided_diffusion(out, cosine, error);
    case DN_CONVENTION_SIT:
        schedule.time_flipped = true;
        break;
    case DN_CONVENTION_REPA:
        break;
    case DN_CONVENTION_EDM:
        schedule = training_edm(sigma_data > 0.0 ? sigma_data : 0.5);
        break;
    }
    return copy_of(out, &schedule, error);
}

/* DiT and ADM: ancestral steps at round(i 999 / (n - 1)) with the learned variance, unclipped (DiT's own choice; a request may clip). */
dn_status dn_scheduler_config_for_convention(dn_scheduler_config *out, dn_convention convention, dn_error *error)
{
    bool flow = convention == DN_CONVENTION_SIT || convention == DN_CONVENTION_REPA;
    if (flow || convention == DN_CONVENTION_EDM)
        return dn_scheduler_config_defaults(out, flow ? "FlowMatchEulerDiscreteScheduler" : "EDMEulerScheduler", error);
    dn_status status = dn_scheduler_config_defaults(out, "DDPMScheduler", error);
    if (status == DN_OK && convention == DN_CONVENTION_GUIDED_DIFFUSION) {
        out->spacing = DN_SPACING_LINSPACE;
        out->respaced = true;
        out->variance = DN_VARIANCE_LEARNED_RANGE;
        out->clip_sample = false;
    }
    return status;
}
