/* The hub: what is live about jobs, in memory. Whoever makes something happen publishes; streams and waiters subscribe.
 *
 * Milestones are durable and read from the store: here only "there is a newer one". Progress, position and previews live here
 * alone: the latest wins. Any thread may publish; wake callbacks are called without the hub's lock and must only resume their owner. */
#ifndef SERVER_HUB_H
#define SERVER_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct hub hub;
typedef struct hub_subscription hub_subscription;
typedef void hub_wake(void *payload);

dn_status hub_create(hub **out, dn_error *error);
void hub_free(hub *h);

/* A subscription to one job; previews: this subscriber wants them (hub_previews_wanted tells the dispatcher). NULL: out of memory. */
hub_subscription *hub_subscribe(hub *h, const char *job_id, bool previews, hub_wake *wake, void *payload);
void hub_unsubscribe(hub *h, hub_subscription *subscription);   /* after it returns, wake is not running and will not be called */

void hub_milestone(hub *h, const char *job_id, int64_t seq, bool ended);
void hub_progress(hub *h, const char *job_id, uint64_t done, uint64_t total, uint32_t images_done, double eta_seconds);
void hub_preview(hub *h, const char *job_id, uint32_t index, uint32_t done, uint32_t total, uint32_t width, uint32_t height,
                 const unsigned char *png, size_t bytes);
void hub_queue_moved(hub *h);                                   /* positions may have changed; wakes nobody: streams look */
bool hub_previews_wanted(hub *h, const char *job_id);
void hub_forget(hub *h, const char *job_id);                    /* the job ended: live state goes once nobody subscribes */

typedef struct hub_live {
    bool known;
    int64_t seq;                    /* newest milestone */
    bool ended;
    uint64_t version;               /* of progress: changes when it changes */
    uint64_t done, total;
    uint32_t images_done;
    double eta_seconds;             /* < 0: unknown */
    uint64_t queue_version;         /* changes when positions may have moved */
    uint64_t preview_version;
} hub_live;
void hub_read(hub *h, const char *job_id, hub_live *out);

typedef struct hub_preview_view {
    uint64_t version;
    uint32_t index, done, total, width, height;
    unsigned char *png;             /* malloc'd copy */
    size_t bytes;
} hub_preview_view;
/* The oldest preview with version > after; false: none. One per image index is kept. */
bool hub_next_preview(hub *h, const char *job_id, uint64_t after, hub_preview_view *out);

#endif
