/* What the daemon does: GET /metrics for Prometheus, GET /stats for an operator's page. Both read what others count, and wait for
 * nothing but a reader of the store. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/stats_body.h"
#include "base/clock.h"
#include "server/process_usage.h"
#include "server/service.h"

/* ---- /metrics: what is not counted by events, but is there to be looked at */

static void write_jobs(FILE *out, const store_stats *stats)
{
    metrics_write_family(out, "denoised_jobs", "gauge", "Jobs in the store by state.");
    for (int state = 0; state < 5; state++) {
        fprintf(out, "denoised_jobs{state=\"%s\"} %llu\n", api_state_name((api_state)state), (unsigned long long)stats->jobs[state]);
    }
    metrics_write_gauge(out, "denoised_queue_depth", "Jobs waiting.", (double)stats->jobs[API_STATE_QUEUED]);
    metrics_write_gauge(out, "denoised_queue_evaluations", "Network rows waiting.", (double)stats->queued_cost);
    metrics_write_gauge(out, "denoised_image_bytes", "Bytes of stored images.", (double)stats->image_bytes);
    metrics_write_gauge(out, "denoised_webhooks_pending", "Webhooks that are still to be told of the end of their job.",
                        (double)stats->outbox);
}

static void write_store(FILE *out, const service *s)
{
    store_disk disk;
    store_get_disk(s->store, &disk);
    metrics_write_gauge(out, "denoised_database_checked", "Whether the whole database has been looked through since the start.",
                        store_sound(s->store) == STORE_SOUND);
    metrics_write_gauge(out, "denoised_store_database_bytes", "Bytes of the database, without its write-ahead log.",
                        (double)disk.database_bytes);
    metrics_write_gauge(out, "denoised_store_wal_bytes", "Bytes of the write-ahead log.", (double)disk.wal_bytes);
    metrics_write_gauge(out, "denoised_store_free_bytes", "Bytes that the data directory's file system has left.", (double)disk.free_bytes);
}

static void write_models(FILE *out, models *all)
{
    metrics_write_family(out, "denoised_model_memory_bytes", "gauge",
                         "Bytes of the workers' memory that a model takes, weights and workspaces; 0 unless its state is ready.");
    for (size_t i = 0; i < models_count(all); i++) {
        const char *name = models_name(all, i);
        fprintf(out, "denoised_model_memory_bytes{model=\"%s\",state=\"%s\"} %llu\n", name,
                models_state_name(models_state(all, name, NULL, 0)), (unsigned long long)models_bytes(all, name));
    }
}

/* One line of a family that has one for each worker. */
static void write_of_worker(FILE *out, const char *name, unsigned index, const dispatcher_worker *worker, double value)
{
    fprintf(out, "%s{worker=\"%u\",device=\"", name, index);
    metrics_write_label(out, worker->device);
    fprintf(out, "\"} %.15g\n", value);
}

static void write_workers(FILE *out, dispatcher *d)
{
    static const char up[] = "denoised_worker_up", cpu[] = "denoised_worker_cpu_seconds_total",
                      memory[] = "denoised_worker_resident_memory_bytes";
    dispatcher_worker workers[DN_DEVICES_MAX + 1];
    const unsigned count = dispatcher_worker_count(d);
    for (unsigned i = 0; i < count; i++)
        dispatcher_get_worker(d, i, &workers[i]);
    metrics_write_family(out, up, "gauge", "Whether there is a process of this worker.");
    for (unsigned i = 0; i < count; i++)
        write_of_worker(out, up, i, &workers[i], workers[i].pid != 0);
    metrics_write_family(out, cpu, "counter", "Processor time of the worker's process.");
    for (unsigned i = 0; i < count; i++)
        write_of_worker(out, cpu, i, &workers[i], workers[i].cpu_seconds);
    metrics_write_family(out, memory, "gauge", "Memory of the worker's process.");
    for (unsigned i = 0; i < count; i++)
        write_of_worker(out, memory, i, &workers[i], (double)workers[i].resident_bytes);
}

/* The names that every exporter has for its own process. */
static void write_process(FILE *out)
{
    process_usage own;
    if (process_usage_read(&own, 0)) {
        metrics_write_counter(out, "process_cpu_seconds_total", "Processor time of the daemon, without its workers.", own.cpu_seconds);
        metrics_write_gauge(out, "process_start_time_seconds", "When the daemon was started, in seconds since 1970.", own.start_seconds);
        metrics_write_gauge(out, "process_resident_memory_bytes", "Memory of the daemon, without its workers.", (double)own.resident_bytes);
        metrics_write_gauge(out, "process_virtual_memory_bytes", "Address space of the daemon.", (double)own.virtual_bytes);
        metrics_write_gauge(out, "process_threads", "Threads of the daemon.", own.threads);
        metrics_write_gauge(out, "process_open_fds", "Open descriptors of the daemon.", own.open_fds);
        metrics_write_gauge(out, "process_max_fds", "Descriptors that it may have.", own.max_fds);
    }
}

