/* What an engine settles from its folder: classes, null class, defaults. Errors name file and key. Called once, while it opens. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "batch/engine_private.h"

#define CONSISTENCY_PIPELINE "ConsistencyModelPipeline"
#define DN_DEFAULT_STEPS 20u
#define DN_DEFAULT_SAMPLER "dpmpp_2m" /* where the folder says nothing and it serves the model */

/* Whether the last row of the class table is the null class: the row the format names; else one embedding row more than names; no names:
 * yes, but for consistency models, whose students are trained with classes alone. */
static bool last_is_null(const dn_engine *engine)
{
    uint32_t names = engine->folder->class_count, rows = engine->model->class_rows, said = engine->model->null_rows;
    const char *pipeline = engine->folder->pipeline_class;
    if (said != 0)
        return said != DN_NULL_ROWS_NONE;
    if (names == 0 && pipeline != NULL && strcmp(pipeline, CONSISTENCY_PIPELINE) == 0)
        return false;
    return names != rows;
}

dn_status dn_engine_settle_classes(dn_engine *engine, dn_error *error)
{
    const dn_model *model = engine->model;
    uint32_t rows = model->class_rows, names = engine->folder->class_count;
    engine->null_class = DN_NONE;
    if (names != 0 && names != rows && names + 1 != rows)
        return dn_fail(error, DN_INVALID, "%s: id2label has %u classes, but the network's class embedding has %u rows",
                       engine->folder->path, names, rows);
    const cJSON *told = cJSON_GetObjectItemCaseSensitive(engine->folder->defaults, "null_class");
    if (told != NULL && (!cJSON_IsBool(told) || (cJSON_IsTrue(told) ? names == rows : names != 0 && names != rows)))
        return dn_fail(error, DN_INVALID, "%s: denoised.null_class must say true or false, as the names of classes do",
                       engine->folder->path);
    if (rows != 0 && (told != NULL ? cJSON_IsTrue(told) : last_is_null(engine)))
        engine->null_class = rows - 1;
    engine->class_count = engine->null_class == DN_NONE ? rows : rows - 1;
    return DN_OK;
}

static const char *usual_sampler(const dn_engine *engine)
{
    const dn_sampler *own = dn_sampler_for_scheduler(engine->scheduler.class_name), *other = NULL;
    bool said = engine->folder->scheduler != NULL || engine->model->convention != DN_CONVENTION_DIFFUSERS;
    if (said && own != NULL && dn_engine_serves(engine, own, NULL) == DN_OK)
        return "model";
    if (dn_engine_serves(engine, dn_sampler_find(DN_DEFAULT_SAMPLER), NULL) == DN_OK)
        return DN_DEFAULT_SAMPLER;
    for (uint32_t i = 0; (other = dn_sampler_at(i)) != NULL; i++)
        if (dn_engine_serves(engine, other, NULL) == DN_OK && !other->inverts)
            return other->name;
    return "model";
}

static dn_status read_default_sampler(dn_engine *engine, const cJSON *defaults, dn_error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(defaults, "sampler");
    const char *name = usual_sampler(engine);
    if (item != NULL && !cJSON_IsString(item))
        return dn_fail(error, DN_INVALID, "%s: denoised.sampler must be a string", engine->folder->path);
    if (item != NULL)
        name = item->valuestring;
    if (strcmp(name, "model") != 0 && dn_sampler_find(name) == NULL)
        return dn_fail(error, DN_INVALID, "%s: denoised.sampler \"%.40s\" is not known", engine->folder->path, name);
    snprintf(engine->default_sampler, sizeof engine->default_sampler, "%s", name);
    return DN_OK;
}

/* What the pipelines of diffusers and the original programs do when called without a word. */
static void usual_defaults(dn_engine *engine)
{
    const char *pipeline = engine->folder->pipeline_class;
    bool dit = pipeline != NULL && strcmp(pipeline, "DiTPipeline") == 0;
    bool original = engine->model->convention != DN_CONVENTION_DIFFUSERS && engine->model->convention != DN_CONVENTION_EDM;
    bool consistency = pipeline != NULL && strcmp(pipeline, CONSISTENCY_PIPELINE) == 0;
    engine->default_steps = dit || original ? 50 : consistency ? 1 : DN_DEFAULT_STEPS;
    engine->default_guidance = engine->null_class == DN_NONE ? 1.0 : dit || original ? 4.0 : 1.0;
}

/* model_index.json's "denoised" object, else the folder's scheduler and pipeline. */
dn_status dn_engine_settle_defaults(dn_engine *engine, dn_error *error)
{
    const cJSON *defaults = engine->folder->defaults;
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(defaults, "steps");
    const cJSON *scale = cJSON_GetObjectItemCaseSensitive(defaults, "guidance_scale");
    usual_defaults(engine);
    if (steps != NULL) {
        double value = cJSON_IsNumber(steps) ? steps->valuedouble : 0.0;
        if (!(value >= 1.0 && value <= DN_STEPS_MAX) || value != (double)(uint32_t)value)
            return dn_fail(error, DN_INVALID, "%s: denoised.steps must be an integer from 1 to %u", engine->folder->path, DN_STEPS_MAX);
        engine->default_steps = (uint32_t)value;
    }
    if (scale != NULL) {
        if (!cJSON_IsNumber(scale) || !(fabs(scale->valuedouble) <= DN_GUIDANCE_SCALE_MAX))
            return dn_fail(error, DN_INVALID, "%s: denoised.guidance_scale must be a number of at most %g", engine->folder->path,
                           DN_GUIDANCE_SCALE_MAX);
        engine->default_guidance = scale->valuedouble;
    }
    return read_default_sampler(engine, defaults, error);
}
