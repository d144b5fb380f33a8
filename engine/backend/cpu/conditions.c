/* The vectors of the conditions that a workspace met last, least recently used ones giving way.
 *
 * Invariant: while a run is in flight none of its rows' vectors gives way, for there are as many places as rows; and kept vectors are
 * those of the network's present weights. The workspace's owner calls; products use its pool. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conditions.h"
#include "backend/cpu/state.h"

#define TASK_FLOATS 262144u /* of weight that a task of a level's products reads: 1 MB */
#define TASKS_OF_A_THREAD 4u /* at least, where there is so much */

/* All that a node may know of a row beside its sample, by its bits. */
typedef struct condition_key {
    uint32_t time, count;
    uint32_t classes[DN_CONDITION_CLASSES_MAX];
    float weights[DN_CONDITION_CLASSES_MAX];
} condition_key;

struct dn_cpu_conditions {
    const dn_network *network; /* borrowed */
    uint64_t version; /* of the network's weights when the vectors were computed */
    uint64_t now; /* runs so far: when a place was used last */
    uint32_t places, used;
    condition_key *keys; /* per place */
    uint64_t *hashes, *last_used; /* per place */
    float *vectors; /* [places][kept_floats] */
    uint32_t *place_of; /* per row of the run */
    dn_row *missed; /* rows whose vectors must be computed, and where they go */
    uint32_t *missed_place;
    uint32_t missed_count;
    float *staging; /* every value of a pass */
    size_t *offsets; /* per value, into staging */
    uint64_t hits, misses;
};

static size_t places_of(const dn_network *network, uint32_t rows_max, size_t bytes_max)
{
    size_t each = network->conditioning.kept_floats * sizeof(float);
    if (bytes_max == 0)
        bytes_max =
            dn_cpu_min(DN_CPU_CONDITIONS_BYTES_MAX, dn_cpu_max(DN_CPU_CONDITIONS_BYTES_MIN, network->bytes / DN_CPU_CONDITIONS_SHARE));
    return dn_cpu_max(rows_max, dn_cpu_min(DN_CPU_CONDITIONS_MAX, bytes_max / each));
}

static size_t staging_floats(const dn_network *network, uint32_t rows_max)
{
    return network->conditioning.pass_floats * dn_cpu_min(rows_max, DN_CPU_CONDITIONS_PASS);
}

size_t dn_cpu_conditions_bytes(const dn_network *network, uint32_t rows_max, size_t bytes_max)
{
    size_t kept = network->conditioning.kept_floats;
    if (kept == 0)
        return 0;
    return (places_of(network, rows_max, bytes_max) * kept + staging_floats(network, rows_max)) * sizeof(float);
}

/* Lays the values of one pass out one after another. */
static void place_staging(dn_cpu_conditions *c, uint32_t rows)
{
    const dn_plan *plan = c->network->plan;
    size_t used = 0;
    for (uint32_t i = 0; i < c->network->conditioning.node_count; i++) {
        dn_value out = plan->nodes[c->network->conditioning.nodes[i]].out;
        c->offsets[out] = used;
        used += dn_cpu_round_up(dn_shape_count(plan->values[out].shape), DN_CPU_LINE_FLOATS) * rows;
    }
}

dn_status dn_cpu_conditions_create(dn_cpu_conditions **out, const dn_network *network, uint32_t rows_max, size_t bytes_max, dn_error *error)
{
    *out = NULL;
    if (network->conditioning.kept_floats == 0)
        return DN_OK;
    dn_cpu_conditions *c = calloc(1, sizeof *c);
    if (!c)
        return dn_fail(error, DN_NO_MEMORY, "no memory for the vectors of conditions");
    c->network = network;
    c->version = network->version;
    c->places = (uint32_t)places_of(network, rows_max, bytes_max);
    c->keys = calloc(c->places, sizeof *c->keys);
    c->hashes = calloc(c->places, sizeof *c->hashes);
    c->last_used = calloc(c->places, sizeof *c->last_used);
    c->vectors = calloc(c->places, network->conditioning.kept_floats * sizeof(float)); /* a large one takes pages as they are written */
    c->place_of = calloc(rows_max, sizeof *c->place_of);
    c->missed = calloc(rows_max, sizeof *c->missed);
    c->missed_place = calloc(rows_max, sizeof *c->missed_place);
    c->staging = dn_cpu_alloc(staging_floats(network, rows_max));
    c->offsets = calloc(network->plan->value_count, sizeof *c->offsets);
    if (!c->keys || !c->hashes || !c->last_used || !c->vectors || !c->place_of || !c->missed || !c->missed_place || !c->staging ||
        !c->offsets) {
        dn_cpu_conditions_free(c);
        return dn_fail(error, DN_NO_MEMORY, "no memory for the vectors of %u conditions",
                       (unsigned)places_of(network, rows_max, bytes_max));
    }
    place_staging(c, (uint32_t)dn_cpu_min(rows_max, DN_CPU_CONDITIONS_PASS));
    *out = c;
    return DN_OK;
}

