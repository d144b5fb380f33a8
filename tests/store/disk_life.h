/* A life of jobs on a disk that may fail: the real store, the real threads of input and image files, and a client and dispatcher that
 * write down what they were told, and when. judge() then holds a data directory against that.
 *
 * lost: acknowledged and not there; unexpected: there and never asked for; duplicated: one idempotency key with two sets of jobs, or what
 * stands twice; recovered: nobody was told, and it is there. Valid: the first three are 0. The test's thread, but for life_done. */
#ifndef DN_TESTS_DISK_LIFE_H
#define DN_TESTS_DISK_LIFE_H

#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "server/dispatcher_internal.h"
#include "server/inputs.h"
#include "server/store/sqlite_store.h"
#include "tests/store/disk_shim.h"
#include "tests/store/store_harness.h"

enum { LIFE_ASKS = 256, LIFE_FACTS = 1024, LIFE_IMAGE_BYTES = 3000, LIFE_TRIES = 3, LIFE_PATIENCE_MS = 60000 };
#define LIFE_NEVER ((size_t)-1)

typedef struct life_ask {
    store_request *request; /* until it is answered */
    char ids[3][27], key[16];
    size_t jobs, asked_at, acked_at;
    bool input, done;
    store_result result;
} life_ask;

typedef struct life_fact { /* an acknowledged image (file set) or end of a job */
    char id[27], file[96];
    api_state state;
    size_t at;
} life_fact;

typedef struct life_ledger {
    int lost, unexpected, duplicated, recovered;
    char first[200]; /* what was wrong first */
} life_ledger;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t told;
    uint64_t random;
    life_ask asks[LIFE_ASKS];
    size_t ask_count;
    life_fact facts[LIFE_FACTS];
    size_t fact_count;
    size_t retention_at; /* from then on results may expire */
    struct {
        char id[27];
        size_t at;
    } purges[LIFE_ASKS];
    size_t purge_count;
    inputs *inputs;
    dispatcher side; /* as much of one as the files thread needs */
    bool over; /* the store has stopped, or what was to come would make no sense */
    int strange; /* answers that no fault explains */
    store_result strange_result;
} life = {.lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};

static inline unsigned life_chance(unsigned below)
{
    life.random ^= life.random << 13;
    life.random ^= life.random >> 7;
    life.random ^= life.random << 17;
    return (unsigned)(life.random >> 20) % below;
}

/* ---- Waiting for answers */
typedef struct life_ticket {
    bool done;
    size_t at;
} life_ticket;

static inline void life_done(store_request *r)
{
    life_ticket *ticket = r->payload;
    pthread_mutex_lock(&life.lock);
    ticket->at = disk_recorded();
    ticket->done = true;
    pthread_cond_broadcast(&life.told);
    pthread_mutex_unlock(&life.lock);
}

/* True once answered; an image that the disk refused comes back by the dispatcher's inbox instead. */
static inline bool life_wait(life_ticket *ticket)
{
    pthread_mutex_lock(&life.lock);
    while (!ticket->done) {
        struct timespec soon;
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 2000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&life.told, &life.lock, &soon);
        pthread_mutex_lock(&life.side.lock);
        bool refused = life.side.inbox != NULL;
        life.side.inbox = NULL;
        life.side.inbox_tail = &life.side.inbox;
        pthread_mutex_unlock(&life.side.lock);
        if (refused) {
            break;
        }
    }
    bool done = ticket->done;
    pthread_mutex_unlock(&life.lock);
    return done;
}

/* Answers that a failing disk may lead to. */
static inline store_result life_answer(store_result result)
{
    if (result == STORE_UNKNOWN) {
        life.over = true;
    } else if (result != STORE_OK && result != STORE_REPLAY && result != STORE_SPACE && result != STORE_BUSY && result != STORE_STALE &&
               result != STORE_ENDED && result != STORE_GONE && result != STORE_NONE) {
        life.strange++;
        life.strange_result = result;
    }
    return result;
}

static inline store_result life_call(store_request *r, size_t *at)
{
    life_ticket ticket = {0};
    r->done = life_done;
    r->payload = &ticket;
    store_submit(st, r);
    life_wait(&ticket);
    *at = ticket.at;
    return life_answer(r->result);
}

static inline void life_note(const char *id, const char *file, api_state state, size_t at)
{
    if (life.fact_count < LIFE_FACTS) {
        life_fact *fact = &life.facts[life.fact_count++];
        *fact = (life_fact){.state = state, .at = at};
        memcpy(fact->id, id, 27);
        snprintf(fact->file, sizeof fact->file, "%s", file);
    }
}

