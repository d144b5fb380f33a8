/* The model of the queue. See model.h; the rules are those of store.h, written down a second time. */
#include "tests/store/model.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "server/urgency.h"

#define LEVEL(priority) ((priority) + API_PRIORITY_MAX)

int model_find(const model *m, const char *id)
{
    for (size_t i = m->job_count; i-- > 0;) {
        if (m->jobs[i].there && strcmp(m->jobs[i].id, id) == 0) {
            return (int)i;
        }
    }
    return -1;
}

char model_event_letter(const char *name)
{
    static const char *const names[] = {"queued", "started", "image", "requeued", "succeeded", "failed", "canceled"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            return "qsirUFC"[i];
        }
    }
    return '?';
}

uint64_t model_hash(const char *text)
{
    uint64_t hash = 14695981039346656037ull;
    for (; *text; text++) {
        hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    }
    return hash;
}

static int64_t tell(model_job *j, char letter)
{
    const size_t count = strlen(j->events);
    assert(count + 1 < sizeof j->events);
    j->events[count] = letter;
    return (int64_t)count + 1;
}

static bool ready(const model_job *j)
{
    return j->there && j->state == API_STATE_QUEUED && !j->run_at_ms;
}

static bool ended(const model_job *j)
{
    return api_state_ended(j->state);
}

static bool before(const model *m, int a, int b)
{
    return m->jobs[a].turn < m->jobs[b].turn || (m->jobs[a].turn == m->jobs[b].turn && a < b);
}

static int64_t finish(const model *m, model_job *j, api_state state, const char *code, int64_t now)
{
    j->state = state;
    j->finished_ms = now;
    j->expires_ms = m->keep_ms ? now + m->keep_ms : 0;
    j->run_at_ms = 0;
    snprintf(j->error_code, sizeof j->error_code, "%s", code);
    return tell(j, state == API_STATE_SUCCEEDED ? 'U' : state == API_STATE_FAILED ? 'F' : 'C');
}

static int64_t give_up(const model *m, model_job *j, const char *code, int64_t now)
{
    return j->cancel_requested ? finish(m, j, API_STATE_CANCELED, "", now) : finish(m, j, API_STATE_FAILED, code, now);
}

/* ---- Enqueue */
static void add_job(model *m, const store_request *r, const store_enqueue_job *wanted, int client, int key, int64_t now)
{
    const int level = LEVEL(wanted->priority);
    int64_t *last = &m->client_turn[client][level];
    int64_t turn = m->level_turn[level] > *last ? m->level_turn[level] : *last, overtaken = INT64_MAX;
    const int64_t deadline = wanted->deadline_ms ? now + wanted->deadline_ms : 0;
    (void)r;
    *last = turn + (int64_t)wanted->cost;
    for (size_t i = 0; deadline && i < m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        const bool behind = j->there && j->client == client && j->state == API_STATE_QUEUED && j->priority == wanted->priority &&
                            (!j->deadline_ms || j->deadline_ms > deadline);
        overtaken = behind && j->turn < overtaken ? j->turn : overtaken;
    }
    for (size_t i = 0; overtaken < INT64_MAX && i < m->job_count; i++) {
        model_job *j = &m->jobs[i];
        if (j->there && j->client == client && j->state == API_STATE_QUEUED && j->priority == wanted->priority && j->turn >= overtaken) {
            j->turn += (int64_t)wanted->cost;
        }
    }
    assert(m->job_count < MODEL_JOBS_MAX && wanted->n <= MODEL_IMAGES_MAX);
    model_job *j = &m->jobs[m->job_count++];
    *j = (model_job){.client = client, .key = key, .priority = wanted->priority, .cost = (int64_t)wanted->cost, .n = wanted->n};
    j->turn = overtaken < INT64_MAX ? overtaken : turn;
    j->there = true;
    j->created_ms = now;
    j->deadline_ms = deadline;
    memcpy(j->id, wanted->id, sizeof j->id);
    snprintf(j->model, sizeof j->model, "%.7s", wanted->model);
    tell(j, 'q');
}

static store_result refused(const model *m, const store_request *r, int client)
{
    uint64_t mine = r->job_count, jobs = r->job_count, cost = 0;
    for (size_t i = 0; i < r->job_count; i++) {
        cost += r->jobs[i].cost;
    }
    for (size_t i = 0; i < m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        const bool queued = j->there && j->state == API_STATE_QUEUED;
        mine += j->there && j->client == client && !ended(j);
        jobs += queued;
        cost += queued ? (uint64_t)j->cost : 0;
    }
    if (m->client_jobs_max && mine > m->client_jobs_max) {
        return STORE_QUOTA;
    }
    const bool full = (m->queue_jobs_max && jobs > m->queue_jobs_max) || (m->queue_cost_max && cost > m->queue_cost_max);
    return full ? STORE_QUEUE_FULL : STORE_OK;
}

