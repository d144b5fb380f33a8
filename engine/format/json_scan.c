/* The strict scanner. Owns one stack of the keys of the objects that are open, for finding duplicates; it is freed before
 * return. Invariant: at <= end, and nothing is handed to cJSON that the scanner did not accept whole. Any thread. */
#include "format/json.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "format/json_cursor.h"

#define NUMBER_BYTES_MAX 63 /* cJSON 1.7 copies a number into 64 bytes and silently drops the rest */
#define DEPTH_HARD_MAX 500 /* the scanner recurses; cJSON's own limit is 1,000 */

typedef struct key_entry {
    size_t start; /* in scanner.key_text */
    size_t bytes;
    size_t offset; /* of the key in the input */
} key_entry;

typedef struct scanner {
    const char *begin;
    const char *at;
    const char *end;
    unsigned depth, depth_max;
    size_t tokens, tokens_max;
    locale_t c_locale;
    char *key_text; /* unescaped keys of all open objects, end to end */
    size_t key_text_bytes, key_text_capacity;
    key_entry *keys;
    size_t key_count, key_capacity;
    dn_status status;
    const char *reason; /* NULL while all is well */
    const char *where;
} scanner;

/* Notes the first fault; always false. */
static bool refuse(scanner *scan, const char *where, const char *reason)
{
    if (!scan->reason) {
        scan->status = DN_INVALID;
        scan->where = where;
        scan->reason = reason;
    }
    return false;
}

static bool out_of_memory(scanner *scan)
{
    refuse(scan, scan->at, "out of memory");
    scan->status = DN_NO_MEMORY;
    return false;
}

static void skip_space(scanner *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r')) {
        scan->at++;
    }
}

static bool next_is(const scanner *scan, char byte)
{
    return scan->at < scan->end && *scan->at == byte;
}

static bool digit_next(const scanner *scan)
{
    return scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9';
}

static bool count_token(scanner *scan)
{
    scan->tokens++;
    if (scan->tokens_max && scan->tokens > scan->tokens_max) {
        return refuse(scan, scan->at, "too many values");
    }
    return true;
}

static bool scan_digits(scanner *scan)
{
    if (!digit_next(scan)) {
        return refuse(scan, scan->at, "digit expected");
    }
    while (digit_next(scan)) {
        scan->at++;
    }
    return true;
}

static bool check_finite(scanner *scan, const char *start)
{
    char text[NUMBER_BYTES_MAX + 1];
    size_t bytes = (size_t)(scan->at - start);
    if (bytes > NUMBER_BYTES_MAX) {
        return refuse(scan, start, "number too long");
    }
    memcpy(text, start, bytes);
    text[bytes] = '\0';
    if (!isfinite(strtod_l(text, NULL, scan->c_locale))) {
        return refuse(scan, start, "number out of range");
    }
    return true;
}

static bool scan_number(scanner *scan)
{
    const char *start = scan->at;
    if (next_is(scan, '-')) {
        scan->at++;
    }
    if (next_is(scan, '0')) {
        scan->at++;
        if (digit_next(scan)) {
            return refuse(scan, start, "number starts with a zero");
        }
    } else if (!scan_digits(scan)) {
        return false;
    }
    if (next_is(scan, '.')) {
        scan->at++;
        if (!scan_digits(scan)) {
            return false;
        }
    }
    if (next_is(scan, 'e') || next_is(scan, 'E')) {
        scan->at++;
        if (next_is(scan, '+') || next_is(scan, '-')) {
            scan->at++;
        }
        if (!scan_digits(scan)) {
            return false;
        }
    }
    return check_finite(scan, start);
}

/* Bytes of the well formed UTF-8 sequence at `at` (RFC 3629: shortest form, no surrogates, up to U+10FFFF); 0: none. */
static size_t utf8_length(const char *at, const char *end)
{
    const unsigned char *bytes = (const unsigned char *)at;
    size_t left = (size_t)(end - at);
    unsigned char lead = bytes[0];
    if (lead < 0x80) {
        return 1;
    }
    size_t length = lead >= 0xC2 && lead <= 0xDF ? 2 : (lead & 0xF0) == 0xE0 ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
    if (length == 0 || length > left) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (lead == 0xE0 && bytes[1] < 0xA0) || (lead == 0xF0 && bytes[1] < 0x90);
    bool surrogate = lead == 0xED && bytes[1] >= 0xA0;
    bool beyond = lead == 0xF4 && bytes[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

/* Four hexadecimal digits; -1 when they are not there. */
static int scan_hex4(scanner *scan)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char byte = scan->at < scan->end ? *scan->at : '\0';
        int digit = byte >= '0' && byte <= '9'   ? byte - '0'
                    : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                    : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                                 : -1;
        if (digit < 0) {
            refuse(scan, scan->at, "bad \\u escape");
            return -1;
        }
        value = value << 4 | digit;
        scan->at++;
    }
    return value;
}

