/* From the options of `denoised generate` to lanes: which model, which classes each image has, which noise it starts from. */
#include "server/generation.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
static dn_status find_class(const dn_engine *engine, const char *text, const char *field, uint32_t *out, dn_error *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0') {
        dn_error why = {DN_OK, ""};
        dn_status status = dn_engine_find_class(engine, text, out, &why);
        return status == DN_OK ? DN_OK : dn_fail(error, status, "%s: %s", field, why.message);
    }
    if (errno != 0 || number >= engine->class_count)
        return dn_fail(error, DN_INVALID, "%s: %.40s is not below %u, the number of classes", field, text, engine->class_count);
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
            status = find_class(g->engine, word, "class_label", &classes[(*count)++], error);
        if (status == DN_OK && *count == 0)
            status = dn_fail(error, DN_INVALID, "class_label is empty");
    }
    free(text);
    if (status == DN_OK)
        *out = classes;
    else
        free(classes);
    return status;
}

/* "2:0.5,Ankle boot:0.5": a class ends at a colon that a number follows. */
static dn_status read_mixture(generation *g, dn_error *error)
{
    const char *at = g->mixture_text;
    char name[API_CLASS_NAME_BYTES];
    while (at != NULL && *at != '\0') {
        const char *colon = at;
        char *end = NULL;
        double weight = 0.0;
        do {
            colon = strchr(colon + (end != NULL), ':');
            weight = colon != NULL ? strtod(colon + 1, &end) : 0.0;
        } while (colon != NULL && (end == colon + 1 || (*end != ',' && *end != '\0')));
        if (colon == NULL || colon == at || (size_t)(colon - at) >= sizeof name || !isfinite(weight))
            return dn_fail(error, DN_INVALID, "class_mixture must be CLASS:WEIGHT,CLASS:WEIGHT...");
        if (g->mixture_count == API_CLASS_MIXTURE_MAX)
            return dn_fail(error, DN_INVALID, "class_mixture has at most %d classes", API_CLASS_MIXTURE_MAX);
        snprintf(name, sizeof name, "%.*s", (int)(colon - at), at);
        api_class_weight *entry = &g->mixture[g->mixture_count++];
        dn_status status = find_class(g->engine, name, "class_mixture", &entry->label.index, error);
        if (status != DN_OK)
            return status;
        entry->weight = weight;
        at = *end == ',' ? end + 1 : end;
    }
    return DN_OK;
}

static dn_status read_conditions(generation *g, dn_error *error)
{
    char *end = NULL;
    if (g->mixture_text != NULL && g->classes != NULL)
        return dn_fail(error, DN_INVALID, "class_mixture takes the place of class_label: give one of them");
    if (g->mixture_text != NULL && g->mixture_text[0] == '\0')
        return dn_fail(error, DN_INVALID, "class_mixture must be CLASS:WEIGHT,CLASS:WEIGHT...");
    dn_status status = read_mixture(g, error);
    if (status == DN_OK && g->negative_text != NULL) {
        g->has_negative = true;
        status = find_class(g->engine, g->negative_text, "negative_class", &g->negative_class, error);
    }
    if (status != DN_OK || g->variation_text == NULL)
        return status;
    errno = 0;
    g->variation_seed = strtoull(g->variation_text, &end, 10);
    if (g->variation_text[0] < '0' || g->variation_text[0] > '9' || *end != '\0' || errno != 0)
        return dn_fail(error, DN_INVALID, "variation_seed must be a whole number from 0 to 18446744073709551615");
    if (!dn_option_given(&g->options, DN_OPT_VARIATION_STRENGTH))
        return dn_fail(error, DN_INVALID, "variation_seed needs a variation_strength");
    return DN_OK;
}

/* How many images: -n, else one per latent, else one per class of the list, else one. */
static dn_status settle_count(generation *g, uint32_t classes, dn_error *error)
{
    uint32_t latents = 0;
    if (g->latents != NULL) {
        dn_status status = generation_read_start(g, &latents, error);
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
    bool away = engine->null_class != DN_NONE || g->has_negative || (engine->guidance_methods >> DN_GUIDE_AUTO & 1u);
    bool guided = (g->classes != NULL || g->mixture_count > 0) && away;
    dn_lane_spec spec = {
        .has_class = g->mixture_count > 0,
        .mixture = {.count = g->mixture_count},
        .has_negative = g->has_negative,
        .negative_class = g->negative_class,
        .has_variation = g->variation_text != NULL,
        .variation_seed = g->variation_seed,
        .init = g->init,
        .mask = g->mask,
        .guidance_scale = !isnan(g->guidance_scale) ? g->guidance_scale
                          : guided                  ? engine->default_guidance
                                                    : 1.0,
        .steps = g->steps != 0 ? (uint32_t)g->steps : engine->default_steps,
        .options = g->options,
    };
    for (uint32_t i = 0; i < g->mixture_count; i++) {
        spec.mixture.classes[i] = g->mixture[i].label.index;
        spec.mixture.weights[i] = (float)g->mixture[i].weight;
    }
    snprintf(spec.sampler, sizeof spec.sampler, "%s", g->sampler != NULL ? g->sampler : engine->default_sampler);
    return spec;
}

size_t generation_picture_bytes(const generation *g)
{
    return (size_t)g->engine->image_width * g->engine->image_height * g->engine->image_channels;
}

static dn_status allocate(generation *g, dn_error *error)
{
    bool pictures = g->output != NULL || g->output_dir != NULL;
    g->specs = calloc(g->count, sizeof *g->specs);
    g->floats = calloc(g->count, dn_engine_elements(g->engine) * sizeof *g->floats);
    g->pixels = pictures ? calloc(g->count, generation_picture_bytes(g)) : NULL;
    if (g->specs == NULL || g->floats == NULL || (pictures && g->pixels == NULL))
        return dn_fail(error, DN_NO_MEMORY, "out of memory for %u images", g->count);
    return DN_OK;
}

dn_status generation_plan(generation *g, dn_error *error)
{
    uint32_t *classes = NULL, class_count = 0;
    dn_status status = read_classes(g, &classes, &class_count, error);
    if (status == DN_OK)
        status = read_conditions(g, error);
    if (status == DN_OK)
        status = generation_read_pictures(g, error);
    if (status == DN_OK)
        status = settle_count(g, class_count, error);
    if (status == DN_OK)
        status = allocate(g, error);
    for (uint32_t i = 0; status == DN_OK && i < g->count; i++) {
        g->specs[i] = common_spec(g);
        g->specs[i].seed = g->seed + i;
        g->specs[i].has_class |= class_count > 0;
        g->specs[i].class_index = class_count > 0 ? classes[i % class_count] : 0;
        g->specs[i].start = g->start != NULL ? g->start + i * dn_engine_elements(g->engine) : NULL;
    }
    free(classes);
    return status;
}

void generation_done(generation *g)
{
    free(g->specs);
    free(g->start);
    free(g->init);
    free(g->mask);
    free(g->pixels);
    free(g->floats);
    free(g->files);
    dn_engine_close(g->engine);
}
