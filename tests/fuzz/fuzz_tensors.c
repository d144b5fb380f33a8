/* Fuzz entry (libFuzzer's): any bytes as a checkpoint. The first byte says of which kind: an index beside two shards, a safetensors
 * file, else a torch file. What opens must be readable to its last element; a refusal must say why.
 *
 *     clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -Iengine tests/fuzz/fuzz_tensors.c ... -o fuzz
 *     ./fuzz tests/fuzz/corpus/tensors
 *
 * tests/engine/test_fuzz_tensors.c replays the corpus, and changes of it, wherever there is no clang. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/tensors.h"

#define COUNT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void write_at(const char *name, const void *bytes, size_t count)
{
    char path[128];
    dn_error error;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    require(dn_file_write(path, bytes, count, false, &error) == DN_OK);
}

static void remove_folder(void)
{
    static const char *const names[] = {"c.index.json", "c.safetensors", "c.pt", "a.safetensors", "b.safetensors"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* Two shards that an index may name: one tensor each. */
static void prepare(void)
{
    static const char *const headers[] = {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
                                          "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}"};
    snprintf(folder, sizeof folder, "/tmp/denoised-fuzz-%ld", (long)getpid());
    dn_error error;
    require(dn_make_folder(folder, &error) == DN_OK);
    atexit(remove_folder);
    for (size_t i = 0; i < 2; i++) {
        unsigned char bytes[128];
        uint64_t length = strlen(headers[i]);
        memcpy(bytes, &length, 8);
        memcpy(bytes + 8, headers[i], length);
        memcpy(bytes + 8 + length, "xy", 2);
        write_at(i == 0 ? "a.safetensors" : "b.safetensors", bytes, 10 + length);
    }
}

static void read_all(const dn_tensors *tensors)
{
    dn_error error = {DN_OK, ""};
    char sha256[65];
    dn_status hashed = dn_tensors_sha256(tensors, sha256, &error);
    require(hashed == DN_OK || error.message[0] != '\0');
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const dn_tensor_info *info = dn_tensors_at(tensors, i);
        bool equal = false;
        require(dn_tensors_find(tensors, info->name) == info && info->count <= COUNT_MAX);
        float *values = malloc((info->count + 1) * sizeof *values);
        require(values != NULL && dn_tensors_read_f32(tensors, info, values, &error) == DN_OK);
        free(values);
        require(dn_tensors_equal(tensors, info, dn_tensors_at(tensors, 0), &equal, &error) == DN_OK && (i > 0 || equal));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    char path[128];
    if (folder[0] == '\0')
        prepare();
    const char *name = size > 0 && data[0] == '{' ? "c.index.json" : size > 8 && data[8] == '{' ? "c.safetensors" : "c.pt";
    write_at(name, data, size);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    dn_status status = dn_tensors_open(&tensors, path, &error);
    require((status == DN_OK) == (tensors != NULL) && (status == DN_OK || error.message[0] != '\0'));
    if (tensors != NULL)
        read_all(tensors);
    dn_tensors_close(tensors);
    return 0;
}
