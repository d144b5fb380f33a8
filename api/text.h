/* A growing piece of text, for wire bodies. Owns one malloc'd buffer; a failed allocation is remembered and makes
 * api_text_take return NULL, so that writers need no check of their own. One thread at a time. */
#ifndef API_TEXT_H
#define API_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct api_text {
    char *data;
    size_t length, capacity;
    bool failed;
} api_text;
#define API_TEXT_INIT {.data = NULL}

void api_text_bytes(api_text *text, const char *bytes, size_t count);
void api_text_add(api_text *text, const char *raw);
void api_text_format(api_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A JSON string; NULL: null. Bytes that are no UTF-8 become U+FFFD, so that a body is valid JSON whatever a device or a file said. */
void api_text_string(api_text *text, const char *value);
/* The shortest decimal that reads back as the same double; api_text_real writes whole numbers as "2.0". Not finite: null. */
void api_text_number(api_text *text, double value);
void api_text_real(api_text *text, double value);
void api_text_bool(api_text *text, bool value);
void api_text_base64(api_text *text, const unsigned char *bytes, size_t count);

/* Hands the NUL-terminated text over (malloc'd), or NULL when memory ran out; the text is empty afterwards. */
char *api_text_take(api_text *text);

/* Bytes of the UTF-8 sequence at `bytes` (NUL-terminated): 1..4, or 0 when it is none (RFC 3629). */
size_t api_utf8_bytes(const char *bytes);

#endif
