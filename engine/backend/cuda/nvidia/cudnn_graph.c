/* Descriptors of cuDNN's graph API (cudnn_graph.h). */
#include "backend/cuda/nvidia/cudnn_graph.h"

#include <stdlib.h>
#include <string.h>

static bool failed(dn_cudnn *set, cudnnStatus_t code, const char *doing, int which)
{
    if (code == CUDNN_STATUS_SUCCESS)
        return false;
    char words[256] = "";
    cudnnGetLastErrorString(words, sizeof words);
    words[sizeof words - 1] = '\0';
    dn_status status =
        code == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED || code == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
            ? DN_NO_MEMORY
            : DN_UNSUPPORTED;
    if (which >= 0)
        dn_fail(&set->error, status, "cuDNN: %s %d: %s: %s", doing, which, cudnnGetErrorString(code), words);
    else
        dn_fail(&set->error, status, "cuDNN: %s: %s: %s", doing, cudnnGetErrorString(code), words);
    return true;
}

void dn_cudnn_done(dn_cudnn *set)
{
    while (set->count > 0)
        cudnnBackendDestroyDescriptor(set->owned[--set->count]);
    free(set->owned);
    memset(set, 0, sizeof *set);
}

static bool room(dn_cudnn *set)
{
    if (set->count < set->capacity)
        return true;
    uint32_t capacity = set->capacity ? set->capacity * 2 : 32;
    dn_cudnn_descriptor *owned = realloc(set->owned, capacity * sizeof *owned);
    if (!owned) {
        dn_fail(&set->error, DN_NO_MEMORY, "out of memory");
        return false;
    }
    set->owned = owned;
    set->capacity = capacity;
    return true;
}

dn_cudnn_descriptor dn_cudnn_make(dn_cudnn *set, cudnnBackendDescriptorType_t type)
{
    dn_cudnn_descriptor descriptor = NULL;
    if (set->error.status || !room(set) ||
        failed(set, cudnnBackendCreateDescriptor(type, &descriptor), "making a descriptor of type", (int)type))
        return NULL;
    set->owned[set->count++] = descriptor;
    return descriptor;
}

void dn_cudnn_set(dn_cudnn *set, dn_cudnn_descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *values)
{
    if (!set->error.status)
        failed(set, cudnnBackendSetAttribute(descriptor, name, type, count, values), "setting attribute", (int)name);
}

int64_t dn_cudnn_get(dn_cudnn *set, dn_cudnn_descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     int64_t count, void *values)
{
    int64_t there = 0;
    if (set->error.status ||
        failed(set, cudnnBackendGetAttribute(descriptor, name, type, count, &there, values), "asking for attribute", (int)name))
        return 0;
    return there;
}

dn_cudnn_descriptor dn_cudnn_finalize(dn_cudnn *set, dn_cudnn_descriptor descriptor, const char *what)
{
    if (set->error.status || failed(set, cudnnBackendFinalize(descriptor), what, -1))
        return NULL;
    return descriptor;
}

#define SET_ONE(set, descriptor, name, type, value) dn_cudnn_set(set, descriptor, name, type, 1, &(value))

dn_cudnn_descriptor dn_cudnn_tensor(dn_cudnn *set, int64_t uid, cudnnDataType_t type, const int64_t dims[4], const int64_t strides[4])
{
    dn_cudnn_descriptor tensor = dn_cudnn_make(set, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t alignment = 16, name = uid ? uid : 1000 + set->count; /* virtual tensors need names of their own */
    const bool is_virtual = uid == 0;
    const cudnnDataType_t element = is_virtual ? CUDNN_DATA_FLOAT : type;
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, name);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, element);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
    dn_cudnn_set(set, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    dn_cudnn_set(set, tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, is_virtual);
    return dn_cudnn_finalize(set, tensor, "describing a tensor");
}

