/* See sdapi_request.h. */
#include "api/sdapi_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_match.h"
#include "api/limits.h"
#include "api/sdapi_options.h"
#include "format/json.h"

#define MASK_BLUR 4 /* webui's default, which its clients send whatever they want */

/* ---- Reading */

static const char *text_of(const api_sdapi_request *r, api_sdapi_field field)
{
    return r->values[field].value ? r->values[field].value->valuestring : "";
}

double api_sdapi_number(const api_sdapi_request *request, api_sdapi_field field, double otherwise)
{
    const cJSON *value = request->values[field].value;
    return !value ? otherwise : cJSON_IsNumber(value) ? value->valuedouble : cJSON_IsTrue(value);
}

static bool parse(api_sdapi_request *out, const char *body, size_t bytes, api_sdapi_refusal *refusal)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    dn_error error = {0};
    size_t offset = 0;
    dn_status status = dn_json_parse(&out->root, body, bytes, &limits, &offset, &error);
    if (status == DN_NO_MEMORY) {
        return api_refuse(&refusal->problem, API_INTERNAL, "", "out of memory");
    }
    if (status != DN_OK) {
        api_refuse(&refusal->problem, API_MALFORMED_JSON, "", "the body is not JSON: %.200s", error.message);
        refusal->problem.has_offset = true;
        refusal->problem.offset = offset;
        return false;
    }
    if (!cJSON_IsObject(out->root)) {
        refusal->kind = "type_error.dict";
        return api_refuse(&refusal->problem, API_INVALID_FIELD, "", "the body must be an object");
    }
    return true;
}

static bool read_sampler(api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    const char *scheduler = text_of(r, API_SDAPI_scheduler), *name = text_of(r, API_SDAPI_sampler_name);
    r->scheduler = api_sdapi_scheduler_at(0);
    if (scheduler[0] && !(r->scheduler = api_sdapi_find_scheduler(scheduler))) {
        return api_sdapi_refuse(refusal, API_SDAPI_scheduler, "is not one of GET /sdapi/v1/schedulers");
    }
    name = name[0] ? name : text_of(r, API_SDAPI_sampler_index);
    if (name[0] && !(r->sampler = api_sdapi_find_sampler(name, &r->scheduler))) {
        return api_sdapi_refuse(refusal, API_SDAPI_sampler_name, "is not one of GET /sdapi/v1/samplers");
    }
    return true;
}

static bool read_count(const api_sdapi_request *r, api_sdapi_field field, uint32_t *out, api_sdapi_refusal *refusal)
{
    const double value = api_sdapi_number(r, field, 1);
    *out = value >= 1 && value <= API_N_MAX ? (uint32_t)value : 0;
    return *out || api_sdapi_refuse(refusal, field, "must be a whole number from 1 to 64");
}

static bool read_counts(api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    if (!read_count(r, API_SDAPI_batch_size, &r->batch_size, refusal) || !read_count(r, API_SDAPI_n_iter, &r->n_iter, refusal)) {
        return false;
    }
    return r->batch_size * r->n_iter <= API_N_MAX ||
           api_sdapi_refuse(refusal, API_SDAPI_batch_size, "times n_iter must be 64 at most: that is how many pictures one call makes");
}

static bool read_task(api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    const char *id = text_of(r, API_SDAPI_force_task_id);
    const size_t bytes = strlen(id);
    for (size_t i = 0; i < bytes; i++) {
        if (id[i] < ' ' || id[i] > '~' || bytes >= sizeof r->task_id) {
            return api_sdapi_refuse(refusal, API_SDAPI_force_task_id, "must have at most 127 printable ASCII characters");
        }
    }
    memcpy(r->task_id, id, bytes + 1);
    return true;
}

static bool read_overrides(api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    const cJSON *settings = r->values[API_SDAPI_override_settings].value;
    for (const cJSON *item = settings ? settings->child : NULL; item; item = item->next) {
        if (!api_sdapi_option_accepted(item, "/override_settings", refusal)) {
            return false;
        }
    }
    const cJSON *checkpoint = settings ? cJSON_GetObjectItemCaseSensitive(settings, "sd_model_checkpoint") : NULL;
    r->checkpoint = cJSON_IsString(checkpoint) && checkpoint->valuestring[0] ? checkpoint->valuestring : NULL;
    r->keeps_checkpoint = r->checkpoint && api_sdapi_number(r, API_SDAPI_override_settings_restore_afterwards, 1) == 0;
    return true;
}

static bool is_one_of(const api_sdapi_request *r, api_sdapi_field field, double a, double b)
{
    const double value = api_sdapi_number(r, field, a);
    return value == a || value == b;
}

