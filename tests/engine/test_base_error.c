/* Errors, arenas, files and clocks. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "tests/test.h"

#define FOLDER "build/test_base_error"

static void fail_fills_and_returns(void)
{
    dn_error error = {0};
    CHECK(dn_fail(&error, DN_IO, "%s: %d", "file", 7) == DN_IO);
    CHECK(error.status == DN_IO && strcmp(error.message, "file: 7") == 0);
    CHECK(dn_fail(NULL, DN_INVALID, "nobody listens") == DN_INVALID);
}

static void fail_reads_its_own_message(void)
{
    dn_error error = {0};
    dn_fail(&error, DN_IO, "inner");
    dn_fail(&error, DN_IO, "outer: %s", error.message);
    CHECK_MSG(strcmp(error.message, "outer: inner") == 0, "%s", error.message);
}

static void fail_cleans_its_message(void)
{
    dn_error error = {0};
    dn_fail(&error, DN_INVALID, "%s", "a\x1b[31m\nb\x7f");
    CHECK_MSG(strcmp(error.message, "a?[31m?b?") == 0, "%s", error.message);
    for (size_t pad = 505; pad < 512; pad++) {
        char text[600];
        memset(text, 'x', pad);
        strcpy(text + pad, "\xF0\x9F\x98\x80\xC3\xA9");
        dn_fail(&error, DN_INVALID, "%s", text);
        size_t length = strlen(error.message);
        unsigned char last = (unsigned char)error.message[length - 1];
        CHECK(length <= 511);
        CHECK_MSG(last == 'x' || last == 0x80 || last == 0xA9, "cut inside a sequence at %zu: %02x", pad, last);
        CHECK(length >= pad || pad > 511);
    }
}

static void status_names_are_distinct(void)
{
    for (int a = DN_INTERNAL; a <= DN_OK; a++) {
        for (int b = DN_INTERNAL; b < a; b++) {
            CHECK(strcmp(dn_status_name((dn_status)a), dn_status_name((dn_status)b)) != 0);
        }
    }
    CHECK(strcmp(dn_status_name(DN_NO_MEMORY), "no_memory") == 0);
}

static void arena_is_aligned_zeroed_and_limited(void)
{
    dn_arena arena;
    dn_arena_init(&arena, 1u << 20);
    size_t sizes[] = {1, 63, 64, 65, 4096, 70000, 100, 200000, 0, 8};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *memory = dn_arena_alloc(&arena, sizes[i]);
        CHECK(memory && (uintptr_t)memory % 64 == 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            CHECK(memory[k] == 0);
        }
        memset(memory, 0xAB, sizes[i]);
    }
    CHECK(dn_arena_alloc(&arena, 1u << 20) == NULL);
    CHECK(dn_arena_alloc(&arena, SIZE_MAX) == NULL);
    CHECK(dn_arena_alloc_array(&arena, SIZE_MAX / 2, 3) == NULL);
    CHECK(arena.total_bytes >= 274000 && arena.total_bytes <= (1u << 20));
    dn_arena_done(&arena);
    CHECK(arena.total_bytes == 0 && dn_arena_alloc(&arena, 10));
    dn_arena_done(&arena);
}

static void arena_copies_strings(void)
{
    dn_arena arena;
    dn_arena_init(&arena, 0);
    CHECK(strcmp(dn_arena_strdup(&arena, "down_blocks.0"), "down_blocks.0") == 0);
    dn_arena_done(&arena);
}

static void files_come_back_as_written(void)
{
    dn_error error = {0};
    unsigned char *bytes = NULL;
    size_t count = 0;
    CHECK_OK(dn_make_folder(FOLDER "/a/b/", &error), error);
    CHECK_OK(dn_make_folder(FOLDER "/a/b", &error), error);
    CHECK_OK(dn_file_write(FOLDER "/a/b/x", "one\0two", 7, true, &error), error);
    CHECK_OK(dn_file_read(&bytes, &count, FOLDER "/a/b/x", 7, &error), error);
    CHECK(count == 7 && memcmp(bytes, "one\0two", 8) == 0);
    free(bytes);
    CHECK_OK(dn_file_write(FOLDER "/a/b/x", "", 0, false, &error), error);
    CHECK_OK(dn_file_read(&bytes, &count, FOLDER "/a/b/x", 0, &error), error);
    CHECK(count == 0 && bytes[0] == 0);
    free(bytes);
    CHECK_OK(dn_file_read(&bytes, &count, "/proc/self/status", 1u << 20, &error), error);
    CHECK(count > 100 && strlen((char *)bytes) == count);
    free(bytes);
}

static void reading_refuses_what_is_no_file(void)
{
    dn_error error = {0};
    unsigned char *bytes = NULL;
    size_t count = 0;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    unlink(FOLDER "/fifo");
    CHECK(mkfifo(FOLDER "/fifo", 0600) == 0);
    CHECK_OK(dn_file_write(FOLDER "/big", "12345678", 8, false, &error), error);
    CHECK(dn_file_read(&bytes, &count, FOLDER "/fifo", 100, &error) == DN_INVALID);
    CHECK(dn_file_read(&bytes, &count, FOLDER, 100, &error) == DN_INVALID);
    CHECK(dn_file_read(&bytes, &count, FOLDER "/none", 100, &error) == DN_IO && strstr(error.message, "/none"));
    CHECK(dn_file_read(&bytes, &count, FOLDER "/big", 7, &error) == DN_INVALID);
    CHECK(dn_file_read(&bytes, &count, "/proc/self/status", 20, &error) == DN_INVALID);
    CHECK(bytes == NULL && count == 0);
    CHECK(dn_make_folder(FOLDER "/big", &error) == DN_INVALID);
    CHECK(dn_make_folder(FOLDER "/big/deeper", &error) != DN_OK);
    CHECK(dn_make_folder("", &error) == DN_INVALID);
}

static void symlinks_are_followed(void)
{
    dn_error error = {0};
    unsigned char *bytes = NULL;
    size_t count = 0;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK_OK(dn_file_write(FOLDER "/target", "abc", 3, false, &error), error);
    unlink(FOLDER "/link");
    CHECK(symlink("target", FOLDER "/link") == 0);
    CHECK_OK(dn_file_read(&bytes, &count, FOLDER "/link", 100, &error), error);
    CHECK(count == 3);
    free(bytes);
}

static void failed_writes_leave_nothing(void)
{
    dn_error error = {0};
    char temporary[200];
    CHECK_OK(dn_make_folder(FOLDER "/folder", &error), error);
    CHECK_OK(dn_file_write(FOLDER "/folder/kept", "k", 1, false, &error), error);
    CHECK(dn_file_write(FOLDER "/folder", "x", 1, false, &error) == DN_IO);
    snprintf(temporary, sizeof temporary, FOLDER "/folder.tmp.%ld", (long)getpid());
    CHECK(access(temporary, F_OK) != 0);
    CHECK(dn_file_write(FOLDER "/none/x", "x", 1, false, &error) == DN_IO);
}

static void only_plain_files_are_replaced(void)
{
    dn_error error = {0};
    struct stat info;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    unlink(FOLDER "/fifo");
    unlink(FOLDER "/link");
    CHECK(mkfifo(FOLDER "/fifo", 0600) == 0 && symlink("elsewhere", FOLDER "/link") == 0);
    CHECK(dn_file_write(FOLDER "/fifo", "x", 1, false, &error) == DN_INVALID && strstr(error.message, "/fifo"));
    CHECK(lstat(FOLDER "/fifo", &info) == 0 && S_ISFIFO(info.st_mode));
    CHECK(dn_file_write(FOLDER "/link", "x", 1, false, &error) == DN_INVALID);
    CHECK(lstat(FOLDER "/link", &info) == 0 && S_ISLNK(info.st_mode));
}

static void targets_are_checked_beforehand(void)
{
    dn_error error = {0};
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK_OK(dn_file_check_target(FOLDER "/new", &error), error);
    CHECK(access(FOLDER "/new", F_OK) != 0);
    CHECK_OK(dn_file_check_target("in_this_folder", &error), error);
    CHECK(dn_file_check_target("/in_the_root", &error) == (geteuid() == 0 ? DN_OK : DN_IO));
    CHECK(dn_file_check_target(FOLDER "/none/x", &error) == DN_IO && strstr(error.message, FOLDER "/none/x: "));
    CHECK(dn_file_check_target("/dev/null", &error) == DN_INVALID);
    CHECK(dn_file_write(FOLDER "/none/x", "x", 1, false, &error) == DN_IO);
    CHECK_MSG(strstr(error.message, FOLDER "/none/x: "), "%s", error.message); /* not the temporary name */
}

static void clocks_move_forward(void)
{
    double start = dn_now_seconds();
    usleep(2000);
    double passed = dn_now_seconds() - start;
    CHECK_MSG(passed >= 0.002 && passed < 10, "%g s", passed);
    CHECK(dn_wall_ms() > INT64_C(1700000000000));
}

int main(void)
{
    RUN(fail_fills_and_returns);
    RUN(fail_reads_its_own_message);
    RUN(fail_cleans_its_message);
    RUN(status_names_are_distinct);
    RUN(arena_is_aligned_zeroed_and_limited);
    RUN(arena_copies_strings);
    RUN(files_come_back_as_written);
    RUN(reading_refuses_what_is_no_file);
    RUN(symlinks_are_followed);
    RUN(failed_writes_leave_nothing);
    RUN(only_plain_files_are_replaced);
    RUN(targets_are_checked_beforehand);
    RUN(clocks_move_forward);
    return test_end();
}
