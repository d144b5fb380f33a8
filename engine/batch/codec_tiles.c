/* A decode in tiles, as diffusers' AutoencoderKL.tiled_decode: tiles of sample_size that overlap by a quarter, each decoded alone,
 * then blended linearly with the finished tile above and the one to the left.
 *
 * Tiles at the end are smaller, and a network is made for one size: tiles of a size are decoded together, so that one network
 * besides the full tile's exists at a time. The picture is the same in every run: blends go in the order of the rows. With the
 * codec's turn. */
#include <stdlib.h>
#include <string.h>

#include "batch/codec_private.h"

typedef struct tile {
    uint32_t y, x, height, width; /* in latent pixels */
    float *picture; /* [C][factor * height][factor * width] */
} tile;

typedef struct tiling {
    dn_codec *codec;
    uint32_t side, step, factor; /* latent pixels; pixels of one */
    uint32_t rows, columns;
    tile *tiles; /* [rows][columns] */
} tiling;

static uint32_t factor_of(const dn_autoencoder_kl_config *config)
{
    return 1u << (config->levels - 1);
}

/* Latent pixels from one tile to the next: three quarters of a side, rounded down as diffusers does. */
static uint32_t step_of(uint32_t side)
{
    return side * 3 / 4;
}

uint32_t dn_codec_tile_side(const dn_autoencoder_kl_config *config)
{
    const uint32_t side = config->sample_size / factor_of(config);
    /* diffusers takes pixels and latents apart: where they disagree its pictures shift, so such sizes are not tiled. */
    return step_of(side) > 0 && step_of(side) * factor_of(config) == config->sample_size - config->sample_size / 4 ? side : 0;
}

static uint32_t steps_of(uint32_t length, uint32_t step)
{
    return (length + step - 1) / step;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

bool dn_codec_tiles_uneven(const dn_autoencoder_kl_config *config, uint32_t height, uint32_t width)
{
    const uint32_t side = dn_codec_tile_side(config), step = step_of(side);
    for (uint32_t y = 0; y < height; y += step)
        if (smaller(side, height - y) != smaller(side, height))
            return true;
    for (uint32_t x = 0; x < width; x += step)
        if (smaller(side, width - x) != smaller(side, width))
            return true;
    return false;
}

static void free_tiles(tiling *t)
{
    for (uint32_t i = 0; t->tiles != NULL && i < t->rows * t->columns; i++)
        free(t->tiles[i].picture);
    free(t->tiles);
}

static dn_status lay_tiles(tiling *t, dn_error *error)
{
    const dn_codec_info *info = &t->codec->info;
    t->tiles = calloc((size_t)t->rows * t->columns, sizeof *t->tiles);
    for (uint32_t i = 0; t->tiles != NULL && i < t->rows * t->columns; i++) {
        tile *at = &t->tiles[i];
        at->y = i / t->columns * t->step;
        at->x = i % t->columns * t->step;
        at->height = smaller(t->side, info->latent_height - at->y);
        at->width = smaller(t->side, info->latent_width - at->x);
        at->picture = malloc((size_t)info->channels * at->height * at->width * t->factor * t->factor * sizeof *at->picture);
        if (at->picture == NULL)
            return dn_fail(error, DN_NO_MEMORY, "no memory for the tiles of a picture of %ux%u", info->width, info->height);
    }
    return t->tiles != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "no memory for tiles");
}

/* The decoder of another size than the full tile's, from the weights that its stage kept. */
static dn_status open_sized(dn_codec_stage *out, const dn_codec *codec, uint32_t height, uint32_t width, dn_error *error)
{
    dn_model *model = NULL;
    dn_status status = dn_autoencoder_kl_resize(&model, codec->decoder.model, height, width, error);
    return status == DN_OK ? dn_codec_stage_open(out, &codec->options, model, codec->decoder.model->weights, 1, 0, error) : status;
}

/* One tile through a stage of its size. */
static dn_status decode_tile(const tiling *t, const dn_codec_stage *stage, tile *at, float *crop, dn_error *error)
{
    const dn_codec_info *info = &t->codec->info;
    for (uint32_t c = 0; c < info->latent_channels; c++)
        for (uint32_t y = 0; y < at->height; y++)
            memcpy(crop + ((size_t)c * at->height + y) * at->width,
                   t->codec->staging + ((size_t)c * info->latent_height + at->y + y) * info->latent_width + at->x,
                   at->width * sizeof *crop);
    dn_status status = dn_codec_stage_run(stage, crop, 1, "decoder", error);
    return status == DN_OK ? stage->backend->buffer_read(stage->out, 0, at->picture, stage->out_count, error) : status;
}