/* After the backslash. */
static bool scan_escape(scanner *scan)
{
    const char *start = scan->at - 1;
    if (scan->at == scan->end) {
        return refuse(scan, scan->at, "unterminated string");
    }
    char letter = *scan->at++;
    if (letter != 'u') {
        return letter != '\0' && strchr("\"\\/bfnrt", letter) ? true : refuse(scan, start, "unknown escape");
    }
    int code = scan_hex4(scan);
    if (code < 0) {
        return false;
    }
    if (code == 0) {
        return refuse(scan, start, "\\u0000 in a string");
    }
    if (code >= 0xDC00 && code <= 0xDFFF) {
        return refuse(scan, start, "lone surrogate");
    }
    if (code < 0xD800 || code > 0xDBFF) {
        return true;
    }
    if (scan->end - scan->at < 2 || scan->at[0] != '\\' || scan->at[1] != 'u') {
        return refuse(scan, start, "lone surrogate");
    }
    scan->at += 2;
    int low = scan_hex4(scan);
    if (low < 0) {
        return false;
    }
    return low >= 0xDC00 && low <= 0xDFFF ? true : refuse(scan, start, "lone surrogate");
}

/* At the opening quote; ends behind the closing one. */
static bool scan_string(scanner *scan)
{
    scan->at++;
    while (scan->at < scan->end) {
        unsigned char byte = (unsigned char)*scan->at;
        if (byte == '"') {
            scan->at++;
            return true;
        }
        if (byte < 0x20) {
            return refuse(scan, scan->at, "control character in a string");
        }
        if (byte == '\\') {
            scan->at++;
            if (!scan_escape(scan)) {
                return false;
            }
            continue;
        }
        size_t length = utf8_length(scan->at, scan->end);
        if (length == 0) {
            return refuse(scan, scan->at, "invalid UTF-8");
        }
        scan->at += length;
    }
    return refuse(scan, scan->at, "unterminated string");
}

/* Makes room for `more` elements of `size` bytes behind *used; false when out of memory. */
static bool grow(void **buffer, size_t *capacity, size_t used, size_t more, size_t size)
{
    if (more <= *capacity - used) {
        return true;
    }
    size_t wanted = used + more > *capacity * 2 ? used + more : *capacity * 2;
    wanted = wanted < 64 ? 64 : wanted;
    void *larger = realloc(*buffer, wanted * size);
    if (!larger) {
        return false;
    }
    *buffer = larger;
    *capacity = wanted;
    return true;
}

/* Pushes the key whose inside (between the quotes) is given. */
static bool push_key(scanner *scan, const char *inside, size_t count)
{
    void *text = scan->key_text, *keys = scan->keys;
    /* One byte more, so that the text of an empty key is not a null pointer. */
    bool grown = grow(&text, &scan->key_text_capacity, scan->key_text_bytes, count + 1, 1);
    scan->key_text = text;
    grown = grown && grow(&keys, &scan->key_capacity, scan->key_count, 1, sizeof *scan->keys);
    scan->keys = keys;
    if (!grown) {
        return out_of_memory(scan);
    }
    size_t bytes = dn_json_unescape(scan->key_text + scan->key_text_bytes, inside, count);
    scan->keys[scan->key_count++] =
        (key_entry){.start = scan->key_text_bytes, .bytes = bytes, .offset = (size_t)(inside - 1 - scan->begin)};
    scan->key_text_bytes += bytes;
    return true;
}

static int compare_key_text(const key_entry *a, const key_entry *b, const char *text)
{
    if (a->bytes != b->bytes) {
        return a->bytes < b->bytes ? -1 : 1;
    }
    return memcmp(text + a->start, text + b->start, a->bytes);
}

static int compare_keys(const void *a, const void *b, void *text)
{
    const key_entry *left = a, *right = b;
    int order = compare_key_text(left, right, text);
    return order != 0 ? order : left->offset < right->offset ? -1 : 1;
}