static bool read_mask(const api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    static const api_sdapi_field blurs[] = {API_SDAPI_mask_blur, API_SDAPI_mask_blur_x, API_SDAPI_mask_blur_y};
    if (!text_of(r, API_SDAPI_mask)[0]) {
        return true;
    }
    for (size_t i = 0; i < sizeof blurs / sizeof blurs[0]; i++) {
        if (!is_one_of(r, blurs[i], 0, MASK_BLUR)) {
            return api_sdapi_refuse(refusal, blurs[i], "must be 0 (or 4, webui's default): the mask is used as it is, blur it yourself");
        }
    }
    if (!is_one_of(r, API_SDAPI_inpainting_fill, 0, 1)) {
        return api_sdapi_refuse(refusal, API_SDAPI_inpainting_fill, "must be 0 or 1: what is painted anew begins with the picture itself");
    }
    return is_one_of(r, API_SDAPI_inpainting_mask_invert, 0, 0) ||
           api_sdapi_refuse(refusal, API_SDAPI_inpainting_mask_invert, "must be 0: send the mask inverted, white is painted anew");
}

static bool read_pictures(const api_sdapi_request *r, api_sdapi_refusal *refusal)
{
    const cJSON *images = r->values[API_SDAPI_init_images].value;
    const int count = images ? cJSON_GetArraySize(images) : 0;
    if (!r->img2img && (count || text_of(r, API_SDAPI_mask)[0])) {
        return api_sdapi_refuse(refusal, count ? API_SDAPI_init_images : API_SDAPI_mask, "is a field of img2img");
    }
    if (r->img2img && (count != 1 || !cJSON_IsString(images->child))) {
        return api_sdapi_refuse(refusal, API_SDAPI_init_images, "must hold one picture, a PNG in base64");
    }
    const double mode = api_sdapi_number(r, API_SDAPI_resize_mode, 0);
    if (mode < 0 || mode > 2) {
        return api_sdapi_refuse(refusal, API_SDAPI_resize_mode, "must be 0, 1 or 2: pictures have the model's size and are not resized");
    }
    if (!is_one_of(r, API_SDAPI_initial_noise_multiplier, 1, 1)) {
        return api_sdapi_refuse(refusal, API_SDAPI_initial_noise_multiplier, "must be 1");
    }
    return read_mask(r, refusal);
}

bool api_sdapi_read(api_sdapi_request *out, bool img2img, const char *body, size_t bytes, api_sdapi_refusal *refusal)
{
    *out = (api_sdapi_request){.img2img = img2img};
    bool fine = parse(out, body, bytes, refusal) && api_sdapi_collect(out->values, out->root, (api_raw){body, bytes}, refusal) &&
                read_sampler(out, refusal) && read_counts(out, refusal) && read_task(out, refusal) && read_overrides(out, refusal) &&
                read_pictures(out, refusal);
    out->prompt = text_of(out, API_SDAPI_prompt);
    out->negative_prompt = text_of(out, API_SDAPI_negative_prompt);
    out->send_images = api_sdapi_number(out, API_SDAPI_send_images, 1) != 0;
    if (!fine) {
        api_sdapi_done(out);
    }
    return fine;
}

void api_sdapi_done(api_sdapi_request *request)
{
    cJSON_Delete(request->root);
    *request = (api_sdapi_request){.root = NULL};
}

/* ---- Translating */

static bool check_size(const api_sdapi_request *r, const api_model *model, api_sdapi_refusal *refusal)
{
    static const api_sdapi_field fields[2] = {API_SDAPI_width, API_SDAPI_height};
    const uint32_t sides[2] = {model->width, model->height};
    char rule[160];
    for (int i = 0; i < 2; i++) {
        if (api_sdapi_number(r, fields[i], sides[i]) != sides[i]) {
            snprintf(rule, sizeof rule, "must be %" PRIu32 ": the pictures of %s are %" PRIu32 "x%" PRIu32 ", no other size", sides[i],
                     model->name, model->width, model->height);
            return api_sdapi_refuse(refusal, fields[i], rule);
        }
    }
    return true;
}

/* What is wanted, and what is not. Without a class there is nothing to be guided to: any scale makes the same picture as 1. */
static bool add_classes(api_text *text, const api_sdapi_request *r, const api_model *model, api_sdapi_refusal *refusal)
{
    const bool negative = !api_prompt_is_blank(r->negative_prompt);
    uint32_t index = 0;
    if (api_prompt_is_blank(r->prompt)) {
        api_text_add(text, ",\"class_label\":null,\"guidance_scale\":1");
        return !negative || api_sdapi_refuse(refusal, API_SDAPI_negative_prompt, "must be empty where the prompt is");
    }
    if (!api_match_class(&index, model, r->prompt, "/prompt", &refusal->problem)) {
        return false;
    }
    api_text_format(text, ",\"class_label\":%" PRIu32, index);
    if (negative) {
        if (!api_match_class(&index, model, r->negative_prompt, "/negative_prompt", &refusal->problem)) {
            return false;
        }
        api_text_format(text, ",\"negative_class\":%" PRIu32, index);
    }
    /* webui's default is for models that can be guided; others have their own. */
    if (r->values[API_SDAPI_cfg_scale].value || model->guidance || negative) {
        api_text_add(text, ",\"guidance_scale\":");
        api_text_number(text, api_sdapi_number(r, API_SDAPI_cfg_scale, 7));
    }
    return true;
}

