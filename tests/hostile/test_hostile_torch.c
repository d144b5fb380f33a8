/* Torch archives that nobody should open: each field that lies, names that lead out, bytes that belong to nobody or to two. Each is
 * refused in its own words, and none takes memory beyond its size and 64 MB. */
#include "tests/hostile/torch_refused.h"

static bytes_maker pickle;

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

/* One field of an honest file changed: where (from the start of a record), how many bytes, to what. */
typedef enum record { LOCAL, CENTRAL, DESCRIPTOR, END64, LOCATOR, END } record;

static const struct {
    record record;
    size_t at, bytes;
    uint64_t value;
    dn_status status;
    const char *rule;
} lies[] = {
    {LOCAL, 0, 4, 0x14034b50, DN_INVALID, "neither a zip as torch.save writes it nor any other known file of weights"},
    {LOCAL, 6, 2, 0, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 8, 2, 8, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 14, 4, 77, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 18, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 22, 4, 0xFFFFFFFF, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 26, 2, 3, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 28, 2, 12, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {LOCAL, 30, 1, 'A', DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {CENTRAL, 0, 4, 0, DN_INVALID, "zip: the directory breaks off"},
    {CENTRAL, 8, 2, 0x0809, DN_UNSUPPORTED, "zip entry \"archive/data.pkl\": encrypted"},
    {CENTRAL, 8, 2, 0x0848, DN_INVALID, "zip entry \"archive/data.pkl\": unknown flags"},
    {CENTRAL, 8, 2, 0x0800, DN_INVALID, "zip entry \"archive/data.pkl\": its local header differs from the directory"},
    {CENTRAL, 10, 2, 8, DN_UNSUPPORTED,
     "zip entry \"archive/data.pkl\": compressed, as torch.jit.save does and torch.save never; save a state_dict() with torch.save"},
    {CENTRAL, 16, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its data descriptor differs from the directory"},
    {CENTRAL, 20, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": stored, but of two sizes"},
    {CENTRAL, 20, 8, 0x0000000100000001, DN_INVALID, "zip entry \"archive/data.pkl\": no data descriptor between it and the next entry"},
    {CENTRAL, 20, 8, 0x7FFFFFFF7FFFFFFF, DN_INVALID, "zip entry \"archive/data.pkl\": its data runs into the next entry"},
    {CENTRAL, 20, 8, 0xFFFFFFFFFFFFFFFF, DN_INVALID, "zip entry \"archive/data.pkl\": its extra fields break their form"},
    {CENTRAL, 28, 2, 0, DN_INVALID, "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"},
    {CENTRAL, 28, 2, 0xFFFF, DN_INVALID, "zip: the directory breaks off"},
    {CENTRAL, 34, 2, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its extra fields break their form"},
    {CENTRAL, 42, 4, 4, DN_INVALID, "zip entry \"archive/data.pkl\": it overlaps another entry, or bytes lie before it"},
    {CENTRAL, 42, 4, 0x7FFFFFFF, DN_INVALID, "zip entry \"archive/data/0\": it overlaps another entry, or bytes lie before it"},
    {CENTRAL, 46, 1, '/', DN_INVALID, "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"},
    {CENTRAL, 46, 1, '\n', DN_INVALID, "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"},
    {CENTRAL, 46, 1, '\\', DN_INVALID, "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"},
    {CENTRAL, 46, 8, 0x2F2E2E2F2E2E2F61, DN_INVALID,
     "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"},
    {DESCRIPTOR, 0, 4, 0, DN_INVALID, "zip entry \"archive/data.pkl\": its data descriptor differs from the directory"},
    {DESCRIPTOR, 4, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its data descriptor differs from the directory"},
    {DESCRIPTOR, 8, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its data descriptor differs from the directory"},
    {DESCRIPTOR, 12, 4, 1, DN_INVALID, "zip entry \"archive/data.pkl\": its data descriptor differs from the directory"},
    {END64, 0, 4, 0, DN_INVALID, "zip: the 64-bit end record breaks its form"},
    {END64, 4, 8, 99, DN_INVALID, "zip: the 64-bit end record breaks its form"},
    {END64, 16, 4, 1, DN_INVALID, "zip: the 64-bit end record breaks its form"},
    {END64, 24, 8, 7, DN_INVALID, "zip: the 64-bit end record breaks its form"},
    {END64, 40, 8, 1, DN_INVALID, "zip: the two end records differ"},
    {END64, 48, 8, UINT64_MAX, DN_INVALID, "zip: the two end records differ"},
    {LOCATOR, 4, 4, 1, DN_INVALID, "zip: the 64-bit end record is not where its locator says"},
    {LOCATOR, 8, 8, 0, DN_INVALID, "zip: the 64-bit end record is not where its locator says"},
    {LOCATOR, 16, 4, 2, DN_INVALID, "zip: the 64-bit end record is not where its locator says"},
    {LOCATOR, 0, 4, 0, DN_INVALID, "zip: the directory does not end where the end record begins"},
    {END, 0, 4, 0, DN_INVALID, "zip: no end record at the file's end: the file is cut short or something follows it"},
    {END, 4, 2, 1, DN_INVALID, "zip: spread over several disks"},
    {END, 8, 2, 9, DN_INVALID, "zip: spread over several disks"},
    {END, 8, 4, 0x00090009, DN_INVALID, "zip: the two end records differ"},
    {END, 12, 4, 5, DN_INVALID, "zip: the two end records differ"},
    {END, 16, 4, 5, DN_INVALID, "zip: the two end records differ"},
    {END, 20, 2, 1, DN_INVALID, "zip: no end record at the file's end: the file is cut short or something follows it"},
};

static void fields_that_lie(void)
{
    for (size_t i = 0; i < sizeof lies / sizeof lies[0] && !test_failed; i++) {
        make_honest();
        const uint64_t records[] = {
            zip.entries[0].local, zip.entries[0].central, zip.entries[0].data + zip.entries[0].bytes, zip.end64, zip.end64 + 56, zip.end};
        char what[32];
        snprintf(what, sizeof what, "case %zu", i);
        memcpy(zip.out.bytes + records[lies[i].record] + lies[i].at, &lies[i].value, lies[i].bytes);
        check_refused(lies[i].status, lies[i].rule, what);
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
        check_refused(DN_INVALID, "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive", names[i]);
    }
}

static void archives_of_another_make(void)
{
    static char long_name[600];
    memset(long_name, 'n', 599);
    make_pickle();
    for (int form = 0; form < 7 && !test_failed; form++) {
        static const char *const rules[] = {
            "zip: there is no data.pkl: torch.save did not write this",
            "zip: two data.pkl",
            "byteorder: only little-endian tensors are supported",
            "zip entry \"a/data/0\": there twice",
            "a TorchScript program; open it where it comes from and save its state_dict() again with torch.save (1.6 or later)",
            "tensor \"w\": its storage data/0 is not in the archive",
            "zip: an entry's name is empty, too long, not printable, absolute or leads out of the archive"};
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
    check_refused(DN_INVALID, "zip entry \"archive/data/0\": its data runs into the next entry", "overlap");
    if (test_failed)
        return;
    begin_zip(&zip);
    add_entry(&zip, "a/data.pkl", pickle.bytes, pickle.used);
    put_bytes(&zip.out, "hidden", 6);
    add_entry(&zip, "a/data/0", values, sizeof values);
    end_zip(&zip);
    check_refused(DN_INVALID, "zip entry \"a/data.pkl\": no data descriptor between it and the next entry", "gap");
    if (test_failed)
        return;
    make_honest();
    put_op(&zip.out, 0);
    check_refused(DN_INVALID, "zip: no end record at the file's end: the file is cut short or something follows it", "tail");
    if (test_failed)
        return;
    make_honest();
    bytes_maker honest = zip.out;
    zip.out = (bytes_maker){0};
    put_bytes(&zip.out, "PK\x03\x04", 4);
    put_bytes(&zip.out, honest.bytes, honest.used);
    free(honest.bytes);
    check_refused(DN_INVALID, "zip: the 64-bit end record is not where its locator says", "head");
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
    check_refused(DN_INVALID, "zip: too many entries for the size of the directory", "count");
    if (test_failed)
        return;
    make_honest();
    memcpy(zip.out.bytes + zip.end + 12, &bytes, 4);
    bytes = 1ull << 50;
    memcpy(zip.out.bytes + zip.end64 + 40, &bytes, 8);
    check_refused(DN_INVALID, "zip: the directory does not end where the end record begins", "bytes");
}

static void what_is_no_file_of_weights(void)
{
    static const struct {
        const char *bytes;
        size_t count;
        dn_status status;
        const char *rule;
    } cases[] = {
        {"", 0, DN_INVALID, "neither a zip as torch.save writes it nor any other known file of weights"},
        {"P", 1, DN_INVALID, "neither a zip as torch.save writes it nor any other known file of weights"},
        {"PK\x03\x04", 4, DN_INVALID, "zip: shorter than an end record"},
        {"\x89PNG\r\n\x1a\n", 8, DN_INVALID, "neither a zip as torch.save writes it nor any other known file of weights"},
        {"\x80\x04\x95", 3, DN_UNSUPPORTED,
         "a bare pickle, which can run anything and is not opened; open it where it comes from and save its state_dict() again with "
         "torch.save (1.6 or later)"},
        {"\x1f\x8b\x08 gzip here, as some tar files are", 30, DN_INVALID,
         "neither a zip as torch.save writes it nor any other known file of weights"},
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
    snprintf(path, sizeof path, "/tmp/denoised-hostile-%ld.pt", (long)getpid());
    RUN(fields_that_lie);
    RUN(names_that_lead_out);
    RUN(archives_of_another_make);
    RUN(bytes_owned_twice_or_not_at_all);
    RUN(a_directory_that_boasts);
    RUN(what_is_no_file_of_weights);
    unlink(path);
    free(zip.out.bytes);
    free(pickle.bytes);
    printf("hostile files: %u cases of torch archives\n", count_of_cases);
    return test_end();
}
