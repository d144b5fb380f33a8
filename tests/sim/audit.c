/* The audit: reads the whole database as it is committed at this moment, and holds it against what clients were told, against what was seen
 * before, and against itself.
 *
 * lost: accepted, and not there. unexpected: there, and never asked for, or refused. duplicated: a key with two jobs (two results of one
 * image cannot be: the schema forbids the row; a picture that differs from the one its request means is found by its bytes). */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "tests/sim/world.h"

typedef struct seen_job {
    char id[27], end[12];
    int state;
    int64_t token, attempt, crashes, boots, images, events;
    bool expired, there;
    unsigned audit; /* that saw it last */
    bool may_be_gone; /* it had expired a month ago */
    uint64_t history; /* of the names of its events, in order */
} seen_job;

/* What a job's events have said, read in order. */
typedef struct told {
    int64_t count, started, images, requeued, crashed;
    bool ended, running, fine;
    uint64_t history, history_before; /* before: after as many as were there at the last audit */
    char last[16];
} told;

static seen_job seen[SIM_JOBS_MAX];
static size_t seen_count;
static unsigned audits;

bool audit_may_be_gone(const char *job)
{
    for (size_t i = 0; i < seen_count; i++)
        if (strcmp(seen[i].id, job) == 0)
            return seen[i].may_be_gone;
    return false;
}

void audit_month_passed(void)
{
    plan.month_passed = true;
    for (size_t i = 0; i < seen_count; i++)
        seen[i].may_be_gone |= seen[i].expired;
}

void audit_reset(void)
{
    memset(seen, 0, sizeof seen);
    seen_count = 0;
}

static seen_job *seen_find(const char *id)
{
    for (size_t i = 0; i < seen_count; i++)
        if (strcmp(seen[i].id, id) == 0)
            return &seen[i];
    if (seen_count == SIM_JOBS_MAX)
        return NULL;
    seen_job *s = &seen[seen_count++];
    snprintf(s->id, sizeof s->id, "%s", id);
    return s;
}

static sqlite3_stmt *prepare(const char *text)
{
    sqlite3_stmt *statement = NULL;
    return sqlite3_prepare_v2(oracle_database(), text, -1, &statement, NULL) == SQLITE_OK ? statement : NULL;
}

static const char *text_of(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text ? (const char *)text : "";
}

/* ---- Events: queued (started (image* requeued started)* image*)? end? */

static void read_event(told *t, const char *name, const char *data)
{
    const bool end = strcmp(name, "succeeded") == 0 || strcmp(name, "failed") == 0 || strcmp(name, "canceled") == 0;
    const bool first = t->count == 0;
    t->count++;
    t->fine &= !t->ended && first == (strcmp(name, "queued") == 0);
    if (strcmp(name, "started") == 0) {
        t->fine &= !t->running;
        t->running = true;
        t->started++;
    } else if (strcmp(name, "image") == 0) {
        t->fine &= t->running;
        t->images++;
    } else if (strcmp(name, "requeued") == 0) {
        t->fine &= t->running;
        t->running = false;
        t->requeued++;
        t->crashed += strstr(data, "\"worker-crashed\"") || strstr(data, "\"device-lost\"");
    } else if (!end && !first) {
        t->fine = false;
    }
    t->ended |= end;
    snprintf(t->last, sizeof t->last, "%s", name);
    for (; *name; name++)
        t->history = t->history * 31 + (unsigned char)*name;
}

static void count_event(const char *name, const char *data)
{
    static const char *const reasons[] = {"\"worker-crashed\"", "\"shutdown\"", "\"restart\"", "\"device-lost\""};
    static const sim_count counts[] = {COUNT_REQUEUED_CRASH, COUNT_REQUEUED_SHUTDOWN, COUNT_REQUEUED_RESTART, COUNT_REQUEUED_DEVICE};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, "requeued") == 0 && strstr(data, reasons[i]))
            sim_count_one(counts[i]);
}

static told read_events(sqlite3_stmt *statement, int64_t row, const seen_job *before)
{
    told t = {.fine = true};
    sqlite3_bind_int64(statement, 1, row);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        if (sqlite3_column_int64(statement, 0) != t.count + 1)
            t.fine = false;
        read_event(&t, text_of(statement, 1), text_of(statement, 2));
        if (t.count == before->events)
            t.history_before = t.history;
        else if (t.count > before->events)
            count_event(text_of(statement, 1), text_of(statement, 2));
    }
    sqlite3_reset(statement);
    return t;
}

