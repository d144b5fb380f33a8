/* Clients: each a thread that posts, repeats, cancels, purges and looks, does to the store and the dispatcher what the HTTP routes do, and
 * remembers what it was told. A call that the daemon did not live to answer has an unknown outcome. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/clients_internal.h"
#include "tests/sim/wrapped.h"

ledger_job ledger[SIM_JOBS_MAX];
size_t ledger_count;

static client clients[4];
static unsigned running;

ledger_job *ledger_find(const char *id)
{
    for (size_t i = 0; i < ledger_count; i++)
        if (strcmp(ledger[i].id, id) == 0)
            return &ledger[i];
    return NULL;
}

void ledger_reset(void)
{
    for (size_t i = 0; i < ledger_count; i++)
        free(ledger[i].request);
    memset(ledger, 0, sizeof ledger);
    ledger_count = 0;
    running = 0;
    posts_reset();
}

bool clients_over(void)
{
    return running == 0;
}

/* ---- Being inside the daemon */

static bool is_up(void *payload)
{
    (void)payload;
    return daemon_.up && !daemon_.stopping;
}

/* Waits for a daemon and enters it; its life. */
unsigned client_enter(void)
{
    while (!sim_wait(is_up, NULL, 1e300)) {
    }
    sim_set_inside(true);
    return daemon_.life;
}

/* True: the daemon lived to answer. */
bool client_leave(unsigned life)
{
    sim_set_inside(false);
    return daemon_.life == life && !daemon_.stopping;
}

static void on_done(store_request *done)
{
    *(bool *)done->payload = true;
}

static bool is_set(void *flag)
{
    return *(bool *)flag;
}

store_result client_call(store_request *request)
{
    bool done = false;
    request->done = on_done;
    request->payload = &done;
    store_submit(daemon_.store, request);
    sim_wait(is_set, &done, 1e300);
    return request->result;
}

/* ---- Everything else */

static ledger_job *any_job(const client *c)
{
    for (int tries = 0; ledger_count && tries < 8; tries++) {
        ledger_job *job = &ledger[sim_below((uint32_t)ledger_count)];
        if (job->known == KNOWN_ACCEPTED && strcmp(job->client, c->name) == 0)
            return job;
    }
    return NULL;
}

static store_request *about(const client *c, const ledger_job *job, store_op op)
{
    store_request *r = store_request_create(op, NULL, NULL);
    snprintf(r->client, sizeof r->client, "%s", c->name);
    memcpy(r->id, job->id, sizeof r->id);
    return r;
}

static void after_cancel(const store_request *r)
{
    if (r->result == STORE_OK && r->state_after == API_STATE_RUNNING) {
        dispatcher_cancel(daemon_.dispatcher, r->id);
    } else if (r->result == STORE_OK) {
        hub_milestone(daemon_.hub, r->id, r->event_seq, true);
        hub_forget(daemon_.hub, r->id);
        hub_queue_moved(daemon_.hub);
        metrics_add(daemon_.metrics, METRIC_JOBS_CANCELED, 1);
    }
}

static void after_purge(const store_request *r)
{
    for (size_t i = 0; r->result == STORE_OK && r->job_ended && i < r->file_count; i++) {
        char *path = store_path(daemon_.store, "", r->files[i]);
        unlink(path);
        free(path);
    }
}

static void cancel(client *c, bool purge)
{
    ledger_job *job = any_job(c);
    if (!job)
        return;
    store_request *r = about(c, job, STORE_CANCEL), *p = purge ? about(c, job, STORE_PURGE) : NULL;
    sim_count_one(purge ? COUNT_PURGES : COUNT_CANCELS);
    job->canceled = true;
    job->purged |= purge;
    sim_say("%s cancels%s %s", c->name, purge ? " and purges" : "", job->id);
    const unsigned life = client_enter();
    store_result result = client_call(r);
    after_cancel(r);
    if (p && (result == STORE_OK || result == STORE_ENDED)) {
        client_call(p);
        after_purge(p);
    }
    if (client_leave(life) && result == STORE_OK)
        job->cancel_told = true;
    if (result == STORE_GONE)
        sim_count_one(COUNT_GONE);
    if (result == STORE_NONE && !audit_may_be_gone(job->id))
        sim_wrong("job %s of %s was accepted, and is not there", job->id, c->name);
    store_request_free(r);
    store_request_free(p);
}