/* -1 draws; else an exact integer. */
static bool add_seed(api_text *text, const api_sdapi_request *r, api_sdapi_field field, const char *name, uint32_t drawn,
                     api_sdapi_refusal *refusal)
{
    const api_raw raw = r->values[field].raw;
    if (!r->values[field].value || r->values[field].value->valuedouble == -1) {
        api_text_format(text, ",\"%s\":%" PRIu32, name, drawn);
        return true;
    }
    if (!api_raw_is_integer(raw) || raw.at[0] == '-') {
        return api_sdapi_refuse(refusal, field, "must be -1 (draw one) or an integer from 0 to 18446744073709551615");
    }
    api_text_format(text, ",\"%s\":%.*s", name, (int)(raw.bytes < 32 ? raw.bytes : 32), raw.at);
    return true;
}

static bool add_seeds(api_text *text, const api_sdapi_request *r, uint64_t draw, api_sdapi_refusal *refusal)
{
    const double strength = api_sdapi_number(r, API_SDAPI_subseed_strength, 0);
    if (!add_seed(text, r, API_SDAPI_seed, "seed", (uint32_t)draw, refusal)) {
        return false;
    }
    if (strength == 0) {
        return true;
    }
    api_text_add(text, ",\"variation_strength\":");
    api_text_number(text, strength);
    return add_seed(text, r, API_SDAPI_subseed, "variation_seed", (uint32_t)(draw >> 32), refusal);
}

/* The churn of k-diffusion, where it is not off. */
static void add_churn(api_text *text, const api_sdapi_request *r)
{
    static const struct {
        api_sdapi_field field;
        double off;
    } rows[] = {{API_SDAPI_s_churn, 0}, {API_SDAPI_s_tmin, 0}, {API_SDAPI_s_tmax, 0}, {API_SDAPI_s_noise, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const double value = api_sdapi_number(r, rows[i].field, rows[i].off);
        if (value != rows[i].off) {
            api_text_format(text, ",\"%s\":", api_sdapi_field_name(rows[i].field));
            api_text_number(text, value);
        }
    }
}

static bool add_sampler(api_text *text, const api_sdapi_request *r, const api_model *model, api_sdapi_refusal *refusal)
{
    const dn_sampler *sampler = r->sampler ? r->sampler : dn_sampler_find("euler");
    const cJSON *eta = r->values[API_SDAPI_eta].value;
    if (!r->sampler && !api_model_serves(model, sampler)) {
        sampler = dn_sampler_find(model->default_sampler);
    }
    if (sampler) {
        api_text_add(text, ",\"sampler\":");
        api_text_string(text, sampler->name);
    }
    if (r->scheduler->option) {
        api_text_format(text, ",\"%s\":\"%s\"", r->scheduler->option, r->scheduler->value);
    }
    add_churn(text, r);
    if (eta && sampler && dn_sampler_field_of(sampler, DN_OPT_ETA)) {
        api_text_add(text, ",\"eta\":");
        api_text_number(text, eta->valuedouble);
    } else if (eta && eta->valuedouble != 0 && eta->valuedouble != 1) {
        return api_sdapi_refuse(refusal, API_SDAPI_eta, "must be 0 or 1, or left out: this sampler has no use for it");
    }
    return true;
}

/* Base64 without the "data:image/png;base64," that browsers put before it. */
static const char *without_prefix(const char *text)
{
    const char *comma = strncmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
    return comma ? comma + 1 : text;
}

static void add_pictures(api_text *text, const api_sdapi_request *r)
{
    if (!r->img2img) {
        return;
    }
    api_text_add(text, ",\"init_image\":");
    api_text_string(text, without_prefix(r->values[API_SDAPI_init_images].value->child->valuestring));
    if (text_of(r, API_SDAPI_mask)[0]) {
        api_text_add(text, ",\"mask_image\":");
        api_text_string(text, without_prefix(text_of(r, API_SDAPI_mask)));
    }
    api_text_add(text, ",\"strength\":");
    api_text_number(text, api_sdapi_number(r, API_SDAPI_denoising_strength, API_SDAPI_STRENGTH));
}

bool api_sdapi_translate(char **native, const api_sdapi_request *request, const char *model_name, const api_model *model, uint64_t draw,
                         api_sdapi_refusal *refusal)
{
    api_text text = API_TEXT_INIT;
    bool fine = true;
    api_text_add(&text, "{\"model\":");
    api_text_string(&text, model_name);
    if (model) {
        fine = check_size(request, model, refusal) && add_classes(&text, request, model, refusal) &&
               add_seeds(&text, request, draw, refusal) && add_sampler(&text, request, model, refusal);
        add_pictures(&text, request);
        api_text_add(&text, ",\"steps\":");
        api_text_number(&text, api_sdapi_number(request, API_SDAPI_steps, 50));
        api_text_format(&text, ",\"n\":%" PRIu32, request->batch_size * request->n_iter);
    }
    api_text_add(&text, "}");
    *native = api_text_take(&text);
    if (fine && !*native) {
        return api_refuse(&refusal->problem, API_INTERNAL, "", "out of memory");
    }
    if (!fine) {
        free(*native);
        *native = NULL;
    }
    return fine;
}
