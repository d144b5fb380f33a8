/* Counters, gauges and histograms, and their text form (Prometheus exposition 0.0.4).
 *
 * Invariant: every number is an atomic of its own, so that recording never waits; requests (metrics_http.c) and
 * the images of the last minute alone have locks, held for a few additions. A scrape may see a histogram between two of its additions. Any thread. */
#include "server/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { BUCKETS_MAX = 16, IMAGE_SLOTS = 64 };

typedef struct counter_text {
    const char *name, *help;
} counter_text;

static const counter_text counters[METRIC_COUNTERS] = {
    [METRIC_JOBS_ACCEPTED] = {"denoised_jobs_accepted_total", "Jobs stored."},
    [METRIC_JOBS_SUCCEEDED] = {"denoised_jobs_succeeded_total", "Jobs that ended with all their images."},
    [METRIC_JOBS_FAILED] = {"denoised_jobs_failed_total", "Jobs that ended in failure."},
    [METRIC_JOBS_CANCELED] = {"denoised_jobs_canceled_total", "Jobs that were canceled."},
    [METRIC_JOBS_REQUEUED] = {"denoised_jobs_requeued_total", "Times a running job went back to the queue."},
    [METRIC_IMAGES] = {"denoised_images_total", "Images stored."},
    [METRIC_STEPS] = {"denoised_steps_total", "Sampler steps finished."},
    [METRIC_ROWS] = {"denoised_network_rows_total", "Rows evaluated by networks."},
    [METRIC_TICKS] = {"denoised_ticks_total", "Ticks of running batches."},
    [METRIC_WORKER_RESTARTS] = {"denoised_worker_restarts_total", "Worker processes started after one ended or froze."},
    [METRIC_LANES_SET_ASIDE] = {"denoised_lanes_set_aside_total", "Times a running image made way for a more urgent one."},
    [METRIC_STEPS_REDONE] = {"denoised_steps_redone_total",
                             "Sampler steps made again after a worker was lost: those since an image's last snapshot."},
    [METRIC_LANES_RESUMED] = {"denoised_lanes_resumed_total", "Images continued from a snapshot."},
    [METRIC_WEBHOOKS_DELIVERED] = {"denoised_webhooks_delivered_total", "Ends of jobs told to their receivers."},
    [METRIC_WEBHOOKS_FAILED] = {"denoised_webhooks_failed_total", "Tries to tell a receiver that failed."},
    [METRIC_WEBHOOKS_GIVEN_UP] = {"denoised_webhooks_given_up_total", "Ends of jobs that could not be told."},
    [METRIC_ACCEPT_PAUSES] = {"denoised_accept_pauses_total",
                              "Pauses of 0.1 s in accepting connections, for want of descriptors or memory."},
    [METRIC_STEPS_WASTED] = {"denoised_steps_wasted_total", "Sampler steps of images that were not wanted any more, or failed."},
};

static const counter_text gauges[METRIC_GAUGES] = {
    [METRIC_STREAMS] = {"denoised_event_streams", "Open event streams."},
    [METRIC_LANES_RUNNING] = {"denoised_lanes_running", "Images being made."},
    [METRIC_WORKERS] = {"denoised_workers", "Workers that are up."},
};

typedef struct histogram_text {
    const char *name, *help;
    double bounds[BUCKETS_MAX]; /* ascending; 0 ends */
} histogram_text;

static const histogram_text histograms[METRIC_HISTOGRAMS] = {
    [METRIC_TICK_SECONDS] = {"denoised_tick_seconds",
                             "Duration of a tick.",
                             {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}},
    [METRIC_TICK_ROWS] = {"denoised_tick_rows", "Network rows per tick.", {1, 2, 4, 8, 16, 32, 64, 128}},
    [METRIC_QUEUE_WAIT_SECONDS] = {"denoised_queue_wait_seconds",
                                   "From acceptance to start.",
                                   {.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 7200}},
    [METRIC_ADMISSION_WAIT_SECONDS] = {"denoised_admission_wait_seconds",
                                       "From acceptance of a job until an image of it enters a batch.",
                                       {.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 7200}},
    [METRIC_JOB_SECONDS] = {"denoised_job_seconds", "From start to end of a job.", {.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}},
    [METRIC_COMMIT_SECONDS] = {"denoised_store_commit_seconds",
                               "Duration of a group commit.",
                               {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}},
    [METRIC_COMMIT_WRITES] = {"denoised_store_commit_writes", "Writes that shared a group commit.", {1, 2, 4, 8, 16, 32, 64, 128}},
    [METRIC_JOB_LATENCY_SECONDS] = {"denoised_job_latency_seconds",
                                    "From acceptance to end of a job.",
                                    {.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}},
};

