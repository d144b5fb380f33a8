/* JSON as this program accepts it: RFC 8259 checked byte by byte by our own scanner, then handed to cJSON.
 *
 * cJSON 1.7.15 accepts duplicate keys, 1e999, 007, raw control characters, invalid UTF-8, a BOM, NUL and trailing
 * bytes, and rounds integers past 2^53; the scanner refuses all of it first and says at which byte. */
#ifndef DN_FORMAT_JSON_H
#define DN_FORMAT_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dn_json_limits {
    size_t bytes_max;
    unsigned depth_max;   /* nested containers; 0: DN_JSON_DEPTH_MAX */
    size_t tokens_max;    /* values, keys counted too; 0: no limit of its own */
} dn_json_limits;

/* Checks that bytes are exactly one JSON value (surrounding whitespace allowed): strict UTF-8, no BOM, no duplicate
 * key in an object, no \u0000, no lone surrogate, finite numbers that fit a double, limits. On failure *offset
 * (may be NULL) is the byte where it went wrong, and the message is one short reason without any of the input. */
dn_status dn_json_scan(const char *bytes, size_t count, const dn_json_limits *limits, size_t *offset, dn_error *error);

/* dn_json_scan, then cJSON. The caller owns *out (cJSON_Delete). Look members up only by cJSON_GetObjectItemCaseSensitive. */
dn_status dn_json_parse(cJSON **out, const char *bytes, size_t count, const dn_json_limits *limits, size_t *offset, dn_error *error);

/* Reads and parses one JSON file; refusals name the file. */
dn_status dn_json_read_file(cJSON **out, const char *path, size_t bytes_max, dn_error *error);
/* The same, but Python's word -Infinity, which diffusers writes into scheduler_config.json, is read as -1e308. */
dn_status dn_json_read_python_file(cJSON **out, const char *path, size_t bytes_max, dn_error *error);

#endif
