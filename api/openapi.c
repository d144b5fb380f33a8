/* Embeds api/openapi.json. The path is relative to the repository root, where the compiler runs. Immutable; any thread. */
#include "api/openapi.h"

__asm__(".pushsection .rodata\n"
        ".global api_openapi_first\n"
        ".global api_openapi_bytes\n"
        "api_openapi_first:\n"
        ".incbin \"api/openapi.json\"\n"
        "0: .byte 0\n"
        ".balign 8\n"
        "api_openapi_bytes: .8byte 0b - api_openapi_first\n"
        ".popsection\n");

const char *api_openapi_json(size_t *bytes)
{
    *bytes = (size_t)api_openapi_bytes;
    return api_openapi_first;
}
