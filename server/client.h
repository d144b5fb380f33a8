/* The commands that talk to a daemon (submit, watch, get, jobs, cancel), their parts: private to them. One thread.
 *
 * A daemon's words are not trusted: what is printed of them has no control characters, paths are made of ids that were checked, redirects
 * are not followed (they would carry the key away), and everything read is bounded. */
#ifndef DN_SERVER_CLIENT_H
#define DN_SERVER_CLIENT_H

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdbool.h>
#include <stdio.h>

#include "api/text.h"
#include "server/options.h"
#include "server/progress.h"
#include "server/terminal.h"

#define CLIENT_IMAGES_MAX 64
#define CLIENT_ANSWER_BYTES_MAX (64u << 20)
#define CLIENT_URL_DEFAULT "http://127.0.0.1:8080"

/* ---- client_connection.c */

typedef struct client {
    const char *command; /* for complaints */
    const char *url, *key_file, *ca_file; /* as given; NULL: from the environment, or the defaults */
    char base[1024]; /* "http://HOST:PORT/PREFIX", without a slash at its end */
    char socket_path[128]; /* of a Unix socket, or "" */
    char *authorization; /* "Authorization: Bearer SECRET", or NULL */
    CURL *easy;
} client;

typedef struct client_answer {
    long status;
    char *body; /* malloc'd, NUL-terminated; NULL: none */
    size_t bytes;
    unsigned retry_after; /* seconds, 0: not said */
} client_answer;

#define CLIENT_OPTIONS 3
/* --url, --key-file, --ca-file. */
void client_add_options(dn_option out[CLIENT_OPTIONS], client *c);
/* Reads URL and key. DN_OPTIONS_GO_ON, or an exit status and a complaint. */
int client_open(client *c, const char *command);
void client_close(client *c);

/* One request, its whole answer. body NULL: none; else JSON. more: one more header, or NULL. The curl code is told as it is. */
CURLcode client_try(client *c, const char *method, const char *path, const char *body, const char *more, client_answer *out);
/* The same where no answer is an end: complains of it and returns an exit status, else DN_OPTIONS_GO_ON. */
int client_call(client *c, const char *method, const char *path, const char *body, const char *more, client_answer *out);
/* GETs an event stream; of status 200, pieces go to the sink as they come until it returns false. */
typedef bool client_sink(void *payload, const char *bytes, size_t count);
CURLcode client_stream(client *c, const char *path, const char *more, client_sink *sink, void *payload, client_answer *out);
void client_answer_done(client_answer *answer);

/* From here on Ctrl-C and SIGTERM end a request within a second (CURLE_ABORTED_BY_CALLBACK), and client_stopped says so. */
void client_catch_signals(void);
bool client_stopped(void);

/* ---- client_problem.c */

/* "cannot reach URL: why", and what to do; the exit status. */
int client_unreachable(const client *c, CURLcode code);
/* What the daemon answered in place of what was asked, and what to do next; the exit status. */
int client_refused(const client *c, const client_answer *answer);
bool client_problem_is(const client_answer *answer, const char *code);
/* The body as JSON, freed by the caller; NULL after a complaint: what answers is no daemon of ours (exit status DN_EXIT_PROTOCOL). */
cJSON *client_json(const client *c, const client_answer *answer);
/* Text of elsewhere, with '?' in place of control characters. */
void client_print(FILE *out, const char *text);

/* Members of a body: "", 0, -1 where they are missing or of another kind. */
const char *client_text(const cJSON *object, const char *key);
double client_number(const cJSON *object, const char *key, double otherwise);

/* An id as jobs have it; else complains and returns DN_EXIT_USAGE, else DN_OPTIONS_GO_ON. */
int client_check_id(const client *c, const char *id);

/* ---- client_events.c: server-sent events, from bytes that come in pieces */

#define CLIENT_EVENT_BYTES_MAX (4u << 20)

typedef struct client_event {
    const char *name, *data;
    const char *id; /* NULL: it has none */
} client_event;
typedef bool client_on_event(void *payload, const client_event *event); /* false: no more are wanted */

typedef struct client_events {
    client_on_event *on_event;
    void *payload;
    api_text line, data;
    char name[32], id[24];
    bool has_id, broken; /* broken: an event was too large, or there was no memory */
    char last_id[24]; /* of the last event that had one; "" none. For Last-Event-ID */
} client_events;

bool client_events_feed(void *events, const char *bytes, size_t count); /* a client_sink */
void client_events_again(client_events *events); /* a new connection: half an event is forgotten */
void client_events_done(client_events *events);

/* ---- client_pictures.c: what a job has made, on the screen and in files */

typedef struct client_pictures {
    uint32_t count; /* places */
    uint32_t width, height, channels; /* of each; 0: none came */
    uint8_t *pixels[CLIENT_IMAGES_MAX]; /* NULL: none yet */
    uint32_t lines; /* that the last drawing took */
} client_pictures;

/* A PNG for a place; one of another size than those before takes the place of all of them. False: it is no picture. */
bool client_pictures_add(client_pictures *p, uint32_t index, const unsigned char *png, size_t bytes);
void client_pictures_show(client_pictures *p, const terminal *screen);
void client_pictures_done(client_pictures *p);

/* The terminal that `show` (one of TERMINAL_WAYS) means; nothing is drawn where standard output is taken: by JSON, or a picture's bytes
 * ("-"). DN_OPTIONS_GO_ON, or an exit status and a complaint. */
int client_look(const client *c, terminal *out, const char *show, bool taken, const char *output);

/* Where pictures go: NULL: ID-INDEX.png here; a folder (there already, or ending in '/'); "-"; a file, for a single picture. */
int client_output_check(const client *c, const char *output, uint32_t n, bool json);

typedef struct client_wish {
    const char *output; /* see client_output_check */
    bool save, json; /* json: {"files":[...],"job":JOB} on standard output; else the names of files, one a line */
    const terminal *screen;
} client_wish;
/* Fetches the pictures that a job (JSON) has, holds each against its SHA-256, writes them and shows them. An exit status; files that were
 * written stay, and are told. */
int client_collect(client *c, const cJSON *job, const client_wish *wish, client_pictures *shown);

/* ---- client_watch.c */

typedef struct client_watch {
    client *c;
    const char *id;
    const terminal *screen;
    bool json; /* each event as a line of JSON on standard output */
    double give_up_seconds; /* how long a lost daemon is looked for */
    cJSON *job; /* at its end; the caller frees it */
    client_pictures pictures; /* previews; the caller frees them */

    client_events events;
    dn_progress_bar bar;
    double share, left_seconds; /* what the bar says; left < 0: nobody knows */
    char note[48];
    bool plain; /* no bar: milestones in lines */
    bool heard; /* something came since the last connection */
} client_watch;

/* Follows a job to its end, over lost connections. DN_OPTIONS_GO_ON: w->job is the job as it ended; else an exit status. */
int client_watch_run(client_watch *w);
/* How a job ended, in a line on standard error; the exit status. */
int client_tell_end(const client *c, const cJSON *job);

/* ---- client_body.c */

typedef struct client_request {
    const char *model, *class_text, *mixture, *negative, *sampler, *init_path, *mask_path, *variation, *webhook, *seed, *priority;
    const char *option_text[64]; /* of the engine's table */
    double guidance_scale, deadline;
    uint64_t steps, n;
} client_request;

/* The body of POST /generate, malloc'd; NULL after a complaint (*status). */
char *client_body(const client *c, const client_request *request, int *status);

#endif
