/* denoised serve: the daemon. Builds the service from its parts, waits for signals, drains, takes it down in order.
 *
 * Order up: keys, models, store (lock, migrations, recovery), dispatcher (worker process), HTTP. Order down: drain, HTTP,
 * dispatcher, store. The main thread only waits for signals and runs the once-a-second chores. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/limits.h"
#include "base/clock.h"
#include "base/file.h"
#include "server/commands.h"
#include "server/device_probe.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/log_sink.h"
#include "server/serve_options.h"
#include "server/sdapi_calls.h"
#include "server/service.h"
#include "server/version.h"

#define READY_WARN_SECONDS 60.0
#define DAY_MS (24 * 3600 * 1000ll)
#define RETENTION_EVERY_SECONDS 60.0
#define DB_BYTES_MAX (8ull << 30)
#define SPACE_MIN_BYTES (32ull << 20)
#define DESCRIPTORS_WANTED 8192u /* twice what connections, streams and files may take */

typedef struct serve_run {
    serve_options options;
    device_probe devices;
    const char *device_names[DN_DEVICES_MAX];
    bool on_gpu;
    service service;
    http *http;
    sigset_t signals;
} serve_run;

/* ---- Up */

static dn_status add_models(serve_run *run, dn_error *error)
{
    service *s = &run->service;
    for (uint32_t i = 0; i < run->options.models.count; i++) {
        char *name = strdup(run->options.models.values[i]);
        char *folder = name == NULL ? NULL : strchr(name, '=');
        struct stat info;
        dn_status status = DN_OK;
        if (folder != NULL) {
            *folder++ = '\0';
        }
        if (folder == NULL || !api_model_name_valid(name)) {
            status = dn_fail(error, DN_INVALID, "--model must be NAME=DIR, the name of 1 to %d letters, digits and . _ -",
                             API_MODEL_NAME_BYTES_MAX);
        } else if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) {
            status = dn_fail(error, DN_INVALID, "model %s: %s is no folder", name, folder);
        } else {
            status = models_add(s->models, name, folder, error);
        }
        free(name);
        if (status != DN_OK) {
            return status;
        }
    }
    return run->options.models.count > 0 ? DN_OK : dn_fail(error, DN_INVALID, "at least one --model NAME=DIR is needed");
}

/* What the operator named is not there or cannot be read: another try would not help (exit 78). */
static dn_status as_configuration(dn_status status, dn_error *error)
{
    if (status == DN_IO) {
        error->status = DN_INVALID;
        status = DN_INVALID;
    }
    return status;
}

static dn_status check_data_folder(const char *path, dn_error *error)
{
    struct stat info;
    dn_status status = dn_make_folder(path, error);
    if (status == DN_OK && stat(path, &info) == 0 && (info.st_mode & S_IWOTH) != 0) {
        status = dn_fail(error, DN_INVALID, "data directory %s: others may write to it; chmod o-w", path);
    }
    if (status == DN_OK && access(path, W_OK | X_OK) != 0) {
        status = dn_fail(error, DN_INVALID, "data directory %s is not writable: %s", path, strerror(errno));
    }
    return as_configuration(status, error);
}

/* A device or a precision that this machine lacks is refused before anything is opened, in the words of the back end; with a fallback the CPU
 * begins where no GPU can be used. */
static dn_status find_devices(serve_run *run, dn_error *error)
{
    const serve_options *o = &run->options;
    dn_status status = device_probe_ask(&run->devices, o->device_text, o->precision, error);
    if (status == DN_UNSUPPORTED && o->device_fallback) {
        const dn_error why = *error;
        status = device_probe_ask(&run->devices, "cpu", o->precision, error);
        snprintf(run->devices.why, sizeof run->devices.why, "%s", why.message);
    }
    for (uint32_t i = 0; i < run->devices.count; i++) {
        run->device_names[i] = run->devices.names[i];
    }
    run->on_gpu = status == DN_OK && strcmp(run->devices.names[0], "cpu") != 0;
    if (run->on_gpu && o->plan_cache != o->plan_cache_path) { /* the worker makes the one in the data directory */
        status = as_configuration(dn_make_folder(o->plan_cache, error), error);
    }
    if (status == DN_OK && run->devices.why[0] != '\0') {
        log_say(LOG_WARNING, "serve", "on the CPU: %s", run->devices.why);
    }
    run->service.device_note = run->devices.why;
    return status;
}

static void on_committed(void *payload, double seconds, size_t requests)
{
    metrics_observe(payload, METRIC_COMMIT_SECONDS, seconds);
    metrics_observe(payload, METRIC_COMMIT_WRITES, (double)requests);
}

