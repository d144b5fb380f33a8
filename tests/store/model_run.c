/* The random test's steps. See model_run.h. One thread; requests go to the store in groups, so that transactions hold many. */
#include "tests/store/model_run.h"

#include <stdarg.h>
#include <stdatomic.h>

#include "server/urgency.h"
#include "tests/store/contract.h"
#include "tests/store/model_compare.h"

#define GROUP_MAX 24 /* requests under way at once */
#define STRICT_STEPS 100 /* in a longer history, so many steps lie between two looks at everything */
#define MINUTE_MS 60000ll

typedef enum kind {
    ENQUEUE,
    CLAIM,
    IMAGE,
    FAIL,
    CANCELED_DONE,
    REQUEUE,
    CANCEL,
    PURGE,
    RETENTION,
    DEADLINES,
    CLOCK,
    RESTART,
    MODEL,
    READ_JOB,
    READ_LIST,
    READ_STATS,
    KINDS
} kind;

/* How often each comes, of a thousand. */
static const unsigned WEIGHTS[KINDS] = {190, 150, 200, 25, 30, 60, 60, 25, 25, 35, 80, 4, 6, 70, 25, 15};

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Each seed has its own mixture: what is rare in one is common in another, and something is left out of most. */
void model_make_steps(uint64_t seed, model_step *steps, size_t count)
{
    static const unsigned factors[] = {0, 2, 4, 4, 4, 8, 16, 32};
    unsigned weights[KINDS], all = 0;
    uint64_t state = seed;
    for (uint32_t i = 0; i < KINDS; i++) {
        const bool needed = i == ENQUEUE || i == CLAIM;
        weights[i] = WEIGHTS[i] * (needed ? 4 : factors[next_random(&state) % 8]);
        all += weights[i];
    }
    for (size_t i = 0; i < count; i++) {
        unsigned left = (unsigned)(next_random(&state) % all);
        uint32_t which = 0;
        while (left >= weights[which]) {
            left -= weights[which++];
        }
        const uint64_t x = next_random(&state), y = next_random(&state);
        steps[i] = (model_step){which, (uint32_t)x, (uint32_t)(x >> 32), (uint32_t)y, (uint32_t)(y >> 32)};
    }
}

/* ---- A run */
typedef struct asked {
    store_request *request;
    model_answer expected;
    size_t step;
} asked;

typedef struct run {
    model *m;
    asked group[GROUP_MAX];
    size_t group_count, step;
    bool strict, told, deep;
    comparison cmp;
    char descriptions[3][16];
} run;

static const char *const CLIENTS[MODEL_CLIENTS_MAX] = {"alice", "bob", "carol", "dave"};
static const char *const MODELS[] = {"m", "x", "y", NULL};

