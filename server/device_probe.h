/* Which devices a daemon has, asked by a process that ends again: the daemon itself opens neither driver nor CUDA library, which would
 * stay in its memory, and could take it down. That process is not confined: a driver that was not loaded yet starts a program to load
 * itself, which a worker may not. The asking side belongs to the daemon's main thread, before others start. */
#ifndef DN_SERVER_DEVICE_PROBE_H
#define DN_SERVER_DEVICE_PROBE_H

#include "backend/devices.h"
#include "base/precision.h"

typedef struct device_probe {
    uint32_t count;
    char names[DN_DEVICES_MAX][16]; /* "cuda:0", "cpu" */
    char why[DN_DEVICE_WHY_BYTES]; /* why "auto" is the CPU though there is a driver; "": there is none, or it is a GPU */
} device_probe;

/* What `names` (backend/devices.h: one, a list, "all", "auto") are here, and whether they multiply in this precision. Refusals are the back
 * end's own. */
dn_status device_probe_ask(device_probe *out, const char *names, dn_precision precision, dn_error *error);

/* The process that is asked, `denoised worker --probe NAMES PRECISION`: says what it found on standard output. Returns an exit status. */
int device_probe_main(const char *names, const char *precision);

#endif
