/* Torch files: those that torch wrote open with the right values; hostile archives are refused by what is wrong with them. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "format/tensors.h"
#include "tests/engine/torch_writer.h"

#define GOLDEN "tests/golden/torch/"
#define FLOATS 6

static char path[64];
static zip_maker zip;
static bytes_maker pickle;
static const float values[FLOATS] = {1.0f, -2.0f, 3.5f, 0.0f, 5.25f, -6.0f};

/* Opens the bytes as a file; *tensors is NULL when they are refused. */
static dn_status open_made(dn_tensors **tensors, dn_error *error)
{
    *tensors = NULL;
    dn_status status = dn_file_write(path, zip.out.bytes, zip.out.used, false, error);
    return status == DN_OK ? dn_tensors_open(tensors, path, error) : status;
}

static void make_pickle(void)
{
    begin_pickle(&pickle);
    put_text(&pickle, "w");
    put_tensor(&pickle, "0", FLOATS, 0, 2, (int64_t[]){2, 3}, (int64_t[]){3, 1});
    put_bytes(&pickle, "s.", 2);
}

static void make_honest(void)
{
    make_pickle();
    make_torch_file(&zip, &pickle, (const float *[]){values}, (size_t[]){FLOATS}, 1);
}

static void check_refused(dn_status expected, const char *rule, const char *what)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    dn_status status = open_made(&tensors, &error);
    dn_tensors_close(tensors);
    CHECK_MSG(status == expected && strstr(error.message, rule) && strstr(error.message, path), "%s: %s: %s", what, dn_status_name(status),
              error.message);
}

/* Names the first tensor that differs; NULL when the two agree in names, types, shapes and values. */
static const char *difference(const dn_tensors *a, const dn_tensors *b)
{
    static float left[256], right[256];
    for (size_t i = 0; i < dn_tensors_count(b); i++) {
        const dn_tensor_info *want = dn_tensors_at(b, i), *got = dn_tensors_find(a, want->name);
        if (got == NULL || got->dtype != want->dtype || got->rank != want->rank || got->count != want->count ||
            memcmp(got->dims, want->dims, sizeof got->dims) != 0)
            return want->name;
        if (dn_tensors_read_f32(a, got, left, NULL) != DN_OK || dn_tensors_read_f32(b, want, right, NULL) != DN_OK ||
            memcmp(left, right, want->count * sizeof(float)) != 0)
            return want->name;
    }
    return dn_tensors_count(a) == dn_tensors_count(b) ? NULL : "count";
}

static void check_same(const char *torch_path, const char *prefix, const char *safetensors_path, size_t count)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *got = NULL, *want = NULL;
    char sha256[65] = "", named[128] = "";
    dn_status status = dn_tensors_open(&got, torch_path, &error);
    if (status == DN_OK)
        status = dn_tensors_open(&want, safetensors_path, &error);
    if (status == DN_OK)
        status = dn_tensors_sha256(got, sha256, &error);
    bool entered = status == DN_OK && (prefix == NULL || dn_tensors_enter(got, prefix));
    const char *differs = entered ? difference(got, want) : NULL;
    if (differs != NULL)
        snprintf(named, sizeof named, "%s", differs);
    size_t has = status == DN_OK ? dn_tensors_count(want) : 0;
    dn_tensors_close(got);
    dn_tensors_close(want);
    CHECK_OK(status, error);
    CHECK_MSG(entered && differs == NULL && has == count && strlen(sha256) == 64, "%s: %s differs (%zu tensors)", torch_path, named, has);
}

static void what_torch_wrote(void)
{
    check_same(GOLDEN "kinds.bin", NULL, GOLDEN "kinds.safetensors", 19);
}

static void protocols_4_and_5(void)
{
    check_same(GOLDEN "protocol4.pt", NULL, GOLDEN "kinds.safetensors", 19);
    if (!test_failed)
        check_same(GOLDEN "protocol5.ckpt", "state_dict.", GOLDEN "kinds.safetensors", 19);
}