dn_cudnn_descriptor dn_cudnn_scalar(dn_cudnn *set, int64_t uid)
{
    dn_cudnn_descriptor tensor = dn_cudnn_make(set, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const int64_t ones[4] = {1, 1, 1, 1}, alignment = sizeof(float);
    const bool by_value = true;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, uid);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
    dn_cudnn_set(set, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, ones);
    dn_cudnn_set(set, tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, ones);
    SET_ONE(set, tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, by_value);
    return dn_cudnn_finalize(set, tensor, "describing a scalar");
}

dn_cudnn_descriptor dn_cudnn_add(dn_cudnn *set, float scale, dn_cudnn_descriptor x, dn_cudnn_descriptor b, dn_cudnn_descriptor y)
{
    dn_cudnn_descriptor how = dn_cudnn_make(set, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    SET_ONE(set, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
    SET_ONE(set, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, type);
    how = dn_cudnn_finalize(set, how, "describing a sum");
    dn_cudnn_descriptor operation = dn_cudnn_make(set, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, how);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, x);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, b);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, y);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, CUDNN_TYPE_FLOAT, scale);
    SET_ONE(set, operation, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, CUDNN_TYPE_FLOAT, scale);
    return dn_cudnn_finalize(set, operation, "a sum");
}

dn_cudnn_descriptor dn_cudnn_operations(dn_cudnn *set, const dn_cudnn_descriptor *operations, int64_t count)
{
    dn_cudnn_descriptor graph = dn_cudnn_make(set, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    dn_cudnn_set(set, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, operations);
    if (set->target.handle)
        SET_ONE(set, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, set->target.handle);
    return dn_cudnn_finalize(set, graph, "a graph of operations");
}

dn_cudnn_descriptor dn_cudnn_engine(dn_cudnn *set, dn_cudnn_descriptor graph, int64_t number)
{
    dn_cudnn_descriptor engine = dn_cudnn_make(set, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    SET_ONE(set, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph);
    SET_ONE(set, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, number);
    if (set->target.properties)
        SET_ONE(set, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, set->target.properties);
    return dn_cudnn_finalize(set, engine, "an engine by its number");
}

static dn_cudnn_descriptor engine_config(dn_cudnn *set, dn_cudnn_descriptor graph, const dn_cuda_pin *pin)
{
    dn_cudnn_descriptor engine = dn_cudnn_engine(set, graph, pin->engine);
    dn_cudnn_descriptor knobs[DN_CUDA_KNOBS_MAX];
    for (uint32_t i = 0; i < pin->knob_count && !set->error.status; i++) {
        const cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)pin->knobs[i].type;
        knobs[i] = dn_cudnn_make(set, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        SET_ONE(set, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, type);
        SET_ONE(set, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, pin->knobs[i].value);
        knobs[i] = dn_cudnn_finalize(set, knobs[i], "an engine's knob");
    }
    dn_cudnn_descriptor config = dn_cudnn_make(set, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    SET_ONE(set, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, engine);
    if (pin->knob_count)
        dn_cudnn_set(set, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, pin->knob_count, knobs);
    return dn_cudnn_finalize(set, config, "an engine's configuration");
}

dn_cudnn_descriptor dn_cudnn_plan(dn_cudnn *set, dn_cudnn_descriptor graph, const dn_cuda_pin *pin, int64_t *workspace)
{
    dn_cudnn_descriptor config = engine_config(set, graph, pin);
    dn_cudnn_descriptor plan = dn_cudnn_make(set, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    SET_ONE(set, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, config);
    if (set->target.properties)
        SET_ONE(set, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, set->target.properties);
    else
        SET_ONE(set, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, set->target.handle);
    plan = dn_cudnn_finalize(set, plan, "a plan");
    *workspace = 0;
    dn_cudnn_get(set, plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, workspace);
    return set->error.status ? NULL : plan;
}

dn_cudnn_descriptor dn_cudnn_properties(dn_cudnn *set, const char *json)
{
    dn_cudnn_descriptor properties = dn_cudnn_make(set, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    dn_cudnn_set(set, properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json);
    return dn_cudnn_finalize(set, properties, "a device's properties");
}
