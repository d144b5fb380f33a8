/* PNG: what is written reads back with its text, the same bytes every time; hostile files are refused in time. */
#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

#include "base/clock.h"
#include "format/png_image.h"
#include "tests/test.h"

#define SIDE_MAX 64

static unsigned char made[1 << 21];
static size_t made_bytes;

static void put(const void *bytes, size_t count)
{
    memcpy(made + made_bytes, bytes, count);
    made_bytes += count;
}

static void put_u32(uint32_t value)
{
    const unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                                    (unsigned char)value};
    put(bytes, 4);
}

static void put_chunk(const char *type, const void *data, size_t count)
{
    put_u32((uint32_t)count);
    size_t start = made_bytes;
    put(type, 4);
    put(data, count);
    put_u32((uint32_t)crc32(0, made + start, (unsigned)(made_bytes - start)));
}

static void start(uint32_t width, uint32_t height, unsigned char depth, unsigned char type, unsigned char interlace)
{
    made_bytes = 0;
    put("\x89PNG\r\n\x1a\n", 8);
    unsigned char header[13] = {(unsigned char)(width >> 24),
                                (unsigned char)(width >> 16),
                                (unsigned char)(width >> 8),
                                (unsigned char)width,
                                (unsigned char)(height >> 24),
                                (unsigned char)(height >> 16),
                                (unsigned char)(height >> 8),
                                (unsigned char)height,
                                depth,
                                type,
                                0,
                                0,
                                interlace};
    put_chunk("IHDR", header, sizeof header);
}

/* Packs rows (each with its filter byte) into one IDAT, and ends the file. */
static void finish(const unsigned char *rows, size_t count)
{
    static unsigned char packed[1 << 20];
    uLongf packed_bytes = sizeof packed;
    compress2(packed, &packed_bytes, rows, count, 9);
    put_chunk("IDAT", packed, packed_bytes);
    put_chunk("IEND", "", 0);
}

static dn_status decode_made(uint8_t **pixels, uint32_t *channels, dn_error *error)
{
    uint32_t width = 0, height = 0;
    return dn_png_decode(pixels, &width, &height, channels, made, made_bytes, SIDE_MAX, error);
}

static void check_refused(dn_status expected, const char *what)
{
    dn_error error = {0};
    uint8_t *pixels = NULL;
    uint32_t channels = 0;
    dn_status status = decode_made(&pixels, &channels, &error);
    CHECK_MSG(status == expected && !pixels, "%s: %d %s", what, status, error.message);
}

static void pictures_round_trip(void)
{
    static uint8_t pixels[64 * 64 * 3];
    const uint32_t sizes[][2] = {{1, 1}, {2, 3}, {32, 32}, {64, 5}, {7, 64}};
    for (size_t i = 0; i < sizeof pixels; i++) {
        pixels[i] = (uint8_t)(i * 37 + i / 91);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            dn_error error = {0};
            unsigned char *file = NULL, *again = NULL;
            uint8_t *back = NULL;
            size_t bytes = 0, again_bytes = 0;
            uint32_t width = 0, height = 0, back_channels = 0;
            CHECK_OK(dn_png_encode(&file, &bytes, pixels, sizes[i][0], sizes[i][1], channels, NULL, 0, &error), error);
            CHECK_OK(dn_png_encode(&again, &again_bytes, pixels, sizes[i][0], sizes[i][1], channels, NULL, 0, &error), error);
            CHECK(bytes == again_bytes && memcmp(file, again, bytes) == 0);
            CHECK_OK(dn_png_decode(&back, &width, &height, &back_channels, file, bytes, SIDE_MAX, &error), error);
            CHECK(width == sizes[i][0] && height == sizes[i][1] && back_channels == channels);
            CHECK(memcmp(back, pixels, (size_t)width * height * channels) == 0);
            free(file);
            free(again);
            free(back);
        }
    }
}

