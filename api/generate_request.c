/* POST /generate: bytes to validated requests. Every refusal names its field; nothing a client sent is repeated but the name of
 * an unknown field that looks like one. Pure; any thread. */
#include "api/generate_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_label.h"
#include "api/json_walk.h"
#include "format/json.h"

#define REQUEST_FIELDS(X)                                                                                                                  \
    X(MODEL, "model")                                                                                                                      \
    X(CLASS_LABEL, "class_label")                                                                                                          \
    X(GUIDANCE_SCALE, "guidance_scale")                                                                                                    \
    X(STEPS, "steps")                                                                                                                      \
    X(SAMPLER, "sampler")                                                                                                                  \
    X(SEED, "seed")                                                                                                                        \
    X(N, "n")                                                                                                                              \
    X(PRIORITY, "priority")

typedef enum request_field {
#define X(name, text) FIELD_##name,
    REQUEST_FIELDS(X)
#undef X
        FIELD_COUNT
} request_field;

static const char *const FIELD_NAMES[FIELD_COUNT] = {
#define X(name, text) [FIELD_##name] = text,
    REQUEST_FIELDS(X)
#undef X
};

typedef struct member {
    const cJSON *value; /* NULL: not sent */
    api_raw raw;
} member;

/* A request's members: the fields above, then the options of the engine's table. */
#define MEMBER_COUNT (FIELD_COUNT + DN_OPT_COUNT)

static const char *member_name(int index)
{
    return index < FIELD_COUNT ? FIELD_NAMES[index] : dn_option_info_of((dn_option_id)(index - FIELD_COUNT))->name;
}

/* One object while it is read. */
typedef struct reader {
    char at[24]; /* its JSON Pointer: "", or "/3" in an array */
    member members[MEMBER_COUNT];
    const api_model *model;
    const dn_sampler *sampler; /* NULL: "model" */
    api_problem *problem;
} reader;

typedef struct pointer {
    char text[128];
} pointer;

static pointer pointer_to(const reader *r, const char *name)
{
    pointer p;
    snprintf(p.text, sizeof p.text, "%s/%s", r->at, name);
    return p;
}

static bool refuse_field(reader *r, request_field field, const char *rule)
{
    const char *name = FIELD_NAMES[field];
    return api_refuse(r->problem, API_INVALID_FIELD, pointer_to(r, name).text, "%s %s", name, rule);
}

/* ---- Which fields were sent */

