/* What libdenoised_cuda.so shows the program: one symbol, `denoised_backend`, a function that returns this.
 *
 * The program and the library share structs by layout, so they must come from the same sources: abi, the sizes and the sources' hash are
 * compared before anything else of it is called. */
#ifndef DN_BACKEND_LIBRARY_H
#define DN_BACKEND_LIBRARY_H

#include "backend/backend.h"

#define DN_BACKEND_ABI 1u
#define DN_BACKEND_FILE "libdenoised_cuda.so"
#define DN_BACKEND_SYMBOL "denoised_backend"
#define DN_BACKEND_EMULATED_SYMBOL "denoised_backend_emulated" /* data, in the tests' library alone: no driver need be asked */

typedef struct dn_backend_library {
    uint32_t abi;           /* DN_BACKEND_ABI; always first */
    uint32_t bytes;         /* of this struct */
    uint32_t sizes[8];      /* of dn_backend, dn_plan, dn_node, dn_row, dn_op, dn_program, dn_device_options, dn_workspace_options */
    char sources[24];       /* DN_SOURCES of its build */
    const dn_backend *backend;
    int (*device_count)(char *why, size_t why_bytes); /* 0: `why` says what is missing and what to do */
} dn_backend_library;

typedef const dn_backend_library *dn_backend_library_function(void);

#define DN_BACKEND_SIZES                                                                                                                   \
    {sizeof(dn_backend), sizeof(dn_plan), sizeof(dn_node), sizeof(dn_row), sizeof(dn_op), sizeof(dn_program), sizeof(dn_device_options),     \
     sizeof(dn_workspace_options)}

#endif
