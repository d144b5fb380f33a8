/* The thread that empties the outbox (webhooks.h).
 *
 * Invariant: a row of the outbox is in at most one slot, from the moment it is read until the store has said how its try went; so no
 * row is sent twice at once, though the store names it again and again; and not twice at all because the store was too busy or too full
 * to hear of it. Slots belong to the thread, except while SLOT_MARKING, when they are the store's writer's. */
#include "server/log.h"
#include "server/webhooks.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/text.h"
#include "api/views.h"
#include "base/clock.h"
#include "server/fault.h"
#include "server/webhook_try.h"

#define SLOTS 16u
#define RECEIVERS 64u
#define LOOK_MS 250

typedef enum slot_state { SLOT_FREE, SLOT_SENDING, SLOT_MARKING, SLOT_REFUSED } slot_state;

typedef struct slot {
    _Atomic slot_state state;
    int64_t row;
    char id[27];
    uint32_t attempt;
    store_request *mark; /* made before anything is sent, so that how it went can be told; NULL: none, or the store has it */
    webhook_try try;
} slot;

/* A receiver's luck: failures in a row, and until when it is left alone. */
typedef struct receiver {
    char host[WEBHOOK_HOST_BYTES];
    unsigned port, failures;
    double until, last;
} receiver;

struct webhooks {
    webhooks_options options;
    webhook_secret secret;
    CURLM *multi;
    pthread_t thread;
    atomic_bool stop;
    slot slots[SLOTS];
    receiver receivers[RECEIVERS];
};

const char *webhooks_refuse(const webhooks *w, const char *url)
{
    webhook_url read;
    const char *rule = NULL;
    return webhook_url_check(&read, url, w->options.allowed, &rule) ? NULL : rule;
}

/* ---- Receivers */

/* The receiver's place; the one that was quiet for longest makes room. */
static receiver *receiver_of(webhooks *w, const webhook_url *url)
{
    receiver *oldest = &w->receivers[0];
    for (size_t i = 0; i < RECEIVERS; i++) {
        receiver *r = &w->receivers[i];
        if (r->port == url->port && strcmp(r->host, url->host) == 0)
            return r;
        if (r->last < oldest->last)
            oldest = r;
    }
    *oldest = (receiver){.port = url->port};
    memcpy(oldest->host, url->host, sizeof oldest->host);
    return oldest;
}

static void count_outcome(receiver *r, bool delivered, double now)
{
    r->last = now;
    r->failures = delivered ? 0 : r->failures + 1;
    r->until = 0;
    if (r->failures >= WEBHOOK_FAILURES_MAX) {
        r->until = now + WEBHOOK_PAUSE_SECONDS;
        log_say(LOG_WARNING, "webhooks", "%s:%u has failed %u times in a row and is left alone for an hour", r->host, r->port, r->failures);
    }
}

/* ---- Marking */

static void on_marked(store_request *done)
{
    slot *s = done->payload;
    if (done->result == STORE_BUSY || done->result == STORE_SPACE) {
        s->mark = done;
        atomic_store(&s->state, SLOT_REFUSED);
        return;
    }
    atomic_store(&s->state, SLOT_FREE);
    store_request_free(done);
}

static void submit_mark(webhooks *w, slot *s)
{
    store_request *request = s->mark;
    s->mark = NULL;
    atomic_store(&s->state, SLOT_MARKING);
    store_submit(w->options.store, request);
}

static void mark_refused(webhooks *w)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (atomic_load(&w->slots[i].state) == SLOT_REFUSED)
            submit_mark(w, &w->slots[i]);
}

/* Between 0.5 and 1.5. */
static double jitter(void)
{
    uint32_t drawn = 0;
    if (getrandom(&drawn, sizeof drawn, 0) != (ssize_t)sizeof drawn)
        return 1;
    return 0.5 + drawn / 4294967296.0;
}

static int64_t next_try(const webhooks *w, uint32_t tries)
{
    double pause = w->options.first_pause_seconds;
    for (uint32_t i = 1; i < tries; i++)
        pause *= WEBHOOK_BACKOFF_FACTOR;
    return dn_wall_ms() + (int64_t)(1000 * pause * jitter());
}