typedef struct histogram_value {
    atomic_uint_fast64_t buckets[BUCKETS_MAX + 1]; /* the last: +Inf */
    _Atomic double sum;
    _Atomic double recent[METRICS_RECENT]; /* a ring */
    atomic_uint_fast64_t observed; /* values that it has had */
} histogram_value;

struct metrics {
    atomic_uint_fast64_t counter[METRIC_COUNTERS];
    atomic_int_fast64_t gauge[METRIC_GAUGES];
    histogram_value histogram[METRIC_HISTOGRAMS];
    metrics_http *http;
    pthread_mutex_t lock; /* the two fields below */
    uint64_t image_seconds[IMAGE_SLOTS]; /* the second that a slot counts for */
    uint64_t images[IMAGE_SLOTS];
};

dn_status metrics_create(metrics **out, dn_error *error)
{
    metrics *m = calloc(1, sizeof *m);
    if (!m)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the metrics");
    m->http = metrics_http_create();
    if (!m->http) {
        free(m);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the metrics");
    }
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return DN_OK;
}

void metrics_free(metrics *m)
{
    if (!m)
        return;
    metrics_http_free(m->http);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static void count_images(metrics *m, uint64_t amount)
{
    const uint64_t second = (uint64_t)dn_now_seconds();
    const size_t slot = second % IMAGE_SLOTS;
    pthread_mutex_lock(&m->lock);
    if (m->image_seconds[slot] != second)
        m->images[slot] = 0;
    m->image_seconds[slot] = second;
    m->images[slot] += amount;
    pthread_mutex_unlock(&m->lock);
}

/* The second that has begun counts for the part of it that is over. */
double metrics_images_per_second(metrics *m, unsigned seconds)
{
    const double now = dn_now_seconds();
    const uint64_t second = (uint64_t)now;
    uint64_t count = 0;
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < IMAGE_SLOTS; i++)
        if (m->image_seconds[i] <= second && second - m->image_seconds[i] < seconds)
            count += m->images[i];
    pthread_mutex_unlock(&m->lock);
    return (double)count / (seconds - 1 + (now - (double)second));
}

void metrics_add(metrics *m, metrics_counter counter, uint64_t amount)
{
    if (counter == METRIC_IMAGES)
        count_images(m, amount);
    atomic_fetch_add_explicit(&m->counter[counter], amount, memory_order_relaxed);
}

static void add_double(_Atomic double *to, double value)
{
    double old = atomic_load_explicit(to, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(to, &old, old + value)) {
    }
}

static size_t bound_count(const histogram_text *text)
{
    size_t count = 0;
    while (count < BUCKETS_MAX && text->bounds[count] > 0)
        count++;
    return count;
}

void metrics_observe(metrics *m, metrics_histogram histogram, double value)
{
    const histogram_text *text = &histograms[histogram];
    const size_t bounds = bound_count(text);
    size_t bucket = 0;
    while (bucket < bounds && value > text->bounds[bucket])
        bucket++;
    atomic_fetch_add_explicit(&m->histogram[histogram].buckets[bucket], 1, memory_order_relaxed);
    add_double(&m->histogram[histogram].sum, value);
    const uint64_t number = atomic_fetch_add_explicit(&m->histogram[histogram].observed, 1, memory_order_relaxed);
    atomic_store_explicit(&m->histogram[histogram].recent[number % METRICS_RECENT], value, memory_order_relaxed);
}

