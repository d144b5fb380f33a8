/* A job's row as a value, its milestones, and the three ways it stops running: ended, given up, back in the queue.
 *
 * Invariant: whoever changes a job's state writes the milestone that tells it in the same transaction, with the bytes that every
 * later reader will see. Writer thread, except what takes a connection. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "server/store/sqlite_store.h"

static void copy_text(sql *c, char *out, size_t out_bytes, sqlite3_stmt *statement, int column)
{
    snprintf(out, out_bytes, "%s", sql_column(c, statement, column));
}

bool store_read_job(sql *c, sqlite3_stmt *statement, store_job *out)
{
    *out = (store_job){
        .row = sqlite3_column_int64(statement, 0),
        .state = (api_state)sqlite3_column_int(statement, 3),
        .cancel_requested = sqlite3_column_int(statement, 4),
        .expired = sqlite3_column_int(statement, 5),
        .priority = sqlite3_column_int(statement, 6),
        .cost = (uint64_t)sqlite3_column_int64(statement, 7),
        .created_ms = sqlite3_column_int64(statement, 8),
        .started_ms = sqlite3_column_int64(statement, 9),
        .finished_ms = sqlite3_column_int64(statement, 10),
        .expires_ms = sqlite3_column_int64(statement, 11),
        .attempt = (uint32_t)sqlite3_column_int(statement, 12),
        .crashes = (uint32_t)sqlite3_column_int(statement, 13),
        .boots = (uint32_t)sqlite3_column_int(statement, 14),
        .token = sqlite3_column_int64(statement, 15),
        .n = (uint32_t)sqlite3_column_int(statement, 16),
        .images_done = (uint32_t)sqlite3_column_int(statement, 17),
        .request_json = sql_column_copy(c, statement, 19),
        .error_detail = sql_column_copy(c, statement, 21),
        .run_at_ms = sqlite3_column_int64(statement, 22),
    };
    copy_text(c, out->id, sizeof out->id, statement, 1);
    copy_text(c, out->client, sizeof out->client, statement, 2);
    copy_text(c, out->model, sizeof out->model, statement, 18);
    copy_text(c, out->error_code, sizeof out->error_code, statement, 20);
    copy_text(c, out->trace, sizeof out->trace, statement, 23);
    if (c->code) {
        store_job_done(out);
    }
    return !c->code;
}

static void read_image(sql *c, sqlite3_stmt *statement, store_image *out)
{
    *out = (store_image){
        .index = (uint32_t)sqlite3_column_int(statement, 0),
        .view.index = (uint32_t)sqlite3_column_int(statement, 0),
        .view.seed = (uint64_t)sqlite3_column_int64(statement, 2),
        .view.width = (uint32_t)sqlite3_column_int(statement, 3),
        .view.height = (uint32_t)sqlite3_column_int(statement, 4),
        .view.bytes = (uint64_t)sqlite3_column_int64(statement, 5),
    };
    copy_text(c, out->file, sizeof out->file, statement, 1);
    copy_text(c, out->view.sha256, sizeof out->view.sha256, statement, 6);
    copy_text(c, out->view.pixels_sha256, sizeof out->view.pixels_sha256, statement, 7);
    copy_text(c, out->view.device, sizeof out->view.device, statement, 8);
    copy_text(c, out->view.build, sizeof out->view.build, statement, 9);
    out->view.evaluations = (uint32_t)sqlite3_column_int(statement, 10);
}

bool store_read_images(sql *c, int64_t row, store_image **out, size_t *count)
{
    store_image *images = NULL;
    size_t used = 0;
    sqlite3_stmt *statement = sql_row(c, SQL_IMAGES, "i", row);
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        store_image *grown = realloc(images, (used + 1) * sizeof *images);
        if (!grown) {
            sql_fail(c, SQLITE_NOMEM, "out of memory");
            break;
        }
        images = grown;
        read_image(c, statement, &images[used++]);
    }
    sql_end(statement);
    if (c->code) {
        free(images);
        return false;
    }
    *out = images;
    *count = used;
    return true;
}

bool store_fetch(sql *c, const char *id, store_job *out)
{
    sqlite3_stmt *statement = sql_row(c, SQL_JOB_GET, "t", id);
    bool found = statement && store_read_job(c, statement, out);
    sql_end(statement);
    return found;
}

void store_event_take(store *s, int64_t row, const char *name, char *data, int64_t *seq)
{
    if (!data) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return;
    }
    *seq = sql_integer(&s->writer, SQL_EVENT_ADD, 0, "itt", row, name, data);
    free(data);
}

void store_job_view(const store_job *job, const api_image_view *images, size_t count, api_job_view *out)
{
    api_request request = {0};
    bool known = job->request_json && api_request_from_json(&request, job->request_json, strlen(job->request_json));
    uint64_t steps = known ? request.steps : 0;
    const dn_sampler *sampler = known ? dn_sampler_find(request.sampler) : NULL;
    *out = (api_job_view){
        .state = job->state,
        .cancel_requested = job->cancel_requested,
        .created_ms = job->created_ms,
        .started_ms = job->started_ms,
        .finished_ms = job->finished_ms,
        .expires_ms = job->expires_ms,
        .request_json = job->request_json,
        .adaptive = sampler && sampler->adaptive,
        .done = steps * job->images_done,
        .total = steps * job->n,
        .images_done = job->images_done,
        .lane_rows = known ? api_request_rows(&request) : 0,
        .queue_position = -1,
        .eta_seconds = -1,
        .attempt = job->attempt,
        .images = images,
        .image_count = (uint32_t)count,
        .error_code = job->error_code[0] ? job->error_code : NULL,
        .error_detail = job->error_detail,
    };
    memcpy(out->id, job->id, sizeof out->id);
}

char *store_job_text(store *s, const store_job *job, store_job_writer *write)
{
    store_image *images = NULL;
    size_t count = 0;
    if (!store_read_images(&s->writer, job->row, &images, &count)) {
        return NULL;
    }
    api_image_view *views = calloc(count + 1, sizeof *views);
    char *body = NULL;
    if (views) {
        for (size_t i = 0; i < count; i++) {
            views[i] = images[i].view;
        }
        api_job_view view;
        store_job_view(job, views, count, &view);
        body = write(&view, s->base_path);
    }
    free(views);
    store_images_free(images, count);
    return body; // cppcheck-suppress returnDanglingLifetime ; a text of its own, not the view
}

bool store_finish(store *s, const store_job *job, api_state state, const char *code, const char *detail, int64_t *seq)
{
    int64_t now = store_now(s);
    int64_t expires = s->options.keep_ms > 0 ? now + s->options.keep_ms : 0;
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_JOB_END, "iiiitt", job->row, (int64_t)state, now, expires, code, detail);
    store_job ended;
    bool read = statement && store_read_job(&s->writer, statement, &ended);
    sql_end(statement);
    if (!read) {
        return false;
    }
    /* The last milestone: the whole job as it will be shown from now on. */
    store_event_take(s, ended.row, api_state_name(ended.state), store_job_text(s, &ended, api_event_ended), seq);
    store_outbox_add(s, &ended);
    store_job_done(&ended);
    return !s->writer.code;
}

