/* What the dispatcher's tests share: a tiny model in a folder of its own, a store, a hub, and a dispatcher whose worker is this very
 * program, called with the word `worker`. A worker dies at the poison seed, so that a job which ends its worker can be had at will.
 *
 * The test's thread owns everything; restart() is what a daemon's restart does. */
#ifndef DN_TESTS_DISPATCHER_HARNESS_H
#define DN_TESTS_DISPATCHER_HARNESS_H

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "server/dispatcher.h"
#include "server/options.h"
#include "server/worker.h"
#include "tests/test.h"

#define POISON_SEED 666u
#define PATIENCE_SECONDS 120.0
#define SLOW_STEPS 1000u
#define PACE_MICROSECONDS 20000u

static char root[64], data_folder[96], model_folder[96];
static store *st;
static hub *live;
static models *registry;
static metrics *counted;
static dispatcher *dispatched;
static dispatcher_options how;
static dn_error error;
static unsigned job_number;

static inline void die_of_poison(const api_request *request, uint64_t seed)
{
    if (seed == POISON_SEED)
        abort();
    if (request->steps == 0)
        abort();
}

static char pace_file[128]; /* while it is there, ticks take PACE_MICROSECONDS more */

/* Whether a worker is slow: a job that is under way stays so, on a machine of any speed, until it is let go on. */
static inline void set_pace(bool slow)
{
    if (slow)
        dn_file_write(pace_file, "", 0, false, NULL);
    else
        unlink(pace_file);
}

static inline void keep_pace(void)
{
    if (access(pace_file, F_OK) == 0)
        usleep(PACE_MICROSECONDS);
}

/* The worker's side of this program; returns its exit status. */
static inline int worker_main(int argc, char **argv)
{
    worker_options options;
    const int outcome = worker_prepare(&options, argc - 1, argv + 1);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    options.before_admit = die_of_poison;
    options.before_tick = keep_pace;
    snprintf(pace_file, sizeof pace_file, "%s/../slow", options.models[0].folder);
    return worker_run(&options, &error) == DN_OK ? 0 : 1;
}

static inline void copy_file(const char *from, const char *to)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    if (dn_file_read(&bytes, &count, from, 64u << 20, NULL) == DN_OK)
        dn_file_write(to, bytes, count, false, NULL);
    free(bytes);
}

/* A pipeline folder around the tiny golden network: ten classes and a null row, a linear schedule. */
static inline void make_model(const char *folder)
{
    static const char index[] =
        "{\"_class_name\":\"DDPMPipeline\",\"unet\":[\"diffusers\",\"UNet2DModel\"],\"scheduler\":[\"diffusers\",\"DDIMScheduler\"],"
        "\"id2label\":{\"0\":\"a\",\"1\":\"b\",\"2\":\"c\",\"3\":\"d\",\"4\":\"e\",\"5\":\"f\",\"6\":\"g\",\"7\":\"h\",\"8\":\"i\",\"9\":"
        "\"j\"}}";
    char path[256];
    const char *const parts[] = {"unet", "scheduler"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, parts[i]);
        dn_make_folder(path, NULL);
    }
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    dn_file_write(path, index, sizeof index - 1, false, NULL);
    snprintf(path, sizeof path, "%s/unet/config.json", folder);
    copy_file("tests/golden/unet_default/config.json", path);
    snprintf(path, sizeof path, "%s/unet/diffusion_pytorch_model.safetensors", folder);
    copy_file("tests/golden/unet_default/diffusion_pytorch_model.safetensors", path);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    copy_file("tests/golden/pipe_unet_ddim10_cfg3/scheduler/scheduler_config.json", path);
}

static inline int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

static inline dn_status open_store(void)
{
    const store_options options = {.folder = data_folder,
                                   .base_path = "",
                                   .queue_jobs_max = 1000,
                                   .queue_cost_max = 1ull << 40,
                                   .client_jobs_max = 1000,
                                   .db_bytes_max = 1ull << 30};
    return store_open(&st, &options, &error);
}

