/* Kernels that are wrong on purpose, and some that are right: what the emulated threads are tried on. Each launches on the usual stream and
 * answers CUDA's error number. */
#ifndef DN_TESTS_CUDA_PLANTED_H
#define DN_TESTS_CUDA_PLANTED_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] of 256 threads: the sum of in[0..255] through shared memory; `barrier`: whether it waits before it reads what others wrote. */
int planted_sum(const float *in, float *out, bool barrier);
/* out[i] = the element of shared memory that nobody wrote. */
int planted_unwritten(float *out);
/* out[0..7][64]: lane 3's, the partner's at distance 5, the one 2 above, the one 1 below, how many are odd, any, all, twice exchanged. */
int planted_shuffles(uint32_t *out);
/* out[block]++ for each block of 3 x 4 x 5 of 2 x 3 x 4 threads. */
int planted_blocks(uint32_t *out, bool flat);

/* Each of these ends the process. */
int planted_left_before_barrier(void);
int planted_half_a_shuffle(void);
int planted_flat_barrier(void);
int planted_much_shared(void);

/* A grid or block that no GPU takes. */
int planted_launch(uint32_t blocks_x, uint32_t blocks_y, uint32_t threads, uint64_t shared);

#ifdef __cplusplus
}
#endif

#endif
