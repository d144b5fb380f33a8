/* When a waiting image may enter a running batch: the policy of `serve --batching`, handed on to the worker. Pictures are the same
 * bytes under each; only throughput and waiting differ. */
#ifndef SERVER_BATCHING_H
#define SERVER_BATCHING_H

#include <stdbool.h>

typedef enum batching {
    BATCHING_CONTINUOUS, /* at every tick, as rows are free */
    BATCHING_REQUEST, /* what waits together forms a batch that runs to its end before the next one forms, of all models */
    BATCHING_SINGLE /* one image at a time, of all models */
} batching;

const char *batching_name(batching policy);
bool batching_from(const char *name, batching *out);

#endif
