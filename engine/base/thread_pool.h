/* A pool of worker threads that runs indexed tasks: dynamic tiles, short spin, then sleep.
 *
 * One job at a time: dn_pool_run blocks its caller, which works too. A NULL pool runs everything inline, which is
 * how a thread that already owns a core (a trainer's shard) uses kernels written for the pool. Kernels must give the
 * same bytes whatever the size of the pool: a task computes its outputs alone, in a fixed order. */
#ifndef DN_BASE_THREAD_POOL_H
#define DN_BASE_THREAD_POOL_H

#include "base/error.h"

typedef struct dn_pool dn_pool;

/* task index in 0..count-1; worker in 0..dn_pool_size()-1 picks per-thread scratch. */
typedef void dn_pool_task(void *payload, unsigned index, unsigned worker);

/* threads = 0: the smaller of the CPU affinity mask and the cgroup quota (rounded up), at least 1. */
dn_status dn_pool_create(dn_pool **out, unsigned threads, dn_error *error);
void dn_pool_free(dn_pool *pool);                 /* accepts NULL */
unsigned dn_pool_size(const dn_pool *pool);       /* NULL: 1 */
void dn_pool_run(dn_pool *pool, unsigned count, dn_pool_task *task, void *payload);
/* Between the two calls jobs follow each other closely: threads without work look for some longer before they sleep, because a
 * wake-up costs more than the gap. Calls nest, from any threads; a NULL pool takes them. */
void dn_pool_expect(dn_pool *pool);
void dn_pool_relax(dn_pool *pool);
unsigned dn_available_cpus(void);                 /* affinity and cgroup quota, at least 1 */

#endif
