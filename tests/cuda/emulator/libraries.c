/* libraries.h without a GPU: the checks of the real one, and products on the CPU (plain.c) that go through the emulated streams. Immutable
 * once made, as the real ones; any thread. A stream's first product may not be captured: real libraries make what a stream needs then. */
#include "backend/cuda/libraries.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/pins.h"
#include "backend/cuda/spec.h"
#include "emulator.h"
#include "plain.h"

#define STREAMS 64u

struct dn_cuda_libraries {
    bool fast;
    dn_cuda_pins *pins; /* kept as the real ones are, though there is nothing to choose */
    pthread_mutex_t lock;
    void *streams[STREAMS]; /* that ran a product, the latest STREAMS of them */
    unsigned next;
};

struct dn_cuda_product {
    dn_cuda_libraries *libraries;
    dn_cuda_product_spec spec;
    uint32_t buckets[DN_CUDA_BUCKETS_MAX];
    uint32_t bucket_count;
    char text[DN_CUDA_SPEC_TEXT + 16];
};

dn_status dn_cuda_libraries_open(dn_cuda_libraries **out, const dn_cuda_libraries_options *options, dn_error *error)
{
    dn_cuda_libraries *libraries = calloc(1, sizeof *libraries);
    if (!libraries)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    libraries->fast = options->fast;
    dn_status status = dn_cuda_pins_open(&libraries->pins, options->cache, dn_cuda_libraries_describe(libraries), error);
    pthread_mutex_init(&libraries->lock, NULL);
    if (status)
        dn_cuda_libraries_close(libraries);
    else
        *out = libraries;
    return status;
}

void dn_cuda_libraries_close(dn_cuda_libraries *libraries)
{
    if (libraries) {
        dn_cuda_pins_close(libraries->pins);
        pthread_mutex_destroy(&libraries->lock);
    }
    free(libraries);
}

void dn_cuda_libraries_save(dn_cuda_libraries *libraries)
{
    dn_cuda_pins_save(libraries->pins);
}

const char *dn_cuda_libraries_describe(const dn_cuda_libraries *libraries)
{
    return libraries->fast ? "emulated products, fast" : "emulated products";
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
    char name[DN_CUDA_SPEC_TEXT];
    dn_cuda_product_name(spec, name);
    snprintf(product->text, sizeof product->text, "%s: plain", name);
    dn_cuda_pin pin = {.engine = 0};
    if (!dn_cuda_pins_find(libraries->pins, name, &pin) || pin.is_algo || pin.engine != 0)
        dn_cuda_pins_put(libraries->pins, name, &(dn_cuda_pin){.engine = 0});
    *out = product;
    return DN_OK;
}

void dn_cuda_product_free(dn_cuda_product *product)
{
    free(product);
}

/* Some that callers must reserve and pass, as they must for most real products. It is written to, so that nothing else may lie there. */
size_t dn_cuda_product_workspace(const dn_cuda_product *product, uint32_t bucket)
{
    return product->spec.kind == DN_CUDA_GEMM ? 0 : (size_t)64 * product->buckets[bucket];
}

const char *dn_cuda_product_describe(const dn_cuda_product *product)
{
    return product->text;
}

/* What a GPU would only find out by an illegal address, or not at all. */
static dn_status check_places(const dn_cuda_product *product, uint32_t rows, const dn_cuda_operands *operands, size_t workspace,
                              dn_error *error)
{
    const dn_cuda_product_spec *spec = &product->spec;
    const uint64_t item = spec->type == DN_CUDA_BF16 ? 2 : 4;
    const uint64_t kernel = spec->kind == DN_CUDA_CONV ? (uint64_t)spec->kernel * spec->kernel : 1;
    const uint64_t last = (uint64_t)rows - 1; /* what lies between rows is not the product's */
    const uint64_t in = last * dn_cuda_product_in_pitch(spec) + (spec->in_row_pitch ? spec->k : dn_cuda_product_in_pitch(spec));
    const uint64_t out = last * dn_cuda_product_out_pitch(spec) + (spec->out_row_pitch ? spec->n : dn_cuda_product_out_pitch(spec));
    const struct {
        const char *name;
        const void *at;
        uint64_t elements;
    } places[] = {{"input", operands->in, in},
                  {"output", operands->out, out},
                  {"weight", operands->weight, spec->kind == DN_CUDA_SDPA ? 0 : kernel * spec->k * spec->n},
                  {"bias", operands->bias, spec->bias ? spec->n : 0},
                  {"residual", operands->residual, spec->residual ? out : 0},
                  {"workspace", operands->workspace, workspace / item}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (places[i].elements && !dn_emulator_on_device(places[i].at, (size_t)(places[i].elements * item)))
            return dn_fail(error, DN_INTERNAL, "%s: its %s is not on the device, or has no room for %u rows", product->text, places[i].name,
                           rows);
    }
    return DN_OK;
}

static dn_status check_capture(const dn_cuda_product *product, void *stream, dn_error *error)
{
    dn_cuda_libraries *libraries = product->libraries;
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    bool known = false, captured = cudaStreamIsCapturing(stream, &capture) == cudaSuccess && capture != cudaStreamCaptureStatusNone;
    pthread_mutex_lock(&libraries->lock);
    for (unsigned i = 0; i < STREAMS; i++)
        known = known || libraries->streams[i] == stream;
    if (!known && !captured)
        libraries->streams[libraries->next++ % STREAMS] = stream;
    pthread_mutex_unlock(&libraries->lock);
    return known || !captured ? DN_OK : dn_fail(error, DN_INTERNAL, "%s: the first run on a stream is captured", product->text);
}

dn_status dn_cuda_product_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, void *stream,
                              dn_error *error)
{
    if (bucket >= product->bucket_count)
        return dn_fail(error, DN_INTERNAL, "%s: no batch size number %u", product->text, bucket);
    const size_t workspace = dn_cuda_product_workspace(product, bucket);
    dn_status status = dn_cuda_operands_check(&product->spec, operands, workspace, error);
    if (!status)
        status = check_places(product, product->buckets[bucket], operands, workspace, error);
    if (!status)
        status = check_capture(product, stream, error);
    if (status)
        return status;
    dn_plain_run run = {.spec = product->spec, .operands = *operands, .rows = product->buckets[bucket], .workspace = workspace};
    int code = dn_plain_submit(stream, &run);
    const bool memory = code == cudaErrorMemoryAllocation;
    return code ? dn_fail(error, memory ? DN_NO_MEMORY : DN_DEVICE_LOST, "%s: CUDA error %d", product->text, code) : DN_OK;
}
