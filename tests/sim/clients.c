/* Clients: each a thread that posts, repeats, cancels, purges and looks, does to the store and the dispatcher what the HTTP routes do, and
 * remembers what it was told. A call that the daemon did not live to answer has an unknown outcome. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/world.h"
#include "tests/sim/wrapped.h"

ledger_job ledger[SIM_JOBS_MAX];
size_t ledger_count;

typedef struct client {
    char name[16];
    unsigned number, keys;
    ledger_job *last[4]; /* posts that may be repeated: the first job of each */
    size_t last_count;
    unsigned posts;
} client;

static client clients[4];
static unsigned running, next_id, next_post;
static bool hurry;

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
    next_id = next_post = running = 0;
    hurry = false;
}

bool clients_over(void)
{
    return running == 0;
}

void clients_hurry(void)
{
    hurry = true;
}

/* ---- Being inside the daemon */

static bool is_up(void *payload)
{
    (void)payload;
    return daemon_.up && !daemon_.stopping;
}

/* Waits for a daemon and enters it; its life. */
static unsigned enter(void)
{
    while (!sim_wait(is_up, NULL, 1e300)) {
    }
    sim_set_inside(true);
    return daemon_.life;
}

/* True: the daemon lived to answer. */
static bool leave(unsigned life)
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

static store_result call(store_request *request)
{
    bool done = false;
    request->done = on_done;
    request->payload = &done;
    store_submit(daemon_.store, request);
    sim_wait(is_set, &done, 1e300);
    return request->result;
}

/* ---- Posting */

static void make_id(char out[27])
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    memset(out, 'a', 26);
    out[26] = 0;
    unsigned value = ++next_id;
    for (int i = 25; value; i--, value /= 32)
        out[i] = digits[value % 32];
}

static uint64_t draw_seed(uint32_t n)
{
    const uint64_t seed = sim_random() & ~0xffull;
    if (plan.calm)
        return seed;
    if (sim_chance(60))
        return seed | (0x66 - sim_below(n));
    return sim_chance(60) ? seed | (0xee - sim_below(n)) : seed;
}

static void fill_job(store_enqueue_job *out, ledger_job *entry, const client *c, const char *key)
{
    api_request request = {.guidance_scale = 1.0 + sim_below(2), .steps = 1 + sim_below(6), .has_seed = true, .n = 1 + sim_below(3)};
    entry->model = sim_below(plan.models);
    request.seed = entry->seed = draw_seed(request.n);
    request.priority = entry->priority = sim_chance(300) ? (int)sim_below(5) - 2 : 0;
    request.deadline_ms = entry->deadline_ms = !plan.calm && sim_chance(100) ? 50 + sim_below(4000) : 0;
    snprintf(request.model, sizeof request.model, "model-%u", entry->model);
    snprintf(request.sampler, sizeof request.sampler, "ddim");
    entry->n = request.n;
    for (uint32_t i = 0; i < request.n; i++)
        entry->poison |= sim_is_poison(request.seed + i);
    entry->request = api_request_json(&request);
    snprintf(entry->client, sizeof entry->client, "%s", c->name);
    snprintf(entry->key, sizeof entry->key, "%s", key);
    entry->post = next_post;
    entry->known = KNOWN_TRIED;
    make_id(entry->id);
    *out = (store_enqueue_job){.priority = request.priority,
                               .deadline_ms = request.deadline_ms,
                               .n = request.n,
                               .cost = api_request_cost(&request),
                               .request_json = strdup(entry->request)};
    memcpy(out->id, entry->id, sizeof out->id);
    snprintf(out->model, sizeof out->model, "%s", request.model);
    if (request.deadline_ms)
        sim_count_one(COUNT_DEADLINES);
}

/* The same post once more, under new ids, as the route draws them anew each time. */
static void repeat_job(store_enqueue_job *out, ledger_job *entry, const ledger_job *first)
{
    *entry = *first;
    entry->request = strdup(first->request);
    entry->known = KNOWN_TRIED;
    entry->canceled = entry->cancel_told = entry->purged = entry->seen_ended = false;
    entry->post = next_post;
    make_id(entry->id);
    api_request request;
    api_request_from_json(&request, entry->request, strlen(entry->request));
    *out = (store_enqueue_job){.priority = entry->priority,
                               .deadline_ms = entry->deadline_ms,
                               .n = entry->n,
                               .cost = api_request_cost(&request),
                               .request_json = strdup(entry->request)};
    memcpy(out->id, entry->id, sizeof out->id);
    snprintf(out->model, sizeof out->model, "model-%u", entry->model);
}

