/* The codec against diffusers' autoencoder: decode, encode, tiles, previews, the identity; and what it promises of threads. */
#include "base/pixel.h"
#include "tests/engine/network_golden.h"

#include <pthread.h>

#include "batch/codec_private.h"

#define ERROR_MAX 1e-5

static dn_device *device;
static dn_error error;

static dn_codec_options options_of(uint32_t channels, uint32_t height, uint32_t width)
{
    return (dn_codec_options){.backend = dn_backend_cpu(), .device = device, .channels = channels, .height = height, .width = width};
}

static float *random_latents(size_t count, uint64_t seed)
{
    float *x = malloc(count * sizeof *x);
    dn_noise_normal(x, count, 0, seed, DN_STREAM_START, 0);
    return x;
}

/* The pipeline's stored latents (scaled) decode to its stored picture, within one level of its bytes. */
static void decodes_the_pipelines_latents(void)
{
    dn_safetensors *file = NULL;
    dn_codec *codec = NULL;
    CHECK_OK(dn_safetensors_open(&file, "tests/golden/pipe_dit_ddpm10_cfg4/case.safetensors", &error), error);
    const dn_codec_options options = options_of(4, 8, 8);
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    const dn_codec_info *info = dn_codec_about(codec);
    CHECK(info->channels == 3 && info->height == 64 && info->width == 64 && !info->identity && !info->tiled);
    CHECK(strlen(info->weights_sha256) == 64 && dn_codec_bytes(codec) > 100000);
    size_t count = 0, latents_count = 0;
    float *latents = golden_tensor(file, "latents_in_vae", &latents_count), *decoded = golden_tensor(file, "decoded", &count);
    float *bytes = golden_tensor(file, "image_u8", NULL);
    CHECK(latents != NULL && decoded != NULL && bytes != NULL && count == 2 * 3 * 64 * 64 && latents_count == 2 * 4 * 8 * 8);
    float picture[3 * 64 * 64];
    uint8_t pixels[64 * 64 * 3];
    for (size_t i = 0; i < latents_count; i++)
        latents[i] *= 0.18215f; /* stored unscaled, as the pipeline hands them to the autoencoder */
    for (size_t r = 0; r < 2; r++) {
        CHECK_OK(dn_codec_decode_floats(codec, latents + r * 256, picture, &error), error);
        CHECK_OK(dn_codec_decode(codec, latents + r * 256, pixels, &error), error);
        double off = relative_error(picture, decoded + r * 3 * 64 * 64, 3 * 64 * 64), level = 0.0;
        for (size_t i = 0; i < sizeof pixels; i++)
            level = fmax(level, fabs((double)pixels[i] - (double)bytes[r * sizeof pixels + i]));
        CHECK_MSG(off <= ERROR_MAX && level <= 1.0, "row %zu: off by %.2e, by %g levels", r, off, level);
    }
    free(bytes);
    free(decoded);
    free(latents);
    dn_codec_close(codec);
    dn_safetensors_close(file);
}

/* Pictures that are decoded together have the bytes that each has alone; more of them than a run takes go in several. */
static void company_does_not_change_a_decode(void)
{
    enum { MANY = 19, LATENT = 4 * 8 * 8, PICTURE = 64 * 64 * 3 };
    static uint8_t alone[MANY][PICTURE], together[MANY][PICTURE];
    static const uint32_t rows[] = {0, 1, 3, DN_CODEC_ROWS_MAX, 1000};
    float *latents = random_latents(MANY * LATENT, 11);
    const float *in[MANY];
    uint8_t *out[MANY];
    dn_codec *codec = NULL;
    size_t bytes[5];
    for (uint32_t i = 0; i < MANY; i++) {
        in[i] = latents + i * LATENT;
        out[i] = together[i];
    }
    for (size_t k = 0; k < 5; k++) {
        dn_codec_options options = options_of(4, 8, 8);
        options.rows_max = rows[k];
        CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
        for (uint32_t i = 0; k == 0 && i < MANY; i++)
            CHECK_OK(dn_codec_decode(codec, in[i], alone[i], &error), error);
        memset(together, 0, sizeof together);
        CHECK_OK(dn_codec_decode_many(codec, in, out, MANY, &error), error);
        CHECK_MSG(memcmp(alone, together, sizeof alone) == 0, "other pictures with runs of %u", rows[k]);
        CHECK(dn_codec_rows(codec) == (rows[k] < 1 ? 1 : rows[k] > DN_CODEC_ROWS_MAX ? DN_CODEC_ROWS_MAX : rows[k]));
        bytes[k] = dn_codec_bytes(codec);
        dn_codec_close(codec);
    }
    CHECK_MSG(bytes[0] == bytes[1] && bytes[1] < bytes[2] && bytes[2] < bytes[3] && bytes[3] == bytes[4], "rows are not counted in bytes");
    free(latents);
}

