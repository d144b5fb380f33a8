/* Fuzz entry (libFuzzer's): any bytes as a torch file, once as they are and once with the checksums of its entries put right, so that
 * changes reach the pickle behind them. What opens must be readable to its last element; a refusal must say why. */
#include "tests/fuzz/fuzz.h"

#include <zlib.h>

#include "format/tensors.h"

#define FILE_BYTES_MAX (1u << 20)

static int fd = -1;
static const char *path;

static uint32_t number(const uint8_t *at, int bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint32_t)at[i] << 8 * i;
    return value;
}

static void put(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

/* One entry, by its central header: its bytes' sum into all three records. False: it cannot be one. */
static bool mend_entry(uint8_t *bytes, size_t size, uint8_t *central)
{
    const size_t count = number(central + 24, 4), local = number(central + 42, 4);
    if (local > size - 30)
        return false;
    const size_t start = local + 30 + number(bytes + local + 26, 2) + number(bytes + local + 28, 2);
    if (start > size || count > size - start)
        return false;
    const uint32_t sum = (uint32_t)crc32(0, bytes + start, (unsigned)count);
    put(central + 16, sum);
    if ((number(central + 8, 2) & 8) == 0)
        put(bytes + local + 14, sum);
    else if (size - start - count >= 8)
        put(bytes + start + count + 4, sum);
    return true;
}

static void mend_checksums(uint8_t *bytes, size_t size)
{
    size_t at = size;
    if (size < 98)
        return;
    /* Where the directory is, by the 64-bit record if there is one. */
    at = number(bytes + size - 22 + 16, 4);
    if (at == 0xFFFFFFFFu)
        at = number(bytes + size - 98 + 48, 4);
    while (at <= size - 46 && number(bytes + at, 4) == 0x02014b50u) {
        uint8_t *central = bytes + at;
        if (!mend_entry(bytes, size, central))
            return;
        at += 46 + number(central + 28, 2) + number(central + 30, 2) + number(central + 32, 2);
    }
}

static bool read_all(const dn_tensors *tensors)
{
    dn_error error = {DN_OK, ""};
    char sha256[65];
    dn_status hashed = dn_tensors_sha256(tensors, sha256, &error);
    REQUIRE(hashed == DN_OK || error.message[0] != '\0');
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const dn_tensor_info *info = dn_tensors_at(tensors, i);
        REQUIRE(dn_tensors_find(tensors, info->name) == info && info->count <= FILE_BYTES_MAX);
        float *values = malloc((info->count + 1) * sizeof *values);
        REQUIRE(values != NULL && dn_tensors_read_f32(tensors, info, values, &error) == DN_OK);
        free(values);
    }
    return hashed == DN_OK;
}

static void open_one(const uint8_t *bytes, size_t size)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    fuzz_put(fd, bytes, size);
    dn_status status = dn_tensors_open(&tensors, path, &error);
    REQUIRE((status == DN_OK) == (tensors != NULL) && (status == DN_OK || strstr(error.message, path) != NULL));
    if (tensors != NULL)
        read_all(tensors);
    dn_tensors_close(tensors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (fd < 0)
        fd = fuzz_file(&path, "c.pt");
    if (size > FILE_BYTES_MAX)
        return 0;
    open_one(data, size);
    uint8_t *copy = malloc(size + 1);
    REQUIRE(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    mend_checksums(copy, size);
    if (size > 0 && memcmp(copy, data, size) != 0)
        open_one(copy, size);
    free(copy);
    return 0;
}
