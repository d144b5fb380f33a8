/* Checkpoints in one file and in several: the same tensors, whatever they lie in; an index that lies is refused. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "base/sha256.h"
#include "format/tensors.h"
#include "tests/engine/torch_writer.h"

#define INDEX "model.safetensors.index.json"
#define ONE "model-00001-of-00002.safetensors"
#define TWO "model-00002-of-00002.safetensors"

static char folder[64];

static const char *at(const char *name)
{
    static char path[4][160];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static const float ramp[6] = {0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f};

/* A safetensors file of tensors [2,3], one a letter of `names`; tensor X holds ramp + X. */
static void write_shard(const char *file, const char *names)
{
    dn_error error = {DN_OK, ""};
    dn_safetensors_writer *writer = NULL;
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    for (; *names != '\0'; names++) {
        float shifted[6];
        for (int i = 0; i < 6; i++)
            shifted[i] = ramp[i] + (float)*names;
        CHECK_OK(dn_safetensors_writer_add_f32(writer, (char[]){*names, '\0'}, *names == 'c' ? DN_F16 : DN_F32, 2, (uint64_t[]){2, 3},
                                               shifted, &error),
                 error);
    }
    CHECK_OK(dn_safetensors_writer_save(writer, at(file), false, &error), error);
    dn_safetensors_writer_free(writer);
}

static void write_text(const char *file, const char *text)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_file_write(at(file), text, strlen(text), false, &error), error);
}

static bool holds(const dn_tensors *tensors, char name)
{
    float got[6] = {0};
    dn_error error = {DN_OK, ""};
    const dn_tensor_info *info = dn_tensors_find(tensors, (char[]){name, '\0'});
    bool same = info != NULL && info->rank == 2 && dn_tensors_read_f32(tensors, info, got, &error) == DN_OK;
    for (int i = 0; i < 6; i++)
        same = same && got[i] == ramp[i] + (float)name;
    return same;
}

static void two_shards_are_one_checkpoint(void)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    char sha256[65], expected[65];
    write_shard(ONE, "ab");
    write_shard(TWO, "c");
    write_text(INDEX, "{\"metadata\":{\"total_size\":60},\"weight_map\":{\"c\":\"" TWO "\",\"a\":\"" ONE "\",\"b\":\"" ONE "\"}}");
    CHECK_OK(dn_tensors_open(&tensors, at(INDEX), &error), error);
    CHECK(dn_tensors_count(tensors) == 3 && holds(tensors, 'a') && holds(tensors, 'b') && holds(tensors, 'c'));
    CHECK(dn_tensors_find(tensors, "d") == NULL && dn_tensors_at(tensors, 3) == NULL);
    CHECK(strcmp(dn_tensors_path(tensors), at(INDEX)) == 0);
    CHECK_OK(dn_tensors_sha256(tensors, sha256, &error), error);
    dn_tensors_close(tensors);

    static const char *const order[] = {ONE, TWO, INDEX}; /* '-' comes before '.' */
    dn_sha256 hash;
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256_init(&hash);
    for (size_t i = 0; i < 3; i++) {
        unsigned char *bytes = NULL;
        size_t count = 0;
        CHECK_OK(dn_file_read(&bytes, &count, at(order[i]), 1 << 20, &error), error);
        dn_sha256_update(&hash, bytes, count);
        free(bytes);
    }
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(expected, digest);
    CHECK_MSG(strcmp(sha256, expected) == 0, "%s, not %s", sha256, expected);
}

static void shards_of_torch_files(void)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    zip_maker zip = {0};
    bytes_maker pickle = {0};
    float shifted[6];
    write_shard(ONE, "ab");
    for (int i = 0; i < 6; i++)
        shifted[i] = ramp[i] + (float)'t';
    begin_pickle(&pickle);
    put_text(&pickle, "t");
    put_tensor(&pickle, "0", 6, 0, 2, (int64_t[]){2, 3}, (int64_t[]){3, 1});
    put_bytes(&pickle, "s.", 2);
    make_torch_file(&zip, &pickle, (const float *[]){shifted}, (size_t[]){6}, 1);
    CHECK_OK(dn_file_write(at("part-2.bin"), zip.out.bytes, zip.out.used, false, &error), error);
    free(zip.out.bytes);
    free(pickle.bytes);
    write_text(INDEX, "{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"t\":\"part-2.bin\"}}");
    CHECK_OK(dn_tensors_open(&tensors, at(INDEX), &error), error);
    CHECK(dn_tensors_count(tensors) == 3 && holds(tensors, 'b') && holds(tensors, 't'));
    dn_tensors_close(tensors);
}

