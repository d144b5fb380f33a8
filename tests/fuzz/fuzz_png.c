/* Fuzz entry (libFuzzer's): any bytes as an uploaded picture, decoded as the worker does it for a model of the size that the picture
 * says (64 pixels at most), in grey and in colour; once as they are and once with the checksums of their chunks put right, so that
 * changes reach the decoder behind them. */
#include "tests/fuzz/fuzz.h"

#include <zlib.h>

#include "server/input_picture.h"

#define SIDE_MAX 64u

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint32_t side(const uint8_t *data, size_t size, size_t at)
{
    const uint32_t said = size >= at + 4 ? big_endian(data + at) : 0;
    return said >= 1 && said <= SIDE_MAX ? said : 32;
}

static void decode(const uint8_t *data, size_t size, uint32_t channels)
{
    dn_error error = {DN_OK, ""};
    uint8_t *pixels = NULL;
    const uint32_t width = side(data, size, 16), height = side(data, size, 20);
    unsigned sum = 0;
    dn_status status = input_picture_decode(&pixels, data, size, width, height, channels, &error);
    REQUIRE((status == DN_OK) == (pixels != NULL) && (status == DN_OK || error.message[0] != '\0'));
    if (status != DN_OK)
        return;
    for (size_t i = 0; i < (size_t)width * height * channels; i++)
        sum += pixels[i];
    REQUIRE(sum <= 255u * width * height * channels);
    free(pixels);
}

static void mend_checksums(uint8_t *bytes, size_t size)
{
    for (size_t at = 8; at + 12 <= size;) {
        size_t count = big_endian(bytes + at);
        if (count > size - at - 12)
            return;
        uint32_t sum = (uint32_t)crc32(0, bytes + at + 4, (unsigned)count + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + count + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + count;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size, 3);
    uint8_t *copy = malloc(size + 1);
    REQUIRE(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    mend_checksums(copy, size);
    decode(copy, size, 1);
    free(copy);
    return 0;
}
