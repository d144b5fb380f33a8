/* The writer thread of the SQLite store: its bounded queue. */
#include "tests/store/store_harness.h"

/* A callback that holds the writer lets requests pile up behind it. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint busy, answered;
static atomic_bool held; /* the writer is in the callback */

static void hold_writer(store_request *r)
{
    atomic_store(&held, true);
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    store_request_free(r);
    atomic_fetch_add(&answered, 1);
}

static void count_answer(store_request *r)
{
    atomic_fetch_add(&busy, r->result == STORE_BUSY);
    store_request_free(r);
    atomic_fetch_add(&answered, 1);
}

static void a_full_writer_queue_is_busy(void)
{
    CHECK(fresh());
    busy = answered = 0;
    pthread_mutex_lock(&gate);
    store_request *first = store_request_create(STORE_RETENTION, hold_writer, NULL);
    store_submit(st, first);
    while (!atomic_load(&held)) {
        usleep(1000);
    }
    for (int i = 0; i < 1100; i++) {
        store_request *r = enqueue_request((spec){.jobs = 1});
        r->done = count_answer;
        store_submit(st, r);
    }
    unsigned refused = busy;
    store_request *result = store_request_create(STORE_RETENTION, count_answer, NULL);
    store_submit(st, result); /* results of running jobs still get in */
    unsigned refused_after = busy;
    pthread_mutex_unlock(&gate);
    close_store(); /* drains */
    CHECK_MSG(refused == 1100 - 1024 && refused_after == refused, "%u refused", refused);
    CHECK(answered == 1102);
    CHECK_OK(open_store(), error);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1024);
}

int main(void)
{
    RUN(a_full_writer_queue_is_busy);
    end_store_tests();
    return test_end();
}
