/* What a lane's spec means on an engine: every refusal names its field. Pure functions, any thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "batch/lane.h"

#define METHOD(name) (1u << DN_GUIDE_##name)

/* Which options are which methods'. */
static const struct {
    dn_option_id option;
    uint32_t methods;
} owners[] = {
    {DN_OPT_GUIDANCE_RESCALE, METHOD(CFG) | METHOD(APG) | METHOD(AUTO)},
    {DN_OPT_GUIDANCE_CHANNELS, METHOD(CFG) | METHOD(AUTO) | METHOD(CLASSIFIER)},
    {DN_OPT_APG_ETA, METHOD(APG)},
    {DN_OPT_APG_NORM, METHOD(APG)},
    {DN_OPT_APG_MOMENTUM, METHOD(APG)},
    {DN_OPT_CLASSIFIER_SCALE, METHOD(CLASSIFIER)},
};

static const char *method_name(dn_guidance_method method)
{
    return dn_option_info_of(DN_OPT_GUIDANCE_METHOD)->choices[method];
}

static const dn_option_field *field_of(const dn_engine *engine, dn_option_id id)
{
    const dn_option_field *field = NULL;
    for (uint32_t i = 0; (field = dn_engine_field_at(engine, i)) != NULL && field->id != id; i++) {
    }
    return field;
}

/* What is given, else what the engine's field says; 0 where it has none. */
static double option_of(const dn_engine *engine, const dn_lane_spec *spec, dn_option_id id)
{
    const dn_option_field *field = field_of(engine, id);
    if (dn_option_given(&spec->options, id))
        return spec->options.value[id];
    return field != NULL ? field->standard : 0.0;
}

/* Whether an option asks for the classifier that the folder has and a GPU's engine leaves out. */
static bool wants_classifier(const dn_engine *engine, dn_option_id id, double value)
{
    bool asks = id == DN_OPT_CLASSIFIER_SCALE || (id == DN_OPT_GUIDANCE_METHOD && value == DN_GUIDE_CLASSIFIER);
    return asks && engine->folder->classifier_path != NULL && !engine->backend->host_values;
}

/* The options behind the samplers' own: each must be a field of this engine and within its range. */
static dn_status check_options(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    for (uint32_t i = DN_OPT_GUIDANCE_METHOD; i < DN_OPT_COUNT; i++) {
        const dn_option_field *field = field_of(engine, (dn_option_id)i);
        if (!dn_option_given(&spec->options, (dn_option_id)i))
            continue;
        if (wants_classifier(engine, (dn_option_id)i, spec->options.value[i]))
            return dn_fail(error, DN_INVALID, "%s: classifier guidance runs on the CPU alone, and this model is on a GPU",
                           dn_option_info_of((dn_option_id)i)->name);
        if (field == NULL)
            return dn_fail(error, DN_INVALID, "%s is not an option of this model", dn_option_info_of((dn_option_id)i)->name);
        dn_status status = dn_option_check(field, spec->options.value[i], error);
        if (status != DN_OK)
            return status;
    }
    return DN_OK;
}

static dn_status check_class(const dn_engine *engine, uint32_t index, const char *field, dn_error *error)
{
    if (index < engine->class_count)
        return DN_OK;
    return dn_fail(error, DN_INVALID, "%s must be an integer from 0 to %u", field, engine->class_count - 1);
}

static dn_status check_mixture(const dn_engine *engine, const dn_condition *mixture, dn_error *error)
{
    if (mixture->count > DN_CONDITION_CLASSES_MAX)
        return dn_fail(error, DN_INVALID, "class_mixture must have at most %u classes", DN_CONDITION_CLASSES_MAX);
    for (uint32_t i = 0; i < mixture->count; i++) {
        dn_status status = check_class(engine, mixture->classes[i], "class_mixture: every class", error);
        if (status != DN_OK)
            return status;
        if (!(fabsf(mixture->weights[i]) <= DN_CLASS_WEIGHT_MAX))
            return dn_fail(error, DN_INVALID, "class_mixture: every weight must be a number from %g to %g", -(double)DN_CLASS_WEIGHT_MAX,
                           (double)DN_CLASS_WEIGHT_MAX);
        for (uint32_t k = 0; k < i; k++)
            if (mixture->classes[k] == mixture->classes[i])
                return dn_fail(error, DN_INVALID, "class_mixture: class %u stands there twice", mixture->classes[i]);
    }
    return DN_OK;
}

