/* The registry of models. Names and folders are added before any thread reads; state and description change under the lock.
 *
 * Invariant: a description that was ever handed out stays until models_free (old ones are chained behind the new one), so
 * that a request being validated never loses its model. Any thread after the last models_add. */
#include "server/models.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MODELS_MAX = 64 };

typedef struct model_description {
    struct model_description *older;
    api_model *model;
} model_description;

typedef struct model_entry {
    char *name, *folder;
    model_state state;
    char error[256];
    api_batch batch; /* rows_max 0: not in memory */
    uint64_t bytes;
    model_description *description; /* newest first, NULL: never described */
} model_entry;

struct models {
    pthread_mutex_t lock; /* all but name and folder of every entry */
    size_t count;
    model_entry entries[MODELS_MAX];
};

dn_status models_create(models **out, dn_error *error)
{
    models *m = calloc(1, sizeof *m);
    if (!m)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the models");
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return DN_OK;
}

void models_free(models *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->count; i++) {
        model_entry *entry = &m->entries[i];
        while (entry->description) {
            model_description *description = entry->description;
            entry->description = description->older;
            api_model_free(description->model);
            free(description);
        }
        free(entry->name);
        free(entry->folder);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const model_entry *entry_of(const models *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->entries[i].name, name) == 0)
            return &m->entries[i];
    return NULL;
}

dn_status models_add(models *m, const char *name, const char *folder, dn_error *error)
{
    if (!api_model_name_valid(name))
        return dn_fail(error, DN_INVALID, "a model's name is 1 to %d of A-Z a-z 0-9 . _ -", API_MODEL_NAME_BYTES_MAX);
    if (entry_of(m, name))
        return dn_fail(error, DN_INVALID, "model %s is given twice", name);
    if (m->count == MODELS_MAX)
        return dn_fail(error, DN_INVALID, "more than %d models", MODELS_MAX);
    model_entry entry = {.name = strdup(name), .folder = strdup(folder)};
    if (!entry.name || !entry.folder) {
        free(entry.name);
        free(entry.folder);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for model %s", name);
    }
    m->entries[m->count++] = entry;
    return DN_OK;
}

size_t models_count(const models *m)
{
    return m->count;
}

const char *models_name(const models *m, size_t index)
{
    return index < m->count ? m->entries[index].name : NULL;
}

const char *models_folder(const models *m, size_t index)
{
    return index < m->count ? m->entries[index].folder : NULL;
}

void models_set_state(models *m, const char *name, model_state state, const char *error)
{
    model_entry *entry = (model_entry *)entry_of(m, name);
    if (!entry)
        return;
    pthread_mutex_lock(&m->lock);
    entry->state = state;
    snprintf(entry->error, sizeof entry->error, "%s", error ? error : "");
    pthread_mutex_unlock(&m->lock);
}

model_state models_state(models *m, const char *name, char *error, size_t error_bytes)
{
    if (error && error_bytes)
        error[0] = 0;
    const model_entry *entry = entry_of(m, name);
    if (!entry)
        return MODEL_UNLOADED;
    pthread_mutex_lock(&m->lock);
    const model_state state = entry->state;
    if (error && error_bytes)
        snprintf(error, error_bytes, "%s", entry->error);
    pthread_mutex_unlock(&m->lock);
    return state;
}

static bool same(const api_model *a, const api_model *b)
{
    char *first = api_model_to_json(a), *second = api_model_to_json(b);
    const bool equal = first && second && strcmp(first, second) == 0;
    free(first);
    free(second);
    return equal;
}

bool models_describe(models *m, api_model *description)
{
    model_entry *entry = (model_entry *)entry_of(m, description->name);
    const api_model *known = entry ? models_lookup(m, description->name) : NULL; /* of one thread that describes, the newest */
    model_description *link = entry && !(known && same(known, description)) ? malloc(sizeof *link) : NULL;
    if (!link) {
        api_model_free(description);
        return false;
    }
    pthread_mutex_lock(&m->lock);
    *link = (model_description){.older = entry->description, .model = description};
    entry->description = link;
    pthread_mutex_unlock(&m->lock);
    return true;
}

const api_model *models_lookup(void *models_pointer, const char *name)
{
    models *m = models_pointer;
    if (!name)
        name = models_name(m, 0);
    const model_entry *entry = name ? entry_of(m, name) : NULL;
    if (!entry)
        return NULL;
    pthread_mutex_lock(&m->lock);
    const api_model *model = entry->description ? entry->description->model : NULL;
    pthread_mutex_unlock(&m->lock);
    return model;
}

bool models_known(const models *m, const char *name)
{
    return entry_of(m, name) != NULL;
}

/* 1, 2, 4, ... as far as there are ticks to speak from, and the most there may be. */
void models_set_batch(models *m, const char *name, const tick_table *table, uint32_t rows_max)
{
    model_entry *entry = (model_entry *)entry_of(m, name);
    api_batch batch = {.rows_max = rows_max};
    const uint32_t seen = table ? tick_table_seen(table) : 0;
    for (uint32_t rows = 1; rows_max && rows <= seen && batch.count < API_BATCH_POINTS_MAX; rows *= 2) {
        batch.rows[batch.count] = rows;
        batch.milliseconds[batch.count++] = 1e3 * tick_table_seconds(table, rows);
    }
    if (!entry)
        return;
    pthread_mutex_lock(&m->lock);
    entry->batch = batch;
    pthread_mutex_unlock(&m->lock);
}

bool models_batch(models *m, const char *name, api_batch *out)
{
    const model_entry *entry = entry_of(m, name);
    if (!entry)
        return false;
    pthread_mutex_lock(&m->lock);
    *out = entry->batch;
    pthread_mutex_unlock(&m->lock);
    return out->rows_max > 0;
}

void models_set_bytes(models *m, const char *name, uint64_t bytes)
{
    model_entry *entry = (model_entry *)entry_of(m, name);
    if (!entry)
        return;
    pthread_mutex_lock(&m->lock);
    entry->bytes = bytes;
    pthread_mutex_unlock(&m->lock);
}

uint64_t models_bytes(models *m, const char *name)
{
    const model_entry *entry = entry_of(m, name);
    if (!entry)
        return 0;
    pthread_mutex_lock(&m->lock);
    const uint64_t bytes = entry->bytes;
    pthread_mutex_unlock(&m->lock);
    return bytes;
}

const char *models_state_name(model_state state)
{
    static const char *const names[] = {"unloaded", "loading", "ready", "failed"};
    return names[state];
}
