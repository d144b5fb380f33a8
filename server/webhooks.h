/* Webhooks: the thread that empties the outbox. Rows whose time has come are posted, several at once; a failure is tried again with
 * growing, jittered pauses, five times in all; a receiver that fails again and again is left alone for a while. What was sent but not
 * yet marked when the daemon dies is sent again: receivers tell repetitions by the webhook-id, which is the job's. */
#ifndef SERVER_WEBHOOKS_H
#define SERVER_WEBHOOKS_H

#include "server/metrics.h"
#include "server/store/store.h"
#include "server/webhook_policy.h"

#define WEBHOOK_TRIES_MAX 5
#define WEBHOOK_BACKOFF_FACTOR 5.0          /* between two pauses: 5, 25, 125, 625 s */
#define WEBHOOK_FAILURES_MAX 50             /* of one receiver in a row, before it is left alone */
#define WEBHOOK_PAUSE_SECONDS 3600.0        /* ... for so long */

typedef struct webhooks webhooks;

typedef struct webhooks_options {
    store *store;
    metrics *metrics;
    const char *secret_file;
    const char *ca_file;             /* NULL: the system's certificates */
    const char *const *allowed;      /* HOST:PORT of receivers that need not be public; ended by NULL, or NULL; kept by the caller */
    double first_pause_seconds;      /* before the second try */
} webhooks_options;

dn_status webhooks_start(webhooks **out, const webhooks_options *options, dn_error *error);
void webhooks_stop(webhooks *w);     /* before the store closes; what is under way is tried again at the next start */
/* The rule that a URL breaks, to follow the field's name; NULL: none. Any thread. */
const char *webhooks_refuse(const webhooks *w, const char *url);

#endif
