/* cuBLASLt and cuDNN as libraries.h says: handles, versions, and which of the two makes and runs a product. */
#include "backend/cuda/nvidia/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening. */
static dn_status check_versions(dn_cuda_libraries *libraries, dn_error *error)
{
    size_t dnn = cudnnGetVersion(), lt = cublasLtGetVersion();
    if (dnn < DN_CUDNN_VERSION_MIN)
        return dn_fail(error, DN_UNSUPPORTED, "cuDNN %zu.%zu.%zu is too old: install 9.13 or a later 9 for CUDA 13", dnn / 10000,
                       dnn / 100 % 100, dnn % 100);
    if (lt < DN_CUBLASLT_VERSION_MIN)
        return dn_fail(error, DN_UNSUPPORTED, "cuBLASLt %zu.%zu.%zu is too old: install cuBLAS 13", lt / 10000, lt / 100 % 100, lt % 100);
    snprintf(libraries->text, sizeof libraries->text, "cuDNN %zu.%zu.%zu, cuBLASLt %zu.%zu.%zu", dnn / 10000, dnn / 100 % 100, dnn % 100,
             lt / 10000, lt / 100 % 100, lt % 100);
    return DN_OK;
}

static dn_status open_handles(dn_cuda_libraries *libraries, dn_error *error)
{
    cudaError_t set = cudaSetDevice(libraries->device);
    if (set != cudaSuccess)
        return dn_fail(error, DN_UNSUPPORTED, "choosing GPU %d: %s", libraries->device, cudaGetErrorString(set));
    cublasStatus_t lt = cublasLtCreate(&libraries->lt);
    if (lt != CUBLAS_STATUS_SUCCESS)
        return dn_fail(error, lt == CUBLAS_STATUS_ALLOC_FAILED ? DN_NO_MEMORY : DN_UNSUPPORTED, "cuBLASLt cannot start: %s",
                       cublasLtGetStatusString(lt));
    for (uint32_t i = 0; i < DN_CUDNN_LANES + DN_CUDNN_BUILDERS; i++) {
        cudnnHandle_t *handle = i < DN_CUDNN_LANES ? &libraries->lanes[i].handle : &libraries->targets[i - DN_CUDNN_LANES].handle;
        cudnnStatus_t code = cudnnCreate(handle);
        if (code != CUDNN_STATUS_SUCCESS) {
            char words[256] = "";
            cudnnGetLastErrorString(words, sizeof words);
            return dn_fail(error, DN_UNSUPPORTED, "cuDNN cannot start: %s: %.255s", cudnnGetErrorString(code), words);
        }
    }
    return DN_OK;
}

static dn_status open_pins(dn_cuda_libraries *libraries, const char *cache, dn_error *error)
{
    char identity[192];
    struct cudaDeviceProp card = {.name = "no GPU"};
    if (libraries->targets[0].handle && cudaGetDeviceProperties(&card, libraries->device) != cudaSuccess)
        return dn_fail(error, DN_UNSUPPORTED, "GPU %d does not say what it is", libraries->device);
    snprintf(identity, sizeof identity, "%.64s, sm_%d%d, %s", card.name, card.major, card.minor, libraries->text);
    return dn_cuda_pins_open(&libraries->pins, cache, identity, error);
}