/* Model, average, optimizer and arguments in one file: the arguments' class is not known here and does no harm. */
static void a_training_checkpoint(void)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *got = NULL, *want = NULL;
    CHECK_OK(dn_tensors_open(&got, GOLDEN "training.pt", &error), error);
    CHECK(dn_tensors_find(got, "opt.state.0.exp_avg") && dn_tensors_find(got, "model.first.weight") && !dn_tensors_find(got, "args"));
    CHECK(!dn_tensors_enter(got, "nowhere.") && dn_tensors_enter(got, "ema."));
    CHECK_OK(dn_tensors_open(&want, GOLDEN "training_ema.safetensors", &error), error);
    CHECK(dn_tensors_enter(want, "ema."));
    const char *differs = difference(got, want);
    CHECK_MSG(differs == NULL, "%s", differs);
    dn_tensors_close(got);
    dn_tensors_close(want);
}

static void other_files_of_torch(void)
{
    static const struct {
        const char *file, *says;
    } cases[] = {{"legacy.pt", "before 1.6"}, {"module.pt", "state_dict()"}, {"list.pt", "no dictionary"}, {"script.pt", "torch.jit.save"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        char name[128];
        snprintf(name, sizeof name, GOLDEN "%s", cases[i].file);
        CHECK_MSG(dn_tensors_open(&tensors, name, &error) == DN_UNSUPPORTED && !tensors && strstr(error.message, cases[i].says), "%s: %s",
                  name, error.message);
    }
}

static void an_honest_file_in_every_form(void)
{
    for (int form = 0; form < 4; form++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        char sha256[65];
        float got[FLOATS] = {0};
        make_pickle();
        begin_zip(&zip);
        zip.zip64 = form & 1;
        zip.flags = form & 2 ? 0x0808 : 0;
        add_entry(&zip, "a/data.pkl", pickle.bytes, pickle.used);
        add_entry(&zip, "a/.format_version", "1", 1);
        add_entry(&zip, "a/byteorder", "little", 6);
        add_entry(&zip, "a/data/0", values, sizeof values);
        add_entry(&zip, "a/.data/serialization_id", "0123456789", 10);
        end_zip(&zip);
        CHECK_OK(open_made(&tensors, &error), error);
        CHECK_OK(dn_tensors_sha256(tensors, sha256, &error), error);
        const dn_tensor_info *w = dn_tensors_find(tensors, "w");
        CHECK(w && w->rank == 2 && w->dims[0] == 2 && w->dims[1] == 3 && dn_tensors_count(tensors) == 1);
        CHECK_OK(dn_tensors_read_f32(tensors, w, got, &error), error);
        CHECK(memcmp(got, values, sizeof got) == 0);
        CHECK_OK(dn_tensors_read_part_f32(tensors, w, 2, 3, got, &error), error);
        CHECK(memcmp(got, values + 2, 3 * sizeof *got) == 0);
        CHECK(dn_tensors_read_part_f32(tensors, w, 4, 3, got, &error) == DN_INTERNAL);
        dn_tensors_close(tensors);
    }
}

/* One field of an honest file changed: where (from the start of a record), how many bytes, to what. */
typedef enum record { LOCAL, CENTRAL, DESCRIPTOR, END64, LOCATOR, END } record;

static void fields_that_lie(void)
{
    static const struct {
        record record;
        size_t at, bytes;
        uint64_t value;
        dn_status status;
        const char *rule;
    } cases[] = {
        {LOCAL, 0, 4, 0x14034b50, DN_INVALID, "neither a zip"},
        {LOCAL, 6, 2, 0, DN_INVALID, "local header differs"},
        {LOCAL, 8, 2, 8, DN_INVALID, "local header differs"},
        {LOCAL, 14, 4, 77, DN_INVALID, "local header differs"},
        {LOCAL, 18, 4, 1, DN_INVALID, "local header differs"},
        {LOCAL, 22, 4, 0xFFFFFFFF, DN_INVALID, "local header differs"},
        {LOCAL, 26, 2, 3, DN_INVALID, "local header differs"},
        {LOCAL, 28, 2, 12, DN_INVALID, "local header differs"},
        {LOCAL, 30, 1, 'A', DN_INVALID, "local header differs"},
        {CENTRAL, 0, 4, 0, DN_INVALID, "breaks off"},
        {CENTRAL, 8, 2, 0x0809, DN_UNSUPPORTED, "encrypted"},
        {CENTRAL, 8, 2, 0x0848, DN_INVALID, "unknown flags"},
        {CENTRAL, 8, 2, 0x0800, DN_INVALID, "local header differs"},
        {CENTRAL, 10, 2, 8, DN_UNSUPPORTED, "compressed"},
        {CENTRAL, 16, 4, 1, DN_INVALID, "data descriptor differs"},
        {CENTRAL, 20, 4, 1, DN_INVALID, "two sizes"},
        {CENTRAL, 20, 8, 0x0000000100000001, DN_INVALID, "no data descriptor"},
        {CENTRAL, 20, 8, 0x7FFFFFFF7FFFFFFF, DN_INVALID, "runs into the next"},
        {CENTRAL, 20, 8, 0xFFFFFFFFFFFFFFFF, DN_INVALID, "extra fields"},
        {CENTRAL, 28, 2, 0, DN_INVALID, "name is empty"},
        {CENTRAL, 28, 2, 0xFFFF, DN_INVALID, "breaks off"},
        {CENTRAL, 34, 2, 1, DN_INVALID, "extra fields"},
        {CENTRAL, 42, 4, 4, DN_INVALID, "bytes lie before it"},
        {CENTRAL, 42, 4, 0x7FFFFFFF, DN_INVALID, "overlaps another"},
        {CENTRAL, 46, 1, '/', DN_INVALID, "absolute"},
        {CENTRAL, 46, 1, '\n', DN_INVALID, "not printable"},
        {CENTRAL, 46, 1, '\\', DN_INVALID, "name"},
        {CENTRAL, 46, 8, 0x2F2E2E2F2E2E2F61, DN_INVALID, "leads out"},
        {DESCRIPTOR, 0, 4, 0, DN_INVALID, "data descriptor differs"},
        {DESCRIPTOR, 4, 4, 1, DN_INVALID, "data descriptor differs"},
        {DESCRIPTOR, 8, 4, 1, DN_INVALID, "data descriptor differs"},
        {DESCRIPTOR, 12, 4, 1, DN_INVALID, "data descriptor differs"},
        {END64, 0, 4, 0, DN_INVALID, "breaks its form"},
        {END64, 4, 8, 99, DN_INVALID, "breaks its form"},
        {END64, 16, 4, 1, DN_INVALID, "breaks its form"},
        {END64, 24, 8, 7, DN_INVALID, "breaks its form"},
        {END64, 40, 8, 1, DN_INVALID, "end records differ"},
        {END64, 48, 8, UINT64_MAX, DN_INVALID, "end records differ"},
        {LOCATOR, 4, 4, 1, DN_INVALID, "locator"},
        {LOCATOR, 8, 8, 0, DN_INVALID, "locator"},
        {LOCATOR, 16, 4, 2, DN_INVALID, "locator"},
        {LOCATOR, 0, 4, 0, DN_INVALID, "directory does not end"},
        {END, 0, 4, 0, DN_INVALID, "no end record"},
        {END, 4, 2, 1, DN_INVALID, "disks"},
        {END, 8, 2, 9, DN_INVALID, "disks"},
        {END, 8, 4, 0x00090009, DN_INVALID, "end records differ"},
        {END, 12, 4, 5, DN_INVALID, "end records differ"},
        {END, 16, 4, 5, DN_INVALID, "end records differ"},
        {END, 20, 2, 1, DN_INVALID, "no end record"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        make_honest();
        const uint64_t records[] = {
            zip.entries[0].local, zip.entries[0].central, zip.entries[0].data + zip.entries[0].bytes, zip.end64, zip.end64 + 56, zip.end};
        char what[32];
        snprintf(what, sizeof what, "case %zu", i);
        memcpy(zip.out.bytes + records[cases[i].record] + cases[i].at, &cases[i].value, cases[i].bytes);
        check_refused(cases[i].status, cases[i].rule, what);
    }
}

static void names_that_lead_out(void)
{
    static const char *const names[] = {"../data", "a/../data", "a/..", "/etc/passwd", "a//b",
                                        "a/./b",   "a\\b",      "a/b/", "a\tb",        "caf\xC3\xA9"};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !test_failed; i++) {
        make_pickle();
        begin_zip(&zip);
        add_entry(&zip, "a/data.pkl", pickle.bytes, pickle.used);
        add_entry(&zip, names[i], "x", 1);
        end_zip(&zip);
        check_refused(DN_INVALID, "an entry's name", names[i]);
    }
}

static void archives_of_another_make(void)
{
    static char long_name[600];
    memset(long_name, 'n', 599);
    make_pickle();
    for (int form = 0; form < 7 && !test_failed; form++) {
        static const char *const rules[] = {"there is no data.pkl", "two data.pkl",           "byteorder", "there twice", "TorchScript",
                                            "not in the archive",   "name is empty, too long"};
        begin_zip(&zip);
        if (form != 0)
            add_entry(&zip, "a/data.pkl", pickle.bytes, pickle.used);
        if (form == 1)
            add_entry(&zip, "b/data.pkl", pickle.bytes, pickle.used);
        if (form == 2)
            add_entry(&zip, "a/byteorder", "big", 3);
        if (form == 4)
            add_entry(&zip, "a/constants.pkl", "x", 1);
        if (form != 5)
            add_entry(&zip, "a/data/0", values, sizeof values);
        if (form == 3)
            add_entry(&zip, "a/data/0", values, sizeof values);
        if (form == 6)
            add_entry(&zip, long_name, "x", 1);
        end_zip(&zip);
        check_refused(form == 2 || form == 4 ? DN_UNSUPPORTED : DN_INVALID, rules[form], rules[form]);
    }
}

/* Two entries of the directory over the same bytes, bytes that no entry owns, and bytes around the archive. */
static void bytes_owned_twice_or_not_at_all(void)
{
    make_honest();
    memcpy(zip.out.bytes + zip.entries[2].central + 42, &zip.entries[1].local, 4);
    check_refused(DN_INVALID, "runs into the next", "overlap");
    if (test_failed)
        return;
    begin_zip(&zip);
    add_entry(&zip, "a/data.pkl", pickle.bytes, pickle.used);
    put_bytes(&zip.out, "hidden", 6);
    add_entry(&zip, "a/data/0", values, sizeof values);
    end_zip(&zip);
    check_refused(DN_INVALID, "no data descriptor", "gap");
    if (test_failed)
        return;
    make_honest();
    put_op(&zip.out, 0);
    check_refused(DN_INVALID, "something follows", "tail");
    if (test_failed)
        return;
    make_honest();
    bytes_maker honest = zip.out;
    zip.out = (bytes_maker){0};
    put_bytes(&zip.out, "PK\x03\x04", 4);
    put_bytes(&zip.out, honest.bytes, honest.used);
    free(honest.bytes);
    check_refused(DN_INVALID, "locator", "head");
}

/* A count or a size of the directory that its bytes cannot hold takes no memory. */
static void a_directory_that_boasts(void)
{
    make_honest();
    uint64_t count = 0xFFFF, bytes = 0xFFFFFFFF;
    memcpy(zip.out.bytes + zip.end + 8, &count, 2);
    memcpy(zip.out.bytes + zip.end + 10, &count, 2);
    count = 1ull << 40;
    memcpy(zip.out.bytes + zip.end64 + 24, &count, 8);
    memcpy(zip.out.bytes + zip.end64 + 32, &count, 8);
    check_refused(DN_INVALID, "too many entries", "count");
    if (test_failed)
        return;
    make_honest();
    memcpy(zip.out.bytes + zip.end + 12, &bytes, 4);
    bytes = 1ull << 50;
    memcpy(zip.out.bytes + zip.end64 + 40, &bytes, 8);
    check_refused(DN_INVALID, "directory does not end", "bytes");
}

static void damage_is_found_by_checksum(void)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    char sha256[65];
    make_honest();
    zip.out.bytes[zip.entries[0].data + 5] ^= 1;
    check_refused(DN_INVALID, "checksum", "pickle");
    if (test_failed)
        return;
    make_honest();
    zip.out.bytes[zip.entries[1].data + 5] ^= 1;
    CHECK_OK(open_made(&tensors, &error), error);
    dn_status status = dn_tensors_sha256(tensors, sha256, &error);
    dn_tensors_close(tensors);
    CHECK_MSG(status == DN_INVALID && strstr(error.message, "checksum") && strstr(error.message, "archive/data/0"), "%s", error.message);
}

