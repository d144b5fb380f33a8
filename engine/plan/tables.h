/* Tables that follow from a node alone, the same bits for every back end. Pure functions. */
#ifndef DN_PLAN_TABLES_H
#define DN_PLAN_TABLES_H

#include "plan/plan.h"

/* Of a time embedding or class sinusoid of `channels`: out[channels / 2], e^(-ln(max_period) i / (channels / 2 - freq_shift)). */
void dn_plan_frequencies(const dn_node *node, uint32_t channels, double *out);

/* What a position node adds: out[h][w][c] of its shape. */
void dn_plan_positions(const dn_plan *plan, const dn_node *node, float *out);

#endif
