/* `denoised inspect --cpu`: the processor, which of the program's kernels it gets and why, and what it can do at most. Private to the
 * command. One thread. */
#ifndef DN_SERVER_INSPECT_CPU_H
#define DN_SERVER_INSPECT_CPU_H

#include <stdbool.h>

#include "base/error.h"

/* Prints text, or one JSON object. DN_INVALID, DN_UNSUPPORTED: DENOISED_ISA names what is not to be had. */
dn_status inspect_cpu(unsigned threads, bool json, dn_error *error);

#endif