static dn_status check_classes(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    if (!spec->has_class && spec->mixture.count > 0)
        return dn_fail(error, DN_INTERNAL, "a mixture of classes has a class");
    if (spec->has_class && engine->class_count == 0)
        return dn_fail(error, DN_INVALID, "class_label must be absent: this model takes no class");
    if (!spec->has_class && engine->model->class_rows > 0 && engine->null_class == DN_NONE)
        return dn_fail(error, DN_INVALID, "class_label is needed: this model has no null class");
    if (!spec->has_class && spec->has_negative)
        return dn_fail(error, DN_INVALID, "negative_class needs a class to be guided to: class_label");
    dn_status status = DN_OK;
    if (spec->has_class && spec->mixture.count > 0)
        status = check_mixture(engine, &spec->mixture, error);
    else if (spec->has_class)
        status = check_class(engine, spec->class_index, "class_label", error);
    if (status == DN_OK && spec->has_negative)
        status = check_class(engine, spec->negative_class, "negative_class", error);
    return status;
}

/* Whether this engine can follow a method, and the spec wants nothing that the method cannot do. */
static dn_status check_method(const dn_engine *engine, const dn_lane_spec *spec, const dn_guidance *guidance, dn_error *error)
{
    dn_guidance_method method = guidance->method;
    bool given = dn_option_given(&spec->options, DN_OPT_GUIDANCE_METHOD);
    if (given && !(engine->guidance_methods >> method & 1u))
        return dn_fail(error, DN_INVALID, "guidance_method %s is not one that this model can follow", method_name(method));
    for (size_t i = 0; i < sizeof owners / sizeof owners[0]; i++)
        if (dn_option_given(&spec->options, owners[i].option) && !(owners[i].methods >> method & 1u))
            return dn_fail(error, DN_INVALID, "%s is not an option of guidance_method %s", dn_option_info_of(owners[i].option)->name,
                           method_name(method));
    if (spec->has_negative && method == DN_GUIDE_AUTO)
        return dn_fail(error, DN_INVALID, "negative_class has no place in guidance_method autoguidance");
    if (spec->has_negative && !(dn_guidance_rows_most(guidance) & DN_ROW_NULL))
        return dn_fail(error, DN_INVALID, "negative_class has no effect at guidance_scale %g", spec->guidance_scale);
    if (method == DN_GUIDE_CFG_PP && !(spec->guidance_scale >= 0.0 && spec->guidance_scale <= 1.0))
        return dn_fail(error, DN_INVALID, "guidance_scale must be a number from 0 to 1 with guidance_method cfg_pp");
    if (method == DN_GUIDE_CLASSIFIER && !spec->has_class)
        return dn_fail(error, DN_INVALID, "guidance_method classifier needs a class to be guided to: class_label");
    if (method == DN_GUIDE_CLASSIFIER && spec->mixture.count > 0)
        return dn_fail(error, DN_INVALID, "class_mixture has no place in guidance_method classifier");
    if (method == DN_GUIDE_CLASSIFIER && spec->class_index >= engine->classifier.class_count)
        return dn_fail(error, DN_INVALID, "class_label must be below %u, the classes of the classifier", engine->classifier.class_count);
    return DN_OK;
}

/* A network without classes: they are the classifier's, who alone can look at them. */
static dn_status check_rows(const dn_engine *engine, const dn_lane_spec *spec, const dn_guidance *guidance, dn_error *error)
{
    bool classes = engine->model->class_rows > 0;
    if (!classes && spec->has_class && guidance->method != DN_GUIDE_CLASSIFIER)
        return dn_fail(error, DN_INVALID, "class_label needs guidance_method classifier: this model's network takes no class");
    bool wants = (dn_guidance_rows_most(guidance) & DN_ROW_NULL) != 0;
    if (wants && (!classes || (engine->null_class == DN_NONE && !spec->has_negative)))
        return dn_fail(error, DN_INVALID, "guidance_scale must be 1: this model has no null class to guide with");
    return DN_OK;
}

