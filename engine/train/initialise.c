/* Starting weights for a plan, from counter-based random numbers: weight w, element i is the same on every machine. */
#include "train/train.h"

#include <math.h>

#include "base/philox.h"

#define FOURIER_SPREAD 16.0f /* standard deviation of random frequencies (Song et al. 2021, NCSN++) */
#define SEED_SALT 0x696e697469616cu /* apart from the seeds of noise and shuffles */

static void fill_uniform(dn_weights *weights, const dn_plan *plan, dn_weight w, double bound, uint64_t seed)
{
    float *data = weights->data[w];
    dn_noise_uniform(data, plan->weights[w].count, 0, seed, DN_STREAM_TRAIN, w);
    for (uint64_t i = 0; i < plan->weights[w].count; i++) {
        data[i] = (float)((2 * (double)data[i] - 1) * bound);
    }
}

static void fill_constant(dn_weights *weights, const dn_plan *plan, dn_weight w, float value)
{
    for (uint64_t i = 0; i < plan->weights[w].count; i++) {
        weights->data[w][i] = value;
    }
}

static bool ends_branch(const dn_plan *plan, const dn_node *node)
{
    dn_value residual = node->kind == DN_NODE_CONV ? node->in[2] : node->in[1];
    return residual != DN_NONE || node->out == plan->output;
}

static void initialise_node(const dn_plan *plan, const dn_node *node, dn_weights *weights, uint64_t seed, bool zero_branches)
{
    const dn_weight_info *info = &plan->weights[node->weight];
    switch (node->kind) {
    case DN_NODE_GROUP_NORM:
    case DN_NODE_LAYER_NORM:
        fill_constant(weights, plan, node->weight, 1.0f);
        break;
    case DN_NODE_CLASS_EMBEDDING:
    case DN_NODE_TIME_TABLE:
        dn_noise_normal(weights->data[node->weight], info->count, 0, seed, DN_STREAM_TRAIN, node->weight);
        break;
    case DN_NODE_FOURIER_EMBEDDING:
        dn_noise_normal(weights->data[node->weight], info->count, 0, seed, DN_STREAM_TRAIN, node->weight);
        for (uint64_t i = 0; i < info->count; i++) {
            weights->data[node->weight][i] *= FOURIER_SPREAD;
        }
        break;
    case DN_NODE_CONV:
    case DN_NODE_LINEAR:
        if (!zero_branches || !ends_branch(plan, node)) {
            double bound = 1 / sqrt((double)info->count / info->dims[0]);
            fill_uniform(weights, plan, node->weight, bound, seed);
            if (node->bias != DN_NONE) {
                fill_uniform(weights, plan, node->bias, bound, seed);
            }
        }
        break;
    default:
        break;
    }
}

void dn_initialise(const dn_plan *plan, dn_weights *weights, uint64_t seed, bool zero_branches)
{
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        fill_constant(weights, plan, w, 0.0f);
    }
    for (uint32_t n = 0; n < plan->node_count; n++) {
        if (plan->nodes[n].weight != DN_NONE) {
            initialise_node(plan, &plan->nodes[n], weights, seed ^ SEED_SALT, zero_branches);
        }
    }
}