static void text_round_trips(void)
{
    static const uint8_t pixel[3] = {1, 2, 3};
    const dn_png_text texts[] = {{"Software", "denoised"}, {"parameters", "{\"class\":\"caf\xC3\xA9 \xF0\x9F\x98\x80\"}"}, {"Empty", ""}};
    dn_error error = {0};
    unsigned char *file = NULL;
    char *text = NULL;
    size_t bytes = 0;
    CHECK_OK(dn_png_encode(&file, &bytes, pixel, 1, 1, 3, texts, 3, &error), error);
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(dn_png_read_text(&text, file, bytes, texts[i].key, &error), error);
        CHECK(strcmp(text, texts[i].text) == 0);
        free(text);
    }
    CHECK(dn_png_read_text(&text, file, bytes, "Soft", &error) == DN_INVALID);
    CHECK(dn_png_read_text(&text, file, bytes, "", &error) == DN_INVALID);
    for (size_t cut = 0; cut < bytes; cut++) {
        char *found = NULL;
        unsigned char *copy = malloc(cut ? cut : 1);
        memcpy(copy, file, cut);
        if (dn_png_read_text(&found, copy, cut, "Empty", &error) == DN_OK) {
            free(found);
        }
        free(copy);
    }
    file[60] ^= 1;
    CHECK(dn_png_read_text(&text, file, bytes, "Empty", &error) == DN_INVALID && strstr(error.message, "checksum"));
    free(file);
}

static void latin1_text_becomes_utf8(void)
{
    dn_error error = {0};
    char *text = NULL;
    start(1, 1, 8, 0, 0);
    put_chunk("tEXt", "Author\0J\xFCrg", 11);
    put_chunk("iTXt", "Zipped\0\1\0\0\0xx", 13);
    put_chunk("iTXt", "Short\0\0", 7);
    put_chunk("iTXt", "Cut\0\0\0en", 8);
    finish((const unsigned char *)"\0\x80", 2);
    CHECK_OK(dn_png_read_text(&text, made, made_bytes, "Author", &error), error);
    CHECK(strcmp(text, "J\xC3\xBCrg") == 0);
    free(text);
    CHECK(dn_png_read_text(&text, made, made_bytes, "Zipped", &error) == DN_INVALID);
    CHECK(dn_png_read_text(&text, made, made_bytes, "Short", &error) == DN_INVALID);
    CHECK(dn_png_read_text(&text, made, made_bytes, "Cut", &error) == DN_INVALID);
}

static void encoding_refuses_nonsense(void)
{
    static const uint8_t pixel[3] = {0};
    const char *const keys[] = {
        "", " a", "a ", "a  b", "tab\t", "\x80", "0123456789012345678901234567890123456789012345678901234567890123456789012345678901"};
    dn_error error = {0};
    unsigned char *file = NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        dn_png_text text = {keys[i], "x"};
        CHECK(dn_png_encode(&file, &bytes, pixel, 1, 1, 3, &text, 1, &error) == DN_INVALID && !file);
    }
    CHECK(dn_png_encode(&file, &bytes, pixel, 0, 1, 3, NULL, 0, &error) == DN_INVALID);
    CHECK(dn_png_encode(&file, &bytes, pixel, 1, 1, 2, NULL, 0, &error) == DN_INVALID);
    CHECK(dn_png_encode(&file, &bytes, pixel, 1, 1, 4, NULL, 0, &error) == DN_INVALID && !file);
}

static void other_forms_become_8_bits(void)
{
    dn_error error = {0};
    uint8_t *pixels = NULL;
    uint32_t channels = 0;
    start(4, 1, 1, 0, 0);
    finish((const unsigned char *)"\0\xA0", 2);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(channels == 1 && memcmp(pixels, "\xFF\0\xFF\0", 4) == 0);
    free(pixels);
    start(2, 1, 16, 0, 0);
    finish((const unsigned char *)"\0\x12\x34\xFF\xFF", 5);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(channels == 1 && pixels[0] == 0x12 && pixels[1] == 0xFF);
    free(pixels);
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", "\1\2\3\4\5\6", 6);
    finish((const unsigned char *)"\0\1\0", 3);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(channels == 3 && memcmp(pixels, "\4\5\6\1\2\3", 6) == 0);
    free(pixels);
    start(3, 1, 1, 3, 0); /* three indices in one byte */
    put_chunk("PLTE", "\1\2\3\4\5\6", 6);
    finish((const unsigned char *)"\0\xA0", 2);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(channels == 3 && memcmp(pixels, "\4\5\6\1\2\3\4\5\6", 9) == 0);
    free(pixels);
    start(2, 2, 8, 0, 1); /* interlaced: passes of 1, 1 and 2 pixels */
    finish((const unsigned char *)"\0\1\0\2\0\3\4", 7);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(memcmp(pixels, "\1\2\3\4", 4) == 0);
    free(pixels);
}

