/* A plan compiled for this CPU: weights packed into panels, small ones copied, time frequencies tabulated.
 *
 * Invariant: one allocation holds every weight; it changes only in network_update, when no run is in flight. Each weight
 * is held in one form: packed when a conv or linear node multiplies by it, as in the checkpoint otherwise. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/half.h"
#include "backend/cpu/winograd.h"
#include "plan/tables.h"

#define SHARED_NODE_FLOPS 1e9 /* of one row, on average over the nodes that multiply: 4 milliseconds of one core */

static bool multiplies(const dn_node *node)
{
    return node->kind == DN_NODE_CONV || node->kind == DN_NODE_LINEAR;
}

/* Rows of the matrix that a conv or linear node multiplies by: kernel rows * kernel columns * inputs. */
static size_t depth_of(const dn_plan *plan, const dn_node *node)
{
    const dn_weight_info *info = &plan->weights[node->weight];
    return (size_t)(info->count / info->dims[0]);
}

static size_t packed_count(const dn_network *network, const dn_node *node)
{
    const dn_cpu_half *half = network->nodes[node - network->plan->nodes].half;
    const dn_weight_info *info = &network->plan->weights[node->weight];
    const dn_cpu_kernels *kernels = network->device->kernels;
    size_t count;
    dn_winograd_form form = dn_cpu_winograd_form(network->plan, node);
    if (half)
        count = dn_cpu_half_packed_count(half, depth_of(network->plan, node), info->dims[0]);
    else if (form.side != 0)
        count = dn_cpu_winograd_packed_count(kernels, form, info->dims[1], info->dims[0]);
    else
        count = dn_cpu_packed_count(kernels, depth_of(network->plan, node), info->dims[0]);
    return dn_cpu_round_up(count, DN_CPU_LINE_FLOATS);
}

/* Marks the weights that must stay in checkpoint layout: every one that no conv or linear multiplies by. */
static void mark_plain(const dn_plan *plan, bool *plain)
{
    for (uint32_t n = 0; n < plan->node_count; n++) {
        const dn_node *node = &plan->nodes[n];
        if (node->weight != DN_NONE && !multiplies(node))
            plain[node->weight] = true;
        if (node->bias != DN_NONE)
            plain[node->bias] = true;
    }
}

/* Measures (storage NULL) or hands out every weight's and table's place. Returns floats. */
static size_t place_weights(dn_network *network, const bool *plain, float *storage)
{
    const dn_plan *plan = network->plan;
    size_t used = 0;
    for (uint32_t n = 0; n < plan->node_count; n++) {
        if (!multiplies(&plan->nodes[n]))
            continue;
        if (storage)
            network->nodes[n].packed = storage + used;
        used += packed_count(network, &plan->nodes[n]);
    }
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        if (!plain[w])
            continue;
        if (storage)
            network->weights[w] = storage + used;
        used += dn_cpu_round_up((size_t)plan->weights[w].count, DN_CPU_LINE_FLOATS);
    }
    for (uint32_t n = 0; n < plan->node_count; n++) {
        if (plan->nodes[n].kind != DN_NODE_POSITION)
            continue;
        if (storage)
            network->nodes[n].table = storage + used;
        used += dn_cpu_round_up(dn_shape_count(plan->values[plan->nodes[n].out].shape), DN_CPU_LINE_FLOATS);
    }
    return used;
}

static bool is_sinusoid(const dn_node *node)
{
    return node->kind == DN_NODE_TIME_EMBEDDING || node->kind == DN_NODE_CLASS_SINUSOID;
}

static size_t count_frequencies(const dn_plan *plan)
{
    size_t count = 0;
    for (uint32_t n = 0; n < plan->node_count; n++) {
        if (is_sinusoid(&plan->nodes[n]))
            count += plan->values[plan->nodes[n].out].shape.c / 2;
    }
    return count;
}

