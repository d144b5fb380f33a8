/* Forms: a plan compiled, its products made for every batch size, and where its weights lie. Immutable once made. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/state.h"

void dn_cuda_form_free(dn_cuda_form *form)
{
    if (!form)
        return;
    for (uint32_t p = 0; form->products && p < form->compiled->product_count; p++)
        dn_cuda_product_free(form->products[p]);
    free(form->products);
    free(form->packs);
    dn_cuda_compiled_free(form->compiled);
    free(form);
}

/* All that a batch may need, as far as every product takes so many rows. */
static void choose_buckets(dn_cuda_form *form, uint32_t rows)
{
    uint32_t limit = DN_BATCH_ROWS_MAX;
    for (uint32_t p = 0; p < form->compiled->product_count; p++) {
        uint32_t most = dn_cuda_product_rows_max(&form->compiled->products[p]);
        limit = most < limit ? most : limit;
    }
    dn_cuda_buckets_make(&form->buckets, rows, limit);
}

/* DN_UNSUPPORTED with *sdpa: the card has no attention of some shape, and the plan is to be compiled again without. */
static dn_status make_form(dn_cuda_form **out, const dn_network *network, const dn_cuda_compile_options *options, bool *sdpa,
                           dn_error *error)
{
    dn_cuda_form *form = calloc(1, sizeof *form);
    if (!form)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a network");
    dn_status status = dn_cuda_compile(&form->compiled, network->plan, options, error);
    if (status == DN_OK) {
        choose_buckets(form, network->rows_max);
        form->products = calloc((size_t)form->compiled->product_count + 1, sizeof(dn_cuda_product *));
        form->packs = calloc((size_t)form->compiled->pack_count + 1, sizeof(unsigned char *));
        if (!form->products || !form->packs)
            status = dn_fail(error, DN_NO_MEMORY, "no memory for a network");
    }
    for (uint32_t p = 0; status == DN_OK && p < form->compiled->product_count; p++) {
        const dn_cuda_product_spec *spec = &form->compiled->products[p];
        status =
            dn_cuda_product_create(&form->products[p], network->device->libraries, spec, form->buckets.rows, form->buckets.count, error);
        *sdpa = spec->kind == DN_CUDA_SDPA;
    }
    if (status == DN_OK)
        *out = form;
    else
        dn_cuda_form_free(form);
    return status;
}

dn_status dn_cuda_form_create(dn_cuda_form **out, const dn_network *network, bool keep_values, dn_error *error)
{
    dn_cuda_compile_options options = {.type = network->type, .keep_values = keep_values, .takes_sdpa = dn_cuda_takes_sdpa};
    bool sdpa = false;
    dn_error refusal = {0};
    dn_status status = make_form(out, network, &options, &sdpa, &refusal);
    if (status != DN_OK && !(status == DN_UNSUPPORTED && sdpa))
        dn_fail(error, status, "%s", refusal.message);
    if (status == DN_UNSUPPORTED && sdpa) {
        fprintf(stderr, "denoised: %s; attention is computed by a slower kernel of our own\n", refusal.message);
        options.takes_sdpa = NULL;
        status = make_form(out, network, &options, &sdpa, error);
    }
    dn_cuda_libraries_save(network->device->libraries);
    return status;
}

/* Whether a pack's weights are weights first .. of another. */
static bool same_weights(const dn_cuda_pack_info *part, const dn_cuda_pack_info *whole, uint32_t first)
{
    if (part->weight_count == 0 || first + part->weight_count > whole->weight_count)
        return false;
    for (uint32_t w = 0; w < part->weight_count; w++) {
        if (part->weights[w] != whole->weights[first + w])
            return false;
    }
    return true;
}

/* Where `part` begins inside `whole`, in bytes; false: it is not there. Parts of a stacked one lie as if they were alone, for their outputs
 * are multiples of the channels' unit. */
static bool find_inside(const dn_cuda_compiled *packed, const dn_cuda_pack_info *part, const dn_cuda_pack_info *whole, uint64_t *at)
{
    *at = 0;
    if (part->kind != whole->kind || part->scale != whole->scale)
        return false;
    if (part->kind == DN_CUDA_PACK_FREQUENCIES || part->kind == DN_CUDA_PACK_POSITIONS)
        return part->node == whole->node;
    uint64_t element = packed->type == DN_CUDA_BF16 && part->kind != DN_CUDA_PACK_FLOATS ? 2 : 4, before = 0;
    for (uint32_t first = 0; first < whole->weight_count; first++) {
        if (same_weights(part, whole, first)) {
            *at = before * element;
            return *at + part->bytes <= whole->bytes;
        }
        const dn_weight_info *info = &packed->plan->weights[whole->weights[first]];
        bool filter = whole->kind == DN_CUDA_PACK_FILTER;
        before += filter ? (uint64_t)info->dims[0] * whole->kh * whole->kw * whole->i_pad : info->count;
    }
    return false;
}

dn_status dn_cuda_form_find_packs(dn_cuda_form *form, const dn_cuda_compiled *packed, const void *weights, dn_error *error)
{
    for (uint32_t p = 0; p < form->compiled->pack_count; p++) {
        for (uint32_t q = 0; q < packed->pack_count && !form->packs[p]; q++) {
            uint64_t at;
            if (find_inside(packed, &form->compiled->packs[p], &packed->packs[q], &at))
                form->packs[p] = (const unsigned char *)weights + packed->packs[q].offset + at;
        }
        if (!form->packs[p])
            return dn_fail(error, DN_INTERNAL, "weights %u are not among those that were packed", p);
    }
    return DN_OK;
}

dn_status dn_cuda_form_of(const dn_cuda_form **out, dn_network *network, bool keep_values, dn_error *error)
{
    dn_status status = DN_OK;
    if (!keep_values) {
        *out = network->fused;
        return status;
    }
    pthread_mutex_lock(&network->lock);
    if (!network->kept) {
        dn_cuda_form *form = NULL;
        status = dn_cuda_form_create(&form, network, true, error);
        if (status == DN_OK)
            status = dn_cuda_form_find_packs(form, network->fused->compiled, network->weights, error);
        if (status == DN_OK)
            network->kept = form;
        else
            dn_cuda_form_free(form);
    }
    *out = network->kept;
    pthread_mutex_unlock(&network->lock);
    return status;
}
