/* A tiny trained network and the hashes of its images, one for each instruction set: random networks miss drift that a
 * trained one shows. The hashes stand in tests/golden/tiny/hashes.txt.
 *
 *     test_pinned_images --write     (in the repository root)
 *
 * writes them anew for the instruction sets of this machine, and keeps those of other machines: only together with a raised
 * DN_NUMERICS_VERSION, or where the file says nothing yet of this version. An AArch64 is emulated for it (tests/arm/run.sh). */
#include "tests/test.h"

#include "backend/cpu/isa.h"
#include "base/file.h"
#include "base/sha256.h"
#include "engine.h"

#define TINY "tests/golden/tiny"
#define HASHES TINY "/hashes.txt"
#define IMAGES 8

static dn_error error;
static const char *current_isa;
static char written[4096];

static dn_lane_spec image_spec(uint32_t index)
{
    static const char *const samplers[] = {"dpmpp_2m", "ddim", "heun", "euler", "euler_ancestral", "ddpm", "model", "dpmpp_2m"};
    dn_lane_spec spec = {
        .seed = 42 + index, .has_class = index != 5, .class_index = index % 10, .guidance_scale = index % 3 == 0 ? 2.0 : 1.0, .steps = 10};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", samplers[index]);
    return spec;
}

/* The hash of all images' pixels, and how much of them is neither black nor white (a broken model has little else). */
static void make_hash(char hex[DN_SHA256_HEX_BYTES], double *grey)
{
    dn_engine *engine = NULL;
    dn_engine_options options = {.threads = 1, .isa = current_isa};
    dn_lane_spec specs[IMAGES];
    unsigned char digest[DN_SHA256_BYTES];
    size_t between = 0;
    for (uint32_t i = 0; i < IMAGES; i++)
        specs[i] = image_spec(i);
    CHECK_OK(dn_engine_open(&engine, TINY, &options, &error), error);
    size_t count = IMAGES * dn_engine_elements(engine);
    uint8_t *pixels = malloc(count);
    CHECK_OK(dn_generate(engine, specs, IMAGES, pixels, NULL, NULL, NULL, &error), error);
    for (size_t i = 0; i < count; i++)
        between += pixels[i] > 8 && pixels[i] < 247;
    *grey = (double)between / (double)count;
    dn_sha256_of(digest, pixels, count);
    dn_sha256_hex(hex, digest);
    free(pixels);
    dn_engine_close(engine);
}

/* The pinned hash of this instruction set and numerics version; empty when the file has none. */
static void pinned_hash(char hex[DN_SHA256_HEX_BYTES])
{
    char wanted[64];
    unsigned char *text = NULL;
    size_t bytes = 0;
    hex[0] = '\0';
    snprintf(wanted, sizeof wanted, "numerics %d %s ", DN_NUMERICS_VERSION, current_isa);
    if (dn_file_read(&text, &bytes, HASHES, 65536, &error) != DN_OK)
        return;
    const char *line = strstr((const char *)text, wanted);
    if (line != NULL && strlen(line) >= strlen(wanted) + 64)
        snprintf(hex, DN_SHA256_HEX_BYTES, "%.64s", line + strlen(wanted));
    free(text);
}

/* Every commit is tried on an x86-64, other machines' hashes may be pinned later. */
static bool is_x86(const char *isa)
{
    return strcmp(isa, "neon") != 0 && strcmp(isa, "generic") != 0;
}

static bool is_of_this_machine(const char *isa)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(isas[i].kernels->isa, isa) == 0)
            return true;
    return false;
}

/* The file again, with the lines of this machine's instruction sets replaced by `written`. */
static dn_status write_hashes(void)
{
    unsigned char *before = NULL;
    size_t bytes = 0, used = strlen(written);
    dn_status status = dn_file_read(&before, &bytes, HASHES, 65536, &error);
    char *rest = NULL;
    for (char *line = status == DN_OK ? strtok_r((char *)before, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest)) {
        char isa[16] = "";
        if (sscanf(line, "numerics %*d %15s", isa) == 1 && !is_of_this_machine(isa) && used + strlen(line) + 2 < sizeof written)
            used += (size_t)snprintf(written + used, sizeof written - used, "%s\n", line);
    }
    free(before);
    return status == DN_OK ? dn_file_write(HASHES, written, used, false, &error) : status;
}

static void images_are_the_pinned_ones(void)
{
    char made[DN_SHA256_HEX_BYTES], pinned[DN_SHA256_HEX_BYTES];
    const char *variant = getenv("TEST_VARIANT");
    double grey = 0.0;
    if (variant != NULL && strcmp(variant, "release") != 0)
        SKIP("the bytes are promised for one build, and this is the %s sanitizer's", variant);
    dn_device *device = NULL;
    dn_device_options options = {.threads = 1, .isa = current_isa};
    if (dn_backend_cpu()->device_open(&device, &options, &error) != DN_OK)
        SKIP("%s", error.message);
    dn_backend_cpu()->device_close(device);
    make_hash(made, &grey);
    if (test_failed)
        return;
    CHECK_MSG(grey > 0.1, "only %.3f of the pixels are neither black nor white", grey);
    size_t used = strlen(written);
    snprintf(written + used, sizeof written - used, "numerics %d %s %s\n", DN_NUMERICS_VERSION, current_isa, made);
    pinned_hash(pinned);
    if (pinned[0] == '\0' && !is_x86(current_isa))
        SKIP("no hash is pinned for numerics %d, %s", DN_NUMERICS_VERSION, current_isa);
    CHECK_MSG(strcmp(made, pinned) == 0, "numerics %d, %s: the images have the hash %s, pinned is %s", DN_NUMERICS_VERSION, current_isa,
              made, pinned[0] ? pinned : "none");
}

int main(int argc, char **argv)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    for (size_t i = count; i-- > 0;) {
        char label[64];
        current_isa = isas[i].kernels->isa;
        snprintf(label, sizeof label, "images_are_the_pinned_ones_%s", current_isa);
        test_run(label, images_are_the_pinned_ones);
    }
    if (argc == 2 && strcmp(argv[1], "--write") == 0 && write_hashes() != DN_OK)
        fprintf(stderr, "%s\n", error.message);
    return test_end();
}
