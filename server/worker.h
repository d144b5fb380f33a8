/* The worker process: owns one device, its engines and a running batch on each. It knows neither HTTP nor SQL; all it hears
 * and says goes over one socket (server/protocol.h). */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include "api/generate_request.h"
#include "base/error.h"
#include "base/precision.h"
#include "server/batching.h"

#define WORKER_MODELS_MAX 64
#define WORKER_CREDIT 192u /* lanes that may be outstanding */
#define WORKER_ROWS_MAX 32u /* rows of a tick on a few threads, when a row is cheap enough */
#define WORKER_ROWS_A_THREAD 8u /* ... on many */
#define WORKER_TICK_SECONDS 2.0 /* a tick of more than one row takes at most about this */
#define WORKER_MEASURE_SECONDS 0.6 /* at a load, to find out what ticks of many rows take */
#define WORKER_MEMORY_SHARE 0.25 /* of the machine's, for one model's workspace and lanes */
#define WORKER_DEVICE_SHARE 0.5 /* of what a GPU has free once the model is on it, likewise */
#define WORKER_DEVICE_LIMIT 0.9 /* of a GPU's memory, for all models, where --memory-limit says nothing */
#define WORKER_ENCODERS_MAX 4u /* threads that make PNGs beside a GPU; one beside the CPU's ticks */
#define WORKER_LAST_WORD_SECONDS 2.0 /* to tell the daemon that the device is lost */
#define WORKER_TABLE_SECONDS 1.0 /* between two words on what ticks take */
#define WORKER_TRY_SECONDS 60.0 /* so often larger batches than have paid are tried again */
#define WORKER_SNAPSHOT_SHARE 0.01 /* of the time spent in ticks */
#define WORKER_PREVIEW_SECONDS 0.5 /* between two previews of one image */
#define WORKER_PREVIEW_SIDE_MAX 128u /* pixels */
#define WORKER_RETRY_SECONDS 60.0 /* a model that failed is tried again after so long, or when its folder has changed */
#define WORKER_RESIDENCE_SECONDS 10.0 /* a model in use keeps its place so long before it must make room for another */
#define WORKER_OLD_DESCRIPTIONS_MAX 256 /* of models that changed while this worker lived */
#define WORKER_ALIVE_SECONDS 2.0 /* the longest silence between two ticks */

typedef struct worker_options {
    int fd; /* the socket; taken over */
    unsigned threads; /* 0: all available */
    unsigned rows_max; /* 0: chosen from what ticks of 1, 2, 4, ... rows take */
    batching batching;
    double snapshot_every_seconds;
    uint64_t memory_limit; /* bytes of all models in memory; 0: no limit */
    const char *inputs; /* folder of input pictures; NULL: none come */
    bool preload; /* every model at the start, not the first alone */
    bool vae_tiling; /* large latents are decoded in tiles */
    dn_precision precision; /* of the denoisers */
    const char *device; /* name (backend/devices.h); NULL: the CPU */
    bool fast; /* dn_device_options.fast */
    const char *plan_cache; /* GPUs: folder of plans that were found; NULL: none */
    struct {
        const char *name, *folder;
    } models[WORKER_MODELS_MAX];
    unsigned model_count;
    const struct dn_backend *backend; /* instead of the device's; NULL in the program. Tests put faults there. */
    /* Called before a lane enters a batch; NULL in the program. Tests make a worker die here. */
    void (*before_admit)(const api_request *request, uint64_t seed);
    /* Called before each tick; NULL in the program. Tests slow a worker down here. */
    void (*before_tick)(void);
} worker_options;

/* Serves until the other side closes the socket: DN_OK then. Why it ends otherwise is said in the log. */
dn_status worker_run(const worker_options *options, dn_error *error);

/* Fills options from `--fd N --parent PID --threads N --rows-max N --snapshot-every S --model NAME=DIR ...` and makes this process
 * a worker: dies with its parent, leaves no core, ignores the terminal. Returns DN_OPTIONS_GO_ON or an exit status. */
int worker_prepare(worker_options *options, int argc, char **argv);

/* server/worker_confine.c: no core, no other programs, no network, no new privileges, for the rest of the process. Before any thread. */
void worker_confine(void);

#endif