/* Encoding the golden image, which is not made of bytes, is compared by way of the encoder; here: a picture of bytes, twice. */
static void encodes_pictures(void)
{
    dn_codec *codec = NULL;
    dn_model *encoder = NULL;
    const dn_codec_options options = options_of(4, 5, 7);
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_default", &options, &error), error);
    CHECK_OK(dn_model_open_part(&encoder, "tests/golden/vae_default", DN_AUTOENCODER_ENCODER, 10, 14, &error), error);
    uint8_t pixels[10 * 14 * 3];
    float picture[3 * 10 * 14], mean[4 * 5 * 7], sample[4 * 5 * 7], again[4 * 5 * 7];
    for (size_t i = 0; i < sizeof pixels; i++) {
        pixels[i] = (uint8_t)(i * 37 % 256);
        picture[i % 3 * 140 + i / 3] = (float)pixels[i] / 127.5f - 1.0f;
    }
    float *answers = run_network(encoder, &(dn_forward_rows){1, picture, NULL, NULL}, NULL, &error);
    size_t before = dn_codec_bytes(codec);
    CHECK_OK(dn_codec_encode(codec, pixels, 5, false, mean, &error), error);
    CHECK_OK(dn_codec_encode(codec, pixels, 5, true, sample, &error), error);
    CHECK_OK(dn_codec_encode(codec, pixels, 5, true, again, &error), error);
    CHECK(answers != NULL && memcmp(sample, again, sizeof sample) == 0 && dn_codec_bytes(codec) > before);
    float noise[4 * 5 * 7];
    dn_noise_normal(noise, 140, 0, 5, DN_STREAM_ENCODE, 0);
    for (size_t i = 0; i < 140; i++) {
        double expected = 0.18215 * (double)answers[i], spread = exp(0.5 * fmin(fmax((double)answers[140 + i], -30.0), 20.0));
        CHECK_MSG(fabs((double)mean[i] - expected) <= 1e-5, "mean %zu: %g, not %g", i, (double)mean[i], expected);
        expected = 0.18215 * ((double)answers[i] + spread * (double)noise[i]);
        CHECK_MSG(fabs((double)sample[i] - expected) <= 2e-5 * (1.0 + fabs(expected)), "sample %zu: %g, not %g", i, (double)sample[i],
                  expected);
    }
    CHECK_OK(dn_codec_encode(codec, pixels, 6, true, again, &error), error);
    CHECK(memcmp(sample, again, sizeof sample) != 0);
    free(answers);
    dn_model_free(encoder);
    dn_codec_close(codec);
}

enum { SIDE = 4, STEP = 3, FACTOR = 8, EXTENT = 8, TILE = 3 * 32 * 32 };