static int ascending(const void *a, const void *b)
{
    const double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

static size_t copy_recent(metrics *m, metrics_histogram histogram, double out[METRICS_RECENT])
{
    const uint64_t observed = atomic_load_explicit(&m->histogram[histogram].observed, memory_order_relaxed);
    const size_t count = observed < METRICS_RECENT ? (size_t)observed : METRICS_RECENT;
    for (size_t i = 0; i < count; i++)
        out[i] = atomic_load_explicit(&m->histogram[histogram].recent[i], memory_order_relaxed);
    return count;
}

double metrics_quantile(metrics *m, metrics_histogram histogram, double share)
{
    double values[METRICS_RECENT];
    const size_t count = copy_recent(m, histogram, values);
    if (!count)
        return NAN;
    qsort(values, count, sizeof values[0], ascending);
    const double rank = ceil(share * (double)count);
    return values[rank < 1 ? 0 : (size_t)rank - 1];
}

double metrics_mean(metrics *m, metrics_histogram histogram)
{
    double values[METRICS_RECENT], sum = 0;
    const size_t count = copy_recent(m, histogram, values);
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    return count ? sum / (double)count : (double)NAN;
}

void metrics_set(metrics *m, metrics_gauge gauge, int64_t value)
{
    atomic_store_explicit(&m->gauge[gauge], value, memory_order_relaxed);
}

void metrics_change(metrics *m, metrics_gauge gauge, int64_t by)
{
    atomic_fetch_add_explicit(&m->gauge[gauge], by, memory_order_relaxed);
}

void metrics_request(metrics *m, const char *route, const char *method, int status, double seconds)
{
    metrics_http_count(m->http, route, method, status, seconds);
}

void metrics_refused(metrics *m, api_code code)
{
    metrics_http_refused(m->http, code);
}

static void write_histogram(FILE *f, const histogram_text *text, histogram_value *value)
{
    const size_t bounds = bound_count(text);
    uint64_t total = 0;
    fprintf(f, "# HELP %s %s\n# TYPE %s histogram\n", text->name, text->help, text->name);
    for (size_t b = 0; b <= bounds; b++) {
        total += atomic_load_explicit(&value->buckets[b], memory_order_relaxed);
        if (b < bounds)
            fprintf(f, "%s_bucket{le=\"%g\"} %llu\n", text->name, text->bounds[b], (unsigned long long)total);
        else
            fprintf(f, "%s_bucket{le=\"+Inf\"} %llu\n", text->name, (unsigned long long)total);
    }
    fprintf(f, "%s_sum %.9g\n%s_count %llu\n", text->name, atomic_load(&value->sum), text->name, (unsigned long long)total);
}

/* Backslash, quote and line feed are escaped, as the format asks. */
void metrics_write_label(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            fputc('\\', f);
        if (*text == '\n')
            fputs("\\n", f);
        else
            fputc(*text, f);
    }
}

void metrics_write_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_write_gauge(FILE *out, const char *name, const char *help, double value)
{
    metrics_write_family(out, name, "gauge", help);
    fprintf(out, "%s %.15g\n", name, value);
}

void metrics_write_counter(FILE *out, const char *name, const char *help, double value)
{
    metrics_write_family(out, name, "counter", help);
    fprintf(out, "%s %.15g\n", name, value);
}

char *metrics_text(metrics *m, const char *extra)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return NULL;
    for (size_t i = 0; i < METRIC_COUNTERS; i++)
        fprintf(f, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", counters[i].name, counters[i].help, counters[i].name, counters[i].name,
                (unsigned long long)atomic_load_explicit(&m->counter[i], memory_order_relaxed));
    for (size_t i = 0; i < METRIC_GAUGES; i++)
        fprintf(f, "# HELP %s %s\n# TYPE %s gauge\n%s %lld\n", gauges[i].name, gauges[i].help, gauges[i].name, gauges[i].name,
                (long long)atomic_load_explicit(&m->gauge[i], memory_order_relaxed));
    for (size_t i = 0; i < METRIC_HISTOGRAMS; i++)
        write_histogram(f, &histograms[i], &m->histogram[i]);
    metrics_http_write(m->http, f);
    if (extra)
        fputs(extra, f);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
