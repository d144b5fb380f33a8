/* Pages of other sites. A browser sends their requests whoever the user is, so two things are held apart: what they may read (CORS, off
 * unless --cors-origin names their origin), and what they may do. Without keys anybody on this machine may spend it, but not a page that
 * somebody on this machine happens to look at; with keys a request carries one, which another site's page does not have. But a browser that
 * its user has once given a key for HTTP Basic adds it to every request, whoever's page sends it: that key says nothing of the page.
 *
 * Fetch standard, sections 3.2 (Origin) and 3.3 (CORS); Fetch Metadata (Sec-Fetch-Site). Any thread that serves the request. */
#include <string.h>
#include <strings.h>

#include "server/http_internal.h"

#define PREFLIGHT_SECONDS "600" /* that a browser remembers what was allowed */

static bool has_key_rule(const http_request *request)
{
    auth *keys = request->server->options.auth;
    return keys != NULL && auth_required(keys);
}

/* Whether two texts are the same up to the white space that libmicrohttpd leaves behind a value. */
static bool same_value(const char *value, const char *wanted, size_t wanted_bytes)
{
    size_t length = strlen(value);
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t')) {
        length--;
    }
    return length == wanted_bytes && strncasecmp(value, wanted, length) == 0;
}

static bool is_listed(const http_request *request, const char *origin)
{
    for (const char *const *one = request->server->options.cors_origins; one != NULL && *one != NULL; one++) {
        if (strcmp(*one, "*") == 0 ? !has_key_rule(request) : same_value(origin, *one, strlen(*one))) {
            return true;
        }
    }
    return false;
}

/* The page was served from here: under the name that the request was sent to, or under --public-url. */
static bool is_ours(const http_request *request, const char *origin)
{
    const char *host = http_header(request, "Host"), *names = strstr(origin, "://"), *public_url = request->server->options.public_url;
    if (public_url != NULL && strncmp(public_url, "http", 4) == 0) {
        const char *authority = strstr(public_url, "://");
        size_t bytes = authority == NULL ? 0 : (size_t)(authority + 3 - public_url) + strcspn(authority + 3, "/");
        if (bytes > 0 && same_value(origin, public_url, bytes)) {
            return true;
        }
    }
    if (host == NULL || names == NULL || strncmp(origin, "http", 4) != 0) {
        return false;
    }
    names += 3;
    size_t bytes = strcspn(names, " \t");
    return same_value(host, names, bytes);
}

static bool changes_something(const char *method)
{
    return strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 && strcmp(method, "OPTIONS") != 0;
}

static bool sends_key_itself(const http_request *request)
{
    const char *authorization = http_header(request, "Authorization");
    return has_key_rule(request) && (authorization == NULL || strncasecmp(authorization, "Basic ", 6) != 0);
}

bool http_check_origin(http_request *request)
{
    if (!changes_something(request->method) || sends_key_itself(request)) {
        return true;
    }
    const char *origin = http_header(request, "Origin"), *site = http_header(request, "Sec-Fetch-Site");
    bool own_page = site != NULL && (same_value(site, "same-origin", 11) || same_value(site, "none", 4));
    bool foreign = origin != NULL ? !is_listed(request, origin) && !own_page && !is_ours(request, origin)
                                  : site != NULL && same_value(site, "cross-site", 10);
    if (foreign) {
        http_refuse(request, API_FORBIDDEN,
                    "a page of another site may not do this; serve --cors-origin ORIGIN allows it to pages of ORIGIN");
    }
    return !foreign;
}

void http_origin_headers(const http_request *request, struct MHD_Response *response)
{
    const char *origin = http_header(request, "Origin");
    const char *const *listed = request->server->options.cors_origins;
    if (listed == NULL || *listed == NULL) {
        return;
    }
    MHD_add_response_header(response, "Vary", "Origin");
    if (origin != NULL && is_listed(request, origin)) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", origin);
        MHD_add_response_header(
            response, "Access-Control-Expose-Headers",
            "Allow, ETag, Idempotency-Replayed, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id, X-Should-Retry");
    }
}

/* What a page may send: our own, and what OpenAI's client for browsers says of itself. */
#define ASKED_HEADERS                                                                                                                      \
    "Authorization, Content-Type, Idempotency-Key, Prefer, Last-Event-ID, X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, "            \
    "X-Stainless-Package-Version, X-Stainless-Read-Timeout, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, "   \
    "X-Stainless-Timeout"

bool http_preflight(http_request *request, const char *methods)
{
    const char *origin = http_header(request, "Origin");
    if (strcmp(request->method, "OPTIONS") != 0 || http_header(request, "Access-Control-Request-Method") == NULL || origin == NULL ||
        !is_listed(request, origin)) {
        return false;
    }
    http_add_header(request, "Access-Control-Allow-Methods", "%s", methods);
    http_add_header(request, "Access-Control-Allow-Headers", "%s", ASKED_HEADERS);
    http_add_header(request, "Access-Control-Max-Age", PREFLIGHT_SECONDS);
    if (http_header(request, "Access-Control-Request-Private-Network") != NULL) {
        http_add_header(request, "Access-Control-Allow-Private-Network", "true");
    }
    http_answer_empty(request, 204);
    return true;
}