/* One tile of latents [4][height][width], decoded whole by a codec of its own size. */
static bool decode_alone(float *tile, const float *latents, uint32_t height, uint32_t width, uint32_t y, uint32_t x)
{
    const uint32_t h = height - y < SIDE ? height - y : SIDE, w = width - x < SIDE ? width - x : SIDE;
    dn_codec *codec = NULL;
    const dn_codec_options options = options_of(4, h, w);
    float crop[4 * SIDE * SIDE];
    for (uint32_t i = 0; i < 4 * h * w; i++)
        crop[i] = latents[i / (h * w) * height * width + (y + i / w % h) * width + x + i % w];
    bool ok = dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error) == DN_OK &&
              dn_codec_decode_floats(codec, crop, tile, &error) == DN_OK;
    dn_codec_close(codec);
    return ok;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static float share(uint32_t line, uint32_t lines)
{
    return (float)((double)line / (double)lines);
}

static float rest(uint32_t line, uint32_t lines)
{
    return (float)(1.0 - (double)line / (double)lines);
}

/* A plain restatement of diffusers' tiled_decode: every tile in place, blended with the finished one above, then with the left one. */
static bool decode_by_tiles(float *picture, const float *latents, uint32_t height, uint32_t width)
{
    float *tiles = calloc(9, TILE * sizeof *tiles);
    bool ok = true;
    for (uint32_t y = 0, row = 0; y < height; y += STEP, row++) {
        for (uint32_t x = 0, column = 0; x < width; x += STEP, column++) {
            float *b = tiles + (row * 3 + column) * TILE;
            const float *above = b - 3 * TILE, *left = b - TILE;
            const uint32_t h = least(SIDE, height - y) * FACTOR, w = least(SIDE, width - x) * FACTOR;
            ok = ok && decode_alone(b, latents, height, width, y, x);
            for (uint32_t i = 0; row > 0 && i < least(h, EXTENT); i++)
                for (uint32_t k = 0; k < 3 * w; k++) {
                    float *to = &b[(k / w * h + i) * w + k % w];
                    *to = above[(k / w * 32 + 32 - least(h, EXTENT) + i) * w + k % w] * rest(i, least(h, EXTENT)) +
                          *to * share(i, least(h, EXTENT));
                }
            for (uint32_t i = 0; column > 0 && i < least(w, EXTENT); i++)
                for (uint32_t k = 0; k < 3 * h; k++)
                    b[k * w + i] =
                        left[k * 32 + 32 - least(w, EXTENT) + i] * rest(i, least(w, EXTENT)) + b[k * w + i] * share(i, least(w, EXTENT));
            for (uint32_t k = 0; k < 3 * least(h, STEP * FACTOR); k++) {
                const uint32_t kept = least(h, STEP * FACTOR), c = k / kept, line = k % kept;
                memcpy(picture + ((size_t)c * height * FACTOR + y * FACTOR + line) * width * FACTOR + x * FACTOR, b + (c * h + line) * w,
                       least(w, STEP * FACTOR) * sizeof *b);
            }
        }
    }
    free(tiles);
    return ok;
}

static void tiles_are_blended_as_diffusers_does(void)
{
    static const uint32_t sizes[][2] = {{4, 5}, {5, 4}, {7, 6}, {8, 8}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const uint32_t height = sizes[i][0], width = sizes[i][1];
        dn_codec *codec = NULL;
        dn_codec_options options = options_of(4, height, width);
        options.tiling = true;
        float *picture = malloc(3 * 64 * 64 * sizeof *picture), *expected = malloc(3 * 64 * 64 * sizeof *expected);
        float *latents = random_latents(4 * height * width, width);
        CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
        CHECK(dn_codec_about(codec)->tiled);
        CHECK_OK(dn_codec_decode_floats(codec, latents, picture, &error), error);
        CHECK_MSG(decode_by_tiles(expected, latents, height, width), "%s", error.message);
        double off = relative_error(picture, expected, 3 * 64 * height * width);
        free(latents);
        free(expected);
        free(picture);
        dn_codec_close(codec);
        CHECK_MSG(off == 0.0, "%ux%u: off by %.2e", height, width, off);
    }
}

