/* Draws a sheet of pictures from a model folder with the engine's library call; see training_samples.h. */
#include "server/training_samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "engine.h"

#define COLUMNS_MAX 16u
#define SHEET_ROWS 4u
#define SHEET_GAP 2u /* pixels */
#define PATH_BYTES 4096

static void fill_specs(const dn_engine *engine, dn_lane_spec *specs, uint32_t columns)
{
    for (uint32_t i = 0; i < columns * SHEET_ROWS; i++) {
        specs[i] = (dn_lane_spec){.seed = i, .has_class = engine->class_count > 0, .class_index = i % columns};
        specs[i].guidance_scale = engine->default_guidance;
        specs[i].steps = engine->default_steps;
        snprintf(specs[i].sampler, sizeof specs[i].sampler, "%s", engine->default_sampler);
    }
}

static dn_status write_sheet(const dn_engine *engine, const uint8_t *pixels, uint32_t columns, const char *path, dn_error *error)
{
    const uint8_t *pictures[COLUMNS_MAX * SHEET_ROWS];
    const dn_model *m = engine->model;
    uint8_t *sheet = NULL;
    unsigned char *png = NULL;
    size_t png_bytes = 0;
    uint32_t width = 0, height = 0, n = columns * SHEET_ROWS;
    for (uint32_t i = 0; i < n; i++) {
        pictures[i] = pixels + i * dn_engine_elements(engine);
    }
    dn_status status = dn_contact_sheet(&sheet, &width, &height, pictures, n, m->width, m->height, m->channels, columns, SHEET_GAP, error);
    if (status == DN_OK) {
        status = dn_png_encode(&png, &png_bytes, sheet, width, height, m->channels, NULL, 0, error);
    }
    if (status == DN_OK) {
        status = dn_file_write(path, png, png_bytes, false, error);
    }
    free(sheet);
    free(png);
    return status;
}

static dn_status draw(dn_engine *engine, const char *path, dn_error *error)
{
    dn_lane_spec specs[COLUMNS_MAX * SHEET_ROWS];
    uint32_t channels = engine->model->channels;
    uint32_t columns = engine->class_count < 1 ? 8 : (engine->class_count < COLUMNS_MAX ? engine->class_count : COLUMNS_MAX);
    if (channels != 1 && channels != 3) {
        return dn_fail(error, DN_UNSUPPORTED, "%u channels are no picture", channels);
    }
    uint8_t *pixels = malloc((size_t)columns * SHEET_ROWS * dn_engine_elements(engine));
    if (!pixels) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for %u pictures", columns * SHEET_ROWS);
    }
    fill_specs(engine, specs, columns);
    dn_status status = dn_generate(engine, specs, columns * SHEET_ROWS, pixels, NULL, NULL, NULL, error);
    if (status == DN_OK) {
        status = write_sheet(engine, pixels, columns, path, error);
    }
    free(pixels);
    return status;
}

dn_status dn_training_samples(const char *folder, uint64_t images, unsigned threads, dn_error *error)
{
    char samples[PATH_BYTES], path[PATH_BYTES + 32];
    const dn_engine_options options = {.threads = threads};
    dn_engine *engine = NULL;
    if (snprintf(samples, sizeof samples, "%s/samples", folder) >= (int)sizeof samples) {
        return dn_fail(error, DN_INVALID, "%.200s...: the path is too long", folder);
    }
    snprintf(path, sizeof path, "%s/%09llu.png", samples, (unsigned long long)images);
    dn_status status = dn_make_folder(samples, error);
    if (status == DN_OK) {
        status = dn_engine_open(&engine, folder, &options, error);
    }
    if (status == DN_OK) {
        status = draw(engine, path, error);
    }
    dn_engine_close(engine);
    return status;
}
