/* What an engine tells of itself: the samplers that serve it, the methods of guidance it can follow, the options it takes, and what
 * it costs. Fields are written while the engine opens and read by any thread ever after. */
#include "batch/engine_private.h"
#include "batch/lane.h"
#include "diffusion/family.h"

#define DN_STRENGTH_STANDARD 0.8 /* diffusers' image-to-image pipelines */
#define DN_VARIATION_STANDARD 0.1

static uint32_t methods_of(const dn_engine *engine)
{
    uint32_t methods = 0;
    bool pairs = engine->model->class_rows > 1 && engine->class_count > 0; /* a null class, or a class for a negative one */
    if (pairs)
        methods |= 1u << DN_GUIDE_CFG | 1u << DN_GUIDE_CFG_PP | 1u << DN_GUIDE_APG;
    if (engine->guide_model != NULL)
        methods |= 1u << DN_GUIDE_AUTO;
    if (engine->classifier.class_count > 0)
        methods |= 1u << DN_GUIDE_CLASSIFIER;
    return methods;
}

static void add(dn_engine *engine, dn_option_id id, double standard)
{
    const dn_option_info *info = dn_option_info_of(id);
    engine->fields[engine->field_count++] = (dn_option_field){id, info->minimum, info->maximum, standard};
}

static void add_guidance(dn_engine *engine)
{
    uint32_t methods = engine->guidance_methods;
    if (methods == 0)
        return;
    add(engine, DN_OPT_GUIDANCE_METHOD, __builtin_ctz(methods));
    dn_option_field *method = &engine->fields[engine->field_count - 1];
    method->minimum = __builtin_ctz(methods);
    method->maximum = 31 - __builtin_clz(methods);
    add(engine, DN_OPT_GUIDANCE_SIGMA_MIN, 0.0);
    add(engine, DN_OPT_GUIDANCE_SIGMA_MAX, dn_option_info_of(DN_OPT_GUIDANCE_SIGMA_MAX)->maximum);
    if (methods & (1u << DN_GUIDE_CFG | 1u << DN_GUIDE_APG | 1u << DN_GUIDE_AUTO))
        add(engine, DN_OPT_GUIDANCE_RESCALE, 0.0);
    if (engine->model->channels > 1) {
        add(engine, DN_OPT_GUIDANCE_CHANNELS, engine->model->guided_channels);
        engine->fields[engine->field_count - 1].maximum = engine->model->channels;
    }
    if (methods & 1u << DN_GUIDE_APG) {
        add(engine, DN_OPT_APG_ETA, 1.0);
        add(engine, DN_OPT_APG_NORM, 15.0);
        add(engine, DN_OPT_APG_MOMENTUM, 0.0);
    }
    if (methods & 1u << DN_GUIDE_CLASSIFIER)
        add(engine, DN_OPT_CLASSIFIER_SCALE, 1.0);
}

void dn_engine_settle_fields(dn_engine *engine)
{
    engine->guidance_methods = methods_of(engine);
    engine->field_count = 0;
    add_guidance(engine);
    add(engine, DN_OPT_STRENGTH, DN_STRENGTH_STANDARD);
    add(engine, DN_OPT_RESAMPLE, 1.0);
    add(engine, DN_OPT_VARIATION_STRENGTH, DN_VARIATION_STANDARD);
}

const dn_option_field *dn_engine_field_at(const dn_engine *engine, uint32_t index)
{
    return index < engine->field_count ? &engine->fields[index] : NULL;
}

void dn_engine_set_classifier(dn_engine *engine, dn_gradient classifier)
{
    if (engine->classifier.close != NULL)
        engine->classifier.close(engine->classifier.self);
    engine->classifier = classifier;
    if (engine->model->class_rows == 0)
        engine->class_count = classifier.class_count; /* the network takes none: classes are the classifier's */
    dn_engine_add_to_build(engine, "classifier", classifier.weights_sha256);
    dn_engine_settle_fields(engine);
}

dn_status dn_engine_serves(const dn_engine *engine, const dn_sampler *sampler, dn_error *error)
{
    if (dn_sampler_serves(sampler, engine->training))
        return DN_OK;
    return dn_fail(error, DN_INVALID, "sampler \"%s\" does not serve this model, which was trained by %s", sampler->name,
                   dn_family_title(engine->training->family));
}

size_t dn_engine_lane_bytes(const dn_engine *engine)
{
    return dn_lane_registers(engine) * dn_engine_elements(engine) * sizeof(float);
}

size_t dn_engine_elements(const dn_engine *engine)
{
    const dn_model *model = engine->model;
    return (size_t)model->channels * model->height * model->width;
}
