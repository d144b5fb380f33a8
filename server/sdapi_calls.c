/* See sdapi_calls.h. One lock guards all; it is held while the hub is called, never the other way round: the hub's wake does nothing here. */
#include "server/sdapi_calls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define WATCH_SECONDS 10.0
#define SDAPI_CALLS_SHARE (SDAPI_CALLS_MAX / 4) /* of one client; who has more pushes out no other's calls */

typedef struct entry {
    sdapi_call call;
    uint64_t turn; /* when it came; 0: a free place */
    hub_subscription *watch;
    double looked_at;
} entry;

typedef struct choice {
    char client[65], model[65];
    uint64_t turn; /* when it was last asked for or made */
} choice;

struct sdapi_calls {
    hub *hub;
    pthread_mutex_t lock;
    uint64_t turn;
    entry entries[SDAPI_CALLS_MAX];
    choice choices[SDAPI_CLIENTS_MAX];
    size_t choice_count;
};

dn_status sdapi_calls_create(sdapi_calls **out, hub *h, dn_error *error)
{
    sdapi_calls *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    c->hub = h;
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return DN_OK;
}

static void unwatch(sdapi_calls *c, entry *e)
{
    hub_unsubscribe(c->hub, e->watch);
    e->watch = NULL;
}

void sdapi_calls_free(sdapi_calls *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < SDAPI_CALLS_MAX; i++) {
        unwatch(c, &c->entries[i]);
    }
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- Calls */

static entry *by_job(sdapi_calls *c, const char *job_id)
{
    for (size_t i = 0; i < SDAPI_CALLS_MAX; i++) {
        if (c->entries[i].turn && strcmp(c->entries[i].call.id, job_id) == 0) {
            return &c->entries[i];
        }
    }
    return NULL;
}

/* A free place, else the oldest that has ended, else the oldest: of the client's own, where it has its share of the places. */
static entry *make_room(sdapi_calls *c, const char *client)
{
    entry *best = &c->entries[0], *own = NULL;
    size_t count = 0;
    for (size_t i = 0; i < SDAPI_CALLS_MAX && best->turn; i++) {
        entry *e = &c->entries[i];
        if (!e->turn || (e->call.ended == best->call.ended ? e->turn < best->turn : e->call.ended)) {
            best = e;
        }
        if (strcmp(e->call.client, client) == 0) {
            count++;
            own = own == NULL || e->turn < own->turn ? e : own;
        }
    }
    return best->turn && !best->call.ended && count >= SDAPI_CALLS_SHARE ? own : best;
}

void sdapi_calls_add(sdapi_calls *c, const sdapi_call *call)
{
    pthread_mutex_lock(&c->lock);
    if (by_job(c, call->id) == NULL) {
        entry *e = make_room(c, call->client);
        unwatch(c, e);
        *e = (entry){.call = *call, .turn = ++c->turn};
    }
    pthread_mutex_unlock(&c->lock);
}

void sdapi_calls_end(sdapi_calls *c, const char *job_id)
{
    pthread_mutex_lock(&c->lock);
    entry *e = by_job(c, job_id);
    if (e != NULL) {
        e->call.ended = true;
        unwatch(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

bool sdapi_calls_find(sdapi_calls *c, const char *client, const char *task, sdapi_call *out)
{
    const entry *best = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < SDAPI_CALLS_MAX && task[0]; i++) {
        const entry *e = &c->entries[i];
        const bool named = e->turn && (strcmp(e->call.task, task) == 0 || strcmp(e->call.id, task) == 0);
        if (named && (client == NULL || strcmp(e->call.client, client) == 0) && (best == NULL || e->turn > best->turn)) {
            best = e;
        }
    }
    if (best != NULL) {
        *out = best->call;
    }
    pthread_mutex_unlock(&c->lock);
    return best != NULL;
}

/* The oldest open call of a client that came after a turn. */
static const entry *next_open(const sdapi_calls *c, const char *client, uint64_t after)
{
    const entry *best = NULL;
    for (size_t i = 0; i < SDAPI_CALLS_MAX; i++) {
        const entry *e = &c->entries[i];
        if (e->turn > after && !e->call.ended && strcmp(e->call.client, client) == 0 && (best == NULL || e->turn < best->turn)) {
            best = e;
        }
    }
    return best;
}

size_t sdapi_calls_open(sdapi_calls *c, const char *client, sdapi_call *out, size_t room)
{
    size_t count = 0;
    uint64_t after = 0;
    const entry *e = NULL;
    pthread_mutex_lock(&c->lock);
    while (count < room && (e = next_open(c, client, after)) != NULL) {
        out[count++] = e->call;
        after = e->turn;
    }
    pthread_mutex_unlock(&c->lock);
    return count;
}

/* ---- Previews */

static void wake_nobody(void *payload)
{
    (void)payload;
}

void sdapi_calls_watch(sdapi_calls *c, const char *job_id)
{
    const double now = dn_now_seconds();
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < SDAPI_CALLS_MAX; i++) {
        if (c->entries[i].watch != NULL && now - c->entries[i].looked_at > WATCH_SECONDS) {
            unwatch(c, &c->entries[i]);
        }
    }
    entry *e = by_job(c, job_id);
    if (e != NULL && !e->call.ended) {
        e->looked_at = now;
        if (e->watch == NULL) {
            e->watch = hub_subscribe(c->hub, job_id, true, wake_nobody, NULL);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- Models */

static choice *choice_of(sdapi_calls *c, const char *client)
{
    for (size_t i = 0; i < c->choice_count; i++) {
        if (strcmp(c->choices[i].client, client) == 0) {
            c->choices[i].turn = ++c->turn;
            return &c->choices[i];
        }
    }
    return NULL;
}

bool sdapi_calls_model(sdapi_calls *c, const char *client, char out[65])
{
    pthread_mutex_lock(&c->lock);
    const choice *found = choice_of(c, client);
    if (found != NULL) {
        memcpy(out, found->model, sizeof found->model);
    }
    pthread_mutex_unlock(&c->lock);
    return found != NULL;
}

/* A free place, else that of the client which has not been heard of for longest: keys come and go. */
static choice *place_for(sdapi_calls *c, const char *client)
{
    choice *place = &c->choices[0];
    for (size_t i = 1; i < c->choice_count; i++) {
        if (c->choices[i].turn < place->turn) {
            place = &c->choices[i];
        }
    }
    if (c->choice_count < SDAPI_CLIENTS_MAX) {
        place = &c->choices[c->choice_count++];
    }
    place->turn = ++c->turn;
    snprintf(place->client, sizeof place->client, "%s", client);
    return place;
}

void sdapi_calls_choose(sdapi_calls *c, const char *client, const char *model)
{
    pthread_mutex_lock(&c->lock);
    choice *found = choice_of(c, client);
    if (found == NULL) {
        found = place_for(c, client);
    }
    snprintf(found->model, sizeof found->model, "%s", model);
    pthread_mutex_unlock(&c->lock);
}
