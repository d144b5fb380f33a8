/* Golden networks whose weights are not stored: FOLDER/tensors.json lists [name, shape], and each value is a function of its
 * tensor's name and of its place, the same bits as tests/golden/scripts/made_weights.py gives. */
#ifndef DN_TESTS_ENGINE_MADE_WEIGHTS_H
#define DN_TESTS_ENGINE_MADE_WEIGHTS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"

static inline uint32_t made_bits(uint32_t seed, uint64_t index)
{
    uint32_t z = seed + (uint32_t)(index * 2654435761u);
    z ^= z >> 16;
    z *= 0x85EBCA6Bu;
    z ^= z >> 13;
    z *= 0xC2B2AE35u;
    return z ^ z >> 16;
}

static inline void made_values(float *out, const char *name, uint32_t rank, const uint64_t *dims)
{
    uint32_t seed = 2166136261u;
    for (const char *c = name; *c != '\0'; c++)
        seed = (seed ^ (unsigned char)*c) * 16777619u;
    uint64_t count = 1;
    for (uint32_t d = 0; d < rank; d++)
        count *= dims[d];
    size_t length = strlen(name);
    bool frequencies = strstr(name, "freqs") != NULL || strcmp(name, "time_proj.weight") == 0;
    bool gain = strstr(name, "norm") != NULL && length > 6 && strcmp(name + length - 6, "weight") == 0;
    for (uint64_t i = 0; i < count; i++) {
        double u = made_bits(seed, i) / 4294967296.0 - 0.5;
        double value = frequencies ? u * 8.0 : rank == 1 ? u * 0.5 + (gain ? 1.0 : 0.0) : u * sqrt(12.0 / (double)(count / dims[0]));
        out[i] = (float)value;
    }
}

static inline dn_status made_tensor(dn_safetensors_writer *writer, const cJSON *entry, dn_error *error)
{
    const cJSON *name = cJSON_GetArrayItem(entry, 0), *shape = cJSON_GetArrayItem(entry, 1);
    uint64_t dims[DN_TENSOR_RANK_MAX] = {0}, count = 1;
    uint32_t rank = (uint32_t)cJSON_GetArraySize(shape);
    for (uint32_t d = 0; d < rank; d++) {
        dims[d] = (uint64_t)cJSON_GetArrayItem(shape, (int)d)->valueint;
        count *= dims[d];
    }
    float *values = malloc(count * sizeof *values);
    if (values == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for %s", name->valuestring);
    made_values(values, name->valuestring, rank, dims);
    dn_status status = dn_safetensors_writer_add_f32(writer, name->valuestring, DN_F32, rank, dims, values, error);
    free(values);
    return status;
}

/* TO/config.json and TO/diffusion_pytorch_model.safetensors from FROM/config.json and FROM/tensors.json. */
static inline dn_status made_folder(const char *to, const char *from, dn_error *error)
{
    char path[300];
    unsigned char *config = NULL;
    size_t bytes = 0;
    cJSON *list = NULL;
    dn_safetensors_writer *writer = NULL;
    snprintf(path, sizeof path, "%s/config.json", from);
    dn_status status = dn_make_folder(to, error);
    if (status == DN_OK)
        status = dn_file_read(&config, &bytes, path, 1 << 20, error);
    snprintf(path, sizeof path, "%s/config.json", to);
    if (status == DN_OK)
        status = dn_file_write(path, config, bytes, false, error);
    snprintf(path, sizeof path, "%s/tensors.json", from);
    if (status == DN_OK)
        status = dn_json_read_file(&list, path, 1 << 20, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, error);
    for (int i = 0; status == DN_OK && i < cJSON_GetArraySize(list); i++)
        status = made_tensor(writer, cJSON_GetArrayItem(list, i), error);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", to);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, false, error);
    dn_safetensors_writer_free(writer);
    cJSON_Delete(list);
    free(config);
    return status;
}

static inline void made_folder_remove(const char *folder)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors"};
    char path[300];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

#endif
