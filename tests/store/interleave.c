/* Orders, and the sessions that run in them. See interleave.h. */
#include "tests/store/interleave.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "tests/store/interleave_check.h"
#include "tests/store/model_compare.h"

#define STEPS_MAX (SESSIONS_MAX * WORDS_MAX)
#define OUTCOMES_MAX 400
#define SETUP SESSIONS_MAX

scene_state scene;

/* What a session knows: the claim it works for. */
typedef struct memory {
    char id[27];
    int64_t token;
} memory;

static const interleaving *wanted;
static memory memories[SESSIONS_MAX + 1]; /* the last one: of the setup */
static char first_job[27]; /* guarded while sessions are threads */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static char failure[OUTCOME_BYTES + 400];
static model *mirror;
static char outcomes[OUTCOMES_MAX][OUTCOME_BYTES];
static size_t outcome_count;

int result_of(int session, const char *word)
{
    for (size_t i = 0; i < scene.sessions[session].count; i++) {
        if (strcmp(scene.sessions[session].words[i], word) == 0) {
            return (int)scene.sessions[session].results[i];
        }
    }
    return -1;
}

/* ---- Words */
static bool is(const char *word, const char *other)
{
    return strcmp(word, other) == 0;
}

static store_request *about_the_first(store_op op)
{
    pthread_mutex_lock(&guard);
    store_request *r = job_request(op, first_job[0] ? first_job : NOBODY, 0);
    pthread_mutex_unlock(&guard);
    snprintf(r->client, sizeof r->client, "alice");
    return r;
}

static store_request *about_the_claim(const char *word, int session)
{
    const memory *known = &memories[session];
    const char *id = known->id[0] ? known->id : NOBODY;
    if (strncmp(word, "image", 5) == 0) {
        char suffix[8]; /* each session writes files of its own */
        snprintf(suffix, sizeof suffix, "-%d", session);
        return image_request(id, known->token, (uint32_t)(word[5] - '0'), suffix);
    }
    store_request *r = job_request(is(word, "fail")   ? STORE_FAIL
                                   : is(word, "done") ? STORE_CANCELED_DONE
                                                      : STORE_REQUEUE,
                                   id, known->token);
    r->crashed_alone = is(word, "crash");
    snprintf(r->reason, sizeof r->reason, "%s", r->crashed_alone ? "worker-crashed" : "shutdown");
    return r;
}

static store_request *make(const char *word, int session)
{
    if (strncmp(word, "post", 4) == 0) {
        const bool keyed = is(word, "postk") || is(word, "postj");
        return enqueue_request((spec){.key = keyed ? "k" : "",
                                      .print = is(word, "postj"),
                                      .n = is(word, "post2") ? 2 : 1,
                                      .deadline_ms = is(word, "postd") ? 10 : 0});
    }
    if (is(word, "claim")) {
        store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
        r->claim_max = 1;
        r->device = "cpu";
        return r;
    }
    if (is(word, "retention") || is(word, "deadlines")) {
        store_request *r = store_request_create(is(word, "retention") ? STORE_RETENTION : STORE_DEADLINES, NULL, NULL);
        r->keep_ms = 1;
        return r;
    }
    if (is(word, "cancel") || is(word, "purge")) {
        return about_the_first(is(word, "purge") ? STORE_PURGE : STORE_CANCEL);
    }
    return about_the_claim(word, session);
}

/* What the session knows after its word. */
static void learn(int session, const char *word, store_result result, const char *id, int64_t token)
{
    if (is(word, "claim")) {
        snprintf(memories[session].id, sizeof memories[session].id, "%s", id);
        memories[session].token = token;
    } else if (strncmp(word, "post", 4) == 0 && (result == STORE_OK || result == STORE_REPLAY)) {
        pthread_mutex_lock(&guard);
        if (!first_job[0]) {
            memcpy(first_job, id, sizeof first_job);
        }
        pthread_mutex_unlock(&guard);
    }
}

static void note(int session, const char *word, const store_request *r, store_result result)
{
    if (session == SETUP) {
        return;
    }
    const size_t at = scene.sessions[session].count++;
    snprintf(scene.sessions[session].words[at], sizeof scene.sessions[session].words[at], "%s", word);
    scene.sessions[session].results[at] = result;
    if (r && r->op == STORE_IMAGE) {
        snprintf(scene.sessions[session].files[at], sizeof scene.sessions[session].files[at], "%s", r->image.file);
    }
    if (r && (r->id_count || r->claimed_count)) {
        memcpy(scene.sessions[session].ids[at], r->id_count ? r->ids[0] : r->claimed[0].job.id, 27);
        scene.sessions[session].tokens[at] = r->claimed_count ? r->claimed[0].job.token : 0;
    }
    pthread_mutex_lock(&guard);
    for (size_t i = 0; r && i < r->file_count && scene.unlinked_count < SCENE_FILES_MAX; i++) {
        snprintf(scene.unlinked[scene.unlinked_count], sizeof scene.unlinked[0], "%.111s", r->files[i]);
        scene.unlinked_count++;
    }
    pthread_mutex_unlock(&guard);
}

