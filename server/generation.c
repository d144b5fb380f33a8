/* From the options of `denoised generate` to lanes: which model, which class each image has, which noise it starts from. */
#include "server/generation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/safetensors.h"

#define BUILT_IN "models/fashion-mnist"

static bool is_model(const char *path)
{
    char index[1100];
    snprintf(index, sizeof index, "%s/model_index.json", path);
    return access(index, R_OK) == 0;
}

/* PREFIX/bin/denoised has its models in PREFIX/share/denoised. */
static bool installed_model(char *out, size_t room)
{
    char program[512];
    ssize_t bytes = readlink("/proc/self/exe", program, sizeof program - 1);
    if (bytes <= 0)
        return false;
    program[bytes] = '\0';
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(program, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    snprintf(out, room, "%s/share/denoised/" BUILT_IN, program);
    return is_model(out);
}

dn_status generation_find_model(generation *g, dn_error *error)
{
    const char *named = g->model != NULL ? g->model : getenv("DENOISED_MODEL");
    if (named != NULL && named[0] != '\0')
        snprintf(g->model_path, sizeof g->model_path, "%s", named);
    else if (is_model(BUILT_IN))
        snprintf(g->model_path, sizeof g->model_path, BUILT_IN);
    else if (!installed_model(g->model_path, sizeof g->model_path))
        return dn_fail(error, DN_INVALID, "no model: name one by --model DIR or DENOISED_MODEL; the built-in one is not at ./" BUILT_IN);
    return DN_OK;
}

/* A class as people write it: a number, or a name. */
static dn_status find_class(const dn_engine *engine, const char *text, uint32_t *out, dn_error *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0')
        return dn_engine_find_class(engine, text, out, error);
    if (errno != 0 || number >= engine->class_count)
        return dn_fail(error, DN_INVALID, "--class: %.40s is not below %u, the number of classes", text, engine->class_count);
    *out = (uint32_t)number;
    return DN_OK;
}

/* Resolves the comma-separated list; *count 0 when there is none. A class whose own name holds a comma is taken whole. */
static dn_status read_classes(const generation *g, uint32_t **out, uint32_t *count, dn_error *error)
{
    *count = 0;
    if (g->classes == NULL)
        return DN_OK;
    char *text = strdup(g->classes), *rest = NULL;
    uint32_t *classes = calloc(strlen(g->classes) + 1, sizeof *classes);
    dn_status status = text != NULL && classes != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for the classes");
    if (status == DN_OK && dn_engine_find_class(g->engine, g->classes, &classes[0], NULL) == DN_OK) {
        *count = 1;
    } else {
        for (char *word = status == DN_OK ? strtok_r(text, ",", &rest) : NULL; word != NULL && status == DN_OK;
             word = strtok_r(NULL, ",", &rest))
            status = find_class(g->engine, word, &classes[(*count)++], error);
        if (status == DN_OK && *count == 0)
            status = dn_fail(error, DN_INVALID, "--class is empty");
    }
    free(text);
    if (status == DN_OK)
        *out = classes;
    else
        free(classes);
    return status;
}

static dn_status read_start(generation *g, uint32_t *images, dn_error *error)
{
    const dn_model *model = g->engine->model;
    dn_safetensors *file = NULL;
    dn_status status = dn_safetensors_open(&file, g->latents, error);
    if (status != DN_OK)
        return status;
    const dn_tensor_info *info = dn_safetensors_find(file, "latents");
    bool fits = info != NULL && info->rank == 4 && info->dims[0] >= 1 && info->dims[0] <= GENERATION_IMAGES_MAX &&
                info->dims[1] == model->channels && info->dims[2] == model->height && info->dims[3] == model->width;
    if (!fits)
        status = dn_fail(error, DN_INVALID, "%s: a tensor latents of shape [N,%u,%u,%u] is needed", g->latents, model->channels,
                         model->height, model->width);
    if (status == DN_OK && (g->start = calloc(info->count, sizeof *g->start)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for the start noise");
    if (status == DN_OK)
        status = dn_safetensors_read_f32(file, info, g->start, error);
    if (status == DN_OK)
        *images = (uint32_t)info->dims[0];
    dn_safetensors_close(file);
    return status;
}

/* How many images: -n, else one per latent, else one per class of the list, else one. */
static dn_status settle_count(generation *g, uint32_t classes, dn_error *error)
{
    uint32_t latents = 0;
    if (g->latents != NULL) {
        dn_status status = read_start(g, &latents, error);
        if (status != DN_OK)
            return status;
    }
    g->count = g->n != 0 ? (uint32_t)g->n : latents != 0 ? latents : classes > 1 ? classes : 1;
    if (latents != 0 && latents != g->count)
        return dn_fail(error, DN_INVALID, "%s holds %u images, not %u", g->latents, latents, g->count);
    return DN_OK;
}

static dn_lane_spec common_spec(const generation *g)
{
    const dn_engine *engine = g->engine;
    bool guided = g->classes != NULL && engine->null_class != DN_NONE;
    dn_lane_spec spec = {
        .guidance_scale = !isnan(g->guidance_scale) ? g->guidance_scale
                          : guided                  ? engine->default_guidance
                                                    : 1.0,
        .steps = g->steps != 0 ? (uint32_t)g->steps : engine->default_steps,
        .options = g->options,
    };
    snprintf(spec.sampler, sizeof spec.sampler, "%s", g->sampler != NULL ? g->sampler : engine->default_sampler);
    return spec;
}

dn_status generation_plan(generation *g, dn_error *error)
{
    uint32_t *classes = NULL, class_count = 0;
    size_t elements = dn_engine_elements(g->engine);
    dn_status status = read_classes(g, &classes, &class_count, error);
    if (status == DN_OK)
        status = settle_count(g, class_count, error);
    if (status == DN_OK) {
        g->specs = calloc(g->count, sizeof *g->specs);
        g->pixels = calloc(g->count, elements);
        g->floats = calloc(g->count, elements * sizeof *g->floats);
        if (g->specs == NULL || g->pixels == NULL || g->floats == NULL)
            status = dn_fail(error, DN_NO_MEMORY, "out of memory for %u images", g->count);
    }
    for (uint32_t i = 0; status == DN_OK && i < g->count; i++) {
        g->specs[i] = common_spec(g);
        g->specs[i].seed = g->seed + i;
        g->specs[i].has_class = class_count > 0;
        g->specs[i].class_index = class_count > 0 ? classes[i % class_count] : 0;
        g->specs[i].start = g->start != NULL ? g->start + i * elements : NULL;
    }
    free(classes);
    return status;
}

void generation_done(generation *g)
{
    free(g->specs);
    free(g->start);
    free(g->pixels);
    free(g->floats);
    dn_engine_close(g->engine);
}
