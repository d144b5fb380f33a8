/* Bits that turned over in a model's files: whatever they hit, the model opens or is refused in words that name the file. Under the
 * sanitizers this is also the proof that nothing is read or written out of bounds, and nothing is lost. */
#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "model/model.h"

#define BASE "tests/golden/unet_default"
#define FLIPS 400
#define FLIPS_AT_ONCE 3

static char folder[64];
static uint64_t state = 20261122;

static uint32_t draw(size_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % (uint32_t)below;
}

typedef struct part {
    const char *name;
    unsigned char *bytes;
    size_t count, exposed; /* bytes that may turn over */
} part;

static dn_status put(const part *p, dn_error *error)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, p->name);
    return dn_file_write(path, p->bytes, p->count, false, error);
}

/* The golden file's bytes, here and in the folder. */
static dn_status copy(part *p, dn_error *error)
{
    char path[160];
    snprintf(path, sizeof path, BASE "/%s", p->name);
    dn_status status = dn_file_read(&p->bytes, &p->count, path, 1 << 24, error);
    return status == DN_OK ? put(p, error) : status;
}

static void bits_that_turned_over(void)
{
    part parts[] = {{.name = "config.json"}, {.name = "diffusion_pytorch_model.safetensors"}};
    dn_error error = {DN_OK, ""};
    unsigned opened = 0, refused = 0;
    CHECK_OK(dn_make_folder(folder, &error), error);
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(copy(&parts[i], &error), error);
        parts[i].exposed = i == 0 ? parts[i].count : 8 + (size_t)parts[i].bytes[0] + ((size_t)parts[i].bytes[1] << 8);
    }
    for (unsigned flip = 0; flip < FLIPS; flip++) {
        part *p = &parts[draw(4) > 0];
        size_t at[FLIPS_AT_ONCE];
        for (size_t i = 0; i < FLIPS_AT_ONCE; i++) {
            at[i] = draw(p->exposed);
            p->bytes[at[i]] ^= (unsigned char)(1u << draw(8));
        }
        CHECK_OK(put(p, &error), error);
        dn_model *model = NULL;
        error = (dn_error){DN_OK, ""};
        dn_status status = draw(2) ? dn_model_open(&model, folder, 0, 0, &error) : dn_model_describe(&model, folder, 0, 0, &error);
        CHECK_MSG((status == DN_OK) == (model != NULL), "flip %u: %s", flip, error.message);
        CHECK_MSG(status == DN_OK || strstr(error.message, folder) != NULL, "flip %u: \"%s\" names no file", flip, error.message);
        opened += status == DN_OK;
        refused += status != DN_OK;
        dn_model_free(model);
        free(p->bytes);
        CHECK_OK(copy(p, &error), error);
    }
    CHECK_MSG(refused > FLIPS / 2 && opened > 0, "%u opened, %u refused", opened, refused);
    for (size_t i = 0; i < 2; i++)
        free(parts[i].bytes);
}

int main(void)
{
    char path[160];
    snprintf(folder, sizeof folder, "/tmp/denoised-damage-%ld", (long)getpid());
    RUN(bits_that_turned_over);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    unlink(path);
    rmdir(folder);
    return test_end();
}
