/* The table of samplers, and the resolution of a request's choice: sampler, configuration, options, schedule.
 * Immutable, any thread. */
#include <math.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/samplers.h"

/* In the order of /samplers. */
static const dn_sampler *const table[] = {
    &dn_sampler_dpmpp_2m, &dn_sampler_ddim, &dn_sampler_heun, &dn_sampler_euler, &dn_sampler_euler_ancestral, &dn_sampler_ddpm,
};

/* Classes whose sampler follows another class's defaults. */
static const struct {
    const char *class_name, *sampler;
} aliases[] = {{"EDMDPMSolverMultistepScheduler", "dpmpp_2m"}};

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

/* Options up to this one belong to samplers, those behind it to guidance and conditioning. */
#define SAMPLER_OPTIONS_END DN_OPT_GUIDANCE_METHOD

/* Every option that is given must be a field of this sampler and within its range; the others get the field's standard. */
static dn_status resolve_options(dn_options *out, const dn_options *given, const dn_sampler *sampler, dn_error *error)
{
    for (uint32_t i = 0; i < SAMPLER_OPTIONS_END; i++) {
        const dn_option_field *field = dn_sampler_field_of(sampler, (dn_option_id)i);
        out->value[i] = field != NULL ? field->standard : (double)NAN;
        if (!dn_option_given(given, (dn_option_id)i))
            continue;
        if (field == NULL)
            return dn_fail(error, DN_INVALID, "%s is not an option of the sampler %s", dn_option_info_of((dn_option_id)i)->name, sampler->name);
        dn_status status = dn_option_check(field, given->value[i], error);
        if (status != DN_OK)
            return status;
        out->value[i] = given->value[i];
    }
    return DN_OK;
}

/* What a request gives replaces what the class or the folder says. */
static void apply_options(dn_scheduler_config *config, const dn_options *given)
{
    if (dn_option_given(given, DN_OPT_SIGMA_SCHEDULE)) {
        double spacing = given->value[DN_OPT_SIGMA_SCHEDULE];
        config->use_karras_sigmas = spacing == DN_SIGMAS_KARRAS;
        config->use_exponential_sigmas = spacing == DN_SIGMAS_EXPONENTIAL;
        config->use_beta_sigmas = spacing == DN_SIGMAS_BETA;
        config->use_lu_lambdas = spacing == DN_SIGMAS_LU;
    }
}

static dn_status resolve_config(dn_sampler_context *out, const char *name, const dn_scheduler_config *folder_config, dn_error *error)
{
    if (strcmp(name, "model") == 0) {
        out->config = *folder_config;
        out->sampler = dn_sampler_for_scheduler(folder_config->class_name);
        if (out->sampler == NULL)
            return dn_fail(error, DN_UNSUPPORTED, "sampler \"model\" asks for %s, which this program does not have",
                           folder_config->class_name);
        return DN_OK;
    }
    out->sampler = dn_sampler_find(name);
    if (out->sampler == NULL)
        return dn_fail(error, DN_INVALID, "sampler \"%.40s\" is not known", name);
    return dn_scheduler_config_defaults(&out->config, out->sampler->scheduler_class, error);
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
    if (status == DN_OK && !(out->sampler->families >> training->family & 1u))
        return dn_fail(error, DN_INVALID, "sampler \"%s\" does not serve models trained by %s", out->sampler->name,
                       dn_family_title(training->family));
    if (status == DN_OK)
        status = resolve_options(&out->options, options, out->sampler, error);
    if (status != DN_OK)
        return status;
    apply_options(&out->config, options);
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