static void write_service(FILE *out, service *s)
{
    metrics_write_family(out, "denoised_build_info", "gauge", "1, with what this daemon is.");
    fputs("denoised_build_info{version=\"", out);
    metrics_write_label(out, s->version);
    fputs("\",build=\"", out);
    metrics_write_label(out, s->build);
    fputs("\"} 1\n", out);
    metrics_write_gauge(out, "denoised_ready", "Whether /readyz says ready.",
                        !atomic_load(&s->draining) && !store_stopped(s->store) && dispatcher_worker_ready(s->dispatcher, NULL, 0));
    metrics_write_gauge(out, "denoised_keys", "API keys that are good, of the file and of the database.", (double)auth_count(s->auth));
}

void route_metrics(http_request *request)
{
    service *s = request->application;
    store_stats stats = {0};
    char *extra = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&extra, &bytes);
    if (out == NULL || store_get_stats(s->store, &stats) != STORE_OK) {
        if (out != NULL) {
            fclose(out);
        }
        free(extra);
        http_refuse(request, API_INTERNAL, "the store could not be read");
        return;
    }
    write_jobs(out, &stats);
    write_store(out, s);
    write_models(out, s->models);
    write_process(out);
    write_workers(out, s->dispatcher);
    write_service(out, s);
    const bool whole = fclose(out) == 0;
    char *text = whole ? metrics_text(s->metrics, extra) : NULL;
    free(extra);
    if (text == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    http_answer(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, strlen(text));
}

/* ---- /stats */

static api_quantiles milliseconds(metrics *m, metrics_histogram histogram)
{
    return (api_quantiles){.p50 = 1e3 * metrics_quantile(m, histogram, 0.5),
                           .p90 = 1e3 * metrics_quantile(m, histogram, 0.9),
                           .p99 = 1e3 * metrics_quantile(m, histogram, 0.99)};
}

static void add_lately(api_stats *out, metrics *m)
{
    out->images_10s = metrics_images_per_second(m, 10);
    out->images_60s = metrics_images_per_second(m, METRICS_MINUTE);
    out->rows_per_tick = metrics_mean(m, METRIC_TICK_ROWS);
    out->tick = milliseconds(m, METRIC_TICK_SECONDS);
    out->latency = milliseconds(m, METRIC_JOB_LATENCY_SECONDS);
    out->wait = milliseconds(m, METRIC_QUEUE_WAIT_SECONDS);
    out->commit = milliseconds(m, METRIC_COMMIT_SECONDS);
}

static void add_store(api_stats *out, const service *s, const store_stats *stats)
{
    store_disk disk;
    store_get_disk(s->store, &disk);
    out->queued = stats->jobs[API_STATE_QUEUED];
    out->running = stats->jobs[API_STATE_RUNNING];
    out->cost = stats->queued_cost;
    out->succeeded = stats->jobs[API_STATE_SUCCEEDED];
    out->failed = stats->jobs[API_STATE_FAILED];
    out->canceled = stats->jobs[API_STATE_CANCELED];
    out->wal_bytes = disk.wal_bytes;
    out->free_bytes = disk.free_bytes;
}

static unsigned add_workers(api_worker_stats out[DN_DEVICES_MAX + 1], dispatcher *d)
{
    const unsigned count = dispatcher_worker_count(d);
    for (unsigned i = 0; i < count; i++) {
        dispatcher_worker worker;
        dispatcher_get_worker(d, i, &worker);
        out[i] = (api_worker_stats){worker.pid, worker.state, worker.device, worker.restarts, worker.resident_bytes};
    }
    return count;
}

void route_stats(http_request *request)
{
    service *s = request->application;
    store_stats stats = {0};
    process_usage own = {0};
    if (store_get_stats(s->store, &stats) != STORE_OK) {
        http_refuse(request, API_INTERNAL, "the store could not be read");
        return;
    }
    const size_t count = models_count(s->models);
    api_model_stats *shown = calloc(count + 1, sizeof *shown);
    if (shown == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const char *name = models_name(s->models, i);
        shown[i] = (api_model_stats){name, models_state_name(models_state(s->models, name, NULL, 0)), models_bytes(s->models, name)};
    }
    api_worker_stats workers[DN_DEVICES_MAX + 1];
    const unsigned worker_count = add_workers(workers, s->dispatcher);
    process_usage_read(&own, 0);
    api_stats out = {.uptime_seconds = dn_now_seconds() - s->started,
                     .version = s->version,
                     .build = s->build,
                     .workers = workers,
                     .worker_count = worker_count,
                     .models = shown,
                     .model_count = count,
                     .streams = atomic_load(&s->streams),
                     .resident_bytes = own.resident_bytes};
    add_lately(&out, s->metrics);
    add_store(&out, s, &stats);
    http_answer_json(request, 200, api_stats_body(&out));
    free(shown);
}