static void transparency_is_unsupported(void)
{
    static const unsigned char row[9] = {0};
    start(1, 1, 8, 6, 0);
    finish(row, 5);
    check_refused(DN_UNSUPPORTED, "RGBA");
    start(1, 1, 8, 4, 0);
    finish(row, 3);
    check_refused(DN_UNSUPPORTED, "grey with alpha");
    start(1, 1, 8, 2, 0);
    put_chunk("tRNS", "\0\0\0\0\0\0", 6);
    finish(row, 4);
    check_refused(DN_UNSUPPORTED, "RGB with a transparent colour");
    start(1, 1, 8, 3, 0);
    put_chunk("PLTE", "\1\2\3", 3);
    put_chunk("tRNS", "\0", 1);
    finish(row, 2);
    check_refused(DN_UNSUPPORTED, "palette with transparency");
}

static void limits_are_checked_before_memory(void)
{
    static const unsigned char rows[65 * 66];
    const uint32_t sizes[][2] = {{65, 1}, {1, 65}, {65535, 65535},  {0x7FFFFFFF, 0x7FFFFFFF},
                                 {0, 1},  {1, 0},  {0xFFFFFFFF, 1}, {0x80000000, 4}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        start(sizes[i][0], sizes[i][1], 8, 0, 0);
        finish(rows, sizeof rows);
        check_refused(DN_INVALID, "size");
    }
    start(64, 64, 8, 0, 0);
    finish(rows, 64 * 65);
    dn_error error = {0};
    uint8_t *pixels = NULL;
    uint32_t channels = 0;
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    free(pixels);
}

static void wrong_headers_are_refused(void)
{
    static const unsigned char row[100];
    const unsigned char forms[][3] = {{3, 0, 0}, {0, 0, 0}, {32, 0, 0}, {4, 2, 0}, {16, 3, 0}, {8, 1, 0}, {8, 5, 0}, {8, 7, 0}, {8, 0, 2}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        start(4, 4, forms[i][0], forms[i][1], forms[i][2]);
        finish(row, 20);
        check_refused(DN_INVALID, "depth, type or interlace");
    }
    start(2, 1, 8, 3, 0);
    finish(row, 3);
    check_refused(DN_INVALID, "palette missing");
    start(2, 1, 8, 0, 0);
    finish((const unsigned char *)"\7ab", 3);
    check_refused(DN_INVALID, "filter 7");
    start(8, 8, 8, 0, 0);
    finish(row, 30);
    check_refused(DN_INVALID, "too few rows");
    start(2, 1, 8, 0, 0);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "no IDAT");
    start(2, 1, 8, 0, 0);
    put_chunk("IDAT", "not zlib", 8);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "IDAT is no zlib stream");
    start(2, 1, 8, 0, 0);
    put_chunk("XXXX", "critical", 8);
    finish(row, 3);
    check_refused(DN_INVALID, "unknown critical chunk");
    start(2, 1, 8, 0, 0);
    finish(row, 3);
    put("tail", 4);
    check_refused(DN_INVALID, "bytes behind");
}

static void other_files_are_refused(void)
{
    const char *const files[] = {
        "", "\x89PN", "GIF89a..........", "\xFF\xD8\xFF\xE0..JFIF......", "<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "<!doctype html>"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        made_bytes = 0;
        put(files[i], strlen(files[i]));
        check_refused(DN_INVALID, files[i]);
    }
}

