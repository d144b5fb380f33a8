/* POST /generate: bytes to validated requests. Every refusal names its field; nothing a client sent is repeated but the name of
 * an unknown field that looks like one. Pure; any thread. */
#include "api/generate_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_label.h"
#include "api/request_reader.h"
#include "format/json.h"

static const char *const FIELD_NAMES[API_FIELD_COUNT] = {
#define X(name, text) [API_FIELD_##name] = text,
    API_REQUEST_FIELDS(X)
#undef X
};

const char *api_member_name(uint32_t index)
{
    return index < API_FIELD_COUNT ? FIELD_NAMES[index] : dn_option_info_of((dn_option_id)(index - API_FIELD_COUNT))->name;
}

api_pointer api_pointer_to(const api_reader *r, const char *name)
{
    api_pointer p;
    snprintf(p.text, sizeof p.text, "%s/%s", r->at, name);
    return p;
}

bool api_refuse_member(api_reader *r, const char *name, const char *rule)
{
    return api_refuse(r->problem, API_INVALID_FIELD, api_pointer_to(r, name).text, "%s %s", name, rule);
}

bool api_refuse_unsupported(api_reader *r, const char *name, const char *rule)
{
    return api_refuse(r->problem, API_UNSUPPORTED_OPTION, api_pointer_to(r, name).text, "%s %s", name, rule);
}

static bool refuse_field(api_reader *r, api_field field, const char *rule)
{
    return api_refuse_member(r, FIELD_NAMES[field], rule);
}

/* ---- Which fields were sent */