static bool shown_name(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char later[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    size_t count = strspn(name, later);
    return count >= 1 && count <= 64 && !name[count] && strchr(letters, name[0]);
}

static bool refuse_unknown_field(reader *r, const char *name)
{
    if (!shown_name(name)) {
        return api_refuse(r->problem, API_INVALID_FIELD, r->at, "the request has a field that is not known");
    }
    const char *nearest = NULL;
    unsigned distance = (unsigned)strlen(name) / 3 + 1;
    for (int i = 0; i < MEMBER_COUNT; i++) {
        unsigned d = api_name_distance(name, strlen(name), member_name(i), strlen(member_name(i)));
        if (d < distance) {
            distance = d;
            nearest = member_name(i);
        }
    }
    return api_refuse(r->problem, API_INVALID_FIELD, pointer_to(r, name).text, "%s is not a field of a request%s%s%s", name,
                      nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

static bool collect(reader *r, const cJSON *object, api_raw raw)
{
    api_walk walk;
    api_walk_begin(&walk, raw);
    for (const cJSON *child = object->child; child; child = child->next) {
        int field = 0;
        while (field < MEMBER_COUNT && strcmp(member_name(field), child->string) != 0) {
            field++;
        }
        if (field == MEMBER_COUNT) {
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
static bool integer_of(const member *m, int64_t minimum, int64_t maximum, int64_t *out)
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

static bool read_model(reader *r, api_request *out, api_model_lookup *lookup, void *payload)
{
    const member *m = &r->members[FIELD_MODEL];
    const char *name = NULL;
    if (m->value) {
        if (!cJSON_IsString(m->value)) {
            return refuse_field(r, FIELD_MODEL, "must be a string");
        }
        name = m->value->valuestring;
        if (!api_model_name_valid(name)) {
            return refuse_field(r, FIELD_MODEL, "must be the name of a model: 1 to 64 letters, digits, '.', '_' or '-'");
        }
    }
    r->model = lookup(payload, name);
    if (!r->model && !name) {
        api_refuse(r->problem, API_LOADING, r->at, "the default model is not loaded yet");
        r->problem->retry_after_seconds = 2;
        return false;
    }
    if (!r->model) {
        return refuse_field(r, FIELD_MODEL, "is not one of GET /models");
    }
    snprintf(out->model, sizeof out->model, "%s", r->model->name);
    return true;
}

static bool read_unconditional(reader *r, api_request *out)
{
    out->has_class = false;
    if (r->model->class_count && !r->model->guidance) {
        return refuse_field(r, FIELD_CLASS_LABEL, "is required: this model has no null class, so it makes no unconditional pictures");
    }
    return true;
}

static bool read_class_label(reader *r, api_request *out)
{
    const member *m = &r->members[FIELD_CLASS_LABEL];
    char rule[96];
    int64_t index;
    if (!m->value || cJSON_IsNull(m->value)) {
        return read_unconditional(r, out);
    }
    if (!cJSON_IsNumber(m->value) && !cJSON_IsString(m->value)) {
        return refuse_field(r, FIELD_CLASS_LABEL, "must be a class name, an index or null");
    }
    if (!r->model->class_count) {
        return refuse_field(r, FIELD_CLASS_LABEL, "must be null or left out: this model has no classes");
    }
    if (cJSON_IsString(m->value)) {
        if (!api_find_class(&out->class_index, r->model, m->value->valuestring, pointer_to(r, "class_label").text, r->problem)) {
            return false;
        }
    } else if (integer_of(m, 0, (int64_t)r->model->class_count - 1, &index)) {
        out->class_index = (uint32_t)index;
    } else {
        snprintf(rule, sizeof rule, "must be an integer from 0 to %u, a class name or null", r->model->class_count - 1);
        return refuse_field(r, FIELD_CLASS_LABEL, rule);
    }
    out->has_class = true;
    api_class_first_name(out->class_name, sizeof out->class_name, r->model, out->class_index);
    return true;
}

static bool read_guidance(reader *r, api_request *out)
{
    const member *m = &r->members[FIELD_GUIDANCE_SCALE];
    if (!m->value) {
        /* Without a class there is nothing to be guided to: one row instead of two, the same picture. */
        out->guidance_scale = out->has_class && r->model->guidance ? r->model->default_guidance : 1;
        return true;
    }
    if (!cJSON_IsNumber(m->value) || !(fabs(m->value->valuedouble) <= API_GUIDANCE_MAX)) {
        return refuse_field(r, FIELD_GUIDANCE_SCALE, "must be a number from -100 to 100");
    }
    out->guidance_scale = m->value->valuedouble;
    if (out->guidance_scale != 1 && !r->model->guidance) {
        return api_refuse(r->problem, API_UNSUPPORTED_OPTION, pointer_to(r, "guidance_scale").text,
                          "guidance_scale must be 1: this model has no null class to guide away from");
    }
    return true;
}

static bool read_steps(reader *r, api_request *out)
{
    const member *m = &r->members[FIELD_STEPS];
    int64_t steps = r->model->default_steps;
    if (m->value && !integer_of(m, 1, API_STEPS_MAX, &steps)) {
        return refuse_field(r, FIELD_STEPS, "must be an integer from 1 to 1000");
    }
    out->steps = (uint32_t)steps;
    return true;
}

static bool refuse_sampler(reader *r)
{
    char rule[256] = "must be \"model\" or one of ";
    const dn_sampler *sampler;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        size_t used = strlen(rule);
        snprintf(rule + used, sizeof rule - used, "%s%s", i ? ", " : "", sampler->name);
    }
    return refuse_field(r, FIELD_SAMPLER, rule);
}

static bool read_sampler(reader *r, api_request *out)
{
    const member *m = &r->members[FIELD_SAMPLER];
    const char *name = r->model->default_sampler;
    if (m->value && !cJSON_IsString(m->value)) {
        return refuse_sampler(r);
    }
    if (m->value) {
        name = m->value->valuestring;
    }
    r->sampler = dn_sampler_find(name);
    if (!r->sampler && strcmp(name, "model") != 0) {
        return refuse_sampler(r);
    }
    snprintf(out->sampler, sizeof out->sampler, "%s", name);
    return true;
}

/* The sampler's own rule for an option; NULL after a refusal. */
static const dn_option_field *option_field(reader *r, dn_option_id id)
{
    const char *name = dn_option_info_of(id)->name;
    const dn_option_field *field = r->sampler ? dn_sampler_field_of(r->sampler, id) : NULL;
    if (!field) {
        api_refuse(r->problem, API_UNSUPPORTED_OPTION, pointer_to(r, name).text,
                   "%s is not an option of the sampler %s; GET /samplers lists them", name, r->sampler ? r->sampler->name : "\"model\"");
    }
    return field;
}

/* A JSON value as the table holds it; NaN where it has the wrong type. */
static double option_value(const member *m, dn_option_id id)
{
    double value = (double)NAN;
    switch (dn_option_info_of(id)->type) {
    case DN_TYPE_BOOLEAN:
        return cJSON_IsBool(m->value) ? cJSON_IsTrue(m->value) : (double)NAN;
    case DN_TYPE_CHOICE:
        return cJSON_IsString(m->value) && dn_option_choice(id, m->value->valuestring, &value) ? value : (double)NAN;
    case DN_TYPE_INTEGER:
        return cJSON_IsNumber(m->value) && api_raw_is_integer(m->raw) ? m->value->valuedouble : (double)NAN;
    case DN_TYPE_NUMBER:
        break;
    }
    return cJSON_IsNumber(m->value) ? m->value->valuedouble : (double)NAN;
}

static bool read_options(reader *r, api_request *out)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const member *m = &r->members[FIELD_COUNT + i];
        dn_option_id id = (dn_option_id)i;
        dn_error why;
        if (!m->value) {
            continue;
        }
        const dn_option_field *field = option_field(r, id);
        if (!field) {
            return false;
        }
        double value = option_value(m, id);
        if (dn_option_check(field, value, &why) != DN_OK) {
            return api_refuse(r->problem, API_INVALID_FIELD, pointer_to(r, dn_option_info_of(id)->name).text, "%s", why.message);
        }
        dn_option_set(&out->options, id, value);
    }
    return true;
}

static bool read_seed(reader *r, api_request *out)
{
    const member *m = &r->members[FIELD_SEED];
    bool ok = true;
    out->has_seed = m->value != NULL;
    if (cJSON_IsString(m->value)) {
        ok = digits_to_u64(m->value->valuestring, strlen(m->value->valuestring), &out->seed);
    } else if (m->value) {
        ok = cJSON_IsNumber(m->value) && digits_to_u64(m->raw.at, m->raw.bytes, &out->seed);
    }
    return ok || refuse_field(r, FIELD_SEED, "must be an integer or a string of digits from 0 to 18446744073709551615");
}

static bool read_counts(reader *r, api_request *out)
{
    const member *n = &r->members[FIELD_N], *priority = &r->members[FIELD_PRIORITY];
    int64_t images = 1, urgency = 0;
    if (n->value && !integer_of(n, 1, API_N_MAX, &images)) {
        return refuse_field(r, FIELD_N, "must be an integer from 1 to 64");
    }
    if (priority->value && !integer_of(priority, -API_PRIORITY_MAX, API_PRIORITY_MAX, &urgency)) {
        return refuse_field(r, FIELD_PRIORITY, "must be an integer from -10 to 10");
    }
    out->n = (uint32_t)images;
    out->priority = (int)urgency;
    return true;
}

static bool read_request(reader *r, api_request *out, const cJSON *object, api_raw raw, api_model_lookup *lookup, void *payload)
{
    if (!cJSON_IsObject(object)) {
        return api_refuse(r->problem, API_INVALID_FIELD, r->at, "each element of the array must be an object");
    }
    return collect(r, object, raw) && read_model(r, out, lookup, payload) && read_class_label(r, out) && read_guidance(r, out) &&
           read_steps(r, out) && read_sampler(r, out) && read_options(r, out) && read_seed(r, out) && read_counts(r, out);
}

/* ---- The body */

static bool parse_body(cJSON **root, const char *body, size_t body_bytes, api_problem *problem)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    dn_error error = {0};
    size_t offset = 0;
    if (body_bytes > API_BODY_BYTES_MAX) {
        return api_refuse(problem, API_TOO_LARGE, "", "the body is larger than %d bytes", API_BODY_BYTES_MAX);
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

static bool read_array(api_request *requests, size_t count, const cJSON *root, api_raw raw, api_model_lookup *lookup, void *payload,
                       api_problem *problem)
{
    api_walk walk;
    api_walk_begin(&walk, raw);
    const cJSON *element = root->child;
    for (size_t i = 0; i < count; i++, element = element->next) {
        reader r = {.problem = problem};
        api_raw part;
        snprintf(r.at, sizeof r.at, "/%zu", i);
        if (!api_walk_next(&walk, &part)) {
            return api_refuse(problem, API_INTERNAL, r.at, "the body could not be walked");
        }
        if (!read_request(&r, &requests[i], element, part, lookup, payload)) {
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
    bool ok = false, array;
    size_t wanted;
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
    requests = calloc(wanted, sizeof *requests);
    if (!requests) {
        api_refuse(problem, API_INTERNAL, "", "out of memory");
        goto done;
    }
    if (array) {
        ok = read_array(requests, wanted, root, (api_raw){body, body_bytes}, lookup, payload, problem);
    } else {
        ok = read_request(&(reader){.problem = problem}, requests, root, (api_raw){body, body_bytes}, lookup, payload);
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