/* ---- Images: every row has its file, and in it the picture that the request means */

static void check_image(sqlite3_stmt *statement, const char *id, const char *request, int64_t token)
{
    const unsigned index = (unsigned)sqlite3_column_int(statement, 0);
    const char *name = text_of(statement, 1);
    char path[160], hex[DN_SHA256_HEX_BYTES];
    unsigned char expected[SIM_PICTURE_BYTES], digest[32];
    unsigned made_index = 0;
    long long made_token = 0;
    const size_t bytes = sim_picture(expected, request, strlen(request), index);
    snprintf(path, sizeof path, "data/images/%s", name);
    const sim_file *file = sim_file_find(path);
    if (!file)
        sim_wrong("image %u of job %s has a row and no file", index, id);
    else if (sim_file_size(file) != bytes || memcmp(sim_file_bytes(file), expected, bytes) != 0)
        sim_wrong("image %u of job %s is not what was asked for", index, id);
    dn_sha256_of(digest, expected, bytes);
    dn_sha256_hex(hex, digest);
    if (strcmp(hex, text_of(statement, 2)) != 0)
        sim_wrong("image %u of job %s has another's checksum", index, id);
    if (sscanf(name, "%*26[a-z2-7]-%u-%lld.png", &made_index, &made_token) != 2 || made_index != index || made_token > token)
        sim_wrong("image %u of job %s lies in %s", index, id, name);
    if (sim_worker_told_early(id, index, made_token))
        sim_wrong("image %u of job %s was acknowledged before it was stored", index, id);
}

static int64_t check_images(sqlite3_stmt *statement, int64_t row, const char *id, const char *request, int64_t token)
{
    int64_t count = 0;
    sqlite3_bind_int64(statement, 1, row);
    for (; sqlite3_step(statement) == SQLITE_ROW; count++)
        check_image(statement, id, request, token);
    sqlite3_reset(statement);
    return count;
}

/* ---- One job */

typedef struct job_row {
    const char *id, *request, *code, *detail;
    int64_t row, token, attempt, crashes, boots, images;
    int state;
    bool cancel_requested, purge, expired, owned;
} job_row;

static job_row read_row(sqlite3_stmt *s)
{
    return (job_row){.row = sqlite3_column_int64(s, 0),
                     .id = text_of(s, 1),
                     .state = sqlite3_column_int(s, 2),
                     .cancel_requested = sqlite3_column_int(s, 3),
                     .purge = sqlite3_column_int(s, 4),
                     .expired = sqlite3_column_int(s, 5),
                     .token = sqlite3_column_int64(s, 6),
                     .attempt = sqlite3_column_int64(s, 7),
                     .crashes = sqlite3_column_int64(s, 8),
                     .boots = sqlite3_column_int64(s, 9),
                     .images = sqlite3_column_int64(s, 10),
                     .request = text_of(s, 11),
                     .code = text_of(s, 12),
                     .detail = text_of(s, 13)};
}

/* What was seen stays so: an end, a token, an attempt, the beginning of the history. */
static void check_progress(const job_row *j, const seen_job *s, const told *t)
{
    if (!s->there)
        return;
    if (s->state >= 2 && s->state != j->state)
        sim_wrong("job %s had ended as %d, and is %d", j->id, s->state, j->state);
    if (j->token < s->token || j->crashes < s->crashes || j->boots < s->boots || (s->expired && !j->expired))
        sim_wrong("job %s went back: token %lld to %lld, crashes %lld to %lld", j->id, (long long)s->token, (long long)j->token,
                  (long long)s->crashes, (long long)j->crashes);
    if (j->images < s->images)
        sim_wrong("job %s had %lld images, and has %lld", j->id, (long long)s->images, (long long)j->images);
    if (!j->expired && (t->count < s->events || t->history_before != s->history))
        sim_wrong("the history of job %s changed", j->id);
}

