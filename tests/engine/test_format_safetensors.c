/* safetensors: every type read, what is written reads back, damage never faults. Files that are wrong: tests/hostile. */
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "format/safetensors.h"
#include "tests/test.h"

#define FOLDER "build/test_format_safetensors"
#define A_F32_4 "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"

/* Writes length, header and data_bytes zeros. A negative length means the header's own. */
static dn_status make_file(const char *path, long long length, const char *header, size_t header_bytes, size_t data_bytes)
{
    static const unsigned char zeros[4096];
    uint64_t stated = length < 0 ? header_bytes : (uint64_t)length;
    dn_file_part parts[] = {{&stated, 8}, {header, header_bytes}, {zeros, data_bytes}};
    return dn_file_write_parts(path, parts, 3, false, NULL);
}

static void refusals_name_the_tensor(void)
{
    dn_error error = {0};
    dn_safetensors *file = NULL;
    static const char header[] = "{\"mid_block.weight\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}";
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK(make_file(FOLDER "/named.safetensors", -1, header, sizeof header - 1, 16) == DN_OK);
    CHECK(dn_safetensors_open(&file, FOLDER "/named.safetensors", &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "mid_block.weight") && strstr(error.message, "named.safetensors"), "%s", error.message);
}

/* A good file cut at every byte, and with every byte of its header changed: refused or read, never a fault. */
static void cuts_and_flips_never_fault(void)
{
    static const char header[] =
        "{\"__metadata__\":{\"k\":\"v\"}," A_F32_4 ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[16,24]}}";
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error error = {0};
    dn_safetensors *file = NULL;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK(make_file(FOLDER "/good", -1, header, sizeof header - 1, 24) == DN_OK);
    CHECK_OK(dn_file_read(&bytes, &count, FOLDER "/good", 1000, &error), error);
    for (size_t cut = 0; cut < count; cut++) {
        CHECK_OK(dn_file_write(FOLDER "/cut", bytes, cut, false, &error), error);
        CHECK_MSG(dn_safetensors_open(&file, FOLDER "/cut", &error) == DN_INVALID && !file, "%zu bytes", cut);
    }
    static const unsigned char values[] = {0, '"', '}', ']', ',', '9', '-', 0x80, 0xFF};
    for (size_t at = 0; at < count - 24; at++) {
        for (size_t v = 0; v < sizeof values; v++) {
            unsigned char before = bytes[at];
            bytes[at] = values[v];
            CHECK_OK(dn_file_write(FOLDER "/flip", bytes, count, false, &error), error);
            bytes[at] = before;
            if (dn_safetensors_open(&file, FOLDER "/flip", &error) == DN_OK) {
                dn_safetensors_close(file);
            }
            file = NULL;
        }
    }
    free(bytes);
}

static void what_is_no_regular_file_is_refused(void)
{
    dn_error error = {0};
    dn_safetensors *file = NULL;
    static const char header[] = "{" A_F32_4 "}";
    CHECK_OK(dn_make_folder(FOLDER "/folder", &error), error);
    unlink(FOLDER "/fifo");
    unlink(FOLDER "/link");
    CHECK(mkfifo(FOLDER "/fifo", 0600) == 0);
    CHECK(dn_safetensors_open(&file, FOLDER "/fifo", &error) == DN_INVALID && !file);
    CHECK(dn_safetensors_open(&file, FOLDER "/folder", &error) == DN_INVALID && !file);
    CHECK(dn_safetensors_open(&file, FOLDER "/none", &error) == DN_IO && !file);
    CHECK(make_file(FOLDER "/target", -1, header, sizeof header - 1, 16) == DN_OK);
    CHECK(symlink("target", FOLDER "/link") == 0);
    CHECK_OK(dn_safetensors_open(&file, FOLDER "/link", &error), error);
    CHECK(strcmp(dn_safetensors_path(file), FOLDER "/link") == 0);
    dn_safetensors_close(file);
    dn_safetensors_close(NULL);
}

static void a_shrinking_file_is_an_error(void)
{
    dn_error error = {0};
    dn_safetensors *file = NULL;
    float values[4] = {0};
    static const char header[] = "{" A_F32_4 "}";
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK(make_file(FOLDER "/shrinks", -1, header, sizeof header - 1, 16) == DN_OK);
    CHECK_OK(dn_safetensors_open(&file, FOLDER "/shrinks", &error), error);
    CHECK(truncate(FOLDER "/shrinks", 80) == 0);
    dn_status status = dn_safetensors_read_f32(file, dn_safetensors_find(file, "a"), values, &error);
    dn_status wide = dn_safetensors_read_i64(file, dn_safetensors_find(file, "a"), (int64_t[4]){0}, &error);
    dn_safetensors_close(file);
    CHECK_MSG(status == DN_IO && wide == DN_IO && strstr(error.message, "shrunk"), "%s", error.message);
}