static void an_index_that_lies(void)
{
    static const struct {
        const char *json;
        dn_status status;
        const char *rule;
    } cases[] = {
        {"", DN_INVALID, INDEX},
        {"[]", DN_INVALID, "weight_map"},
        {"{}", DN_INVALID, "weight_map"},
        {"{\"weight_map\":[]}", DN_INVALID, "weight_map"},
        {"{\"weight_map\":{}}", DN_INVALID, "must name 1 to"},
        {"{\"weight_map\":{\"a\":7}}", DN_INVALID, "not a file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\".hidden.safetensors\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"../other/" ONE "\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"sub/" ONE "\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"" INDEX "\"}}", DN_INVALID, "plain file name"},
        {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", DN_IO, "none.safetensors"},
        {"{\"weight_map\":{\"a\":\"" ONE "\"}}", DN_INVALID, "does not name tensor \"b\""},
        {"{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"" ONE "\"}}", DN_INVALID, "\"c\": no such tensor"},
        {"{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" TWO "\",\"c\":\"" TWO "\"}}", DN_INVALID, "\"b\": the tensor is in another shard"},
        {"{\"weight_map\":{\"a\":\"" ONE "\",\"a\":\"" TWO "\"}}", DN_INVALID, "duplicate"},
        {"{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"fifo\"}}", DN_INVALID, "fifo"},
        {"{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"cut.safetensors\"}}", DN_INVALID, "cut.safetensors"},
    };
    write_shard(ONE, "ab");
    write_shard(TWO, "c");
    write_text("fifo", "neither");
    write_text("cut.safetensors", "\x40");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        write_text(INDEX, cases[i].json);
        dn_status status = dn_tensors_open(&tensors, at(INDEX), &error);
        dn_tensors_close(tensors);
        CHECK_MSG(status == cases[i].status && strstr(error.message, cases[i].rule), "%s: %s: %s", cases[i].json, dn_status_name(status),
                  error.message);
    }
}

/* One tensor in two shards: the one that the map does not mean is refused, whichever it is. */
static void a_tensor_in_two_shards(void)
{
    write_shard(ONE, "ab");
    write_shard(TWO, "bc");
    for (int which = 0; which < 2; which++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        write_text(INDEX, which ? "{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" ONE "\",\"c\":\"" TWO "\"}}"
                                : "{\"weight_map\":{\"a\":\"" ONE "\",\"b\":\"" TWO "\",\"c\":\"" TWO "\"}}");
        CHECK_MSG(dn_tensors_open(&tensors, at(INDEX), &error) == DN_INVALID && strstr(error.message, "another shard"), "%s",
                  error.message);
    }
}

static void a_prefix_is_entered(void)
{
    dn_error error = {DN_OK, ""};
    dn_safetensors_writer *writer = NULL;
    dn_tensors *tensors = NULL;
    static const char *const names[] = {"model.w", "ema.w", "ema.sub.w", "emap", "step"};
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    for (size_t i = 0; i < 5; i++)
        CHECK_OK(dn_safetensors_writer_add_f32(writer, names[i], DN_F32, 1, (uint64_t[]){1}, (float[]){(float)i}, &error), error);
    CHECK_OK(dn_safetensors_writer_save(writer, at("prefix.safetensors"), false, &error), error);
    dn_safetensors_writer_free(writer);
    CHECK_OK(dn_tensors_open(&tensors, at("prefix.safetensors"), &error), error);
    CHECK(!dn_tensors_enter(tensors, "module.") && dn_tensors_count(tensors) == 5);
    CHECK(dn_tensors_enter(tensors, "ema.") && dn_tensors_count(tensors) == 2 && !dn_tensors_find(tensors, "step"));
    float got = 0.0f;
    CHECK_OK(dn_tensors_read_f32(tensors, dn_tensors_find(tensors, "w"), &got, &error), error);
    CHECK(got == 1.0f && dn_tensors_find(tensors, "sub.w"));
    CHECK(dn_tensors_enter(tensors, "sub."));
    CHECK_OK(dn_tensors_read_f32(tensors, dn_tensors_find(tensors, "w"), &got, &error), error);
    CHECK(got == 2.0f && dn_tensors_count(tensors) == 1);
    dn_tensors_close(tensors);
}