static int client_number(const model *m, const char *name)
{
    int client = 0;
    while (strcmp(m->clients[client], name) != 0) {
        client++;
        assert(client < MODEL_CLIENTS_MAX);
    }
    return client;
}

static void enqueue(model *m, const store_request *r, int64_t now, model_answer *out)
{
    const int client = client_number(m, r->client);
    int key = -1;
    for (size_t i = 0; r->key[0] && i < m->key_count; i++) {
        const model_key *k = &m->keys[i];
        if (k->there && k->client == client && strcmp(k->name, r->key) == 0) {
            out->result = k->print == r->fingerprint[0] ? STORE_REPLAY : STORE_MISMATCH;
            out->first = k->first;
            out->id_count = out->result == STORE_REPLAY ? k->count : 0;
            return;
        }
    }
    out->result = refused(m, r, client);
    if (out->result != STORE_OK) {
        return;
    }
    for (size_t i = 0; i < r->job_count; i++) {
        if (model_find(m, r->jobs[i].id) >= 0) {
            out->result = STORE_BUSY; /* an id twice: nothing happens, and another try has another id */
            return;
        }
    }
    out->first = (int)m->job_count;
    out->id_count = (int)r->job_count;
    if (r->key[0]) {
        assert(m->key_count < MODEL_KEYS_MAX);
        key = (int)m->key_count++;
        m->keys[key] = (model_key){.there = true, .client = client, .first = out->first, .count = out->id_count};
        snprintf(m->keys[key].name, sizeof m->keys[key].name, "%.7s", r->key);
        m->keys[key].print = r->fingerprint[0];
    }
    for (size_t i = 0; i < r->job_count; i++) {
        add_job(m, r, &r->jobs[i], client, key, now);
    }
    out->event_seq = 1;
}

/* ---- Time */
static uint32_t stage(model *m, int64_t now)
{
    uint32_t staged = 0;
    for (size_t i = 0; i < m->job_count; i++) {
        model_job *j = &m->jobs[i];
        if (j->there && j->run_at_ms && (j->run_at_ms <= now || j->run_at_ms > now + 4000)) {
            j->run_at_ms = 0;
            staged++;
        }
    }
    return staged;
}

static int64_t next_due(const model *m)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        if (j->there && j->state == API_STATE_QUEUED) {
            due = j->deadline_ms && j->deadline_ms < due ? j->deadline_ms : due;
            due = j->run_at_ms && j->run_at_ms < due ? j->run_at_ms : due;
        }
    }
    return due < INT64_MAX ? due : 0;
}

static void deadlines(model *m, int64_t now, model_answer *out)
{
    for (;;) {
        model_job *late = NULL;
        for (size_t i = 0; i < m->job_count; i++) {
            model_job *j = &m->jobs[i];
            const bool past = j->there && j->state == API_STATE_QUEUED && j->deadline_ms && j->deadline_ms <= now;
            late = past && (!late || j->deadline_ms < late->deadline_ms) ? j : late;
        }
        if (!late) {
            break;
        }
        assert(out->claimed_count < MODEL_CLAIMED_MAX);
        out->claimed[out->claimed_count].job = (int)(late - m->jobs);
        out->claimed[out->claimed_count].token = late->token;
        out->claimed[out->claimed_count++].event_seq = finish(m, late, API_STATE_FAILED, "deadline", now);
    }
    out->staged = stage(m, now);
    out->next_due_ms = next_due(m);
}

/* ---- Claim */
static bool asked_for(const store_request *r, const model_job *j)
{
    bool found = !r->models;
    for (const char *const *name = r->models; name && *name; name++) {
        found = found || strcmp(*name, j->model) == 0;
    }
    return found && LEVEL(j->priority) >= (int)r->levels_left_out;
}

static int64_t aged(const model_job *j, int64_t now)
{
    const int64_t waited = now > j->created_ms ? now - j->created_ms : 0, priority = j->priority + waited / (1000 * URGENCY_AGING_SECONDS);
    return priority < API_PRIORITY_MAX ? priority : API_PRIORITY_MAX;
}

