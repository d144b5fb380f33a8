/* Token buckets (auth_buckets.h). */
#include "server/auth_buckets.h"

#include <math.h>

bool auth_bucket_take(auth_bucket *b, double amount, double size, double rate, double now, double *wait_seconds)
{
    b->level = b->filled_at > 0 ? fmin(size, b->level + (now - b->filled_at) * rate) : size;
    b->filled_at = now;
    *wait_seconds = 0;
    if (amount <= b->level) {
        b->level -= amount;
        return true;
    }
    *wait_seconds = amount <= size ? (amount - b->level) / rate : (double)INFINITY;
    return false;
}
