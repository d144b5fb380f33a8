/* How SHA-256 takes in whole blocks of 64 bytes: in plain C, or by the processor's own instructions. Private to sha256*.c and its test. */
#ifndef DN_BASE_SHA256_BLOCKS_H
#define DN_BASE_SHA256_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const uint32_t dn_sha256_rounds[64]; /* FIPS 180-4, 4.2.2 */

void dn_sha256_blocks_plain(uint32_t state[8], const unsigned char *bytes, size_t block_count);
/* x86's SHA extensions; only where dn_sha256_has_x86 says so. Elsewhere the same as the plain one. */
void dn_sha256_blocks_x86(uint32_t state[8], const unsigned char *bytes, size_t block_count);
bool dn_sha256_has_x86(void);

#endif
