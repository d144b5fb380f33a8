/* Class names to indices, and near misses to suggestions. Pure; any thread. */
#include "api/class_label.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/text.h"

#define NAME_BYTES_MAX 64 /* longer names are neither compared nor suggested */
#define SUGGESTIONS_MAX 3
#define COMPARED_MAX 20000 /* synonyms compared for one refusal: bounds its time */
#define INDICES_SHOWN_MAX 16

typedef struct suggestion {
    const char *name;
    size_t bytes;
    unsigned distance;
} suggestion;

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned api_name_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    unsigned row[NAME_BYTES_MAX + 1];
    if (a_bytes > NAME_BYTES_MAX || b_bytes > NAME_BYTES_MAX) {
        return UINT_MAX;
    }
    for (unsigned j = 0; j <= b_bytes; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= a_bytes; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_bytes; j++) {
            unsigned replaced = diagonal + (lower(a[i - 1]) != lower(b[j - 1]));
            diagonal = row[j];
            row[j] = least(replaced, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_bytes];
}

unsigned api_name_nearness(const char *text, size_t bytes, const char *name, size_t name_bytes, unsigned most)
{
    char whole[NAME_BYTES_MAX + 1];
    if (bytes > NAME_BYTES_MAX || name_bytes > NAME_BYTES_MAX) {
        return UINT_MAX;
    }
    memcpy(whole, name, name_bytes);
    whole[name_bytes] = '\0';
    if (bytes >= 3 && name_bytes >= 3 && (bytes < name_bytes ? strcasestr(whole, text) : strcasestr(text, whole))) {
        return 1;
    }
    const size_t least_edits = bytes > name_bytes ? bytes - name_bytes : name_bytes - bytes;
    return least_edits > most ? UINT_MAX : api_name_distance(text, bytes, name, name_bytes);
}

static void keep_nearest(suggestion *kept, suggestion next)
{
    for (size_t i = 0; i < SUGGESTIONS_MAX; i++) {
        if (kept[i].bytes == next.bytes && kept[i].name && strncasecmp(kept[i].name, next.name, next.bytes) == 0) {
            return;
        }
        if (!kept[i].name || next.distance < kept[i].distance) {
            suggestion moved = kept[i];
            kept[i] = next;
            next = moved;
        }
        if (!next.name) {
            return;
        }
    }
}

static void find_nearest(suggestion *kept, const api_model *model, const char *text)
{
    size_t bytes = strlen(text);
    unsigned compared = 0, reach = (unsigned)(bytes / 3 > 2 ? bytes / 3 : 2);
    if (bytes > NAME_BYTES_MAX) {
        return;
    }
    for (uint32_t i = 0; i < model->class_count && compared < COMPARED_MAX; i++) {
        const char *rest = model->class_names[i], *name;
        size_t name_bytes;
        while (api_next_synonym(&rest, &name, &name_bytes)) {
            unsigned distance = api_name_nearness(text, bytes, name, name_bytes, reach);
            compared++;
            if (distance <= reach && distance < name_bytes) {
                keep_nearest(kept, (suggestion){name, name_bytes, distance});
            }
        }
    }
}

/* The last part of a JSON Pointer. */
static const char *own_name(const char *field)
{
    const char *slash = strrchr(field, '/');
    return slash ? slash + 1 : field;
}

static bool refuse_unknown(const api_model *model, const char *text, const char *field, api_problem *problem)
{
    suggestion kept[SUGGESTIONS_MAX] = {{NULL, 0, 0}};
    size_t digits = strspn(text, "0123456789");
    if (digits && !text[digits]) {
        return api_refuse(problem, API_INVALID_FIELD, field,
                          "%s names no class of this model: a string is a name; send a number without quotes for an index",
                          own_name(field));
    }
    find_nearest(kept, model, text);
    if (!kept[0].name) {
        return api_refuse(problem, API_INVALID_FIELD, field, "%s names no class of this model; GET /models/%s lists them", own_name(field),
                          model->name);
    }
    char list[SUGGESTIONS_MAX * (NAME_BYTES_MAX + 8)] = "";
    size_t used = 0;
    for (size_t i = 0; i < SUGGESTIONS_MAX && kept[i].name; i++) {
        int count = snprintf(list + used, sizeof list - used, "%s\"%.*s\"", i ? " or " : "", (int)kept[i].bytes, kept[i].name);
        used += count > 0 ? (size_t)count : 0;
    }
    return api_refuse(problem, API_INVALID_FIELD, field, "%s names no class of this model; did you mean %s?", own_name(field), list);
}

static bool class_matches(const char *names, const char *text)
{
    const char *rest = names, *name;
    size_t bytes, wanted = strlen(text);
    if (strcasecmp(names, text) == 0) {
        return true;
    }
    while (api_next_synonym(&rest, &name, &bytes)) {
        if (bytes == wanted && strncasecmp(name, text, bytes) == 0) {
            return true;
        }
    }
    return false;
}

bool api_find_class(uint32_t *index, const api_model *model, const char *text, const char *field, api_problem *problem)
{
    char list[INDICES_SHOWN_MAX * 12 + 8] = "";
    size_t used = 0;
    unsigned matches = 0;
    for (uint32_t i = 0; text[0] && i < model->class_count; i++) {
        if (!class_matches(model->class_names[i], text)) {
            continue;
        }
        if (matches < INDICES_SHOWN_MAX) {
            int count = snprintf(list + used, sizeof list - used, "%s%u", matches ? ", " : "", i);
            used += count > 0 ? (size_t)count : 0;
        }
        if (matches++ == 0) {
            *index = i;
        }
    }
    if (matches > 1) {
        return api_refuse(problem, API_INVALID_FIELD, field, "%s is the name of %u classes: send one of the indices %s%s", own_name(field),
                          matches, list, matches > INDICES_SHOWN_MAX ? " ..." : "");
    }
    return matches == 1 || refuse_unknown(model, text, field, problem);
}

void api_class_first_name(char *out, size_t capacity, const api_model *model, uint32_t index)
{
    const char *rest = model->class_names[index], *name;
    size_t bytes, used = 0;
    if (!api_next_synonym(&rest, &name, &bytes)) {
        bytes = 0;
    }
    while (used < bytes) {
        size_t step = api_utf8_bytes(name + used);
        step = step ? step : 1;
        if (used + step >= capacity) {
            break;
        }
        memcpy(out + used, name + used, step);
        used += step;
    }
    out[used] = '\0';
}
