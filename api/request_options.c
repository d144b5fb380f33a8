/* The options of a request: each against the rule of the sampler or of the model, then all of them together. An option that would do
 * nothing is refused, so that nobody wonders why. Pure; any thread. */
#include <stdio.h>
#include <stdlib.h>
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
    const dn_option_field any_method = {DN_OPT_GUIDANCE_METHOD, DN_GUIDE_CFG, DN_GUIDE_CLASSIFIER, DN_GUIDE_CFG};
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
        if (id == DN_OPT_GUIDANCE_METHOD && !isnan(value)) {
            field = &any_method; /* one that this model cannot follow is unsupported, not wrong: see check_method */
        }
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
    if (!request->has_class && !given(request, DN_OPT_GUIDANCE_METHOD)) {
        return DN_GUIDE_CFG; /* nothing to be guided to */
    }
    if (given(request, DN_OPT_GUIDANCE_METHOD)) {
        return (uint32_t)request->options.value[DN_OPT_GUIDANCE_METHOD];
    }
    return field && !isnan(field->standard) ? (uint32_t)field->standard : DN_GUIDE_CFG;
}

static bool check_method(api_reader *r, const api_request *request, uint32_t method)
{
    static const char *const lacks[] = {
        [DN_GUIDE_CFG] = "cfg needs a model with classes",
        [DN_GUIDE_CFG_PP] = "cfg_pp needs a model with classes",
        [DN_GUIDE_APG] = "apg needs a model with classes",
        [DN_GUIDE_AUTO] = "autoguidance needs a model with a second, weaker network, which this one has not",
        [DN_GUIDE_CLASSIFIER] = "classifier needs a model with a noise-aware classifier, which this one has not",
    };
    char rule[128];
    bool sent = given(request, DN_OPT_GUIDANCE_METHOD);
    if (sent && method == DN_GUIDE_CLASSIFIER && r->model->gpu[0] && !(r->model->guidance_methods >> method & 1u)) {
        return api_refuse_unsupported(r, "guidance_method", "classifier guidance runs on the CPU alone, and this model is on a GPU");
    }
    if (sent && !(r->model->guidance_methods >> method & 1u)) {
        return api_refuse_unsupported(r, "guidance_method", lacks[method]);
    }
    if (method == DN_GUIDE_CFG_PP && !r->sampler->renoises) {
        snprintf(rule, sizeof rule, "cfg_pp is not defined for the sampler %s; GET /samplers lists those it is", request->sampler);
        return api_refuse_unsupported(r, "guidance_method", rule);
    }
    if (method == DN_GUIDE_CFG_PP && !(request->guidance_scale >= 0 && request->guidance_scale <= 1)) {
        return api_refuse_member(r, "guidance_scale", "must be a number from 0 to 1 with guidance_method cfg_pp");
    }
    if (sent && method == DN_GUIDE_CLASSIFIER && request->mixture_count) {
        return api_refuse_member(r, "class_mixture", "has no place in guidance_method classifier");
    }
    return true;
}

#define METHOD(name) (1u << DN_GUIDE_##name)

/* Options that some methods alone read. */
static bool check_method_options(api_reader *r, const api_request *request, uint32_t method)
{
    static const struct {
        dn_option_id id;
        uint32_t methods;
        const char *rule;
    } rows[] = {
        {DN_OPT_GUIDANCE_RESCALE, METHOD(CFG) | METHOD(APG) | METHOD(AUTO), "needs guidance_method cfg, apg or autoguidance"},
        {DN_OPT_GUIDANCE_CHANNELS, METHOD(CFG) | METHOD(AUTO) | METHOD(CLASSIFIER),
         "needs guidance_method cfg, autoguidance or classifier"},
        {DN_OPT_APG_ETA, METHOD(APG), "needs guidance_method apg"},
        {DN_OPT_APG_NORM, METHOD(APG), "needs guidance_method apg"},
        {DN_OPT_APG_MOMENTUM, METHOD(APG), "needs guidance_method apg"},
        {DN_OPT_CLASSIFIER_SCALE, METHOD(CLASSIFIER), "needs guidance_method classifier"},
    };
    const double *value = request->options.value;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (given(request, rows[i].id) && !(rows[i].methods >> method & 1u)) {
            return api_refuse_member(r, dn_option_info_of(rows[i].id)->name, rows[i].rule);
        }
    }
    double low = given(request, DN_OPT_GUIDANCE_SIGMA_MIN) ? value[DN_OPT_GUIDANCE_SIGMA_MIN] : 0;
    if (given(request, DN_OPT_GUIDANCE_SIGMA_MAX) && low >= value[DN_OPT_GUIDANCE_SIGMA_MAX]) {
        return api_refuse_member(r, "guidance_sigma_max", "must be above guidance_sigma_min");
    }
    return true;
}

