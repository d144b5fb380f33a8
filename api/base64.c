/* See base64.h. Pure; any thread. */
#include "api/base64.h"

#include <stdint.h>

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool api_base64_decode(unsigned char *out, size_t *bytes, const char *text, size_t count)
{
    size_t padding = 0, used = 0;
    if (!count || count % 4) {
        return false;
    }
    while (padding < 2 && text[count - 1 - padding] == '=') {
        padding++;
    }
    for (size_t i = 0; i < count; i += 4) {
        uint32_t bits = 0;
        size_t digits = i + 4 == count ? 4 - padding : 4;
        for (size_t j = 0; j < 4; j++) {
            int value = j < digits ? digit(text[i + j]) : 0;
            if (value < 0) {
                return false;
            }
            bits = bits << 6 | (uint32_t)value;
        }
        if ((digits == 3 && (bits & 0xFF)) || (digits == 2 && (bits & 0xFFFF))) {
            return false;
        }
        for (size_t j = 0; j + 1 < digits; j++) {
            out[used++] = (unsigned char)(bits >> (16 - 8 * j));
        }
    }
    *bytes = used;
    return true;
}
