/* A cursor over JSON text that dn_json_scan has accepted: for readers that want exact integers or no tree. It stays
 * inside the text whatever the bytes are, but only scanned text is read with meaning. */
#ifndef DN_FORMAT_JSON_CURSOR_H
#define DN_FORMAT_JSON_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dn_json_cursor {
    const char *at;
    const char *end;
} dn_json_cursor;

char dn_json_peek(dn_json_cursor *cursor); /* the next byte that is no white space, 0 at the end */
bool dn_json_take(dn_json_cursor *cursor, char wanted); /* steps over `wanted` if it comes next */
bool dn_json_take_u64(dn_json_cursor *cursor, uint64_t *value); /* digits only: no sign, point or exponent; fits 64 bits */
bool dn_json_skip_value(dn_json_cursor *cursor);

/* Reads a string and undoes its escapes. False when none comes next or it needs more than capacity bytes; *bytes is its
 * length, nothing is appended. */
bool dn_json_take_string(dn_json_cursor *cursor, char *out, size_t capacity, size_t *bytes);

/* Undoes the escapes of a string's inside (between the quotes). `out` holds at least as many bytes as the inside; the
 * result is never longer. */
size_t dn_json_unescape(char *out, const char *inside, size_t count);

#endif
