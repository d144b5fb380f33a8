/* A webhook's POST (webhook_try.h). */
#include "server/webhook_try.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/version.h"

#define ANSWER_HEADER_BYTES_MAX 16384

/* The address is that which will be connected to: a name that now leads elsewhere is caught here. One that leads to both sides is
 * not trusted at all. */
static curl_socket_t open_socket(void *payload, curlsocktype purpose, struct curl_sockaddr *address)
{
    webhook_try *t = payload;
    t->blocked |= purpose != CURLSOCKTYPE_IPCXN || (!t->url.allowed && !webhook_address_is_public(&address->addr));
    return t->blocked ? CURL_SOCKET_BAD : socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t drop_answer(char *bytes, size_t size, size_t count, void *payload)
{
    webhook_try *t = payload;
    (void)bytes;
    t->answer_bytes += size * count;
    return t->answer_bytes > WEBHOOK_ANSWER_BYTES_MAX ? 0 : size * count;
}

static size_t count_header(char *bytes, size_t size, size_t count, void *payload)
{
    size_t *seen = payload;
    (void)bytes;
    *seen += size * count;
    return *seen > ANSWER_HEADER_BYTES_MAX ? 0 : size * count;
}

static bool add_header(webhook_try *t, const char *name, const char *value)
{
    char line[160];
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(t->headers, line);
    if (longer)
        t->headers = longer;
    return longer != NULL;
}

static bool add_headers(webhook_try *t, const webhook_secret *secret)
{
    char signature[WEBHOOK_SIGNATURE_BYTES], seconds[24];
    snprintf(seconds, sizeof seconds, "%" PRId64, t->message.seconds);
    return webhook_sign(signature, secret, t->message.id, t->message.seconds, t->message.body) &&
           add_header(t, "Content-Type", "application/json") && add_header(t, "User-Agent", "denoised/" DN_VERSION) &&
           add_header(t, "webhook-id", t->message.id) && add_header(t, "webhook-timestamp", seconds) &&
           add_header(t, "webhook-signature", signature) && add_header(t, "Expect", "") &&
           (!t->message.traceparent[0] || add_header(t, "traceparent", t->message.traceparent));
}

/* Everything that libcurl would otherwise do by itself, or because of the environment, is turned off. */
static void set_limits(webhook_try *t)
{
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, t->url.allowed ? "http,https" : "https");
    curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(t->easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT, (long)WEBHOOK_CONNECT_SECONDS);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT, (long)WEBHOOK_TRY_SECONDS);
    curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(t->easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(t->easy, CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(t->easy, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, drop_answer);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, count_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, &t->header_bytes);
}

bool webhook_try_begin(webhook_try *t, const char *url, const webhook_secret *secret, const char *ca_file)
{
    t->easy = curl_easy_init();
    if (!t->easy || !add_headers(t, secret) || curl_easy_setopt(t->easy, CURLOPT_URL, url) != CURLE_OK)
        return false;
    set_limits(t);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(t->message.body));
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, t->message.body);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    return !ca_file || curl_easy_setopt(t->easy, CURLOPT_CAINFO, ca_file) == CURLE_OK;
}

webhook_outcome webhook_try_outcome(const webhook_try *t, CURLcode code, char why[256])
{
    long status = 0;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (t->blocked) {
        snprintf(why, 256, "blocked: its name leads to an address that is not public");
        return WEBHOOK_HOPELESS;
    }
    const bool answered = code == CURLE_OK || (code == CURLE_WRITE_ERROR && t->answer_bytes > WEBHOOK_ANSWER_BYTES_MAX);
    if (answered && status >= 200 && status < 300)
        return WEBHOOK_DELIVERED;
    if (answered)
        snprintf(why, 256, "answered with status %ld", status);
    else
        snprintf(why, 256, "%s", curl_easy_strerror(code));
    return answered && status == 410 ? WEBHOOK_HOPELESS : WEBHOOK_FAILED; /* 410 Gone: wants no more */
}

void webhook_try_done(webhook_try *t)
{
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    free(t->message.body);
    *t = (webhook_try){.easy = NULL};
}
