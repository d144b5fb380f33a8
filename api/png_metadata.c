/* The text a PNG carries. Invariant: a pure function of request, model and seed, so that equal specs give equal files; no job
 * id, no time, no priority. Any thread. */
#include "api/png_metadata.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/text.h"
#include "api/view_parts.h"
#include "base/philox.h"
#include "batch/loaded_engine.h"

#define SHORT_HASH_CHARACTERS 10 /* of the weights, as infotext readers expect */

/* AUTOMATIC1111's rule: a value with a comma, a colon or a line end becomes a JSON string, all others stand bare. */
static void add_quoted(api_text *text, const char *value)
{
    if (strpbrk(value, ",:\n\r\"\\")) {
        api_text_string(text, value);
    } else {
        api_text_add(text, value);
    }
}

/* The first line is free text to its readers; a name's line ends become blanks, so that it stays one line. */
static void add_first_line(api_text *text, const char *name)
{
    for (; *name; name++) {
        char shown = *name == '\n' || *name == '\r' ? ' ' : *name;
        api_text_bytes(text, &shown, 1);
    }
    api_text_add(text, "\n");
}

/* "Pullover:0.5, Ankle boot:0.5": as prompts are weighted elsewhere. */
static char *mixture_text(const api_request *request)
{
    api_text text = API_TEXT_INIT;
    for (uint32_t i = 0; i < request->mixture_count; i++) {
        const api_class_weight *entry = &request->mixture[i];
        api_text_add(&text, i ? ", " : "");
        if (entry->label.name[0]) {
            api_text_add(&text, entry->label.name);
        } else {
            api_text_format(&text, "%" PRIu32, entry->label.index);
        }
        api_text_add(&text, ":");
        api_text_number(&text, entry->weight);
    }
    return api_text_take(&text);
}

/* What is wanted, and what is not: the lines that readers take for prompt and negative prompt. */
static void add_prompt_lines(api_text *text, const api_request *request)
{
    char *mixture = request->mixture_count ? mixture_text(request) : NULL;
    text->failed |= request->mixture_count && !mixture;
    if (mixture) {
        add_first_line(text, mixture);
    } else if (request->has_class && request->class_name[0]) {
        add_first_line(text, request->class_name);
    }
    if (request->has_negative && request->negative.name[0]) {
        api_text_add(text, "Negative prompt: ");
        add_first_line(text, request->negative.name);
    }
    free(mixture);
}

static void add_class(api_text *text, const api_request *request)
{
    api_text value = API_TEXT_INIT;
    if (request->class_name[0]) {
        api_text_format(&value, "%" PRIu32 " (%s)", request->class_index, request->class_name);
    } else {
        api_text_format(&value, "%" PRIu32, request->class_index);
    }
    char *taken = api_text_take(&value);
    text->failed |= !taken;
    api_text_add(text, ", Class: ");
    add_quoted(text, taken ? taken : "");
    free(taken);
}

/* Options that readers of infotext know have their own words there. */
static const struct {
    dn_option_id id;
    const char *label;
} LABELS[] = {
    {DN_OPT_ETA, "Eta"},
    {DN_OPT_S_CHURN, "Sigma churn"},
    {DN_OPT_S_NOISE, "Sigma noise"},
    {DN_OPT_S_TMIN, "Sigma tmin"},
    {DN_OPT_S_TMAX, "Sigma tmax"},
    {DN_OPT_STRENGTH, "Denoising strength"},
    {DN_OPT_GUIDANCE_RESCALE, "CFG Rescale phi"},
    {DN_OPT_VARIATION_STRENGTH, "Variation seed strength"},
};

static void add_options(api_text *text, const dn_options *options)
{
    for (size_t i = 0; i < sizeof LABELS / sizeof LABELS[0]; i++) {
        if (dn_option_given(options, LABELS[i].id)) {
            api_text_format(text, ", %s: ", LABELS[i].label);
            api_text_number(text, options->value[LABELS[i].id]);
        }
    }
}

/* The schedule's name as AUTOMATIC1111 writes it. */
static const char *schedule_title(const dn_options *options)
{
    static const char *const titles[] = {NULL, "Karras", "Exponential", "Beta", "Lu"};
    return dn_option_given(options, DN_OPT_SIGMA_SCHEDULE) ? titles[(uint32_t)options->value[DN_OPT_SIGMA_SCHEDULE]] : NULL;
}

char *api_infotext(const api_request *request, const api_model *model, uint64_t seed)
{
    const dn_sampler *sampler = dn_sampler_find(request->sampler);
    api_text text = API_TEXT_INIT;
    add_prompt_lines(&text, request);
    api_text_format(&text, "Steps: %" PRIu32 ", Sampler: ", request->steps);
    add_quoted(&text, sampler ? sampler->title : request->sampler);
    if (schedule_title(&request->options)) {
        api_text_format(&text, ", Schedule type: %s", schedule_title(&request->options));
    }
    api_text_add(&text, ", CFG scale: ");
    api_text_number(&text, request->guidance_scale);
    api_text_format(&text, ", Seed: %" PRIu64 ", Size: %" PRIu32 "x%" PRIu32, seed, model->width, model->height);
    if (request->has_class && !request->mixture_count) {
        add_class(&text, request);
    }
    add_options(&text, &request->options);
    if (request->has_variation) {
        api_text_format(&text, ", Variation seed: %" PRIu64, request->variation_seed);
    }
    api_text_format(&text, ", Model hash: %.*s, Model: ", SHORT_HASH_CHARACTERS, model->weights_sha256);
    add_quoted(&text, model->name);
    api_text_format(&text, ", RNG: %s, Version: denoised", DN_NOISE_NAME);
    return api_text_take(&text);
}

char *api_recipe_json(const api_request *request, const api_model *model, uint64_t seed, const char *pixels_sha256)
{
    api_request one = *request;
    one.seed = seed;
    one.n = 1;
    one.priority = 0;
    one.deadline_ms = 0;
    one.webhook[0] = 0;
    char *shown = api_request_json(&one);
    api_text text = API_TEXT_INIT;
    text.failed = !shown;
    api_text_format(&text, "{\"request\":%s,\"width\":%" PRIu32 ",\"height\":%" PRIu32 ",\"channels\":%" PRIu32 ",\"weights_sha256\":",
                    shown ? shown : "null", model->width, model->height, model->channels);
    free(shown);
    api_text_string(&text, model->weights_sha256);
    api_text_format(&text, ",\"noise\":\"%s\",\"numerics\":%d,\"device\":", DN_NOISE_NAME, DN_NUMERICS_VERSION);
    api_text_string(&text, model->device);
    api_text_add(&text, ",\"build\":");
    api_text_string(&text, model->build);
    if (model->gpu[0]) {
        api_add_gpu(&text, model->gpu, model->plan);
    }
    api_text_add(&text, ",\"pixels_sha256\":");
    api_text_string(&text, pixels_sha256);
    api_text_add(&text, "}");
    return api_text_take(&text);
}
