/* API keys: who a request comes from, what it may do, and how much.
 *
 * Keys come from a file (one `NAME SECRET` a line, # comments) and from the database (`denoised key`); of each only the SHA-256 is kept,
 * compared in constant time. Both are looked at again once a second at most, so that a revoked key stops within a second; the file on
 * auth_reload too. Rates and budgets are token buckets on the monotonic clock, kept in memory: a restart fills them. Any thread. */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include <stdbool.h>

#include "base/error.h"
#include "server/store/store.h"

typedef struct auth auth;

#define AUTH_KEYS_MAX 1024
#define AUTH_SECRET_BYTES_MIN 16
#define AUTH_SECRET_BYTES_MAX 256
#define AUTH_BURST_SECONDS 5.0 /* of its rate a key may save up; one request at least */

/* Scopes, as in the store: submit jobs (and cancel one's own), read one's own, read everybody's, cancel and purge everybody's, the numbers
 * of the daemon (/metrics). */
#define AUTH_SUBMIT STORE_SCOPE_SUBMIT
#define AUTH_READ STORE_SCOPE_READ
#define AUTH_READ_ALL STORE_SCOPE_READ_ALL
#define AUTH_ADMIN STORE_SCOPE_ADMIN
#define AUTH_METRICS STORE_SCOPE_METRICS
#define AUTH_ANY (AUTH_SUBMIT | AUTH_READ | AUTH_READ_ALL | AUTH_ADMIN)

typedef struct auth_identity {
    char client[65];
    char number[17];       /* of a key of the database; "" of the file's */
    unsigned scopes;
    double rate, budget;   /* as in store_key */
    uint64_t pending_jobs;
    unsigned char hash[32]; /* SHA-256 of the secret; zeros: no key was needed */
} auth_identity;

/* path: the key file, or NULL. Refuses a file that others may read (mode beyond 0640), unless it lies under /run/secrets, a bad line, a
 * short secret. */
dn_status auth_open(auth **out, const char *path, dn_error *error);
void auth_free(auth *a);
dn_status auth_reload(auth *a, dn_error *error); /* the file; a bad one keeps the old keys */
/* From now on the database's keys count too; one whose keys cannot be read is refused, for nobody could say whether a key is needed.
 * Before the first request; the store outlives auth's use. */
dn_status auth_watch(auth *a, store *s, dn_error *error);
/* Whether a key is needed: there is a file, or the database has, or ever had, a key. */
bool auth_required(auth *a);
size_t auth_count(auth *a); /* keys that are good */
/* authorization: the header's value or NULL. True with *out filled. */
bool auth_check(auth *a, const char *authorization, auth_identity *out);
/* The same of "Basic BASE64(user:password)" (RFC 7617): the password is the key, whatever the user's name. */
bool auth_check_basic(auth *a, const char *authorization, auth_identity *out);

/* For answers that take long: auth_look looks at the keys again, as every check does; auth_holds says from what is known then, without reading
 * anything, whether that identity's key is still good (or that still none is needed). */
void auth_look(auth *a);
bool auth_holds(auth *a, const auth_identity *who);

/* Takes one request off a key's rate. False: too soon; *retry_seconds, at least 1, says when there will be one. */
bool auth_allow_request(auth *a, const auth_identity *who, unsigned *retry_seconds);
/* Takes megapixel-steps off a key's budget. A request for more than an hour's whole budget is never allowed: *retry_seconds 0. */
bool auth_allow_cost(auth *a, const auth_identity *who, double megapixel_steps, unsigned *retry_seconds);
void auth_return_cost(auth *a, const auth_identity *who, double megapixel_steps); /* it came to nothing */

#endif