static dn_status start_dispatcher(serve_run *run, dn_error *error)
{
    service *s = &run->service;
    const serve_options *o = &run->options;
    dispatcher_options options = {.base_path = o->base_path,
                                  .threads = (unsigned)o->threads,
                                  .rows_max = (unsigned)o->rows_max,
                                  .batching = o->batching,
                                  .snapshot_every_seconds = o->snapshot_every,
                                  .memory_limit = o->memory_limit,
                                  .preload = o->preload,
                                  .vae_tiling = o->vae_tiling,
                                  .precision = o->precision,
                                  .device_count = run->devices.count,
                                  .fast = o->fast,
                                  .device_fallback = run->on_gpu && o->device_fallback,
                                  .plan_cache = o->plan_cache,
                                  .store = s->store,
                                  .hub = s->hub,
                                  .models = s->models,
                                  .metrics = s->metrics};
    memcpy(options.devices, run->device_names, sizeof options.devices);
    return dispatcher_start(&s->dispatcher, &options, error);
}

static dn_status open_parts(serve_run *run, dn_error *error)
{
    service *s = &run->service;
    serve_options *o = &run->options;
    dn_status status = find_devices(run, error);
    s->streams_max = (unsigned)o->streams_max;
    s->cors = o->cors_list.count > 0;
    s->stream_counts = calloc(s->streams_max, sizeof *s->stream_counts);
    if (status == DN_OK && s->stream_counts == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    if (status == DN_OK) {
        status = as_configuration(auth_open(&s->auth, o->api_key_file[0] != '\0' ? o->api_key_file : NULL, error), error);
    }
    if (status == DN_OK && (status = check_data_folder(o->data, error)) == DN_OK && (status = hub_create(&s->hub, error)) == DN_OK &&
        (status = sdapi_calls_create(&s->sdapi, s->hub, error)) == DN_OK && (status = metrics_create(&s->metrics, error)) == DN_OK &&
        (status = models_create(&s->models, error)) == DN_OK) {
        status = add_models(run, error);
    }
    if (status == DN_OK) {
        const store_options options = {.folder = o->data,
                                       .base_path = o->base_path,
                                       .queue_jobs_max = API_QUEUE_JOBS_MAX,
                                       .queue_cost_max = API_QUEUE_EVALUATIONS_MAX,
                                       .client_jobs_max = API_CLIENT_JOBS_MAX,
                                       .db_bytes_max = DB_BYTES_MAX,
                                       .space_min_bytes = SPACE_MIN_BYTES,
                                       .keep_ms = (int64_t)o->keep_days * DAY_MS,
                                       .committed = on_committed,
                                       .committed_payload = s->metrics};
        status = store_open(&s->store, &options, error);
    }
    if (status == DN_OK) {
        status = auth_watch(s->auth, s->store, error);
    }
    if (status == DN_OK) {
        status = serve_options_guarded(o, auth_required(s->auth), error);
    }
    if (status == DN_OK) {
        status = serve_options_pages(o, auth_required(s->auth), error);
    }
    if (status == DN_OK) {
        status = start_dispatcher(run, error);
    }
    if (status == DN_OK && (status = inputs_start(&s->inputs, s->store, error)) == DN_OK) {
        status = picture_hasher_start(&s->pictures, error);
    }
    if (status == DN_OK && o->webhook_secret_file != NULL) {
        const webhooks_options options = {.store = s->store,
                                          .metrics = s->metrics,
                                          .secret_file = o->webhook_secret_file,
                                          .ca_file = o->webhook_ca_file,
                                          .allowed = o->webhook_allowed,
                                          .first_pause_seconds = o->webhook_pause};
        status = webhooks_start(&s->webhooks, &options, error);
    }
    return status;
}

static dn_status start_http(serve_run *run, dn_error *error)
{
    const http_options options = {.listen = run->options.listen,
                                  .socket_mode = run->options.socket_mode,
                                  .base_path = run->options.base_path,
                                  .allowed_hosts = run->options.hosts,
                                  .cors_origins = run->options.cors_origins,
                                  .public_url = run->options.public_url,
                                  .routes = service_routes,
                                  .dialects = service_dialects,
                                  .application = &run->service,
                                  .auth = run->service.auth,
                                  .metrics = run->service.metrics,
                                  .streams_max = run->service.streams_max,
                                  .patience = run->options.patience};
    return http_start(&run->http, &options, error);
}

static void close_parts(serve_run *run)
{
    service *s = &run->service;
    http_stop(run->http);
    webhooks_stop(s->webhooks);
    picture_hasher_stop(s->pictures);
    inputs_stop(s->inputs);
    if (s->dispatcher != NULL) {
        dispatcher_stop(s->dispatcher);
    }
    if (s->store != NULL) {
        store_close(s->store);
    }
    models_free(s->models);
    metrics_free(s->metrics);
    sdapi_calls_free(s->sdapi);
    hub_free(s->hub);
    auth_free(s->auth);
    free(s->stream_counts);
    pthread_mutex_destroy(&s->stream_lock);
}

/* ---- Running */

/* A class to paste: its first name, or its index where the name would need quoting in a shell or in JSON. */
static void example_class(char *out, size_t out_bytes, const api_model *model)
{
    const uint32_t index = model->class_count > 7 ? 7 : 0;
    const char *rest = model->class_names[index], *name;
    size_t bytes;
    const bool plain = api_next_synonym(&rest, &name, &bytes) && bytes < out_bytes - 2 && strcspn(name, "'\"\\") >= bytes;
    if (plain) {
        snprintf(out, out_bytes, "\"%.*s\"", (int)bytes, name);
    } else {
        snprintf(out, out_bytes, "%u", index);
    }
}

/* For machines that read standard output and the log as one, as containers and journals have them. */
static void say_ready_in_json(const service *s, const char *url, const api_model *model)
{
    log_line line;
    log_begin(&line, LOG_INFO, "serve", "ready");
    log_text(&line, "url", url);
    log_text(&line, "model", models_name(s->models, 0));
    log_text(&line, "device", model != NULL ? model->device : "loading");
    if (model != NULL && model->gpu[0] != '\0') {
        log_text(&line, "gpu", model->gpu);
    }
    log_end_on_output(&line);
}

static void say_ready(serve_run *run)
{
    service *s = &run->service;
    const char *url = http_url(run->http);
    const api_model *model = models_lookup(s->models, NULL);
    if (run->options.log_format == LOG_JSON) {
        say_ready_in_json(s, url, model);
        return;
    }
    bool unix_socket = strncmp(url, "unix:", 5) == 0;
    const char *gpu = model != NULL ? model->gpu : "";
    printf("denoised ready on %s (model %s, %s%s%.*s)\n", url, models_name(s->models, 0), model != NULL ? model->device : "loading",
           gpu[0] != '\0' ? ", " : "", (int)strcspn(gpu, ","), gpu);
    if (model != NULL && model->class_count > 0) {
        char label[128];
        example_class(label, sizeof label, model);
        printf("  curl -s %s%s%s%s/generate -H 'Content-Type: application/json' -H 'Accept: image/png' \\\n"
               "    -d '{\"class_label\": %s, \"guidance_scale\": %g, \"seed\": 42}' -o image.png\n",
               unix_socket ? "--unix-socket " : "", unix_socket ? url + 5 : "", unix_socket ? " http://localhost" : url,
               run->options.base_path, label, model->guidance ? 2.0 : 1.0);
    }
    fflush(stdout);
}

static void start_retention(serve_run *run);

/* Unlinks what the commit has forgotten; a long list comes in pieces. */
static void on_retention(store_request *done)
{
    serve_run *run = done->payload;
    bool more = done->result == STORE_OK && done->more;
    if (done->file_count > 0) {
        fault_point("gc_before_unlink");
    }
    for (size_t i = 0; done->result == STORE_OK && i < done->file_count; i++) {
        char *path = store_path(run->service.store, "", done->files[i]);
        if (path != NULL) {
            unlink(path);
            fault_point("gc_after_unlink");
        }
        free(path);
    }
    store_request_free(done);
    if (more) {
        start_retention(run);
    }
}

static void start_retention(serve_run *run)
{
    store_request *request = store_request_create(STORE_RETENTION, on_retention, run);
    if (request != NULL) {
        request->keep_ms = (int64_t)run->options.keep_days * DAY_MS;
        request->keep_bytes = run->options.keep_bytes;
        request->untold_stay = run->service.webhooks != NULL;
        store_submit(run->service.store, request);
    }
}

/* No model can be loaded, so nothing will ever work: the daemon ends (the dispatcher has said which and why). What it has claimed goes
 * back to the queue first. */
static bool all_models_failed(service *s)
{
    for (size_t i = 0; i < models_count(s->models); i++) {
        if (models_state(s->models, models_name(s->models, i), NULL, 0) != MODEL_FAILED) {
            return false;
        }
    }
    return true;
}

static void hear_signal(serve_run *run, int signal_number)
{
    service *s = &run->service;
    dn_error error;
    if (signal_number == SIGTERM || signal_number == SIGINT) {
        if (atomic_exchange(&s->draining, true)) {
            dispatcher_hurry(s->dispatcher);
        } else {
            log_say(LOG_INFO, "serve", "draining; a second signal hurries");
            fault_point("drain_begin");
            dispatcher_drain(s->dispatcher, run->options.drain_seconds);
        }
    } else if (signal_number == SIGHUP && auth_reload(s->auth, &error) != DN_OK) {
        log_say(LOG_ERROR, "auth", "keys not reloaded: %s", error.message);
    }
}

/* Runs until the drain is over. Returns the exit status. */
static int run_until_drained(serve_run *run)
{
    service *s = &run->service;
    char reason[512];
    bool said = false, warned = false;
    int status = DN_EXIT_OK;
    double retention_at = 0.0, began = dn_now_seconds();
    for (;;) {
        bool waking = !said || atomic_load(&s->draining);
        const struct timespec pause = {.tv_sec = waking ? 0 : 1, .tv_nsec = waking ? 20000000L : 0};
        hear_signal(run, sigtimedwait(&run->signals, NULL, &pause));
        if (store_stopped(s->store)) {
            const bool damaged = store_sound(s->store) == STORE_DAMAGED;
            log_say(LOG_ERROR, "serve", "%s",
                    damaged ? "the database is damaged: restore a backup (denoised check says what is wrong)"
                            : "the store has stopped after a failed commit; restart to recover");
            return damaged ? DN_EXIT_CONFIG : DN_EXIT_TEMPORARY;
        }
        /* A daemon that was ready once keeps what is queued and waits for the files to be mended: the worker looks at them again. */
        if (status == DN_EXIT_OK && !said && all_models_failed(s)) {
            status = DN_EXIT_CONFIG;
            atomic_store(&s->draining, true);
            dispatcher_drain(s->dispatcher, 0.0);
        }
        if (atomic_load(&s->draining) && dispatcher_drained(s->dispatcher)) {
            fault_point("drain_over");
            return status;
        }
        double now = dn_now_seconds();
        if (!said && dispatcher_worker_ready(s->dispatcher, reason, sizeof reason)) {
            said = true;
            say_ready(run);
        } else if (!said && !warned && now - began > READY_WARN_SECONDS) {
            warned = true;
            log_say(LOG_WARNING, "serve", "listening on %s, but not ready yet: %s", http_url(run->http), reason);
        }
        if (now >= retention_at) {
            retention_at = now + RETENTION_EVERY_SECONDS;
            store_drop_inputs(s->store);
            start_retention(run);
        }
    }
}

static int exit_status(dn_status status)
{
    return status == DN_IO || status == DN_NO_MEMORY ? DN_EXIT_TEMPORARY : DN_EXIT_CONFIG;
}

/* Signals are taken by sigtimedwait alone: blocked here, before any thread starts, and so in all of them. */
static void take_signals(serve_run *run)
{
    sigemptyset(&run->signals);
    sigaddset(&run->signals, SIGTERM);
    sigaddset(&run->signals, SIGINT);
    sigaddset(&run->signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &run->signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* A connection is a descriptor, and the usual soft limit of 1024 is fewer than may be open: images could not be written any more. */
static void allow_descriptors(unsigned streams_max)
{
    const rlim_t wanted = DESCRIPTORS_WANTED + streams_max;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Why it does not start: in the log's form for machines, else as every command says it. */
static void say_refused(log_format format, const char *why)
{
    if (format == LOG_JSON) {
        log_say(LOG_ERROR, "serve", "%s", why);
    } else {
        fprintf(stderr, "denoised serve: %s\n", why);
    }
}

int dn_command_serve(int argc, char **argv)
{
    static serve_run run;
    dn_error error = {0};
    int status = serve_options_parse(&run.options, argc, argv);
    if (status != DN_OPTIONS_GO_ON) {
        return status;
    }
    log_never_blocks();
    log_set_format(run.options.log_format);
    take_signals(&run);
    allow_descriptors((unsigned)run.options.streams_max);
    umask(0027);
    run.service.base_path = run.options.base_path;
    run.service.public_url = run.options.public_url;
    run.service.version = DN_VERSION;
    run.service.build = DN_COMMIT;
    run.service.started = dn_now_seconds();
    pthread_mutex_init(&run.service.stream_lock, NULL);
    dn_status opened = open_parts(&run, &error);
    if (opened == DN_OK) {
        opened = start_http(&run, &error);
    }
    if (opened == DN_OK) {
        status = run_until_drained(&run);
    } else {
        say_refused(run.options.log_format, error.message);
        status = exit_status(opened);
    }
    close_parts(&run);
    return status;
}