/* The answer to a word, noted and learnt; the request is freed. */
static void take_answer(int session, const char *word, store_request *r)
{
    const bool nothing = is(word, "claim") && r->result == STORE_OK && !r->claimed_count;
    const char *id = r->id_count ? r->ids[0] : r->claimed_count ? r->claimed[0].job.id : "";
    learn(session, word, r->result, id, r->claimed_count ? r->claimed[0].job.token : 0);
    note(session, word, r, nothing ? STORE_NONE : r->result);
    store_request_free(r);
}

static void read_first(int session)
{
    char id[27];
    pthread_mutex_lock(&guard);
    memcpy(id, first_job, sizeof id);
    pthread_mutex_unlock(&guard);
    note(session, "read", NULL, id[0] ? check_read(id) : STORE_NONE);
}

/* ---- One order */
typedef struct asked {
    char word[12];
    int session;
    store_request *request;
    model_answer expected;
} asked;

static asked group[STEPS_MAX];
static size_t group_count;
static comparison compared;

/* grouped: only asked; the model says at once what will come of it, so that the session can go on. */
static void do_word(int session, const char *word, bool grouped)
{
    if (is(word, "read")) {
        if (!grouped) {
            read_first(session);
        }
        return;
    }
    asked *a = &group[group_count];
    a->request = make(word, session);
    a->session = session;
    snprintf(a->word, sizeof a->word, "%s", word);
    model_do(mirror, a->request, clock_ms, &a->expected);
    if (grouped) {
        const model_answer *e = &a->expected;
        const int job = e->claimed_count ? e->claimed[0].job : e->id_count ? e->first : -1;
        learn(session, word, e->result, job >= 0 ? mirror->jobs[job].id : "", e->claimed_count ? e->claimed[0].token : 0);
        group_count++;
        return;
    }
    store_call(st, a->request);
    compare_answer(&compared, mirror, a->request, &a->expected);
    take_answer(session, word, a->request);
}

static atomic_uint answers;
static atomic_bool held;

static void count(store_request *r)
{
    (void)r;
    atomic_fetch_add(&answers, 1);
}

static void hold(store_request *r)
{
    atomic_store(&held, true);
    pthread_mutex_lock(&guard);
    pthread_mutex_unlock(&guard);
    store_request_free(r);
}

/* Everything asked goes to the store while its writer is held, and so in one transaction. */
static void call_group(void)
{
    pthread_mutex_lock(&guard);
    atomic_store(&held, false);
    atomic_store(&answers, 0);
    store_request *first = store_request_create(STORE_MODEL, hold, NULL);
    snprintf(first->model_name, sizeof first->model_name, "m");
    first->model_json = strdup("{}");
    store_submit(st, first);
    while (!atomic_load(&held)) {
        usleep(50);
    }
    for (size_t i = 0; i < group_count; i++) {
        group[i].request->done = count;
        store_submit(st, group[i].request);
    }
    pthread_mutex_unlock(&guard);
    while (atomic_load(&answers) < group_count) {
        usleep(50);
    }
    for (size_t i = 0; i < group_count; i++) {
        compare_answer(&compared, mirror, group[i].request, &group[i].expected);
        take_answer(group[i].session, group[i].word, group[i].request);
    }
    group_count = 0;
}

/* The n-th word of a session, into out; false: it has fewer. */
static bool nth_word(const char *words, size_t n, char out[12])
{
    size_t used = 0;
    for (; n > 0; n--) {
        words += strcspn(words, " ");
        words += strspn(words, " ");
    }
    used = strcspn(words, " ");
    snprintf(out, 12, "%.*s", (int)used, words);
    return used > 0;
}

static bool begin(void)
{
    char word[12];
    new_place();
    reset_ids();
    options.client_jobs_max = wanted->client_jobs_max;
    memset(&scene, 0, sizeof scene);
    memset(memories, 0, sizeof memories);
    memset(&compared, 0, sizeof compared);
    first_job[0] = 0;
    model_clear(mirror);
    snprintf(mirror->clients[0], sizeof mirror->clients[0], "alice");
    mirror->client_jobs_max = wanted->client_jobs_max;
    mirror->keep_ms = options.keep_ms;
    if (open_store() != DN_OK) {
        return false;
    }
    for (size_t i = 0; nth_word(wanted->setup, i, word); i++) {
        do_word(SETUP, word, false);
    }
    clock_ms += wanted->later_ms;
    while (scene.session_count < SESSIONS_MAX && wanted->sessions[scene.session_count]) {
        memories[scene.session_count++] = memories[SETUP];
    }
    return true;
}