/* Each byte of a good file cut off or changed: a refusal or a picture, never a fault; the sums catch nearly all. */
static void cuts_and_flips_never_fault(void)
{
    static uint8_t pixels[16 * 16 * 3];
    const dn_png_text text = {"key", "value"};
    dn_error error = {0};
    unsigned char *file = NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof pixels; i++) {
        pixels[i] = (uint8_t)(i * i);
    }
    CHECK_OK(dn_png_encode(&file, &bytes, pixels, 16, 16, 3, &text, 1, &error), error);
    for (size_t cut = 0; cut < bytes; cut++) {
        made_bytes = 0;
        put(file, cut);
        check_refused(DN_INVALID, "cut");
    }
    for (size_t at = 0; at < bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            uint8_t *back = NULL;
            uint32_t channels = 0;
            made_bytes = 0;
            put(file, bytes);
            made[at] ^= (unsigned char)(1 << bit);
            CHECK_MSG(decode_made(&back, &channels, &error) != DN_OK && !back, "bit %d of byte %zu", bit, at);
        }
    }
    free(file);
}

/* Bombs: text and profiles that unpack to megabytes, 10^5 chunks. All skipped, quickly. */
static void bombs_are_skipped(void)
{
    static unsigned char zeros[4 << 20], packed[8192 + 64];
    memcpy(packed, "name\0\0", 6);
    uLongf packed_bytes = sizeof packed - 6;
    compress2(packed + 6, &packed_bytes, zeros, sizeof zeros, 9);
    dn_error error = {0};
    uint8_t *pixels = NULL;
    uint32_t channels = 0;
    double begin = dn_now_seconds();
    start(2, 1, 8, 0, 0);
    for (int i = 0; i < 100; i++) {
        put_chunk(i % 2 ? "zTXt" : "iCCP", packed, packed_bytes + 6);
    }
    for (int i = 0; i < 70000; i++) {
        put_chunk("tEXt", "a", 1);
    }
    finish((const unsigned char *)"\0ab", 3);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(memcmp(pixels, "ab", 2) == 0);
    free(pixels);
    CHECK_MSG(dn_now_seconds() - begin < 2, "%g s", dn_now_seconds() - begin);
}

/* More pixels packed into IDAT than the header says: a few thousand bytes that unpack to megabytes are not unpacked whole. */
static void too_many_pixels_are_refused(void)
{
    static const unsigned char zeros[64 << 20];
    double begin = dn_now_seconds();
    start(2, 1, 8, 0, 0);
    finish(zeros, 1 << 20);
    check_refused(DN_INVALID, "IDAT of a megabyte");
    start(2, 1, 8, 0, 0);
    finish(zeros, sizeof zeros);
    check_refused(DN_INVALID, "IDAT of 64 megabytes");
    start(2, 1, 8, 0, 0);
    finish(zeros, 4);
    check_refused(DN_INVALID, "one byte too many");
    CHECK_MSG(dn_now_seconds() - begin < 5, "%g s", dn_now_seconds() - begin);
}

static void palettes_are_checked(void)
{
    static unsigned char colours[3 * 300];
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", "\1\2\3", 3);
    finish((const unsigned char *)"\0\0\1", 3);
    check_refused(DN_INVALID, "index beyond the palette");
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", colours, sizeof colours);
    finish((const unsigned char *)"\0\0\0", 3);
    check_refused(DN_INVALID, "palette of 300 colours");
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", colours, 4);
    finish((const unsigned char *)"\0\0\0", 3);
    check_refused(DN_INVALID, "palette of a colour and a third");
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", "\1\2\3", 3);
    put_chunk("tRNS", colours, 300);
    finish((const unsigned char *)"\0\0\0", 3);
    check_refused(DN_INVALID, "more transparency than colours");
}

