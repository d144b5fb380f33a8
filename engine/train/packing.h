/* The layout in which backward runs want weights and collect their gradients.
 *
 * A conv weight [O,I,k,k] becomes [k*k][O][I'] and a linear weight [O,I] becomes [1][O][I'], with I' = I rounded up to
 * 16, so that both products of a backward pass stream contiguous input channels; everything else is copied as it is.
 * A 3x3 conv weight that goes through Winograd's transform becomes its 16 points, [16][O][I].
 * Padding is zero in weights and never read in gradients. A packing depends on the plan alone; immutable, any thread. */
#ifndef DN_TRAIN_PACKING_H
#define DN_TRAIN_PACKING_H

#include "plan/plan.h"

#define DN_PACK_CHANNELS 16u
#define DN_BACKWARD_ROWS 4u /* rows of a backward run at most: they share a pass over the weights */

typedef struct dn_packed_weight {
    uint64_t offset; /* floats from the start of the packed array; a multiple of 16 */
    uint32_t taps, rows, columns; /* [taps][rows][stride]; plain weights are [1][1][count] */
    uint32_t stride; /* of one row, floats */
    bool winograd; /* taps are the 16 points of F(2x2, 3x3): backward_winograd.inc.c */
} dn_packed_weight;

typedef struct dn_packing {
    const dn_plan *plan; /* borrowed */
    dn_packed_weight *weights; /* [plan->weight_count] */
    uint64_t total; /* floats of the packed array */
    uint64_t scratch; /* floats a backward run needs */
    uint64_t row_gradients; /* floats of the gradients of every value of one row */
} dn_packing;

dn_status dn_packing_create(dn_packing **out, const dn_plan *plan, dn_error *error);
void dn_packing_free(dn_packing *packing);

static inline uint32_t dn_pack_round(uint32_t channels)
{
    return (channels + DN_PACK_CHANNELS - 1) / DN_PACK_CHANNELS * DN_PACK_CHANNELS;
}

#define DN_PACK_TILES 64u /* 2x2 tiles whose points are in scratch at once, so that they stay in the second cache */

/* Lines of tiles that are in scratch at once, counted through the pictures of a few rows. */
static inline uint32_t dn_pack_tile_lines(dn_shape shape)
{
    uint32_t across = shape.w / 2;
    return across < DN_PACK_TILES ? DN_PACK_TILES / across : 1;
}

#endif