static void check_story(const job_row *j, const told *t)
{
    static const char *const ends[] = {"", "", "succeeded", "failed", "canceled"};
    if (!t->fine)
        sim_wrong("job %s has an impossible history, ending in %s", j->id, t->last);
    if (j->state == 0 && (t->running || t->ended))
        sim_wrong("job %s waits, and its history ends in %s", j->id, t->last);
    if (j->state == 1 && !t->running)
        sim_wrong("job %s runs, and its history ends in %s", j->id, t->last);
    if (j->state >= 2 && strcmp(t->last, ends[j->state]) != 0)
        sim_wrong("job %s is %s, and its history ends in %s", j->id, ends[j->state], t->last);
    if (t->started != j->token)
        sim_wrong("job %s has token %lld after %lld starts", j->id, (long long)j->token, (long long)t->started);
    if (t->images != j->images)
        sim_wrong("job %s tells of %lld images and counts %lld", j->id, (long long)t->images, (long long)j->images);
    const bool worn = j->state == 3 && (strcmp(j->code, "crashed") == 0 || strcmp(j->code, "device-lost") == 0);
    if (t->crashed != j->crashes && !(j->state >= 2 && t->crashed + 1 == j->crashes))
        sim_wrong("job %s counts %lld crashes and tells of %lld", j->id, (long long)j->crashes, (long long)t->crashed);
    if (worn && j->crashes < 3 && j->boots < 10)
        sim_wrong("job %s is given up after %lld crashes", j->id, (long long)j->crashes);
}

/* An attempt is what a lone crash has spent, and the one that runs. */
static void check_attempt(const job_row *j, const told *t)
{
    const int64_t running = j->state == 1 || (j->state >= 2 && t->running);
    const int64_t expected = j->crashes + running - (j->state >= 2 && t->crashed + 1 == j->crashes ? 1 : 0);
    if (!j->expired && j->attempt != expected)
        sim_wrong("job %s is at attempt %lld, with %lld crashes in state %d", j->id, (long long)j->attempt, (long long)j->crashes,
                  j->state);
    if (j->crashes > (int64_t)sim_worker_deaths())
        sim_wrong("job %s counts more crashes than workers died", j->id);
}

static void check_end(const job_row *j, const ledger_job *l, const seen_job *s)
{
    static const char *const codes[] = {"crashed", "deadline", "model-load", "engine", "storage", "device-lost"};
    static const sim_count counts[] = {COUNT_FAILED_CRASHED, COUNT_FAILED_DEADLINE, COUNT_FAILED_MODEL,
                                       COUNT_FAILED_ENGINE,  COUNT_FAILED_STORAGE,  COUNT_FAILED_DEVICE};
    if (j->state == 4 && !l->canceled)
        sim_wrong("job %s is canceled, and nobody asked for it", j->id);
    if (j->state == 2 && l->poison)
        sim_wrong("job %s made a picture that nobody can make", j->id);
    if (j->state == 3 && strcmp(j->code, "deadline") == 0 && !l->deadline_ms)
        sim_wrong("job %s missed a deadline that it does not have", j->id);
    if (j->state == 3 && plan.calm)
        sim_wrong("job %s failed (%s) without any trouble", j->id, j->code);
    if (strstr(j->detail, "No such file"))
        sim_wrong("job %s failed for a reason that the disk never gave: %s", j->id, j->detail);
    if (s->state >= 2)
        return;
    if (j->state == 2 || j->state == 4)
        sim_count_one(j->state == 2 ? COUNT_SUCCEEDED : COUNT_CANCELED);
    for (size_t i = 0; j->state == 3 && i < 6; i++)
        if (strcmp(j->code, codes[i]) == 0)
            sim_count_one(counts[i]);
}

static void check_job(const job_row *j, sqlite3_stmt *events, sqlite3_stmt *images)
{
    seen_job *s = seen_find(j->id);
    const ledger_job *l = ledger_find(j->id);
    if (!s || !l || l->known == KNOWN_NOT) {
        sim_wrong("unexpected: job %s is there, and was %s", j->id, l ? "refused" : "never posted");
        return;
    }
    const told t = read_events(events, j->row, s);
    check_progress(j, s, &t);
    if (!j->expired) {
        check_story(j, &t);
        if (strcmp(j->request, l->request) != 0)
            sim_wrong("the request of job %s changed", j->id);
        const int64_t count = check_images(images, j->row, j->id, l->request, j->token);
        if (count != j->images || (j->state == 2 && count != l->n))
            sim_wrong("job %s counts %lld images of %u, and has %lld", j->id, (long long)j->images, l->n, (long long)count);
    }
    check_attempt(j, &t);
    if (j->state >= 2)
        check_end(j, l, s);
    *s = (seen_job){.state = j->state,
                    .token = j->token,
                    .attempt = j->attempt,
                    .crashes = j->crashes,
                    .boots = j->boots,
                    .images = j->images,
                    .events = t.count,
                    .expired = j->expired,
                    .there = true,
                    .audit = audits,
                    .may_be_gone = s->may_be_gone,
                    .history = t.history};
    snprintf(s->id, sizeof s->id, "%s", j->id);
}

