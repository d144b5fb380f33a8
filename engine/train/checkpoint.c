/* Writes and reads FOLDER/state.safetensors: tensors "weights/NAME", "average/NAME", "first/NAME", "second/NAME". */
#include "train/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/safetensors.h"

#define PATH_BYTES 4096
#define SETS 4

static const char *const set_names[SETS] = {"weights", "average", "first", "second"};

static void name_tensor(char out[DN_TENSOR_NAME_BYTES_MAX], const dn_plan *plan, int set, uint32_t w)
{
    snprintf(out, DN_TENSOR_NAME_BYTES_MAX, "%s/%s", set_names[set], plan->weights[w].parts[0]);
}

static dn_weights *set_of(const dn_checkpoint *c, int set)
{
    dn_weights *const sets[SETS] = {c->weights, c->average, c->first, c->second};
    return sets[set];
}

static dn_status state_path(char out[PATH_BYTES], const char *folder, dn_error *error)
{
    int length = snprintf(out, PATH_BYTES, "%s/state.safetensors", folder);
    return length < PATH_BYTES ? DN_OK : dn_fail(error, DN_INVALID, "%.200s...: the path is too long", folder);
}

static dn_status add_all(dn_safetensors_writer *writer, const dn_checkpoint *c, dn_error *error)
{
    char name[DN_TENSOR_NAME_BYTES_MAX];
    dn_status status = DN_OK;
    for (int set = 0; set < SETS; set++) {
        for (uint32_t w = 0; status == DN_OK && w < c->plan->weight_count; w++) {
            name_tensor(name, c->plan, set, w);
            status = dn_safetensors_writer_add_f32(writer, name, DN_F32, 1, &c->plan->weights[w].count, set_of(c, set)->data[w], error);
        }
    }
    return status;
}

dn_status dn_checkpoint_write(const dn_checkpoint *checkpoint, const char *folder, dn_error *error)
{
    char path[PATH_BYTES], step[32];
    dn_safetensors_writer *writer = NULL;
    snprintf(step, sizeof step, "%llu", (unsigned long long)checkpoint->step);
    dn_status status = state_path(path, folder, error);
    if (status == DN_OK) {
        status = dn_make_folder(folder, error);
    }
    if (status == DN_OK) {
        status = dn_safetensors_writer_create(&writer, error);
    }
    if (status == DN_OK) {
        status = dn_safetensors_writer_metadata(writer, "step", step, error);
    }
    if (status == DN_OK) {
        status = dn_safetensors_writer_metadata(writer, "recipe", checkpoint->recipe_hash, error);
    }
    if (status == DN_OK) {
        status = add_all(writer, checkpoint, error);
    }
    if (status == DN_OK) {
        status = dn_safetensors_writer_save(writer, path, true, error);
    }
    dn_safetensors_writer_free(writer);
    return status;
}

static dn_status read_all(const dn_checkpoint *c, const dn_safetensors *file, const char *path, dn_error *error)
{
    char name[DN_TENSOR_NAME_BYTES_MAX];
    dn_status status = DN_OK;
    for (int set = 0; set < SETS; set++) {
        for (uint32_t w = 0; status == DN_OK && w < c->plan->weight_count; w++) {
            name_tensor(name, c->plan, set, w);
            const dn_tensor_info *info = dn_safetensors_find(file, name);
            if (!info || info->count != c->plan->weights[w].count) {
                return dn_fail(error, DN_INVALID, "%s: %s is missing or of another size", path, name);
            }
            status = dn_safetensors_read_f32(file, info, set_of(c, set)->data[w], error);
        }
    }
    return status;
}

static dn_status read_identity(dn_checkpoint *c, const dn_safetensors *file, const char *path, dn_error *error)
{
    const char *recipe = dn_safetensors_metadata(file, "recipe"), *step = dn_safetensors_metadata(file, "step");
    char *end = NULL;
    if (!recipe || strcmp(recipe, c->recipe_hash) != 0) {
        return dn_fail(error, DN_INVALID, "%s: made by another recipe; train into another folder, or start from its model with --init",
                       path);
    }
    errno = 0;
    c->step = step ? strtoull(step, &end, 10) : 0;
    if (!step || errno || end == step || *end) {
        return dn_fail(error, DN_INVALID, "%s: does not say its step", path);
    }
    return DN_OK;
}

dn_status dn_checkpoint_read(dn_checkpoint *checkpoint, const char *folder, dn_error *error)
{
    char path[PATH_BYTES];
    dn_safetensors *file = NULL;
    dn_status status = state_path(path, folder, error);
    if (status == DN_OK) {
        status = dn_safetensors_open(&file, path, error);
    }
    if (status == DN_OK) {
        status = read_identity(checkpoint, file, path, error);
    }
    if (status == DN_OK) {
        status = read_all(checkpoint, file, path, error);
    }
    dn_safetensors_close(file);
    return status;
}
