/* Frequencies of sinusoids and DiT's position embedding, in double by base/math64.h, rounded once. Pure functions. */
#include "plan/tables.h"

#include "base/math64.h"

void dn_plan_frequencies(const dn_node *node, uint32_t channels, double *out)
{
    uint32_t half = channels / 2;
    double slope = -dn_log((double)node->max_period) / ((double)half - (double)node->freq_shift);
    for (uint32_t i = 0; i < half; i++)
        out[i] = dn_exp(slope * i);
}

/* One axis' quarter of a pixel's channels, twice: sines, then cosines. */
static void tabulate_axis(float *table, size_t quarter, double place)
{
    double slope = -dn_log(10000.0) / (double)quarter;
    for (size_t i = 0; i < quarter; i++) {
        double sine, cosine;
        dn_sine_cosine(place * dn_exp(slope * (double)i), &sine, &cosine);
        table[i] = (float)sine;
        table[quarter + i] = (float)cosine;
    }
}

/* The column's half, then the row's. */
void dn_plan_positions(const dn_plan *plan, const dn_node *node, float *out)
{
    dn_shape shape = plan->values[node->out].shape;
    for (size_t p = 0; p < (size_t)shape.h * shape.w; p++, out += shape.c) {
        tabulate_axis(out, shape.c / 4, (double)(p % shape.w) / (double)node->position_scale);
        tabulate_axis(out + shape.c / 2, shape.c / 4, (double)(p / shape.w) / (double)node->position_scale);
    }
}
