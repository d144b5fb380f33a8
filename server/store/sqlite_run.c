/* What happens to a job after its claim: images, failure, cancel, requeue. Every result of a run is fenced: it counts only while the
 * job runs under the token it was claimed with, else the answer is STORE_STALE and nothing changes. Writer thread. */
#include <stdio.h>
#include <string.h>

#include "server/store/sqlite_store.h"

/* The job if it runs under the request's token. STORE_OK: *job is filled and the caller's to free. */
static store_result fetch_running(store *s, const store_request *r, store_job *job)
{
    if (!store_fetch(&s->writer, r->id, job)) {
        return STORE_NONE;
    }
    if (job->state == API_STATE_RUNNING && job->token == r->token) {
        return STORE_OK;
    }
    store_job_done(job);
    return STORE_STALE;
}

/* The job for its client. STORE_OK: *job is filled and the caller's to free. */
static store_result fetch_owned(store *s, const store_request *r, store_job *job)
{
    if (!store_fetch(&s->writer, r->id, job)) {
        return STORE_NONE;
    }
    bool owned = !r->client[0] || strcmp(r->client, job->client) == 0;
    if (owned && !job->expired) {
        return STORE_OK;
    }
    store_job_done(job);
    return owned ? STORE_GONE : STORE_NONE;
}

static void read_state(store *s, store_request *r)
{
    store_job after;
    if (store_fetch(&s->writer, r->id, &after)) {
        r->state_after = after.state;
        r->job_ended = api_state_ended(after.state);
        store_job_done(&after);
    }
}

/* Inserts the row. STORE_STALE: this index was made before, by another file. *again: by this very file. */
static store_result add_image(store *s, const store_request *r, const store_job *job, bool *again)
{
    sql *c = &s->writer;
    const api_image_view *v = &r->image.view;
    int64_t number = r->image.index;
    sqlite3_stmt *statement = sql_row(c, SQL_IMAGE_FILE, "ii", job->row, number);
    if (statement) {
        *again = strcmp(sql_column(c, statement, 0), r->image.file) == 0;
        sql_end(statement);
        return *again ? STORE_OK : STORE_STALE;
    }
    sql_run(c, SQL_IMAGE_ADD, "iitiiiitttti", job->row, number, r->image.file, (int64_t)v->seed, (int64_t)v->width, (int64_t)v->height,
            (int64_t)v->bytes, v->sha256, v->pixels_sha256, v->device, v->build, (int64_t)v->evaluations);
    return STORE_OK;
}

store_result store_do_image(store *s, store_request *r)
{
    sql *c = &s->writer;
    store_job job;
    store_result result = fetch_running(s, r, &job);
    if (result != STORE_OK) {
        return result;
    }
    bool again = false;
    result = r->image.index < job.n ? add_image(s, r, &job, &again) : STORE_STALE;
    if (result == STORE_OK && !again) {
        int64_t done = sql_integer(c, SQL_IMAGE_COUNTED, 0, "i", job.row);
        api_image_view view = r->image.view;
        view.index = r->image.index;
        const char *base_path = r->base_path ? r->base_path : s->base_path;
        store_event_take(s, job.row, "image", api_event_image(job.id, &view, base_path), &r->event_seq);
        if (!c->code && done == job.n) {
            store_finish(s, &job, job.cancel_requested ? API_STATE_CANCELED : API_STATE_SUCCEEDED, NULL, NULL, &r->event_seq);
        }
    }
    store_job_done(&job);
    read_state(s, r);
    return result;
}

store_result store_do_fail(store *s, store_request *r)
{
    store_job job;
    store_result result = fetch_running(s, r, &job);
    if (result == STORE_OK) {
        store_give_up(s, &job, r->error_code[0] ? r->error_code : "engine", r->error_detail, &r->event_seq);
        store_job_done(&job);
        read_state(s, r);
    }
    return result;
}

store_result store_do_canceled(store *s, store_request *r)
{
    store_job job;
    store_result result = fetch_running(s, r, &job);
    if (result == STORE_OK) {
        store_finish(s, &job, API_STATE_CANCELED, NULL, NULL, &r->event_seq);
        store_job_done(&job);
        read_state(s, r);
    }
    return result;
}

store_result store_do_requeue(store *s, store_request *r)
{
    store_job job;
    store_result result = fetch_running(s, r, &job);
    if (result == STORE_OK) {
        store_requeue(s, &job, r->reason, r->error_detail, r->crashed_alone, false, &r->event_seq);
        store_job_done(&job);
        read_state(s, r);
        r->next_due_ms = store_next_due(s);
    }
    return result;
}

/* A queued job ends at once; a running one is asked to. purge: its files go as soon as it has ended. */
static void cancel(store *s, store_request *r, const store_job *job, bool purge)
{
    if (job->state == API_STATE_QUEUED) {
        store_finish(s, job, API_STATE_CANCELED, NULL, NULL, &r->event_seq);
    } else {
        sql_run(&s->writer, SQL_CANCEL_REQUEST, "ii", job->row, (int64_t)purge);
        r->event_seq = sql_integer(&s->writer, SQL_LAST_EVENT, 0, "i", job->row);
    }
}

store_result store_do_cancel(store *s, store_request *r)
{
    store_job job;
    store_result result = fetch_owned(s, r, &job);
    if (result != STORE_OK) {
        return result;
    }
    r->state_after = job.state;
    if (api_state_ended(job.state)) {
        result = STORE_ENDED;
        r->event_seq = sql_integer(&s->writer, SQL_LAST_EVENT, 0, "i", job.row);
    } else {
        cancel(s, r, &job, false);
        read_state(s, r);
    }
    store_job_done(&job);
    return result;
}

/* Takes an ended job's results; what it was is kept for the answer. */
static void expire_told(store *s, store_request *r)
{
    store_job ended;
    if (!store_fetch(&s->writer, r->id, &ended)) {
        return;
    }
    r->job_body = store_job_text(s, &ended, api_job_body);
    if (r->job_body) {
        store_expire(s, r, ended.row);
    } else {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
    }
    store_job_done(&ended);
}

store_result store_do_purge(store *s, store_request *r)
{
    store_job job;
    store_result result = fetch_owned(s, r, &job);
    if (result != STORE_OK) {
        return result;
    }
    if (!api_state_ended(job.state)) {
        cancel(s, r, &job, true);
        read_state(s, r);
    }
    if (api_state_ended(job.state) || r->job_ended) {
        expire_told(s, r);
        read_state(s, r);
    }
    store_job_done(&job);
    return STORE_OK;
}

store_result store_do_model(store *s, store_request *r)
{
    sql_run(&s->writer, SQL_MODEL_SET, "tti", r->model_name, r->model_json, store_now(s));
    return STORE_OK;
}
