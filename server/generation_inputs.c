/* What images of `denoised generate` start from beside noise: given latents, and pictures from files. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "format/safetensors.h"
#include "server/generation.h"
#include "server/input_picture.h"

#define PICTURE_BYTES_MAX (64u << 20)

dn_status generation_read_start(generation *g, uint32_t *images, dn_error *error)
{
    const dn_model *model = g->engine->model;
    dn_safetensors *file = NULL;
    dn_status status = dn_safetensors_open(&file, g->latents, error);
    if (status != DN_OK)
        return status;
    const dn_tensor_info *info = dn_safetensors_find(file, "latents");
    bool fits = info != NULL && info->rank == 4 && info->dims[0] >= 1 && info->dims[0] <= GENERATION_IMAGES_MAX &&
                info->dims[1] == model->channels && info->dims[2] == model->height && info->dims[3] == model->width;
    if (!fits)
        status = dn_fail(error, DN_INVALID, "%s: a tensor latents of shape [N,%u,%u,%u] is needed", g->latents, model->channels,
                         model->height, model->width);
    if (status == DN_OK && (g->start = calloc(info->count, sizeof *g->start)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for the start noise");
    if (status == DN_OK)
        status = dn_safetensors_read_f32(file, info, g->start, error);
    if (status == DN_OK)
        *images = (uint32_t)info->dims[0];
    dn_safetensors_close(file);
    return status;
}

/* Decodes a PNG file and notes its hash, as a request would carry it. */
static dn_status read_picture(const generation *g, const char *path, uint32_t channels, uint8_t **pixels, api_input_image *image,
                              dn_error *error)
{
    unsigned char *bytes = NULL, digest[DN_SHA256_BYTES];
    size_t count = 0;
    dn_error why = {DN_OK, ""};
    dn_status status = dn_file_read(&bytes, &count, path, PICTURE_BYTES_MAX, error);
    if (status != DN_OK)
        return status;
    dn_sha256_of(digest, bytes, count);
    dn_sha256_hex(image->sha256, digest);
    image->byte_count = count;
    status = input_picture_decode(pixels, bytes, count, g->engine->image_width, g->engine->image_height, channels, &why);
    free(bytes);
    return status == DN_OK ? DN_OK : dn_fail(error, status, "%s: %s", path, why.message);
}

dn_status generation_read_pictures(generation *g, dn_error *error)
{
    const dn_engine *engine = g->engine;
    uint8_t *init = NULL, *mask = NULL;
    dn_status status = DN_OK;
    if (g->mask_path != NULL && g->init_path == NULL)
        return dn_fail(error, DN_INVALID, "mask_image needs an init_image");
    if (g->init_path == NULL)
        return DN_OK;
    status = read_picture(g, g->init_path, engine->image_channels, &init, &g->init_image, error);
    if (status == DN_OK && g->mask_path != NULL)
        status = read_picture(g, g->mask_path, 1, &mask, &g->mask_image, error);
    if (status == DN_OK) {
        g->init = calloc(dn_engine_elements(engine), sizeof *g->init);
        g->mask = g->mask_path != NULL ? calloc((size_t)engine->model->height * engine->model->width, sizeof *g->mask) : NULL;
        if (g->init == NULL || (g->mask_path != NULL && g->mask == NULL))
            status = dn_fail(error, DN_NO_MEMORY, "out of memory for the given picture");
    }
    if (status == DN_OK)
        status = dn_engine_prepare_init(g->engine, init, mask, g->init, g->mask, error);
    free(init);
    free(mask);
    return status;
}