static int next_job(const model *m, const store_request *r, int64_t now)
{
    int best = -1;
    for (int priority = API_PRIORITY_MAX; priority >= -API_PRIORITY_MAX; priority--) {
        int head = -1;
        for (int i = 0; i < (int)m->job_count; i++) {
            const model_job *j = &m->jobs[i];
            head = ready(j) && j->priority == priority && asked_for(r, j) && (head < 0 || before(m, i, head)) ? i : head;
        }
        if (head < 0) {
            continue;
        }
        const int64_t mine = aged(&m->jobs[head], now), its = best < 0 ? INT64_MIN : aged(&m->jobs[best], now);
        const bool longer_ago = best >= 0 && m->served[LEVEL(priority)] < m->served[LEVEL(m->jobs[best].priority)];
        best = mine > its || (mine == its && longer_ago) ? head : best;
    }
    return best;
}

static void claim(model *m, const store_request *r, int64_t now, model_answer *out)
{
    out->staged = stage(m, now);
    for (int i; out->claimed_count < r->claim_max && (i = next_job(m, r, now)) >= 0; out->claimed_count++) {
        model_job *j = &m->jobs[i];
        const int level = LEVEL(j->priority);
        j->state = API_STATE_RUNNING;
        j->attempt++;
        j->token++;
        j->started_ms = j->started_ms ? j->started_ms : now;
        m->served[level] = ++m->claims;
        m->level_turn[level] = j->turn > m->level_turn[level] ? j->turn : m->level_turn[level];
        out->event_seq = tell(j, 's');
        out->claimed[out->claimed_count].job = i;
        out->claimed[out->claimed_count].token = j->token;
        out->claimed[out->claimed_count].event_seq = out->event_seq;
        out->claimed[out->claimed_count].attempt = j->attempt;
        out->claimed[out->claimed_count].done_count = j->images_done;
    }
}

/* ---- Running jobs */
static void image(model *m, model_job *j, const store_request *r, int64_t now, model_answer *out)
{
    const uint32_t index = r->image.index;
    const bool again = index < j->n && strcmp(j->files[index], r->image.file) == 0;
    if (index >= j->n || (j->files[index][0] && !again)) {
        out->result = STORE_STALE;
        return;
    }
    if (!again) {
        snprintf(j->files[index], sizeof j->files[index], "%s", r->image.file);
        j->bytes[index] = r->image.view.bytes;
        j->images_done++;
        out->event_seq = tell(j, 'i');
        if (j->images_done == j->n) {
            out->event_seq = finish(m, j, j->cancel_requested ? API_STATE_CANCELED : API_STATE_SUCCEEDED, "", now);
        }
    }
}

static int64_t requeue(model *m, model_job *j, bool crashed, bool boot, int64_t now)
{
    const uint32_t crashes = j->crashes;
    j->crashes += crashed;
    j->boots += boot;
    if (j->cancel_requested || (crashed && j->crashes >= 3) || (boot && j->boots >= 10)) {
        return give_up(m, j, "crashed", now);
    }
    j->state = API_STATE_QUEUED;
    j->attempt -= !crashed;
    j->run_at_ms = crashed ? now + (crashes ? 4000 : 1000) : 0;
    return tell(j, 'r');
}

static void of_a_run(model *m, model_job *j, const store_request *r, int64_t now, model_answer *out)
{
    if (j->state != API_STATE_RUNNING || j->token != r->token) {
        out->result = STORE_STALE;
    } else if (r->op == STORE_IMAGE) {
        image(m, j, r, now, out);
    } else if (r->op == STORE_FAIL) {
        out->event_seq = give_up(m, j, r->error_code[0] ? r->error_code : "engine", now);
    } else if (r->op == STORE_CANCELED_DONE) {
        out->event_seq = finish(m, j, API_STATE_CANCELED, "", now);
    } else {
        out->event_seq = requeue(m, j, r->crashed_alone, false, now);
        out->next_due_ms = next_due(m);
    }
    out->state_after = j->state;
    out->job_ended = ended(j);
}

/* ---- Cancel, purge, retention */
static void expire(model_job *j, int64_t now, model_answer *out)
{
    for (uint32_t i = 0; i < j->n; i++) {
        char name[128];
        snprintf(name, sizeof name, "images/%s", j->files[i]);
        out->files += j->files[i][0] ? model_hash(name) : 0;
        out->file_count += j->files[i][0] != 0;
        j->files[i][0] = 0;
    }
    j->expired = true;
    j->expires_ms = now;
    j->events[0] = 0;
}

