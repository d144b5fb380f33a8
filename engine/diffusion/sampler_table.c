/* The table of samplers, and the resolution of a request's choice: sampler, configuration, options, schedule.
 * Immutable, any thread. */
#include <math.h>
#include <string.h>

#include "diffusion/samplers.h"

/* In the order of /samplers. */
static const dn_sampler *const table[] = {
    &dn_sampler_dpmpp_2m, &dn_sampler_ddim, &dn_sampler_heun, &dn_sampler_euler, &dn_sampler_euler_ancestral, &dn_sampler_ddpm,
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
    return NULL;
}

/* The number behind a field's name, NULL for "karras" (an int) and unknown names. */
static double *option_slot(dn_sampler_options *options, const char *field)
{
    struct {
        const char *name;
        double *slot;
    } const slots[] = {
        {"eta", &options->eta},       {"s_churn", &options->s_churn}, {"s_noise", &options->s_noise},
        {"s_tmin", &options->s_tmin}, {"s_tmax", &options->s_tmax},
    };
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++)
        if (strcmp(slots[i].name, field) == 0)
            return slots[i].slot;
    return NULL;
}

bool dn_sampler_option_set(dn_sampler_options *options, const char *field, double value)
{
    double *slot = option_slot(options, field);
    if (slot != NULL)
        *slot = value;
    else if (strcmp(field, "karras") == 0)
        options->karras = value != 0.0;
    return slot != NULL || strcmp(field, "karras") == 0;
}

static const dn_sampler_field *find_field(const dn_sampler *sampler, const char *name)
{
    for (uint32_t i = 0; i < sampler->field_count; i++)
        if (strcmp(sampler->fields[i].name, name) == 0)
            return &sampler->fields[i];
    return NULL;
}

/* Every option that is set must be a field of this sampler and within its range; the others get the field's standard. */
static dn_status resolve_options(dn_sampler_options *options, const dn_sampler *sampler, dn_error *error)
{
    static const char *const names[] = {"eta", "s_churn", "s_noise", "s_tmin", "s_tmax"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const dn_sampler_field *field = find_field(sampler, names[i]);
        double *value = option_slot(options, names[i]);
        if (isnan(*value)) {
            *value = field != NULL ? field->standard : 0.0;
            continue;
        }
        if (field == NULL)
            return dn_fail(error, DN_INVALID, "%s is not an option of the sampler %s", names[i], sampler->name);
        if (!(*value >= field->minimum && *value <= field->maximum))
            return dn_fail(error, DN_INVALID, "%s must be from %g to %g", names[i], field->minimum, field->maximum);
    }
    if (options->karras > 0 && find_field(sampler, "karras") == NULL)
        return dn_fail(error, DN_INVALID, "karras is not an option of the sampler %s", sampler->name);
    return DN_OK;
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

dn_status dn_sampler_context_init(dn_sampler_context *out, const char *sampler, uint32_t steps, const dn_sampler_options *options,
                                  uint64_t seed, const dn_training_schedule *training, const dn_scheduler_config *folder_config,
                                  dn_error *error)
{
    memset(out, 0, sizeof *out);
    out->training = training;
    out->options = *options;
    out->seed = seed;
    if (steps < 1 || steps > DN_STEPS_MAX)
        return dn_fail(error, DN_INVALID, "steps must be an integer from 1 to %u", DN_STEPS_MAX);
    dn_status status = resolve_config(out, sampler, folder_config, error);
    if (status == DN_OK)
        status = resolve_options(&out->options, out->sampler, error);
    if (status != DN_OK)
        return status;
    if (options->karras == 1)
        out->config.use_exponential_sigmas = out->config.use_beta_sigmas = out->config.use_lu_lambdas = false;
    if (options->karras >= 0)
        out->config.use_karras_sigmas = options->karras == 1;
    out->options.karras = out->config.use_karras_sigmas;
    out->schedule.steps = steps; /* dn_bar_after needs it while the schedule is made */
    return out->sampler->schedule(&out->schedule, out, steps, error);
}

uint32_t dn_sampler_evaluations(const dn_sampler_context *context)
{
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