void dn_cpu_conditions_free(dn_cpu_conditions *conditions)
{
    if (!conditions)
        return;
    free(conditions->keys);
    free(conditions->hashes);
    free(conditions->last_used);
    free(conditions->vectors);
    free(conditions->place_of);
    free(conditions->missed);
    free(conditions->missed_place);
    free(conditions->staging);
    free(conditions->offsets);
    free(conditions);
}

void dn_cpu_condition_counts(const dn_workspace *workspace, uint64_t *hits, uint64_t *misses)
{
    *hits = workspace->conditions ? workspace->conditions->hits : 0;
    *misses = workspace->conditions ? workspace->conditions->misses : 0;
}

/* Bytes past the condition's count are zero, so that keys compare whole. */
static condition_key key_of(const dn_row *row)
{
    condition_key key = {.count = row->condition.count};
    memcpy(&key.time, &row->time, sizeof key.time);
    memcpy(key.classes, row->condition.classes, key.count * sizeof key.classes[0]);
    memcpy(key.weights, row->condition.weights, key.count * sizeof key.weights[0]);
    return key;
}

/* FNV-1a, 64 bits. */
static uint64_t hash_of(const condition_key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < sizeof *key; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001B3);
    return hash;
}

static uint32_t find_place(const dn_cpu_conditions *c, const condition_key *key, uint64_t hash)
{
    uint32_t place = 0;
    while (place < c->used && (c->hashes[place] != hash || memcmp(&c->keys[place], key, sizeof *key) != 0))
        place++;
    return place;
}

/* A place never used, else the one whose last use is longest ago: not in this run, for rows are no more than places. */
static uint32_t free_place(dn_cpu_conditions *c)
{
    if (c->used < c->places)
        return c->used++;
    uint32_t oldest = 0;
    for (uint32_t place = 1; place < c->places; place++) {
        if (c->last_used[place] < c->last_used[oldest])
            oldest = place;
    }
    return oldest;
}

/* Gives every row a place; those whose vectors are not there yet are missed, equal ones once. */
static void assign_places(dn_cpu_conditions *c, const dn_workspace *workspace)
{
    c->missed_count = 0;
    for (uint32_t r = 0; r < workspace->row_count; r++) {
        const condition_key key = key_of(&workspace->rows[r]);
        uint64_t hash = hash_of(&key);
        uint32_t place = find_place(c, &key, hash);
        if (place == c->used) {
            place = free_place(c);
            c->keys[place] = key;
            c->hashes[place] = hash;
            c->missed[c->missed_count] = workspace->rows[r];
            c->missed_place[c->missed_count++] = place;
        }
        c->last_used[place] = c->now;
        c->place_of[r] = place;
    }
    c->misses += c->missed_count;
    c->hits += workspace->row_count - c->missed_count;
}

/* The products of one level as one: their panels numbered through, so that threads share them evenly. */
typedef struct level_job {
    const dn_cpu_run *run;
    const uint32_t *nodes;
    uint32_t node_count;
    size_t panels, tasks;
} level_job;

static bool is_product(const dn_node *node)
{
    return node->kind == DN_NODE_LINEAR && node->in[2] == DN_NONE;
}

static size_t panels_of(const dn_cpu_run *run, const dn_node *node)
{
    return is_product(node) ? dn_cpu_panels(run->kernels, dn_cpu_shape(run, node->out).c) : 0;
}

static dn_cpu_run run_of_node(const dn_cpu_run *run, uint32_t node)
{
    dn_cpu_run one = *run;
    one.node = &run->plan->nodes[node];
    one.compiled = &run->workspace->network->nodes[node];
    return one;
}

