/* See sdapi_options.h. */
#include "api/sdapi_options.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SHORT_HASH 10 /* digits of a hash in a title */

typedef enum option_rule { FIXED, FREE } option_rule;

static const struct {
    const char *name, *value; /* as JSON */
    option_rule rule;
} OPTIONS[] = {
    {"sd_vae", "\"Automatic\"", FIXED},
    {"samples_format", "\"png\"", FIXED},
    {"samples_save", "true", FREE},
    {"grid_save", "false", FREE},
    {"return_grid", "false", FIXED},
    {"enable_pnginfo", "true", FIXED},
    {"CLIP_stop_at_last_layers", "1", FREE}, /* there is no CLIP */
    {"eta_noise_seed_delta", "0", FIXED},
    {"eta_ddim", "0", FIXED},
    {"eta_ancestral", "1", FIXED},
    {"s_churn", "0", FIXED},
    {"s_tmin", "0", FIXED},
    {"s_tmax", "0", FIXED},
    {"s_noise", "1", FIXED},
    {"s_min_uncond", "0", FIXED},
    {"img2img_fix_steps", "false", FIXED},
    {"img2img_color_correction", "false", FIXED},
    {"initial_noise_multiplier", "1", FIXED},
    {"live_previews_enable", "true", FREE}, /* previews are made while somebody asks for them */
    {"show_progress_every_n_steps", "1", FREE},
    {"sd_checkpoint_hash", NULL, FREE}, /* follows the model */
    {"sd_model_checkpoint", NULL, FREE},
};

static bool has_value(const cJSON *item, const char *json)
{
    if (json[0] == '"') {
        const size_t bytes = strlen(json) - 2;
        return cJSON_IsString(item) && strlen(item->valuestring) == bytes && strncasecmp(item->valuestring, json + 1, bytes) == 0;
    }
    if (cJSON_IsBool(item)) {
        return strcmp(json, cJSON_IsTrue(item) ? "true" : "false") == 0;
    }
    return cJSON_IsNumber(item) && json[1] == '\0' && item->valuedouble == json[0] - '0';
}

/* A VAE of its own is what no model here has. */
static bool names_no_vae(const cJSON *item)
{
    return strcmp(item->string, "sd_vae") == 0 && cJSON_IsString(item) &&
           (item->valuestring[0] == '\0' || strcasecmp(item->valuestring, "none") == 0);
}

bool api_sdapi_option_accepted(const cJSON *item, const char *prefix, api_sdapi_refusal *refusal)
{
    const size_t length = strlen(item->string);
    char pointer[128];
    const bool shown = length <= 64 && strspn(item->string, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == length;
    snprintf(pointer, sizeof pointer, "%s%s%s", prefix, shown && length ? "/" : "", shown ? item->string : "");
    for (size_t i = 0; i < sizeof OPTIONS / sizeof OPTIONS[0]; i++) {
        if (strcmp(OPTIONS[i].name, item->string) != 0) {
            continue;
        }
        if (!OPTIONS[i].value && !cJSON_IsString(item) && !cJSON_IsNull(item)) {
            refusal->kind = "type_error.str";
            return api_refuse(&refusal->problem, API_INVALID_FIELD, pointer, "%s must be a string", item->string);
        }
        if (OPTIONS[i].rule == FREE || cJSON_IsNull(item) || has_value(item, OPTIONS[i].value) || names_no_vae(item)) {
            return true;
        }
        return api_refuse(&refusal->problem, API_INVALID_FIELD, pointer, "%s must be %s: it cannot be set here", item->string,
                          OPTIONS[i].value);
    }
    return api_refuse(&refusal->problem, API_INVALID_FIELD, pointer, "%s is not an option of this program", shown ? item->string : "this");
}

/* ---- Models */

/* Its weights' hash; "" before it has been loaded for the first time. */
static const char *hash_of(const api_model *model)
{
    return model ? model->weights_sha256 : "";
}

/* The hash in "NAME [0123456789]"; NULL: that is no title of this name. */
static const char *hash_in_title(const char *name, const char *text)
{
    const size_t bytes = strlen(name);
    const char *hash = text + bytes + 2;
    const bool titled = strncmp(text, name, bytes) == 0 && strncmp(text + bytes, " [", 2) == 0 &&
                        strspn(hash, "0123456789abcdef") == SHORT_HASH && strcmp(hash + SHORT_HASH, "]") == 0;
    return titled ? hash : NULL;
}

bool api_sdapi_model_is(const char *name, const api_model *model, const char *text)
{
    const char *hash = hash_of(model), *titled = hash_in_title(name, text);
    if (strcmp(text, name) == 0) {
        return true;
    }
    if (!hash[0]) {
        return titled != NULL;
    }
    return (titled && strncmp(titled, hash, SHORT_HASH) == 0) || strcmp(text, hash) == 0 ||
           (strlen(text) == SHORT_HASH && strncmp(text, hash, SHORT_HASH) == 0);
}

static void add_title(api_text *text, const char *name, const api_model *model)
{
    char title[64 + SHORT_HASH + 8];
    snprintf(title, sizeof title, hash_of(model)[0] ? "%.64s [%.10s]" : "%.64s", name, hash_of(model));
    api_text_string(text, title);
}

static void add_hash(api_text *text, const api_model *model)
{
    api_text_string(text, hash_of(model)[0] ? hash_of(model) : NULL);
}

char *api_sdapi_options_body(const char *name, const api_model *model)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"sd_model_checkpoint\":");
    add_title(&text, name, model);
    api_text_add(&text, ",\"sd_checkpoint_hash\":");
    add_hash(&text, model);
    for (size_t i = 0; i < sizeof OPTIONS / sizeof OPTIONS[0]; i++) {
        if (OPTIONS[i].value) {
            api_text_format(&text, ",\"%s\":%s", OPTIONS[i].name, OPTIONS[i].value);
        }
    }
    api_text_add(&text, "}");
    return api_text_take(&text);
}

void api_sdapi_add_model(api_text *text, const char *name, const api_model *model)
{
    char hash[SHORT_HASH + 1];
    snprintf(hash, sizeof hash, "%.*s", SHORT_HASH, hash_of(model));
    api_text_add(text, "{\"title\":");
    add_title(text, name, model);
    api_text_add(text, ",\"model_name\":");
    api_text_string(text, name);
    api_text_add(text, ",\"hash\":");
    api_text_string(text, hash[0] ? hash : NULL);
    api_text_add(text, ",\"sha256\":");
    add_hash(text, model);
    api_text_add(text, ",\"filename\":");
    api_text_string(text, name);
    api_text_add(text, ",\"config\":null}");
}
