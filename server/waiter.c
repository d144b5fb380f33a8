/* Waiting for jobs to end, for POST /generate and GET /jobs/{id}: subscribe first, then look, then sleep, so that an end
 * between the look and the sleep is not missed. A dropped connection never cancels an accepted job. */
#include <stdlib.h>

#include "base/clock.h"
#include "server/service.h"

#define WAITS_MAX 1024u /* of all clients; the other connections are for those who come and go: see http_connections.c */

static void wake_request(void *payload)
{
    http_resume(payload);
}

bool waiter_begin(waiter *w, service *s, http_request *request, char (*ids)[27], size_t count, double seconds)
{
    *w = (waiter){.service = s, .request = request, .ids = ids, .count = count, .until = dn_now_seconds() + seconds};
    w->counted = true;
    if (atomic_fetch_add(&s->waits, 1) >= WAITS_MAX) {
        waiter_done(w);
        return false;
    }
    w->subscriptions = calloc(count, sizeof *w->subscriptions);
    w->ended = calloc(count, sizeof *w->ended);
    if (w->subscriptions == NULL || w->ended == NULL) {
        waiter_done(w);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        w->subscriptions[i] = hub_subscribe(s->hub, ids[i], false, wake_request, request);
        if (w->subscriptions[i] == NULL) {
            waiter_done(w);
            return false;
        }
    }
    return true;
}

static bool has_ended(waiter *w, size_t i)
{
    store_job job = {0};
    if (!w->ended[i] && store_get(w->service->store, NULL, w->ids[i], &job) == STORE_OK) {
        w->ended[i] = api_state_ended(job.state);
        store_job_done(&job);
    }
    return w->ended[i];
}

bool waiter_over(waiter *w, bool *all_ended)
{
    double left = w->until - dn_now_seconds();
    bool all = true;
    for (size_t i = 0; i < w->count && all; i++) {
        all = has_ended(w, i);
    }
    *all_ended = all;
    if (all || left <= 0.0 || atomic_load(&w->request->gone) || http_stopping(w->request->server)) {
        return true;
    }
    http_suspend(w->request, left);
    return false;
}

void waiter_done(waiter *w)
{
    for (size_t i = 0; w->subscriptions != NULL && i < w->count; i++) {
        if (w->subscriptions[i] != NULL) {
            hub_unsubscribe(w->service->hub, w->subscriptions[i]);
        }
    }
    if (w->counted) {
        atomic_fetch_sub(&w->service->waits, 1);
        w->counted = false;
    }
    free(w->subscriptions);
    free(w->ended);
    w->subscriptions = NULL;
    w->ended = NULL;
}
