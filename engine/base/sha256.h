/* SHA-256 (FIPS 180-4). */
#ifndef DN_BASE_SHA256_H
#define DN_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define DN_SHA256_BYTES 32
#define DN_SHA256_HEX_BYTES 65 /* with the terminating NUL */

typedef struct dn_sha256 {
    uint32_t state[8];
    uint64_t length_bytes;
    unsigned char block[64];
} dn_sha256;

void dn_sha256_init(dn_sha256 *hash);
void dn_sha256_update(dn_sha256 *hash, const void *bytes, size_t count);
void dn_sha256_final(dn_sha256 *hash, unsigned char out[DN_SHA256_BYTES]);
void dn_sha256_of(unsigned char out[DN_SHA256_BYTES], const void *bytes, size_t count);
void dn_sha256_hex(char out[DN_SHA256_HEX_BYTES], const unsigned char digest[DN_SHA256_BYTES]);

#endif