static void tiles_give_the_picture_of_diffusers(void)
{
    dn_safetensors *file = NULL;
    dn_codec *codec = NULL;
    dn_codec_options options = options_of(4, 7, 6);
    options.tiling = true;
    CHECK_OK(dn_safetensors_open(&file, "tests/golden/vae_4lvl_tiled/case.safetensors", &error), error);
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    size_t count = 0;
    float *latents = golden_tensor(file, "latent", NULL), *decoded = golden_tensor(file, "decoded", &count);
    CHECK(latents != NULL && decoded != NULL && count == 3 * 56 * 48);
    float picture[3 * 56 * 48];
    for (size_t i = 0; i < 4 * 7 * 6; i++)
        latents[i] *= 0.18215f;
    CHECK_OK(dn_codec_decode_floats(codec, latents, picture, &error), error);
    double off = relative_error(picture, decoded, count);
    free(decoded);
    free(latents);
    dn_codec_close(codec);
    dn_safetensors_close(file);
    CHECK_MSG(off <= ERROR_MAX, "off by %.2e", off);
}

/* Little memory tiles what plenty decodes whole; a latent no larger than a tile is never tiled. */
static void tiles_are_for_what_is_large(void)
{
    dn_codec *whole = NULL, *tiled = NULL, *forced = NULL, *small = NULL;
    dn_codec_options options = options_of(4, 7, 6);
    CHECK_OK(dn_codec_open(&whole, "tests/golden/vae_4lvl", &options, &error), error);
    options.workspace_bytes_max = 1000;
    CHECK_OK(dn_codec_open(&forced, "tests/golden/vae_4lvl", &options, &error), error);
    options.workspace_bytes_max = 0;
    options.tiling = true;
    CHECK_OK(dn_codec_open(&tiled, "tests/golden/vae_4lvl", &options, &error), error);
    options.height = options.width = 4;
    CHECK_OK(dn_codec_open(&small, "tests/golden/vae_4lvl", &options, &error), error);
    CHECK(!dn_codec_about(whole)->tiled && dn_codec_about(forced)->tiled && dn_codec_about(tiled)->tiled && !dn_codec_about(small)->tiled);
    enum { COUNT = 3 * 56 * 48 };
    float *latents = random_latents(4 * 7 * 6, 9), *a = malloc(3 * COUNT * sizeof *a), *b = a + COUNT, *c = b + COUNT;
    CHECK_OK(dn_codec_decode_floats(whole, latents, a, &error), error);
    CHECK_OK(dn_codec_decode_floats(tiled, latents, b, &error), error);
    CHECK_OK(dn_codec_decode_floats(forced, latents, c, &error), error);
    CHECK(memcmp(b, c, COUNT * sizeof *b) == 0 && memcmp(a, b, COUNT * sizeof *b) != 0);
    free(a);
    free(latents);
    dn_codec_close(small);
    dn_codec_close(forced);
    dn_codec_close(tiled);
    dn_codec_close(whole);
}

static void previews_follow_the_map(void)
{
    dn_codec *codec = NULL, *again = NULL, *without = NULL;
    dn_codec_options options = options_of(4, 8, 8);
    CHECK_OK(dn_codec_open(&without, "tests/golden/vae_4lvl", &options, &error), error);
    options.preview = true;
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    CHECK_OK(dn_codec_open(&again, "tests/golden/vae_4lvl", &options, &error), error);
    float *latents = random_latents(256, 3), *zero = calloc(256, sizeof *zero);
    uint8_t a[8 * 8 * 3], b[8 * 8 * 3], flat[8 * 8 * 3];
    CHECK_OK(dn_codec_preview(codec, latents, a, &error), error);
    CHECK_OK(dn_codec_preview(again, latents, b, &error), error);
    CHECK_OK(dn_codec_preview(codec, zero, flat, &error), error);
    CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(a, flat, sizeof a) != 0);
    for (size_t i = 3; i < sizeof flat; i++)
        CHECK(flat[i] == flat[i - 3]);
    CHECK(dn_codec_preview(without, latents, a, &error) != DN_OK);
    free(zero);
    free(latents);
    dn_codec_close(without);
    dn_codec_close(again);
    dn_codec_close(codec);
}

