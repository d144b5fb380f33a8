/* Requests and results of the store: making them, freeing what they hold, and waiting for one. Any thread. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "server/store/sqlite_store.h"

void store_job_done(store_job *job)
{
    free(job->request_json);
    free(job->error_detail);
    *job = (store_job){0};
}

void store_images_free(store_image *images, size_t count)
{
    (void)count; /* an image owns nothing beyond its own bytes */
    free(images);
}

void store_events_free(store_event *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(events[i].data);
    }
    free(events);
}

store_request *store_request_create(store_op op, void (*done)(store_request *), void *payload)
{
    store_request *r = calloc(1, sizeof *r);
    if (r) {
        r->op = op;
        r->done = done;
        r->payload = payload;
    }
    return r;
}

void store_request_clear(store_request *r)
{
    free(r->ids);
    for (size_t i = 0; i < r->claimed_count; i++) {
        store_job_done(&r->claimed[i].job);
        free(r->claimed[i].done_indices);
    }
    free(r->claimed);
    for (size_t i = 0; i < r->file_count; i++) {
        free(r->files[i]);
    }
    free(r->files);
    free(r->job_body);
    r->job_body = NULL;
    r->ids = NULL;
    r->claimed = NULL;
    r->files = NULL;
    r->id_count = r->claimed_count = r->file_count = 0;
    r->job_ended = r->more = false;
    r->next_due_ms = 0;
    r->staged = 0;
    r->event_seq = 0;
    r->detail[0] = 0;
}

void store_request_free(store_request *r)
{
    if (!r) {
        return;
    }
    store_request_clear(r);
    for (size_t i = 0; i < r->job_count; i++) {
        free(r->jobs[i].request_json);
    }
    free(r->jobs);
    free(r->model_json);
    free(r);
}

bool store_add_file(store_request *r, sql *c, const char *name)
{
    char **grown = realloc(r->files, (r->file_count + 1) * sizeof *grown);
    if (grown) {
        r->files = grown;
        r->files[r->file_count] = strdup(name);
    }
    if (!grown || !r->files[r->file_count]) {
        sql_fail(c, SQLITE_NOMEM, "out of memory");
        return false;
    }
    r->file_count++;
    return true;
}

typedef struct call {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
} call;

static void call_done(store_request *r)
{
    call *waiting = r->payload;
    pthread_mutex_lock(&waiting->mutex);
    waiting->done = true;
    pthread_cond_signal(&waiting->ended);
    pthread_mutex_unlock(&waiting->mutex);
}

store_result store_call(store *s, store_request *r)
{
    call waiting = {.mutex = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};
    void *payload = r->payload;
    r->done = call_done;
    r->payload = &waiting;
    store_submit(s, r);
    pthread_mutex_lock(&waiting.mutex);
    while (!waiting.done) {
        pthread_cond_wait(&waiting.ended, &waiting.mutex);
    }
    pthread_mutex_unlock(&waiting.mutex);
    pthread_cond_destroy(&waiting.ended);
    pthread_mutex_destroy(&waiting.mutex);
    r->payload = payload;
    return r->result;
}
