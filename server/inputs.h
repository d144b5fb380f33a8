/* Pictures that come with requests, as files of the data directory: inputs/<job>-init.png and inputs/<job>-mask.png.
 *
 * A job that names a picture is only enqueued once its files are durable; files of a job that was not enqueued after all are removed,
 * those of a job that has ended within a minute, and those that a crash left behind at the next start. The worker reads them; the API
 * never hands them out. */
#ifndef SERVER_INPUTS_H
#define SERVER_INPUTS_H

#include "api/generate_request.h"
#include "server/store/store.h"

#define INPUT_NAME_BYTES 48

typedef struct inputs inputs;

/* "<job>-init.png" or "<job>-mask.png": what a file is called in the folder inputs. */
void input_name(char out[INPUT_NAME_BYTES], const char *job_id, bool mask);

dn_status inputs_start(inputs **out, store *s, dn_error *error);
void inputs_stop(inputs *in); /* what is queued is done first; accepts NULL */
/* Writes the pictures of jobs[i] under the name of enqueue->jobs[i].id, all of them durably, and then submits the enqueue to the store;
 * without pictures at once. Copies the bytes. When a file cannot be written the enqueue is done with STORE_SPACE or STORE_UNKNOWN. */
void inputs_submit(inputs *in, store_request *enqueue, const api_request *jobs);
/* The enqueue made no new jobs: its files go again. Never blocks. */
void inputs_discard(inputs *in, const store_request *enqueue);

#endif
