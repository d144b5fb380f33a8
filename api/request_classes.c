/* What a request says of classes: one by name or index, several by weight, and the one to be guided away from. Pure; any thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_label.h"
#include "api/request_reader.h"

/* One class at `pointer`, whose last part names it in refusals; `otherwise` ends the rule ("or null", "" ). */
static bool read_class(api_reader *r, const api_member *m, const char *pointer, const char *otherwise, api_class *out)
{
    const char *name = strrchr(pointer, '/') + 1;
    int64_t index;
    if (!cJSON_IsNumber(m->value) && !cJSON_IsString(m->value)) {
        return api_refuse(r->problem, API_INVALID_FIELD, pointer, "%s must be a class name, an index%s", name, otherwise);
    }
    if (!r->model->class_count) {
        return api_refuse(r->problem, API_INVALID_FIELD, pointer, "%s must be null or left out: this model has no classes", name);
    }
    if (cJSON_IsString(m->value)) {
        if (!api_find_class(&out->index, r->model, m->value->valuestring, pointer, r->problem)) {
            return false;
        }
    } else if (api_integer_of(m, 0, (int64_t)r->model->class_count - 1, &index)) {
        out->index = (uint32_t)index;
    } else {
        return api_refuse(r->problem, API_INVALID_FIELD, pointer, "%s must be an integer from 0 to %u, a class name%s", name,
                          r->model->class_count - 1, otherwise);
    }
    api_class_first_name(out->name, sizeof out->name, r->model, out->index);
    return true;
}

_Static_assert(API_CLASS_MIXTURE_MAX == DN_CONDITION_CLASSES_MAX, "the wire takes what the engine takes");

/* ---- class_mixture */

static bool refuse_element(api_reader *r, uint32_t i, const char *rule)
{
    char name[40];
    snprintf(name, sizeof name, "class_mixture/%u", i);
    return api_refuse(r->problem, API_INVALID_FIELD, api_pointer_to(r, name).text, "class_mixture %s", rule);
}

/* {"class_label":...,"weight":...} and nothing else. */
static bool read_element(api_reader *r, uint32_t i, const cJSON *object, api_raw raw, api_class_weight *out)
{
    api_member label = {NULL, {NULL, 0}}, weight = label;
    api_walk walk;
    char name[64];
    api_walk_begin(&walk, raw);
    for (const cJSON *child = cJSON_IsObject(object) ? object->child : NULL; child; child = child->next) {
        api_member *m = strcmp(child->string, "class_label") == 0 ? &label : strcmp(child->string, "weight") == 0 ? &weight : NULL;
        if (!m || !api_walk_next(&walk, &m->raw)) {
            label.value = NULL;
            break;
        }
        m->value = child;
    }
    if (!label.value || !weight.value) {
        return refuse_element(r, i, "must hold objects of a class_label and a weight");
    }
    snprintf(name, sizeof name, "class_mixture/%u/weight", i);
    if (!cJSON_IsNumber(weight.value) || !(fabs(weight.value->valuedouble) <= API_CLASS_WEIGHT_MAX)) {
        return api_refuse(r->problem, API_INVALID_FIELD, api_pointer_to(r, name).text, "weight must be a number from %g to %g",
                          -API_CLASS_WEIGHT_MAX, API_CLASS_WEIGHT_MAX);
    }
    out->weight = weight.value->valuedouble;
    snprintf(name, sizeof name, "class_mixture/%u/class_label", i);
    return read_class(r, &label, api_pointer_to(r, name).text, "", &out->label);
}

static bool read_mixture(api_reader *r, const api_member *m, api_request *out)
{
    api_walk walk;
    api_raw raw;
    int count = cJSON_IsArray(m->value) ? cJSON_GetArraySize(m->value) : 0;
    const cJSON *element = m->value->child;
    if (count < 1 || count > API_CLASS_MIXTURE_MAX) {
        char rule[96];
        snprintf(rule, sizeof rule, "must be an array of 1 to %d objects of a class_label and a weight", API_CLASS_MIXTURE_MAX);
        return api_refuse_member(r, "class_mixture", rule);
    }
    api_walk_begin(&walk, m->raw);
    for (uint32_t i = 0; i < (uint32_t)count; i++, element = element->next) {
        if (!api_walk_next(&walk, &raw) || !read_element(r, i, element, raw, &out->mixture[i])) {
            return false;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (out->mixture[j].label.index == out->mixture[i].label.index) {
                return refuse_element(r, i, "names a class twice");
            }
        }
    }
    out->mixture_count = (uint32_t)count;
    return true;
}

/* ---- The three fields */

static bool read_unconditional(api_reader *r)
{
    if (!r->model->unconditional) {
        return api_refuse_member(r, "class_label", "is required: this model has no null class, so it makes no unconditional pictures");
    }
    return true;
}

bool api_read_classes(api_reader *r, api_request *out)
{
    const api_member *label = &r->members[API_FIELD_CLASS_LABEL], *mixture = &r->members[API_FIELD_CLASS_MIXTURE];
    const api_member *negative = &r->members[API_FIELD_NEGATIVE_CLASS];
    bool has_label = label->value && !cJSON_IsNull(label->value), has_mixture = mixture->value && !cJSON_IsNull(mixture->value);
    api_class one = {0, ""};
    if (has_label && has_mixture) {
        return api_refuse_member(r, "class_mixture", "takes the place of class_label: send one of them");
    }
    if (has_label && !read_class(r, label, api_pointer_to(r, "class_label").text, " or null", &one)) {
        return false;
    }
    if (has_mixture && !read_mixture(r, mixture, out)) {
        return false;
    }
    if (!has_label && !has_mixture && !read_unconditional(r)) {
        return false;
    }
    out->has_class = has_label || has_mixture;
    out->class_index = one.index;
    memcpy(out->class_name, one.name, sizeof out->class_name);
    out->has_negative = negative->value && !cJSON_IsNull(negative->value);
    return !out->has_negative || read_class(r, negative, api_pointer_to(r, "negative_class").text, " or null", &out->negative);
}
