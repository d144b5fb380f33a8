/* safetensors files that nobody should load: each is refused in its own words, and none takes memory beyond its size and 64 MB. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/hostile/heap_peak.h"
#include "tests/hostile/safetensors_cases.h"
#include "tests/test.h"

#define FOLDER "build/test_hostile_safetensors"
#define PATH FOLDER "/bad.safetensors"
#define SPARE_BYTES (64u << 20)
#define HONEST "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"

static unsigned cases;

static void make(uint64_t length, const char *header, size_t header_bytes, size_t data_bytes)
{
    static const unsigned char zeros[4096];
    dn_file_part parts[] = {{&length, 8}, {header, header_bytes}, {zeros, data_bytes}};
    CHECK(dn_make_folder(FOLDER, NULL) == DN_OK && dn_file_write_parts(PATH, parts, 3, false, NULL) == DN_OK);
}

/* Opens PATH, which must be refused with this status and exactly these words behind the file's name. */
static void refused(dn_status status, const char *says, size_t file_bytes, const char *what)
{
    dn_error error = {DN_OK, ""};
    dn_safetensors *file = NULL;
    cases++;
    heap_peak_begin();
    dn_status got = dn_safetensors_open(&file, PATH, &error);
    const size_t most = heap_peak();
    dn_safetensors_close(file);
    CHECK_MSG(got == status && file == NULL && strncmp(error.message, PATH ": ", sizeof PATH + 1) == 0 &&
                  strcmp(error.message + sizeof PATH + 1, says) == 0,
              "%s: status %d, \"%s\", not %d, \"%s\"", what, got, error.message, status, says);
    CHECK_MSG(most <= file_bytes + SPARE_BYTES, "%s: %zu bytes of memory for a file of %zu", what, most, file_bytes);
}

static void every_case_is_refused_in_its_words(void)
{
    for (size_t i = 0; i < sizeof safetensors_cases / sizeof safetensors_cases[0] && !test_failed; i++) {
        const safetensors_case *c = &safetensors_cases[i];
        make(c->length == OWN ? c->header_bytes : c->length, c->header, c->header_bytes, c->data_bytes);
        if (!test_failed)
            refused(c->status, c->says, 8 + c->header_bytes + c->data_bytes, c->header);
    }
}

