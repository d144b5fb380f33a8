/* A validated request as it is stored and shown, and back; its options and its cost. Pure; any thread. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "api/json_fields.h"
#include "api/option_json.h"
#include "api/text.h"
#include "format/json.h"

#define REQUEST_JSON_BYTES_MAX 65536 /* eight classes with long names of control characters */

static void add_class(api_text *text, const char *between, const char *label, const char *name, const api_class *class)
{
    api_text_format(text, "%s\"%s\":%" PRIu32 ",\"%s\":", between, label, class->index, name);
    api_text_string(text, class->name);
}

static void add_classes(api_text *text, const api_request *request)
{
    if (request->has_class && !request->mixture_count) {
        api_text_format(text, ",\"class_label\":%" PRIu32 ",\"class_name\":", request->class_index);
        api_text_string(text, request->class_name);
    } else {
        api_text_add(text, ",\"class_label\":null,\"class_name\":null");
    }
    for (uint32_t i = 0; i < request->mixture_count; i++) {
        api_text_add(text, i ? "," : ",\"class_mixture\":[");
        add_class(text, "{", "class_label", "class_name", &request->mixture[i].label);
        api_text_add(text, ",\"weight\":");
        api_text_number(text, request->mixture[i].weight);
        api_text_add(text, i + 1 < request->mixture_count ? "}" : "}]");
    }
    if (request->has_negative) {
        add_class(text, ",", "negative_class", "negative_class_name", &request->negative);
    }
}

static void add_image(api_text *text, const char *name, const api_input_image *image)
{
    if (image->sha256[0]) {
        api_text_format(text, ",\"%s\":{\"sha256\":\"%s\",\"bytes\":%" PRIu64 "}", name, image->sha256, image->byte_count);
    }
}

char *api_request_json(const api_request *request)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"model\":");
    api_text_string(&text, request->model);
    add_classes(&text, request);
    api_text_add(&text, ",\"guidance_scale\":");
    api_text_real(&text, request->guidance_scale);
    api_text_format(&text, ",\"steps\":%" PRIu32 ",\"sampler\":", request->steps);
    api_text_string(&text, request->sampler);
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        if (dn_option_given(&request->options, (dn_option_id)i)) {
            api_add_option(&text, (dn_option_id)i, request->options.value[i]);
        }
    }
    add_image(&text, "init_image", &request->init_image);
    add_image(&text, "mask_image", &request->mask_image);
    if (request->has_variation) {
        api_text_format(&text, ",\"variation_seed\":\"%" PRIu64 "\"", request->variation_seed);
    }
    api_text_format(&text, ",\"seed\":\"%" PRIu64 "\",\"n\":%" PRIu32 ",\"priority\":%d", request->seed, request->n, request->priority);
    if (request->deadline_ms) {
        api_text_format(&text, ",\"deadline_ms\":%" PRId64, request->deadline_ms);
    }
    if (request->webhook[0]) {
        api_text_add(&text, ",\"webhook\":");
        api_text_string(&text, request->webhook);
    }
    api_text_add(&text, "}");
    return api_text_take(&text);
}

static bool read_class(const cJSON *object, const char *label, const char *name, api_class *out)
{
    double index;
    if (!api_read_whole(object, label, 0, UINT32_MAX, &index) || !api_read_text(object, name, out->name, sizeof out->name)) {
        return false;
    }
    out->index = (uint32_t)index;
    return true;
}

static bool read_mixture(const cJSON *mixture, api_request *out)
{
    const cJSON *element;
    if (!cJSON_IsArray(mixture) || !mixture->child || cJSON_GetArraySize(mixture) > API_CLASS_MIXTURE_MAX) {
        return false;
    }
    cJSON_ArrayForEach(element, mixture)
    {
        api_class_weight *entry = &out->mixture[out->mixture_count++];
        const cJSON *weight = cJSON_GetObjectItemCaseSensitive(element, "weight");
        if (!cJSON_IsNumber(weight) || !read_class(element, "class_label", "class_name", &entry->label)) {
            return false;
        }
        entry->weight = weight->valuedouble;
    }
    return true;
}

static bool read_classes(const cJSON *root, api_request *out)
{
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(root, "class_label");
    const cJSON *mixture = cJSON_GetObjectItemCaseSensitive(root, "class_mixture");
    api_class one = {0, ""};
    if (!cJSON_IsNull(label) && !read_class(root, "class_label", "class_name", &one)) {
        return false;
    }
    out->has_class = mixture || !cJSON_IsNull(label);
    out->class_index = one.index;
    memcpy(out->class_name, one.name, sizeof out->class_name);
    out->has_negative = cJSON_GetObjectItemCaseSensitive(root, "negative_class") != NULL;
    return (!mixture || read_mixture(mixture, out)) &&
           (!out->has_negative || read_class(root, "negative_class", "negative_class_name", &out->negative));
}

/* {"sha256":...,"bytes":...}; the bytes themselves lie in a file of the store. */
static bool read_image(const cJSON *root, const char *name, api_input_image *out)
{
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(root, name);
    double bytes;
    if (!image) {
        return true;
    }
    if (!api_read_text(image, "sha256", out->sha256, sizeof out->sha256) || strspn(out->sha256, "0123456789abcdef") != 64 ||
        !api_read_whole(image, "bytes", 1, API_BODY_IMAGE_BYTES_MAX, &bytes)) {
        return false;
    }
    out->byte_count = (uint64_t)bytes;
    return true;
}

