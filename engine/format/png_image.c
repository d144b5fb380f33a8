/* The two calls into libpng. Owns libpng's structures while one call runs. Invariant of decoding: nothing is allocated for
 * a picture before its header passed the limits, every ancillary chunk is skipped unread, and a checksum fault is a
 * refusal. Invariant of encoding: one filter and one level for all pictures, no time stamp. Any thread.
 *
 * libpng reports faults by longjmp; what must survive one lives in a struct of the caller, not in a local. */
#include "format/png_image.h"

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* Measured on 32x32 pictures of clothes, 32x32 and 256x256 of smooth colour with noise: libpng's choice of a filter for
 * each row (least sum of differences) is the smallest or within 1 % of it on all three, at 40 us a 32x32 picture; level 6
 * saves up to 14 % over level 1, and level 9 less than 1 % more for up to half more time. Both are named here because a
 * default may change between releases, and the same request must give the same bytes. */
#define PNG_LEVEL 6
#define PNG_FILTERS PNG_ALL_FILTERS
#define PNG_WINDOW_BITS 15
#define PNG_MEMORY_LEVEL 8
#define CHUNK_CACHE_MAX 16
#define CHUNK_BYTES_MAX (1u << 20)

typedef struct png_task {
    png_structp png;
    png_infop info;
    char message[128]; /* libpng's, copied before the jump */

    /* Encoding: what was written so far. */
    unsigned char *bytes;
    size_t used, capacity;

    /* Decoding: what there is to read, and the picture. */
    const unsigned char *input;
    size_t input_count, input_at;
    uint8_t *pixels;
    uint32_t width, height, channels;
    dn_status status;
} png_task;

static void on_error(png_structp png, png_const_charp message)
{
    png_task *task = png_get_error_ptr(png);
    strncpy(task->message, message, sizeof task->message - 1);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void append(png_structp png, png_bytep data, size_t count)
{
    png_task *task = png_get_io_ptr(png);
    if (count > task->capacity - task->used) {
        size_t capacity = task->capacity * 2 > task->used + count ? task->capacity * 2 : task->used + count;
        unsigned char *larger = realloc(task->bytes, capacity);
        if (!larger) {
            task->status = DN_NO_MEMORY;
            png_error(png, "out of memory");
        }
        task->bytes = larger;
        task->capacity = capacity;
    }
    memcpy(task->bytes + task->used, data, count);
    task->used += count;
}

static void flush_nothing(png_structp png)
{
    (void)png;
}

static void consume(png_structp png, png_bytep data, size_t count)
{
    png_task *task = png_get_io_ptr(png);
    if (count > task->input_count - task->input_at) {
        png_error(png, "ends too early");
    }
    memcpy(data, task->input + task->input_at, count);
    task->input_at += count;
}

static bool is_ascii(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text >= 0x80) {
            return false;
        }
    }
    return true;
}

/* The PNG specification's rule for keywords: printable Latin-1, no space at either end nor two in a row. */
static bool is_keyword(const char *key)
{
    size_t bytes = strlen(key);
    if (bytes < 1 || bytes > 79 || key[0] == ' ' || key[bytes - 1] == ' ' || strstr(key, "  ")) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)key[i];
        if (byte < 0x20 || (byte > 0x7E && byte < 0xA1)) {
            return false;
        }
    }
    return true;
}

static void write_texts(png_task *task, const dn_png_text *texts, size_t text_count)
{
    for (size_t i = 0; i < text_count; i++) {
        bool ascii = is_ascii(texts[i].text);
        png_text chunk = {
            .compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
            .key = (png_charp)texts[i].key,
            .text = (png_charp)texts[i].text,
            .text_length = ascii ? strlen(texts[i].text) : 0,
            .itxt_length = ascii ? 0 : strlen(texts[i].text),
        };
        png_set_text(task->png, task->info, &chunk, 1);
    }
}