static void less_than_a_length(void)
{
    for (size_t bytes = 0; bytes < 8 && !test_failed; bytes++) {
        CHECK(dn_make_folder(FOLDER, NULL) == DN_OK &&
              dn_file_write(PATH, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", bytes, false, NULL) == DN_OK);
        refused(DN_INVALID, "shorter than 8 bytes", bytes, "a short file");
    }
    if (!test_failed)
        make(UINT64_MAX, "", 0, 0);
    if (!test_failed)
        refused(DN_INVALID, "header of 18446744073709551615 bytes (2 to 16777216 are allowed)", 8, "a length alone");
}

/* 65,537 tensors, 1,025 pairs of metadata, a name of 513 bytes and one of a megabyte, a million brackets. */
static void too_much_of_something(void)
{
    char *text = malloc(16 << 20), says[640];
    size_t used = (size_t)snprintf(text, 2, "{");
    for (unsigned i = 0; i <= 65536; i++)
        used += (size_t)snprintf(text + used, 128, "%s\"%u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
    used += (size_t)snprintf(text + used, 2, "}");
    make(used, text, used, 0);
    refused(DN_INVALID, "too many tensors", 8 + used, "65,537 tensors");
    used = (size_t)snprintf(text, 64, "{\"__metadata__\":{");
    for (unsigned i = 0; i < 1025; i++)
        used += (size_t)snprintf(text + used, 32, "%s\"%u\":\"\"", i ? "," : "", i);
    used += (size_t)snprintf(text + used, 4, "}}");
    make(used, text, used, 0);
    refused(DN_INVALID, "__metadata__ has too many entries", 8 + used, "1,025 pairs");
    static const int lengths[] = {513, 1 << 20};
    for (int i = 0; i < 2; i++) {
        used = (size_t)snprintf(text, 16 << 20, "{\"%0*d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", lengths[i], 0);
        snprintf(says, sizeof says, "tensor \"%040d...\": name longer than 512 bytes", 0);
        make(used, text, used, 0);
        refused(DN_INVALID, says, 8 + used, "a long name");
    }
    memset(text, '[', 1 << 20);
    memcpy(text, "{\"a\":", 5);
    make(1 << 20, text, 1 << 20, 0);
    refused(DN_INVALID, "header: byte 7: nested too deeply", 8 + (1 << 20), "a million brackets");
    free(text);
}

static void what_is_no_file(void)
{
    CHECK(dn_make_folder(FOLDER, NULL) == DN_OK);
    unlink(PATH);
    refused(DN_IO, "cannot open: No such file or directory", 0, "nothing");
    CHECK(mkfifo(PATH, 0600) == 0);
    refused(DN_INVALID, "not a regular file", 0, "a FIFO nobody writes to");
    unlink(PATH);
    CHECK(mkdir(PATH, 0700) == 0);
    refused(DN_INVALID, "not a regular file", 0, "a folder");
    rmdir(PATH);
    CHECK(symlink("/dev/zero", PATH) == 0);
    refused(DN_INVALID, "not a regular file", 0, "a link to a device without end");
    unlink(PATH);
    CHECK(symlink("bad.safetensors", PATH) == 0);
    refused(DN_IO, "cannot open: Too many levels of symbolic links", 0, "a link to itself");
    unlink(PATH);
    CHECK(symlink("nowhere", PATH) == 0);
    refused(DN_IO, "cannot open: No such file or directory", 0, "a link that leads nowhere");
    unlink(PATH);
}

/* Sparse: 65 GB that take no room. */
static void a_file_larger_than_any(void)
{
    int fd = open(PATH, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    CHECK(fd >= 0);
    const int made = ftruncate(fd, (off_t)65 << 30);
    close(fd);
    if (made != 0)
        SKIP("no sparse file of 65 GB here");
    refused(DN_INVALID, "larger than 68719476736 bytes", 0, "65 GB");
    unlink(PATH);
}

/* Cut, or another file put in its place, between opening and reading. */
static void a_file_that_changes_under_its_reader(void)
{
    dn_error error = {DN_OK, ""};
    dn_safetensors *file = NULL;
    float values[4] = {1, 1, 1, 1};
    make(sizeof HONEST - 1, HONEST, sizeof HONEST - 1, 16);
    CHECK_OK(dn_safetensors_open(&file, PATH, &error), error);
    const dn_tensor_info *a = dn_safetensors_find(file, "a");
    make(2, "{}", 2, 0); /* by renaming: the open file is still the old one */
    dn_status renamed = dn_safetensors_read_f32(file, a, values, &error);
    dn_safetensors_close(file);
    CHECK(renamed == DN_OK && values[0] == 0 && values[3] == 0);
    make(sizeof HONEST - 1, HONEST, sizeof HONEST - 1, 16);
    CHECK_OK(dn_safetensors_open(&file, PATH, &error), error);
    for (off_t left = 80; left >= 0 && !test_failed; left -= 20) {
        CHECK(truncate(PATH, left) == 0);
        dn_status cut = dn_safetensors_read_f32(file, dn_safetensors_find(file, "a"), values, &error);
        CHECK_MSG(cut == DN_IO && strcmp(error.message, PATH ": the file has shrunk since it was opened") == 0, "%s", error.message);
        cases++;
    }
    dn_safetensors_close(file);
    cases++;
}

int main(void)
{
    RUN(every_case_is_refused_in_its_words);
    RUN(less_than_a_length);
    RUN(too_much_of_something);
    RUN(what_is_no_file);
    RUN(a_file_larger_than_any);
    RUN(a_file_that_changes_under_its_reader);
    printf("hostile files: %u cases of safetensors\n", cases);
    return test_end();
}