/* Means over 8x8 pixels of one channel. */
static double block_mean(const float *picture, uint32_t channel, uint32_t y, uint32_t x)
{
    double sum = 0.0;
    for (uint32_t k = 0; k < 64; k++)
        sum += (double)picture[(channel * 64 + y * 8 + k / 8) * 64 + x * 8 + k % 8];
    return sum / 64.0;
}

/* The normal equations hold: of the latents that the fit draws (patches of 4x4 from one seed), the errors of the map are
 * orthogonal to every latent channel and to the constant, but for the ridge. */
static void previews_are_a_least_squares_fit(void)
{
    dn_codec *codec = NULL;
    dn_codec_options options = options_of(4, 8, 8);
    options.preview = true;
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    float latents[256], values[16];
    float *picture = malloc(3 * 64 * 64 * sizeof *picture);
    dn_noise_normal(values, 16, 0, UINT64_C(0x7072657669657773), DN_STREAM_PROBE, 0);
    for (uint32_t i = 0; i < 256; i++)
        latents[i] = values[i / 64 * 4 + i % 64 / 32 * 2 + i % 8 / 4];
    CHECK_OK(dn_codec_decode_floats(codec, latents, picture, &error), error);
    for (uint32_t c = 0; c < 3; c++) {
        const float *map = codec->preview + c * 5;
        double size = 0.0;
        for (uint32_t k = 0; k < 5; k++) {
            double slope = -0.064 * (double)map[k]; /* a ridge of 1e-3 over 64 pixels */
            for (uint32_t p = 0; p < 64; p++) {
                double value = (double)map[4], want = block_mean(picture, c, p / 8, p % 8);
                for (uint32_t j = 0; j < 4; j++)
                    value += (double)map[j] * (double)latents[j * 64 + p];
                slope += (want - value) * (k == 4 ? 1.0 : (double)latents[k * 64 + p]);
                size += fabs(want);
            }
            CHECK_MSG(fabs(slope) <= 1e-5 * (1.0 + size), "channel %u, term %u: the slope is %.2e", c, k, slope);
        }
        CHECK(size > 1.0 && fabs((double)map[0]) > 1e-4);
    }
    free(picture);
    dn_codec_close(codec);
}

static void the_identity_rounds(void)
{
    dn_codec *codec = NULL;
    const dn_codec_options options = options_of(3, 4, 5);
    CHECK_OK(dn_codec_open(&codec, NULL, &options, &error), error);
    CHECK(dn_codec_about(codec)->identity && dn_codec_about(codec)->height == 4 && dn_codec_about(codec)->channels == 3);
    uint8_t pixels[60], back[60], preview[60];
    float latents[60];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 4 + 3);
    CHECK_OK(dn_codec_encode(codec, pixels, 0, true, latents, &error), error);
    CHECK(latents[20] == dn_pixel_to_signed(pixels[1])); /* element order (c*H + h)*W + w */
    CHECK_OK(dn_codec_decode(codec, latents, back, &error), error);
    CHECK_OK(dn_codec_preview(codec, latents, preview, &error), error);
    CHECK(memcmp(pixels, back, sizeof pixels) == 0 && memcmp(pixels, preview, sizeof pixels) == 0);
    for (unsigned b = 0; b < 256; b++)
        CHECK(dn_pixel_from_signed(dn_pixel_to_signed((uint8_t)b)) == b);
    CHECK(dn_pixel(0.0f, true) == 0 && dn_pixel(1.0f, true) == 255 && dn_pixel(0.2f, true) == 51);
    CHECK(dn_pixel_from_signed(NAN) == 0 && dn_pixel_from_signed(-7.0f) == 0 && dn_pixel_from_signed(1.5f) == 255);
    CHECK(dn_pixel_from_signed(-1.0f + 2.0f * 0.5f / 255.0f) == 0 && dn_pixel_from_signed(-1.0f + 2.0f * 1.51f / 255.0f) == 2);
    dn_codec_close(codec);
}