/* Tells the store how the try went; the slot is free when that is committed. */
static void mark(webhooks *w, slot *s, webhook_outcome outcome, const char *why, int64_t at_ms)
{
    fault_point("webhook_sent_before_mark");
    store_request *request = s->mark;
    webhook_try_done(&s->try);
    request->delivery_row = s->row;
    request->delivered = outcome == WEBHOOK_DELIVERED;
    request->next_try_ms = at_ms;
    snprintf(request->error_detail, sizeof request->error_detail, "%s", why);
    submit_mark(w, s);
}

static void finish_try(webhooks *w, slot *s, CURLcode code)
{
    char why[256] = "";
    const webhook_outcome outcome = webhook_try_outcome(&s->try, code, why);
    const bool delivered = outcome == WEBHOOK_DELIVERED;
    const bool last = outcome == WEBHOOK_HOPELESS || s->attempt + 1 >= WEBHOOK_TRIES_MAX;
    curl_multi_remove_handle(w->multi, s->try.easy);
    count_outcome(receiver_of(w, &s->try.url), delivered, dn_now_seconds());
    metrics_add(w->options.metrics, delivered ? METRIC_WEBHOOKS_DELIVERED : METRIC_WEBHOOKS_FAILED, 1);
    if (!delivered && last) {
        metrics_add(w->options.metrics, METRIC_WEBHOOKS_GIVEN_UP, 1);
        log_say(LOG_ERROR, "webhooks", "the end of job %s could not be told to %s:%u: %s", s->id, s->try.url.host, s->try.url.port, why);
    }
    mark(w, s, outcome, why, delivered || last ? 0 : next_try(w, s->attempt + 1));
}

static void finish_tries(webhooks *w)
{
    int left = 0;
    for (CURLMsg *m; (m = curl_multi_info_read(w->multi, &left));) {
        slot *s = NULL;
        if (m->msg == CURLMSG_DONE && curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&s) == CURLE_OK && s)
            finish_try(w, s, m->data.result);
    }
}

/* ---- Sending */

/* A slot for a row, of those that were free before the rows were read; one that has become free since may have marked this very row
 * after it was read. NULL: none, or the row is under way. */
static slot *take_slot(webhooks *w, bool free_before[SLOTS], int64_t row)
{
    size_t found = SLOTS;
    for (size_t i = 0; i < SLOTS; i++) {
        if (free_before[i])
            found = i;
        else if (w->slots[i].row == row)
            return NULL;
    }
    if (found == SLOTS)
        return NULL;
    free_before[found] = false;
    return &w->slots[found];
}