/* What steers guidance needs guidance: something to be guided to (autoguidance: by), and a scale that is not 1, where 1 is off. */
static bool check_guided(api_reader *r, const api_request *request, uint32_t method)
{
    bool always = method == DN_GUIDE_CLASSIFIER || method == DN_GUIDE_CFG_PP;
    bool aimed = request->has_class || method == DN_GUIDE_AUTO;
    for (uint32_t i = DN_OPT_GUIDANCE_METHOD; i <= DN_OPT_CLASSIFIER_SCALE; i++) {
        if (given(request, (dn_option_id)i) && (!aimed || (request->guidance_scale == 1 && !always))) {
            return api_refuse_member(r, dn_option_info_of((dn_option_id)i)->name,
                                     aimed ? "needs a guidance_scale other than 1" : "needs a class_label to be guided to");
        }
    }
    if (request->has_negative && !request->has_class) {
        return api_refuse_member(r, "negative_class", "needs a class_label to be guided to");
    }
    if (request->has_negative && method == DN_GUIDE_AUTO) {
        return api_refuse_member(r, "negative_class", "has no place in guidance_method autoguidance");
    }
    if (request->has_negative && request->guidance_scale == 1 && method != DN_GUIDE_CFG_PP) {
        return api_refuse_member(r, "negative_class", "needs a guidance_scale other than 1");
    }
    bool away = request->has_class && (request->guidance_scale != 1 || method == DN_GUIDE_CFG_PP) && method != DN_GUIDE_AUTO;
    if (away && !r->model->guidance && !request->has_negative) {
        return api_refuse_unsupported(r, "guidance_scale",
                                      "must be 1: this model has no null class to guide away from; send a negative_class");
    }
    return true;
}

/* A sampler that goes from a picture to its noise takes that picture alone. */
static bool check_inversion(api_reader *r, const api_request *request)
{
    if (!request->init_image.sha256[0]) {
        return api_refuse_member(r, "sampler", "goes from a picture to its noise: it needs an init_image");
    }
    const char *odd = given(request, DN_OPT_STRENGTH)             ? "strength"
                      : request->mask_image.sha256[0]             ? "mask_image"
                      : given(request, DN_OPT_VARIATION_STRENGTH) ? "variation_seed"
                                                                  : NULL;
    return !odd || api_refuse_unsupported(r, odd, "has no place in a sampler that goes from a picture to its noise");
}

static bool check_pictures(api_reader *r, const api_request *request)
{
    bool init = request->init_image.sha256[0], mask = request->mask_image.sha256[0];
    if (mask && !init) {
        return api_refuse_member(r, "mask_image", "needs an init_image");
    }
    if (given(request, DN_OPT_STRENGTH) && !init) {
        return api_refuse_member(r, "strength", "needs an init_image");
    }
    if (given(request, DN_OPT_RESAMPLE) && !mask) {
        return api_refuse_member(r, "resample", "needs a mask_image");
    }
    if (init && r->sampler->adaptive) {
        return api_refuse_unsupported(r, "init_image", "has no place in a sampler that chooses its own steps");
    }
    if (given(request, DN_OPT_RESAMPLE) && request->options.value[DN_OPT_RESAMPLE] > 1 && !r->sampler->memoryless) {
        return api_refuse_unsupported(r, "resample", "must be 1 with this sampler, which cannot take a step again");
    }
    return !r->sampler->inverts || check_inversion(r, request);
}

/* The first word of an engine's refusal is its field; one that is no member speaks of the sampler. */
static bool refuse_as_engine(api_reader *r, const dn_error *error)
{
    size_t bytes = strcspn(error->message, " ");
    const char *field = "sampler";
    for (uint32_t i = 0; i < API_MEMBER_COUNT; i++) {
        const char *name = api_member_name(i);
        if (strlen(name) == bytes && strncmp(name, error->message, bytes) == 0) {
            field = name;
        }
    }
    api_code code = error->status == DN_NO_MEMORY     ? API_INTERNAL
                    : error->status == DN_UNSUPPORTED ? API_UNSUPPORTED_OPTION
                                                      : API_INVALID_FIELD;
    return api_refuse(r->problem, code, api_pointer_to(r, field).text, "%s", error->message);
}

/* Tries the sampler with its options and steps, as the worker will. */
static bool check_schedule(api_reader *r, const api_request *request)
{
    dn_options options = {.given = request->options.given & ((UINT64_C(1) << SAMPLER_OPTIONS_END) - 1)};
    dn_error error = {DN_OK, ""};
    if (!r->model->training) {
        return true;
    }
    dn_sampler_context *context = malloc(sizeof *context);
    if (!context) {
        return api_refuse(r->problem, API_INTERNAL, "", "out of memory");
    }
    memcpy(options.value, request->options.value, sizeof options.value);
    dn_status status =
        dn_sampler_context_init(context, request->sampler, request->steps, &options, 0, r->model->training, &r->model->scheduler, &error);
    bool learned = context->config.variance == DN_VARIANCE_LEARNED_RANGE || context->config.variance == DN_VARIANCE_LEARNED;
    free(context);
    if (status != DN_OK) {
        return refuse_as_engine(r, &error);
    }
    if (learned && !r->model->learned_variance && strcmp(r->sampler->name, "ddpm") == 0) {
        bool sent = given(request, DN_OPT_VARIANCE_TYPE);
        return api_refuse_unsupported(r, sent ? "variance_type" : "sampler", "wants a learned variance, and this model has none");
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
           check_pictures(r, request) && check_schedule(r, request);
}
