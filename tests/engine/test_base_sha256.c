/* SHA-256 against the published vectors (FIPS 180-4 examples, NIST's long message). */
#include "base/sha256.h"
#include "base/sha256_blocks.h"
#include "tests/test.h"

static void check_hex(const char *message, size_t count, const char *expected)
{
    unsigned char digest[DN_SHA256_BYTES];
    char hex[DN_SHA256_HEX_BYTES];
    dn_sha256_of(digest, message, count);
    dn_sha256_hex(hex, digest);
    CHECK_MSG(strcmp(hex, expected) == 0, "%s", hex);
}

static void published_vectors(void)
{
    check_hex("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hex("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void a_million_letters(void)
{
    char piece[1000];
    memset(piece, 'a', sizeof piece);
    dn_sha256 hash;
    dn_sha256_init(&hash);
    for (int i = 0; i < 1000; i++) {
        dn_sha256_update(&hash, piece, sizeof piece);
    }
    unsigned char digest[DN_SHA256_BYTES];
    char hex[DN_SHA256_HEX_BYTES];
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(hex, digest);
    CHECK_MSG(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0, "%s", hex);
}

static void pieces_do_not_matter(void)
{
    unsigned char message[300], whole[DN_SHA256_BYTES], pieces[DN_SHA256_BYTES];
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] = (unsigned char)(i * 7);
    }
    for (size_t count = 0; count <= sizeof message; count++) {
        dn_sha256_of(whole, message, count);
        dn_sha256 hash;
        dn_sha256_init(&hash);
        for (size_t at = 0, step = 1; at < count; at += step, step = step * 3 % 67 + 1) {
            dn_sha256_update(&hash, message + at, step < count - at ? step : count - at);
        }
        dn_sha256_final(&hash, pieces);
        CHECK_MSG(memcmp(whole, pieces, sizeof whole) == 0, "%zu bytes", count);
    }
}

static void both_ways_agree(void)
{
    unsigned char message[64 * 9];
    uint32_t draw = 1;
    if (!dn_sha256_has_x86())
        SKIP("the processor has no SHA instructions");
    for (size_t blocks = 0; blocks <= 9; blocks++) {
        uint32_t plain[8], x86[8];
        for (size_t i = 0; i < sizeof message; i++) {
            draw = draw * 1664525u + 1013904223u;
            message[i] = (unsigned char)(draw >> 24);
        }
        for (int i = 0; i < 8; i++) {
            plain[i] = x86[i] = draw * (uint32_t)(2 * i + 1);
        }
        dn_sha256_blocks_plain(plain, message, blocks);
        dn_sha256_blocks_x86(x86, message, blocks);
        CHECK_MSG(memcmp(plain, x86, sizeof plain) == 0, "%zu blocks", blocks);
    }
}

int main(void)
{
    RUN(published_vectors);
    RUN(a_million_letters);
    RUN(pieces_do_not_matter);
    RUN(both_ways_agree);
    return test_end();
}