static dn_status resolve_guidance(dn_guidance *out, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    if (!(fabs(spec->guidance_scale) <= DN_GUIDANCE_SCALE_MAX))
        return dn_fail(error, DN_INVALID, "guidance_scale must be a number from %g to %g", -DN_GUIDANCE_SCALE_MAX, DN_GUIDANCE_SCALE_MAX);
    const dn_model *model = engine->model;
    *out = (dn_guidance){
        .method = (dn_guidance_method)option_of(engine, spec, DN_OPT_GUIDANCE_METHOD),
        .conditional = spec->has_class,
        .scale = spec->guidance_scale,
        .sigma_min = option_of(engine, spec, DN_OPT_GUIDANCE_SIGMA_MIN),
        .sigma_max =
            dn_option_given(&spec->options, DN_OPT_GUIDANCE_SIGMA_MAX) ? spec->options.value[DN_OPT_GUIDANCE_SIGMA_MAX] : (double)INFINITY,
        .rescale = option_of(engine, spec, DN_OPT_GUIDANCE_RESCALE),
        .apg_eta = option_of(engine, spec, DN_OPT_APG_ETA),
        .apg_norm = option_of(engine, spec, DN_OPT_APG_NORM),
        .apg_momentum = option_of(engine, spec, DN_OPT_APG_MOMENTUM),
        .classifier_scale = option_of(engine, spec, DN_OPT_CLASSIFIER_SCALE),
    };
    if (out->method == DN_GUIDE_CLASSIFIER && !spec->has_class && !dn_option_given(&spec->options, DN_OPT_GUIDANCE_METHOD))
        out->method = DN_GUIDE_CFG; /* asked for nothing, such a model's usual method has nothing to do */
    double channels = option_of(engine, spec, DN_OPT_GUIDANCE_CHANNELS);
    bool first = out->method == DN_GUIDE_CFG || out->method == DN_GUIDE_AUTO || out->method == DN_GUIDE_CLASSIFIER;
    if (first && channels < model->channels)
        out->split = (uint64_t)channels * model->height * model->width;
    if (out->sigma_min >= out->sigma_max)
        return dn_fail(error, DN_INVALID, "guidance_sigma_min must be below guidance_sigma_max");
    dn_status status = check_method(engine, spec, out, error);
    return status == DN_OK ? check_rows(engine, spec, out, error) : status;
}

static dn_status need(bool given, const char *what, bool there, const char *needed, dn_error *error)
{
    return given && !there ? dn_fail(error, DN_INVALID, "%s needs %s", what, needed) : DN_OK;
}

static dn_status resolve_conditioning(dn_conditioning *out, const dn_engine *engine, const dn_lane_spec *spec, const dn_sampler *sampler,
                                      dn_error *error)
{
    bool init = spec->init != NULL, mask = spec->mask != NULL, strength = dn_option_given(&spec->options, DN_OPT_STRENGTH);
    *out = (dn_conditioning){
        .has_init = init,
        .has_mask = mask,
        .from_init = init && !sampler->inverts && (!mask || strength),
        .strength = option_of(engine, spec, DN_OPT_STRENGTH),
        .resample = (uint32_t)option_of(engine, spec, DN_OPT_RESAMPLE),
        .has_variation = spec->has_variation,
        .variation_strength = option_of(engine, spec, DN_OPT_VARIATION_STRENGTH),
        .variation_seed = spec->variation_seed,
    };
    dn_status status = need(strength, "strength", init, "init_image", error);
    if (status == DN_OK)
        status = need(mask, "mask_image", init, "init_image", error);
    if (status == DN_OK)
        status = need(dn_option_given(&spec->options, DN_OPT_RESAMPLE), "resample", mask, "mask_image", error);
    if (status == DN_OK)
        status = need(dn_option_given(&spec->options, DN_OPT_VARIATION_STRENGTH), "variation_strength", spec->has_variation,
                      "variation_seed", error);
    if (status == DN_OK && sampler->inverts && !init)
        return dn_fail(error, DN_INVALID, "sampler \"%s\" goes from a picture to noise: it needs init_image", sampler->name);
    if (status == DN_OK && sampler->inverts && (strength || mask || spec->has_variation))
        return dn_fail(error, DN_INVALID, "sampler \"%s\" goes from a picture to noise: it takes no %s", sampler->name,
                       strength ? "strength"
                       : mask   ? "mask_image"
                                : "variation_seed");
    if (status == DN_OK && sampler->adaptive && init)
        return dn_fail(error, DN_INVALID, "init_image has no place in sampler \"%s\", whose steps are not known beforehand", sampler->name);
    if (status == DN_OK && out->resample > 1 && !sampler->memoryless)
        return dn_fail(error, DN_INVALID, "resample must be 1 with sampler \"%s\", which cannot take a step again", sampler->name);
    return status;
}