static void fingerprint(unsigned char out[32], const ledger_job *jobs, size_t count, bool other)
{
    memset(out, other, 32);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; jobs[i].request[k]; k++)
            out[(i + k) % 32] = (unsigned char)(out[(i + k) % 32] * 31 + jobs[i].request[k]);
}

/* What the route does once the outcome is known. */
static void after_enqueue(const store_request *r)
{
    if (r->result != STORE_OK)
        return;
    metrics_add(daemon_.metrics, METRIC_JOBS_ACCEPTED, r->id_count);
    for (size_t i = 0; i < r->job_count; i++)
        if (r->jobs[i].deadline_ms)
            dispatcher_deadline(daemon_.dispatcher, sim_wall_ms() + r->jobs[i].deadline_ms);
    dispatcher_kick(daemon_.dispatcher);
}

static void accept_ids(const store_request *r, const ledger_job *entries, size_t count)
{
    for (size_t i = 0; i < r->id_count; i++) {
        ledger_job *job = ledger_find(r->ids[i]);
        if (!job)
            sim_wrong("a post is answered with job %s, which nobody has posted", r->ids[i]);
        else if (r->result == STORE_OK && strcmp(job->id, entries[i].id) != 0)
            sim_wrong("a post is answered with another's job %s", r->ids[i]);
        else
            job->known = KNOWN_ACCEPTED;
    }
    if (r->id_count != count && r->id_count)
        sim_wrong("a post of %zu jobs is answered with %zu", count, r->id_count);
}

static void count_result(const store_request *r)
{
    static const int counts[] = {
        [STORE_REPLAY] = COUNT_REPLAYS, [STORE_MISMATCH] = COUNT_MISMATCHES, [STORE_QUEUE_FULL] = COUNT_QUEUE_FULL,
        [STORE_QUOTA] = COUNT_QUOTA,    [STORE_SPACE] = COUNT_SPACE_LOW,     [STORE_UNKNOWN] = COUNT_UNKNOWN_POSTS};
    if ((size_t)r->result < sizeof counts / sizeof counts[0] && counts[r->result])
        sim_count_one((sim_count)counts[r->result]);
}

typedef enum posted { POSTED, REFUSED, UNKNOWN } posted;

/* entries: in the ledger, their ids drawn. */
static posted post(const client *c, store_request *r, ledger_job *entries, bool other)
{
    const size_t count = r->job_count;
    snprintf(r->client, sizeof r->client, "%s", c->name);
    snprintf(r->key, sizeof r->key, "%s", entries->key);
    fingerprint(r->fingerprint, entries, count, other);
    const unsigned life = enter();
    if (daemon_.draining) {
        leave(life);
        for (size_t i = 0; i < count; i++)
            entries[i].known = KNOWN_NOT;
        return REFUSED;
    }
    for (size_t i = 0; i < count; i++)
        entries[i].life = life;
    sim_say("%s posts %zu job(s) from %s, key \"%s\"", c->name, count, entries->id, entries->key);
    const store_result result = call(r);
    after_enqueue(r);
    const bool heard = leave(life) && !sim_chance(plan.calm ? 0 : 30); /* or the answer is lost on its way */
    sim_trace((uint64_t)result << 8 | (heard ? 1 : 0));
    if (heard)
        count_result(r);
    if (!heard || result == STORE_UNKNOWN)
        return UNKNOWN;
    if (result == STORE_OK || result == STORE_REPLAY) {
        accept_ids(r, entries, count);
        if (result == STORE_REPLAY)
            for (size_t i = 0; i < count; i++)
                entries[i].known = entries[i].known == KNOWN_ACCEPTED ? KNOWN_ACCEPTED : KNOWN_NOT;
        return POSTED;
    }
    for (size_t i = 0; i < count; i++)
        entries[i].known = KNOWN_NOT;
    return REFUSED;
}

