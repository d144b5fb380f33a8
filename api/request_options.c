/* The options of a request: each against the rule of the sampler or of the model, then all of them together. An option that would do
 * nothing is refused, so that nobody wonders why. Pure; any thread. */
#include <stdio.h>
#include <string.h>

#include "api/option_json.h"
#include "api/request_reader.h"

/* Options before this one belong to samplers, the others to guidance and conditioning. */
#define SAMPLER_OPTIONS_END DN_OPT_GUIDANCE_METHOD

/* The rule for an option; NULL after a refusal. */
static const dn_option_field *field_of(api_reader *r, const api_request *request, dn_option_id id)
{
    char rule[160];
    bool of_sampler = id < SAMPLER_OPTIONS_END;
    const dn_option_field *field = of_sampler ? dn_sampler_field_of(r->sampler, id) : api_model_field(r->model, id);
    if (!field) {
        snprintf(rule, sizeof rule, "is not an option of the %s %s; GET /%s lists them", of_sampler ? "sampler" : "model",
                 of_sampler ? request->sampler : request->model, of_sampler ? "samplers" : "models");
        api_refuse_unsupported(r, dn_option_info_of(id)->name, rule);
    }
    return field;
}

bool api_read_options(api_reader *r, api_request *out)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const api_member *m = &r->members[API_FIELD_COUNT + i];
        dn_option_id id = (dn_option_id)i;
        const dn_option_info *info = dn_option_info_of(id);
        dn_error why;
        if (!m->value) {
            continue;
        }
        const dn_option_field *field = field_of(r, out, id);
        if (!field) {
            return false;
        }
        double value = api_option_value(m->value, id);
        if (info->type == DN_TYPE_INTEGER && !api_raw_is_integer(m->raw)) {
            value = (double)NAN;
        }
        if (dn_option_check(field, value, &why) != DN_OK) {
            return api_refuse(r->problem, API_INVALID_FIELD, api_pointer_to(r, info->name).text, "%s", why.message);
        }
        dn_option_set(&out->options, id, value);
    }
    return true;
}

/* ---- Together */

static bool given(const api_request *request, dn_option_id id)
{
    return dn_option_given(&request->options, id);
}

static uint32_t method_of(const api_reader *r, const api_request *request)
{
    const dn_option_field *field = api_model_field(r->model, DN_OPT_GUIDANCE_METHOD);
    if (given(request, DN_OPT_GUIDANCE_METHOD)) {
        return (uint32_t)request->options.value[DN_OPT_GUIDANCE_METHOD];
    }
    return field && !isnan(field->standard) ? (uint32_t)field->standard : DN_GUIDE_CFG;
}

static bool check_method(api_reader *r, const api_request *request, uint32_t method)
{
    static const char *const needs[] = {
        [DN_GUIDE_CFG] = "cfg needs a model with a null class",
        [DN_GUIDE_CFG_PP] = "cfg_pp needs a model with a null class",
        [DN_GUIDE_APG] = "apg needs a model with a null class",
        [DN_GUIDE_AUTO] = "autoguidance needs a model with a second, weaker network",
        [DN_GUIDE_CLASSIFIER] = "classifier needs a model with a noise-aware classifier",
    };
    char rule[128];
    if (given(request, DN_OPT_GUIDANCE_METHOD) && !(r->model->guidance_methods >> method & 1u)) {
        snprintf(rule, sizeof rule, "%s, which this one is not", needs[method]);
        return api_refuse_unsupported(r, "guidance_method", rule);
    }
    if (given(request, DN_OPT_GUIDANCE_METHOD) && method == DN_GUIDE_CFG_PP && !r->sampler->renoises) {
        snprintf(rule, sizeof rule, "cfg_pp is not defined for the sampler %s; GET /samplers lists those it is", request->sampler);
        return api_refuse_unsupported(r, "guidance_method", rule);
    }
    return true;
}

/* Options that one method alone reads. */
static bool check_method_options(api_reader *r, const api_request *request, uint32_t method)
{
    static const struct {
        dn_option_id id;
        dn_guidance_method method;
        const char *rule;
    } rows[] = {
        {DN_OPT_APG_ETA, DN_GUIDE_APG, "needs guidance_method apg"},
        {DN_OPT_APG_NORM, DN_GUIDE_APG, "needs guidance_method apg"},
        {DN_OPT_APG_MOMENTUM, DN_GUIDE_APG, "needs guidance_method apg"},
        {DN_OPT_CLASSIFIER_SCALE, DN_GUIDE_CLASSIFIER, "needs guidance_method classifier"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (given(request, rows[i].id) && method != rows[i].method) {
            return api_refuse_member(r, dn_option_info_of(rows[i].id)->name, rows[i].rule);
        }
    }
    return true;
}

/* What steers guidance needs guidance: something to be guided to, and a scale that is not 1. */
static bool check_guided(api_reader *r, const api_request *request, uint32_t method)
{
    bool guided = request->has_class && (request->guidance_scale != 1 || method == DN_GUIDE_CLASSIFIER);
    for (uint32_t i = DN_OPT_GUIDANCE_METHOD; i <= DN_OPT_CLASSIFIER_SCALE && !guided; i++) {
        if (given(request, (dn_option_id)i)) {
            return api_refuse_member(r, dn_option_info_of((dn_option_id)i)->name,
                                     request->has_class ? "needs a guidance_scale other than 1" : "needs a class_label to be guided to");
        }
    }
    if (request->has_negative && (!guided || request->guidance_scale == 1 || method == DN_GUIDE_AUTO)) {
        return api_refuse_member(r, "negative_class",
                                 "needs a class_label, a guidance_scale other than 1 and a guidance_method with a null class");
    }
    return true;
}

static bool check_pictures(api_reader *r, const api_request *request)
{
    bool init = request->init_image.sha256[0], mask = request->mask_image.sha256[0];
    if (r->sampler->inverts && !init) {
        return api_refuse_member(r, "sampler", "goes from a picture to its noise: it needs an init_image");
    }
    if (mask && !init) {
        return api_refuse_member(r, "mask_image", "needs an init_image");
    }
    if (given(request, DN_OPT_STRENGTH) && !init) {
        return api_refuse_member(r, "strength", "needs an init_image");
    }
    if (given(request, DN_OPT_RESAMPLE) && !mask) {
        return api_refuse_member(r, "resample", "needs a mask_image");
    }
    return true;
}

bool api_check_together(api_reader *r, const api_request *request)
{
    uint32_t method = method_of(r, request);
    bool strength = given(request, DN_OPT_VARIATION_STRENGTH);
    if (request->has_variation != strength) {
        return api_refuse_member(r, strength ? "variation_strength" : "variation_seed",
                                 strength ? "needs a variation_seed" : "needs a variation_strength");
    }
    return check_method(r, request, method) && check_method_options(r, request, method) && check_guided(r, request, method) &&
           check_pictures(r, request);
}