static char *body_of(const store_delivery *d)
{
    api_text text = API_TEXT_INIT;
    char when[32];
    api_time_text(when, d->finished_ms);
    api_text_format(&text, "{\"type\":\"job.%s\",\"timestamp\":\"%s\",\"data\":", d->event, when);
    api_text_add(&text, d->data);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

/* Each try is a span of its own. Without random bytes the receiver sees no trace. */
static void go_on_with_trace(webhook_try *t, const char *trace)
{
    unsigned char span[8];
    if (trace[0] && getrandom(span, sizeof span, 0) == (ssize_t)sizeof span)
        api_traceparent_write(t->message.traceparent, trace, span);
}

static void send_one(webhooks *w, slot *s, const store_delivery *d)
{
    const char *rule = NULL;
    s->row = d->row;
    s->attempt = d->attempt;
    memcpy(s->id, d->id, sizeof s->id);
    s->mark = store_request_create(STORE_DELIVERY, on_marked, s);
    if (!s->mark)
        return; /* the row stays due */
    webhook_try *t = &s->try;
    *t = (webhook_try){.message = {.seconds = dn_wall_ms() / 1000, .body = body_of(d)}};
    snprintf(t->message.id, sizeof t->message.id, "job_%s", d->id);
    go_on_with_trace(t, d->trace);
    if (!webhook_url_check(&t->url, d->url, w->options.allowed, &rule)) { /* it was accepted under another policy */
        mark(w, s, WEBHOOK_HOPELESS, rule, 0);
        return;
    }
    const receiver *r = receiver_of(w, &t->url);
    if (r->until > dn_now_seconds()) { /* it counts as a try, so that nothing waits for ever */
        const bool last = s->attempt + 1 >= WEBHOOK_TRIES_MAX;
        mark(w, s, WEBHOOK_FAILED, "left alone: this receiver has failed too often", last ? 0 : next_try(w, s->attempt + 1));
        return;
    }
    if (!t->message.body || !webhook_try_begin(t, d->url, &w->secret, w->options.ca_file) ||
        curl_easy_setopt(t->easy, CURLOPT_PRIVATE, s) != CURLE_OK || curl_multi_add_handle(w->multi, t->easy) != CURLM_OK) {
        webhook_try_done(t); /* out of memory; the row stays due */
        store_request_free(s->mark);
        s->mark = NULL;
        return;
    }
    atomic_store(&s->state, SLOT_SENDING);
}

static void send_due(webhooks *w)
{
    store_delivery *due = NULL;
    size_t count = 0;
    bool free_before[SLOTS];
    for (size_t i = 0; i < SLOTS; i++)
        free_before[i] = atomic_load(&w->slots[i].state) == SLOT_FREE;
    if (store_stopped(w->options.store) || store_deliveries(w->options.store, 2 * SLOTS, &due, &count) != STORE_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        slot *s = take_slot(w, free_before, due[i].row);
        if (s)
            send_one(w, s, &due[i]);
    }
    store_deliveries_free(due, count);
}

static void *webhooks_main(void *payload)
{
    webhooks *w = payload;
    double looked = 0;
    while (!atomic_load(&w->stop)) {
        int running = 0;
        const double now = dn_now_seconds();
        if (now - looked >= LOOK_MS / 1000.0) {
            looked = now;
            mark_refused(w);
            send_due(w);
        }
        curl_multi_perform(w->multi, &running);
        finish_tries(w);
        curl_multi_poll(w->multi, NULL, 0, LOOK_MS, NULL);
    }
    return NULL;
}

/* ---- Start and stop */

static void webhooks_free(webhooks *w)
{
    for (size_t i = 0; i < SLOTS; i++) {
        if (w->slots[i].try.easy) {
            curl_multi_remove_handle(w->multi, w->slots[i].try.easy);
            webhook_try_done(&w->slots[i].try);
        }
        store_request_free(w->slots[i].mark);
    }
    curl_multi_cleanup(w->multi);
    explicit_bzero(&w->secret, sizeof w->secret);
    free(w);
    curl_global_cleanup();
}

dn_status webhooks_start(webhooks **out, const webhooks_options *options, dn_error *error)
{
    webhook_secret secret;
    dn_status status = webhook_secret_read(&secret, options->secret_file, error);
    if (status != DN_OK)
        return status;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return dn_fail(error, DN_IO, "libcurl does not start");
    webhooks *w = calloc(1, sizeof *w);
    if (!w) {
        curl_global_cleanup();
        return dn_fail(error, DN_NO_MEMORY, "out of memory for webhooks");
    }
    w->options = *options;
    w->secret = secret;
    w->multi = curl_multi_init();
    const int failed = w->multi ? pthread_create(&w->thread, NULL, webhooks_main, w) : 1;
    if (failed) {
        webhooks_free(w);
        return dn_fail(error, DN_IO, "the thread for webhooks could not be started");
    }
    *out = w;
    return DN_OK;
}

void webhooks_stop(webhooks *w)
{
    if (!w)
        return;
    atomic_store(&w->stop, true);
    curl_multi_wakeup(w->multi);
    pthread_join(w->thread, NULL);
    for (size_t i = 0; i < SLOTS; i++)
        while (atomic_load(&w->slots[i].state) == SLOT_MARKING)
            curl_multi_poll(w->multi, NULL, 0, 5, NULL);
    webhooks_free(w);
}