typedef struct decoding {
    pthread_t thread;
    dn_codec *codec;
    const float *latents;
    float picture[3 * 64 * 64];
    dn_status status;
} decoding;

static void *decode_thread(void *payload)
{
    decoding *d = payload;
    for (int i = 0; i < 3 && d->status == DN_OK; i++)
        d->status = dn_codec_decode_floats(d->codec, d->latents, d->picture, NULL);
    return NULL;
}

static void threads_take_turns(void)
{
    dn_codec *codec = NULL, *alone = NULL;
    dn_codec_options options = options_of(4, 8, 8);
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    options.inline_threads = true;
    CHECK_OK(dn_codec_open(&alone, "tests/golden/vae_4lvl", &options, &error), error);
    float *latents = random_latents(3 * 256, 11), *expected = malloc(3 * 64 * 64 * sizeof *expected);
    decoding *all = calloc(3, sizeof *all);
    for (size_t i = 0; i < 3; i++) {
        all[i].codec = codec;
        all[i].latents = latents + i * 256;
        CHECK(pthread_create(&all[i].thread, NULL, decode_thread, &all[i]) == 0);
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(all[i].thread, NULL);
    for (size_t i = 0; i < 3; i++) {
        CHECK_OK(dn_codec_decode_floats(alone, latents + i * 256, expected, &error), error);
        CHECK(all[i].status == DN_OK && memcmp(expected, all[i].picture, sizeof all[i].picture) == 0);
    }
    free(all);
    free(expected);
    free(latents);
    dn_codec_close(alone);
    dn_codec_close(codec);
}

static void what_does_not_fit_is_refused(void)
{
    static const struct {
        const char *folder, *rule;
        uint32_t channels;
    } cases[] = {
        {"tests/golden/vae_4lvl", "4 channels", 8}, {"tests/golden/dit_nosigma", "AutoencoderKL", 4}, {"tests/golden/none", "none", 4}};
    for (size_t i = 0; i < 3; i++) {
        dn_codec *codec = NULL;
        const dn_codec_options options = options_of(cases[i].channels, 8, 8);
        dn_status status = dn_codec_open(&codec, cases[i].folder, &options, &error);
        CHECK_MSG(status != DN_OK && strstr(error.message, cases[i].rule), "%s: \"%s\"", cases[i].folder, error.message);
    }
    dn_codec *codec = NULL;
    const dn_codec_options options = options_of(4, 8, 8);
    CHECK_OK(dn_codec_open(&codec, "tests/golden/vae_4lvl", &options, &error), error);
    float *latents = random_latents(256, 1), *picture = malloc(3 * 64 * 64 * sizeof *picture);
    latents[17] = NAN;
    dn_status status = dn_codec_decode_floats(codec, latents, picture, &error);
    free(picture);
    free(latents);
    dn_codec_close(codec);
    CHECK_MSG(status == DN_NUMERIC, "%s", error.message);
}

int main(void)
{
    const dn_device_options options = {.threads = 2};
    if (dn_backend_cpu()->device_open(&device, &options, &error) != DN_OK) {
        printf("FAIL codec: %s\n", error.message);
        return 1;
    }
    RUN(decodes_the_pipelines_latents);
    RUN(company_does_not_change_a_decode);
    RUN(encodes_pictures);
    RUN(tiles_are_blended_as_diffusers_does);
    RUN(tiles_give_the_picture_of_diffusers);
    RUN(tiles_are_for_what_is_large);
    RUN(previews_follow_the_map);
    RUN(previews_are_a_least_squares_fit);
    RUN(the_identity_rounds);
    RUN(threads_take_turns);
    RUN(what_does_not_fit_is_refused);
    dn_backend_cpu()->device_close(device);
    return test_end();
}
