/* Which of cuDNN's configurations computes a product.
 *
 * Candidates come from the plan cache, then from cuDNN's heuristics at a middle batch, then at the largest and smaller ones. The first that may
 * (below) and of which a plan can be made for every batch size is taken. It may, if its notes promise float sums of what was given, in a
 * fixed order, and if it cuts no sum into several whose number depends on the batch: neither by a knob, nor unasked, which shows in the
 * workspace where it keeps the parts (dn_cuda_workspace_steady). `fast` chooses for each batch size by itself and lets sums be cut, but
 * never meet in an order of their own. */
#include "backend/cuda/nvidia/private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CANDIDATES_MAX 128
#define NOTES_MAX 32

typedef struct candidates {
    uint32_t count;
    dn_cuda_pin pins[CANDIDATES_MAX];
} candidates;

static dn_cudnn_descriptor make_graph(dn_cudnn *set, const dn_cuda_product *product, uint32_t builder, uint32_t bucket)
{
    set->target = product->libraries->targets[builder];
    return product->spec.kind == DN_CUDA_CONV ? dn_cudnn_conv_graph(set, &product->spec, product->buckets[bucket])
                                              : dn_cudnn_sdpa_graph(set, &product->spec, product->buckets[bucket]);
}

/* ---- Whether a configuration may. */
static bool cuts_sums(const dn_cuda_pin *pin)
{
    static const struct {
        cudnnBackendKnobType_t type;
        int64_t most;
    } whole[] = {{CUDNN_KNOB_TYPE_SPLIT_K, 1},     {CUDNN_KNOB_TYPE_SPLIT_H, 1},    {CUDNN_KNOB_TYPE_SPLIT_K_SLC, 1},
                 {CUDNN_KNOB_TYPE_SPLIT_RS, 1},    {CUDNN_KNOB_TYPE_SPLIT_COLS, 1}, {CUDNN_KNOB_TYPE_SPLIT_P_SLC, 1},
                 {CUDNN_KNOB_TYPE_SPLIT_K_BUF, 0}, {CUDNN_KNOB_TYPE_STREAM_K, 0},   {CUDNN_KNOB_TYPE_CTA_SPLIT_K_MODE, 0}};
    for (uint32_t i = 0; i < pin->knob_count; i++) {
        for (size_t j = 0; j < sizeof whole / sizeof *whole; j++) {
            if (pin->knobs[i].type == (int32_t)whole[j].type && pin->knobs[i].value > whole[j].most)
                return true;
        }
    }
    return false;
}

static bool notes_allow(const dn_cuda_product *product, const cudnnBackendNumericalNote_t *notes, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        switch (notes[i]) {
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE: /* of floats: TF32 */
            if (product->spec.type == DN_CUDA_F32)
                return false;
            break;
        case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP:
            break;
        default: /* reduced sums, inputs converted, Fourier and Winograd transforms, any order: and what later versions add */
            return false;
        }
    }
    return true;
}

/* Convolutions have kernels that are compiled already; attention has none. */
static bool may_run(const dn_cuda_product *product, const dn_cuda_pin *pin, uint32_t bucket)
{
    if (pin->is_algo || (!product->libraries->fast && cuts_sums(pin)))
        return false;
    dn_cudnn set = {0};
    dn_cudnn_descriptor graph = make_graph(&set, product, 0, bucket), engine = dn_cudnn_engine(&set, graph, pin->engine);
    cudnnBackendNumericalNote_t numerical[NOTES_MAX];
    cudnnBackendBehaviorNote_t behaviour[NOTES_MAX];
    int64_t numbers = dn_cudnn_get(&set, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, NOTES_MAX, numerical);
    int64_t behaviours = dn_cudnn_get(&set, engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, NOTES_MAX, behaviour);
    bool allowed = !set.error.status && numbers <= NOTES_MAX && behaviours <= NOTES_MAX && notes_allow(product, numerical, numbers);
    for (int64_t i = 0; allowed && i < behaviours; i++) {
        if (behaviour[i] == CUDNN_BEHAVIOR_NOTE_REQUIRES_FILTER_INT8x32_REORDER ||
            behaviour[i] == CUDNN_BEHAVIOR_NOTE_REQUIRES_BIAS_INT8x32_REORDER)
            allowed = false;
        if (behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION && product->spec.kind == DN_CUDA_CONV)
            allowed = false;
    }
    dn_cudnn_done(&set);
    return allowed;
}

