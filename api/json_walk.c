/* See json_walk.h. Pure; any thread. */
#include "api/json_walk.h"

void api_walk_begin(api_walk *walk, api_raw json)
{
    *walk = (api_walk){.cursor = {.at = json.at, .end = json.at + json.bytes}};
    walk->object = dn_json_take(&walk->cursor, '{');
    if (!walk->object && !dn_json_take(&walk->cursor, '[')) {
        walk->cursor.at = walk->cursor.end;
    }
}

bool api_walk_next(api_walk *walk, api_raw *value)
{
    dn_json_cursor *cursor = &walk->cursor;
    dn_json_take(cursor, ',');
    if (walk->object && !(dn_json_skip_value(cursor) && dn_json_take(cursor, ':'))) {
        return false;
    }
    dn_json_peek(cursor);
    const char *start = cursor->at;
    if (!dn_json_skip_value(cursor)) {
        return false;
    }
    *value = (api_raw){start, (size_t)(cursor->at - start)};
    return true;
}

bool api_raw_is_integer(api_raw raw)
{
    size_t i = raw.bytes && raw.at[0] == '-' ? 1 : 0;
    bool digits = i < raw.bytes;
    for (; i < raw.bytes; i++) {
        digits &= raw.at[i] >= '0' && raw.at[i] <= '9';
    }
    return digits;
}
