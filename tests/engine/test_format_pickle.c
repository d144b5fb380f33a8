/* The pickle machine: what is unknown is inert, and whatever the instructions are, the run ends with tensors that lie inside their
 * storages, or with a refusal that says why. */
#include "tests/test.h"
#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "format/tensors.h"
#include "tests/engine/torch_writer.h"

#define FLOATS 6
#define B(text) text, sizeof(text) - 1

static char path[64], witness[64];
static zip_maker zip;
static bytes_maker p;
static const float values[FLOATS] = {1.0f, -2.0f, 3.5f, 0.0f, 5.25f, -6.0f};

static dn_status open_made(dn_tensors **tensors, dn_error *error)
{
    *tensors = NULL;
    make_torch_file(&zip, &p, (const float *[]){values}, (size_t[]){FLOATS}, 1);
    dn_status status = dn_file_write(path, zip.out.bytes, zip.out.used, false, error);
    return status == DN_OK ? dn_tensors_open(tensors, path, error) : status;
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

/* A good tensor named `name`, set into the dictionary below. */
static void put_good(const char *name)
{
    put_text(&p, name);
    put_tensor(&p, "0", FLOATS, 0, 1, (int64_t[]){FLOATS}, (int64_t[]){1});
    put_op(&p, 's');
}

static void check_only_w(const char *what)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    float got[FLOATS] = {0};
    dn_status status = open_made(&tensors, &error);
    const dn_tensor_info *w = status == DN_OK ? dn_tensors_find(tensors, "w") : NULL;
    bool same = w != NULL && dn_tensors_count(tensors) == 1 && w->count == FLOATS &&
                dn_tensors_read_f32(tensors, w, got, &error) == DN_OK && memcmp(got, values, sizeof got) == 0;
    dn_tensors_close(tensors);
    CHECK_MSG(same, "%s: %s", what, error.message);
}

/* A name of Python's that would do harm: called in every way there is, with a tensor beside it. */
static void nothing_is_ever_called(void)
{
    char command[128];
    static const char *const names[][2] = {{"os", "system"},        {"posix", "system"}, {"builtins", "eval"},
                                           {"subprocess", "Popen"}, {"torch", "load"},   {"torch.hub", "load"}};
    snprintf(command, sizeof command, "touch %s", witness);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        static const char calls[] = {'R', (char)0x81, 'b'};
        begin_pickle(&p);
        for (size_t c = 0; c < sizeof calls; c++) {
            put_text(&p, "call");
            put_global(&p, names[i][0], names[i][1]);
            put_text(&p, command);
            put_op(&p, 0x85);
            put_op(&p, (unsigned char)calls[c]);
            put_op(&p, 's');
        }
        put_good("w");
        put_op(&p, '.');
        check_only_w(names[i][1]);
        if (test_failed)
            return;
        CHECK(access(witness, F_OK) != 0);
        begin_pickle(&p);
        p.used = 2;
        put_global(&p, names[i][0], names[i][1]);
        put_text(&p, command);
        put_bytes(&p, "\x85R.", 3);
        check_refused(DN_UNSUPPORTED, "no dictionary of tensors", names[i][1]);
        if (test_failed)
            return;
        CHECK(access(witness, F_OK) != 0);
    }
}

/* Objects swallow what is added to them, tensors too: nothing in them has a name. */
static void objects_are_inert(void)
{
    static const struct {
        const char *bytes;
        size_t count;
    } objects[] = {
        {B("cargparse\nNamespace\n)\x81}X\x01\x00\x00\x00kK\x01sb")},
        {B("ccollections\ndefaultdict\nc__builtin__\ndict\n\x85RX\x01\x00\x00\x00kK\x01s")},
        {B("ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00mNsb")},
        {B("\x8c\x02os\x8c\x06system\x93")},
        {B("\x8f(K\x01K\x02\x90")},
        {B("(K\x01\x91")},
        {B("cx\ny\n)}\x92")},
        {B("]K\x01"
           "a(K\x02K\x03"
           "e")},
        {B("(K\x01K\x02l")},
        {B("(d")},
        {B("cx\ny\n)R(K\x01K\x02"
           "e")},
        {B("\x8a\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09")},
        {B("\x8b\x01\x00\x00\x00\xff")},
        {B("G\x3f\xf0\x00\x00\x00\x00\x00\x00")},
        {B("C\x02\xff\xfe")},
        {B("B\x02\x00\x00\x00\xff\xfe")},
        {B("U\x01u")},
        {B("T\x01\x00\x00\x00t")},
        {B("\x8e\x01\x00\x00\x00\x00\x00\x00\x00x")},
        {B("\x96\x01\x00\x00\x00\x00\x00\x00\x00x")},
        {B("\x8d\x01\x00\x00\x00\x00\x00\x00\x00x")},
        {B("K\x01"
           "2\x86")},
        {B("K\x01"
           "0N")},
        {B("(K\x01K\x02"
           "1N")},
        {B("N\x94\x30h\x00")},
        {B("Nq\x05\x30h\x05r\x07\x00\x00\x00\x30j\x07\x00\x00\x00")},
        {B("\x95\x01\x00\x00\x00\x00\x00\x00\x00N")},
    };
    for (size_t i = 0; i < sizeof objects / sizeof objects[0] && !test_failed; i++) {
        char what[32];
        snprintf(what, sizeof what, "object %zu", i);
        begin_pickle(&p);
        put_text(&p, "object");
        put_bytes(&p, objects[i].bytes, objects[i].count);
        put_op(&p, 's');
        put_good("w");
        put_op(&p, '.');
        check_only_w(what);
    }
}