static bool decoded_before(const tiling *t, uint32_t index)
{
    for (uint32_t i = 0; i < index; i++)
        if (t->tiles[i].height == t->tiles[index].height && t->tiles[i].width == t->tiles[index].width)
            return true;
    return false;
}

/* Every tile of the size of tile `first`. */
static dn_status decode_size(const tiling *t, uint32_t first, float *crop, dn_error *error)
{
    const uint32_t height = t->tiles[first].height, width = t->tiles[first].width;
    const dn_model *full = t->codec->decoder.model;
    dn_codec_stage own = {0};
    const dn_codec_stage *stage = &t->codec->decoder;
    dn_status status = DN_OK;
    if (height != full->height || width != full->width) {
        status = open_sized(&own, t->codec, height, width, error);
        stage = &own;
    }
    for (uint32_t i = first; i < t->rows * t->columns && status == DN_OK; i++)
        if (t->tiles[i].height == height && t->tiles[i].width == width)
            status = decode_tile(t, stage, &t->tiles[i], crop, error);
    dn_codec_stage_close(&own);
    return status;
}

/* Writes b's first `extent` lines as a blend from a's last ones. A line is `count` floats `stride` apart; lines lie `line` apart. */
typedef struct blend {
    const float *from;
    float *to;
    uint32_t extent, count;
    size_t from_stride, from_line, to_stride, to_line;
} blend;

static void blend_lines(const blend *b)
{
    for (uint32_t i = 0; i < b->extent; i++) {
        const float share = (float)((double)i / b->extent), rest = (float)(1.0 - (double)i / b->extent);
        for (uint32_t k = 0; k < b->count; k++) {
            float *to = b->to + i * b->to_line + k * b->to_stride;
            *to = b->from[i * b->from_line + k * b->from_stride] * rest + *to * share;
        }
    }
}

/* One channel of a tile with the tile above, then with the one to the left; both are finished. */
static void blend_channel(const tiling *t, uint32_t row, uint32_t column, uint32_t channel)
{
    const uint32_t f = t->factor, overlap = t->codec->config.sample_size / 4;
    const tile *at = &t->tiles[row * t->columns + column];
    const uint32_t height = at->height * f, width = at->width * f;
    float *to = at->picture + (size_t)channel * height * width;
    if (row > 0) {
        const tile *above = &t->tiles[(row - 1) * t->columns + column];
        const uint32_t above_height = above->height * f, extent = smaller(smaller(above_height, height), overlap);
        const float *from = above->picture + ((size_t)(channel + 1) * above_height - extent) * width;
        blend_lines(&(blend){from, to, extent, width, 1, width, 1, width});
    }
    if (column > 0) {
        const tile *left = &t->tiles[row * t->columns + column - 1];
        const uint32_t left_width = left->width * f, extent = smaller(smaller(left_width, width), overlap);
        const float *from = left->picture + (size_t)channel * height * left_width + left_width - extent;
        blend_lines(&(blend){from, to, extent, height, left_width, 1, width, 1});
    }
}

/* The part of a finished tile that its successors do not cover. */
static void place_tile(const tiling *t, const tile *at, float *picture)
{
    const dn_codec_info *info = &t->codec->info;
    const uint32_t f = t->factor, height = smaller(at->height, t->step) * f, width = smaller(at->width, t->step) * f;
    for (uint32_t c = 0; c < info->channels; c++)
        for (uint32_t y = 0; y < height; y++)
            memcpy(picture + ((size_t)c * info->height + at->y * f + y) * info->width + at->x * f,
                   at->picture + ((size_t)c * at->height * f + y) * at->width * f, width * sizeof *picture);
}

dn_status dn_codec_decode_tiles(dn_codec *codec, float *picture, dn_error *error)
{
    tiling t = {.codec = codec, .side = dn_codec_tile_side(&codec->config), .factor = factor_of(&codec->config)};
    t.step = step_of(t.side);
    t.rows = steps_of(codec->info.latent_height, t.step);
    t.columns = steps_of(codec->info.latent_width, t.step);
    float *crop = malloc((size_t)codec->info.latent_channels * t.side * t.side * sizeof *crop);
    dn_status status = crop != NULL ? lay_tiles(&t, error) : dn_fail(error, DN_NO_MEMORY, "no memory for a tile");
    for (uint32_t i = 0; i < t.rows * t.columns && status == DN_OK; i++)
        if (!decoded_before(&t, i))
            status = decode_size(&t, i, crop, error);
    for (uint32_t i = 0; i < t.rows * t.columns && status == DN_OK; i++) {
        for (uint32_t c = 0; c < codec->info.channels; c++)
            blend_channel(&t, i / t.columns, i % t.columns, c);
        place_tile(&t, &t.tiles[i], picture);
    }
    free_tiles(&t);
    free(crop);
    return status;
}