static void tell(const run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(const run *r, const char *format, ...)
{
    va_list list;
    if (r->told) {
        va_start(list, format);
        printf("#   %zu: ", r->step);
        vprintf(format, list);
        printf("\n");
        va_end(list);
    }
}

static atomic_size_t answered;

static void count_answer(store_request *request)
{
    (void)request;
    atomic_fetch_add(&answered, 1);
}

/* Waits for all that is under way and holds each answer against the model's. The last request is called and waited for: whoever is
 * before it in the queue has been answered then. */
static void flush(run *r)
{
    for (size_t i = 0; i < r->group_count; i++) {
        r->group[i].request->done = count_answer;
    }
    atomic_store(&answered, 0);
    for (size_t i = 0; i < r->group_count; i++) {
        if (i + 1 < r->group_count) {
            store_submit(st, r->group[i].request);
        } else {
            store_call(st, r->group[i].request);
        }
    }
    if (r->group_count && atomic_load(&answered) != r->group_count - 1) {
        differ(&r->cmp, "%zu of %zu requests were answered before the last one", atomic_load(&answered), r->group_count - 1);
    }
    for (size_t i = 0; i < r->group_count; i++) {
        compare_answer(&r->cmp, r->m, r->group[i].request, &r->group[i].expected);
        store_request_free(r->group[i].request);
    }
    r->group_count = 0;
}

/* The request is the store's next; what it must say is known at once. */
static void ask(run *r, store_request *request)
{
    asked *a = &r->group[r->group_count++];
    a->request = request;
    a->step = r->step;
    model_do(r->m, request, clock_ms, &a->expected);
}

/* A job that is likely to matter: most of the time one of the last dozen that have not ended. */
static model_job *choose(run *r, uint32_t a, uint32_t b)
{
    model *m = r->m;
    if (!m->job_count) {
        return NULL;
    }
    if (a % 10 < 8) {
        size_t wanted = b % 12;
        for (size_t pass = 0; pass < 2; pass++) {
            for (size_t i = m->job_count; i-- > 0;) {
                model_job *j = &m->jobs[i];
                const bool fits = j->there && (a % 10 < 6 ? j->state == API_STATE_RUNNING : !api_state_ended(j->state));
                if (fits && wanted-- == 0) {
                    return j;
                }
            }
            wanted = wanted % 12 > 3 ? 0 : wanted; /* fewer than that: the first */
        }
    }
    return &m->jobs[b % m->job_count];
}

/* ---- Steps that write */
static void step_enqueue(run *r, const model_step *s)
{
    char key[8] = "";
    if (s->b % 3 == 0) {
        snprintf(key, sizeof key, "k%u", s->b / 3 % 6);
    }
    store_request *request = enqueue_request((spec){.client = CLIENTS[s->a % 16 < 9 ? 0 : s->a % MODEL_CLIENTS_MAX],
                                                    .model = MODELS[s->a / 16 % 8 < 5 ? 0 : s->a / 16 % 3],
                                                    .key = key,
                                                    .print = (unsigned char)(s->b / 18 % 8 == 0),
                                                    .priority = s->c % 4 ? 0 : (int)(s->c / 4 % 21) - 10,
                                                    .cost = 1 + s->c / 128 % 60,
                                                    .n = 1 + (s->d % 8 > 4) + (s->d % 8 > 6),
                                                    .jobs = r->deep ? 8 : 1 + (s->d / 8 % 8 == 0) * (s->d / 64 % 4),
                                                    .deadline_ms = s->d / 256 % 5 ? 0 : 1 + s->d / 2048 % 9000});
    const model_job *known = s->b / 256 % 24 == 0 ? choose(r, 9, s->b / 8192) : NULL;
    if (known) { /* an id drawn twice */
        memcpy(request->jobs[request->job_count - 1].id, known->id, sizeof known->id);
    }
    tell(r, "enqueue %s key '%s' print %u priority %d cost %llu n %u jobs %zu deadline %lld", request->client, request->key,
         request->fingerprint[0], request->jobs[0].priority, (unsigned long long)request->jobs[0].cost, request->jobs[0].n,
         request->job_count, (long long)request->jobs[0].deadline_ms);
    ask(r, request);
}

static void step_claim(run *r, const model_step *s)
{
    static const char *const some[] = {"x", "y", NULL};
    if (r->deep && s->d % 4) {
        return;
    }
    store_request *request = store_request_create(STORE_CLAIM, NULL, NULL);
    request->claim_max = s->a % 8 ? 1 + s->a / 8 % 3 : 16;
    request->models = s->b % 6 == 0 ? some : s->b % 6 == 1 ? MODELS : NULL;
    request->levels_left_out = s->c % 8 == 0 ? s->c / 8 % 22 : 0;
    request->device = "cpu";
    tell(r, "claim %u models %s without %u levels", request->claim_max, request->models ? request->models[0] : "any",
         request->levels_left_out);
    ask(r, request);
}

static int64_t some_token(const model_job *j, uint32_t d)
{
    return d % 10 < 8 ? j->token : d % 10 == 8 ? j->token - 1 : j->token + 1;
}

static void step_image(run *r, const model_step *s)
{
    const model_job *j = choose(r, s->a % 10 < 9 ? s->a / 10 % 6 : 9, s->b);
    if (!j) {
        return;
    }
    uint32_t index = s->c % (j->n + (s->c / 8 % 16 == 0));
    while (s->c / 128 % 4 && index + 1 < j->n && j->files[index][0]) {
        index++;
    }
    store_request *request = image_request(j->id, some_token(j, s->d), index, s->d / 16 % 8 ? "" : "-other");
    request->image.view.bytes = 500 + s->c / 512 % 1000;
    tell(r, "image %u of %s under token %lld", index, j->id, (long long)request->token);
    ask(r, request);
}

static void step_of_a_run(run *r, const model_step *s)
{
    static const store_op ops[] = {[FAIL] = STORE_FAIL, [CANCELED_DONE] = STORE_CANCELED_DONE, [REQUEUE] = STORE_REQUEUE};
    const model_job *j = choose(r, s->a, s->b);
    if (!j) {
        return;
    }
    store_request *request = job_request(ops[s->kind], j->id, some_token(j, s->d));
    request->crashed_alone = s->kind == REQUEUE && s->c % 2;
    snprintf(request->reason, sizeof request->reason, "%s", request->crashed_alone ? "worker-crashed" : "shutdown");
    snprintf(request->error_code, sizeof request->error_code, "%s", s->c / 2 % 3 ? "storage" : "");
    tell(r, "%s %s under token %lld%s",
         s->kind == FAIL      ? "fail"
         : s->kind == REQUEUE ? "requeue"
                              : "canceled done",
         j->id, (long long)request->token, request->crashed_alone ? ", crashed alone" : "");
    ask(r, request);
}

static void step_cancel(run *r, const model_step *s)
{
    const model_job *j = choose(r, s->a, s->b);
    store_request *request = job_request(s->kind == PURGE ? STORE_PURGE : STORE_CANCEL, j && s->c % 32 ? j->id : NOBODY, 0);
    const char *client = s->d % 8 == 0 ? CLIENTS[s->d / 8 % 4] : s->d % 8 == 1 || !j ? "" : CLIENTS[j->client];
    snprintf(request->client, sizeof request->client, "%s", client);
    tell(r, "%s %s for '%s'", s->kind == PURGE ? "purge" : "cancel", request->id, client);
    ask(r, request);
}

static void step_retention(run *r, const model_step *s)
{
    static const int64_t ages[] = {0, 1, 1000, MINUTE_MS, DAY_MS, 7 * DAY_MS};
    store_request *request = store_request_create(STORE_RETENTION, NULL, NULL);
    request->keep_ms = ages[s->a % 6];
    request->keep_bytes = s->b % 3 ? 0 : 1 + s->b / 3 % 40000;
    tell(r, "retention by age %lld, by bytes %llu", (long long)request->keep_ms, (unsigned long long)request->keep_bytes);
    ask(r, request);
}

static void step_model(run *r, const model_step *s)
{
    const uint32_t which = s->a % 3;
    store_request *request = store_request_create(STORE_MODEL, NULL, NULL);
    snprintf(r->descriptions[which], sizeof r->descriptions[which], "{\"v\":%u}", s->b % 1000);
    snprintf(request->model_name, sizeof request->model_name, "%s", MODELS[which]);
    request->model_json = strdup(r->descriptions[which]);
    tell(r, "model %s is %s", MODELS[which], r->descriptions[which]);
    ask(r, request);
}

/* ---- Steps between two groups */
/* The clock goes to the very moment at which something begins or ends, or one before it; and often that is asked for at once. */
static bool step_to_moment(run *r, const model_step *s)
{
    const unsigned which = s->b % 6;
    for (size_t i = 0, count = r->m->job_count; i < count; i++) {
        const model_job *j = &r->m->jobs[(i + s->c) % count];
        const bool queued = j->there && j->state == API_STATE_QUEUED, over = j->there && api_state_ended(j->state);
        const int64_t moments[] = {queued ? j->run_at_ms : 0,
                                   queued ? j->deadline_ms : 0,
                                   over && !j->expired ? j->finished_ms + 1000 : 0,
                                   over && !j->expired ? j->finished_ms + DAY_MS : 0,
                                   j->there && j->expired ? j->expires_ms + 30 * DAY_MS : 0,
                                   queued ? j->created_ms + 1000 * URGENCY_AGING_SECONDS : 0};
        const int64_t moment = moments[which] - s->b / 6 % 2;
        if (moments[which] && moment >= clock_ms && moment - clock_ms <= 31 * DAY_MS) {
            clock_ms = moment;
            tell(r, "the clock goes on to moment %u of %s", which, j->id);
            if (s->d % 2 && which < 5) {
                store_request *request = store_request_create(which < 2 ? STORE_DEADLINES : STORE_RETENTION, NULL, NULL);
                request->keep_ms = which == 2 ? 1000 : DAY_MS;
                ask(r, request);
            }
            return true;
        }
    }
    return false;
}

static void step_clock(run *r, const model_step *s)
{
    static const int64_t jumps[] = {-DAY_MS, -5000, 45 * MINUTE_MS, DAY_MS, 31 * DAY_MS};
    if (s->a / 16 % 3 == 0 && step_to_moment(r, s)) {
        return;
    }
    const int64_t by = s->a % 16 < 11 ? (int64_t)(s->b % 1500) : s->a % 16 < 15 ? (int64_t)(s->b % (5 * MINUTE_MS)) : jumps[s->b % 5];
    clock_ms += by;
    tell(r, "the clock goes on by %lld", (long long)by);
}

static void step_restart(run *r)
{
    tell(r, "restart");
    if (open_store() != DN_OK) {
        differ(&r->cmp, "the restart failed: %s", error.message);
        return;
    }
    model_restart(r->m, clock_ms);
}

static void step_read(run *r, const model_step *s)
{
    const model_job *j = choose(r, s->a, s->b);
    if (s->kind == READ_LIST) {
        const int client = (int)(s->a % 5), state = s->b % 3 ? -1 : (int)(s->b / 3 % 5);
        compare_list(&r->cmp, r->m, client < MODEL_CLIENTS_MAX ? client : -1, state, s->c % 3 ? NULL : MODELS[s->c / 3 % 3], 1 + s->d % 20,
                     s->d / 32 % 2);
    } else if (s->kind == READ_STATS) {
        compare_stats(&r->cmp, r->m);
        for (uint32_t i = 0; i < 3; i++) {
            compare_description(&r->cmp, MODELS[i], r->descriptions[i]);
        }
    } else if (j) {
        compare_job(&r->cmp, r->m, (int)(j - r->m->jobs), s->c % 8);
    }
}

static void compare_everything(run *r)
{
    for (size_t i = 0; i < r->m->job_count && !r->cmp.differs; i++) {
        compare_job(&r->cmp, r->m, (int)i, 0);
    }
    compare_stats(&r->cmp, r->m);
    compare_list(&r->cmp, r->m, -1, -1, NULL, 100, false);
}

static void do_step(run *r, const model_step *s)
{
    static void (*const writes[KINDS])(run *, const model_step *) = {
        [ENQUEUE] = step_enqueue,        [CLAIM] = step_claim,      [IMAGE] = step_image,   [FAIL] = step_of_a_run,
        [CANCELED_DONE] = step_of_a_run, [REQUEUE] = step_of_a_run, [CANCEL] = step_cancel, [PURGE] = step_cancel,
        [RETENTION] = step_retention,    [MODEL] = step_model};
    if (writes[s->kind]) {
        writes[s->kind](r, s);
    } else if (s->kind == DEADLINES) {
        tell(r, "deadlines");
        ask(r, store_request_create(STORE_DEADLINES, NULL, NULL));
    } else {
        flush(r);
        if (s->kind == CLOCK) {
            step_clock(r, s);
        } else if (s->kind == RESTART) {
            step_restart(r);
        } else {
            step_read(r, s);
        }
    }
    if (r->group_count == GROUP_MAX || r->strict || s->d % 16 == 15) {
        flush(r);
    }
}

model_failure model_run_steps(const model_step *steps, size_t count, bool strict, bool told)
{
    model_failure failure = {0};
    run r = {.m = calloc(1, sizeof(model)), .strict = strict, .told = told};
    new_place();
    reset_ids();
    model *m = r.m;
    for (int i = 0; i < MODEL_CLIENTS_MAX; i++) {
        snprintf(m->clients[i], sizeof m->clients[i], "%s", CLIENTS[i]);
    }
    r.deep = count && steps[0].a % 8 == 0; /* more than are counted from the front for a place */
    m->queue_jobs_max = options.queue_jobs_max = r.deep ? 400 : 10 + (count ? steps[0].a % 40 : 0);
    m->queue_cost_max = options.queue_cost_max = count && steps[0].b % 2 && !r.deep ? 700 : 0;
    m->client_jobs_max = options.client_jobs_max = count && steps[0].c % 2 && !r.deep ? 20 : 0;
    m->keep_ms = options.keep_ms = count && steps[0].d % 4 ? 7 * DAY_MS : 0;
    if (open_store() != DN_OK) {
        differ(&r.cmp, "the store does not open: %s", error.message);
    }
    for (size_t i = 0; i < count && !r.cmp.differs; i++) {
        r.step = i;
        do_step(&r, &steps[i]);
        if (strict && !r.cmp.differs && (count <= STRICT_STEPS || i % STRICT_STEPS == 0)) {
            compare_everything(&r);
        }
        failure.steps = i + 1;
    }
    if (!r.cmp.differs) {
        flush(&r);
        compare_everything(&r);
    }
    for (size_t i = 0; i < r.group_count; i++) {
        store_request_free(r.group[i].request);
    }
    failure.failed = r.cmp.differs;
    snprintf(failure.what, sizeof failure.what, "%s", r.cmp.what);
    free(m);
    return failure;
}
