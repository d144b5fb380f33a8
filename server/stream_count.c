/* Counting event streams: 512 in all unless told otherwise, 100 a client. Any thread. */
#include <stdio.h>
#include <string.h>

#include "server/service.h"

static struct stream_count *find_count(service *s, const char *client)
{
    struct stream_count *free_slot = NULL;
    for (size_t i = 0; i < s->streams_max; i++) {
        struct stream_count *slot = &s->stream_counts[i];
        if (slot->count > 0 && strcmp(slot->client, client) == 0) {
            return slot;
        }
        if (slot->count == 0 && free_slot == NULL) {
            free_slot = slot;
        }
    }
    return free_slot;
}

/* Under the lock. */
static api_code stream_refusal(service *s, const struct stream_count *slot)
{
    if (slot == NULL || atomic_load(&s->streams) >= s->streams_max) {
        return API_QUEUE_FULL;
    }
    return slot->count >= API_CLIENT_STREAMS_MAX ? API_QUOTA : API_NONE;
}

api_code route_stream_refusal(service *s, const char *client)
{
    pthread_mutex_lock(&s->stream_lock);
    api_code refusal = stream_refusal(s, find_count(s, client));
    pthread_mutex_unlock(&s->stream_lock);
    return refusal;
}

api_code stream_enter(service *s, const char *client)
{
    pthread_mutex_lock(&s->stream_lock);
    struct stream_count *slot = find_count(s, client);
    api_code refusal = stream_refusal(s, slot);
    if (refusal == API_NONE) {
        if (slot->count++ == 0) {
            snprintf(slot->client, sizeof slot->client, "%s", client);
        }
        atomic_fetch_add(&s->streams, 1);
        metrics_change(s->metrics, METRIC_STREAMS, 1);
    }
    pthread_mutex_unlock(&s->stream_lock);
    return refusal;
}

void stream_leave(service *s, const char *client)
{
    pthread_mutex_lock(&s->stream_lock);
    struct stream_count *slot = find_count(s, client);
    if (slot != NULL && slot->count > 0) {
        slot->count--;
    }
    atomic_fetch_sub(&s->streams, 1);
    metrics_change(s->metrics, METRIC_STREAMS, -1);
    pthread_mutex_unlock(&s->stream_lock);
}
