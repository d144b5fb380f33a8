/* Posting as the route does it: ids drawn for each try, a key that makes tries one, an answer that may never come; and what the answer
 * promises. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/clients_internal.h"

static unsigned next_id, next_post;

void posts_reset(void)
{
    next_id = next_post = 0;
}

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

/* entries: in the ledger, their ids drawn. */
static posted post(const client *c, store_request *r, ledger_job *entries, bool other)
{
    const size_t count = r->job_count;
    snprintf(r->client, sizeof r->client, "%s", c->name);
    snprintf(r->key, sizeof r->key, "%s", entries->key);
    fingerprint(r->fingerprint, entries, count, other);
    const unsigned life = client_enter();
    if (daemon_.draining) {
        client_leave(life);
        for (size_t i = 0; i < count; i++)
            entries[i].known = KNOWN_NOT;
        return REFUSED;
    }
    for (size_t i = 0; i < count; i++)
        entries[i].life = life;
    sim_say("%s posts %zu job(s) from %s, key \"%s\"", c->name, count, entries->id, entries->key);
    const store_result result = client_call(r);
    after_enqueue(r);
    const bool heard = client_leave(life) && !sim_chance(plan.calm ? 0 : 30); /* or the answer is lost on its way */
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

posted client_post_again(client *c, ledger_job *first, bool other)
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

/* Where nothing is in its way, a job begins at once: nobody needs a timer to learn of it. The jobs of an array may be in one another's. */
static void check_prompt(ledger_job *job, bool idle, double seconds)
{
    if (idle && !sim_wait(has_begun, job, sim_now() + seconds))
        sim_wrong("job %s waits, with nothing before it", job->id);
}

/* A client's first job waits for one of another's at most, in its own priority. */
static void check_fair(const ledger_job *job)
{
    const int64_t before = oracle_goes_before(job->id);
    if (before > 1)
        sim_wrong("job %s is its client's first, and %lld of another's go before it", job->id, (long long)before);
}

static bool nothing_to_do(void)
{
    oracle_counts now;
    return plan.calm && plan.clients == 1 && daemon_.up && !daemon_.draining && dispatcher_worker_ready(daemon_.dispatcher, NULL, 0) &&
           oracle_count(&now) && now.pending == 0;
}

/* A new post; with a key it is repeated until its outcome is known. */
void client_post_new(client *c)
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
    if (outcome == POSTED) {
        check_prompt(entries, idle, count == 1 ? 0.2 : 0.9);
        check_fair(entries);
    }
    for (int tries = 0; outcome == UNKNOWN && key[0] && tries < 20; tries++) {
        sim_sleep(0.01 * (1 + sim_below(50)));
        sim_count_one(COUNT_RETRIED_POSTS);
        outcome = client_post_again(c, entries, false);
    }
    if (c->last_count < 4 && key[0] && outcome == POSTED)
        c->last[c->last_count++] = entries;
}
