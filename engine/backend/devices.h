/* Which back end and which of its devices a name means: "cpu", "cuda" (the first GPU), "cuda:N", "auto" (a GPU where there is
 * one that this can use, else the CPU).
 *
 * The CUDA library is opened at the first question, once in a process, and never closed (its threads may outlive any caller): from
 * DENOISED_BACKEND_DIR if that is set, else from beside the program or from where `make install` puts it; never from the working directory.
 * Whether there is a driver is asked of the driver itself first, so that a machine without one pays nothing.
 *
 * The library of tests runs over an emulated GPU and has no driver to ask. It says so by a symbol of its own (library.h), is looked for in
 * DENOISED_BACKEND_DIR alone, and is never installed: without that variable nothing here can lead to it.
 *
 * Nothing depends on what a caller does with the answers; all functions are thread-safe. */
#ifndef DN_BACKEND_DEVICES_H
#define DN_BACKEND_DEVICES_H

#include "backend/backend.h"

#define DN_DEVICES_MAX 16u
#define DN_DEVICE_WHY_BYTES 512u /* room for the longest reason */
#define DN_CUDA_DRIVER_MIN 13000 /* what the CUDA library's runtime needs of a driver: CUDA 13.0 */
#define DN_CUDA_CAPABILITY_MIN 8u /* compute capability 8.0: bf16 */

typedef struct dn_device_choice {
    const dn_backend *backend;
    uint32_t index; /* of the back end's devices */
    char name[16]; /* "cpu", "cuda:0" */
} dn_device_choice;

/* One device. NULL and "" are "cpu". DN_INVALID: no such name; DN_UNSUPPORTED: the message says what is missing (driver, device, library,
 * cuDNN, a driver that is too old, a library of another build) and what to do. "auto" never fails; `why` (may be NULL) then says why it is
 * the CPU, and is "" where it is a GPU or where no driver is installed. */
dn_status dn_device_choose(dn_device_choice *out, const char *name, char *why, size_t why_bytes, dn_error *error);

/* A comma-separated list ("cuda:0,cuda:1"), or "all" for every GPU: several workers on one queue. All of one back end, none twice. */
dn_status dn_device_choose_all(dn_device_choice out[DN_DEVICES_MAX], uint32_t *count, const char *names, char *why, size_t why_bytes,
                               dn_error *error);

/* Whether the name, or list of names, is one that dn_device_choose_all knows; nothing is opened. DN_INVALID says what is wrong. */
dn_status dn_device_names_check(const char *names, dn_error *error);

/* Whether there is any reason to ask for a GPU: a driver is installed, or DENOISED_BACKEND_DIR is set. Neither is opened for good. */
bool dn_device_may_be_gpu(void);

/* What there is of GPUs here, for people who ask why one is not used. */
typedef struct dn_gpu_card {
    char name[96];
    uint32_t major, minor; /* compute capability */
    uint64_t memory; /* bytes */
} dn_gpu_card;

typedef struct dn_gpu_facts {
    bool emulated; /* no driver was asked: the library is the tests' */
    bool driver; /* libcuda.so.1 is installed */
    int driver_version; /* of CUDA that it supports: 13000 is 13.0; 0: not known */
    uint32_t card_count; /* at most DN_DEVICES_MAX */
    dn_gpu_card cards[DN_DEVICES_MAX];
    char library[1024]; /* the CUDA library that was opened; "": none */
    const dn_backend *backend; /* NULL: GPUs cannot be used, and `why` says why not */
    char why[DN_DEVICE_WHY_BYTES];
} dn_gpu_facts;

const dn_gpu_facts *dn_gpu_facts_get(void);

#endif
