/* Pickles that nobody should run: programs that break off or lie, storages and tensors that are not where they say. Each is refused in
 * its own words, and none takes memory beyond its size and 64 MB. */
#include "tests/hostile/torch_refused.h"

#define B(text) text, sizeof(text) - 1

static bytes_maker p;

static void refused(dn_status expected, const char *says, const char *what)
{
    make_torch_file(&zip, &p, (const float *[]){values}, (size_t[]){FLOATS}, 1);
    check_refused(expected, says, what);
}

/* Programs, and what their refusal says. */
static const struct {
    const char *bytes;
    size_t count;
    const char *rule;
} broken[] = {
    {B(""), "pickle, byte 0: not of protocol 2 to 5"},
    {B("}."), "pickle, byte 2: not of protocol 2 to 5"},
    {B("\x80\x01}."), "pickle, byte 2: not of protocol 2 to 5"},
    {B("\x80\x06}."), "pickle, byte 2: not of protocol 2 to 5"},
    {B("\x80\x02"), "pickle, byte 2: breaks off"},
    {B("\x80\x02}"), "pickle, byte 3: breaks off"},
    {B("\x80\x02}.."), "pickle, byte 4: bytes behind its end"},
    {B("\x80\x02."), "pickle, byte 3: does not end with one value"},
    {B("\x80\x02}}."), "pickle, byte 5: does not end with one value"},
    {B("\x80\x02}(."), "pickle, byte 5: does not end with one value"},
    {B("\x80\x02"
       "0"),
     "pickle, byte 3: takes a value from an empty stack"},
    {B("\x80\x02(0"), "pickle, byte 4: takes a value from an empty stack"},
    {B("\x80\x02}(0"), "pickle, byte 5: takes a value from an empty stack"},
    {B("\x80\x02"
       "2"),
     "pickle, byte 3: looks at an empty stack"},
    {B("\x80\x02q\x00"), "pickle, byte 4: looks at an empty stack"},
    {B("\x80\x02"
       "b"),
     "pickle, byte 3: takes a value from an empty stack"},
    {B("\x80\x02}b"), "pickle, byte 4: looks at an empty stack"},
    {B("\x80\x02R"), "pickle, byte 3: takes a value from an empty stack"},
    {B("\x80\x02}Q"), "pickle, byte 4: a persistent id that names no storage"},
    {B("\x80\x02N\x86"), "pickle, byte 4: makes a tuple of more values than there are"},
    {B("\x80\x02N(\x85"), "pickle, byte 5: makes a tuple of more values than there are"},
    {B("\x80\x02t"), "pickle, byte 3: goes back to a mark that was not set"},
    {B("\x80\x02"
       "1"),
     "pickle, byte 3: goes back to a mark that was not set"},
    {B("\x80\x02}u"), "pickle, byte 4: goes back to a mark that was not set"},
    {B("\x80\x02}(K\x01u"), "pickle, byte 7: adds a key without a value"},
    {B("\x80\x02K\x01K\x01K\x01s"), "pickle, byte 9: adds items to what is no container of its kind"},
    {B("\x80\x02}K\x01"
       "a"),
     "pickle, byte 6: adds items to what is no container of its kind"},
    {B("\x80\x02](K\x01K\x01u"), "pickle, byte 9: adds items to what is no container of its kind"},
    {B("\x80\x02}(K\x01\x90"), "pickle, byte 7: adds items to what is no container of its kind"},
    {B("\x80\x02(K\x01K\x02"
       "d"),
     "pickle, byte 8: makes a dictionary of items at once, which torch.save does not write"},
    {B("\x80\x02h\x00"), "pickle, byte 4: a memo index that was never set"},
    {B("\x80\x02j\xff\xff\xff\xff"), "pickle, byte 7: a memo index that was never set"},
    {B("\x80\x02}q\x05h\x04"), "pickle, byte 7: a memo index that was never set"},
    {B("\x80\x02}r\xff\xff\xff\xff"), "pickle, byte 8: a memo index that is too large"},
    {B("\x80\x02X\xff\xff\xff\xff."), "pickle, byte 7: breaks off inside a string"},
    {B("\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "pickle, byte 11: breaks off inside a string"},
    {B("\x80\x02\x8d\x00"), "pickle, byte 3: breaks off"},
    {B("\x80\x02\x8a\xff."), "pickle, byte 4: breaks off"},
    {B("\x80\x02\x8b\xff\xff\xff\xff."), "pickle, byte 7: breaks off"},
    {B("\x80\x02"
       "cos\nsystem"),
     "pickle, byte 6: breaks off inside a name"},
    {B("\x80\x02"
       "c"),
     "pickle, byte 3: breaks off inside a name"},
    {B("\x80\x02K\x01K\x02\x93"), "pickle, byte 7: a name that is no string"},
    {B("\x80\x02K\x01)R"), "pickle, byte 6: a call of what is no function, or without arguments"},
    {B("\x80\x02"
       "ccollections\nOrderedDict\n]R"),
     "pickle, byte 29: a call of what is no function, or without arguments"},
    {B("\x80\x02"
       "ccollections\nOrderedDict\n]\x85R"),
     "pickle, byte 30: an OrderedDict made from arguments, which torch.save does not write"},
    {B("\x80\x02"
       "ctorch._utils\n_rebuild_tensor_v2\n)R"),
     "pickle, byte 37: a tensor of too few arguments"},
    {B("\x80\x02"
       "ctorch._utils\n_rebuild_parameter\n)R"),
     "pickle, byte 37: a parameter without its tensor"},
    {B("\x80\x02"
       "ctorch._utils\n_rebuild_tensor_v2\n(}K\x00))tR"),
     "pickle, byte 43: a tensor without a storage"},
    {B("\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00}."), "pickle, byte 11: a frame that ends beyond the pickle"},
    {B("\x80\x02I01\n."), "pickle, byte 2: instruction 0x49 is none that torch.save writes"},
    {B("\x80\x02L1L\n."), "pickle, byte 2: instruction 0x4c is none that torch.save writes"},
    {B("\x80\x02S'a'\n."), "pickle, byte 2: instruction 0x53 is none that torch.save writes"},
    {B("\x80\x02(ios\nsystem\n."), "pickle, byte 3: instruction 0x69 is none that torch.save writes"},
    {B("\x80\x02(o."), "pickle, byte 3: instruction 0x6f is none that torch.save writes"},
    {B("\x80\x02P1\n."), "pickle, byte 2: instruction 0x50 is none that torch.save writes"},
    {B("\x80\x02\x82\x01."), "pickle, byte 2: instruction 0x82 is none that torch.save writes"},
    {B("\x80\x02\x97."), "pickle, byte 2: instruction 0x97 is none that torch.save writes"},
    {B("\x80\x02\x80\x02}."), "pickle, byte 2: instruction 0x80 is none that torch.save writes"},
    {B("\x80\x02\xff."), "pickle, byte 2: instruction 0xff is none that torch.save writes"},
};

static void programs_that_break_off_or_lie(void)
{
    for (size_t i = 0; i < sizeof broken / sizeof broken[0] && !test_failed; i++) {
        char what[32];
        snprintf(what, sizeof what, "case %zu", i);
        p.used = 0;
        put_bytes(&p, broken[i].bytes, broken[i].count);
        refused(DN_INVALID, broken[i].rule, what);
    }
}

static void storages_that_lie(void)
{
    static const struct {
        const char *key;
        int64_t count;
        const char *rule;
    } cases[] = {
        {"../version", FLOATS, "pickle, byte 111: a storage whose key is not made of letters and digits"},
        {"0/..", FLOATS, "pickle, byte 105: a storage whose key is not made of letters and digits"},
        {"", FLOATS, "pickle, byte 101: a storage whose key is not made of letters and digits"},
        {"0", -1, "pickle, byte 102: a storage whose size is no whole number"},
        {"0", FLOATS + 1, "tensor \"w\": its storage data/0 has not the size that data.pkl says"},
        {"0", FLOATS - 1, "tensor \"w\": its storage data/0 has not the size that data.pkl says"},
        {"0", INT64_MAX, "tensor \"w\": its storage data/0 has not the size that data.pkl says"},
        {"1", FLOATS, "tensor \"w\": its storage data/1 is not in the archive"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        begin_pickle(&p);
        put_text(&p, "w");
        put_tensor(&p, cases[i].key, cases[i].count, 0, 1, (int64_t[]){3}, (int64_t[]){1});
        put_bytes(&p, "s.", 2);
        refused(DN_INVALID, cases[i].rule, cases[i].key);
    }
}

static void tensors_that_leave_their_storage(void)
{
    static const struct {
        int64_t first;
        size_t rank;
        int64_t dims[9], strides[9];
        const char *rule;
    } cases[] = {
        {0, 1, {7}, {1}, "pickle, byte 166: a tensor that reaches beyond its storage"},
        {6, 1, {1}, {1}, "pickle, byte 166: a tensor that reaches beyond its storage"},
        {1, 2, {2, 3}, {3, 1}, "pickle, byte 186: a tensor that reaches beyond its storage"},
        {0, 2, {2, 3}, {4, 1}, "pickle, byte 186: a tensor that reaches beyond its storage"},
        {INT64_MAX, 1, {1}, {1}, "pickle, byte 166: a tensor that reaches beyond its storage"},
        {-1, 1, {1}, {1}, "pickle, byte 166: a tensor whose offset is no whole number"},
        {0, 1, {-1}, {1}, "pickle, byte 166: a tensor whose shape or strides are no whole numbers"},
        {0, 1, {2}, {-1}, "pickle, byte 166: a tensor whose shape or strides are no whole numbers"},
        {0, 2, {7, 1}, {0, 1}, "pickle, byte 186: a tensor of more elements than its storage has"},
        {0, 2, {1ll << 40, 1ll << 40}, {0, 0}, "pickle, byte 186: a tensor whose shape overflows 64 bits"},
        {0, 3, {1ll << 40, 1ll << 40, 0}, {0, 0, 1}, "pickle, byte 206: a tensor whose shape overflows 64 bits"},
        {0, 2, {3, 3}, {INT64_MAX, INT64_MAX}, "pickle, byte 186: a tensor whose strides overflow 64 bits"},
        {0,
         9,
         {1, 1, 1, 1, 1, 1, 1, 1, 1},
         {1, 1, 1, 1, 1, 1, 1, 1, 1},
         "pickle, byte 326: a tensor whose shape or strides are no tuple of at most 8 numbers"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        char what[32];
        snprintf(what, sizeof what, "case %zu", i);
        begin_pickle(&p);
        put_text(&p, "w");
        put_tensor(&p, "0", FLOATS, cases[i].first, cases[i].rank, cases[i].dims, cases[i].strides);
        put_bytes(&p, "s.", 2);
        refused(DN_INVALID, cases[i].rule, what);
    }
}

/* Programs of megabytes that want to become gigabytes: one piece again and again, behind a beginning. */
static void programs_that_never_stop_growing(void)
{
    static const struct {
        const char *start;
        size_t start_bytes;
        const char *piece;
        size_t piece_bytes, times;
        dn_status status;
        const char *says;
    } bombs[] = {
        {B("\x80\x02"), B("N"), 4 << 20, DN_NO_MEMORY, "pickle: out of memory, or the stack passes 262144 values"},
        {B("\x80\x02"), B("]"), 4 << 20, DN_NO_MEMORY, "pickle: out of memory, or the stack passes 262144 values"},
        {B("\x80\x02"), B("("), 4 << 20, DN_NO_MEMORY, "pickle: out of memory, or more than 262144 marks"},
        {B("\x80\x02]"), B("2"), 4 << 20, DN_NO_MEMORY, "pickle: out of memory, or the stack passes 262144 values"},
        {B("\x80\x02]"), B("Na"), 2 << 20, DN_NO_MEMORY, "pickle: out of memory, or more than 524288 values"},
        {B("\x80\x02]"), B("2\x86"), 2 << 20, DN_NO_MEMORY, "pickle: out of memory, or more than 524288 items"},
        {B("\x80\x04]"), B("\x94"), 4 << 20, DN_INVALID, "pickle, byte 1048580: a memo index that is too large"},
        {B("\x80\x02N"), B("\x85"), 4 << 20, DN_NO_MEMORY, "pickle: out of memory, or more than 524288 values"},
        {B("\x80\x02"), B("\x8a\x01\x01"), 2 << 20, DN_NO_MEMORY, "pickle: out of memory, or the stack passes 262144 values"},
        {B("\x80\x02}"), B("X\x01\x00\x00\x00k}s"), 1 << 20, DN_NO_MEMORY, "pickle: out of memory, or more than 524288 values"},
        {B("\x80\x02}"), B("X\x01\x00\x00\x00k}"), 1 << 20, DN_NO_MEMORY, "pickle: out of memory, or the stack passes 262144 values"},
        {B("\x80\x02"), B("\x80"), 17 << 20, DN_INVALID, "zip entry \"archive/data.pkl\": larger than 16777216 bytes"},
    };
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0] && !test_failed; i++) {
        char what[32];
        snprintf(what, sizeof what, "bomb %zu", i);
        p.used = 0;
        put_bytes(&p, bombs[i].start, bombs[i].start_bytes);
        for (size_t k = 0; k < bombs[i].times; k++)
            put_bytes(&p, bombs[i].piece, bombs[i].piece_bytes);
        refused(bombs[i].status, bombs[i].says, what);
    }
}

/* One tensor that stands in the memo, under more names than there can be tensors; and under so long a dictionary's name that its own
 * names would fill the memory. */
static void tensors_without_number(void)
{
    static const struct {
        int prefix_bytes;
        dn_status status;
        const char *says;
    } bombs[] = {{6, DN_INVALID, "more than 65536 tensors"}, {400, DN_INVALID, "the names of its tensors take more than 8388608 bytes"}};
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0] && !test_failed; i++) {
        char name[512];
        begin_pickle(&p);
        snprintf(name, sizeof name, "%0*u", bombs[i].prefix_bytes, 0);
        put_text(&p, name);
        put_op(&p, '}');
        for (uint32_t k = 0; k < 60000; k++) {
            snprintf(name, sizeof name, "%u", k);
            put_text(&p, name);
            if (k > 0) {
                put_bytes(&p, "h\x01", 2);
            } else {
                put_tensor(&p, "0", FLOATS, 0, 1, (int64_t[]){FLOATS}, (int64_t[]){1});
                put_bytes(&p, "q\x01", 2);
            }
            put_op(&p, 's');
        }
        put_bytes(&p, "q\x02s", 3);
        put_text(&p, "again");
        put_bytes(&p, "h\x02s.", 4);
        refused(bombs[i].status, bombs[i].says, "tensors without number");
    }
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/denoised-hostile-%ld.pt", (long)getpid());
    RUN(programs_that_break_off_or_lie);
    RUN(storages_that_lie);
    RUN(tensors_that_leave_their_storage);
    RUN(programs_that_never_stop_growing);
    RUN(tensors_without_number);
    unlink(path);
    free(zip.out.bytes);
    free(p.bytes);
    printf("hostile files: %u cases of pickles\n", count_of_cases);
    return test_end();
}
