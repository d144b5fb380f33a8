/* Fuzz entry (libFuzzer's): any bytes as an uploaded picture, once as they are and once with the checksums of their chunks put
 * right, so that changes reach the decoder behind them. What decodes must be a whole picture within the limits.
 *
 *     clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iengine tests/fuzz/fuzz_png.c ... -lpng16 -lz -o fuzz
 *     ./fuzz tests/fuzz/corpus/png
 *
 * tests/engine/test_fuzz_png.c replays the corpus, and changes of it, wherever there is no clang. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "format/png_image.h"

#define SIDE_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void decode(const uint8_t *data, size_t size)
{
    dn_error error = {DN_OK, ""};
    uint8_t *pixels = NULL;
    uint32_t width = 0, height = 0, channels = 0;
    unsigned sum = 0;
    dn_status status = dn_png_decode(&pixels, &width, &height, &channels, data, size, SIDE_MAX, &error);
    require((status == DN_OK) == (pixels != NULL) && (status == DN_OK || error.message[0] != '\0'));
    if (status != DN_OK)
        return;
    require(width >= 1 && width <= SIDE_MAX && height >= 1 && height <= SIDE_MAX && (channels == 1 || channels == 3));
    for (size_t i = 0; i < (size_t)width * height * channels; i++)
        sum += pixels[i];
    require(sum <= 255u * width * height * channels);
    free(pixels);
}

static void mend_checksums(uint8_t *bytes, size_t size)
{
    for (size_t at = 8; at + 12 <= size;) {
        size_t count = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
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
    decode(data, size);
    uint8_t *copy = malloc(size + 1);
    require(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    mend_checksums(copy, size);
    decode(copy, size);
    free(copy);
    return 0;
}
