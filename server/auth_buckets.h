/* Token buckets: how much of something a key may still use now. Seconds are monotonic and given by the caller. Not thread-safe. */
#ifndef SERVER_AUTH_BUCKETS_H
#define SERVER_AUTH_BUCKETS_H

#include <stdbool.h>

typedef struct auth_bucket {
    double level, filled_at; /* filled_at 0: never used, and full */
} auth_bucket;

/* Takes `amount` from a bucket that holds `size` and fills by `rate` a second. False: nothing is taken; *wait_seconds until it could be,
 * infinite when it never can. */
bool auth_bucket_take(auth_bucket *b, double amount, double size, double rate, double now, double *wait_seconds);

#endif
