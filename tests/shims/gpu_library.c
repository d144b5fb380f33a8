/* A libdenoised_cuda.so for tests of how it is opened: right, or wrong in the way that GPU_LIBRARY says. It computes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/library.h"

static const dn_backend table = {.name = "cuda", .precision = DN_PRECISION_BF16};
static dn_backend_library library = {
    .abi = DN_BACKEND_ABI, .bytes = sizeof library, .sizes = DN_BACKEND_SIZES, .sources = DN_SOURCES, .backend = &table};

static int device_count(char *why, size_t why_bytes)
{
    const char *wrong = getenv("GPU_LIBRARY");
    if (wrong == NULL || strcmp(wrong, "count") != 0)
        return 2;
    snprintf(why, why_bytes, "cuDNN 9.1 is installed, and 9.13 is needed");
    return 0;
}

dn_backend_library_function denoised_backend;

const dn_backend_library *denoised_backend(void)
{
    const char *wrong = getenv("GPU_LIBRARY");
    library.device_count = device_count;
    if (wrong == NULL)
        return &library;
    if (strcmp(wrong, "abi") == 0)
        library.abi = 77;
    else if (strcmp(wrong, "bytes") == 0)
        library.bytes--;
    else if (strcmp(wrong, "sizes") == 0)
        library.sizes[3]++;
    else if (strcmp(wrong, "sources") == 0)
        snprintf(library.sources, sizeof library.sources, "0123456789abcdef");
    return strcmp(wrong, "nothing") == 0 ? NULL : &library;
}
