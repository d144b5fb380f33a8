/* The pictures of a request: base64 strictly, then the first chunk of a PNG. Pixels are decoded by the worker, under limits; what is
 * checked here is what a client can mend: the form, the size, and that there is no transparency. Pure; any thread. */
#include <stdio.h>
#include <string.h>

#include "api/base64.h"
#include "api/request_reader.h"
#include "base/sha256.h"

#define PNG_HEADER_BYTES 33 /* signature, then IHDR with its length, name and CRC */

static uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The depths that each colour type may have (PNG, section 11.2.2), as bits. */
static bool is_header(const unsigned char *png, size_t bytes)
{
    static const unsigned char start[16] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    static const uint32_t depths[7] = {[0] = 0x10116, [2] = 0x10100, [3] = 0x116, [4] = 0x10100, [6] = 0x10100};
    if (bytes < PNG_HEADER_BYTES || memcmp(png, start, sizeof start) != 0) {
        return false;
    }
    unsigned depth = png[24], type = png[25];
    return type < 7 && depth <= 16 && (depths[type] >> depth & 1u) && png[26] == 0 && png[27] == 0 && png[28] <= 1;
}

static bool read_image(api_reader *r, api_field field, api_input_image *out)
{
    const api_member *m = &r->members[field];
    const char *name = api_member_name(field);
    size_t bytes = 0;
    char rule[128];
    unsigned char digest[DN_SHA256_BYTES];
    if (!m->value) {
        return true;
    }
    if (!cJSON_IsString(m->value) || !api_base64_decode(r->room, &bytes, m->value->valuestring, strlen(m->value->valuestring))) {
        return api_refuse_member(r, name, "must be a PNG in base64, padded and without line ends or a data: prefix");
    }
    if (!is_header(r->room, bytes)) {
        return api_refuse_member(r, name, "must be a PNG in base64: the bytes are none");
    }
    if (big_endian(r->room + 16) != r->model->width || big_endian(r->room + 20) != r->model->height) {
        snprintf(rule, sizeof rule, "must be %u pixels wide and %u high, as the model's pictures are: it is not resized", r->model->width,
                 r->model->height);
        return api_refuse_member(r, name, rule);
    }
    if (r->room[25] & 4) {
        return api_refuse_member(r, name, "must be grey or RGB, without transparency");
    }
    dn_sha256_of(digest, r->room, bytes);
    dn_sha256_hex(out->sha256, digest);
    out->byte_count = bytes;
    out->bytes = r->room;
    r->room += bytes;
    return true;
}

bool api_read_images(api_reader *r, api_request *out)
{
    return read_image(r, API_FIELD_INIT_IMAGE, &out->init_image) && read_image(r, API_FIELD_MASK_IMAGE, &out->mask_image);
}
