/* API keys from a file: one `NAME SECRET` a line, # comments. Secrets are kept as SHA-256 only and compared in constant time.
 * The file is read again when it changes (looked at once a second at most) and on auth_reload. Any thread. */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include <stdbool.h>

#include "base/error.h"

typedef struct auth auth;

#define AUTH_KEYS_MAX 1024
#define AUTH_SECRET_BYTES_MIN 16
#define AUTH_SECRET_BYTES_MAX 256

/* Refuses a file that others may read (mode beyond 0640), unless it lies under /run/secrets, a bad line, a short secret. */
dn_status auth_open(auth **out, const char *path, dn_error *error);
void auth_free(auth *a);
dn_status auth_reload(auth *a, dn_error *error); /* a bad file keeps the old keys */
/* authorization: the header's value or NULL. True with the key's name in client. */
bool auth_check(auth *a, const char *authorization, char client[65]);

#endif
