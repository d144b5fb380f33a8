/* Fuzz entry (libFuzzer's): any bytes as the data.pkl of a torch file. Every tensor handed out must lie inside the storage that it
 * says, under a printable name; a refusal must say why. */
#include "tests/fuzz/fuzz.h"

#include "format/pickle.h"

static dn_status on_tensor(void *payload, const dn_pickle_tensor *tensor, dn_error *error)
{
    uint64_t last = tensor->first, count = 1;
    (void)error;
    ++*(size_t *)payload;
    REQUIRE(tensor->name[0] != '\0' && strlen(tensor->name) < DN_TENSOR_NAME_BYTES_MAX && tensor->rank <= DN_TENSOR_RANK_MAX);
    for (const char *c = tensor->name; *c; c++)
        REQUIRE(*c >= 0x20 && *c <= 0x7E);
    REQUIRE(tensor->storage[0] != '\0' &&
            strspn(tensor->storage, "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(tensor->storage));
    for (uint32_t i = 0; i < tensor->rank; i++)
        count *= tensor->dims[i];
    REQUIRE(count == tensor->count);
    for (uint32_t i = 0; i < tensor->rank && count > 0; i++)
        last += (tensor->dims[i] - 1) * tensor->strides[i];
    REQUIRE(count == 0 || (last < tensor->storage_count && count <= tensor->storage_count));
    return DN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dn_error error = {DN_OK, ""};
    size_t found = 0;
    dn_status status = dn_pickle_tensors(data, size, "fuzz", on_tensor, &found, &error);
    REQUIRE(status == DN_OK || (error.status == status && error.message[0] != '\0'));
    REQUIRE(status == DN_OK || status == DN_INVALID || status == DN_UNSUPPORTED || status == DN_NO_MEMORY);
    return 0;
}
