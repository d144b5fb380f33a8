/* The hub: what is live about jobs, in memory; nothing here survives the process or needs to.
 *
 * Invariant: an entry exists while somebody subscribes to its job or while its job has live state and has not ended. All
 * fields are guarded by hub.lock. Wake callbacks run without it: their subscription is marked `waking` meanwhile, and
 * hub_unsubscribe waits until that mark is gone before it unlinks, so that a walk may go on from where it stood.
 *
 * Any thread. What it does not do: it never reads the store, and never tells a subscriber what happened, only that
 * something did. */
#include "server/hub.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#include "api/limits.h"

enum { HUB_BUCKETS = 4096 };

typedef struct hub_preview_slot {
    struct hub_preview_slot *next;
    hub_preview_view view;
} hub_preview_slot;

typedef struct hub_entry {
    struct hub_entry *bucket_next;
    struct hub_entry *previous, *next; /* all entries */
    char id[API_ID_BYTES + 1];
    unsigned pins; /* walks that stand on this entry */
    hub_subscription *subscriptions;
    unsigned preview_subscribers;
    bool known;
    hub_live live;
    double eta_at; /* monotonic: when live.eta_seconds was told */
    hub_preview_slot *previews; /* one per image index */
} hub_entry;

struct hub_subscription {
    hub_subscription *previous, *next;
    hub_entry *entry;
    hub_wake *wake;
    void *payload;
    bool previews, closing;
    unsigned waking; /* calls of wake in progress */
};

struct hub {
    pthread_mutex_t lock;
    pthread_cond_t woken; /* some subscription's `waking` fell to 0 */
    hub_entry *buckets[HUB_BUCKETS];
    hub_entry *entries;
    uint64_t queue_version, preview_version;
};

dn_status hub_create(hub **out, dn_error *error)
{
    hub *h = calloc(1, sizeof *h);
    if (!h)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the hub");
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->woken, NULL);
    *out = h;
    return DN_OK;
}

static void previews_free(hub_entry *entry)
{
    while (entry->previews) {
        hub_preview_slot *slot = entry->previews;
        entry->previews = slot->next;
        free(slot->view.png);
        free(slot);
    }
}

