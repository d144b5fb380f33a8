/* What every kind of library asks of a product before it makes one, and how a product is called in messages, plan caches and hashes.
 * Pure C, no state. */
#ifndef DN_BACKEND_CUDA_SPEC_H
#define DN_BACKEND_CUDA_SPEC_H

#include "backend/cuda/libraries.h"

#define DN_CUDA_SPEC_TEXT 160u

/* DN_INVALID: sizes that do not fit together or pass 2^31 elements a tensor; DN_UNSUPPORTED: an attention that dn_cuda_takes_sdpa refuses. */
dn_status dn_cuda_product_check(const dn_cuda_product_spec *spec, const uint32_t *buckets, uint32_t bucket_count, dn_error *error);

/* "conv 64x64x320 3x3/1 p1,1,1,1 320 bf16 +r+b": all that the spec says. */
void dn_cuda_product_name(const dn_cuda_product_spec *spec, char out[DN_CUDA_SPEC_TEXT]);

/* Elements from row to row of a product's input and of its output (of its residual too). */
uint64_t dn_cuda_product_in_pitch(const dn_cuda_product_spec *spec);
uint64_t dn_cuda_product_out_pitch(const dn_cuda_product_spec *spec);

/* Of buckets first .. end - 1 the one whose best configuration is tried first for all: the first with some thousands of pixels. Its tiles are
 * neither so large that a small batch leaves most of a GPU idle, nor so small that a large one reads its operands too often. Of vectors, whose
 * weights are most of what is read, and of attention, whose rows are apart, the last. */
uint32_t dn_cuda_middle_bucket(const dn_cuda_product_spec *spec, const uint32_t *buckets, uint32_t first, uint32_t end);

/* Whether one configuration's workspaces for these batch sizes look like those of sums that are never cut. A kernel that shares out a sum's
 * parts when a batch alone does not fill the GPU ("stream-K") keeps the parts in workspace: a megabyte at 8 rows and none at 16, say. What
 * remains is a few counters, or copies in other layouts, which grow with the batch by the same step for every row. */
bool dn_cuda_workspace_steady(const uint32_t *buckets, const size_t *workspace, uint32_t count);

/* Pointers that a run needs are there, and at multiples of 16 bytes. DN_INTERNAL: they are not. */
dn_status dn_cuda_operands_check(const dn_cuda_product_spec *spec, const dn_cuda_operands *operands, size_t workspace, dn_error *error);

#endif
