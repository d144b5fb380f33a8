/* The log (log.h). Invariant: whatever is said, a line ends where its line feed is, and a JSON line is valid JSON: text is escaped, and
 * cut so that what closes it still fits. */
#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/text.h"
#include "api/views.h"
#include "base/clock.h"

#define CLOSING 16u /* bytes kept for what ends a value and a line */
#define MESSAGE_BYTES 1536

static log_format format_in_use = LOG_TEXT;

void log_set_format(log_format format)
{
    format_in_use = format;
}

bool log_format_from(const char *text, log_format *out)
{
    *out = strcmp(text, "json") == 0 ? LOG_JSON : LOG_TEXT;
    return *out == LOG_JSON || strcmp(text, "text") == 0;
}

const char *log_format_name(void)
{
    return format_in_use == LOG_JSON ? "json" : "text";
}

static bool fits(const log_line *line, size_t bytes)
{
    return line->used + bytes + CLOSING <= sizeof line->bytes;
}

/* What closes something is let into the room that is kept. */
static void add(log_line *line, const char *text)
{
    const size_t bytes = strlen(text);
    memcpy(line->bytes + line->used, text, bytes);
    line->used += bytes;
}

/* What a terminal may obey: C0, DEL, and C1 (U+0080 to U+009F). */
static bool is_control(unsigned code)
{
    return code < 32 || (code >= 127 && code < 160);
}

/* The code of a character below U+0100; bytes: its length in UTF-8, 0: the byte is none. Others: 256. */
static unsigned low_code(const char *text, size_t *bytes)
{
    const unsigned char c = (unsigned char)*text;
    *bytes = api_utf8_bytes(text);
    if (c < 128)
        return c;
    return *bytes == 2 && c < 0xC4 ? ((c & 3u) << 6 | ((unsigned char)text[1] & 63u)) : 256;
}

/* Inside quotes: JSON's escapes, in both formats. Bytes that are no UTF-8 become "?". */
static void add_escaped(log_line *line, const char *text)
{
    while (*text && fits(line, 6)) {
        size_t bytes;
        const unsigned code = low_code(text, &bytes);
        char escape[16];
        if (code == '"' || code == '\\') {
            snprintf(escape, sizeof escape, "\\%c", (char)code);
            add(line, escape);
        } else if (is_control(code)) {
            snprintf(escape, sizeof escape, "\\u%04x", code);
            add(line, escape);
        } else if (bytes == 0) {
            add(line, "?");
        } else {
            memcpy(line->bytes + line->used, text, bytes);
            line->used += bytes;
        }
        text += bytes ? bytes : 1;
    }
}

/* A message of the text format stands without quotes: it only must not end the line, or write to a terminal what that obeys. */
static void add_plain(log_line *line, const char *text)
{
    while (*text && fits(line, 4)) {
        size_t bytes;
        const bool shown = !is_control(low_code(text, &bytes)) && bytes > 0;
        memcpy(line->bytes + line->used, shown ? text : "?", shown ? bytes : 1);
        line->used += shown ? bytes : 1;
        text += bytes ? bytes : 1;
    }
}

static void add_string(log_line *line, const char *text)
{
    add(line, "\"");
    add_escaped(line, text);
    add(line, "\"");
}

static void add_name(log_line *line, const char *name)
{
    if (format_in_use == LOG_JSON) {
        add(line, ",\"");
        add(line, name);
        add(line, "\":");
    } else {
        add(line, " ");
        add(line, name);
        add(line, "=");
    }
}

static void begin(log_line *line, log_level level, const char *component, const char *message)
{
    static const char *const levels[] = {"info", "warning", "error"};
    char when[32];
    api_time_text(when, dn_wall_ms());
    line->used = 0;
    if (format_in_use == LOG_JSON) {
        add(line, "{\"time\":\"");
        add(line, when);
        add(line, "\",\"level\":\"");
        add(line, levels[level]);
        add(line, "\",\"component\":\"");
        add(line, component);
        add(line, "\",\"message\":");
        add_string(line, message);
        return;
    }
    add(line, when);
    add(line, " ");
    add(line, levels[level]);
    add(line, " ");
    add(line, component);
    add(line, ": ");
    add_plain(line, message);
}

void log_begin(log_line *line, log_level level, const char *component, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    begin(line, level, component, message);
}

void log_text(log_line *line, const char *name, const char *value)
{
    if (!value || !*value || !fits(line, strlen(name) + 8))
        return;
    add_name(line, name);
    const bool bare = strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:{}+") == strlen(value);
    if (format_in_use == LOG_JSON || !bare)
        add_string(line, value);
    else
        add_plain(line, value);
}

static void add_number(log_line *line, const char *name, const char *digits)
{
    if (!fits(line, strlen(name) + strlen(digits) + 8))
        return;
    add_name(line, name);
    add(line, digits);
}

void log_integer(log_line *line, const char *name, long long value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%lld", value);
    add_number(line, name, digits);
}

void log_number(log_line *line, const char *name, double value)
{
    char digits[64];
    snprintf(digits, sizeof digits, "%.6f", value > -1e12 && value < 1e12 ? value : 0.0);
    add_number(line, name, digits);
}

static void end_on(log_line *line, int fd)
{
    add(line, format_in_use == LOG_JSON ? "}\n" : "\n");
    const ssize_t written = write(fd, line->bytes, line->used);
    (void)written;
}

/* A reader that does not take it (log_sink.h) goes without. */
void log_end(log_line *line)
{
    end_on(line, STDERR_FILENO);
}

void log_end_on_output(log_line *line)
{
    end_on(line, STDOUT_FILENO);
}

void log_say(log_level level, const char *component, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    log_line line;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    begin(&line, level, component, message);
    log_end(&line);
}
