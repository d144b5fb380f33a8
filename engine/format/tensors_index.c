/* NAME.index.json: {"metadata": {...}, "weight_map": {"tensor": "shard file"}}. Invariant of an index that was read: its shards are
 * plain names in its own folder, each tensor is in the shard that the map says and in no other, and no shard holds a tensor that the
 * map does not name. One call, one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "format/tensors_file.h"

#define INDEX_BYTES_MAX (32u << 20)
#define SHARDS_MAX 256u
#define SHARD_NAME_BYTES_MAX 255u

typedef struct index_file {
    dn_tensors *tensors;
    const char *path;
    int folder_bytes; /* of path, its last slash counted */
    const char *shards[SHARDS_MAX]; /* names, in the JSON tree; shard i is file first + i */
    uint32_t shard_count, first;
    dn_error *error;
} index_file;

static dn_status refuse(const index_file *index, const char *name, const char *rule)
{
    return dn_fail(index->error, DN_INVALID, "%s: weight_map: \"%.100s\": %s", index->path, name, rule);
}

static bool is_plain_file_name(const char *name)
{
    size_t bytes = strlen(name);
    if (bytes == 0 || bytes > SHARD_NAME_BYTES_MAX || name[0] == '.' || strchr(name, '/') != NULL || strchr(name, '\\') != NULL)
        return false;
    return bytes < 11 || strcmp(name + bytes - 11, ".index.json") != 0; /* an index of indices */
}

static dn_status find_shard(index_file *index, uint32_t *shard, const char *name)
{
    for (uint32_t i = 0; i < index->shard_count; i++) {
        if (strcmp(index->shards[i], name) == 0) {
            *shard = i;
            return DN_OK;
        }
    }
    if (!is_plain_file_name(name))
        return refuse(index, name, "a shard must be a plain file name in the same folder");
    if (index->shard_count == SHARDS_MAX)
        return refuse(index, name, "too many shards");
    *shard = index->shard_count;
    index->shards[index->shard_count++] = name;
    return DN_OK;
}

static dn_status open_shards(index_file *index)
{
    dn_status status = DN_OK;
    index->first = index->tensors->file_count;
    for (uint32_t i = 0; i < index->shard_count && status == DN_OK; i++) {
        size_t bytes = (size_t)index->folder_bytes + strlen(index->shards[i]) + 1;
        char *path = malloc(bytes);
        if (path == NULL)
            return dn_fail(index->error, DN_NO_MEMORY, "%s: out of memory", index->path);
        snprintf(path, bytes, "%.*s%s", index->folder_bytes, index->path, index->shards[i]);
        status = dn_tensors_add_file(index->tensors, path, index->error);
        free(path);
    }
    return status;
}

typedef struct place {
    const char *name;
    uint32_t shard;
    bool there; /* the shard holds it */
} place;

static int compare_places(const void *a, const void *b)
{
    return strcmp(((const place *)a)->name, ((const place *)b)->name);
}

/* Every tensor of every shard is where the map says, once, and every name of the map is there. */
static dn_status check_places(const index_file *index, place *places, size_t count)
{
    const dn_tensors *tensors = index->tensors;
    qsort(places, count, sizeof *places, compare_places);
    for (size_t i = 0; i < tensors->count; i++) {
        const dn_tensor_entry *entry = &tensors->entries[i];
        place *found = bsearch(&(place){.name = entry->info.name}, places, count, sizeof *places, compare_places);
        if (found == NULL)
            return dn_fail(index->error, DN_INVALID, "%s: weight_map does not name tensor \"%.100s\" of %s", index->path, entry->info.name,
                           tensors->files[entry->file].path);
        if (index->first + found->shard != entry->file)
            return refuse(index, entry->info.name, "the tensor is in another shard than the map says");
        if (found->there)
            return refuse(index, entry->info.name, "the tensor is there twice");
        found->there = true;
    }
    for (size_t i = 0; i < count; i++)
        if (!places[i].there)
            return refuse(index, places[i].name, "no such tensor in its shard");
    return DN_OK;
}

static dn_status read_map(index_file *index, const cJSON *map)
{
    const cJSON *item;
    size_t count = 0;
    dn_status status = DN_OK;
    cJSON_ArrayForEach(item, map) count++;
    if (count == 0 || count > DN_SAFETENSORS_TENSORS_MAX)
        return dn_fail(index->error, DN_INVALID, "%s: weight_map must name 1 to %u tensors", index->path, DN_SAFETENSORS_TENSORS_MAX);
    place *places = calloc(count, sizeof *places), *at = places;
    if (places == NULL)
        return dn_fail(index->error, DN_NO_MEMORY, "%s: out of memory", index->path);
    cJSON_ArrayForEach(item, map)
    {
        if (status != DN_OK)
            break;
        at->name = item->string;
        status = cJSON_IsString(item) ? find_shard(index, &at->shard, item->valuestring) : refuse(index, item->string, "not a file name");
        at++;
    }
    if (status == DN_OK)
        status = open_shards(index);
    if (status == DN_OK)
        status = check_places(index, places, count);
    free(places);
    return status;
}

dn_status dn_tensors_read_index(dn_tensors *tensors, const char *path, dn_error *error)
{
    const char *slash = strrchr(path, '/');
    index_file index = {.tensors = tensors, .path = path, .error = error};
    index.folder_bytes = slash != NULL ? (int)(slash - path) + 1 : 0;
    cJSON *root = NULL;
    uint32_t file = 0;
    /* The index is one of the checkpoint's files: it counts in the hash. */
    dn_status status = dn_tensors_new_file(tensors, &file, path, error);
    if (status == DN_OK)
        status = dn_json_read_file(&root, path, INDEX_BYTES_MAX, error);
    if (status != DN_OK)
        return status;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    if (!cJSON_IsObject(map))
        status = dn_fail(error, DN_INVALID, "%s: weight_map is missing or no object", path);
    else
        status = read_map(&index, map);
    cJSON_Delete(root);
    return status;
}
