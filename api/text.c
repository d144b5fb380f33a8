/* Growing text and the few JSON tokens a body is made of. See text.h. */
#include "api/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(api_text *text, size_t extra)
{
    if (text->failed || extra > SIZE_MAX / 4 || text->length > SIZE_MAX / 4) {
        text->failed = true;
        return false;
    }
    size_t needed = text->length + extra + 1;
    if (needed <= text->capacity) {
        return true;
    }
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity < needed) {
        capacity *= 2;
    }
    char *data = realloc(text->data, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void api_text_bytes(api_text *text, const char *bytes, size_t count)
{
    if (!reserve(text, count)) {
        return;
    }
    if (count) {
        memcpy(text->data + text->length, bytes, count);
    }
    text->length += count;
    text->data[text->length] = '\0';
}

void api_text_add(api_text *text, const char *raw)
{
    api_text_bytes(text, raw, strlen(raw));
}

void api_text_format(api_text *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int count = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (count < 0) {
        text->failed = true;
    } else if (reserve(text, (size_t)count)) {
        vsnprintf(text->data + text->length, (size_t)count + 1, format, again);
        text->length += (size_t)count;
    }
    va_end(again);
}

static bool follows(unsigned char byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t api_utf8_bytes(const char *bytes)
{
    const unsigned char *s = (const unsigned char *)bytes;
    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] >= 0xC2 && s[0] <= 0xDF) {
        return follows(s[1]) ? 2 : 0;
    }
    if (s[0] >= 0xE0 && s[0] <= 0xEF) {
        bool overlong = s[0] == 0xE0 && s[1] < 0xA0;
        bool surrogate = s[0] == 0xED && s[1] > 0x9F;
        return !overlong && !surrogate && follows(s[1]) && follows(s[2]) ? 3 : 0;
    }
    if (s[0] >= 0xF0 && s[0] <= 0xF4) {
        bool overlong = s[0] == 0xF0 && s[1] < 0x90;
        bool beyond = s[0] == 0xF4 && s[1] > 0x8F;
        return !overlong && !beyond && follows(s[1]) && follows(s[2]) && follows(s[3]) ? 4 : 0;
    }
    return 0;
}

void api_text_string(api_text *text, const char *value)
{
    if (!value) {
        api_text_add(text, "null");
        return;
    }
    api_text_add(text, "\"");
    while (*value) {
        size_t count = api_utf8_bytes(value);
        unsigned char byte = (unsigned char)*value;
        if (!count) {
            api_text_add(text, "\xEF\xBF\xBD");
            count = 1;
        } else if (byte == '"' || byte == '\\') {
            api_text_format(text, "\\%c", byte);
        } else if (byte < 0x20 || byte == 0x7F) {
            api_text_format(text, "\\u%04x", byte);
        } else {
            api_text_bytes(text, value, count);
        }
        value += count;
    }
    api_text_add(text, "\"");
}

void api_text_number(api_text *text, double value)
{
    if (!isfinite(value)) {
        api_text_add(text, "null");
        return;
    }
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value == 0 ? 0.0 : value);
        if (strtod(digits, NULL) == value) {
            break;
        }
    }
    api_text_add(text, digits);
}

void api_text_real(api_text *text, double value)
{
    api_text_number(text, value);
    if (isfinite(value) && value == floor(value) && fabs(value) < 1e15) {
        api_text_add(text, ".0");
    }
}

void api_text_bool(api_text *text, bool value)
{
    api_text_add(text, value ? "true" : "false");
}

void api_text_base64(api_text *text, const unsigned char *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (count > SIZE_MAX / 8 || !reserve(text, (count + 2) / 3 * 4)) {
        text->failed = true;
        return;
    }
    char *out = text->data + text->length;
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = '\0';
    text->length = (size_t)(out - text->data);
}

char *api_text_take(api_text *text)
{
    char *data = text->data;
    if (text->failed || !reserve(text, 0)) {
        free(data);
        data = NULL;
    } else {
        data = text->data;
        data[text->length] = '\0';
    }
    *text = (api_text)API_TEXT_INIT;
    return data;
}