static void tabulate_frequencies(dn_network *network)
{
    double *next = network->frequencies;
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        const dn_node *node = &network->plan->nodes[n];
        if (!is_sinusoid(node))
            continue;
        uint32_t channels = network->plan->values[node->out].shape.c;
        dn_plan_frequencies(node, channels, next);
        network->nodes[n].frequency = next;
        next += channels / 2;
    }
}

static void tabulate_positions(dn_network *network)
{
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        if (network->plan->nodes[n].kind == DN_NODE_POSITION)
            dn_plan_positions(network->plan, &network->plan->nodes[n], network->nodes[n].table);
    }
}

typedef struct update_job {
    dn_network *network;
    const dn_weights *weights;
    dn_weights *spent; /* the same, to be given back; NULL: they stay */
    const uint8_t *users; /* [weight_count] nodes that multiply by it; more than one: it stays */
} update_job;

/* One node's weight to panels. A conv's [O,I,kh,kw] becomes [kh,kw,I] x O: one pass for each tap. */
static void pack_weight(const update_job *job, unsigned index)
{
    const dn_plan *plan = job->network->plan;
    const dn_node *node = &plan->nodes[index];
    const dn_weight_info *info = &plan->weights[node->weight];
    const dn_cpu_kernels *kernels = job->network->device->kernels;
    if (job->network->nodes[index].half) {
        const float *weight = job->weights->data[node->weight];
        dn_cpu_half_pack(job->network->nodes[index].packed, job->network->nodes[index].half, weight, depth_of(plan, node), info->dims[0]);
        return;
    }
    dn_winograd_form form = dn_cpu_winograd_form(plan, node);
    if (form.side != 0) {
        const float *weight = job->weights->data[node->weight];
        dn_cpu_winograd_pack(job->network->nodes[index].packed, kernels, form, weight, info->dims[1], info->dims[0]);
        return;
    }
    size_t taps = info->rank == 4 ? (size_t)info->dims[2] * info->dims[3] : 1;
    size_t depth = depth_of(plan, node);
    for (size_t tap = 0; tap < taps; tap++) {
        dn_pack pack = {
            .src = job->weights->data[node->weight] + tap,
            .depth_stride = taps,
            .column_stride = depth,
            .depth = depth,
            .n = info->dims[0],
            .first = tap * (depth / taps),
            .count = depth / taps,
        };
        dn_cpu_pack(job->network->nodes[index].packed, kernels, &pack);
    }
}

/* Task. */
static void pack_node(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const update_job *job = payload;
    const dn_node *node = &job->network->plan->nodes[index];
    if (!multiplies(node))
        return;
    pack_weight(job, index);
    if (job->spent && job->users[node->weight] == 1)
        dn_weights_release(job->spent, job->network->plan, node->weight);
}

static dn_status pack_all(update_job *job, dn_error *error)
{
    const dn_network *network = job->network;
    const dn_plan *plan = network->plan;
    if (job->weights->count != plan->weight_count)
        return dn_fail(error, DN_INTERNAL, "%u weights for a plan of %u", job->weights->count, plan->weight_count);
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        if (network->weights[w])
            memcpy(network->weights[w], job->weights->data[w], (size_t)plan->weights[w].count * sizeof(float));
    }
    dn_pool_run(network->device->pool, plan->node_count, pack_node, job);
    return DN_OK;
}

dn_status dn_cpu_network_update(dn_network *network, const dn_weights *weights, dn_error *error)
{
    network->version++;
    return pack_all(&(update_job){.network = network, .weights = weights}, error);
}

/* The first packing, which may take the weights with it. */
static dn_status pack_first(dn_network *network, const dn_network_options *options, dn_error *error)
{
    const dn_plan *plan = network->plan;
    update_job job = {.network = network, .weights = options->spent ? options->spent : options->weights, .spent = options->spent};
    uint8_t *users = calloc((size_t)plan->weight_count + 1, sizeof *users);
    if (!users)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a network");
    for (uint32_t n = 0; n < plan->node_count; n++) {
        if (multiplies(&plan->nodes[n]) && users[plan->nodes[n].weight] < 2)
            users[plan->nodes[n].weight]++;
    }
    job.users = users;
    dn_status status = pack_all(&job, error);
    free(users);
    return status;
}