/* Task: some of the level's panels, for every row of the pass. */
static void level_task(void *payload, unsigned index, unsigned worker)
{
    const level_job *job = payload;
    size_t first = index * job->panels / job->tasks, end = (index + 1) * job->panels / job->tasks;
    for (uint32_t i = 0; i < job->node_count && end > 0; i++) {
        const dn_cpu_run run = run_of_node(job->run, job->nodes[i]);
        size_t panels = panels_of(&run, run.node), last = dn_cpu_min(end, panels);
        if (first < last)
            dn_cpu_linear_panels(&run, worker, first, last);
        first -= dn_cpu_min(first, panels);
        end -= last;
    }
}

static void run_level(const dn_cpu_run *pass, const uint32_t *nodes, uint32_t count)
{
    level_job job = {.run = pass, .nodes = nodes, .node_count = count};
    double floats = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        const dn_cpu_run run = run_of_node(pass, nodes[i]);
        job.panels += panels_of(&run, run.node);
        if (is_product(run.node))
            floats += (double)run.plan->weights[run.node->weight].count;
        else
            dn_cpu_run_node(&run);
    }
    if (job.panels == 0)
        return;
    size_t wanted = dn_cpu_max((size_t)(floats / TASK_FLOATS), TASKS_OF_A_THREAD * dn_cpu_threads(pass));
    job.tasks = dn_cpu_min(job.panels, wanted);
    dn_cpu_parallel(pass, 2.0 * floats * pass->row_count, job.tasks, level_task, &job);
}

typedef struct keep_job {
    const dn_cpu_run *run;
    dn_cpu_conditions *conditions;
    const uint32_t *places;
} keep_job;

/* Task: one condition's vectors from the pass to their place. */
static void keep_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const keep_job *job = payload;
    const dn_cpu_run *run = job->run;
    const dn_cpu_conditioning *part = &run->workspace->network->conditioning;
    float *to = job->conditions->vectors + job->places[index] * part->kept_floats;
    for (uint32_t i = 0; i < part->node_count; i++) {
        dn_value out = run->plan->nodes[part->nodes[i]].out;
        size_t count = dn_shape_count(dn_cpu_shape(run, out));
        if (part->parts[part->nodes[i]] == DN_CPU_PART_KEPT)
            memcpy(to + part->kept_at[part->nodes[i]], dn_cpu_rows_of(run, out) + index * count, count * sizeof *to);
    }
}

/* Some missed rows together: every level in turn, then what is kept. */
static void compute_pass(dn_cpu_conditions *c, const dn_workspace *workspace, uint32_t first, uint32_t count)
{
    const dn_cpu_conditioning *part = &c->network->conditioning;
    const dn_cpu_run run = {
        .workspace = workspace,
        .pool = workspace->pool,
        .rows = c->missed + first,
        .row_count = count,
        .region = c->staging,
        .offsets = c->offsets,
        .plan = c->network->plan,
        .kernels = c->network->device->kernels,
    };
    for (uint32_t level = 0, begin = 0; level < part->level_count; begin = part->level_ends[level++])
        run_level(&run, part->nodes + begin, part->level_ends[level] - begin);
    keep_job job = {.run = &run, .conditions = c, .places = c->missed_place + first};
    dn_cpu_parallel(&run, (double)part->kept_floats * count, count, keep_task, &job);
}

void dn_cpu_conditions_prepare(dn_cpu_conditions *c, const dn_workspace *workspace)
{
    if (c->version != c->network->version) {
        c->version = c->network->version;
        c->used = 0;
    }
    c->now++;
    assign_places(c, workspace);
    for (uint32_t first = 0; first < c->missed_count; first += DN_CPU_CONDITIONS_PASS)
        compute_pass(c, workspace, first, (uint32_t)dn_cpu_min(c->missed_count - first, DN_CPU_CONDITIONS_PASS));
}

void dn_cpu_conditions_copy(const dn_cpu_conditions *c, const dn_cpu_run *run)
{
    const dn_cpu_conditioning *part = &c->network->conditioning;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out)), first = (size_t)(run->rows - run->workspace->rows);
    size_t at = part->kept_at[run->node - run->plan->nodes];
    for (size_t r = 0; r < run->row_count; r++)
        memcpy(dn_cpu_out_row(run, r), c->vectors + c->place_of[first + r] * part->kept_floats + at, count * sizeof(float));
}