/* Equal in bytes, type and shape: across forms of storage, and not otherwise. */
static void tensors_are_compared(void)
{
    static const struct {
        const char *a, *b;
        bool equal;
    } cases[] = {{"base", "tied", true},         {"base", "transposed", false}, {"f32", "f64", false},        {"scalar", "scalar", true},
                 {"empty", "empty", true},       {"rows", "columns", false},    {"columns", "columns", true}, {"i8", "u8", false},
                 {"permuted", "permuted", true}, {"columns", "f32", false}};
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    for (int form = 0; form < 2; form++) {
        CHECK_OK(dn_tensors_open(&tensors, form ? "tests/golden/torch/kinds.bin" : "tests/golden/torch/kinds.safetensors", &error), error);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            bool equal = !cases[i].equal;
            const dn_tensor_info *a = dn_tensors_find(tensors, cases[i].a), *b = dn_tensors_find(tensors, cases[i].b);
            CHECK(a && b);
            CHECK_OK(dn_tensors_equal(tensors, a, b, &equal, &error), error);
            CHECK_MSG(equal == cases[i].equal, "%s and %s", cases[i].a, cases[i].b);
        }
        dn_tensors_close(tensors);
    }
}

/* Longer than one chunk of reading, in a narrow type; two tensors that differ in their last element alone. */
static void long_tensors(void)
{
    enum { COUNT = 100003 };
    dn_error error = {DN_OK, ""};
    dn_safetensors_writer *writer = NULL;
    dn_tensors *tensors = NULL;
    float *values = malloc(COUNT * sizeof *values), *got = calloc(COUNT, sizeof *got);
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)(i % 256);
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "a", DN_BF16, 1, (uint64_t[]){COUNT}, values, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "b", DN_BF16, 1, (uint64_t[]){COUNT}, values, &error), error);
    values[COUNT - 1] = 511.0f;
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "c", DN_BF16, 1, (uint64_t[]){COUNT}, values, &error), error);
    CHECK_OK(dn_safetensors_writer_save(writer, at("long.safetensors"), false, &error), error);
    dn_safetensors_writer_free(writer);
    CHECK_OK(dn_tensors_open(&tensors, at("long.safetensors"), &error), error);
    const dn_tensor_info *a = dn_tensors_find(tensors, "a"), *b = dn_tensors_find(tensors, "b"), *c = dn_tensors_find(tensors, "c");
    bool ab = false, ac = true;
    CHECK_OK(dn_tensors_equal(tensors, a, b, &ab, &error), error);
    CHECK_OK(dn_tensors_equal(tensors, a, c, &ac, &error), error);
    CHECK(ab && !ac);
    CHECK_OK(dn_tensors_read_part_f32(tensors, b, 50001, 50002, got, &error), error);
    CHECK(memcmp(got, values + 50001, 50001 * sizeof *got) == 0 && got[50001] == (float)((COUNT - 1) % 256));
    dn_tensors_close(tensors);
    free(values);
    free(got);
}

int main(void)
{
    dn_error error;
    snprintf(folder, sizeof folder, "/tmp/denoised-tensors-%ld", (long)getpid());
    if (dn_make_folder(folder, &error) != DN_OK)
        return 1;
    RUN(two_shards_are_one_checkpoint);
    RUN(shards_of_torch_files);
    RUN(an_index_that_lies);
    RUN(a_tensor_in_two_shards);
    RUN(a_prefix_is_entered);
    RUN(tensors_are_compared);
    RUN(long_tensors);
    static const char *const made[] = {INDEX, ONE, TWO, "part-2.bin", "fifo", "cut.safetensors", "prefix.safetensors", "long.safetensors"};
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++)
        unlink(at(made[i]));
    rmdir(folder);
    return test_end();
}