static void every_type_reads(void)
{
    const uint64_t dims[] = {3};
    const double f64[] = {1, -2, 1e300};
    const int64_t i64[] = {INT64_MIN, 7, INT64_MAX};
    const int32_t i32[] = {INT32_MIN, 7, INT32_MAX};
    const int16_t i16[] = {INT16_MIN, 7, INT16_MAX};
    const int8_t i8[] = {-128, 7, 127};
    const uint8_t u8[] = {0, 7, 255};
    const float f32[] = {1.5f, -2, 3};
    dn_error error = {0};
    dn_safetensors_writer *writer = NULL;
    dn_safetensors *file = NULL;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "f64", DN_F64, 1, dims, f64, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "i64", DN_I64, 1, dims, i64, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "i32", DN_I32, 1, dims, i32, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "i16", DN_I16, 1, dims, i16, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "i8", DN_I8, 1, dims, i8, &error), error);
    CHECK_OK(dn_safetensors_writer_add_raw(writer, "u8", DN_U8, 1, dims, u8, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "f32", DN_F32, 1, dims, f32, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "f16", DN_F16, 1, dims, f32, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "bf16", DN_BF16, 1, dims, f32, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "scalar", DN_F32, 0, NULL, f32, &error), error);
    CHECK_OK(dn_safetensors_writer_save(writer, FOLDER "/types", true, &error), error);
    dn_safetensors_writer_free(writer);
    CHECK_OK(dn_safetensors_open(&file, FOLDER "/types", &error), error);

    int64_t whole[3];
    double wide[3];
    float narrow[3];
    CHECK(dn_safetensors_find(file, "scalar")->rank == 0 && dn_safetensors_find(file, "scalar")->count == 1);
    CHECK_OK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "i64"), whole, &error), error);
    CHECK(memcmp(whole, i64, sizeof whole) == 0);
    CHECK_OK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "i32"), whole, &error), error);
    CHECK(whole[0] == INT32_MIN && whole[2] == INT32_MAX);
    CHECK_OK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "i16"), whole, &error), error);
    CHECK(whole[0] == INT16_MIN && whole[2] == INT16_MAX);
    CHECK_OK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "i8"), whole, &error), error);
    CHECK(whole[0] == -128 && whole[2] == 127);
    CHECK_OK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "u8"), whole, &error), error);
    CHECK(whole[0] == 0 && whole[2] == 255);
    CHECK_OK(dn_safetensors_read_f64(file, dn_safetensors_find(file, "f64"), wide, &error), error);
    CHECK(memcmp(wide, f64, sizeof wide) == 0);
    const char *const floats[] = {"f32", "f16", "bf16"};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(dn_safetensors_read_f32(file, dn_safetensors_find(file, floats[i]), narrow, &error), error);
        CHECK(memcmp(narrow, f32, sizeof narrow) == 0);
        CHECK_OK(dn_safetensors_read_f64(file, dn_safetensors_find(file, floats[i]), wide, &error), error);
        CHECK(wide[0] == 1.5 && wide[2] == 3);
        CHECK(dn_safetensors_read_i64(file, dn_safetensors_find(file, floats[i]), whole, &error) == DN_INVALID);
    }
    CHECK_OK(dn_safetensors_read_f32(file, dn_safetensors_find(file, "i8"), narrow, &error), error);
    CHECK(narrow[0] == -128.0f);
    CHECK(dn_safetensors_read_i64(file, dn_safetensors_find(file, "f64"), whole, &error) == DN_INVALID);
    dn_safetensors_close(file);
}

