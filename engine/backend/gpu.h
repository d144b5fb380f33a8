/* The two things that a GPU needs beside the card, as devices.c asks for them: NVIDIA's driver, and the CUDA library of this program.
 * Private to the room. Whoever calls holds the only thread that asks (devices.c asks once). */
#ifndef DN_BACKEND_GPU_H
#define DN_BACKEND_GPU_H

#include "backend/devices.h"
#include "backend/library.h"

/* Fills driver, driver_version and cards; why: "" where the driver can be used, else what is wrong and what to do. */
void dn_gpu_driver_probe(dn_gpu_facts *facts);

bool dn_gpu_driver_installed(void); /* nothing of it is called */

/* Opens the library, checks that it is of this build, and fills `library` and `emulated`. NULL: `why` says what is missing. forced: the
 * folder that DENOISED_BACKEND_DIR names; NULL: the folders of an installation. */
const dn_backend_library *dn_gpu_library_open(dn_gpu_facts *facts, const char *forced);

#endif