static void every_cut_is_refused(void)
{
    make_honest();
    for (size_t cut = 0; cut < zip.out.used; cut++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        CHECK_OK(dn_file_write(path, zip.out.bytes, cut, false, &error), error);
        CHECK_MSG(dn_tensors_open(&tensors, path, &error) == DN_INVALID && !tensors, "%zu bytes: %s", cut, error.message);
    }
}

/* Each bit changed alone: refused, or found by the checksums, or without meaning: never another tensor or value. */
static void every_flip_is_refused_or_harmless(void)
{
    make_honest();
    size_t refused = 0;
    for (size_t i = 0; i < zip.out.used * 8; i++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        char sha256[65];
        float got[FLOATS] = {0};
        zip.out.bytes[i / 8] ^= (unsigned char)(1 << i % 8);
        dn_status status = open_made(&tensors, &error);
        if (status == DN_OK)
            status = dn_tensors_sha256(tensors, sha256, &error);
        const dn_tensor_info *w = status == DN_OK ? dn_tensors_find(tensors, "w") : NULL;
        bool same = w != NULL && w->count == FLOATS && dn_tensors_read_f32(tensors, w, got, &error) == DN_OK &&
                    memcmp(got, values, sizeof got) == 0;
        dn_tensors_close(tensors);
        CHECK_MSG(status != DN_OK || same, "bit %zu", i);
        refused += status != DN_OK;
        zip.out.bytes[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    CHECK_MSG(refused > zip.out.used * 8 / 2, "%zu of %zu", refused, zip.out.used * 8);
}

static void a_file_that_shrinks(void)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    char sha256[65];
    float got[FLOATS];
    make_honest();
    CHECK_OK(open_made(&tensors, &error), error);
    CHECK(truncate(path, (off_t)zip.entries[1].data + 4) == 0);
    CHECK(dn_tensors_read_f32(tensors, dn_tensors_at(tensors, 0), got, &error) == DN_IO && strstr(error.message, "shrunk"));
    CHECK(dn_tensors_sha256(tensors, sha256, &error) == DN_IO);
    dn_tensors_close(tensors);
}

static void what_is_no_file_of_weights(void)
{
    static const struct {
        const char *bytes;
        size_t count;
        dn_status status;
        const char *rule;
    } cases[] = {
        {"", 0, DN_INVALID, "neither a zip"},
        {"P", 1, DN_INVALID, "neither a zip"},
        {"PK\x03\x04", 4, DN_INVALID, "shorter than an end record"},
        {"\x89PNG\r\n\x1a\n", 8, DN_INVALID, "neither a zip"},
        {"\x80\x04\x95", 3, DN_UNSUPPORTED, "bare pickle"},
        {"\x1f\x8b\x08 gzip here, as some tar files are", 30, DN_INVALID, "neither a zip"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        zip.out.used = 0;
        put_bytes(&zip.out, cases[i].bytes, cases[i].count);
        check_refused(cases[i].status, cases[i].rule, cases[i].rule);
    }
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    CHECK(dn_tensors_open(&tensors, "tests/golden/none.pt", &error) == DN_IO && dn_tensors_open(&tensors, "tests", &error) == DN_INVALID);
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/denoised-torch-%ld.pt", (long)getpid());
    RUN(what_torch_wrote);
    RUN(protocols_4_and_5);
    RUN(a_training_checkpoint);
    RUN(other_files_of_torch);
    RUN(an_honest_file_in_every_form);
    RUN(fields_that_lie);
    RUN(names_that_lead_out);
    RUN(archives_of_another_make);
    RUN(bytes_owned_twice_or_not_at_all);
    RUN(a_directory_that_boasts);
    RUN(damage_is_found_by_checksum);
    RUN(every_cut_is_refused);
    RUN(every_flip_is_refused_or_harmless);
    RUN(a_file_that_shrinks);
    RUN(what_is_no_file_of_weights);
    unlink(path);
    free(zip.out.bytes);
    free(pickle.bytes);
    return test_end();
}