/* ---- All of it */

static void check_jobs(void)
{
    sqlite3_stmt *jobs = prepare("SELECT row,id,state,cancel_requested,purge,expired,token,attempt,crashes,boots,images_done,request,"
                                 "error_code,error_detail FROM job ORDER BY row");
    sqlite3_stmt *events = prepare("SELECT seq,name,data FROM event WHERE job=?1 ORDER BY seq");
    sqlite3_stmt *images = prepare("SELECT number,file,sha256 FROM image WHERE job=?1 ORDER BY number");
    int rc = jobs && events && images ? SQLITE_OK : SQLITE_ERROR;
    while (rc != SQLITE_ERROR && !sim_failed() && (rc = sqlite3_step(jobs)) == SQLITE_ROW) {
        const job_row j = read_row(jobs);
        check_job(&j, events, images);
    }
    if (rc != SQLITE_DONE && !sim_failed())
        sim_wrong("the database cannot be read: %s", sqlite3_errmsg(oracle_database()));
    sqlite3_finalize(jobs);
    sqlite3_finalize(events);
    sqlite3_finalize(images);
}

/* The answer to a question that must be 0. */
static void must_be_none(const char *question, const char *what)
{
    sqlite3_stmt *statement = prepare(question);
    if (statement && sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_int64(statement, 0))
        sim_wrong("%s (%lld)", what, (long long)sqlite3_column_int64(statement, 0));
    sqlite3_finalize(statement);
}

static void check_whole(void)
{
    must_be_none("SELECT count(*) FROM total t WHERE jobs!=(SELECT count(*) FROM job j WHERE j.state=t.state AND j.priority=t.priority)"
                 " OR cost!=(SELECT coalesce(sum(cost),0) FROM job j WHERE j.state=t.state AND j.priority=t.priority)",
                 "totals differ from a full count");
    must_be_none("SELECT bytes!=(SELECT coalesce(sum(bytes),0) FROM image) FROM image_total", "the total of image bytes is wrong");
    if (!plan.month_passed) /* then some jobs of a key may be forgotten before the others */
        must_be_none("SELECT count(*) FROM idempotency i WHERE length(jobs)!=26*(SELECT count(*) FROM job WHERE idempotency=i.row)",
                     "duplicated: a key names other jobs than it has");
    char question[160];
    snprintf(question, sizeof question, "SELECT coalesce(max(n),0)>%llu FROM (SELECT count(*) n FROM job WHERE state<2 GROUP BY client)",
             (unsigned long long)plan.client_jobs_max);
    if (plan.client_jobs_max)
        must_be_none(question, "a client has more than it may");
}

static void check_lost(void)
{
    for (size_t i = 0; i < ledger_count && !sim_failed(); i++) {
        const seen_job *s = ledger[i].known == KNOWN_ACCEPTED ? seen_find(ledger[i].id) : NULL;
        if (s && s->audit != audits && s->may_be_gone)
            sim_count_one(COUNT_FORGOTTEN);
        else if (s && s->audit != audits)
            sim_wrong("lost: job %s was accepted", ledger[i].id);
    }
}

static void no_litter(const char *name, sim_file *file, void *payload)
{
    (void)file;
    char question[256];
    snprintf(question, sizeof question, "SELECT 0=(SELECT count(*) FROM image WHERE file='%s')", name);
    must_be_none(question, payload);
}

void audit(bool final)
{
    if (!oracle_open())
        return;
    sim_count_one(COUNT_AUDITS);
    audits++;
    sqlite3_exec(oracle_database(), "BEGIN", NULL, NULL, NULL);
    check_jobs();
    check_whole();
    check_lost();
    if (final && !sim_failed()) {
        must_be_none("SELECT count(*) FROM job WHERE state<2", "jobs that never ended");
        sim_folder_each("data/images", no_litter, "a picture that no row knows");
    }
    sqlite3_exec(oracle_database(), "COMMIT", NULL, NULL, NULL);
}
