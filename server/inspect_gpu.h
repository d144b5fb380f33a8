/* `denoised inspect --gpu`: driver, cards and CUDA library, and what is missing where they cannot be used. Private to the command. One
 * thread. */
#ifndef DN_SERVER_INSPECT_GPU_H
#define DN_SERVER_INSPECT_GPU_H

#include <stdbool.h>

#include "base/error.h"

/* Prints text, or one JSON object. A machine without a GPU is no failure: that is what it says. */
dn_status inspect_gpu(bool json, dn_error *error);

#endif
