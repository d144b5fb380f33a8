/* Lines of the log: one line each, valid JSON whatever is said, cut where they are full. */
#include "server/log.h"

#include <fcntl.h>
#include <unistd.h>

#include "tests/test.h"

static char said[3 * LOG_LINE_BYTES];

/* Sends standard error into a pipe for one line. */
static const char *hear(void (*say)(void))
{
    int ends[2];
    fflush(stderr);
    const int usual = dup(STDERR_FILENO);
    memset(said, 0, sizeof said);
    if (usual < 0 || pipe(ends) != 0)
        return said;
    dup2(ends[1], STDERR_FILENO);
    say();
    dup2(usual, STDERR_FILENO);
    close(usual);
    close(ends[1]);
    size_t used = 0;
    for (ssize_t count; (count = read(ends[0], said + used, sizeof said - 1 - used)) > 0;)
        used += (size_t)count;
    close(ends[0]);
    return said;
}

static void say_plain(void)
{
    log_say(LOG_WARNING, "store", "a %s\nline with \"quotes\" and \x1b[31m", "second");
}

static void say_controls(void)
{
    log_line line;
    log_begin(&line, LOG_INFO, "worker", "a\xc2\x9b\x33\x31m\xff\xc3\xa4\xc2\xa0\xe2\x82\xac");
    log_text(&line, "name", "\xc2\x85 \xc2\x9f\xc3\xa4");
    log_end(&line);
}

/* C1 is what some terminals obey as they do ESC; what is no UTF-8 is not passed on. */
static void no_terminal_obeys_a_line(void)
{
    log_set_format(LOG_TEXT);
    const char *line = hear(say_controls);
    CHECK_MSG(strcmp(line + 24, " info worker: a?31m?\xc3\xa4\xc2\xa0\xe2\x82\xac name=\"\\u0085 \\u009f\xc3\xa4\"\n") == 0, "%s", line);
    log_set_format(LOG_JSON);
    line = hear(say_controls);
    CHECK_MSG(strstr(line, "\"message\":\"a\\u009b31m?\xc3\xa4\xc2\xa0\xe2\x82\xac\",\"name\":\"\\u0085 \\u009f\xc3\xa4\"}\n"), "%s", line);
    log_set_format(LOG_TEXT);
}

static void say_fields(void)
{
    log_line line;
    log_begin(&line, LOG_INFO, "http", "request");
    log_text(&line, "path", "/jobs/a b\"\\\x01\xff\xc3\xa4");
    log_text(&line, "route", "/jobs/{}");
    log_text(&line, "trace_id", "");
    log_text(&line, "client", NULL);
    log_integer(&line, "status", -404);
    log_number(&line, "seconds", 0.25);
    log_end(&line);
}

static void say_much(void)
{
    char much[2 * LOG_LINE_BYTES];
    memset(much, '"', sizeof much);
    much[sizeof much - 1] = 0;
    log_line line;
    log_begin(&line, LOG_ERROR, "http", "%s", much);
    log_text(&line, "path", much);
    log_text(&line, "more", much);
    log_integer(&line, "status", 1);
    log_number(&line, "seconds", 1e300);
    log_end(&line);
}

static void text_is_for_people(void)
{
    log_set_format(LOG_TEXT);
    const char *line = hear(say_plain);
    CHECK_MSG(strlen(line) > 25 && line[4] == '-' && line[10] == 'T' && line[23] == 'Z', "%s", line);
    CHECK_MSG(strcmp(line + 24, " warning store: a second?line with \"quotes\" and ?[31m\n") == 0, "%s", line);
    line = hear(say_fields);
    CHECK_MSG(strcmp(line + 24,
                     " info http: request path=\"/jobs/a b\\\"\\\\\\u0001?\xc3\xa4\" route=/jobs/{} status=-404 seconds=0.250000\n") == 0,
              "%s", line);
}

static void json_is_for_machines(void)
{
    log_set_format(LOG_JSON);
    const char *line = hear(say_plain);
    CHECK_MSG(strncmp(line, "{\"time\":\"", 9) == 0, "%s", line);
    CHECK_MSG(strcmp(line + 33, "\",\"level\":\"warning\",\"component\":\"store\",\"message\":\"a second\\u000aline with \\\"quotes\\\" "
                                "and \\u001b[31m\"}\n") == 0,
              "%s", line);
    line = hear(say_fields);
    CHECK_MSG(strstr(line, "\"message\":\"request\",\"path\":\"/jobs/a "
                           "b\\\"\\\\\\u0001?\xc3\xa4\",\"route\":\"/jobs/{}\",\"status\":-404,\"seconds\":0.250000}\n"),
              "%s", line);
}

static void lines_are_cut_whole(void)
{
    for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
        log_set_format((log_format)format);
        const char *line = hear(say_much);
        const size_t length = strlen(line);
        CHECK_MSG(length > LOG_LINE_BYTES / 2 && length <= LOG_LINE_BYTES, "%zu bytes", length);
        CHECK(line[length - 1] == '\n' && !memchr(line, '\n', length - 1));
        size_t quotes = 0;
        for (size_t i = 0; format == LOG_JSON && i < length; i++) {
            if (line[i] == '\\')
                i++;
            else
                quotes += line[i] == '"';
        }
        CHECK(quotes % 2 == 0 && (format == LOG_TEXT || line[length - 2] == '}'));
    }
    log_set_format(LOG_TEXT);
}

static void formats_have_names(void)
{
    log_format format = LOG_TEXT;
    CHECK(log_format_from("json", &format) && format == LOG_JSON);
    CHECK(log_format_from("text", &format) && format == LOG_TEXT);
    CHECK(!log_format_from("xml", &format) && !log_format_from("", &format));
    CHECK(strcmp(log_format_name(), "text") == 0);
}

int main(void)
{
    RUN(text_is_for_people);
    RUN(json_is_for_machines);
    RUN(no_terminal_obeys_a_line);
    RUN(lines_are_cut_whole);
    RUN(formats_have_names);
    return test_end();
}
