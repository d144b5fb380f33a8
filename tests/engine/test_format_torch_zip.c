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

int main(void)
{
    snprintf(path, sizeof path, "/tmp/denoised-torch-%ld.pt", (long)getpid());
    RUN(what_torch_wrote);
    RUN(protocols_4_and_5);
    RUN(a_training_checkpoint);
    RUN(other_files_of_torch);
    RUN(an_honest_file_in_every_form);
    RUN(damage_is_found_by_checksum);
    RUN(every_cut_is_refused);
    RUN(every_flip_is_refused_or_harmless);
    RUN(a_file_that_shrinks);
    unlink(path);
    free(zip.out.bytes);
    free(pickle.bytes);
    return test_end();
}
