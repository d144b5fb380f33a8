/* Counter-based noise "philox-1": the same numbers on every machine, in any order, for any batch.
 *
 * Philox4x32-10 (Salmon et al., SC 2011). Key = the image's 64-bit seed (low word first), counter =
 * {element / 4, draw, stream, 0}. Four 32-bit words make four normals by Box-Muller (words 0,1 -> normals 0,1;
 * words 2,3 -> normals 2,3) with our own polynomial log, sin and cos, compiled without fused multiply-add, so that
 * every CPU and GPU agrees bit for bit. Elements are numbered (c*H + h)*W + w. */
#ifndef DN_BASE_PHILOX_H
#define DN_BASE_PHILOX_H

#include <stddef.h>
#include <stdint.h>

#define DN_NOISE_NAME "philox-1"

typedef enum dn_noise_stream {
    DN_STREAM_START = 0,
    DN_STREAM_STEP = 1,
    DN_STREAM_INPAINT = 2,
    DN_STREAM_PROBE = 3,
    DN_STREAM_TRAIN = 4,
    DN_STREAM_ENCODE = 5 /* the sample of an encoder's distribution */
} dn_noise_stream;

void dn_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

/* out[i] = the standard normal of element first + i. */
void dn_noise_normal(float *out, size_t count, size_t first, uint64_t seed, dn_noise_stream stream, uint32_t draw);

/* out[i] uniform in [0, 1), 24 bits, from the same counters (word i % 4 of block i / 4). */
void dn_noise_uniform(float *out, size_t count, size_t first, uint64_t seed, dn_noise_stream stream, uint32_t draw);

/* One raw 32-bit word: for shuffles and labels in training. */
uint32_t dn_noise_word(uint64_t seed, dn_noise_stream stream, uint32_t draw, uint64_t element);

#endif