/* ---- What clients do */
static inline store_request *life_enqueue_of(const life_ask *ask)
{
    spec p = {.key = ask->key, .jobs = (uint32_t)ask->jobs, .n = 2, .print = (unsigned char)(ask->key[0] ? ask->key[1] : 0)};
    store_request *r = enqueue_request(p);
    for (size_t i = 0; i < ask->jobs; i++) {
        memcpy(r->jobs[i].id, ask->ids[i], 27);
        if (ask->input) {
            free(r->jobs[i].request_json);
            r->jobs[i].request_json = strdup("{\"model\":\"m\",\"n\":2,\"init_image\":{\"sha256\":\"\"}}");
        }
    }
    return r;
}

static inline void life_submit(life_ask *ask, life_ticket *ticket)
{
    static api_request requests[3];
    static const unsigned char picture[900] = {0x89, 'P', 'N', 'G'};
    ask->request = life_enqueue_of(ask);
    ask->request->done = life_done;
    ask->request->payload = ticket;
    ask->asked_at = disk_recorded();
    for (size_t i = 0; i < 3; i++) {
        requests[i].init_image.bytes = ask->input ? picture : NULL;
        requests[i].init_image.byte_count = ask->input ? sizeof picture : 0;
    }
    inputs_submit(life.inputs, ask->request, requests);
}

/* A few at once, so that they share a commit or do not. */
static inline void life_asks(unsigned count)
{
    life_ticket tickets[3] = {0};
    life_ask *asks[3] = {0};
    for (unsigned i = 0; i < count && life.ask_count < LIFE_ASKS; i++) {
        life_ask *ask = asks[i] = &life.asks[life.ask_count++];
        *ask = (life_ask){.jobs = 1 + life_chance(4) / 3 * 2, .acked_at = LIFE_NEVER, .input = life_chance(4) == 0};
        for (size_t j = 0; j < ask->jobs; j++) {
            make_id(ask->ids[j]);
        }
        if (life_chance(2)) {
            snprintf(ask->key, sizeof ask->key, "k%zu", life.ask_count);
        }
        life_submit(ask, &tickets[i]);
    }
    for (unsigned i = 0; i < count && asks[i]; i++) {
        life_wait(&tickets[i]);
        life_ask *ask = asks[i];
        ask->result = life_answer(ask->request->result);
        ask->acked_at = ask->result == STORE_OK ? tickets[i].at : LIFE_NEVER;
        if (ask->result != STORE_OK) {
            inputs_discard(life.inputs, ask->request);
        }
        store_request_free(ask->request);
        ask->request = NULL;
    }
}

static inline void life_cancel(const char *id)
{
    size_t at;
    bool purge = life_chance(2);
    store_request *r = job_request(purge ? STORE_PURGE : STORE_CANCEL, id, 0);
    if (purge && life.purge_count < LIFE_ASKS) {
        memcpy(life.purges[life.purge_count].id, id, 27);
        life.purges[life.purge_count++].at = disk_recorded();
    }
    if (life_call(r, &at) == STORE_OK && !purge && r->state_after == API_STATE_CANCELED) {
        life_note(id, "", API_STATE_CANCELED, at);
    }
    for (size_t i = 0; i < r->file_count; i++) {
        char *path = store_path(st, "", r->files[i]);
        unlink(path);
        free(path);
    }
    store_request_free(r);
}

static inline void life_retention(void)
{
    size_t at;
    store_request *r = store_request_create(STORE_RETENTION, NULL, NULL);
    r->keep_bytes = 8 * LIFE_IMAGE_BYTES;
    if (life.retention_at == LIFE_NEVER) {
        life.retention_at = disk_recorded();
    }
    life_call(r, &at);
    for (size_t i = 0; r->result == STORE_OK && i < r->file_count; i++) {
        char *path = store_path(st, "", r->files[i]);
        unlink(path);
        free(path);
    }
    store_request_free(r);
    store_drop_inputs(st);
}

/* ---- What the dispatcher does */
static inline void life_give_up(const char *id, int64_t token)
{
    size_t at;
    store_request *r = job_request(STORE_FAIL, id, token);
    snprintf(r->error_code, sizeof r->error_code, "storage");
    if (life_call(r, &at) == STORE_OK && r->job_ended) {
        life_note(id, "", r->state_after, at);
    }
    store_request_free(r);
}

