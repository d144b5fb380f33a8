/* Ids and cursors: 5 bits a character, RFC 4648 base32 in lower case. Pure; any thread. */
#include <stdlib.h>
#include <string.h>

#include "api/limits.h"
#include "api/views.h"
#include "base/sha256.h"

#define CURSOR_BYTES 20 /* created_ms, row, checksum: 8 + 8 + 4, which is exactly 32 characters */
#define CURSOR_CHARACTERS 32

static const char ALPHABET[] = "abcdefghijklmnopqrstuvwxyz234567";

/* Writes ceil(count * 8 / 5) characters and a NUL; the last one is padded with zero bits. */
static void base32_text(char *out, const unsigned char *bytes, size_t count)
{
    unsigned bits = 0, held = 0;
    for (size_t i = 0; i < count; i++) {
        held = (held << 8 | bytes[i]) & 0xFFFF;
        bits += 8;
        while (bits >= 5) {
            bits -= 5;
            *out++ = ALPHABET[held >> bits & 31];
        }
    }
    if (bits) {
        *out++ = ALPHABET[held << (5 - bits) & 31];
    }
    *out = '\0';
}

static int base32_value(char character)
{
    if (character >= 'a' && character <= 'z') {
        return character - 'a';
    }
    return character >= '2' && character <= '7' ? character - '2' + 26 : -1;
}

/* Reads exactly `characters` (a multiple of 8) into characters * 5 / 8 bytes. */
static bool base32_bytes(unsigned char *out, const char *text, size_t characters)
{
    unsigned bits = 0, held = 0;
    for (size_t i = 0; i < characters; i++) {
        int value = base32_value(text[i]);
        if (value < 0) {
            return false;
        }
        held = (held << 5 | (unsigned)value) & 0xFFFF;
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (unsigned char)(held >> bits & 255);
        }
    }
    return true;
}

void api_id_text(char out[27], const unsigned char bytes[16])
{
    base32_text(out, bytes, 16);
}

bool api_id_valid(const char *id)
{
    if (!id) {
        return false;
    }
    size_t count = 0;
    while (count < API_ID_BYTES && base32_value(id[count]) >= 0) {
        count++;
    }
    return count == API_ID_BYTES && id[count] == '\0';
}

static void put_u64(unsigned char *out, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (unsigned char)(value >> (56 - 8 * i));
    }
}

static uint64_t get_u64(const unsigned char *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

/* The checksum tells a cursor of ours from any other text; it is no secret: a cursor names a place, not a right. */
static void cursor_checksum(unsigned char out[4], const unsigned char bytes[16])
{
    static const char label[] = "denoised cursor 1";
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256 hash;
    dn_sha256_init(&hash);
    dn_sha256_update(&hash, label, sizeof label);
    dn_sha256_update(&hash, bytes, 16);
    dn_sha256_final(&hash, digest);
    memcpy(out, digest, 4);
}

void api_cursor_text(char out[64], int64_t created_ms, int64_t row)
{
    unsigned char bytes[CURSOR_BYTES];
    put_u64(bytes, (uint64_t)created_ms);
    put_u64(bytes + 8, (uint64_t)row);
    cursor_checksum(bytes + 16, bytes);
    base32_text(out, bytes, CURSOR_BYTES);
}

bool api_cursor_parse(const char *text, int64_t *created_ms, int64_t *row)
{
    unsigned char bytes[CURSOR_BYTES], checksum[4];
    if (!text || strnlen(text, CURSOR_CHARACTERS + 1) != CURSOR_CHARACTERS || !base32_bytes(bytes, text, CURSOR_CHARACTERS)) {
        return false;
    }
    cursor_checksum(checksum, bytes);
    if (memcmp(checksum, bytes + 16, sizeof checksum) != 0) {
        return false;
    }
    *created_ms = (int64_t)get_u64(bytes);
    *row = (int64_t)get_u64(bytes + 8);
    return true;
}

bool api_event_id_parse(const char *text, int64_t *id)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 15 || text[digits] != '\0') {
        return false;
    }
    *id = strtoll(text, NULL, 10);
    return true;
}

bool api_image_name_parse(const char *name, uint32_t *index)
{
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 4 || strcmp(name + digits, ".png") != 0 || (name[0] == '0' && digits > 1)) {
        return false;
    }
    *index = (uint32_t)strtoul(name, NULL, 10);
    return true;
}
