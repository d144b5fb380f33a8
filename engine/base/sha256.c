/* SHA-256 as FIPS 180-4 writes it. Owns nothing outside the caller's dn_sha256 but one remembered fact of the processor. Any thread. */
#include "base/sha256.h"

#include <stdatomic.h>
#include <string.h>

#include "base/sha256_blocks.h"

/* Fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
const uint32_t dn_sha256_rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t value, int bits)
{
    return value >> bits | value << (32 - bits);
}

static void compress(uint32_t state[8], const unsigned char block[64])
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t t1 = v[7] + s1 + choice + dn_sha256_rounds[i] + w[i];
        uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + s0 + majority;
    }
    for (int i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

void dn_sha256_blocks_plain(uint32_t state[8], const unsigned char *bytes, size_t block_count)
{
    for (size_t i = 0; i < block_count; i++) {
        compress(state, bytes + 64 * i);
    }
}

/* Asking the processor is slow under a hypervisor: once is enough. */
static void take_blocks(uint32_t state[8], const unsigned char *bytes, size_t block_count)
{
    enum { UNKNOWN, PLAIN, X86 };
    static atomic_int known;
    int way = atomic_load_explicit(&known, memory_order_relaxed);
    if (way == UNKNOWN) {
        way = dn_sha256_has_x86() ? X86 : PLAIN;
        atomic_store_explicit(&known, way, memory_order_relaxed);
    }
    if (way == X86) {
        dn_sha256_blocks_x86(state, bytes, block_count);
    } else {
        dn_sha256_blocks_plain(state, bytes, block_count);
    }
}

void dn_sha256_init(dn_sha256 *hash)
{
    /* Fractional parts of the square roots of the first 8 primes (FIPS 180-4, 5.3.3). */
    *hash = (dn_sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
    };
}

void dn_sha256_update(dn_sha256 *hash, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    while (count > 0) {
        if (hash->length_bytes % 64 == 0 && count >= 64) {
            size_t whole = count / 64;
            take_blocks(hash->state, at, whole);
            hash->length_bytes += 64 * (uint64_t)whole;
            at += 64 * whole;
            count -= 64 * whole;
            continue;
        }
        size_t filled = hash->length_bytes % 64;
        size_t taken = 64 - filled < count ? 64 - filled : count;
        memcpy(hash->block + filled, at, taken);
        hash->length_bytes += taken;
        at += taken;
        count -= taken;
        if (filled + taken == 64) {
            take_blocks(hash->state, hash->block, 1);
        }
    }
}

void dn_sha256_final(dn_sha256 *hash, unsigned char out[DN_SHA256_BYTES])
{
    static const unsigned char padding[64] = {0x80};
    uint64_t length_bits = hash->length_bytes * 8;
    size_t filled = hash->length_bytes % 64;
    dn_sha256_update(hash, padding, filled < 56 ? 56 - filled : 120 - filled);
    unsigned char length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (unsigned char)(length_bits >> (56 - 8 * i));
    }
    dn_sha256_update(hash, length, sizeof length);
    for (int i = 0; i < DN_SHA256_BYTES; i++) {
        out[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void dn_sha256_of(unsigned char out[DN_SHA256_BYTES], const void *bytes, size_t count)
{
    dn_sha256 hash;
    dn_sha256_init(&hash);
    dn_sha256_update(&hash, bytes, count);
    dn_sha256_final(&hash, out);
}

void dn_sha256_hex(char out[DN_SHA256_HEX_BYTES], const unsigned char digest[DN_SHA256_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < DN_SHA256_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * DN_SHA256_BYTES] = '\0';
}
