/* What the daemon remembers of AUTOMATIC1111's clients, in memory alone: their latest calls, so that progress and interrupt find the jobs,
 * and which model each has chosen with POST /options. A restart forgets it; the jobs themselves are the store's, and a job's id serves as
 * the name of its call. Any thread. */
#ifndef SERVER_SDAPI_CALLS_H
#define SERVER_SDAPI_CALLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/sdapi_request.h"
#include "server/hub.h"

#define SDAPI_CALLS_MAX 1024 /* of all clients; the oldest that have ended make room first, then a busy client's own */
#define SDAPI_CLIENTS_MAX 1025 /* that have chosen a model: as many as there may be keys, and "local"; who is silent for longest makes room */

typedef struct sdapi_calls sdapi_calls;

typedef struct sdapi_call {
    char client[65], id[27]; /* id: the job's */
    char task[API_SDAPI_TASK_BYTES]; /* force_task_id; "": none, the job's id is its name */
    uint32_t n_iter;
    bool img2img;
    bool ended; /* as far as anybody has noticed */
} sdapi_call;

dn_status sdapi_calls_create(sdapi_calls **out, hub *h, dn_error *error);
void sdapi_calls_free(sdapi_calls *c); /* before the hub */

void sdapi_calls_add(sdapi_calls *c, const sdapi_call *call); /* a call of the same job is that one */
void sdapi_calls_end(sdapi_calls *c, const char *job_id); /* the job has ended: nobody watches it any more */
/* The newest of that task id or job id; client NULL: anybody's. */
bool sdapi_calls_find(sdapi_calls *c, const char *client, const char *task, sdapi_call *out);
/* A client's calls that have not been noticed to end, oldest first; at most `room` of them. */
size_t sdapi_calls_open(sdapi_calls *c, const char *client, sdapi_call *out, size_t room);
/* Somebody looks at its previews: they are rendered from now on, until it ends or nobody has looked for ten seconds. */
void sdapi_calls_watch(sdapi_calls *c, const char *job_id);

/* The model a client has chosen; false: none. */
bool sdapi_calls_model(sdapi_calls *c, const char *client, char out[65]);
void sdapi_calls_choose(sdapi_calls *c, const char *client, const char *model);

#endif
