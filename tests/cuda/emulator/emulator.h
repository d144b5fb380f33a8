/* What tests ask of the emulated GPU beyond CUDA's own functions: settings, counts of what lives, whether a pointer is on the device.
 *
 * Settings, as DENOISED_EMULATOR has them from the start and dn_emulator_configure later; comma-separated, none twice but fault:
 *   devices=N        cards (1; 0 to 8)
 *   memory=BYTES     of each card (8G; K, M and G are 2^10, 2^20, 2^30)
 *   driver=VERSION   what cudaDriverGetVersion says (13000; 0: no driver)
 *   capability=MN    compute capability M.N (90)
 *   work=late|now    when work on a stream is done: as late as CUDA allows (usual), when something waits for it, or at once
 *   fault=KIND:N:WHAT    the Nth call of a kind, from 1, in this process
 *   slow=launch|first:MICROSECONDS    what each launch takes longer, or the next one alone, as if it loaded code
 * KIND: malloc, pinned, copy (and memset), launch (of a kernel or a graph), sync, stream, event, capture (begin and end), graph
 * (instantiate). WHAT: oom, invalid, unsupported, resources are that call's answer; lost (unknown error), illegal (address), ecc, failure
 * (launch failure), timeout stay: every later call on that device answers the same. A launch that is lost says so itself; the others break
 * their work, and are told by whatever waits for it. */
#ifndef DN_CUDA_EMULATOR_H
#define DN_CUDA_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dn_emulator_kind {
    DN_EMULATOR_OTHER,
    DN_EMULATOR_MALLOC,
    DN_EMULATOR_PINNED,
    DN_EMULATOR_COPY,
    DN_EMULATOR_LAUNCH,
    DN_EMULATOR_SYNC,
    DN_EMULATOR_STREAM,
    DN_EMULATOR_EVENT,
    DN_EMULATOR_CAPTURE,
    DN_EMULATOR_GRAPH,
    DN_EMULATOR_KINDS
} dn_emulator_kind;

typedef struct dn_emulator_counts {
    size_t device_allocations, device_bytes, pinned_allocations, streams, events, graphs, executables; /* that live */
    uint64_t calls[DN_EMULATOR_KINDS];                                                                 /* since the settings */
} dn_emulator_counts;

/* New settings, counts of calls from 0, and no card broken; what lives, lives on. NULL: as they are without settings. Answers false where
 * they cannot be read, and changes nothing then. */
bool dn_emulator_configure(const char *settings);
void dn_emulator_count(dn_emulator_counts *out);
/* Whether all of it lies in one allocation of a device. */
bool dn_emulator_on_device(const void *memory, size_t bytes);
/* Launches a function as if it were a kernel, on a cudaStream_t; a cudaError_t. */
int dn_emulator_launch(void *stream, void (*work)(void *payload), void *payload);

#ifdef __cplusplus
}
#endif

#endif
