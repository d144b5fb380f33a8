/* Weight files that are damaged, or change while they are read: a model opens as what its hash says, or not at all. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "model/model.h"
#include "tests/test.h"

#define MODEL "tests/golden/tiny/unet/"
#define FOLDER "build/test_hostile_model"
#define WEIGHTS "diffusion_pytorch_model.safetensors"
#define FLIPS 1000
#define OPENINGS 200

static unsigned char *bytes;
static size_t count;
static char honest_sha256[65];

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 20261122;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static void prepare(void)
{
    dn_error error = {DN_OK, ""};
    unsigned char *config = NULL;
    size_t config_bytes = 0;
    dn_model *model = NULL;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK_OK(dn_file_read(&config, &config_bytes, MODEL "config.json", 1 << 20, &error), error);
    CHECK_OK(dn_file_write(FOLDER "/config.json", config, config_bytes, false, &error), error);
    free(config);
    CHECK_OK(dn_file_read(&bytes, &count, MODEL WEIGHTS, 1 << 24, &error), error);
    CHECK_OK(dn_file_write(FOLDER "/" WEIGHTS, bytes, count, false, &error), error);
    CHECK_OK(dn_model_open(&model, FOLDER, 0, 0, &error), error);
    snprintf(honest_sha256, sizeof honest_sha256, "%s", model->weights_sha256);
    dn_model_free(model);
}

/* One bit anywhere in the file: refused by its name, or opened under another hash. */
static void a_thousand_flipped_bits(void)
{
    unsigned opened = 0, refused = 0;
    const int fd = open(FOLDER "/" WEIGHTS, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (int i = test_rounds(FLIPS); i > 0 && !test_failed; i--) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        /* Half of them where the header is: most of the file is numbers. */
        const uint32_t at = draw(2) ? draw((uint32_t)count) : draw(8 + bytes[0] + ((uint32_t)bytes[1] << 8));
        const unsigned char flipped = bytes[at] ^ (unsigned char)(1u << draw(8));
        bool written = pwrite(fd, &flipped, 1, at) == 1;
        dn_status status = dn_model_open(&model, FOLDER, 0, 0, &error);
        bool other = model != NULL && strcmp(model->weights_sha256, honest_sha256) != 0;
        dn_model_free(model);
        written = pwrite(fd, bytes + at, 1, at) == 1 && written;
        opened += status == DN_OK;
        refused += status != DN_OK;
        if (!written || (status == DN_OK ? !other : strstr(error.message, WEIGHTS) == NULL)) {
            close(fd);
            CHECK_MSG(false, "byte %u to 0x%02x: %s \"%s\"", at, flipped, dn_status_name(status), error.message);
        }
    }
    close(fd);
    CHECK_MSG(opened > 0 && refused > 0, "%u opened, %u refused", opened, refused);
    printf("hostile files: %u flipped bits, %u refused, %u opened under another hash\n", opened + refused, refused, opened);
}

static atomic_bool stop;

/* Cuts the file anywhere and puts it back, again and again. */
static void *cut_and_mend(void *payload)
{
    const int fd = *(const int *)payload;
    uint32_t at = 7;
    while (!atomic_load(&stop)) {
        at = (at * 1103515245u + 12345u) % (uint32_t)count;
        if (ftruncate(fd, at) != 0 || pwrite(fd, bytes + at, count - at, at) != (ssize_t)(count - at))
            break;
    }
    return NULL;
}

static void a_file_that_shrinks_and_grows_while_it_is_read(void)
{
    pthread_t thread;
    unsigned refused = 0;
    int fd = open(FOLDER "/" WEIGHTS, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK(pthread_create(&thread, NULL, cut_and_mend, &fd) == 0);
    bool named = true;
    for (int i = test_rounds(OPENINGS); i > 0; i--) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        if (dn_model_open(&model, FOLDER, 0, 0, &error) != DN_OK) {
            refused++;
            named = named && strstr(error.message, WEIGHTS) != NULL;
        }
        dn_model_free(model);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    CHECK(pwrite(fd, bytes, count, 0) == (ssize_t)count && ftruncate(fd, (off_t)count) == 0);
    close(fd);
    CHECK_MSG(named, "a refusal without the file's name");
    printf("hostile files: %u of %d openings refused while the file changed\n", refused, test_rounds(OPENINGS));
}

static void a_change_is_noticed_and_a_rename_is_none(void)
{
    static const char path[] = FOLDER "/" WEIGHTS;
    const struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    CHECK(utimensat(AT_FDCWD, path, past, 0) == 0);
    CHECK_OK(dn_tensors_open(&tensors, path, &error), error);
    CHECK_OK(dn_tensors_unchanged(tensors, &error), error);
    CHECK_OK(dn_file_write(path, bytes, count, false, &error), error);
    CHECK_OK(dn_tensors_unchanged(tensors, &error), error);
    dn_tensors_close(tensors);
    tensors = NULL;
    CHECK(utimensat(AT_FDCWD, path, past, 0) == 0);
    CHECK_OK(dn_tensors_open(&tensors, path, &error), error);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, bytes, 1, 0) == 1);
    close(fd);
    const dn_status status = dn_tensors_unchanged(tensors, &error);
    dn_tensors_close(tensors);
    CHECK_MSG(status == DN_IO && strcmp(error.message, FOLDER "/" WEIGHTS ": the file was changed while it was read") == 0, "%s",
              error.message);
}

int main(void)
{
    RUN(prepare);
    RUN(a_thousand_flipped_bits);
    RUN(a_change_is_noticed_and_a_rename_is_none);
    RUN(a_file_that_shrinks_and_grows_while_it_is_read);
    free(bytes);
    return test_end();
}