static void parameters_and_complex_numbers(void)
{
    begin_pickle(&p);
    put_text(&p, "w");
    put_global(&p, "torch._utils", "_rebuild_parameter");
    put_op(&p, '(');
    put_tensor(&p, "0", FLOATS, 0, 1, (int64_t[]){FLOATS}, (int64_t[]){1});
    put_bytes(&p, "\x89Nt", 3);
    put_bytes(&p, "Rs", 2);
    put_text(&p, "complex");
    put_global(&p, "torch._utils", "_rebuild_tensor_v2");
    put_op(&p, '(');
    put_storage(&p, "ComplexFloatStorage", "0", 3);
    put_bytes(&p, "K\x00K\x03\x85K\x01\x85\x89NtRs.", 14);
    check_only_w("parameter");
}

static void strides_are_followed(void)
{
    static const struct {
        int64_t first;
        size_t rank;
        int64_t dims[3], strides[3];
        size_t count;
        int expected[FLOATS]; /* indices into values */
    } cases[] = {
        {0, 2, {3, 2}, {1, 3}, 6, {0, 3, 1, 4, 2, 5}},
        {1, 2, {2, 2}, {3, 1}, 4, {1, 2, 4, 5}},
        {0, 1, {3}, {2}, 3, {0, 2, 4}},
        {4, 1, {1}, {99}, 1, {4}},
        {2, 2, {1, 3}, {77, 1}, 3, {2, 3, 4}},
        {0, 3, {2, 1, 3}, {3, 5, 1}, 6, {0, 1, 2, 3, 4, 5}},
        {5, 0, {0}, {0}, 1, {5}},
        {1, 2, {2, 3}, {1, 1}, 6, {1, 2, 3, 2, 3, 4}},
        {99, 1, {0}, {1}, 0, {0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_tensors *tensors = NULL;
        float got[FLOATS] = {0}, part[FLOATS] = {0};
        begin_pickle(&p);
        put_text(&p, "w");
        put_tensor(&p, "0", FLOATS, cases[i].first, cases[i].rank, cases[i].dims, cases[i].strides);
        put_bytes(&p, "s.", 2);
        CHECK_OK(open_made(&tensors, &error), error);
        const dn_tensor_info *w = dn_tensors_find(tensors, "w");
        CHECK_MSG(w && w->count == cases[i].count && w->rank == cases[i].rank, "case %zu", i);
        CHECK_OK(dn_tensors_read_f32(tensors, w, got, &error), error);
        for (size_t e = 0; e < cases[i].count; e++)
            CHECK_MSG(got[e] == values[cases[i].expected[e]], "case %zu, element %zu: %g", i, e, (double)got[e]);
        if (w->count > 1) {
            CHECK_OK(dn_tensors_read_part_f32(tensors, w, 1, w->count - 1, part, &error), error);
            CHECK(memcmp(part, got + 1, (w->count - 1) * sizeof *got) == 0);
        }
        dn_tensors_close(tensors);
    }
}

static void names_that_break_the_rules(void)
{
    static char long_name[700];
    memset(long_name, 'n', sizeof long_name - 1);
    const char *const names[] = {"", "a\nb", "\x7f", "caf\xC3\xA9", long_name};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !test_failed; i++) {
        begin_pickle(&p);
        put_good(names[i]);
        put_op(&p, '.');
        check_refused(DN_INVALID, "a name that is", names[i]);
        if (test_failed)
            return;
        begin_pickle(&p); /* below such a key nothing but a tensor is refused */
        put_text(&p, names[i]);
        put_op(&p, '}');
        put_text(&p, "steps");
        put_bytes(&p, "}ss", 3);
        put_good("w");
        put_op(&p, '.');
        check_only_w(names[i]);
        if (test_failed)
            return;
        begin_pickle(&p);
        put_text(&p, names[i]);
        put_op(&p, '}');
        put_good("w");
        put_bytes(&p, "s.", 2);
        check_refused(DN_INVALID, "a name that is", names[i]);
    }
    if (test_failed)
        return;
    begin_pickle(&p);
    put_good("w");
    put_good("w");
    put_op(&p, '.');
    check_refused(DN_INVALID, "there twice", "twice");
    if (test_failed)
        return;
    begin_pickle(&p); /* {"a": {"b": w}, "a.b": w} */
    put_text(&p, "a");
    put_op(&p, '}');
    put_good("b");
    put_op(&p, 's');
    put_good("a.b");
    put_op(&p, '.');
    check_refused(DN_INVALID, "there twice", "joined twice");
}

/* A dictionary in itself; 16 dictionaries each of which holds the next one 30 times: 30^16 names. */
static void dictionaries_without_end(void)
{
    begin_pickle(&p);
    put_bytes(&p, "q\x00", 2);
    put_text(&p, "again");
    put_bytes(&p, "h\x00s.", 4);
    check_refused(DN_INVALID, "nested deeper", "itself");
    if (test_failed)
        return;
    begin_pickle(&p);
    put_bytes(&p, "q\x00\x30", 3);
    for (unsigned char level = 1; level <= 14; level++) {
        put_op(&p, '}');
        for (char key = 'A'; key < 'A' + 30; key++) {
            put_text(&p, (char[]){key, '\0'});
            put_bytes(&p, (unsigned char[]){'h', (unsigned char)(level - 1), 's'}, 3);
        }
        put_bytes(&p, (unsigned char[]){'q', level, '0'}, 3);
    }
    put_bytes(&p, "h\x0e.", 3);
    check_refused(DN_INVALID, "more than 1048576 names", "many");
}

/* A million and more of each instruction that takes memory: refused at the limit, not killed. */
static void programs_that_ask_for_memory(void)
{
    static const struct {
        unsigned char op;
        size_t count;
        const char *rule;
    } cases[] = {{'(', 1200000, "marks"}, {'N', 1200000, "values"}, {'2', 1200000, "stack"}, {0x94, 1200000, "too large"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        begin_pickle(&p);
        for (size_t n = 0; n < cases[i].count; n++)
            put_op(&p, cases[i].op);
        check_refused(cases[i].op == 0x94 ? DN_INVALID : DN_NO_MEMORY, cases[i].rule, cases[i].rule);
    }
    if (test_failed)
        return;
    begin_pickle(&p);
    p.used = 17u << 20;
    p.bytes = realloc(p.bytes, p.used);
    p.capacity = p.used;
    memset(p.bytes + 3, 'N', p.used - 3);
    check_refused(DN_INVALID, "larger than", "long");
}

/* One tensor under 65,537 names. */
static void more_tensors_than_are_allowed(void)
{
    begin_pickle(&p);
    put_tensor(&p, "0", FLOATS, 0, 1, (int64_t[]){FLOATS}, (int64_t[]){1});
    put_bytes(&p, "q\x00\x30", 3);
    for (int i = 0; i <= 65536; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        put_text(&p, name);
        put_bytes(&p, "h\x00s", 3);
    }
    put_op(&p, '.');
    check_refused(DN_INVALID, "more than 65536 tensors", "many");
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/denoised-pickle-%ld.pt", (long)getpid());
    snprintf(witness, sizeof witness, "/tmp/denoised-pickle-%ld.called", (long)getpid());
    RUN(nothing_is_ever_called);
    RUN(objects_are_inert);
    RUN(parameters_and_complex_numbers);
    RUN(strides_are_followed);
    RUN(names_that_break_the_rules);
    RUN(dictionaries_without_end);
    RUN(programs_that_ask_for_memory);
    RUN(more_tensors_than_are_allowed);
    unlink(path);
    free(zip.out.bytes);
    free(p.bytes);
    return test_end();
}
