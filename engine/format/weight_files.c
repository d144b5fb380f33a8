/* Looks for the weight file of a component folder. Owns a folder's listing while one call runs. Any thread. */
#include "format/weight_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

static const char *const known_names[] = {
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "model.safetensors",
};

static const char *const endings[] = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"};

static char *join(const char *folder, const char *name)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path != NULL)
        snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

static bool is_weight_name(const char *name)
{
    size_t bytes = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t ending_bytes = strlen(endings[i]);
        if (name[0] != '.' && bytes > ending_bytes && strcmp(name + bytes - ending_bytes, endings[i]) == 0)
            return true;
    }
    return false;
}

static int is_weight_entry(const struct dirent *entry)
{
    return is_weight_name(entry->d_name);
}

static dn_status find_only_one(char **out, const char *folder, dn_error *error)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_weight_entry, alphasort);
    if (count < 0)
        return dn_fail(error, DN_IO, "%s: %s", folder, strerror(errno));
    dn_status status = DN_OK;
    if (count == 0)
        status = dn_fail(error, DN_INVALID, "%s: there is no %s, nor any other file of weights", folder, known_names[0]);
    else if (count > 1)
        status = dn_fail(error, DN_INVALID, "%s: several files of weights (%.80s, %.80s%s): name the one that is meant", folder,
                         entries[0]->d_name, entries[1]->d_name, count > 2 ? ", ..." : "");
    else if ((*out = join(folder, entries[0]->d_name)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", folder);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return status;
}

dn_status dn_weight_file_find(char **out, const char *path, dn_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return dn_fail(error, DN_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode)) {
        *out = strdup(path);
        return *out != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    for (size_t i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        char *known = join(path, known_names[i]);
        if (known == NULL)
            return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
        if (dn_path_exists(known)) {
            *out = known;
            return DN_OK;
        }
        free(known);
    }
    return find_only_one(out, path, error);
}
