/* Where webhooks may go: nowhere but to public addresses over https, except to receivers that the operator has named. A URL is judged
 * when a job is accepted, and the address that its name resolves to again at every connection (webhook_address_is_public), so that a
 * name which changes its mind leads nowhere. Rules: OWASP API7 (SSRF); address blocks: IANA's special-purpose registries. Pure; any
 * thread. */
#ifndef SERVER_WEBHOOK_POLICY_H
#define SERVER_WEBHOOK_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define WEBHOOK_HOST_BYTES 254

/* The parts of a URL that matter here. */
typedef struct webhook_url {
    char host[WEBHOOK_HOST_BYTES]; /* in lower case, an IPv6 address without its brackets */
    unsigned port;
    bool https, allowed; /* allowed: the operator named HOST:PORT */
} webhook_url;

/* True: deliveries may go there. False: `rule` is what the URL breaks, to follow the field's name. allowed: HOST:PORT each, ended by
 * NULL, or NULL. */
bool webhook_url_check(webhook_url *out, const char *url, const char *const *allowed, const char **rule);

/* Whether an address is reachable from everywhere: not private, local, shared, reserved, a group's, nor one of those in disguise
 * (mapped, NAT64, 6to4, Teredo). Other families than IPv4 and IPv6 are not. */
bool webhook_address_is_public(const struct sockaddr *address);

#endif
