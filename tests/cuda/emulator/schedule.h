/* The order in which the emulated GPU's threads and blocks run, for tests: a right kernel writes the same bytes under every one.
 *
 * A thread runs until it waits at a barrier or a shuffle, then another one does. Skewed orders find what fair ones hide: a barrier that is
 * missing goes unnoticed as long as all warps move together. What passes is evidence, no proof. Any thread may call this; it holds for
 * launches that run after it. */
#ifndef DN_TESTS_CUDA_SCHEDULE_H
#define DN_TESTS_CUDA_SCHEDULE_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cuemu_order {
    CUEMU_FORWARD,    /* threads and blocks in the order of their numbers; the usual one */
    CUEMU_REVERSE,    /* both backwards */
    CUEMU_SHUFFLED,   /* both in an order of chance, drawn anew at every barrier; always the same from one call of this to the next */
    CUEMU_LOW_FIRST,  /* a warp runs as far as it can before any with a higher number */
    CUEMU_HIGH_FIRST, /* the same from the highest; blocks backwards */
    CUEMU_ORDERS
} cuemu_order;

void cuemu_schedule(cuemu_order order);

#ifdef __cplusplus
}
#endif

#endif
