/* The table of samplers, and the resolution of a request's choice: sampler, configuration, options, schedule.
 * Immutable, any thread. */
#include <stdio.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/sampler_options.h"
#include "diffusion/samplers.h"

/* In the order of /samplers. */
static const dn_sampler *const table[] = {
    &dn_sampler_dpmpp_2m,
    &dn_sampler_ddim,
    &dn_sampler_heun,
    &dn_sampler_euler,
    &dn_sampler_euler_ancestral,
    &dn_sampler_ddpm,
    &dn_sampler_dpmpp_3m,
    &dn_sampler_dpmpp_2m_sde,
    &dn_sampler_edm_euler,
    &dn_sampler_edm_heun,
    &dn_sampler_flow_euler,
    &dn_sampler_flow_heun,
    &dn_sampler_euler_maruyama,
    &dn_sampler_predictor_corrector,
    &dn_sampler_rk45,
    &dn_sampler_ddim_inverse,
    &dn_sampler_consistency,
    &dn_sampler_unipc,
    &dn_sampler_dpmpp_2s,
    &dn_sampler_deis,
    &dn_sampler_ipndm,
    &dn_sampler_lms,
    &dn_sampler_pndm,
    &dn_sampler_plms,
    &dn_sampler_kdpm2,
    &dn_sampler_kdpm2_ancestral,
    &dn_sampler_dpmpp_sde,
    &dn_sampler_sa,
    &dn_sampler_lcm,
    &dn_sampler_tcd,
};

/* Classes whose sampler follows another class's defaults. */
static const struct {
    const char *class_name, *sampler;
} aliases[] = {
    {"EDMDPMSolverMultistepScheduler", "dpmpp_2m"},
    {"DDPMParallelScheduler", "ddpm"},
    {"DDIMParallelScheduler", "ddim"},
};

const dn_sampler *dn_sampler_at(uint32_t index)
{
    return index < sizeof table / sizeof table[0] ? table[index] : NULL;
}

const dn_sampler *dn_sampler_find(const char *name)
{
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

const dn_sampler *dn_sampler_for_scheduler(const char *class_name)
{
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++)
        if (strcmp(table[i]->scheduler_class, class_name) == 0)
            return table[i];
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(aliases[i].class_name, class_name) == 0)
            return dn_sampler_find(aliases[i].sampler);
    return NULL;
}

const dn_option_field *dn_sampler_field_of(const dn_sampler *sampler, dn_option_id id)
{
    for (uint32_t i = 0; i < sampler->field_count; i++)
        if (sampler->fields[i].id == id)
            return &sampler->fields[i];
    return NULL;
}

bool dn_sampler_serves(const dn_sampler *sampler, const dn_training_schedule *training)
{
    bool consistency = training->boundary > 0.0;
    return (sampler->families >> training->family & 1u) && !(consistency ? sampler->score_only : sampler->consistency_only);
}

/* Options up to this one belong to samplers, those behind it to guidance and conditioning. */
#define SAMPLER_OPTIONS_END DN_OPT_GUIDANCE_METHOD

static dn_status check_known(const dn_options *given, const dn_sampler *sampler, dn_error *error)
{
    for (uint32_t i = 0; i < SAMPLER_OPTIONS_END; i++)
        if (dn_option_given(given, (dn_option_id)i) && dn_sampler_field_of(sampler, (dn_option_id)i) == NULL)
            return dn_fail(error, DN_INVALID, "%s is not an option of the sampler %s", dn_option_info_of((dn_option_id)i)->name,
                           sampler->name);
    return DN_OK;
}

/* The row of a folder's class; where several rows share a class, the one whose algorithm the folder asks for. */
static const dn_sampler *sampler_of_config(const dn_scheduler_config *config)
{
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++)
        if (table[i]->algorithm != NULL && strcmp(table[i]->scheduler_class, config->class_name) == 0 &&
            strcmp(table[i]->algorithm, config->algorithm_type) == 0)
            return table[i];
    return dn_sampler_for_scheduler(config->class_name);
}

static dn_status resolve_config(dn_sampler_context *out, const char *name, const dn_scheduler_config *folder_config, dn_error *error)
{
    if (strcmp(name, "model") == 0) {
        out->config = *folder_config;
        out->sampler = sampler_of_config(folder_config);
        if (out->sampler == NULL)
            return dn_fail(error, DN_UNSUPPORTED, "sampler \"model\" asks for %s, which this program does not have",
                           folder_config->class_name);
        return DN_OK;
    }
    out->sampler = dn_sampler_find(name);
    if (out->sampler == NULL)
        return dn_fail(error, DN_INVALID, "sampler \"%.40s\" is not known", name);
    dn_status status = dn_scheduler_config_defaults(&out->config, out->sampler->scheduler_class, error);
    if (status == DN_OK && out->sampler->algorithm != NULL)
        snprintf(out->config.algorithm_type, sizeof out->config.algorithm_type, "%s", out->sampler->algorithm);
    if (status == DN_OK)
        dn_config_apply_standards(&out->config, out->sampler);
    return status;
}

dn_status dn_sampler_context_init(dn_sampler_context *out, const char *sampler, uint32_t steps, const dn_options *options, uint64_t seed,
                                  const dn_training_schedule *training, const dn_scheduler_config *folder_config, dn_error *error)
{
    memset(out, 0, sizeof *out);
    out->training = training;
    out->seed = seed;
    if (steps < 1 || steps > DN_STEPS_MAX)
        return dn_fail(error, DN_INVALID, "steps must be an integer from 1 to %u", DN_STEPS_MAX);
    dn_status status = resolve_config(out, sampler, folder_config, error);
    if (status == DN_OK && !dn_sampler_serves(out->sampler, training))
        return dn_fail(error, DN_INVALID, "sampler \"%s\" does not serve %s%s", out->sampler->name,
                       training->boundary > 0.0 ? "consistency models" : "models trained by ",
                       training->boundary > 0.0 ? "" : dn_family_title(training->family));
    if (status == DN_OK)
        status = check_known(options, out->sampler, error);
    if (status == DN_OK)
        status = dn_context_apply_options(out, options, error);
    if (status != DN_OK)
        return status;
    out->schedule.steps = steps; /* dn_bar_after needs it while the schedule is made */
    return out->sampler->schedule(&out->schedule, out, steps, error);
}

double dn_sampler_fraction(const dn_sampler_context *context, const dn_sampler_state *state)
{
    const dn_sampler *sampler = context->sampler;
    return sampler->fraction != NULL ? sampler->fraction(context, state) : (double)state->step / context->schedule.steps;
}

const char *dn_sampler_failure(const dn_sampler_context *context, const dn_sampler_state *state)
{
    return context->sampler->failure != NULL ? context->sampler->failure(context, state) : NULL;
}

uint32_t dn_sampler_evaluations(const dn_sampler_context *context)
{
    if (context->sampler->adaptive)
        return context->schedule.steps * context->sampler->evaluations_per_step + 1;
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    dn_ops ops;
    uint32_t count = 0;
    while (context->sampler->next(context, &state, &evaluation)) {
        ops.count = 0;
        context->sampler->feed(context, &state, &ops);
        count++;
    }
    return count;
}
