/* A validated request as it is stored and shown, and back; its options and its cost. Pure; any thread. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "api/json_fields.h"
#include "api/text.h"
#include "format/json.h"

#define REQUEST_JSON_BYTES_MAX 8192

static void add_option(api_text *text, dn_option_id id, double value)
{
    const dn_option_info *info = dn_option_info_of(id);
    api_text_format(text, ",\"%s\":", info->name);
    if (info->type == DN_TYPE_BOOLEAN) {
        api_text_bool(text, value != 0);
    } else if (info->type == DN_TYPE_CHOICE) {
        api_text_string(text, info->choices[(uint32_t)value]);
    } else {
        api_text_number(text, value);
    }
}

char *api_request_json(const api_request *request)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"model\":");
    api_text_string(&text, request->model);
    if (request->has_class) {
        api_text_format(&text, ",\"class_label\":%" PRIu32 ",\"class_name\":", request->class_index);
        api_text_string(&text, request->class_name);
    } else {
        api_text_add(&text, ",\"class_label\":null,\"class_name\":null");
    }
    api_text_add(&text, ",\"guidance_scale\":");
    api_text_real(&text, request->guidance_scale);
    api_text_format(&text, ",\"steps\":%" PRIu32 ",\"sampler\":", request->steps);
    api_text_string(&text, request->sampler);
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        if (dn_option_given(&request->options, (dn_option_id)i)) {
            add_option(&text, (dn_option_id)i, request->options.value[i]);
        }
    }
    api_text_format(&text, ",\"seed\":\"%" PRIu64 "\",\"n\":%" PRIu32 ",\"priority\":%d}", request->seed, request->n, request->priority);
    return api_text_take(&text);
}

static bool read_class(const cJSON *root, api_request *out)
{
    double index;
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(root, "class_label");
    if (cJSON_IsNull(label)) {
        return true;
    }
    out->has_class = true;
    if (!api_read_whole(root, "class_label", 0, UINT32_MAX, &index) ||
        !api_read_text(root, "class_name", out->class_name, sizeof out->class_name)) {
        return false;
    }
    out->class_index = (uint32_t)index;
    return true;
}

/* A stored option; requests stored before there was sigma_schedule say "karras". */
static bool read_options(const cJSON *root, api_request *out)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const dn_option_info *info = dn_option_info_of((dn_option_id)i);
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, info->name);
        double value = 0;
        if (!item) {
            continue;
        }
        bool choice = info->type == DN_TYPE_CHOICE, boolean = info->type == DN_TYPE_BOOLEAN;
        if (choice ? !cJSON_IsString(item) || !dn_option_choice((dn_option_id)i, item->valuestring, &value)
                   : boolean ? !cJSON_IsBool(item) : !cJSON_IsNumber(item)) {
            return false;
        }
        if (!choice) {
            value = boolean ? cJSON_IsTrue(item) : item->valuedouble;
        }
        dn_option_set(&out->options, (dn_option_id)i, value);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "karras"))) {
        dn_option_set(&out->options, DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    }
    return true;
}

static bool read_seed(const cJSON *root, api_request *out)
{
    char digits[24];
    if (!api_read_text(root, "seed", digits, sizeof digits) || !digits[0] || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    char again[24];
    out->seed = strtoull(digits, NULL, 10);
    out->has_seed = true;
    snprintf(again, sizeof again, "%" PRIu64, out->seed);
    return strcmp(again, digits) == 0; /* refuses what strtoull saturated */
}

bool api_request_from_json(api_request *out, const char *json, size_t bytes)
{
    const dn_json_limits limits = {.bytes_max = REQUEST_JSON_BYTES_MAX};
    api_request request = {.model = ""};
    cJSON *root = NULL;
    double steps = 0, n = 0, priority = 0;
    bool ok = false;
    if (dn_json_parse(&root, json, bytes, &limits, NULL, NULL) != DN_OK || !cJSON_IsObject(root)) {
        goto done;
    }
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(root, "guidance_scale");
    ok = cJSON_IsNumber(guidance) && api_read_text(root, "model", request.model, sizeof request.model) && read_class(root, &request) &&
         api_read_text(root, "sampler", request.sampler, sizeof request.sampler) && read_options(root, &request) &&
         read_seed(root, &request) && api_read_whole(root, "steps", 1, API_STEPS_MAX, &steps) &&
         api_read_whole(root, "n", 1, API_N_MAX, &n) && api_read_whole(root, "priority", -API_PRIORITY_MAX, API_PRIORITY_MAX, &priority);
    if (ok) {
        request.guidance_scale = guidance->valuedouble;
        request.steps = (uint32_t)steps;
        request.n = (uint32_t)n;
        request.priority = (int)priority;
        *out = request;
    }
done:
    cJSON_Delete(root);
    return ok;
}

uint64_t api_request_cost(const api_request *request)
{
    const dn_sampler *sampler = dn_sampler_find(request->sampler);
    bool two_rows = request->has_class && request->guidance_scale != 1 && request->guidance_scale != 0;
    uint64_t evaluations = sampler ? sampler->evaluations_per_step : 1;
    return (uint64_t)request->n * request->steps * evaluations * (two_rows ? 2 : 1);
}
