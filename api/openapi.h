/* The daemon's own description, api/openapi.json, which is made from api/openapi.yaml by api/openapi_json.py and lies in the program. */
#ifndef API_OPENAPI_H
#define API_OPENAPI_H

#include <stddef.h>

/* The document; *bytes is its length. Static: never freed. */
const char *api_openapi_json(size_t *bytes);

/* Where the assembler put it; api/openapi.c alone uses these. */
extern const char api_openapi_first[], api_openapi_end[];

#endif