static void cancel(model *m, model_job *j, const store_request *r, int64_t now, model_answer *out)
{
    const bool purge = r->op == STORE_PURGE, was_ended = ended(j);
    if (r->client[0] && strcmp(r->client, m->clients[j->client]) != 0) {
        out->result = STORE_NONE;
        return;
    }
    if (j->expired) {
        out->result = STORE_GONE;
        return;
    }
    if (j->state == API_STATE_QUEUED) {
        out->event_seq = finish(m, j, API_STATE_CANCELED, "", now);
    } else if (!was_ended) {
        j->cancel_requested = true;
        j->purge |= purge;
    }
    if (!was_ended || !purge) {
        out->event_seq = (int64_t)strlen(j->events);
    }
    if (purge && ended(j)) {
        expire(j, now, out);
    }
    out->result = was_ended && !purge ? STORE_ENDED : STORE_OK;
    out->state_after = j->state;
    out->job_ended = ended(j) && out->result == STORE_OK;
}

static void retention(model *m, const store_request *r, int64_t now, model_answer *out)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < m->job_count; i++) {
        model_job *j = &m->jobs[i];
        const bool old = r->keep_ms && now - j->finished_ms >= r->keep_ms;
        if (j->there && ended(j) && !j->expired && (j->purge || old)) {
            expire(j, now, out);
        }
        for (uint32_t k = 0; j->there && k < j->n; k++) {
            bytes += j->files[k][0] ? j->bytes[k] : 0;
        }
    }
    while (r->keep_bytes && bytes > r->keep_bytes) {
        model_job *oldest = NULL;
        for (size_t i = 0; i < m->job_count; i++) {
            model_job *j = &m->jobs[i];
            const bool counts = j->there && ended(j) && !j->expired && j->images_done > 0;
            oldest = counts && (!oldest || j->finished_ms < oldest->finished_ms) ? j : oldest;
        }
        if (!oldest) {
            break;
        }
        for (uint32_t k = 0; k < oldest->n; k++) {
            bytes -= oldest->files[k][0] ? oldest->bytes[k] : 0;
        }
        expire(oldest, now, out);
    }
    for (size_t i = 0; i < m->job_count; i++) { /* tombstones */
        model_job *j = &m->jobs[i];
        j->there = j->there && !(j->expired && j->expires_ms <= now - 30ll * 24 * 3600 * 1000);
    }
    for (size_t i = 0; i < m->key_count; i++) {
        model_key *k = &m->keys[i];
        bool used = false;
        for (int job = k->first; job < k->first + k->count; job++) {
            used = used || m->jobs[job].there;
        }
        k->there = k->there && used;
    }
}

void model_do(model *m, const store_request *r, int64_t now, model_answer *out)
{
    *out = (model_answer){.result = STORE_OK};
    const int job = r->id[0] ? model_find(m, r->id) : -1;
    switch (r->op) {
    case STORE_ENQUEUE:
        enqueue(m, r, now, out);
        break;
    case STORE_CLAIM:
        claim(m, r, now, out);
        break;
    case STORE_RETENTION:
        retention(m, r, now, out);
        break;
    case STORE_DEADLINES:
        deadlines(m, now, out);
        break;
    case STORE_MODEL:
        break;
    default:
        out->result = job < 0 ? STORE_NONE : STORE_OK;
        if (job >= 0 && (r->op == STORE_CANCEL || r->op == STORE_PURGE)) {
            cancel(m, &m->jobs[job], r, now, out);
        } else if (job >= 0) {
            of_a_run(m, &m->jobs[job], r, now, out);
        }
    }
}

void model_clear(model *m)
{
    m->job_count = m->key_count = 0;
    m->claims = 0;
    memset(m->served, 0, sizeof m->served);
    memset(m->level_turn, 0, sizeof m->level_turn);
    memset(m->client_turn, 0, sizeof m->client_turn);
}

void model_restart(model *m, int64_t now)
{
    memset(m->served, 0, sizeof m->served);
    m->claims = 0;
    for (size_t i = 0; i < m->job_count; i++) {
        model_job *j = &m->jobs[i];
        if (j->there && j->state == API_STATE_RUNNING) {
            requeue(m, j, false, true, now);
        }
    }
}

bool model_place(const model *m, int job, int64_t *jobs, int64_t *cost)
{
    *jobs = *cost = 0;
    if (job < 0 || !ready(&m->jobs[job])) {
        return false;
    }
    for (int i = 0; i < (int)m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        const int priority = m->jobs[job].priority;
        if (ready(j) && (j->priority > priority || (j->priority == priority && before(m, i, job)))) {
            *jobs += 1;
            *cost += j->cost;
        }
    }
    return true;
}

void model_stats(const model *m, store_stats *out)
{
    *out = (store_stats){0};
    for (size_t i = 0; i < m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        out->jobs[j->state] += j->there;
        out->queued_cost += j->there && j->state == API_STATE_QUEUED ? (uint64_t)j->cost : 0;
        for (uint32_t k = 0; j->there && k < j->n; k++) {
            out->image_bytes += j->files[k][0] ? j->bytes[k] : 0;
        }
    }
}
