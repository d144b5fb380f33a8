/* HMAC-SHA256 and the secret it is made with (webhook_signature.h). */
#include "server/webhook_signature.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/base64.h"
#include "api/text.h"
#include "base/file.h"

#define SECRET_FILE_BYTES_MAX 256
#define SECRET_MARK "whsec_"
#define SECRETS_FOLDER "/run/secrets/"

static dn_status parse_secret(webhook_secret *out, char *line, const char *path, dn_error *error)
{
    unsigned char decoded[SECRET_FILE_BYTES_MAX];
    const unsigned char *key = (const unsigned char *)line;
    size_t count = strlen(line);
    if (strncmp(line, SECRET_MARK, strlen(SECRET_MARK)) == 0) {
        const char *text = line + strlen(SECRET_MARK);
        if (!api_base64_decode(decoded, &count, text, strlen(text)))
            return dn_fail(error, DN_INVALID, "%s: what follows %s is not base64", path, SECRET_MARK);
        key = decoded;
    }
    if (count < WEBHOOK_SECRET_BYTES_MIN || count > WEBHOOK_SECRET_BYTES_MAX)
        return dn_fail(error, DN_INVALID, "%s: a webhook secret has %d to %d bytes, not %zu", path, WEBHOOK_SECRET_BYTES_MIN,
                       WEBHOOK_SECRET_BYTES_MAX, count);
    memcpy(out->key, key, count);
    out->count = count;
    explicit_bzero(decoded, sizeof decoded);
    return DN_OK;
}

dn_status webhook_secret_read(webhook_secret *out, const char *path, dn_error *error)
{
    struct stat info;
    unsigned char *text = NULL;
    size_t bytes = 0;
    if (stat(path, &info) != 0)
        return dn_fail(error, DN_INVALID, "%s: cannot be read", path);
    /* A container's secrets keep their host's mode. */
    if ((info.st_mode & 027) != 0 && strncmp(path, SECRETS_FOLDER, strlen(SECRETS_FOLDER)) != 0)
        return dn_fail(error, DN_INVALID, "%s: others may read or change it; chmod 0600 or 0640", path);
    dn_status status = dn_file_read(&text, &bytes, path, SECRET_FILE_BYTES_MAX, error);
    if (status != DN_OK)
        return status;
    char line[SECRET_FILE_BYTES_MAX + 1] = "";
    memcpy(line, text, bytes);
    line[strcspn(line, "\r\n")] = 0;
    status = parse_secret(out, line, path, error);
    explicit_bzero(line, sizeof line);
    explicit_bzero(text, bytes);
    free(text);
    return status;
}

void webhook_hmac_sha256(unsigned char out[DN_SHA256_BYTES], const void *key, size_t key_bytes, const void *bytes, size_t count)
{
    unsigned char block[64] = {0}, inner[64], outer[64];
    dn_sha256 hash;
    if (key_bytes > sizeof block)
        dn_sha256_of(block, key, key_bytes);
    else
        memcpy(block, key, key_bytes);
    for (size_t i = 0; i < sizeof block; i++) {
        inner[i] = block[i] ^ 0x36;
        outer[i] = block[i] ^ 0x5c;
    }
    dn_sha256_init(&hash);
    dn_sha256_update(&hash, inner, sizeof inner);
    dn_sha256_update(&hash, bytes, count);
    dn_sha256_final(&hash, out);
    dn_sha256_init(&hash);
    dn_sha256_update(&hash, outer, sizeof outer);
    dn_sha256_update(&hash, out, DN_SHA256_BYTES);
    dn_sha256_final(&hash, out);
    explicit_bzero(block, sizeof block);
    explicit_bzero(inner, sizeof inner);
    explicit_bzero(outer, sizeof outer);
}

bool webhook_sign(char out[WEBHOOK_SIGNATURE_BYTES], const webhook_secret *secret, const char *id, int64_t seconds, const char *body)
{
    unsigned char digest[DN_SHA256_BYTES];
    api_text signed_text = API_TEXT_INIT, header = API_TEXT_INIT;
    api_text_format(&signed_text, "%s.%" PRId64 ".", id, seconds);
    api_text_add(&signed_text, body);
    char *text = api_text_take(&signed_text);
    if (!text)
        return false;
    webhook_hmac_sha256(digest, secret->key, secret->count, text, strlen(text));
    free(text);
    api_text_add(&header, "v1,");
    api_text_base64(&header, digest, sizeof digest);
    char *value = api_text_take(&header);
    const bool fits = value && strlen(value) < WEBHOOK_SIGNATURE_BYTES;
    if (fits)
        snprintf(out, WEBHOOK_SIGNATURE_BYTES, "%s", value);
    free(value);
    return fits;
}
