/* W3C Trace Context (traceparent.h). */
#include "api/traceparent.h"

#include <stdio.h>
#include <string.h>

#define DIGITS "0123456789abcdef"

/* Exactly so many lower-case hexadecimal digits, not all of them 0 where an id is meant. */
static bool hex(const char *text, size_t count, bool id)
{
    return strspn(text, DIGITS) >= count && !(id && strspn(text, "0") >= count);
}

/* The length without the white space behind a field's value, which is no part of it (RFC 9110, section 5.5). */
static size_t value_bytes(const char *text)
{
    size_t bytes = strlen(text);
    while (bytes > 0 && (text[bytes - 1] == ' ' || text[bytes - 1] == '\t'))
        bytes--;
    return bytes;
}

bool api_traceparent_read(char out[API_TRACE_BYTES], const char *header)
{
    out[0] = 0;
    if (!header || value_bytes(header) < 55 || !hex(header, 2, false) || strncmp(header, "ff", 2) == 0 || header[2] != '-' ||
        !hex(header + 3, 32, true) || header[35] != '-' || !hex(header + 36, 16, true) || header[52] != '-' || !hex(header + 53, 2, false))
        return false;
    const bool first_version = strncmp(header, "00", 2) == 0;
    if (value_bytes(header) > 55 && (first_version || header[55] != '-'))
        return false;
    snprintf(out, API_TRACE_BYTES, "%.32s-%.2s", header + 3, header + 53);
    return true;
}

void api_traceparent_write(char out[API_TRACEPARENT_BYTES], const char *trace, const unsigned char span[8])
{
    char digits[17];
    for (size_t i = 0; i < 8; i++)
        snprintf(digits + 2 * i, 3, "%02x", span[i]);
    if (strspn(digits, "0") == 16)
        digits[15] = '1';
    snprintf(out, API_TRACEPARENT_BYTES, "00-%.32s-%s-%.2s", trace, digits, trace + 33);
}

void api_trace_id(char out[33], const char *trace)
{
    snprintf(out, 33, "%.32s", trace);
}
