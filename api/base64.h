/* Base64 of RFC 4648, section 4, read strictly: padded, no line ends, no bits left over. */
#ifndef API_BASE64_H
#define API_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes to out, which holds 3/4 of count; *bytes how many. False: not base64, or nothing. */
bool api_base64_decode(unsigned char *out, size_t *bytes, const char *text, size_t count);

#endif