/* Long enough for several read pieces, with names that need escapes. */
static void what_is_written_reads_back(void)
{
    enum { COUNT = 100003 };
    static float values[COUNT], back[COUNT];
    const uint64_t dims[] = {COUNT}, empty[] = {3, 0, 5};
    dn_error error = {0};
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)i * 0.25f - 1000;
    }
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    for (int order = 0; order < 2; order++) {
        dn_safetensors_writer *writer = NULL;
        CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
        CHECK_OK(dn_safetensors_writer_metadata(writer, "format", "pt", &error), error);
        CHECK_OK(dn_safetensors_writer_metadata(writer, "quote\"", "line\nbreak \\ \xC3\xA9", &error), error);
        for (int k = 0; k < 2; k++) {
            bool first = k == order;
            CHECK_OK(dn_safetensors_writer_add_f32(writer, first ? "x\"\\\t\xC3\xA9" : "double", first ? DN_F32 : DN_F64, 1, dims, values,
                                                   &error),
                     error);
        }
        CHECK_OK(dn_safetensors_writer_add_raw(writer, "empty", DN_U8, 3, empty, NULL, &error), error);
        CHECK_OK(dn_safetensors_writer_save(writer, order ? FOLDER "/second" : FOLDER "/first", false, &error), error);
        dn_safetensors_writer_free(writer);
    }
    dn_safetensors *file = NULL;
    CHECK_OK(dn_safetensors_open(&file, FOLDER "/first", &error), error);
    CHECK(dn_safetensors_count(file) == 3 && dn_safetensors_at(file, 3) == NULL && dn_safetensors_find(file, "none") == NULL);
    CHECK(strcmp(dn_safetensors_metadata(file, "format"), "pt") == 0 && !dn_safetensors_metadata(file, "none"));
    CHECK(strcmp(dn_safetensors_metadata(file, "quote\""), "line\nbreak \\ \xC3\xA9") == 0);
    CHECK(strcmp(dn_safetensors_at(file, 0)->name, "double") == 0 && dn_safetensors_at(file, 0)->offset % 8 == 0);
    const dn_tensor_info *none = dn_safetensors_find(file, "empty");
    CHECK(none && none->count == 0 && none->rank == 3 && none->dims[2] == 5);
    CHECK_OK(dn_safetensors_read_f32(file, none, back, &error), error);
    const char *const names[] = {"double", "x\"\\\t\xC3\xA9"};
    for (int i = 0; i < 2; i++) {
        memset(back, 0, sizeof back);
        CHECK(dn_safetensors_find(file, names[i]));
        CHECK_OK(dn_safetensors_read_f32(file, dn_safetensors_find(file, names[i]), back, &error), error);
        CHECK(memcmp(back, values, sizeof back) == 0);
    }
    dn_safetensors_close(file);
    unsigned char *a = NULL, *b = NULL;
    size_t a_count = 0, b_count = 0;
    CHECK_OK(dn_file_read(&a, &a_count, FOLDER "/first", 8 << 20, &error), error);
    CHECK_OK(dn_file_read(&b, &b_count, FOLDER "/second", 8 << 20, &error), error);
    CHECK(a_count == b_count && memcmp(a, b, a_count) == 0);
    free(a);
    free(b);
}

static void the_writer_refuses_what_cannot_be_read(void)
{
    const uint64_t dims[] = {1}, huge[] = {UINT64_C(1) << 40, UINT64_C(1) << 40};
    const float value = 1;
    dn_error error = {0};
    dn_safetensors_writer *writer = NULL;
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    CHECK(dn_safetensors_writer_add_f32(writer, "i", DN_I32, 1, dims, &value, &error) == DN_INVALID);
    CHECK(dn_safetensors_writer_add_f32(writer, "h", DN_F32, 2, huge, &value, &error) == DN_INVALID);
    CHECK(dn_safetensors_writer_add_f32(writer, "r", DN_F32, 9, dims, &value, &error) == DN_INVALID);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "a", DN_F32, 1, dims, &value, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "a", DN_F16, 1, dims, &value, &error), error);
    CHECK(dn_safetensors_writer_save(writer, FOLDER "/refused", false, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "duplicate key"), "%s", error.message);
    dn_safetensors_writer_free(writer);
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "\xFF", DN_F32, 1, dims, &value, &error), error);
    CHECK(dn_safetensors_writer_save(writer, FOLDER "/refused", false, &error) == DN_INVALID);
    dn_safetensors_writer_free(writer);
    CHECK(access(FOLDER "/refused", F_OK) != 0);
}

static void a_file_of_diffusers_opens(void)
{
    const char *path = "tests/golden/unet_default/diffusion_pytorch_model.safetensors";
    if (access(path, F_OK) != 0) {
        SKIP("%s is not there", path);
    }
    dn_error error = {0};
    dn_safetensors *file = NULL;
    CHECK_OK(dn_safetensors_open(&file, path, &error), error);
    const dn_tensor_info *info = dn_safetensors_find(file, "conv_in.weight");
    CHECK(info && info->rank == 4 && info->dims[2] == 3 && info->dims[3] == 3);
    for (size_t i = 0; i < dn_safetensors_count(file); i++) {
        const dn_tensor_info *each = dn_safetensors_at(file, i);
        CHECK(dn_safetensors_find(file, each->name) == each);
    }
    dn_safetensors_close(file);
}

int main(void)
{
    RUN(refusals_name_the_tensor);
    RUN(cuts_and_flips_never_fault);
    RUN(what_is_no_regular_file_is_refused);
    RUN(a_shrinking_file_is_an_error);
    RUN(every_type_reads);
    RUN(what_is_written_reads_back);
    RUN(the_writer_refuses_what_cannot_be_read);
    RUN(a_file_of_diffusers_opens);
    return test_end();
}