static dn_cuda_libraries *begin(bool fast, dn_error *error)
{
    dn_cuda_libraries *libraries = calloc(1, sizeof *libraries);
    if (!libraries) {
        dn_fail(error, DN_NO_MEMORY, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&libraries->lock, NULL);
    pthread_mutex_init(&libraries->building, NULL);
    libraries->fast = fast;
    return libraries;
}

static dn_status end(dn_cuda_libraries **out, dn_cuda_libraries *libraries, dn_status status)
{
    if (status)
        dn_cuda_libraries_close(libraries);
    else
        *out = libraries;
    return status;
}

dn_status dn_cuda_libraries_open(dn_cuda_libraries **out, const dn_cuda_libraries_options *options, dn_error *error)
{
    dn_cuda_libraries *libraries = begin(options->fast, error);
    if (!libraries)
        return DN_NO_MEMORY;
    libraries->device = options->device;
    dn_status status = check_versions(libraries, error);
    if (!status)
        status = open_handles(libraries, error);
    if (!status)
        status = open_pins(libraries, options->cache, error);
    return end(out, libraries, status);
}

dn_status dn_cuda_libraries_open_deviceless(dn_cuda_libraries **out, const char *properties, bool fast, const char *cache, dn_error *error)
{
    dn_cuda_libraries *libraries = begin(fast, error);
    if (!libraries)
        return DN_NO_MEMORY;
    dn_status status = check_versions(libraries, error);
    if (!status) {
        dn_cudnn_descriptor described = dn_cudnn_properties(&libraries->properties, properties);
        for (uint32_t i = 0; i < DN_CUDNN_BUILDERS; i++)
            libraries->targets[i].properties = described;
        status = libraries->properties.error.status;
        if (status)
            dn_fail(error, status, "%s", libraries->properties.error.message);
    }
    if (!status)
        status = open_pins(libraries, cache, error);
    return end(out, libraries, status);
}

void dn_cuda_libraries_close(dn_cuda_libraries *libraries)
{
    if (!libraries)
        return;
    dn_cuda_pins_close(libraries->pins);
    for (uint32_t i = 0; i < DN_CUDNN_LANES; i++) {
        if (libraries->lanes[i].handle)
            cudnnDestroy(libraries->lanes[i].handle);
    }
    for (uint32_t i = 0; i < DN_CUDNN_BUILDERS; i++) {
        if (libraries->targets[i].handle)
            cudnnDestroy(libraries->targets[i].handle);
    }
    if (libraries->lt)
        cublasLtDestroy(libraries->lt);
    dn_cudnn_done(&libraries->properties);
    pthread_mutex_destroy(&libraries->lock);
    pthread_mutex_destroy(&libraries->building);
    free(libraries);
}

void dn_cuda_libraries_save(dn_cuda_libraries *libraries)
{
    dn_cuda_pins_save(libraries->pins);
}

const char *dn_cuda_libraries_describe(const dn_cuda_libraries *libraries)
{
    return libraries->text;
}

/* ---- Products. */
void dn_cuda_pin_name(const dn_cuda_product *product, uint32_t only, char out[DN_CUDA_PIN_NAME])
{
    char name[DN_CUDA_SPEC_TEXT];
    dn_cuda_product_name(&product->spec, name);
    int used = snprintf(out, DN_CUDA_PIN_NAME, "%s %s", name, only == DN_CUDA_ALL_BUCKETS ? "for" : "fast for");
    for (uint32_t i = 0; i < product->bucket_count && used < (int)DN_CUDA_PIN_NAME; i++) {
        if (only == DN_CUDA_ALL_BUCKETS || only == i)
            used += snprintf(out + used, DN_CUDA_PIN_NAME - (size_t)used, "%s%u", out[used - 1] == 'r' ? " " : ",", product->buckets[i]);
    }
}

/* "conv ...: engine 12 knobs 2=5 24=1", or, of several, a number over all of them. */
static void write_text(dn_cuda_product *product)
{
    char name[DN_CUDA_PIN_NAME], pin[384];
    dn_cuda_pin_name(product, DN_CUDA_ALL_BUCKETS, name);
    uint64_t hash = 1469598103934665603u;
    for (uint32_t i = 0; i < product->bucket_count; i++) {
        dn_cuda_pin_print(&product->pins[i], pin, sizeof pin);
        for (const char *at = pin; *at; at++)
            hash = (hash ^ (unsigned char)*at) * 1099511628211u;
    }
    if (product->libraries->fast)
        snprintf(product->text, sizeof product->text, "%s: fast, %016llx", name, (unsigned long long)hash);
    else
        snprintf(product->text, sizeof product->text, "%s: %s%s", name, product->uneven ? "uneven, " : "", pin);
}

dn_status dn_cuda_product_create(dn_cuda_product **out, dn_cuda_libraries *libraries, const dn_cuda_product_spec *spec,
                                 const uint32_t *buckets, uint32_t bucket_count, dn_error *error)
{
    dn_status status = dn_cuda_product_check(spec, buckets, bucket_count, error);
    if (status)
        return status;
    dn_cuda_product *product = calloc(1, sizeof *product);
    if (!product)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    product->libraries = libraries;
    product->spec = *spec;
    product->bucket_count = bucket_count;
    memcpy(product->buckets, buckets, bucket_count * sizeof *buckets);
    pthread_mutex_lock(&libraries->building);
    status = spec->kind == DN_CUDA_GEMM ? dn_cuda_gemm_create(product, error) : dn_cudnn_create(product, error);
    pthread_mutex_unlock(&libraries->building);
    if (status) {
        dn_cuda_product_free(product);
        return status;
    }
    write_text(product);
    *out = product;
    return DN_OK;
}

void dn_cuda_product_free(dn_cuda_product *product)
{
    for (uint32_t i = 0; product && i < product->bucket_count; i++)
        dn_cudnn_done(&product->sets[i]);
    free(product);
}

size_t dn_cuda_product_workspace(const dn_cuda_product *product, uint32_t bucket)
{
    return product->workspace[bucket];
}

const char *dn_cuda_product_describe(const dn_cuda_product *product)
{
    return product->text;
}

dn_status dn_cuda_product_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, void *stream,
                              dn_error *error)
{
    if (bucket >= product->bucket_count)
        return dn_fail(error, DN_INTERNAL, "%s: no batch size number %u", product->text, bucket);
    if (product->libraries->targets[0].properties)
        return dn_fail(error, DN_UNSUPPORTED, "%s: planned without a GPU", product->text);
    dn_status status = dn_cuda_operands_check(&product->spec, operands, product->workspace[bucket], error);
    if (status)
        return status;
    return product->spec.kind == DN_CUDA_GEMM ? dn_cuda_gemm_run(product, bucket, operands, stream, error)
                                              : dn_cudnn_run(product, bucket, operands, stream, error);
}
