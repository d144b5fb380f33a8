/* safetensors: malformed files by the dozen, every type read, and what is written reads back. */
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

typedef struct header_case {
    const char *rule; /* part of the message */
    const char *header;
    size_t header_bytes;
    size_t data_bytes;
} header_case;

#define CASE(rule, header, data_bytes)                                                                                                     \
    {                                                                                                                                      \
        rule, header, sizeof(header) - 1, data_bytes                                                                                       \
    }
#define ONE(rule, body, data_bytes) CASE(rule, "{\"w\":" body "}", data_bytes)
#define SHAPED(rule, shape, data_bytes)                                                                                                    \
    ONE(rule, "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[0," #data_bytes "]}", data_bytes)
#define OFFSETS(rule, offsets, data_bytes) ONE(rule, "{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":" offsets "}", data_bytes)
#define TYPED(rule, dtype, data_bytes) ONE(rule, "{\"dtype\":" dtype ",\"shape\":[16],\"data_offsets\":[0," #data_bytes "]}", data_bytes)
#define SECOND(rule, offsets, data_bytes)                                                                                                  \
    CASE(rule, "{" A_F32_4 ",\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":" offsets "}}", data_bytes)

static const header_case malformed[] = {
    /* The header as text. */
    CASE("brace", "[]", 0),
    CASE("brace", " {}", 0),
    CASE("brace", "\xEF\xBB\xBF{}", 0),
    CASE("header: byte", "{\"a\":", 0),
    CASE("header: byte", "{}{}", 0),
    CASE("header: byte", "{}\0\0\0\0\0\0", 0),
    CASE("invalid UTF-8", "{\"\xFF\":1}", 0),
    CASE("u0000", "{\"a\\u0000b\":1}", 0),
    CASE("control character", "{\"a\0b\":1}", 0),
    CASE("nested too deeply", "{\"w\":{\"dtype\":\"F32\",\"shape\":[[4]],\"data_offsets\":[0,16]}}", 16),
    CASE("duplicate key", "{" A_F32_4 "," A_F32_4 "}", 16),
    CASE("duplicate key", "{" A_F32_4 ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16),
    CASE("duplicate key", "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16),
    CASE("comma", "{\"w\":{\"dtype\":\"F32\" \"shape\":[4],\"data_offsets\":[0,16]}}", 16),
    /* Descriptions. */
    ONE("not an object", "7", 0),
    ONE("not an object", "[]", 0),
    ONE("not an object", "null", 0),
    ONE("not an object", "\"F32\"", 0),
    ONE("missing", "{}", 0),
    ONE("missing", "{\"dtype\":\"F32\",\"shape\":[4]}", 16),
    ONE("missing", "{\"dtype\":\"F32\",\"data_offsets\":[0,16]}", 16),
    ONE("missing", "{\"shape\":[4],\"data_offsets\":[0,16]}", 16),
    ONE("unknown member", "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16],\"more\":1}", 16),
    ONE("unknown member", "{\"Dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}", 16),
    /* Types. */
    TYPED("unknown dtype", "\"F33\"", 64),
    TYPED("unknown dtype", "\"f32\"", 64),
    TYPED("unknown dtype", "\"\"", 64),
    TYPED("unknown dtype", "\"F32 \"", 64),
    TYPED("dtype is not a string", "32", 64),
    TYPED("dtype is not a string", "null", 64),
    TYPED("not supported", "\"F8_E4M3\"", 16),
    TYPED("not supported", "\"U64\"", 128),
    TYPED("not supported", "\"F4\"", 8),
    TYPED("do not match", "\"F16\"", 64),
    TYPED("do not match", "\"F64\"", 64),
    TYPED("do not match", "\"U8\"", 15),
    /* Shapes. */
    SHAPED("shape is not a list", "4", 16),
    SHAPED("shape is not a list", "{}", 16),
    SHAPED("shape is not a list", "null", 16),
    SHAPED("a dimension", "[-4]", 16),
    SHAPED("a dimension", "[4.0]", 16),
    SHAPED("a dimension", "[4e0]", 16),
    SHAPED("a dimension", "[\"4\"]", 16),
    SHAPED("a dimension", "[null]", 16),
    SHAPED("a dimension", "[18446744073709551616]", 16),
    SHAPED("overflows", "[18446744073709551615,2]", 16),
    SHAPED("overflows", "[4294967296,4294967296]", 16),
    SHAPED("overflows", "[4611686018427387908]", 16),
    SHAPED("overflows", "[9223372036854775808,9223372036854775808,0]", 0),
    SHAPED("do not match", "[3]", 16),
    SHAPED("do not match", "[5]", 16),
    SHAPED("do not match", "[]", 16),
    SHAPED("do not match", "[0]", 16),
    SHAPED("do not match", "[4]", 0),
    SHAPED("too many dimensions", "[1,1,1,1,1,1,1,1,4]", 16),
    /* Offsets. */
    OFFSETS("data_offsets is not", "16", 16),
    OFFSETS("data_offsets is not", "[]", 16),
    OFFSETS("data_offsets is not", "[0]", 16),
    OFFSETS("data_offsets is not", "[0,16,16]", 16),
    OFFSETS("data_offsets is not", "[0,-16]", 16),
    OFFSETS("data_offsets is not", "[-16,0]", 16),
    OFFSETS("data_offsets is not", "[0.0,16]", 16),
    OFFSETS("data_offsets is not", "[\"0\",16]", 16),
    OFFSETS("data_offsets is not", "[0,18446744073709551632]", 16),
    OFFSETS("data_offsets is not", "{\"0\":16}", 16),
    OFFSETS("ends before", "[16,0]", 16),
    OFFSETS("beyond", "[0,16]", 15),
    OFFSETS("beyond", "[0,16]", 0),
    OFFSETS("beyond", "[18446744073709551600,18446744073709551615]", 16),
    OFFSETS("gap", "[8,24]", 24),
    OFFSETS("behind the last", "[0,16]", 17),
    OFFSETS("behind the last", "[0,16]", 4000),
    /* Two tensors. */
    SECOND("gap", "[17,25]", 25),
    SECOND("overlaps", "[8,16]", 16),
    SECOND("overlaps", "[0,8]", 16),
    SECOND("overlaps", "[15,23]", 23),
    SECOND("behind the last", "[16,24]", 25),
    CASE("behind the last", "{}", 1),
    /* Metadata. */
    CASE("__metadata__", "{\"__metadata__\":7}", 0),
    CASE("__metadata__", "{\"__metadata__\":[]}", 0),
    CASE("__metadata__", "{\"__metadata__\":null}", 0),
    CASE("__metadata__", "{\"__metadata__\":{\"a\":1}}", 0),
    CASE("__metadata__", "{\"__metadata__\":{\"a\":\"x\",\"b\":null}}", 0),
    CASE("__metadata__", "{\"__metadata__\":{\"a\":{}}}", 0),
};

static void malformed_headers_are_refused_by_rule(void)
{
    dn_error error = {0};
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        const header_case *c = &malformed[i];
        dn_safetensors *file = NULL;
        CHECK(make_file(FOLDER "/bad.safetensors", -1, c->header, c->header_bytes, c->data_bytes) == DN_OK);
        dn_status status = dn_safetensors_open(&file, FOLDER "/bad.safetensors", &error);
        CHECK_MSG(status == DN_INVALID || status == DN_UNSUPPORTED, "case %zu accepted: %s", i, c->header);
        CHECK_MSG(!file && strstr(error.message, c->rule) && strstr(error.message, "bad.safetensors"), "case %zu: \"%s\" is not \"%s\"", i,
                  error.message, c->rule);
    }
    CHECK(sizeof malformed / sizeof malformed[0] >= 50);
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

static void stated_lengths_are_checked(void)
{
    static const char header[] = "{" A_F32_4 "}";
    static const long long lengths[] = {0, 1, 60, 62, 200, 16777217, 100000001, INT64_MAX, INT64_MAX - 8};
    dn_error error = {0};
    dn_safetensors *file = NULL;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        CHECK(make_file(FOLDER "/length", lengths[i], header, sizeof header - 1, 16) == DN_OK);
        CHECK_MSG(dn_safetensors_open(&file, FOLDER "/length", &error) == DN_INVALID && !file, "length %lld", lengths[i]);
    }
    uint64_t huge = UINT64_MAX;
    for (size_t bytes = 0; bytes <= 8; bytes++) {
        CHECK_OK(dn_file_write(FOLDER "/length", &huge, bytes, false, &error), error);
        CHECK(dn_safetensors_open(&file, FOLDER "/length", &error) == DN_INVALID && !file);
    }
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

static void too_many_and_too_long_are_refused(void)
{
    dn_error error = {0};
    dn_safetensors *file = NULL;
    char *text = malloc(8 << 20);
    size_t used = (size_t)sprintf(text, "{");
    for (unsigned i = 0; i <= DN_SAFETENSORS_TENSORS_MAX; i++) {
        used += (size_t)sprintf(text + used, "%s\"%u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
    }
    used += (size_t)sprintf(text + used, "}");
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK(make_file(FOLDER "/many", -1, text, used, 0) == DN_OK);
    CHECK(dn_safetensors_open(&file, FOLDER "/many", &error) == DN_INVALID && strstr(error.message, "too many tensors"));
    used =
        (size_t)sprintf(text, "{\"%0*d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", (int)DN_TENSOR_NAME_BYTES_MAX + 1, 1);
    CHECK(make_file(FOLDER "/many", -1, text, used, 0) == DN_OK);
    CHECK(dn_safetensors_open(&file, FOLDER "/many", &error) == DN_INVALID && strstr(error.message, "name longer"));
    free(text);
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
    RUN(malformed_headers_are_refused_by_rule);
    RUN(refusals_name_the_tensor);
    RUN(stated_lengths_are_checked);
    RUN(cuts_and_flips_never_fault);
    RUN(what_is_no_regular_file_is_refused);
    RUN(a_shrinking_file_is_an_error);
    RUN(too_many_and_too_long_are_refused);
    RUN(every_type_reads);
    RUN(what_is_written_reads_back);
    RUN(the_writer_refuses_what_cannot_be_read);
    RUN(a_file_of_diffusers_opens);
    return test_end();
}
