/* Fuzz entry (libFuzzer's): any bytes as the head of a request, through the header gate and all that is read of headers. A first line
 * METHOD TARGET VERSION, then lines NAME:VALUE; the two calls by which the gate asks libmicrohttpd are answered here. Whatever passes
 * must keep the rules that the gate is there for, judged once more and in another way. */
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <strings.h>

#include "api/negotiate.h"
#include "server/http.h"

#define HEADERS_MAX 64
#define BODY_BYTES_MAX 65536u

struct MHD_Connection {
    size_t count;
    struct {
        char *name, *value;
        size_t name_bytes, value_bytes;
    } headers[HEADERS_MAX];
};

int MHD_get_connection_values_n(struct MHD_Connection *connection, enum MHD_ValueKind kind, MHD_KeyValueIteratorN iterator, void *payload)
{
    for (size_t i = 0; i < connection->count; i++)
        if (iterator(payload, kind, connection->headers[i].name, connection->headers[i].name_bytes, connection->headers[i].value,
                     connection->headers[i].value_bytes) != MHD_YES)
            return (int)i + 1;
    return (int)connection->count;
}

const char *MHD_lookup_connection_value(struct MHD_Connection *connection, enum MHD_ValueKind kind, const char *key)
{
    (void)kind;
    for (size_t i = 0; i < connection->count; i++)
        if (strcasecmp(connection->headers[i].name, key) == 0)
            return connection->headers[i].value;
    return NULL;
}

/* Cuts at `end`, or at the end of the text; what follows. */
static char *cut(char *text, char end)
{
    char *at = strchr(text, end);
    if (at == NULL)
        return text + strlen(text);
    *at = '\0';
    return at + 1;
}

static unsigned count_of(const struct MHD_Connection *c, const char *name)
{
    unsigned count = 0;
    for (size_t i = 0; i < c->count; i++)
        count += strcasecmp(c->headers[i].name, name) == 0;
    return count;
}

/* What the gate promises of a request that it lets through. */
static void judge(struct MHD_Connection *c, const char *version)
{
    const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
    const char *coding = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Transfer-Encoding");
    const bool is_11 = strcmp(version, "HTTP/1.1") == 0;
    REQUIRE(is_11 || strcmp(version, "HTTP/1.0") == 0);
    REQUIRE(count_of(c, "Host") == 1 || (!is_11 && count_of(c, "Host") == 0));
    REQUIRE(count_of(c, "Content-Length") + count_of(c, "Transfer-Encoding") <= 1);
    REQUIRE(coding == NULL || (is_11 && strcasecmp(coding, "chunked") == 0));
    for (const char *d = length ? length : ""; *d; d++)
        REQUIRE(isdigit((unsigned char)*d));
    REQUIRE(length == NULL || (*length != '\0' && strtod(length, NULL) <= BODY_BYTES_MAX));
    for (size_t i = 0; i < c->count; i++) {
        REQUIRE(c->headers[i].name[0] != '\0' && strlen(c->headers[i].name) == c->headers[i].name_bytes);
        REQUIRE(strpbrk(c->headers[i].name, " \t\"(),/:;<=>?@[\\]{}\x7f") == NULL);
        for (size_t k = 0; k < c->headers[i].value_bytes; k++)
            REQUIRE(c->headers[i].value[k] == '\t' || (unsigned char)c->headers[i].value[k] >= 32);
    }
}

static void read_headers(struct MHD_Connection *c)
{
    static const char *const hosts[] = {"denoised.example", NULL};
    api_problem problem = {0};
    unsigned seconds = 0;
    if (gate_check_host(c, hosts, false, &problem))
        REQUIRE(problem.code == API_NONE);
    const char *accept = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Accept");
    const char *prefer = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Prefer");
    REQUIRE(api_negotiate(accept) <= API_FORM_NONE);
    REQUIRE(accept != NULL || api_negotiate(accept) == API_FORM_JSON);
    REQUIRE(api_prefer_wait(prefer, &seconds) != 1 || seconds <= 300);
    (void)api_is_json(MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Type"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct MHD_Connection connection = {0};
    char *text = malloc(size + 1);
    REQUIRE(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    char *end = text + size, *line = text, *rest = cut(line, '\n');
    char *target = cut(line, ' '), *version = cut(target, ' ');
    /* A NUL ends a word, but inside a header it is there for the gate to see. */
    for (line = rest; line < end && connection.count < HEADERS_MAX; connection.count++) {
        char *stop = memchr(line, '\n', (size_t)(end - line)), *colon;
        stop = stop ? stop : end;
        *stop = '\0';
        colon = memchr(line, ':', (size_t)(stop - line));
        char *value = colon ? colon + 1 : stop;
        if (colon)
            *colon = '\0';
        connection.headers[connection.count].name = line;
        connection.headers[connection.count].name_bytes = colon ? (size_t)(colon - line) : (size_t)(stop - line);
        while (*value == ' ')
            value++;
        connection.headers[connection.count].value = value;
        connection.headers[connection.count].value_bytes = (size_t)(stop - value);
        line = stop < end ? stop + 1 : end;
    }
    api_problem problem = {0};
    bool fine = gate_check_method(line == text ? "" : text, &problem) && gate_check_uri(target, &problem) &&
                gate_check_headers(&connection, version, BODY_BYTES_MAX, &problem);
    REQUIRE(fine == (problem.code == API_NONE) && (fine || problem.detail[0] != '\0'));
    if (fine) {
        judge(&connection, version);
        for (const char *c = target; *c; c++)
            REQUIRE(*c > 32 && *c < 127);
    }
    read_headers(&connection);
    free(text);
    return 0;
}
