/* The daemon's life: what command_serve.c does, without HTTP and signals. Parts up, once-a-second chores, drain, parts down.
 *
 * A daemon that is killed is not forgotten but becomes a ghost: its disk is dead, its worker gone, nobody hears it; its threads run on until
 * everything is taken down, so that its memory comes back. What it does in that time reaches nobody. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/sim/world.h"
#include "tests/sim/wrapped.h"

sim_daemon daemon_;

static struct {
    unsigned terms; /* signals that wait to be heard */
    double grace;
    oracle_counts before;
    bool counted;
    unsigned retentions; /* under way */
} own;

void daemon_stop_now(void)
{
    daemon_.stopping = true;
}

void daemon_term(double grace)
{
    own.terms++;
    own.grace = grace;
}

static dn_status open_parts(sim_daemon *d, dn_error *error)
{
    dn_status status = hub_create(&d->hub, error);
    if (status == DN_OK)
        status = metrics_create(&d->metrics, error);
    if (status == DN_OK)
        status = models_create(&d->models, error);
    for (unsigned i = 0; status == DN_OK && i < plan.models; i++) {
        char name[24];
        snprintf(name, sizeof name, "model-%u", i);
        status = models_add(d->models, name, "/nowhere", error);
    }
    const store_options stored = {.folder = "data",
                                  .base_path = "",
                                  .queue_jobs_max = plan.queue_jobs_max,
                                  .queue_cost_max = 1u << 20,
                                  .client_jobs_max = plan.client_jobs_max,
                                  .db_bytes_max = 1ull << 30,
                                  .space_min_bytes = 1 << 20,
                                  .keep_ms = plan.keep_ms};
    if (status == DN_OK)
        status = store_open(&d->store, &stored, error);
    if (status != DN_OK)
        return status;
    own.counted = !d->stopping && oracle_open() && oracle_count(&own.before);
    const dispatcher_options options = {.devices = {"sim:0", "sim:1", "sim:2"},
                                        .device_count = plan.workers > 1 ? plan.workers : 0,
                                        .program = "/sim/denoised",
                                        .base_path = "",
                                        .threads = 1,
                                        .snapshot_every_seconds = plan.snapshot_every,
                                        .freeze_seconds = plan.freeze,
                                        .preload = plan.seed % 5 == 0,
                                        .store = d->store,
                                        .hub = d->hub,
                                        .models = d->models,
                                        .metrics = d->metrics};
    return dispatcher_start(&d->dispatcher, &options, error);
}

static bool nobody_inside(void *payload)
{
    (void)payload;
    return sim_inside() == 0 && own.retentions == 0;
}

static void close_parts(sim_daemon *d)
{
    d->up = false;
    sim_wait(nobody_inside, NULL, 1e300);
    if (d->dispatcher)
        dispatcher_stop(d->dispatcher);
    oracle_close();
    if (d->store)
        store_close(d->store);
    models_free(d->models);
    metrics_free(d->metrics);
    hub_free(d->hub);
    d->dispatcher = NULL;
    d->store = NULL;
    d->models = NULL;
    d->metrics = NULL;
    d->hub = NULL;
}

/* ---- Chores */

static void start_retention(sim_daemon *d);

static void on_retention(store_request *done)
{
    sim_daemon *d = done->payload;
    const bool more = done->result == STORE_OK && done->more;
    for (size_t i = 0; done->result == STORE_OK && i < done->file_count; i++) {
        char *path = store_path(d->store, "", done->files[i]);
        unlink(path);
        free(path);
        sim_count_one(COUNT_EXPIRED);
    }
    store_request_free(done);
    own.retentions--;
    if (more)
        start_retention(d);
}

static void start_retention(sim_daemon *d)
{
    store_request *request = store_request_create(STORE_RETENTION, on_retention, d);
    request->keep_ms = plan.keep_ms;
    request->keep_bytes = plan.keep_bytes;
    own.retentions++;
    store_submit(d->store, request);
}

static void hear_signals(sim_daemon *d)
{
    for (; own.terms; own.terms--) {
        sim_count_one(d->draining ? COUNT_HURRIED_DRAINS : COUNT_DRAINS);
        sim_say("daemon: %s", d->draining ? "hurry" : "drain");
        if (d->draining)
            dispatcher_hurry(d->dispatcher);
        else
            dispatcher_drain(d->dispatcher, own.grace);
        d->draining = true;
    }
}

static double counter(const char *text, const char *name)
{
    char line[64];
    snprintf(line, sizeof line, "\ndenoised_%s ", name);
    const char *at = strstr(text, line);
    return at ? strtod(at + strlen(line), NULL) : -1;
}

/* What this life counted must be what the database says has happened since it began. */
static void compare_counts(const sim_daemon *d)
{
    oracle_counts now;
    if (!own.counted || !oracle_count(&now) || store_stopped(d->store))
        return;
    char *text = metrics_text(d->metrics, NULL);
    const struct {
        const char *name;
        int64_t expected;
    } rows[] = {{"jobs_succeeded_total", now.succeeded - own.before.succeeded},
                {"jobs_failed_total", now.failed - own.before.failed},
                {"jobs_canceled_total", now.canceled - own.before.canceled},
                {"images_total", now.images - own.before.images}};
    for (size_t i = 0; text && i < sizeof rows / sizeof rows[0]; i++)
        if (counter(text, rows[i].name) != (double)rows[i].expected && !plan.month_passed)
            sim_wrong("the metric %s says %g, the store %lld", rows[i].name, counter(text, rows[i].name), (long long)rows[i].expected);
    free(text);
}

static void serve(sim_daemon *d)
{
    double retention_at = 0;
    while (!d->stopping) {
        hear_signals(d);
        if (store_stopped(d->store)) {
            sim_count_one(COUNT_STORE_STOPS);
            sim_say("daemon: the store has stopped");
            d->status = 75;
            return;
        }
        if (d->draining && dispatcher_drained(d->dispatcher)) {
            sim_wait(nobody_inside, NULL, sim_now() + 100);
            if (!d->stopping) {
                compare_counts(d);
                audit(false);
            }
            return;
        }
        if (sim_now() >= retention_at) {
            retention_at = sim_now() + 1 + 0.1 * sim_below(30);
            store_drop_inputs(d->store);
            start_retention(d);
        }
        sim_sleep(d->draining ? 0.02 : 0.25);
    }
}

static bool is_swept(void *payload)
{
    return store_swept(((sim_daemon *)payload)->store);
}

static void *live(void *payload)
{
    sim_daemon *d = payload;
    dn_error error = {0};
    const dn_status status = open_parts(d, &error);
    if (status == DN_OK) {
        d->up = d->opened = !d->stopping;
        sim_say("daemon: life %u", d->life);
        if (d->last)
            sim_wait(is_swept, d, sim_now() + 100);
        if (d->up)
            audit(d->last);
        serve(d);
    } else {
        d->status = status == DN_IO ? 75 : 78;
        sim_say("daemon: %s", error.message);
        if (!d->stopping && status != DN_IO && !sim_disk_fault_seen())
            sim_wrong("the daemon does not start: %s", error.message);
    }
    close_parts(d);
    return NULL;
}

sim_thread *daemon_start(void)
{
    daemon_ = (sim_daemon){.life = daemon_.life + 1};
    memset(&own, 0, sizeof own);
    return sim_thread_start("daemon", ROLE_DAEMON, live, &daemon_);
}