/* Everything that may jump while encoding. */
static bool encode(png_task *task, const uint8_t *pixels, const dn_png_text *texts, size_t text_count)
{
    if (setjmp(png_jmpbuf(task->png))) {
        return false;
    }
    png_set_write_fn(task->png, task, append, flush_nothing);
    png_set_user_limits(task->png, DN_IMAGE_SIDE_MAX * 16, DN_IMAGE_SIDE_MAX * 16);
    png_set_IHDR(task->png, task->info, task->width, task->height, 8, task->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(task->png, PNG_LEVEL);
    png_set_compression_window_bits(task->png, PNG_WINDOW_BITS);
    png_set_compression_mem_level(task->png, PNG_MEMORY_LEVEL);
    png_set_filter(task->png, PNG_FILTER_TYPE_BASE, PNG_FILTERS);
    write_texts(task, texts, text_count);
    png_write_info(task->png, task->info);
    size_t stride = (size_t)task->width * task->channels;
    for (uint32_t y = 0; y < task->height; y++) {
        png_write_row(task->png, pixels + y * stride);
    }
    png_write_end(task->png, NULL);
    return true;
}

static dn_status check_picture(uint32_t width, uint32_t height, uint32_t channels, dn_error *error)
{
    if (channels != 1 && channels != 3) {
        return dn_fail(error, DN_INVALID, "PNG: %u channels (1 or 3 are possible)", channels);
    }
    /* A contact sheet is larger than any one picture. */
    if (width == 0 || height == 0 || width > DN_IMAGE_SIDE_MAX * 16 || height > DN_IMAGE_SIDE_MAX * 16) {
        return dn_fail(error, DN_INVALID, "PNG: a picture of %ux%u pixels", width, height);
    }
    return DN_OK;
}

dn_status dn_png_encode(unsigned char **out, size_t *out_bytes, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels,
                        const dn_png_text *texts, size_t text_count, dn_error *error)
{
    dn_status status = check_picture(width, height, channels, error);
    for (size_t i = 0; status == DN_OK && i < text_count; i++) {
        if (!is_keyword(texts[i].key)) {
            status = dn_fail(error, DN_INVALID, "PNG: \"%.80s\" is no keyword", texts[i].key);
        }
    }
    if (status != DN_OK) {
        return status;
    }
    png_task task = {.width = width, .height = height, .channels = channels, .status = DN_INTERNAL};
    task.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &task, on_error, on_warning);
    task.info = task.png ? png_create_info_struct(task.png) : NULL;
    if (!task.info) {
        status = dn_fail(error, DN_NO_MEMORY, "PNG: out of memory");
    } else if (!encode(&task, pixels, texts, text_count)) {
        status = dn_fail(error, task.status, "PNG: %s", task.message);
    } else {
        *out = task.bytes;
        *out_bytes = task.used;
        task.bytes = NULL;
    }
    png_destroy_write_struct(&task.png, &task.info);
    free(task.bytes);
    return status;
}