static void chunks_in_the_wrong_order(void)
{
    static const unsigned char header[13] = {0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0};
    static const unsigned char packed[] = {0x78, 0x9c, 0x63, 0x60, 0x60, 0x00, 0x00, 0x00, 0x03, 0x00, 0x01}; /* 0, 0, 0 */
    made_bytes = 0;
    put("\x89PNG\r\n\x1a\n", 8);
    put_chunk("IDAT", packed, sizeof packed);
    put_chunk("IHDR", header, 13);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "IDAT first");
    start(2, 1, 8, 0, 0);
    put_chunk("IHDR", header, 13);
    put_chunk("IDAT", packed, sizeof packed);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "two headers");
    start(2, 1, 8, 3, 0);
    put_chunk("IDAT", packed, sizeof packed);
    put_chunk("PLTE", "\1\2\3", 3);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "palette behind the pixels");
    start(2, 1, 8, 3, 0);
    put_chunk("PLTE", "\1\2\3", 3);
    put_chunk("PLTE", "\1\2\3", 3);
    put_chunk("IDAT", packed, sizeof packed);
    put_chunk("IEND", "", 0);
    check_refused(DN_INVALID, "two palettes");
    start(2, 1, 8, 0, 0);
    put_chunk("IDAT", packed, sizeof packed);
    put_chunk("IEND", "x", 1);
    check_refused(DN_INVALID, "an end that is not empty");
    start(2, 1, 8, 0, 0);
    put_chunk("IDAT", packed, sizeof packed);
    check_refused(DN_INVALID, "no end");
}

/* The frames of an animation are chunks like any others: the picture is the first one. */
static void an_animation_is_its_first_picture(void)
{
    static const unsigned char control[8] = {0, 0, 0, 2, 0, 0, 0, 0}, frame[26] = {0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1};
    dn_error error = {0};
    uint8_t *pixels = NULL;
    uint32_t channels = 0;
    start(2, 1, 8, 0, 0);
    put_chunk("acTL", control, sizeof control);
    put_chunk("fcTL", frame, sizeof frame);
    put_chunk("fdAT", "\0\0\0\1rubbish", 11);
    finish((const unsigned char *)"\0ab", 3);
    CHECK_OK(decode_made(&pixels, &channels, &error), error);
    CHECK(channels == 1 && memcmp(pixels, "ab", 2) == 0);
    free(pixels);
}

static void contact_sheets_are_laid_out(void)
{
    static const uint8_t a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8}, c[] = {9, 10, 11, 12};
    static const uint8_t expected[] = {1,   2,   255, 5,  6,   3,   4,   255, 7,  8,   255, 255, 255,
                                       255, 255, 9,   10, 255, 255, 255, 11,  12, 255, 255, 255};
    const uint8_t *const pictures[] = {a, b, c};
    dn_error error = {0};
    uint8_t *sheet = NULL;
    uint32_t width = 0, height = 0;
    CHECK_OK(dn_contact_sheet(&sheet, &width, &height, pictures, 3, 2, 2, 1, 2, 1, &error), error);
    CHECK(width == 5 && height == 5 && memcmp(sheet, expected, sizeof expected) == 0);
    free(sheet);
    CHECK_OK(dn_contact_sheet(&sheet, &width, &height, pictures, 2, 1, 1, 3, 9, 0, &error), error);
    CHECK(width == 2 && height == 1 && memcmp(sheet, "\1\2\3\5\6\7", 6) == 0);
    free(sheet);
    sheet = NULL;
    CHECK(dn_contact_sheet(&sheet, &width, &height, pictures, 0, 2, 2, 1, 2, 1, &error) == DN_INVALID);
    CHECK(dn_contact_sheet(&sheet, &width, &height, pictures, 3, 2, 2, 1, 0, 1, &error) == DN_INVALID);
    CHECK(dn_contact_sheet(&sheet, &width, &height, pictures, 4000000000u, 4096, 4096, 3, 2, 1, &error) == DN_INVALID && !sheet);
}

int main(void)
{
    RUN(pictures_round_trip);
    RUN(text_round_trips);
    RUN(latin1_text_becomes_utf8);
    RUN(encoding_refuses_nonsense);
    RUN(other_forms_become_8_bits);
    RUN(transparency_is_unsupported);
    RUN(limits_are_checked_before_memory);
    RUN(wrong_headers_are_refused);
    RUN(other_files_are_refused);
    RUN(cuts_and_flips_never_fault);
    RUN(bombs_are_skipped);
    RUN(too_many_pixels_are_refused);
    RUN(palettes_are_checked);
    RUN(chunks_in_the_wrong_order);
    RUN(an_animation_is_its_first_picture);
    RUN(contact_sheets_are_laid_out);
    return test_end();
}
