/* What `denoised generate` writes: single PNGs that carry their recipe, contact sheets, and final latents. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_label.h"
#include "api/png_metadata.h"
#include "base/file.h"
#include "base/sha256.h"
#include "format/safetensors.h"
#include "server/describe_model.h"
#include "server/generation.h"

#define SHEET_GAP 2u /* pixels */

static void name_class(api_class *out, const api_model *model, uint32_t index)
{
    out->index = index;
    if (index < model->class_count)
        api_class_first_name(out->name, sizeof out->name, model, index);
}

/* The request that would make image i alone. */
static api_request request_of(const generation *g, const api_model *model, uint32_t i)
{
    const dn_lane_spec *spec = &g->specs[i];
    api_request request = {
        .has_class = spec->has_class,
        .class_index = spec->class_index,
        .mixture_count = g->mixture_count,
        .has_negative = spec->has_negative,
        .guidance_scale = spec->guidance_scale,
        .steps = spec->steps,
        .options = spec->options,
        .init_image = g->init_image,
        .mask_image = g->mask_image,
        .has_variation = spec->has_variation,
        .variation_seed = spec->variation_seed,
        .has_seed = true,
        .seed = spec->seed,
        .n = 1,
    };
    api_class one = {0, ""};
    snprintf(request.model, sizeof request.model, "%s", model->name);
    snprintf(request.sampler, sizeof request.sampler, "%s", spec->sampler);
    for (uint32_t k = 0; k < g->mixture_count; k++) {
        request.mixture[k].weight = g->mixture[k].weight;
        name_class(&request.mixture[k].label, model, g->mixture[k].label.index);
    }
    if (spec->has_negative)
        name_class(&request.negative, model, spec->negative_class);
    if (spec->has_class && g->mixture_count == 0)
        name_class(&one, model, spec->class_index);
    memcpy(request.class_name, one.name, sizeof request.class_name);
    return request;
}

static dn_status write_file(const char *path, const unsigned char *bytes, size_t count, dn_error *error)
{
    if (strcmp(path, "-") != 0)
        return dn_file_write(path, bytes, count, false, error);
    errno = 0;
    if (fwrite(bytes, 1, count, stdout) != count || fflush(stdout) != 0)
        return dn_fail(error, DN_IO, "standard output: %s", strerror(errno));
    return DN_OK;
}

/* One PNG. A single image carries the same texts as the service's, so that the files are equal; a sheet has the first
 * image's parameters; images from given noise have no recipe. */
static dn_status write_png(const generation *g, const api_model *model, generation_file *file, const uint8_t *pixels, uint32_t width,
                           uint32_t height, uint32_t i, bool single, dn_error *error)
{
    unsigned char *png = NULL, digest[DN_SHA256_BYTES];
    size_t png_bytes = 0, count = 0;
    char hex[DN_SHA256_HEX_BYTES], *infotext = NULL, *recipe = NULL;
    dn_png_text texts[2];
    if (g->start != NULL) {
        texts[count++] = (dn_png_text){"Software", "denoised"};
    } else {
        api_request request = request_of(g, model, i);
        dn_sha256_of(digest, pixels, (size_t)width * height * model->channels);
        dn_sha256_hex(hex, digest);
        infotext = api_infotext(&request, model, request.seed);
        recipe = api_recipe_json(&request, model, request.seed, hex);
        if (infotext != NULL)
            texts[count++] = (dn_png_text){"parameters", infotext};
        if (recipe != NULL && single)
            texts[count++] = (dn_png_text){"denoised", recipe};
    }
    dn_status status = dn_png_encode(&png, &png_bytes, pixels, width, height, model->channels, texts, count, error);
    if (status == DN_OK)
        status = write_file(file->path, png, png_bytes, error);
    if (status == DN_OK) {
        dn_sha256_of(digest, png, png_bytes);
        dn_sha256_hex(file->sha256, digest);
        file->bytes = png_bytes;
        file->seed = g->specs[i].seed;
    }
    free(png);
    free(infotext);
    free(recipe);
    return status;
}

static dn_status write_singles(generation *g, const api_model *model, dn_error *error)
{
    size_t bytes = generation_picture_bytes(g);
    dn_status status = dn_make_folder(g->output_dir, error);
    g->files = calloc(g->count, sizeof *g->files);
    if (status == DN_OK && g->files == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for the names of %u files", g->count);
    for (uint32_t i = 0; i < g->count && status == DN_OK; i++) {
        snprintf(g->files[i].path, sizeof g->files[i].path, "%s/%05u.png", g->output_dir, i);
        status = write_png(g, model, &g->files[i], g->pixels + i * bytes, model->width, model->height, i, true, error);
    }
    return status;
}

dn_status generation_sheet(const generation *g, uint8_t **out, uint32_t *width, uint32_t *height, dn_error *error)
{
    const uint32_t columns = g->columns != 0 ? (uint32_t)g->columns : (uint32_t)ceil(sqrt(g->count));
    const size_t bytes = generation_picture_bytes(g);
    const uint32_t high = g->engine->image_height, wide = g->engine->image_width;
    const uint8_t **pictures = calloc(g->count, sizeof *pictures);
    if (pictures == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a sheet of %u pictures", g->count);
    for (uint32_t i = 0; i < g->count; i++)
        pictures[i] = g->pixels + i * bytes;
    dn_status status = dn_contact_sheet(out, width, height, pictures, g->count, wide, high, g->engine->image_channels,
                                        g->count == 1 ? 1 : columns, g->count == 1 ? 0 : SHEET_GAP, error);
    free(pictures);
    return status;
}

static dn_status write_sheet(generation *g, const api_model *model, dn_error *error)
{
    uint32_t width = 0, height = 0;
    uint8_t *sheet = NULL;
    dn_status status = generation_sheet(g, &sheet, &width, &height, error);
    snprintf(g->output_file.path, sizeof g->output_file.path, "%s", g->output);
    if (status == DN_OK)
        status = write_png(g, model, &g->output_file, sheet, width, height, 0, g->count == 1, error);
    free(sheet);
    return status;
}

static dn_status write_latents(const generation *g, dn_error *error)
{
    const dn_model *model = g->engine->model;
    const uint64_t dims[4] = {g->count, model->channels, model->height, model->width};
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_safetensors_writer_create(&writer, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, "latents", DN_F32, 4, dims, g->floats, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, g->output_latents, false, error);
    dn_safetensors_writer_free(writer);
    return status;
}

/* The last part of the folder's path, which is what a service would call the model. */
static void model_name(const generation *g, char *out, size_t room)
{
    char path[sizeof g->model_path];
    snprintf(path, sizeof path, "%s", g->model_path);
    for (size_t end = strlen(path); end > 1 && path[end - 1] == '/'; end--)
        path[end - 1] = '\0';
    const char *slash = strrchr(path, '/');
    snprintf(out, room, "%.*s", (int)room - 1, slash != NULL ? slash + 1 : path);
}

dn_status generation_save(generation *g, dn_error *error)
{
    char name[65];
    api_model *model = NULL;
    model_name(g, name, sizeof name);
    dn_status status = dn_describe_model(&model, name, g->engine, error);
    if (status == DN_OK && g->output_latents != NULL)
        status = write_latents(g, error);
    if (status == DN_OK && g->output_dir != NULL)
        status = write_singles(g, model, error);
    if (status == DN_OK && g->output != NULL)
        status = write_sheet(g, model, error);
    api_model_free(model);
    return status;
}