/* Everything but the dispatcher: a new folder, an empty store. */
static inline bool begin(void)
{
    snprintf(root, sizeof root, "/tmp/dn-dispatcher-XXXXXX");
    if (!mkdtemp(root))
        return false;
    snprintf(data_folder, sizeof data_folder, "%s/data", root);
    snprintf(model_folder, sizeof model_folder, "%s/model", root);
    snprintf(pace_file, sizeof pace_file, "%s/slow", root);
    make_model(model_folder);
    how = (dispatcher_options){.base_path = "", .threads = 1, .snapshot_every_seconds = 0.05};
    return hub_create(&live, &error) == DN_OK && models_create(&registry, &error) == DN_OK && metrics_create(&counted, &error) == DN_OK &&
           models_add(registry, "tiny", model_folder, &error) == DN_OK && open_store() == DN_OK;
}

static inline bool start(void)
{
    how.store = st;
    how.hub = live;
    how.models = registry;
    how.metrics = counted;
    return dispatcher_start(&dispatched, &how, &error) == DN_OK;
}

static inline void stop(void)
{
    dispatcher_stop(dispatched);
    dispatched = NULL;
}

static inline void finish(void)
{
    stop();
    store_close(st);
    st = NULL;
    models_free(registry);
    metrics_free(counted);
    hub_free(live);
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* What a restart of the daemon does: the same folder, everything else anew. */
static inline bool restart(void)
{
    stop();
    store_close(st);
    st = NULL;
    return open_store() == DN_OK && start();
}

typedef struct wanted {
    const char *sampler;
    uint32_t steps, n, class_index;
    double guidance;
    uint64_t seed;
    int priority;
    int64_t deadline_ms;
    const char *client; /* NULL: tester */
    const char *model; /* NULL: tiny */
    bool unreadable; /* the dispatcher makes nothing of it, and ends it */
} wanted;

/* Stores a job and tells the dispatcher, if there is one. id: 27 bytes. */
static inline bool enqueue(char *id, wanted w)
{
    api_request request = {.has_class = true,
                           .class_index = w.class_index,
                           .guidance_scale = w.guidance,
                           .steps = w.steps,
                           .has_seed = true,
                           .seed = w.seed,
                           .n = w.n,
                           .priority = w.priority,
                           .deadline_ms = w.deadline_ms};
    snprintf(request.model, sizeof request.model, "%s", w.model ? w.model : "tiny");
    snprintf(request.sampler, sizeof request.sampler, "%s", w.sampler);
    unsigned char bytes[16] = {0};
    const unsigned number = ++job_number, process = (unsigned)getpid();
    memcpy(bytes, &number, sizeof number);
    memcpy(bytes + 4, &process, sizeof process);
    api_id_text(id, bytes);
    store_request *r = store_request_create(STORE_ENQUEUE, NULL, NULL);
    r->jobs = calloc(1, sizeof *r->jobs);
    r->job_count = 1;
    snprintf(r->client, sizeof r->client, "%s", w.client ? w.client : "tester");
    memcpy(r->jobs[0].id, id, 27);
    snprintf(r->jobs[0].model, sizeof r->jobs[0].model, "%s", request.model);
    r->jobs[0].n = w.n;
    r->jobs[0].priority = w.priority;
    r->jobs[0].deadline_ms = w.deadline_ms;
    r->jobs[0].cost = api_request_cost(&request);
    r->jobs[0].request_json = w.unreadable ? strdup("{}") : api_request_json(&request);
    const bool stored = store_call(st, r) == STORE_OK;
    store_request_free(r);
    if (dispatched && w.deadline_ms)
        dispatcher_deadline(dispatched, dn_wall_ms() + w.deadline_ms);
    if (dispatched)
        dispatcher_kick(dispatched);
    return stored;
}

static inline api_state state_of(const char *id, uint32_t *attempt, char code[24])
{
    store_job job = {0};
    if (store_get(st, NULL, id, &job) != STORE_OK)
        return API_STATE_QUEUED;
    const api_state state = job.state;
    if (attempt)
        *attempt = job.attempt;
    if (code)
        memcpy(code, job.error_code, 24);
    store_job_done(&job);
    return state;
}

static inline bool wait_until_ended(const char *id)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until) {
        if (api_state_ended(state_of(id, NULL, NULL)))
            return true;
        usleep(10000);
    }
    return false;
}

