/* Signing of webhooks: HMAC-SHA256 (RFC 2104) over "ID.TIMESTAMP.BODY", as Standard Webhooks 1.0 has it, so that a receiver can tell
 * that a delivery is this daemon's, whole, and new. */
#ifndef SERVER_WEBHOOK_SIGNATURE_H
#define SERVER_WEBHOOK_SIGNATURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"

#define WEBHOOK_SECRET_BYTES_MIN 24
#define WEBHOOK_SECRET_BYTES_MAX 64
#define WEBHOOK_SIGNATURE_BYTES 48 /* "v1," and 44 characters of base64, with the terminating NUL */

typedef struct webhook_secret {
    unsigned char key[WEBHOOK_SECRET_BYTES_MAX];
    size_t count;
} webhook_secret;

/* One line of a file that nobody else may read: "whsec_" and base64, or 24 to 64 characters that are taken as they are. */
dn_status webhook_secret_read(webhook_secret *out, const char *path, dn_error *error);

void webhook_hmac_sha256(unsigned char out[DN_SHA256_BYTES], const void *key, size_t key_bytes, const void *bytes, size_t count);

/* The value of the webhook-signature header. seconds: since 1970. False: out of memory. */
bool webhook_sign(char out[WEBHOOK_SIGNATURE_BYTES], const webhook_secret *secret, const char *id, int64_t seconds, const char *body);

#endif