static dn_status resolve_sampler(dn_sampler_context *out, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    if (memchr(spec->sampler, '\0', sizeof spec->sampler) == NULL)
        return dn_fail(error, DN_INVALID, "sampler is not a known name");
    dn_status status =
        dn_sampler_context_init(out, spec->sampler, spec->steps, &spec->options, spec->seed, engine->training, &engine->scheduler, error);
    if (status == DN_OK)
        status = dn_engine_serves(engine, out->sampler, error);
    if (status != DN_OK)
        return status;
    bool learned = out->config.variance == DN_VARIANCE_LEARNED_RANGE || out->config.variance == DN_VARIANCE_LEARNED;
    if (strcmp(out->sampler->name, "ddpm") == 0 && learned && engine->model->out_channels == engine->model->channels)
        return dn_fail(error, DN_INVALID, "sampler \"%s\" wants a learned variance, and this network answers with none", spec->sampler);
    /* Latents go beyond 1: the clip that is standard for some classes is meant for pixels. */
    if (engine->codec_path != NULL && strcmp(spec->sampler, "model") != 0 && !dn_option_given(&spec->options, DN_OPT_CLIP_SAMPLE))
        out->config.clip_sample = false;
    return DN_OK;
}

dn_status dn_lane_resolve(dn_lane *lane, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    dn_status status = check_classes(engine, spec, error);
    if (status == DN_OK)
        status = check_options(engine, spec, error);
    if (status == DN_OK)
        status = resolve_guidance(&lane->guidance, engine, spec, error);
    if (status == DN_OK)
        status = resolve_sampler(&lane->context, engine, spec, error);
    if (status == DN_OK && lane->guidance.method == DN_GUIDE_CFG_PP && !lane->context.sampler->renoises)
        return dn_fail(error, DN_INVALID, "guidance_method cfg_pp has no place in sampler \"%s\"", lane->context.sampler->name);
    if (status == DN_OK)
        status = resolve_conditioning(&lane->conditioning, engine, spec, lane->context.sampler, error);
    if (status == DN_OK)
        lane->context.first_step = dn_conditioning_first_step(&lane->conditioning, spec->steps);
    return status;
}

/* A lane is too large for a small stack. */
static dn_status resolve_alone(dn_lane **out, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    dn_lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory to look at a lane");
    dn_status status = dn_lane_resolve(lane, engine, spec, error);
    if (status == DN_OK)
        *out = lane;
    else
        free(lane);
    return status;
}

dn_status dn_lane_spec_check(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    dn_lane *lane = NULL;
    dn_status status = resolve_alone(&lane, engine, spec, error);
    free(lane);
    return status;
}

uint32_t dn_lane_count_rows(uint32_t asked, uint32_t counts[DN_RUN_COUNT])
{
    counts[DN_RUN_NETWORK] = (asked & DN_ROW_COND ? 1u : 0u) + (asked & DN_ROW_NULL ? 1u : 0u);
    counts[DN_RUN_GUIDE] = asked & DN_ROW_GUIDE ? 1u : 0u;
    counts[DN_RUN_CLASSIFIER] = asked & DN_ROW_GRADIENT ? 1u : 0u;
    return counts[DN_RUN_NETWORK] + counts[DN_RUN_GUIDE] + counts[DN_RUN_CLASSIFIER];
}

uint32_t dn_lane_spec_rows(const dn_engine *engine, const dn_lane_spec *spec)
{
    dn_guidance guidance;
    uint32_t counts[DN_RUN_COUNT];
    if (resolve_guidance(&guidance, engine, spec, NULL) != DN_OK)
        return 0;
    return dn_lane_count_rows(dn_guidance_rows_most(&guidance), counts);
}

/* Walks the sampler's states through all steps, as ticks would. */
static uint32_t walk(dn_lane *lane)
{
    const dn_sampler *sampler = lane->context.sampler;
    dn_sampler_state state = {.step = lane->context.first_step};
    dn_evaluation evaluation;
    uint32_t count = 0, counts[DN_RUN_COUNT];
    if (sampler->adaptive)
        return dn_sampler_evaluations(&lane->context) * dn_lane_count_rows(dn_guidance_rows_most(&lane->guidance), counts);
    while (sampler->next(&lane->context, &state, &evaluation)) {
        lane->ops.count = 0;
        sampler->feed(&lane->context, &state, &lane->ops);
        count += dn_lane_count_rows(dn_guidance_rows(&lane->guidance, &evaluation.level), counts);
    }
    return count * (lane->conditioning.has_mask ? lane->conditioning.resample : 1);
}

uint32_t dn_lane_spec_evaluations(const dn_engine *engine, const dn_lane_spec *spec)
{
    dn_lane *lane = NULL;
    if (resolve_alone(&lane, engine, spec, NULL) != DN_OK || lane == NULL)
        return 0;
    uint32_t count = walk(lane);
    free(lane);
    return count;
}
