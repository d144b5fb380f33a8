/* The tensors in a pickle as torch.save writes it. Private to this folder.
 *
 * A pickle is a program for a stack machine; Python's runs whatever that program names. This one knows the instructions that
 * torch.save uses for dictionaries, lists, tuples, strings and numbers, and four names: OrderedDict, a storage's type, and the two
 * functions that put a tensor together. Every other name becomes an inert value that swallows what is done to it and holds no tensor:
 * so the training arguments and the optimizer of a checkpoint pass through it. Nothing is imported, nothing is called. */
#ifndef DN_FORMAT_PICKLE_H
#define DN_FORMAT_PICKLE_H

#include "format/safetensors.h"

#define DN_PICKLE_BYTES_MAX (16u << 20)

typedef struct dn_pickle_tensor {
    const char *name; /* keys of nested dictionaries, joined by dots; valid during the call */
    const char *storage; /* the storage's key: the file "data/KEY" of the archive */
    uint64_t storage_count; /* elements in it */
    uint64_t first; /* the element it begins at; it lies inside the storage, strides and all */
    dn_dtype dtype;
    uint32_t rank;
    uint64_t dims[DN_TENSOR_RANK_MAX], strides[DN_TENSOR_RANK_MAX]; /* strides in elements */
    uint64_t count;
} dn_pickle_tensor;

typedef dn_status dn_pickle_found(void *payload, const dn_pickle_tensor *tensor, dn_error *error);

/* Calls `found` for every tensor that a name of the dictionary leads to. path: for messages. */
dn_status dn_pickle_tensors(const unsigned char *bytes, size_t count, const char *path, dn_pickle_found *found, void *payload,
                            dn_error *error);

#endif