static posted post_again(client *c, ledger_job *first, bool other)
{
    size_t count = 0;
    while (first + count < ledger + ledger_count && first[count].post == first->post)
        count++;
    if (ledger_count + count > SIM_JOBS_MAX)
        return REFUSED;
    store_request *r = store_request_create(STORE_ENQUEUE, NULL, NULL);
    r->jobs = calloc(count, sizeof *r->jobs);
    r->job_count = count;
    next_post++;
    ledger_job *entries = &ledger[ledger_count];
    for (size_t i = 0; i < count; i++)
        repeat_job(&r->jobs[i], &entries[i], &first[i]);
    ledger_count += count;
    const posted outcome = post(c, r, entries, other);
    store_request_free(r);
    return outcome;
}

static bool has_begun(void *payload)
{
    const ledger_job *job = payload;
    bool readable = false;
    return oracle_running(job->id) || !oracle_has_event(job->id, 1, &readable) || oracle_has_event(job->id, 2, &readable);
}

/* Where nothing is in its way, a job begins at once: nobody needs a timer to learn of it. */
static void check_prompt(ledger_job *job, bool idle)
{
    if (idle && !sim_wait(has_begun, job, sim_now() + 0.2))
        sim_wrong("job %s waits, with nothing before it", job->id);
}

static bool nothing_to_do(void)
{
    oracle_counts now;
    return plan.calm && plan.clients == 1 && daemon_.up && !daemon_.draining && dispatcher_worker_ready(daemon_.dispatcher, NULL, 0) &&
           oracle_count(&now) && now.pending == 0;
}

/* A new post; with a key it is repeated until its outcome is known. */
static void post_new(client *c)
{
    const size_t count = sim_chance(150) ? 2 + sim_below(3) : 1;
    if (ledger_count + count > SIM_JOBS_MAX / 2)
        return;
    store_request *r = store_request_create(STORE_ENQUEUE, NULL, NULL);
    char key[16] = "";
    r->jobs = calloc(count, sizeof *r->jobs);
    r->job_count = count;
    if (sim_chance(600))
        snprintf(key, sizeof key, "k%u", ++c->keys);
    sim_count_one(COUNT_POSTS);
    if (count > 1)
        sim_count_one(COUNT_ARRAYS);
    if (key[0])
        sim_count_one(COUNT_KEYED);
    next_post++;
    ledger_job *entries = &ledger[ledger_count];
    for (size_t i = 0; i < count; i++)
        fill_job(&r->jobs[i], &entries[i], c, key);
    ledger_count += count;
    const bool idle = nothing_to_do();
    posted outcome = post(c, r, entries, false);
    store_request_free(r);
    if (outcome == POSTED)
        check_prompt(entries, idle);
    for (int tries = 0; outcome == UNKNOWN && key[0] && tries < 20; tries++) {
        sim_sleep(0.01 * (1 + sim_below(50)));
        sim_count_one(COUNT_RETRIED_POSTS);
        outcome = post_again(c, entries, false);
    }
    if (c->last_count < 4 && key[0] && outcome == POSTED)
        c->last[c->last_count++] = entries;
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
    const unsigned life = enter();
    store_result result = call(r);
    after_cancel(r);
    if (p && (result == STORE_OK || result == STORE_ENDED)) {
        call(p);
        after_purge(p);
    }
    if (leave(life) && result == STORE_OK)
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
    const unsigned life = enter();
    const store_result result = store_get(daemon_.store, c->name, job->id, &found);
    const bool heard = leave(life);
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
    const unsigned life = enter();
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
    leave(life);
}

static void operate(client *c)
{
    const uint32_t kind = sim_below(100);
    ledger_job *job = NULL;
    if (kind < 55)
        post_new(c);
    else if (kind < 65)
        cancel(c, false);
    else if (kind < 71)
        cancel(c, true);
    else if (kind < 80)
        stream(c);
    else if (kind < 88 && c->last_count)
        post_again(c, c->last[sim_below((uint32_t)c->last_count)], kind == 87);
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
    for (unsigned i = 0; i < plan.operations && !hurry; i++) {
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