/* What does not hold of the order that has just been run. */
static const char *judge(void)
{
    const char *wrong = compared.differs ? compared.what : check_always();
    return wrong ? wrong : wanted->holds ? wanted->holds() : NULL;
}

static void say(const char *how, const char *order, const char *wrong)
{
    snprintf(failure, sizeof failure, "%s %s: %s", how, order, wrong);
}

static bool run_order(const int *order, size_t steps, bool grouped)
{
    char word[12], text[STEPS_MAX * 14] = "";
    size_t at[SESSIONS_MAX] = {0}, used = 0;
    bool fine = begin();
    for (size_t i = 0; fine && i < steps; i++) {
        nth_word(wanted->sessions[order[i]], at[order[i]]++, word);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d:%s", i ? " " : "", order[i] + 1, word);
        do_word(order[i], word, grouped);
    }
    if (fine && grouped) {
        call_group();
    }
    const char *wrong = fine ? judge() : error.message;
    if (wrong) {
        say(grouped ? "in one transaction," : "one by one,", text, wrong);
    } else if (!grouped && outcome_count < OUTCOMES_MAX) {
        describe_outcome(outcomes[outcome_count]);
        bool known = false;
        for (size_t i = 0; i < outcome_count; i++) {
            known = known || strcmp(outcomes[i], outcomes[outcome_count]) == 0;
        }
        outcome_count += !known;
    }
    return !wrong;
}

/* All orders from here on: `order` is filled up to `done`. */
static bool run_orders(int *order, size_t done, size_t steps, size_t *at, const size_t *lengths, int *orders)
{
    if (done == steps) {
        ++*orders;
        return run_order(order, steps, false) && run_order(order, steps, true);
    }
    bool fine = true;
    for (int session = 0; fine && session < SESSIONS_MAX; session++) {
        if (at[session] < lengths[session]) {
            at[session]++;
            order[done] = session;
            fine = run_orders(order, done + 1, steps, at, lengths, orders);
            at[session]--;
        }
    }
    return fine;
}

/* ---- Threads */
typedef struct thread {
    pthread_t id;
    int session;
    unsigned seed;
    pthread_barrier_t *start;
} thread;

static void *session_runs(void *payload)
{
    thread *t = payload;
    char word[12];
    pthread_barrier_wait(t->start);
    for (size_t i = 0; nth_word(wanted->sessions[t->session], i, word); i++) {
        if (rand_r(&t->seed) % 3) {
            nanosleep(&(struct timespec){.tv_nsec = rand_r(&t->seed) % 300000}, NULL);
        }
        if (is(word, "read")) {
            read_first(t->session);
        } else {
            store_request *r = make(word, t->session);
            store_call(st, r);
            take_answer(t->session, word, r);
        }
    }
    return NULL;
}

static bool run_threads(unsigned seed)
{
    thread threads[SESSIONS_MAX];
    pthread_barrier_t start;
    char came[OUTCOME_BYTES], order[32];
    snprintf(order, sizeof order, "seed %u", seed);
    if (!begin()) {
        say("threads,", order, error.message);
        return false;
    }
    pthread_barrier_init(&start, NULL, (unsigned)scene.session_count);
    for (size_t i = 0; i < scene.session_count; i++) {
        threads[i] = (thread){.session = (int)i, .seed = seed * 31 + (unsigned)i, .start = &start};
        if (pthread_create(&threads[i].id, NULL, session_runs, &threads[i]) != 0) {
            perror("pthread_create");
            exit(1);
        }
    }
    for (size_t i = 0; i < scene.session_count; i++) {
        pthread_join(threads[i].id, NULL);
    }
    pthread_barrier_destroy(&start);
    const char *wrong = judge();
    describe_outcome(came);
    bool known = false;
    for (size_t i = 0; i < outcome_count; i++) {
        known = known || strcmp(outcomes[i], came) == 0;
    }
    if (wrong || !known) {
        say("threads,", order, wrong ? wrong : came);
    }
    return !wrong && known;
}

const char *interleave(const interleaving *named, int thread_rounds, unsigned seed, int *orders)
{
    size_t lengths[SESSIONS_MAX] = {0}, at[SESSIONS_MAX] = {0}, steps = 0;
    int order[STEPS_MAX];
    char word[12];
    wanted = named;
    mirror = calloc(1, sizeof *mirror);
    outcome_count = 0;
    *orders = 0;
    for (int i = 0; i < SESSIONS_MAX && wanted->sessions[i]; i++) {
        while (nth_word(wanted->sessions[i], lengths[i], word)) {
            lengths[i]++;
        }
        steps += lengths[i];
    }
    bool fine = run_orders(order, 0, steps, at, lengths, orders);
    for (int i = 0; fine && i < thread_rounds; i++) {
        fine = run_threads(seed + (unsigned)i);
    }
    free(mirror);
    return fine ? NULL : failure;
}