static bool shown_name(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char later[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    size_t count = strspn(name, later);
    return count >= 1 && count <= 64 && !name[count] && strchr(letters, name[0]);
}

static bool refuse_unknown_field(api_reader *r, const char *name)
{
    if (!shown_name(name)) {
        return api_refuse(r->problem, API_INVALID_FIELD, r->at, "the request has a field that is not known");
    }
    const char *nearest = NULL;
    unsigned distance = (unsigned)strlen(name) / 3 + 1;
    for (uint32_t i = 0; i < API_MEMBER_COUNT; i++) {
        unsigned d = api_name_distance(name, strlen(name), api_member_name(i), strlen(api_member_name(i)));
        if (d < distance) {
            distance = d;
            nearest = api_member_name(i);
        }
    }
    return api_refuse(r->problem, API_INVALID_FIELD, api_pointer_to(r, name).text, "%s is not a field of a request%s%s%s", name,
                      nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

static bool collect(api_reader *r, const cJSON *object, api_raw raw)
{
    api_walk walk;
    api_walk_begin(&walk, raw);
    for (const cJSON *child = object->child; child; child = child->next) {
        uint32_t field = 0;
        while (field < API_MEMBER_COUNT && strcmp(api_member_name(field), child->string) != 0) {
            field++;
        }
        if (field == API_MEMBER_COUNT) {
            return refuse_unknown_field(r, child->string);
        }
        r->members[field].value = child;
        if (!api_walk_next(&walk, &r->members[field].raw)) {
            return api_refuse(r->problem, API_INTERNAL, r->at, "the body could not be walked");
        }
    }
    return true;
}

/* ---- Numbers */

/* An integer token within [minimum, maximum]; 20.0 and 2e1 are none. */
bool api_integer_of(const api_member *m, int64_t minimum, int64_t maximum, int64_t *out)
{
    double value = m->value->valuedouble;
    if (!cJSON_IsNumber(m->value) || !api_raw_is_integer(m->raw) || value < (double)minimum || value > (double)maximum) {
        return false;
    }
    *out = (int64_t)value; /* exact: every range here lies within 2^53 */
    return true;
}

static bool digits_to_u64(const char *at, size_t bytes, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        bool digit = at[i] >= '0' && at[i] <= '9';
        if (!digit || __builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(at[i] - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return bytes > 0 && (bytes == 1 || at[0] != '0');
}

/* ---- One function a field; a field left out takes the model's default */

static bool read_model(api_reader *r, api_request *out, api_model_lookup *lookup, void *payload)
{
    const api_member *m = &r->members[API_FIELD_MODEL];
    const char *name = NULL;
    if (m->value) {
        if (!cJSON_IsString(m->value)) {
            return refuse_field(r, API_FIELD_MODEL, "must be a string");
        }
        name = m->value->valuestring;
        if (!api_model_name_valid(name)) {
            return refuse_field(r, API_FIELD_MODEL, "must be the name of a model: 1 to 64 letters, digits, '.', '_' or '-'");
        }
    }
    r->model = lookup(payload, name);
    if (!r->model && !name) {
        api_refuse(r->problem, API_LOADING, r->at, "the default model is not loaded yet");
        r->problem->retry_after_seconds = 2;
        return false;
    }
    if (!r->model) {
        return refuse_field(r, API_FIELD_MODEL, "is not one of GET /models");
    }
    snprintf(out->model, sizeof out->model, "%s", r->model->name);
    return true;
}

static bool read_guidance(api_reader *r, api_request *out)
{
    const api_member *m = &r->members[API_FIELD_GUIDANCE_SCALE];
    if (!m->value) {
        /* Without something to be guided to, and away from, there is one row instead of two, and the same picture. */
        uint32_t methods = r->model->guidance_methods;
        bool away = methods && (r->model->guidance || out->has_negative || (methods >> DN_GUIDE_AUTO & 1u));
        out->guidance_scale = out->has_class && away ? r->model->default_guidance : 1;
        return true;
    }
    if (!cJSON_IsNumber(m->value) || !(fabs(m->value->valuedouble) <= API_GUIDANCE_MAX)) {
        return refuse_field(r, API_FIELD_GUIDANCE_SCALE, "must be a number from -100 to 100");
    }
    out->guidance_scale = m->value->valuedouble;
    if (out->guidance_scale != 1 && !r->model->guidance_methods) {
        return api_refuse_unsupported(r, "guidance_scale", "must be 1: this model has no null class, nor anything else to guide with");
    }
    return true;
}

static bool read_steps(api_reader *r, api_request *out)
{
    const api_member *m = &r->members[API_FIELD_STEPS];
    int64_t steps = r->model->default_steps;
    if (m->value && !api_integer_of(m, 1, API_STEPS_MAX, &steps)) {
        return refuse_field(r, API_FIELD_STEPS, "must be an integer from 1 to 1000");
    }
    out->steps = (uint32_t)steps;
    return true;
}

static bool refuse_sampler(api_reader *r)
{
    char rule[768] = "must be \"model\" or one of ";
    const dn_sampler *sampler;
    const char *between = "";
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        size_t used = strlen(rule);
        if (api_model_serves(r->model, sampler)) {
            snprintf(rule + used, sizeof rule - used, "%s%s", between, sampler->name);
            between = ", ";
        }
    }
    return refuse_field(r, API_FIELD_SAMPLER, rule);
}

static bool read_sampler(api_reader *r, api_request *out)
{
    const api_member *m = &r->members[API_FIELD_SAMPLER];
    const char *name = r->model->default_sampler;
    if (m->value && !cJSON_IsString(m->value)) {
        return refuse_sampler(r);
    }
    if (m->value) {
        name = m->value->valuestring;
    }
    bool own = strcmp(name, "model") == 0;
    r->sampler = dn_sampler_find(own ? r->model->model_sampler : name);
    if (own && !r->sampler) {
        return api_refuse_unsupported(r, "sampler", "\"model\" asks for a scheduler that this program does not have");
    }
    if (!r->sampler) {
        return refuse_sampler(r);
    }
    if (!api_model_serves(r->model, r->sampler)) {
        return api_refuse_unsupported(r, "sampler", "cannot serve this model; GET /models says which can");
    }
    snprintf(out->sampler, sizeof out->sampler, "%s", name);
    out->evaluations_per_step = r->sampler->evaluations_per_step;
    return true;
}

/* An integer token or a string of digits; *sent: there was one. */
static bool read_exact(api_reader *r, api_field field, bool *sent, uint64_t *out)
{
    const api_member *m = &r->members[field];
    bool ok = true;
    *sent = m->value != NULL;
    if (cJSON_IsString(m->value)) {
        ok = digits_to_u64(m->value->valuestring, strlen(m->value->valuestring), out);
    } else if (m->value) {
        ok = cJSON_IsNumber(m->value) && digits_to_u64(m->raw.at, m->raw.bytes, out);
    }
    return ok || refuse_field(r, field, "must be an integer or a string of digits from 0 to 18446744073709551615");
}

static bool read_counts(api_reader *r, api_request *out)
{
    const api_member *n = &r->members[API_FIELD_N], *priority = &r->members[API_FIELD_PRIORITY];
    int64_t images = 1, urgency = 0;
    if (n->value && !api_integer_of(n, 1, API_N_MAX, &images)) {
        return refuse_field(r, API_FIELD_N, "must be an integer from 1 to 64");
    }
    if (priority->value && !api_integer_of(priority, -API_PRIORITY_MAX, API_PRIORITY_MAX, &urgency)) {
        return refuse_field(r, API_FIELD_PRIORITY, "must be an integer from -10 to 10");
    }
    const api_member *deadline = &r->members[API_FIELD_DEADLINE_MS];
    if (deadline->value && !api_integer_of(deadline, 1, API_DEADLINE_MS_MAX, &out->deadline_ms)) {
        return refuse_field(r, API_FIELD_DEADLINE_MS, "must be an integer from 1 to 604800000");
    }
    out->n = (uint32_t)images;
    out->priority = (int)urgency;
    return true;
}

/* Whether deliveries may go there is the daemon's to say (server/webhook_policy.h); here it is text of the right kind. */
static bool read_webhook(api_reader *r, api_request *out)
{
    const cJSON *value = r->members[API_FIELD_WEBHOOK].value;
    if (!value) {
        return true;
    }
    const char *url = cJSON_IsString(value) ? value->valuestring : "";
    size_t bytes = strlen(url), printable = 0;
    while (printable < bytes && url[printable] > ' ' && url[printable] < 127) {
        printable++;
    }
    if (bytes < 1 || bytes > API_WEBHOOK_BYTES_MAX || printable < bytes) {
        return refuse_field(r, API_FIELD_WEBHOOK, "must be a URL of 1 to 2048 printable ASCII characters");
    }
    memcpy(out->webhook, url, bytes + 1);
    return true;
}

static bool read_request(api_reader *r, api_request *out, const cJSON *object, api_raw raw, api_model_lookup *lookup, void *payload)
{
    if (!cJSON_IsObject(object)) {
        return api_refuse(r->problem, API_INVALID_FIELD, r->at, "each element of the array must be an object");
    }
    return collect(r, object, raw) && read_model(r, out, lookup, payload) && api_read_classes(r, out) && read_guidance(r, out) &&
           read_steps(r, out) && read_sampler(r, out) && api_read_options(r, out) && api_read_images(r, out) &&
           read_exact(r, API_FIELD_SEED, &out->has_seed, &out->seed) &&
           read_exact(r, API_FIELD_VARIATION_SEED, &out->has_variation, &out->variation_seed) && read_counts(r, out) &&
           read_webhook(r, out) && api_check_together(r, out);
}

/* ---- The body */

static bool refuse_size(api_problem *problem, int bytes)
{
    return api_refuse(problem, API_TOO_LARGE, "", "the body is larger than %d bytes", bytes);
}

static bool parse_body(cJSON **root, const char *body, size_t body_bytes, api_problem *problem)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    dn_error error = {0};
    size_t offset = 0;
    if (body_bytes > API_BODY_IMAGE_BYTES_MAX) {
        return refuse_size(problem, API_BODY_IMAGE_BYTES_MAX);
    }
    dn_status status = dn_json_parse(root, body, body_bytes, &limits, &offset, &error);
    if (status == DN_NO_MEMORY) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    if (status != DN_OK) {
        api_refuse(problem, API_MALFORMED_JSON, "", "the body is not JSON: %.200s", error.message);
        problem->has_offset = true;
        problem->offset = offset;
        return false;
    }
    return true;
}

/* Whether any of the objects has a picture: only then may a body be larger than others. */
static bool carries_picture(const cJSON *root)
{
    const cJSON *object = cJSON_IsArray(root) ? root->child : root;
    for (; object; object = object == root ? NULL : object->next) {
        if (cJSON_GetObjectItemCaseSensitive(object, "init_image") || cJSON_GetObjectItemCaseSensitive(object, "mask_image")) {
            return true;
        }
    }
    return false;
}

/* What all elements of a body share. */
typedef struct body_reader {
    api_model_lookup *lookup;
    void *payload;
    api_problem *problem;
    unsigned char *room;
} body_reader;

static bool read_one(body_reader *b, api_request *request, const char *at, const cJSON *object, api_raw raw)
{
    api_reader r = {.problem = b->problem, .room = b->room};
    snprintf(r.at, sizeof r.at, "%s", at);
    bool ok = read_request(&r, request, object, raw, b->lookup, b->payload);
    b->room = r.room;
    return ok;
}

static bool read_array(body_reader *b, api_request *requests, size_t count, const cJSON *root, api_raw raw)
{
    api_walk walk;
    api_walk_begin(&walk, raw);
    const cJSON *element = root->child;
    for (size_t i = 0; i < count; i++, element = element->next) {
        char at[24];
        api_raw part;
        snprintf(at, sizeof at, "/%zu", i);
        if (!api_walk_next(&walk, &part)) {
            return api_refuse(b->problem, API_INTERNAL, at, "the body could not be walked");
        }
        if (!read_one(b, &requests[i], at, element, part)) {
            return false;
        }
    }
    return true;
}

bool api_parse_generate(api_request **out, size_t *count, bool *is_array, const char *body, size_t body_bytes, api_model_lookup *lookup,
                        void *payload, api_problem *problem)
{
    cJSON *root = NULL;
    api_request *requests = NULL;
    bool ok = false, array, pictures;
    size_t wanted;
    body_reader b = {.lookup = lookup, .payload = payload, .problem = problem};
    *problem = (api_problem){.code = API_NONE};
    if (!parse_body(&root, body, body_bytes, problem)) {
        goto done;
    }
    array = cJSON_IsArray(root);
    wanted = array ? (size_t)cJSON_GetArraySize(root) : 1;
    if ((!array && !cJSON_IsObject(root)) || wanted < 1 || wanted > API_BATCH_JOBS_MAX) {
        api_refuse(problem, API_INVALID_FIELD, "", "the body must be an object, or an array of 1 to %d objects", API_BATCH_JOBS_MAX);
        goto done;
    }
    pictures = carries_picture(root);
    if (!pictures && body_bytes > API_BODY_BYTES_MAX) {
        refuse_size(problem, API_BODY_BYTES_MAX);
        goto done;
    }
    requests = calloc(1, wanted * sizeof *requests + (pictures ? body_bytes / 4 * 3 : 0));
    if (!requests) {
        api_refuse(problem, API_INTERNAL, "", "out of memory");
        goto done;
    }
    b.room = (unsigned char *)(requests + wanted);
    if (array) {
        ok = read_array(&b, requests, wanted, root, (api_raw){body, body_bytes});
    } else {
        ok = read_one(&b, requests, "", root, (api_raw){body, body_bytes});
    }
    if (ok) {
        *out = requests;
        *count = wanted;
        *is_array = array;
        requests = NULL;
    }
done:
    free(requests);
    cJSON_Delete(root);
    return ok;
}
