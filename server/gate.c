/* The header gate: what libmicrohttpd 0.9.75 lets through and this daemon does not. It runs in the first callback of a
 * request, before any byte of a body is read; a violation is answered and the connection closed.
 *
 * Measured holes it closes: Content-Length with Transfer-Encoding (request smuggling), two Content-Length, two Host, an unknown
 * transfer coding (waits for ever), HTTP/1.0 with chunked, Content-Length of 2^63. Bare LF, folded headers and NUL bytes do
 * not reach any callback: the proxy refuses those. A field that says one thing must not stand twice: whoever reads the other one than
 * this daemon would understand another request. Pure but for reading the connection. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/http.h"

typedef struct gate_headers {
    unsigned hosts, lengths, codings;
    const char *host, *length, *coding;
    bool bad_name, bad_value, twice;
    unsigned singles; /* bits of the table below that have been seen */
} gate_headers;

/* Besides Host, Content-Length and Transfer-Encoding, which have their own rules. */
static const char *const single_fields[] = {"Authorization",   "Content-Encoding", "Content-Type",
                                            "Idempotency-Key", "Last-Event-ID",    "Origin"};

static bool token_only(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c <= 32 || c >= 127 || strchr("()<>@,;:\\\"/[]?={}", c) != NULL) {
            return false;
        }
    }
    return size > 0;
}

static bool visible_only(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 32 && c != '\t') || c == 127) {
            return false;
        }
    }
    return true;
}

static enum MHD_Result look(void *payload, enum MHD_ValueKind kind, const char *name, size_t name_size, const char *value,
                            size_t value_size)
{
    gate_headers *seen = payload;
    (void)kind;
    seen->bad_name |= !token_only(name, name_size);
    seen->bad_value |= value != NULL && !visible_only(value, value_size);
    if (strcasecmp(name, "Host") == 0) {
        seen->hosts++;
        seen->host = value;
    } else if (strcasecmp(name, "Content-Length") == 0) {
        seen->lengths++;
        seen->length = value;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        seen->codings++;
        seen->coding = value;
    }
    for (unsigned i = 0; i < sizeof single_fields / sizeof single_fields[0]; i++) {
        if (strcasecmp(name, single_fields[i]) == 0) {
            seen->twice |= (seen->singles >> i & 1u) != 0;
            seen->singles |= 1u << i;
        }
    }
    return MHD_YES;
}

static bool check_length(const gate_headers *seen, size_t body_bytes_max, api_problem *problem)
{
    const char *text = seen->length;
    size_t digits = text == NULL ? 0 : strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0') {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "Content-Length must be digits");
    }
    text += strspn(text, "0");
    if (strlen(text) > 18 || strtoull(text, NULL, 10) > body_bytes_max) {
        if (body_bytes_max == 0) {
            return api_refuse(problem, API_TOO_LARGE, "", "this request takes no body");
        }
        return api_refuse(problem, API_TOO_LARGE, "", "the body must be at most %zu bytes", body_bytes_max);
    }
    return true;
}

bool gate_check_headers(struct MHD_Connection *connection, const char *version, size_t body_bytes_max, api_problem *problem)
{
    gate_headers seen = {0};
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, look, &seen);
    if (seen.bad_name || seen.bad_value) {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "a header has a control character or a name that is no token");
    }
    if (seen.twice) {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "a header that says one thing stands there twice");
    }
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "the version must be HTTP/1.1 or HTTP/1.0");
    }
    if (seen.hosts > 1 || (seen.hosts == 0 && strcmp(version, "HTTP/1.1") == 0)) {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "exactly one Host header is needed");
    }
    if (seen.lengths > 1 || seen.codings > 1 || (seen.lengths > 0 && seen.codings > 0)) {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "the length of the body is given more than once");
    }
    if (seen.codings == 1) {
        if (seen.coding == NULL || strcasecmp(seen.coding, "chunked") != 0 || strcmp(version, "HTTP/1.1") != 0) {
            return api_refuse(problem, API_MALFORMED_HTTP, "", "the only transfer coding is chunked, in HTTP/1.1");
        }
        return body_bytes_max > 0 ? true : api_refuse(problem, API_TOO_LARGE, "", "this request takes no body");
    }
    return seen.lengths == 0 || check_length(&seen, body_bytes_max, problem);
}

/* Any word may be a method, and is answered with 405; anything else must not reach the log. */
bool gate_check_method(const char *method, api_problem *problem)
{
    size_t length = strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_");
    if (length == 0 || length > 32 || method[length] != '\0') {
        return api_refuse(problem, API_MALFORMED_HTTP, "", "the method is not a word");
    }
    return true;
}

/* The request target as it stood on the wire: libmicrohttpd hands out decoded paths, in which %00 is the end. */
bool gate_check_uri(const char *raw_uri, api_problem *problem)
{
    for (const char *c = raw_uri; *c != '\0'; c++) {
        unsigned char byte = (unsigned char)*c;
        if (byte <= 32 || byte >= 127) {
            return api_refuse(problem, API_MALFORMED_HTTP, "", "the request target has a character that must be escaped");
        }
        if (byte == '%') {
            if (!isxdigit((unsigned char)c[1]) || !isxdigit((unsigned char)c[2])) {
                return api_refuse(problem, API_MALFORMED_HTTP, "", "the request target has a broken escape");
            }
            char digits[3] = {c[1], c[2], '\0'};
            long value = strtol(digits, NULL, 16);
            if (value < 32 || value == 127) {
                return api_refuse(problem, API_MALFORMED_HTTP, "", "the request target escapes a control character");
            }
        }
    }
    return true;
}

static bool same_host(const char *host, size_t length, const char *allowed)
{
    return strlen(allowed) == length && strncasecmp(host, allowed, length) == 0;
}

/* A page on the web must not reach a daemon on loopback by pointing a name of its own at 127.0.0.1 (DNS rebinding). */
bool gate_check_host(struct MHD_Connection *connection, const char *const *allowed_hosts, bool unix_socket, api_problem *problem)
{
    static const char *const loopback[] = {"localhost", "127.0.0.1", "[::1]", NULL};
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    if (host == NULL) {
        return true;
    }
    const char *end = strchr(host, *host == '[' ? ']' : ':');
    size_t length = end == NULL ? strlen(host) : (size_t)(end - host) + (*host == '[' ? 1 : 0);
    while (end == NULL && length > 0 && (host[length - 1] == ' ' || host[length - 1] == '\t')) {
        length--; /* libmicrohttpd leaves the white space behind a value */
    }
    for (const char *const *name = loopback; *name != NULL; name++) {
        if (same_host(host, length, *name)) {
            return true;
        }
    }
    bool listed = false;
    for (const char *const *name = allowed_hosts; name != NULL && *name != NULL; name++) {
        listed = true;
        if (strcmp(*name, "*") == 0 || same_host(host, length, *name)) {
            return true;
        }
    }
    /* Behind a proxy on a Unix socket no name can be rebound: with no list of its own the daemon leaves names to the proxy. */
    if (unix_socket && !listed) {
        return true;
    }
    return api_refuse(problem, API_WRONG_HOST, "", "this host name is not served here; allow it with --allowed-host");
}