/* Sorted, so that a hostile object of 10^5 keys costs n log n. Pops the object's keys. */
static bool check_keys(scanner *scan, size_t first_key)
{
    size_t count = scan->key_count - first_key;
    if (count == 0) {
        return true;
    }
    key_entry *keys = scan->keys + first_key;
    size_t text_start = keys[0].start, duplicate = SIZE_MAX;
    qsort_r(keys, count, sizeof *keys, compare_keys, scan->key_text);
    for (size_t i = 1; i < count; i++) {
        if (compare_key_text(&keys[i - 1], &keys[i], scan->key_text) == 0 && keys[i].offset < duplicate) {
            duplicate = keys[i].offset;
        }
    }
    scan->key_count = first_key;
    scan->key_text_bytes = text_start;
    return duplicate == SIZE_MAX ? true : refuse(scan, scan->begin + duplicate, "duplicate key");
}

static bool scan_value(scanner *scan);

static bool scan_member(scanner *scan)
{
    skip_space(scan);
    if (!next_is(scan, '"')) {
        return refuse(scan, scan->at, "key expected");
    }
    const char *key = scan->at;
    if (!count_token(scan) || !scan_string(scan) || !push_key(scan, key + 1, (size_t)(scan->at - key) - 2)) {
        return false;
    }
    skip_space(scan);
    if (!next_is(scan, ':')) {
        return refuse(scan, scan->at, "colon expected");
    }
    scan->at++;
    return scan_value(scan);
}

static bool scan_container(scanner *scan, bool is_object)
{
    char closing = is_object ? '}' : ']';
    size_t first_key = scan->key_count;
    if (++scan->depth > scan->depth_max) {
        return refuse(scan, scan->at, "nested too deeply");
    }
    scan->at++;
    skip_space(scan);
    if (!next_is(scan, closing)) {
        for (;;) {
            if (!(is_object ? scan_member(scan) : scan_value(scan))) {
                return false;
            }
            skip_space(scan);
            if (!next_is(scan, ',')) {
                break;
            }
            scan->at++;
        }
        if (!next_is(scan, closing)) {
            return refuse(scan, scan->at, scan->at == scan->end ? "unexpected end" : "comma or closing bracket expected");
        }
    }
    scan->at++;
    scan->depth--;
    return is_object ? check_keys(scan, first_key) : true;
}

static bool scan_word(scanner *scan, const char *word)
{
    size_t bytes = strlen(word);
    if ((size_t)(scan->end - scan->at) < bytes || memcmp(scan->at, word, bytes) != 0) {
        return refuse(scan, scan->at, "value expected");
    }
    scan->at += bytes;
    return true;
}

static bool scan_value(scanner *scan)
{
    skip_space(scan);
    if (scan->at == scan->end) {
        return refuse(scan, scan->at, "unexpected end");
    }
    if (!count_token(scan)) {
        return false;
    }
    switch (*scan->at) {
    case '{':
        return scan_container(scan, true);
    case '[':
        return scan_container(scan, false);
    case '"':
        return scan_string(scan);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    default:
        if (*scan->at != '-' && !digit_next(scan)) {
            return refuse(scan, scan->at, "value expected");
        }
        return scan_number(scan);
    }
}

static bool scan_document(scanner *scan)
{
    if (scan->end - scan->at >= 3 && memcmp(scan->at, "\xEF\xBB\xBF", 3) == 0) {
        return refuse(scan, scan->at, "byte order mark");
    }
    if (!scan_value(scan)) {
        return false;
    }
    skip_space(scan);
    return scan->at == scan->end ? true : refuse(scan, scan->at, "bytes after the value");
}

dn_status dn_json_scan(const char *bytes, size_t count, const dn_json_limits *limits, size_t *offset, dn_error *error)
{
    if (count > limits->bytes_max) {
        if (offset) {
            *offset = limits->bytes_max;
        }
        return dn_fail(error, DN_INVALID, "more than %zu bytes", limits->bytes_max);
    }
    unsigned depth_max = limits->depth_max ? limits->depth_max : DN_JSON_DEPTH_MAX;
    scanner scan = {.begin = bytes,
                    .at = bytes,
                    .end = bytes + count,
                    .depth_max = depth_max < DEPTH_HARD_MAX ? depth_max : DEPTH_HARD_MAX,
                    .tokens_max = limits->tokens_max,
                    .c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    if (scan.c_locale == (locale_t)0) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    dn_status status = DN_OK;
    if (!scan_document(&scan)) {
        status = dn_fail(error, scan.status, "%s", scan.reason);
        if (offset) {
            *offset = (size_t)(scan.where - bytes);
        }
    }
    freelocale(scan.c_locale);
    free(scan.key_text);
    free(scan.keys);
    return status;
}
