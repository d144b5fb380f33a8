/* The daemon's own description, api/openapi.json, which is made from api/openapi.yaml by api/openapi_json.py and lies in the program. */
#ifndef API_OPENAPI_H
#define API_OPENAPI_H

#include <stddef.h>
#include <stdint.h>

/* The document; *bytes is its length. Static: never freed. */
const char *api_openapi_json(size_t *bytes);

/* What the assembler put there; api/openapi.c alone uses these. */
extern const char api_openapi_first[];
extern const uint64_t api_openapi_bytes;

#endif
