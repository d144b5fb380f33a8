/* Raw text of members: walks JSON that has passed dn_json_scan beside cJSON's tree, so that numbers stay exact where cJSON
 * rounds them. The k-th member is the k-th child of the same value in the tree. Never reads past its bytes, whatever they are. */
#ifndef API_JSON_WALK_H
#define API_JSON_WALK_H

#include <stdbool.h>
#include <stddef.h>

#include "format/json_cursor.h"

typedef struct api_raw {
    const char *at;
    size_t bytes;
} api_raw;

typedef struct api_walk {
    dn_json_cursor cursor;
    bool object;
} api_walk;

/* json is one object or array, blanks around it allowed. */
void api_walk_begin(api_walk *walk, api_raw json);
/* The value of the next member or element, without blanks around it; false at the end. */
bool api_walk_next(api_walk *walk, api_raw *value);
/* True for an integer token: digits with at most a sign, neither point nor exponent. */
bool api_raw_is_integer(api_raw raw);

#endif