/* ---- Candidates. */
static bool read_pin(dn_cudnn *set, dn_cudnn_descriptor config, dn_cuda_pin *pin)
{
    dn_cudnn_descriptor engine = dn_cudnn_make(set, CUDNN_BACKEND_ENGINE_DESCRIPTOR), knobs[DN_CUDA_KNOBS_MAX];
    memset(pin, 0, sizeof *pin);
    dn_cudnn_get(set, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    dn_cudnn_get(set, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &pin->engine);
    for (int64_t i = 0; i < DN_CUDA_KNOBS_MAX; i++)
        knobs[i] = dn_cudnn_make(set, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    int64_t count = dn_cudnn_get(set, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, DN_CUDA_KNOBS_MAX, knobs);
    if (count > DN_CUDA_KNOBS_MAX)
        return false;
    for (int64_t i = 0; i < count && !set->error.status; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        dn_cudnn_get(set, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        dn_cudnn_get(set, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &pin->knobs[i].value);
        pin->knobs[i].type = (int32_t)type;
    }
    pin->knob_count = (uint32_t)count;
    return !set->error.status;
}

/* What cuDNN proposes for a batch size, best first. Nothing, where it has nothing. */
static void propose(const dn_cuda_product *product, uint32_t bucket, cudnnBackendHeurMode_t mode, candidates *out, dn_error *error)
{
    dn_cudnn set = {0};
    dn_cudnn_descriptor graph = make_graph(&set, product, 0, bucket), configs[CANDIDATES_MAX];
    dn_cudnn_descriptor heuristics = dn_cudnn_make(&set, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    dn_cudnn_set(&set, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
    dn_cudnn_set(&set, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (set.target.properties)
        dn_cudnn_set(&set, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &set.target.properties);
    heuristics = dn_cudnn_finalize(&set, heuristics, "asking for engines");
    int64_t count = dn_cudnn_get(&set, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, NULL);
    count = count < CANDIDATES_MAX ? count : CANDIDATES_MAX;
    for (int64_t i = 0; i < count; i++)
        configs[i] = dn_cudnn_make(&set, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    int64_t made = count ? dn_cudnn_get(&set, heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, configs) : 0;
    out->count = 0;
    for (int64_t i = 0; i < made && i < count && !set.error.status; i++) {
        if (read_pin(&set, configs[i], &out->pins[out->count]))
            out->count++;
    }
    if (set.error.status && !out->count)
        *error = set.error;
    dn_cudnn_done(&set);
}

/* ---- Plans. */
static void drop_plans(dn_cuda_product *product, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        dn_cudnn_done(&product->sets[i]);
        product->plans[i] = NULL;
    }
}

/* Some, and as much as a copy of the input and of the output in another layout may take. */
static int64_t workspace_max(const dn_cuda_product *product, uint32_t bucket)
{
    const dn_cuda_product_spec *spec = &product->spec;
    uint64_t elements = (dn_cuda_product_in_pitch(spec) + dn_cuda_product_out_pitch(spec)) * product->buckets[bucket];
    return DN_CUDA_CUDNN_WORKSPACE_MAX + (int64_t)(elements * (spec->type == DN_CUDA_BF16 ? 2 : 4)) * 2;
}

static bool plan_bucket(dn_cuda_product *product, uint32_t builder, uint32_t bucket, const dn_cuda_pin *pin, dn_error *error)
{
    dn_cudnn *set = &product->sets[bucket];
    int64_t workspace = 0;
    dn_cudnn_descriptor graph = make_graph(set, product, builder, bucket);
    product->plans[bucket] = dn_cudnn_plan(set, graph, pin, &workspace);
    if (product->plans[bucket] && workspace >= 0 && workspace <= workspace_max(product, bucket)) {
        product->workspace[bucket] = (size_t)workspace;
        product->pins[bucket] = *pin;
        return true;
    }
    if (set->error.status)
        *error = set->error;
    drop_plans(product, bucket, bucket + 1);
    return false;
}

/* Code that is compiled for a plan takes a second or two: several builders share the batch sizes. */
typedef struct building {
    dn_cuda_product *product;
    const dn_cuda_pin *pin;
    uint32_t builder, builders, first, end;
    bool failed;
    dn_error error;
} building;

static void *build(void *argument)
{
    building *b = argument;
    if (b->builder > 0 && b->product->libraries->targets[0].handle && cudaSetDevice(b->product->libraries->device) != cudaSuccess)
        b->failed = true;
    for (uint32_t i = b->first + b->builder; i < b->end && !b->failed; i += b->builders)
        b->failed = !plan_bucket(b->product, b->builder, i, b->pin, &b->error);
    return NULL;
}

static bool build_all(dn_cuda_product *product, uint32_t first, uint32_t end, const dn_cuda_pin *pin, dn_error *error)
{
    building parts[DN_CUDNN_BUILDERS];
    pthread_t threads[DN_CUDNN_BUILDERS];
    bool started[DN_CUDNN_BUILDERS] = {false}, failed = false;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t most = product->spec.kind == DN_CUDA_CONV || processors < 2 ? 1 : (uint32_t)processors;
    most = most < DN_CUDNN_BUILDERS ? most : DN_CUDNN_BUILDERS;
    for (uint32_t i = 0; i < most; i++)
        parts[i] = (building){.product = product, .pin = pin, .builder = i, .builders = most, .first = first, .end = end};
    for (uint32_t i = 1; i < most; i++)
        started[i] = pthread_create(&threads[i], NULL, build, &parts[i]) == 0;
    for (uint32_t i = 0; i < most; i++) {
        if (started[i])
            pthread_join(threads[i], NULL);
        else
            build(&parts[i]);
    }
    for (uint32_t i = 0; i < most; i++) {
        failed = failed || parts[i].failed;
        if (parts[i].error.status)
            *error = parts[i].error;
    }
    return !failed;
}

/* Plans of buckets first .. end - 1, all or none. The largest is tried first: it is the likeliest to be refused; of a pin that was good before
 * all are made at once. */
static bool plan_all(dn_cuda_product *product, uint32_t first, uint32_t end, const dn_cuda_pin *pin, bool was_good, dn_error *error)
{
    if (!may_run(product, pin, end - 1))
        return false;
    const uint32_t alone = was_good ? end : end - 1; /* what is planned before the others, if anything */
    bool planned = (alone == end || plan_bucket(product, 0, alone, pin, error)) && build_all(product, first, alone, pin, error) &&
                   (product->libraries->fast || dn_cuda_workspace_steady(product->buckets, product->workspace, end));
    if (!planned)
        drop_plans(product, first, end);
    return planned;
}

/* One configuration for buckets first .. end - 1. */
static dn_status choose(dn_cuda_product *product, uint32_t first, uint32_t end, dn_error *error)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    char name[DN_CUDA_PIN_NAME];
    dn_cuda_pin pinned;
    dn_error why = {0};
    dn_cuda_pin_name(product, product->libraries->fast ? first : DN_CUDA_ALL_BUCKETS, name);
    if (dn_cuda_pins_find(product->libraries->pins, name, &pinned) && plan_all(product, first, end, &pinned, true, &why))
        return DN_OK;
    candidates *proposed = malloc(sizeof *proposed);
    if (!proposed)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    for (size_t mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
        for (uint32_t at = end + 1; at-- > first;) {
            uint32_t bucket = at == end ? dn_cuda_middle_bucket(&product->spec, product->buckets, first, end) : at;
            propose(product, bucket, modes[mode], proposed, &why);
            for (uint32_t i = 0; i < proposed->count; i++) {
                if (plan_all(product, first, end, &proposed->pins[i], false, &why)) {
                    dn_cuda_pins_put(product->libraries->pins, name, &proposed->pins[i]);
                    free(proposed);
                    return DN_OK;
                }
            }
        }
    }
    free(proposed);
    return dn_fail(error, why.status == DN_NO_MEMORY ? DN_NO_MEMORY : DN_UNSUPPORTED, "no kernel of cuDNN may compute %s%s%s", name,
                   why.status ? ": " : "", why.status ? why.message : "");
}

dn_status dn_cudnn_create(dn_cuda_product *product, dn_error *error)
{
    if (!product->libraries->fast)
        return choose(product, 0, product->bucket_count, error);
    for (uint32_t i = 0; i < product->bucket_count; i++) {
        dn_status status = choose(product, i, i + 1, error);
        if (status)
            return status;
    }
    return DN_OK;
}
