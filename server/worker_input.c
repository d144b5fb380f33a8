/* An input picture, from its file to bytes of the shape a model wants. The file is what the daemon wrote when it accepted the job, so
 * what is wrong with its content is the client's, and what is wrong with its hash the disk's. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/limits.h"
#include "base/file.h"
#include "base/sha256.h"
#include "server/input_picture.h"
#include "server/inputs.h"
#include "server/log.h"
#include "server/worker_internal.h"

static dn_status check_hash(const unsigned char *bytes, size_t count, const char *sha256, const char *what, dn_error *error)
{
    unsigned char digest[DN_SHA256_BYTES];
    char hex[DN_SHA256_HEX_BYTES];
    dn_sha256_of(digest, bytes, count);
    dn_sha256_hex(hex, digest);
    return strcmp(hex, sha256) == 0 ? DN_OK : dn_fail(error, DN_IO, "the stored %s is damaged: its checksum differs", what);
}

dn_status worker_read_input(uint8_t **out, const char *folder, const char *job, bool mask, const char *sha256, const dn_codec_info *about,
                            dn_error *error)
{
    const char *what = mask ? "mask_image" : "init_image";
    char name[INPUT_NAME_BYTES], path[4096];
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error why = {DN_OK, ""};
    input_name(name, job, mask);
    if (!folder || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return dn_fail(error, DN_INTERNAL, "there is no folder of input pictures");
    dn_status status = dn_file_read(&bytes, &count, path, API_BODY_IMAGE_BYTES_MAX, &why);
    if (status != DN_OK) { /* The operator is told where, the client what. */
        log_say(LOG_ERROR, "worker", "%s", why.message);
        status = dn_fail(error, status == DN_NO_MEMORY ? status : DN_IO, "the stored %s cannot be read", what);
    }
    if (status == DN_OK)
        status = check_hash(bytes, count, sha256, what, error);
    if (status == DN_OK &&
        (status = input_picture_decode(out, bytes, count, about->width, about->height, mask ? 1 : about->channels, &why)) != DN_OK)
        status = dn_fail(error, status == DN_IO ? DN_INVALID : status, "%s: %.400s", what, why.message);
    free(bytes);
    return status;
}