static void set_limits(png_task *task, uint32_t side_max)
{
    png_set_user_limits(task->png, side_max, side_max);
    png_set_chunk_cache_max(task->png, CHUNK_CACHE_MAX);
    png_set_chunk_malloc_max(task->png, CHUNK_BYTES_MAX);
    png_set_crc_action(task->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_benign_errors(task->png, 0);
    /* -1: every chunk but IHDR, PLTE, tRNS, IDAT and IEND is skipped, so no text or profile is ever unpacked. */
    png_set_keep_unknown_chunks(task->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
}

/* Asks libpng for 8 bits of grey, RGB or palette index; jumps when the picture has transparency. */
static void choose_form(png_task *task)
{
    png_byte type = png_get_color_type(task->png, task->info), depth = png_get_bit_depth(task->png, task->info);
    if ((type & PNG_COLOR_MASK_ALPHA) || png_get_valid(task->png, task->info, PNG_INFO_tRNS)) {
        task->status = DN_UNSUPPORTED;
        png_error(task->png, "transparency is not supported");
    }
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_packing(task->png); /* one index a byte; libpng would expand an index beyond the palette to black */
    } else if (depth < 8) {
        png_set_expand_gray_1_2_4_to_8(task->png);
    }
    if (depth == 16) {
        png_set_scale_16(task->png);
    }
}

/* Palette indices become RGB; one that the palette does not have is a refusal. */
static void expand_palette(png_task *task)
{
    png_colorp palette = NULL;
    int colours = 0;
    size_t count = (size_t)task->width * task->height;
    uint8_t *indices = task->pixels, *pixels = calloc(count, 3);
    if (!pixels || png_get_PLTE(task->png, task->info, &palette, &colours) == 0) {
        free(pixels);
        task->status = DN_NO_MEMORY;
        png_error(task->png, "out of memory");
    }
    for (size_t i = 0; i < count; i++) {
        if (indices[i] >= colours) {
            free(pixels);
            png_error(task->png, "a pixel's colour is not in the palette");
        }
        const png_color *colour = &palette[indices[i]];
        memcpy(pixels + 3 * i, (const uint8_t[]){colour->red, colour->green, colour->blue}, 3);
    }
    task->pixels = pixels;
    task->channels = 3;
    free(indices);
}

/* Everything that may jump while decoding. */
static bool decode(png_task *task, uint32_t side_max)
{
    if (setjmp(png_jmpbuf(task->png))) {
        return false;
    }
    png_set_read_fn(task->png, task, consume);
    set_limits(task, side_max);
    png_read_info(task->png, task->info);
    choose_form(task);
    int passes = png_set_interlace_handling(task->png);
    png_read_update_info(task->png, task->info);
    task->width = png_get_image_width(task->png, task->info);
    task->height = png_get_image_height(task->png, task->info);
    task->channels = png_get_channels(task->png, task->info);
    size_t stride = (size_t)task->width * task->channels;
    if ((task->channels != 1 && task->channels != 3) || png_get_rowbytes(task->png, task->info) != stride) {
        task->status = DN_UNSUPPORTED;
        png_error(task->png, "neither grey nor RGB");
    }
    task->pixels = calloc(task->height, stride);
    if (!task->pixels) {
        task->status = DN_NO_MEMORY;
        png_error(task->png, "out of memory");
    }
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t y = 0; y < task->height; y++) {
            png_read_row(task->png, task->pixels + y * stride, NULL);
        }
    }
    png_read_end(task->png, NULL);
    if (png_get_color_type(task->png, task->info) == PNG_COLOR_TYPE_PALETTE) {
        expand_palette(task);
    }
    return true;
}

dn_status dn_png_decode(uint8_t **out, uint32_t *width, uint32_t *height, uint32_t *channels, const unsigned char *bytes, size_t count,
                        uint32_t side_max, dn_error *error)
{
    if (count < 8 || png_sig_cmp(bytes, 0, 8) != 0) {
        return dn_fail(error, DN_INVALID, "PNG: not a PNG file");
    }
    png_task task = {.input = bytes, .input_count = count, .status = DN_INVALID};
    task.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &task, on_error, on_warning);
    task.info = task.png ? png_create_info_struct(task.png) : NULL;
    dn_status status = DN_OK;
    if (!task.info) {
        status = dn_fail(error, DN_NO_MEMORY, "PNG: out of memory");
    } else if (!decode(&task, side_max)) {
        status = dn_fail(error, task.status, "PNG: %s", task.message);
    } else if (task.input_at != count) {
        status = dn_fail(error, DN_INVALID, "PNG: bytes behind the picture");
    } else {
        *out = task.pixels;
        *width = task.width;
        *height = task.height;
        *channels = task.channels;
        task.pixels = NULL;
    }
    png_destroy_read_struct(&task.png, &task.info, NULL);
    free(task.pixels);
    return status;
}
