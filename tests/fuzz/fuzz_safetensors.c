/* Fuzz entry (libFuzzer's): any bytes as a safetensors file, or, where they begin with a brace, as an index beside two shards. What
 * opens must cover its file exactly once and be readable to its last element; a refusal must say why. */
#include "tests/fuzz/fuzz.h"

#include "format/tensors.h"

#define FILE_BYTES_MAX (1u << 20)

static int whole_fd = -1, index_fd;
static const char *whole_path, *index_path;

/* Two shards that an index may name: one tensor each. */
static void prepare(void)
{
    static const char *const headers[] = {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
                                          "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"};
    for (size_t i = 0; i < 2; i++) {
        unsigned char bytes[128];
        const char *path;
        uint64_t length = strlen(headers[i]);
        memcpy(bytes, &length, 8);
        memcpy(bytes + 8, headers[i], length);
        memcpy(bytes + 8 + length, "xy", 2);
        fuzz_put(fuzz_file(&path, i == 0 ? "a.safetensors" : "b.safetensors"), bytes, 10 + length);
    }
    whole_fd = fuzz_file(&whole_path, "c.safetensors");
    index_fd = fuzz_file(&index_path, "c.index.json");
}

static void tensors_cover_the_file(size_t size)
{
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    REQUIRE(dn_safetensors_open(&file, whole_path, &error) == DN_OK);
    uint64_t covered = 0, first = size;
    for (size_t i = 0; i < dn_safetensors_count(file); i++) {
        const dn_tensor_info *info = dn_safetensors_at(file, i);
        uint64_t count = 1;
        for (uint32_t d = 0; d < info->rank; d++)
            count *= info->dims[d];
        REQUIRE(count == info->count && info->bytes == count * dn_dtype_bytes(info->dtype));
        first = i == 0 ? info->offset : first;
        REQUIRE(info->offset == first + covered);
        covered += info->bytes;
    }
    REQUIRE(dn_safetensors_count(file) == 0 || first + covered == size);
    dn_safetensors_close(file);
}

static void read_all(const dn_tensors *tensors)
{
    dn_error error = {DN_OK, ""};
    char sha256[65];
    REQUIRE(dn_tensors_sha256(tensors, sha256, &error) == DN_OK);
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const dn_tensor_info *info = dn_tensors_at(tensors, i);
        bool equal = false;
        REQUIRE(dn_tensors_find(tensors, info->name) == info && info->count <= FILE_BYTES_MAX);
        float *values = malloc((info->count + 1) * sizeof *values);
        REQUIRE(values != NULL && dn_tensors_read_f32(tensors, info, values, &error) == DN_OK);
        free(values);
        REQUIRE(dn_tensors_equal(tensors, info, dn_tensors_at(tensors, 0), &equal, &error) == DN_OK && (i > 0 || equal));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    if (whole_fd < 0)
        prepare();
    const bool is_index = size > 0 && data[0] == '{';
    if (size > FILE_BYTES_MAX)
        return 0;
    fuzz_put(is_index ? index_fd : whole_fd, data, size);
    dn_status status = dn_tensors_open(&tensors, is_index ? index_path : whole_path, &error);
    REQUIRE((status == DN_OK) == (tensors != NULL) && (status == DN_OK || error.message[0] != '\0'));
    REQUIRE(status == DN_OK || strstr(error.message, fuzz_folder) != NULL);
    if (tensors != NULL) {
        read_all(tensors);
        if (!is_index)
            tensors_cover_the_file(size);
    }
    dn_tensors_close(tensors);
    return 0;
}
