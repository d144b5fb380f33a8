/* What a webhook's URL and address must be (webhook_policy.h). The URL is read strictly: what two readers could take differently is
 * refused, not repaired, so that the library which connects sees the host that was judged. */
#include "server/webhook_policy.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Addresses */

typedef struct block4 {
    uint32_t network;
    unsigned bits;
} block4;

#define IPV4(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

static bool ipv4_is_public(uint32_t address)
{
    static const block4 special[] = {
        {IPV4(0, 0, 0, 0), 8},      {IPV4(10, 0, 0, 0), 8},     {IPV4(100, 64, 0, 0), 10}, {IPV4(127, 0, 0, 0), 8},
        {IPV4(169, 254, 0, 0), 16}, {IPV4(172, 16, 0, 0), 12},  {IPV4(192, 0, 0, 0), 24},  {IPV4(192, 0, 2, 0), 24},
        {IPV4(192, 88, 99, 0), 24}, {IPV4(192, 168, 0, 0), 16}, {IPV4(198, 18, 0, 0), 15}, {IPV4(198, 51, 100, 0), 24},
        {IPV4(203, 0, 113, 0), 24}, {IPV4(224, 0, 0, 0), 4},    {IPV4(240, 0, 0, 0), 4},
    };
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        if ((address ^ special[i].network) >> (32 - special[i].bits) == 0)
            return false;
    return true;
}

/* Public IPv6 is 2000::/3 without documentation, benchmarking, and what stands for an IPv4 address. */
static bool ipv6_is_public(const unsigned char a[16])
{
    if ((a[0] & 0xe0) != 0x20)
        return false;
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 0x02) /* 2001::/23: Teredo, ORCHID, benchmarking and the like */
        return false;
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8)
        return false;
    if (a[0] == 0x3f && a[1] == 0xff && (a[2] & 0xf0) == 0)
        return false;
    return !(a[0] == 0x20 && a[1] == 0x02); /* 6to4 */
}

bool webhook_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        return ipv4_is_public(ntohl(v4.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        return ipv6_is_public(v6.sin6_addr.s6_addr);
    }
    return false;
}

/* ---- The URL */

#define LABEL_BYTES_MAX 63 /* RFC 1035, 2.3.4 */

/* "example.com" or "[::1]" at the start of authority, in lower case; where it ends. NULL: not a host. */
static const char *read_host(webhook_url *out, const char *authority)
{
    const bool bracket = authority[0] == '[';
    const char *at = authority + bracket;
    const size_t bytes =
        strspn(at, bracket ? "0123456789abcdefABCDEF:." : "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.");
    if (bytes == 0 || bytes >= sizeof out->host || (bracket && at[bytes] != ']'))
        return NULL;
    for (size_t i = 0; i < bytes; i++)
        out->host[i] = (char)tolower((unsigned char)at[i]);
    out->host[bytes] = 0;
    at += bytes + bracket;
    return strchr(":/?", *at) ? at : NULL; /* strchr finds the end too */
}

/* ":8443" or nothing, up to the path; false: neither. */
static bool read_port(webhook_url *out, const char *at)
{
    out->port = out->https ? 443 : 80;
    if (*at == ':') {
        const size_t digits = strspn(++at, "0123456789");
        if (digits < 1 || digits > 5)
            return false;
        out->port = (unsigned)strtoul(at, NULL, 10);
        at += digits;
    }
    return (*at == 0 || *at == '/' || *at == '?') && out->port >= 1 && out->port <= 65535;
}

static bool is_allowed(const webhook_url *url, const char *const *allowed)
{
    char text[WEBHOOK_HOST_BYTES + 16];
    snprintf(text, sizeof text, strchr(url->host, ':') ? "[%s]:%u" : "%s:%u", url->host, url->port);
    for (; allowed && *allowed; allowed++)
        if (strcasecmp(*allowed, text) == 0)
            return true;
    return false;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t bytes = strlen(text), tail = strlen(end);
    return bytes >= tail && strcmp(text + bytes - tail, end) == 0;
}

/* What DNS can look up: labels of 1 to 63 characters, no hyphen at their ends. */
static bool has_whole_labels(const char *host)
{
    for (const char *label = host;; label++) {
        const size_t bytes = strcspn(label, ".");
        if (bytes < 1 || bytes > LABEL_BYTES_MAX || label[0] == '-' || label[bytes - 1] == '-')
            return false;
        label += bytes;
        if (*label == 0)
            return true;
    }
}

/* Names that never mean a public machine (RFC 6761, RFC 6762, RFC 9476), and single labels, which a search list would complete. */
static bool is_local_name(const char *host)
{
    static const char *const ends[] = {".localhost", ".local",    ".internal",  ".lan",   ".home",
                                       ".corp",      ".intranet", ".home.arpa", ".onion", ".alt"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (ends_with(host, ends[i]))
            return true;
    return !strchr(host, '.');
}

/* Whatever inet_aton takes for an address: its last label is a number. */
static bool looks_numeric(const char *host)
{
    const char *dot = strrchr(host, '.');
    const char *last = dot ? dot + 1 : host;
    return isdigit((unsigned char)last[0]) && last[strspn(last, "0123456789abcdefx")] == 0;
}

/* A host that is an address: in its one usual form, and public. */
static const char *address_rule(const char *host)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (strchr(host, ':')) {
        if (inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
            return "has an address that is none";
        return webhook_address_is_public((const struct sockaddr *)&v6) ? NULL : "must lead to a public address";
    }
    if (inet_pton(AF_INET, host, &v4.sin_addr) != 1)
        return "must write an address as four decimal numbers";
    return webhook_address_is_public((const struct sockaddr *)&v4) ? NULL : "must lead to a public address";
}

static const char *host_rule(const webhook_url *url)
{
    if (url->allowed)
        return NULL;
    if (!url->https)
        return "must begin with https://";
    if (url->port != 443 && url->port != 8443)
        return "must have port 443 or 8443";
    if (strchr(url->host, ':') || looks_numeric(url->host))
        return address_rule(url->host);
    if (!has_whole_labels(url->host))
        return "must have a host name that DNS can have, without a dot at its end";
    return is_local_name(url->host) ? "must have the full name of a public host" : NULL;
}

static const char *url_rule(webhook_url *out, const char *url, const char *const *allowed)
{
    *out = (webhook_url){.https = strncasecmp(url, "https://", 8) == 0};
    if (!out->https && strncasecmp(url, "http://", 7) != 0)
        return "must begin with https://";
    const char *authority = url + (out->https ? 8 : 7);
    for (const char *at = url; *at; at++)
        if (*at <= ' ' || *at > 126 || strchr("\\\"<>^`{|}", *at))
            return "must be a URL: other characters are written as %XX";
    if (strchr(url, '#'))
        return "must have no fragment";
    if (memchr(authority, '@', strcspn(authority, "/?")))
        return "must have no user information";
    const char *end = read_host(out, authority);
    if (!end)
        return "must have a host of letters, digits, '.' and '-'; write other names in their xn-- form";
    if (!read_port(out, end))
        return "must have a port from 1 to 65535, or none";
    out->allowed = is_allowed(out, allowed);
    return host_rule(out);
}

bool webhook_url_check(webhook_url *out, const char *url, const char *const *allowed, const char **rule)
{
    *rule = url_rule(out, url, allowed);
    return !*rule;
}
