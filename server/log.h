/* The log: lines on standard error, as text for people or as JSON (one object a line) for machines.
 *
 *     2026-11-22T11:30:00.123Z info dispatcher: job started job=k3... model=fashion-mnist
 *     {"time":"2026-11-22T11:30:00.123Z","level":"info","component":"dispatcher","message":"job started","job":"k3...","model":"fashion-mnist"}
 *
 * Lines never hold keys, webhook secrets, bodies, prompts or pictures: what is given here is the daemon's own words, ids, names of clients
 * and models, and paths without their query. A line is one write, so that those of daemon and worker do not mix; no memory is asked for,
 * and what is longer than LOG_LINE_BYTES is cut. Any thread. */
#ifndef SERVER_LOG_H
#define SERVER_LOG_H

#include <stdbool.h>
#include <stddef.h>

#define LOG_LINE_BYTES 4096 /* below what a pipe takes in one piece */

typedef enum log_format { LOG_TEXT, LOG_JSON } log_format;
typedef enum log_level { LOG_INFO, LOG_WARNING, LOG_ERROR } log_level;

/* Text until this is called; before threads start. */
void log_set_format(log_format format);
bool log_format_from(const char *text, log_format *out); /* "text", "json" */
const char *log_format_name(void); /* of the format in use */

/* A line of no more than a message. component: who says it ("http", "dispatcher", "store", ...). */
void log_say(log_level level, const char *component, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A line with fields: begun, filled, ended. Fields whose value is NULL or "" are left out. */
typedef struct log_line {
    char bytes[LOG_LINE_BYTES];
    size_t used;
} log_line;

void log_begin(log_line *line, log_level level, const char *component, const char *format, ...) __attribute__((format(printf, 4, 5)));
void log_text(log_line *line, const char *name, const char *value);
void log_integer(log_line *line, const char *name, long long value);
void log_number(log_line *line, const char *name, double value); /* to a microsecond, where it is seconds */
void log_end(log_line *line);
void log_end_on_output(log_line *line); /* on standard output: what a person is told there has the form of the log where that is JSON */

#endif
