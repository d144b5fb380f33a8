/* Owns nothing. Invariant: at <= end. Any thread. */
#include "format/json_cursor.h"

#include <string.h>

char dn_json_peek(dn_json_cursor *cursor)
{
    while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t' || *cursor->at == '\n' || *cursor->at == '\r')) {
        cursor->at++;
    }
    return cursor->at < cursor->end ? *cursor->at : '\0';
}

bool dn_json_take(dn_json_cursor *cursor, char wanted)
{
    if (dn_json_peek(cursor) != wanted || cursor->at == cursor->end) {
        return false;
    }
    cursor->at++;
    return true;
}

bool dn_json_take_u64(dn_json_cursor *cursor, uint64_t *value)
{
    uint64_t sum = 0;
    char next = dn_json_peek(cursor);
    if (next < '0' || next > '9') {
        return false;
    }
    const char *at = cursor->at;
    for (; at < cursor->end && *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) || __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum)) {
            return false;
        }
    }
    if (at < cursor->end && (*at == '.' || *at == 'e' || *at == 'E')) {
        return false;
    }
    cursor->at = at;
    *value = sum;
    return true;
}

/* From the opening quote to behind the closing one. */
static bool skip_string(dn_json_cursor *cursor)
{
    if (!dn_json_take(cursor, '"')) {
        return false;
    }
    while (cursor->at < cursor->end) {
        char byte = *cursor->at++;
        if (byte == '"') {
            return true;
        }
        if (byte == '\\' && cursor->at < cursor->end) {
            cursor->at++;
        }
    }
    return false;
}

bool dn_json_skip_value(dn_json_cursor *cursor)
{
    size_t depth = 0;
    do {
        char next = dn_json_peek(cursor);
        if (next == '"') {
            if (!skip_string(cursor)) {
                return false;
            }
        } else if (next == '{' || next == '[') {
            depth++;
            cursor->at++;
        } else if (next == '}' || next == ']') {
            if (depth == 0) {
                return false;
            }
            depth--;
            cursor->at++;
        } else if (next == ',' || next == ':') {
            if (depth == 0) {
                return false;
            }
            cursor->at++;
        } else {
            size_t bytes = 0;
            while (cursor->at + bytes < cursor->end && !strchr(" \t\n\r,:{}[]\"", cursor->at[bytes])) {
                bytes++;
            }
            if (bytes == 0) {
                return false;
            }
            cursor->at += bytes;
        }
    } while (depth > 0);
    return true;
}

static unsigned hex4(const char *text)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char digit = text[i];
        unsigned nibble = digit <= '9' ? (unsigned)(digit - '0') : ((unsigned)digit | 0x20u) - 'a' + 10u;
        value = value << 4 | (nibble & 0xFu);
    }
    return value;
}

static size_t put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

static char simple_escape(char letter)
{
    switch (letter) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return letter;
    }
}

size_t dn_json_unescape(char *out, const char *inside, size_t count)
{
    size_t used = 0;
    for (size_t i = 0; i < count;) {
        if (inside[i] != '\\' || i + 1 >= count) {
            out[used++] = inside[i++];
        } else if (inside[i + 1] != 'u' || count - i < 6) {
            out[used++] = simple_escape(inside[i + 1]);
            i += 2;
        } else {
            unsigned code = hex4(inside + i + 2);
            i += 6;
            if (code >= 0xD800 && code < 0xDC00 && count - i >= 6) {
                code = 0x10000 + ((code - 0xD800) << 10) + ((hex4(inside + i + 2) - 0xDC00) & 0x3FF);
                i += 6;
            }
            used += put_utf8(out + used, code);
        }
    }
    return used;
}

bool dn_json_take_string(dn_json_cursor *cursor, char *out, size_t capacity, size_t *bytes)
{
    dn_json_cursor start = *cursor;
    if (dn_json_peek(&start) != '"' || !skip_string(cursor)) {
        return false;
    }
    const char *inside = start.at + 1;
    size_t count = (size_t)(cursor->at - 1 - inside);
    if (count > capacity) {
        /* Escapes may still make it short enough, but none of our callers is that tight. */
        *cursor = start;
        return false;
    }
    *bytes = dn_json_unescape(out, inside, count);
    return true;
}
