/* Which back end and which of its devices a name means: "cpu", "cuda" (the first), "cuda:N", "auto" (cuda where it works, else the CPU).
 *
 * The CUDA library is opened at the first question, once in a process, and never closed (its threads may outlive any caller): from
 * DENOISED_BACKEND_DIR, beside the program, or where `make install` puts it; never from the working directory. Whether there is a driver
 * is asked of the driver itself first, so that a machine without one pays nothing. Thread-safe. */
#ifndef DN_BACKEND_DEVICES_H
#define DN_BACKEND_DEVICES_H

#include "backend/backend.h"

#define DN_DEVICES_MAX 16u

typedef struct dn_device_choice {
    const dn_backend *backend;
    uint32_t index;    /* of the back end's devices */
    char name[16];     /* "cpu", "cuda:0" */
} dn_device_choice;

/* One device. NULL and "" are "cpu". DN_INVALID: no such name; DN_UNSUPPORTED: the message says what is missing (driver, device, library,
 * cuDNN, a driver that is too old, a library of another build) and what to do. "auto" never fails; `why` (may be NULL) then says why it is
 * the CPU. */
dn_status dn_device_choose(dn_device_choice *out, const char *name, char *why, size_t why_bytes, dn_error *error);

/* A comma-separated list ("cuda:0,cuda:1"), or "all" for every GPU: several workers on one queue. All of one back end, none twice. */
dn_status dn_device_choose_all(dn_device_choice out[DN_DEVICES_MAX], uint32_t *count, const char *names, char *why, size_t why_bytes,
                               dn_error *error);

#endif
