/* One try to deliver a webhook: an HTTP POST by libcurl, to an address that is judged when it is connected to. No redirect is
 * followed, no proxy is asked, nothing of the answer but its status is kept. The thread that owns the multi handle alone. */
#ifndef SERVER_WEBHOOK_TRY_H
#define SERVER_WEBHOOK_TRY_H

#include <curl/curl.h>

#include "api/traceparent.h"
#include "server/webhook_policy.h"
#include "server/webhook_signature.h"

#define WEBHOOK_CONNECT_SECONDS 5
#define WEBHOOK_TRY_SECONDS 10
#define WEBHOOK_ANSWER_BYTES_MAX 4096 /* of the body; more is not read */

typedef struct webhook_message {
    char id[40];
    int64_t seconds; /* when it is sent, since 1970 */
    char *body;
    char traceparent[API_TRACEPARENT_BYTES]; /* "" none */
} webhook_message;

typedef struct webhook_try {
    CURL *easy;
    struct curl_slist *headers;
    webhook_message message;
    webhook_url url;
    bool blocked; /* its name leads, among others, to an address that is not public */
    size_t answer_bytes, header_bytes;
} webhook_try;

typedef enum webhook_outcome { WEBHOOK_DELIVERED, WEBHOOK_FAILED, WEBHOOK_HOPELESS } webhook_outcome;

/* Prepares t->easy for a POST of t->message, whose body is freed with the try, to `url`, which t->url was read from. ca_file:
 * certificates to trust instead of the system's; NULL: those. False: out of memory. */
bool webhook_try_begin(webhook_try *t, const char *url, const webhook_secret *secret, const char *ca_file);
/* What became of it; `why` says what went wrong, without the URL, which may hold secrets. */
webhook_outcome webhook_try_outcome(const webhook_try *t, CURLcode code, char why[256]);
void webhook_try_done(webhook_try *t);

#endif
