/* Classes by name: exact names and comma-separated synonyms, without regard to ASCII case. Reads an engine; any thread. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "batch/loaded_engine.h"

#define DN_CLASS_MATCHES_SHOWN 8
#define DN_NEAREST_SHOWN 3
#define DN_NEAREST_BYTES_MAX 64 /* longer names are not compared for likeness */

/* Calls back with every synonym of a stored name: the whole, and what stands between commas, trimmed. */
static bool next_synonym(const char **cursor, const char **start, size_t *bytes)
{
    const char *at = *cursor;
    while (*at == ',' || *at == ' ')
        at++;
    if (*at == '\0')
        return false;
    size_t count = strcspn(at, ",");
    *start = at;
    *cursor = at + count;
    while (count > 0 && at[count - 1] == ' ')
        count--;
    *bytes = count;
    return true;
}

static bool is_named(const char *stored, const char *name)
{
    const char *start;
    size_t bytes, wanted = strlen(name);
    if (strcasecmp(stored, name) == 0)
        return true;
    while (next_synonym(&stored, &start, &bytes))
        if (bytes == wanted && strncasecmp(start, name, bytes) == 0)
            return true;
    return false;
}

static unsigned lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned)(c - 'A' + 'a') : (unsigned)(unsigned char)c;
}

/* Levenshtein's edit distance, one row at a time. */
static unsigned edit_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    unsigned row[DN_NEAREST_BYTES_MAX + 1];
    for (size_t j = 0; j <= b_bytes; j++)
        row[j] = (unsigned)j;
    for (size_t i = 0; i < a_bytes; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b_bytes; j++) {
            unsigned change = corner + (lower(a[i]) != lower(b[j]));
            unsigned step = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            corner = row[j + 1];
            row[j + 1] = change < step ? change : step;
        }
    }
    return row[b_bytes];
}

static unsigned distance_to(const char *stored, const char *name)
{
    const char *start;
    size_t bytes, wanted = strlen(name);
    unsigned best = UINT32_MAX;
    while (wanted <= DN_NEAREST_BYTES_MAX && next_synonym(&stored, &start, &bytes)) {
        unsigned distance = bytes <= DN_NEAREST_BYTES_MAX ? edit_distance(name, wanted, start, bytes) : UINT32_MAX;
        best = distance < best ? distance : best;
    }
    return best;
}

static void append(char *text, size_t room, const char *piece)
{
    size_t used = strlen(text);
    snprintf(text + used, room - used, "%s%s", used ? ", " : "", piece);
}

static dn_status refuse_unknown(const dn_engine *engine, const char *name, dn_error *error)
{
    char nearest[256] = "";
    unsigned shown = 0;
    for (unsigned distance = 1; distance < DN_NEAREST_BYTES_MAX && shown < DN_NEAREST_SHOWN; distance++)
        for (uint32_t i = 0; i < engine->folder->class_count && shown < DN_NEAREST_SHOWN; i++)
            if (distance_to(engine->folder->class_names[i], name) == distance) {
                append(nearest, sizeof nearest, engine->folder->class_names[i]);
                shown++;
            }
    return dn_fail(error, DN_INVALID, "class \"%.60s\" is not known; the nearest are: %s", name, nearest);
}

dn_status dn_engine_find_class(const dn_engine *engine, const char *name, uint32_t *out, dn_error *error)
{
    char indices[128] = "";
    uint32_t matches = 0, found = 0;
    if (engine->folder->class_count == 0)
        return dn_fail(error, DN_INVALID, "this model's classes have no names: use a number below %u", engine->class_count);
    for (uint32_t i = 0; i < engine->folder->class_count; i++) {
        if (!is_named(engine->folder->class_names[i], name))
            continue;
        char number[16];
        snprintf(number, sizeof number, "%u", i);
        if (matches++ < DN_CLASS_MATCHES_SHOWN)
            append(indices, sizeof indices, number);
        found = i;
    }
    if (matches == 0)
        return refuse_unknown(engine, name, error);
    if (matches > 1)
        return dn_fail(error, DN_INVALID, "class \"%.60s\" names several classes: use one of the numbers %s", name, indices);
    *out = found;
    return DN_OK;
}