/* One image, by way of the files thread; refused ones are offered again a few times. False: it could not be kept. */
static inline bool life_image(const char *id, int64_t token, uint32_t index, bool *ended)
{
    life_ticket ticket = {0};
    pending item = {.d = &life.side, .png_bytes = 500 + life_chance(LIFE_IMAGE_BYTES - 500)};
    store_request *r = image_request(id, token, index, "");
    unsigned char digest[DN_SHA256_BYTES], *bytes = malloc(item.png_bytes);
    for (size_t i = 0; i < item.png_bytes; i++) {
        bytes[i] = (unsigned char)life_chance(256);
    }
    dn_sha256_of(digest, bytes, item.png_bytes);
    dn_sha256_hex(r->image.view.sha256, digest);
    r->image.view.bytes = item.png_bytes;
    r->done = life_done;
    r->payload = &ticket;
    item.request = r;
    bool stored = false;
    for (int i = 0; i < LIFE_TRIES && !stored && !life.over; i++) {
        ticket = (life_ticket){0};
        if (!item.png) {
            item.png = malloc(item.png_bytes);
            memcpy(item.png, bytes, item.png_bytes);
        }
        files_write_image(&life.side.files, &item);
        bool asked = life_wait(&ticket);
        stored = life_answer(r->result) == STORE_OK && asked;
        if (r->result != STORE_SPACE && r->result != STORE_BUSY) {
            break;
        }
    }
    if (stored) {
        life_note(id, r->image.file, API_STATE_RUNNING, ticket.at);
        *ended = r->job_ended;
        if (r->job_ended) {
            life_note(id, "", r->state_after, ticket.at);
        }
    } else if (!life.over) {
        files_unlink(&life.side.files, FILE_UNLINK_IMAGE, r->image.file);
    }
    free(item.png);
    free(bytes);
    store_request_free(r);
    return stored;
}

static inline bool life_done_before(const store_claimed *claimed, uint32_t index)
{
    for (uint32_t i = 0; i < claimed->done_count; i++) {
        if (claimed->done_indices[i] == index) {
            return true;
        }
    }
    return false;
}

static inline void life_run(const store_claimed *claimed)
{
    const store_job *job = &claimed->job;
    bool ended = false;
    if (life_chance(6) == 0) { /* its worker is gone */
        size_t at;
        store_request *r = job_request(STORE_REQUEUE, job->id, job->token);
        snprintf(r->reason, sizeof r->reason, "worker-crashed");
        life_call(r, &at);
        store_request_free(r);
        return;
    }
    for (uint32_t i = 0; i < job->n && !ended && !life.over; i++) {
        if (life_done_before(claimed, i)) {
            continue;
        }
        unsigned char *snapshot = calloc(1, 700);
        char name[SNAPSHOT_NAME_BYTES];
        snapshot_name(name, job->id, i);
        files_write_snapshot(&life.side.files, name, snapshot, 700);
        if (!life_image(job->id, job->token, i, &ended)) {
            if (!life.over) {
                life_give_up(job->id, job->token);
            }
            return;
        }
        files_unlink(&life.side.files, FILE_UNLINK_SNAPSHOT, name);
    }
}

static inline void life_claim(void)
{
    size_t at;
    store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = 1 + life_chance(3);
    r->device = "cpu";
    if (life_call(r, &at) == STORE_OK) {
        for (size_t i = 0; i < r->claimed_count && !life.over; i++) {
            life_run(&r->claimed[i]);
        }
    }
    store_request_free(r);
}

/* ---- Beginning and end */
static inline bool life_open(void)
{
    if (open_store() != DN_OK) {
        return false;
    }
    memset(&life.side, 0, sizeof life.side);
    life.side.options.store = st;
    pthread_mutex_init(&life.side.lock, NULL);
    life.side.inbox_tail = &life.side.inbox;
    life.side.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (inputs_start(&life.inputs, st, &error) != DN_OK) {
        life.inputs = NULL;
        return false;
    }
    return files_start(&life.side.files, &life.side, &error) == DN_OK;
}

static inline void life_close(void)
{
    inputs_stop(life.inputs);
    life.inputs = NULL;
    if (life.side.inbox_tail) {
        files_stop(&life.side.files);
        close(life.side.event_fd);
        memset(&life.side, 0, sizeof life.side);
    }
    close_store();
}

static inline void life_forget(uint64_t seed)
{
    life.random = seed * 2654435761u + 88172645463325252ull;
    life.ask_count = life.fact_count = life.purge_count = 0;
    life.retention_at = LIFE_NEVER;
    life.over = false;
    life.strange = 0;
}

/* One thing after another, until `asks` were made and what waits has run, or the store has stopped. The store is open. */
static inline void life_goes_on(unsigned asks)
{
    life_asks(1);
    while (life.ask_count < asks && !life.over) {
        unsigned what = life_chance(10);
        if (what < 4) {
            life_asks(1 + life_chance(3));
        } else if (what < 8) {
            life_claim();
        } else if (what < 9) {
            life_cancel(life.asks[life_chance((unsigned)life.ask_count)].ids[0]);
        } else {
            life_retention();
        }
    }
    for (int i = 0; i < 3 && !life.over; i++) {
        life_claim();
    }
}

#endif