/* A look at one job: it is there, and an end that was seen stays. */
static void look(const client *c, ledger_job *job)
{
    store_job found = {0};
    const unsigned life = client_enter();
    const store_result result = store_get(daemon_.store, c->name, job->id, &found);
    const bool heard = client_leave(life);
    if (heard && result == STORE_NONE && audit_may_be_gone(job->id))
        job->seen_ended = true;
    else if (heard && result == STORE_NONE)
        sim_wrong("job %s was accepted, and is not there", job->id);
    if (heard && result == STORE_OK) {
        if (job->seen_ended && job->seen_state != (unsigned)found.state)
            sim_wrong("job %s had ended as %u, and is now %u", job->id, job->seen_state, (unsigned)found.state);
        job->seen_ended = api_state_ended(found.state);
        job->seen_state = (unsigned)found.state;
    }
    store_job_done(&found);
}

static void wake(void *payload)
{
    *(bool *)payload = true;
}

/* An event stream for a while: every event once, in order, none missing. */
static void stream(client *c)
{
    const ledger_job *job = any_job(c);
    int64_t seen = 0;
    bool woken = true;
    if (!job)
        return;
    sim_count_one(COUNT_STREAMS);
    const unsigned life = client_enter();
    hub_subscription *subscription = hub_subscribe(daemon_.hub, job->id, sim_below(2), wake, &woken);
    for (unsigned turn = 0; turn < 20 && !daemon_.stopping && daemon_.up; turn++) {
        store_event *events = NULL;
        size_t count = 0;
        woken = false;
        const store_result result = store_events(daemon_.store, job->id, seen, &events, &count);
        for (size_t i = 0; result == STORE_OK && i < count; i++)
            if (events[i].seq != ++seen)
                sim_wrong("event %lld of job %s comes where %lld should", (long long)events[i].seq, job->id, (long long)seen);
        store_events_free(events, count);
        sim_wait(is_set, &woken, sim_now() + 0.2);
    }
    hub_unsubscribe(daemon_.hub, subscription);
    client_leave(life);
}

static void operate(client *c)
{
    const uint32_t kind = sim_below(100);
    ledger_job *job = NULL;
    if (kind < 55)
        client_post_new(c);
    else if (kind < 65)
        cancel(c, false);
    else if (kind < 71)
        cancel(c, true);
    else if (kind < 80)
        stream(c);
    else if (kind < 88 && c->last_count)
        client_post_again(c, c->last[sim_below((uint32_t)c->last_count)], kind == 87);
    else if ((job = any_job(c)))
        look(c, job);
}

static bool all_ended(const client *c)
{
    for (size_t i = 0; i < ledger_count; i++) {
        ledger_job *job = &ledger[i];
        if (job->known == KNOWN_ACCEPTED && !job->seen_ended && !job->purged && strcmp(job->client, c->name) == 0)
            look(c, job);
        if (job->known == KNOWN_ACCEPTED && !job->seen_ended && !job->purged && strcmp(job->client, c->name) == 0)
            return false;
    }
    return true;
}

static void *behave(void *payload)
{
    client *c = payload;
    for (unsigned i = 0; i < plan.operations; i++) {
        operate(c);
        sim_sleep(1e-3 * sim_below(sim_chance(200) ? 1500 : 100));
    }
    while (!all_ended(c))
        sim_sleep(0.2);
    running--;
    return NULL;
}

void clients_start(void)
{
    memset(clients, 0, sizeof clients);
    running = plan.clients;
    for (unsigned i = 0; i < plan.clients; i++) {
        clients[i].number = i;
        snprintf(clients[i].name, sizeof clients[i].name, "client-%u", i);
        sim_thread_start(clients[i].name, ROLE_CLIENT, behave, &clients[i]);
    }
}