/* Until some of the job's steps are done, and more than half of them are not. */
static inline bool wait_until_under_way(const char *id)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && !api_state_ended(state_of(id, NULL, NULL))) {
        hub_live now;
        hub_read(live, id, &now);
        if (now.done > 0)
            return now.done * 2 < now.total;
        usleep(1000);
    }
    return false;
}

static inline bool wait_until_ready(void)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until) {
        if (dispatcher_worker_ready(dispatched, NULL, 0))
            return true;
        usleep(5000);
    }
    return false;
}

/* A counter's or a sum's value in the text form. */
static inline double metric(const char *name)
{
    char *text = metrics_text(counted, NULL), line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = text ? strstr(text, line) : NULL;
    const double value = at ? strtod(at + strlen(line), NULL) : -1;
    free(text);
    return value;
}

/* The dispatcher counts after the store has committed: a test that has seen the row gives it a moment. */
static inline bool metric_becomes(const char *name, double value)
{
    const double until = dn_now_seconds() + 5;
    while (dn_now_seconds() < until && metric(name) != value)
        usleep(2000);
    return metric(name) == value;
}

/* Whether every image of the job is there, whole, and what its row says; digest: over all of them in order. */
static inline bool images_digest(unsigned char digest[32], const char *id, uint32_t n)
{
    store_image *images = NULL;
    size_t count = 0;
    if (store_images(st, id, &images, &count) != STORE_OK)
        return false;
    dn_sha256 all;
    dn_sha256_init(&all);
    bool whole = count == n;
    for (size_t i = 0; whole && i < count; i++) {
        char *path = store_path(st, "images", images[i].file);
        unsigned char *bytes = NULL, own[32];
        size_t size = 0;
        whole = images[i].index == i && dn_file_read(&bytes, &size, path, 1u << 20, &error) == DN_OK && size == images[i].view.bytes;
        if (whole) {
            char hex[DN_SHA256_HEX_BYTES];
            dn_sha256_of(own, bytes, size);
            dn_sha256_hex(hex, own);
            whole = strcmp(hex, images[i].view.sha256) == 0 && memcmp(bytes, "\x89PNG", 4) == 0;
            dn_sha256_update(&all, bytes, size);
        }
        free(bytes);
        free(path);
    }
    dn_sha256_final(&all, digest);
    store_images_free(images, count);
    return whole;
}

/* The names of a job's events in order, with blanks between. */
static inline void event_names(char *out, size_t out_bytes, const char *id)
{
    store_event *events = NULL;
    size_t count = 0, used = 0;
    out[0] = 0;
    if (store_events(st, id, 0, &events, &count) != STORE_OK)
        return;
    for (size_t i = 0; i < count && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i ? " " : "", events[i].name);
    store_events_free(events, count);
}

/* Our child (the worker), 0: none. A test program has no other children while it asks. */
static inline pid_t worker_of(pid_t parent)
{
    DIR *folder = opendir("/proc");
    pid_t found = 0;
    for (const struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        const int pid = atoi(entry->d_name);
        char path[300], line[512];
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        FILE *f = pid > 0 ? fopen(path, "re") : NULL;
        if (!f)
            continue;
        char state = 0;
        int owner = 0;
        if (fgets(line, sizeof line, f) && strrchr(line, ')') && sscanf(strrchr(line, ')') + 1, " %c %d", &state, &owner) == 2 &&
            owner == parent && state != 'Z')
            found = pid;
        fclose(f);
    }
    if (folder)
        closedir(folder);
    return found;
}

#endif
