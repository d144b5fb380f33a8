/* Owns nothing: writes into the caller's dn_error. The message is always NUL terminated, free of control characters
 * (names from files and requests end up in it, and it ends up in logs and terminals), and never cut inside a UTF-8
 * sequence. Any thread. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Removes a UTF-8 sequence that the end of the buffer cut in two. */
static void trim_partial_sequence(char *text, size_t bytes)
{
    size_t back = 0;
    while (back < 3 && back < bytes && ((unsigned char)text[bytes - 1 - back] & 0xC0) == 0x80) {
        back++;
    }
    if (back >= bytes) {
        return;
    }
    unsigned char lead = (unsigned char)text[bytes - 1 - back];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (need > back + 1) {
        text[bytes - 1 - back] = '\0';
    }
}

dn_status dn_fail(dn_error *error, dn_status status, const char *format, ...)
{
    if (!error) {
        return status;
    }
    /* The arguments may point into error->message itself, as when a caller puts a file name before a message. */
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (wanted < 0) {
        message[0] = '\0';
    } else if ((size_t)wanted >= sizeof message) {
        trim_partial_sequence(message, sizeof message - 1);
    }
    for (char *at = message; *at; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte < 0x20 || byte == 0x7F) {
            *at = '?';
        }
    }
    error->status = status;
    memcpy(error->message, message, sizeof message);
    return status;
}

const char *dn_status_name(dn_status status)
{
    switch (status) {
    case DN_OK:
        return "ok";
    case DN_INVALID:
        return "invalid";
    case DN_IO:
        return "io";
    case DN_NO_MEMORY:
        return "no_memory";
    case DN_UNSUPPORTED:
        return "unsupported";
    case DN_CANCELLED:
        return "cancelled";
    case DN_NUMERIC:
        return "numeric";
    case DN_INTERNAL:
        return "internal";
    case DN_DEVICE_LOST:
        return "device_lost";
    }
    return "unknown";
}