void dn_cpu_network_free(dn_network *network)
{
    if (!network)
        return;
    dn_cpu_conditioning_done(&network->conditioning);
    free(network->nodes);
    free(network->weights);
    free(network->allocation);
    free(network->frequencies);
    free(network);
}

/* Zeros that take no memory until something is written over them. */
static void reserve_storage(dn_network *network)
{
    const size_t line = DN_CPU_LINE_FLOATS * sizeof(float);
    network->allocation = calloc(1, network->bytes + line);
    if (network->allocation)
        network->storage = (float *)(((uintptr_t)network->allocation + line - 1) / line * line);
}

/* Which nodes multiply in 16 bits, and which others lay out their rows anew. */
static void choose_halves(dn_network *network, dn_precision precision)
{
    const dn_cpu_half *half = dn_cpu_half_of(network->device, precision);
    for (uint32_t n = 0; n < network->plan->node_count; n++)
        network->nodes[n].half = half && dn_cpu_half_fits(network->plan, &network->plan->nodes[n]) ? half : NULL;
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        bool collide = dn_cpu_rows_collide(network->device->kernels, network->plan, &network->plan->nodes[n]);
        network->nodes[n].apart = collide && !network->nodes[n].half;
    }
}

/* Large nodes are shared: to meet after each then costs nothing, and a weight comes from memory once for all threads. Below, threads
 * take rows of their own, and meet once a pass. */
static bool shares_nodes(const dn_plan *plan)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < plan->node_count; n++)
        count += dn_plan_node_flops(plan, n) > 0.0;
    return dn_plan_flops(plan) >= SHARED_NODE_FLOPS * count;
}

size_t dn_cpu_packed_bytes(dn_device *device, const dn_plan *plan, dn_precision precision)
{
    bool *plain = calloc((size_t)plan->weight_count + 1, sizeof *plain);
    dn_network network = {.device = device, .plan = plan, .nodes = calloc((size_t)plan->node_count + 1, sizeof *network.nodes)};
    size_t floats = 0;
    if (plain && network.nodes) {
        choose_halves(&network, precision);
        mark_plain(plan, plain);
        floats = place_weights(&network, plain, NULL);
    }
    free(plain);
    free(network.nodes);
    return floats * sizeof(float);
}

dn_status dn_cpu_network_create(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *error)
{
    const dn_plan *plan = options->plan;
    dn_status status = dn_cpu_precision_check(device, options->precision, error);
    if (status != DN_OK)
        return status;
    bool *plain = calloc((size_t)plan->weight_count + 1, sizeof *plain);
    dn_network *network = calloc(1, sizeof *network);
    if (!network || !plain) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for a network");
        goto done;
    }
    network->device = device;
    network->plan = plan;
    network->together = shares_nodes(plan);
    network->nodes = calloc(plan->node_count, sizeof *network->nodes);
    network->weights = calloc((size_t)plan->weight_count + 1, sizeof *network->weights);
    network->frequencies = calloc(count_frequencies(plan) + 1, sizeof *network->frequencies);
    if (!network->nodes || !network->weights || !network->frequencies) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for a network");
        goto done;
    }
    choose_halves(network, options->precision);
    mark_plain(plan, plain);
    size_t floats = place_weights(network, plain, NULL);
    network->bytes = floats * sizeof(float);
    reserve_storage(network);
    if (!network->storage) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for %zu MB of packed weights", network->bytes >> 20);
        goto done;
    }
    status = dn_cpu_conditioning_find(&network->conditioning, plan, error);
    if (status != DN_OK)
        goto done;
    place_weights(network, plain, network->storage);
    tabulate_frequencies(network);
    tabulate_positions(network);
    status = pack_first(network, options, error);
done:
    free(plain);
    if (status == DN_OK)
        *out = network;
    else
        dn_cpu_network_free(network);
    return status;
}
