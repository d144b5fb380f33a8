/* A plan compiled for a card, with its weights there: the network that any number of workspaces run. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/state.h"
#include "base/sha256.h"

static dn_cuda_type type_of(dn_precision precision)
{
    return precision == DN_PRECISION_FP32 ? DN_CUDA_F32 : DN_CUDA_BF16;
}

/* The products' configurations, which bytes of pictures depend on. */
static void identify(dn_network *network)
{
    dn_sha256 hash;
    unsigned char digest[DN_SHA256_BYTES];
    char hex[DN_SHA256_HEX_BYTES];
    dn_sha256_init(&hash);
    for (uint32_t p = 0; p < network->fused->compiled->product_count; p++) {
        const char *text = dn_cuda_product_describe(network->fused->products[p]);
        dn_sha256_update(&hash, text, strlen(text));
        dn_sha256_update(&hash, "\n", 1);
    }
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(hex, digest);
    memcpy(network->identity, hex, sizeof network->identity - 1);
}

void dn_cuda_network_free(dn_network *network)
{
    if (!network)
        return;
    dn_cuda_form_free(network->kept);
    dn_cuda_form_free(network->fused);
    if (network->weights)
        dn_cuda_release(network->device, network->weights);
    pthread_mutex_destroy(&network->lock);
    free(network);
}

static dn_status reserve_weights(dn_network *network, dn_error *error)
{
    size_t bytes = network->fused->compiled->packed_bytes, unused = 0, total = 0;
    dn_error cause = {0};
    dn_status status = dn_cuda_alloc(network->device, &network->weights, bytes ? bytes : 1, &cause);
    if (status == DN_NO_MEMORY && cudaMemGetInfo(&unused, &total) == cudaSuccess)
        return dn_fail(error, status, "no memory on the GPU for weights of %zu MB: %zu MB of its %zu MB are free", bytes >> 20,
                       unused >> 20, total >> 20);
    return status == DN_OK ? status : dn_fail(error, status, "%s", cause.message);
}

dn_status dn_cuda_network_create(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *error)
{
    dn_status status = dn_backend_cuda()->precision_check(device, options->precision, error);
    if (status == DN_OK)
        status = dn_cuda_enter(device, error);
    if (status != DN_OK)
        return status;
    dn_network *network = calloc(1, sizeof *network);
    if (!network)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a network");
    network->device = device;
    network->plan = options->plan;
    network->type = type_of(options->precision);
    network->rows_max = options->rows_max && options->rows_max < DN_BATCH_ROWS_MAX ? options->rows_max : DN_BATCH_ROWS_MAX;
    pthread_mutex_init(&network->lock, NULL);
    status = dn_cuda_form_create(&network->fused, network, false, error);
    if (status == DN_OK)
        status = reserve_weights(network, error);
    if (status == DN_OK)
        status = dn_cuda_form_find_packs(network->fused, network->fused->compiled, network->weights, error);
    if (status == DN_OK) {
        const dn_weights *weights = options->spent ? options->spent : options->weights;
        status = dn_cuda_weights_upload(device, network->fused->compiled, weights, options->spent, network->weights, error);
    }
    if (status == DN_OK) {
        identify(network);
        *out = network;
    } else {
        dn_cuda_network_free(network);
    }
    return status;
}

dn_status dn_cuda_network_update(dn_network *network, const dn_weights *weights, dn_error *error)
{
    (void)network;
    (void)weights;
    return dn_fail(error, DN_UNSUPPORTED, "networks are trained on the CPU: weights of one on a GPU do not change");
}

size_t dn_cuda_network_bytes(const dn_network *network)
{
    return network->fused->compiled->packed_bytes;
}

const char *dn_cuda_network_identity(const dn_network *network)
{
    return network->identity;
}

size_t dn_cuda_packed_bytes(dn_device *device, const dn_plan *plan, dn_precision precision)
{
    (void)device;
    dn_cuda_compile_options options = {.type = type_of(precision), .takes_sdpa = dn_cuda_takes_sdpa};
    dn_cuda_compiled *compiled = NULL;
    if (dn_cuda_compile(&compiled, plan, &options, NULL) != DN_OK)
        return 0;
    size_t bytes = compiled->packed_bytes;
    dn_cuda_compiled_free(compiled);
    return bytes;
}