void hub_free(hub *h)
{
    if (!h)
        return;
    while (h->entries) {
        hub_entry *entry = h->entries;
        assert(!entry->subscriptions && "a subscriber outlived the hub");
        h->entries = entry->next;
        previews_free(entry);
        free(entry);
    }
    pthread_cond_destroy(&h->woken);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

/* FNV-1a: ids are random, so any mixing spreads them. */
static size_t bucket_of(const char *id)
{
    uint64_t hash = 1469598103934665603u;
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 1099511628211u;
    return (size_t)(hash % HUB_BUCKETS);
}

static hub_entry *entry_find(hub *h, const char *id)
{
    hub_entry *entry = h->buckets[bucket_of(id)];
    while (entry && strcmp(entry->id, id) != 0)
        entry = entry->bucket_next;
    return entry;
}

static hub_entry *entry_find_or_make(hub *h, const char *id)
{
    hub_entry *entry = entry_find(h, id);
    if (entry || strlen(id) > API_ID_BYTES)
        return entry;
    entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    snprintf(entry->id, sizeof entry->id, "%s", id);
    entry->live.eta_seconds = -1;
    const size_t bucket = bucket_of(id);
    entry->bucket_next = h->buckets[bucket];
    h->buckets[bucket] = entry;
    entry->next = h->entries;
    if (h->entries)
        h->entries->previous = entry;
    h->entries = entry;
    return entry;
}

/* Frees the entry when nobody subscribes, nobody walks over it, and its job has nothing live left to say. */
static void entry_release(hub *h, hub_entry *entry)
{
    if (entry->subscriptions || entry->pins || (entry->known && !entry->live.ended))
        return;
    hub_entry **link = &h->buckets[bucket_of(entry->id)];
    while (*link != entry)
        link = &(*link)->bucket_next;
    *link = entry->bucket_next;
    if (entry->previous)
        entry->previous->next = entry->next;
    else
        h->entries = entry->next;
    if (entry->next)
        entry->next->previous = entry->previous;
    previews_free(entry);
    free(entry);
}

/* Calls wake of an entry's subscribers; the lock is held on entry and on return, not during the calls. The entry is pinned
 * by the caller. */
static void entry_wake(hub *h, hub_entry *entry, bool previews_only)
{
    for (hub_subscription *s = entry->subscriptions; s; s = s->next) {
        if (s->closing || (previews_only && !s->previews))
            continue;
        s->waking++;
        pthread_mutex_unlock(&h->lock);
        s->wake(s->payload);
        pthread_mutex_lock(&h->lock);
        if (--s->waking == 0 && s->closing)
            pthread_cond_broadcast(&h->woken);
    }
}

static void entry_wake_and_release(hub *h, hub_entry *entry, bool previews_only)
{
    entry->pins++;
    entry_wake(h, entry, previews_only);
    entry->pins--;
    entry_release(h, entry);
}

hub_subscription *hub_subscribe(hub *h, const char *job_id, bool previews, hub_wake *wake, void *payload)
{
    hub_subscription *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_lock(&h->lock);
    hub_entry *entry = entry_find_or_make(h, job_id);
    if (entry) {
        *s = (hub_subscription){.next = entry->subscriptions, .entry = entry, .wake = wake, .payload = payload, .previews = previews};
        if (entry->subscriptions)
            entry->subscriptions->previous = s;
        entry->subscriptions = s;
        entry->preview_subscribers += previews;
    }
    pthread_mutex_unlock(&h->lock);
    if (!entry) {
        free(s);
        return NULL;
    }
    return s;
}

void hub_unsubscribe(hub *h, hub_subscription *subscription)
{
    if (!subscription)
        return;
    hub_subscription *s = subscription;
    pthread_mutex_lock(&h->lock);
    s->closing = true;
    while (s->waking)
        pthread_cond_wait(&h->woken, &h->lock);
    hub_entry *entry = s->entry;
    if (s->previous)
        s->previous->next = s->next;
    else
        entry->subscriptions = s->next;
    if (s->next)
        s->next->previous = s->previous;
    entry->preview_subscribers -= s->previews;
    entry_release(h, entry);
    pthread_mutex_unlock(&h->lock);
    free(s);
}

void hub_milestone(hub *h, const char *job_id, int64_t seq, bool ended)
{
    pthread_mutex_lock(&h->lock);
    hub_entry *entry = entry_find_or_make(h, job_id);
    if (entry) {
        entry->known = true;
        if (seq > entry->live.seq)
            entry->live.seq = seq;
        entry->live.ended |= ended;
        entry_wake_and_release(h, entry, false);
    }
    pthread_mutex_unlock(&h->lock);
}

void hub_progress(hub *h, const char *job_id, uint64_t done, uint64_t total, uint32_t images_done, double eta_seconds)
{
    pthread_mutex_lock(&h->lock);
    hub_entry *entry = entry_find_or_make(h, job_id);
    if (entry) {
        entry->known = true;
        entry->live.done = done;
        entry->live.total = total;
        entry->live.images_done = images_done;
        entry->live.eta_seconds = eta_seconds;
        entry->eta_at = dn_now_seconds();
        entry->live.version++;
        entry_wake_and_release(h, entry, false);
    }
    pthread_mutex_unlock(&h->lock);
}

static hub_preview_slot *slot_for(hub_entry *entry, uint32_t index)
{
    hub_preview_slot *slot = entry->previews;
    while (slot && slot->view.index != index)
        slot = slot->next;
    if (slot)
        return slot;
    slot = calloc(1, sizeof *slot);
    if (slot) {
        slot->next = entry->previews;
        entry->previews = slot;
    }
    return slot;
}

void hub_preview(hub *h, const char *job_id, uint32_t index, uint32_t done, uint32_t total, uint32_t width, uint32_t height,
                 const unsigned char *png, size_t bytes)
{
    unsigned char *copy = malloc(bytes ? bytes : 1);
    if (!copy)
        return; /* A preview is the first thing that may be lost. */
    memcpy(copy, png, bytes);
    pthread_mutex_lock(&h->lock);
    hub_entry *entry = entry_find(h, job_id);
    hub_preview_slot *slot = entry && entry->preview_subscribers && index < API_N_MAX ? slot_for(entry, index) : NULL;
    if (slot) {
        free(slot->view.png);
        slot->view = (hub_preview_view){.version = ++h->preview_version,
                                        .index = index,
                                        .done = done,
                                        .total = total,
                                        .width = width,
                                        .height = height,
                                        .png = copy,
                                        .bytes = bytes};
        copy = NULL;
        entry->live.preview_version = slot->view.version;
        entry_wake_and_release(h, entry, true);
    }
    pthread_mutex_unlock(&h->lock);
    free(copy);
}

void hub_queue_moved(hub *h)
{
    pthread_mutex_lock(&h->lock);
    h->queue_version++;
    pthread_mutex_unlock(&h->lock);
}

bool hub_previews_wanted(hub *h, const char *job_id)
{
    pthread_mutex_lock(&h->lock);
    const hub_entry *entry = entry_find(h, job_id);
    const bool wanted = entry && entry->preview_subscribers > 0;
    pthread_mutex_unlock(&h->lock);
    return wanted;
}

void hub_forget(hub *h, const char *job_id)
{
    pthread_mutex_lock(&h->lock);
    hub_entry *entry = entry_find(h, job_id);
    if (entry) {
        previews_free(entry);
        entry->live.ended = true;
        entry_release(h, entry);
    }
    pthread_mutex_unlock(&h->lock);
}

void hub_read(hub *h, const char *job_id, hub_live *out)
{
    pthread_mutex_lock(&h->lock);
    const hub_entry *entry = entry_find(h, job_id);
    *out = entry ? entry->live : (hub_live){.eta_seconds = -1};
    out->known = entry && entry->known;
    if (out->eta_seconds > 0) { /* the time since then has gone by */
        const double left = out->eta_seconds - (dn_now_seconds() - entry->eta_at);
        out->eta_seconds = left > 0 ? left : 0;
    }
    out->queue_version = h->queue_version;
    pthread_mutex_unlock(&h->lock);
}

bool hub_next_preview(hub *h, const char *job_id, uint64_t after, hub_preview_view *out)
{
    bool found = false;
    pthread_mutex_lock(&h->lock);
    const hub_entry *entry = entry_find(h, job_id);
    const hub_preview_view *best = NULL;
    for (const hub_preview_slot *slot = entry ? entry->previews : NULL; slot; slot = slot->next)
        if (slot->view.version > after && (!best || slot->view.version < best->version))
            best = &slot->view;
    if (best) {
        unsigned char *copy = malloc(best->bytes ? best->bytes : 1);
        if (copy) {
            memcpy(copy, best->png, best->bytes);
            *out = *best;
            out->png = copy;
            found = true;
        }
    }
    pthread_mutex_unlock(&h->lock);
    return found;
}