/* A stored option; requests stored before there was sigma_schedule say "karras". */
static bool read_options(const cJSON *root, api_request *out)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const dn_option_info *info = dn_option_info_of((dn_option_id)i);
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, info->name);
        if (!item) {
            continue;
        }
        double value = api_option_value(item, (dn_option_id)i);
        if (isnan(value)) {
            return false;
        }
        dn_option_set(&out->options, (dn_option_id)i, value);
    }
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "karras"))) {
        dn_option_set(&out->options, DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    }
    return true;
}

static bool read_seed(const cJSON *root, const char *name, uint64_t *out)
{
    char digits[24], again[24];
    if (!api_read_text(root, name, digits, sizeof digits) || !digits[0] || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    *out = strtoull(digits, NULL, 10);
    snprintf(again, sizeof again, "%" PRIu64, *out);
    return strcmp(again, digits) == 0; /* refuses what strtoull saturated */
}

static bool read_seeds(const cJSON *root, api_request *out)
{
    out->has_seed = true;
    out->has_variation = cJSON_GetObjectItemCaseSensitive(root, "variation_seed") != NULL;
    return read_seed(root, "seed", &out->seed) && (!out->has_variation || read_seed(root, "variation_seed", &out->variation_seed));
}

dn_status api_request_read(api_request *out, const char *json, size_t bytes)
{
    const dn_json_limits limits = {.bytes_max = REQUEST_JSON_BYTES_MAX};
    api_request request = {.model = ""};
    cJSON *root = NULL;
    double steps = 0, n = 0, priority = 0, deadline_ms = 0;
    bool ok = false;
    const dn_status parsed = dn_json_parse(&root, json, bytes, &limits, NULL, NULL);
    if (parsed != DN_OK || !cJSON_IsObject(root)) {
        goto done;
    }
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(root, "guidance_scale");
    const bool limited = cJSON_GetObjectItemCaseSensitive(root, "deadline_ms") != NULL;
    ok = cJSON_IsNumber(guidance) && api_read_text(root, "model", request.model, sizeof request.model) && read_classes(root, &request) &&
         api_read_text(root, "sampler", request.sampler, sizeof request.sampler) && read_options(root, &request) &&
         read_image(root, "init_image", &request.init_image) && read_image(root, "mask_image", &request.mask_image) &&
         read_seeds(root, &request) && api_read_whole(root, "steps", 1, API_STEPS_MAX, &steps) &&
         api_read_whole(root, "n", 1, API_N_MAX, &n) && api_read_whole(root, "priority", -API_PRIORITY_MAX, API_PRIORITY_MAX, &priority) &&
         (!limited || api_read_whole(root, "deadline_ms", 1, API_DEADLINE_MS_MAX, &deadline_ms)) &&
         (!cJSON_GetObjectItemCaseSensitive(root, "webhook") || api_read_text(root, "webhook", request.webhook, sizeof request.webhook));
    if (ok) {
        request.guidance_scale = guidance->valuedouble;
        request.steps = (uint32_t)steps;
        request.n = (uint32_t)n;
        request.priority = (int)priority;
        request.deadline_ms = (int64_t)deadline_ms;
        *out = request;
    }
done:
    cJSON_Delete(root);
    return ok ? DN_OK : parsed == DN_NO_MEMORY ? DN_NO_MEMORY : DN_INVALID;
}

bool api_request_from_json(api_request *out, const char *json, size_t bytes)
{
    return api_request_read(out, json, bytes) == DN_OK;
}

/* ---- Cost */

static double option_or(const api_request *request, dn_option_id id, double standard)
{
    return dn_option_given(&request->options, id) ? request->options.value[id] : standard;
}

uint32_t api_request_steps_made(const api_request *request)
{
    double strength = request->init_image.sha256[0] ? option_or(request, DN_OPT_STRENGTH, 1) : 1;
    uint32_t steps = (uint32_t)ceil(request->steps * strength);
    return steps ? steps : 1;
}

/* Rows of one evaluation at most: the conditional one, the one it is guided away from, the classifier's. */
uint32_t api_request_rows(const api_request *request)
{
    bool two = request->has_class && request->guidance_scale != 1 && request->guidance_scale != 0;
    bool classifier = option_or(request, DN_OPT_GUIDANCE_METHOD, DN_GUIDE_CFG) == DN_GUIDE_CLASSIFIER;
    return 1u + two + classifier;
}

uint64_t api_request_cost(const api_request *request)
{
    const dn_sampler *sampler = dn_sampler_find(request->sampler);
    uint64_t evaluations = request->evaluations_per_step ? request->evaluations_per_step : sampler ? sampler->evaluations_per_step : 1;
    evaluations += (uint64_t)option_or(request, DN_OPT_CORRECTOR_STEPS, 0);
    evaluations *= (uint64_t)option_or(request, DN_OPT_RESAMPLE, 1);
    return (uint64_t)request->n * api_request_steps_made(request) * evaluations * api_request_rows(request);
}