static void add_two(sqlite3_stmt *statement, int64_t sign, int64_t *jobs, int64_t *cost)
{
    if (statement) {
        *jobs += sign * sqlite3_column_int64(statement, 0);
        *cost += sign * sqlite3_column_int64(statement, 1);
    }
    sql_end(statement);
}

/* A queue may be ten thousand deep, and every new job asks: most are near its end, most polls are about jobs near its front. */
void store_ahead(sql *c, int64_t priority, int64_t turn, int64_t row, int64_t *jobs, int64_t *cost)
{
    *jobs = 0;
    *cost = 0;
    add_two(sql_row(c, SQL_BEFORE, "iiii", priority, turn, row, (int64_t)STORE_AHEAD_NEAR), 1, jobs, cost);
    const bool far = *jobs == STORE_AHEAD_NEAR;
    if (far) {
        *jobs = 0;
        *cost = 0;
        add_two(sql_row(c, SQL_LEVEL, "i", priority), 1, jobs, cost);
        add_two(sql_row(c, SQL_FROM, "iii", priority, turn, row), -1, jobs, cost);
    }
    add_two(sql_row(c, SQL_HIGHER, "i", priority), 1, jobs, cost);
    add_two(sql_row(c, SQL_DELAYED_FROM, "i", far ? priority : priority + 1), -1, jobs, cost); /* totals count the delayed ones too */
}

bool store_give_up(store *s, const store_job *job, const char *code, const char *detail, int64_t *seq)
{
    if (job->cancel_requested) {
        return store_finish(s, job, API_STATE_CANCELED, NULL, NULL, seq);
    }
    return store_finish(s, job, API_STATE_FAILED, code, detail, seq);
}

bool store_requeue(store *s, const store_job *job, const char *reason, const char *cause, bool crashed, bool boot, int64_t *seq)
{
    bool worn = (crashed && job->crashes + 1 >= STORE_CRASHES_MAX) || (boot && job->boots + 1 >= STORE_BOOTS_MAX);
    if (worn || job->cancel_requested) {
        const bool device = crashed && strcmp(reason, "device-lost") == 0;
        char detail[256];
        snprintf(detail, sizeof detail, "%s %d times while this job ran%s%.128s",
                 device    ? "the device was lost"
                 : crashed ? "the worker crashed"
                           : "the server stopped without notice",
                 crashed ? STORE_CRASHES_MAX : STORE_BOOTS_MAX, cause[0] ? ", the last time by " : "", cause);
        return sql_run(&s->writer, SQL_JOB_STRIKES, "iii", job->row, (int64_t)crashed, (int64_t)boot) &&
               store_give_up(s, job, device ? "device-lost" : "crashed", detail, seq);
    }
    const int64_t delay = job->crashes ? STORE_DELAY_MAX_MS : STORE_DELAY_MS, run_at = crashed ? store_now(s) + delay : 0;
    if (!sql_run(&s->writer, SQL_JOB_REQUEUE, "iiiii", job->row, (int64_t)!crashed, (int64_t)crashed, (int64_t)boot, run_at)) {
        return false;
    }
    store_event_take(s, job->row, "requeued", api_event_requeued(reason, job->attempt), seq);
    return !s->writer.code;
}
