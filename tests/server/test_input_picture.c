/* Given pictures: form and size, and grey from RGB as other programs round it. */
#include "format/png_image.h"
#include "server/input_picture.h"
#include "tests/test.h"

static unsigned char *png_of(size_t *bytes, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels)
{
    unsigned char *png = NULL;
    return dn_png_encode(&png, bytes, pixels, width, height, channels, NULL, 0, NULL) == DN_OK ? png : NULL;
}

static void pictures_take_the_models_channels(void)
{
    static const uint8_t rgb[6] = {255, 0, 0, 10, 200, 77}, grey[2] = {7, 250};
    uint8_t *out = NULL;
    size_t bytes = 0;
    unsigned char *png = png_of(&bytes, rgb, 2, 1, 3);
    CHECK(png && input_picture_decode(&out, png, bytes, 2, 1, 1, NULL) == DN_OK);
    CHECK(out[0] == 76 && out[1] == 129); /* Pillow's convert("L") */
    free(out);
    CHECK(input_picture_decode(&out, png, bytes, 2, 1, 3, NULL) == DN_OK);
    CHECK(memcmp(out, rgb, 6) == 0);
    free(out);
    free(png);
    png = png_of(&bytes, grey, 2, 1, 1);
    CHECK(png && input_picture_decode(&out, png, bytes, 2, 1, 3, NULL) == DN_OK);
    CHECK(out[0] == 7 && out[1] == 7 && out[2] == 7 && out[5] == 250);
    free(out);
    free(png);
}

static void other_sizes_and_broken_files_are_refused(void)
{
    static const uint8_t grey[4] = {1, 2, 3, 4};
    uint8_t *out = NULL;
    size_t bytes = 0;
    dn_error error = {DN_OK, ""};
    unsigned char *png = png_of(&bytes, grey, 4, 1, 1);
    CHECK(png && input_picture_decode(&out, png, bytes, 2, 2, 1, &error) == DN_INVALID && !out);
    CHECK_MSG(strcmp(error.message, "it has 4 x 1 pixels, and the model's pictures 2 x 2") == 0, "%s", error.message);
    for (size_t cut = 0; cut < bytes; cut++) {
        unsigned char *part = malloc(cut ? cut : 1);
        CHECK(part);
        memcpy(part, png, cut);
        dn_status status = input_picture_decode(&out, part, cut, 4, 1, 1, NULL);
        free(part);
        CHECK_MSG(status == DN_INVALID && !out, "cut at %zu", cut);
    }
    free(png);
}

int main(void)
{
    RUN(pictures_take_the_models_channels);
    RUN(other_sizes_and_broken_files_are_refused);
    return test_end();
}
