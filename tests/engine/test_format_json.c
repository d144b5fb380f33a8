/* The JSON scanner against hostile text: each case with the byte where it must stop. */
#include <locale.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "format/json.h"
#include "format/json_cursor.h"
#include "tests/test.h"

#define FOLDER "build/test_format_json"

typedef struct text_case {
    const char *text;
    size_t bytes; /* 0: strlen */
    size_t offset;
} text_case;

#define RAW(text, offset)                                                                                                                  \
    {                                                                                                                                      \
        text, sizeof(text) - 1, offset                                                                                                     \
    }
#define SIXTEEN_OPEN "[[[[[[[[[[[[[[[["
#define SIXTEEN_CLOSE "]]]]]]]]]]]]]]]]"
#define TEN_DIGITS "1234567890"
#define SIXTY_DIGITS TEN_DIGITS TEN_DIGITS TEN_DIGITS TEN_DIGITS TEN_DIGITS TEN_DIGITS

static const text_case refused[] = {
    /* Nothing, half of something, more than one thing. */
    RAW("", 0),
    RAW("   ", 3),
    RAW("\n\t", 2),
    RAW("{", 1),
    RAW("[", 1),
    RAW("[1", 2),
    RAW("[1,", 3),
    RAW("{\"a\"", 4),
    RAW("{\"a\":", 5),
    RAW("{\"a\":1", 6),
    RAW("{\"a\":1,", 7),
    RAW("\"", 1),
    RAW("\"abc", 4),
    RAW("\"abc\\", 5),
    RAW("{} {}", 3),
    RAW("1 2", 2),
    RAW("[]]", 2),
    RAW("{}}", 2),
    RAW("{}\0", 2),
    RAW("{}x", 2),
    RAW("null,", 4),
    RAW("\0", 0),
    RAW("{\"a\":1}\0{\"a\":2}", 7),
    /* Structure. */
    RAW("]", 0),
    RAW("}", 0),
    RAW(",", 0),
    RAW(":", 0),
    RAW("[,]", 1),
    RAW("[1,]", 3),
    RAW("[,1]", 1),
    RAW("[1,,2]", 3),
    RAW("[1 2]", 3),
    RAW("[1}", 2),
    RAW("{]", 1),
    RAW("{\"a\"}", 4),
    RAW("{\"a\":}", 5),
    RAW("{\"a\" 1}", 5),
    RAW("{\"a\",1}", 4),
    RAW("{\"a\"::1}", 5),
    RAW("{\"a\":1,}", 7),
    RAW("{,\"a\":1}", 1),
    RAW("{\"a\":1 \"b\":2}", 7),
    RAW("{\"a\":1;\"b\":2}", 6),
    RAW("{a:1}", 1),
    RAW("{'a':1}", 1),
    RAW("{1:1}", 1),
    RAW("{null:1}", 1),
    RAW("{[]:1}", 1),
    RAW("[1,2", 4),
    /* Words and comments. */
    RAW("tru", 0),
    RAW("True", 0),
    RAW("TRUE", 0),
    RAW("truex", 4),
    RAW("nul", 0),
    RAW("none", 0),
    RAW("undefined", 0),
    RAW("NaN", 0),
    RAW("nan", 0),
    RAW("Infinity", 0),
    RAW("-Infinity", 1),
    RAW("-inf", 1),
    RAW("inf", 0),
    RAW("/* c */ 1", 0),
    RAW("1 // c", 2),
    RAW("# c\n1", 0),
    RAW("[1 /* */]", 3),
    /* Numbers. */
    RAW("007", 0),
    RAW("00", 0),
    RAW("01", 0),
    RAW("-01", 0),
    RAW("-", 1),
    RAW("+1", 0),
    RAW("--1", 1),
    RAW("1.", 2),
    RAW(".5", 0),
    RAW("-.5", 1),
    RAW("1.e5", 2),
    RAW("1e", 2),
    RAW("1e+", 3),
    RAW("1e5.5", 3),
    RAW("1.5.5", 3),
    RAW("1,5", 1),
    RAW("0x10", 1),
    RAW("1_000", 1),
    RAW("1f", 1),
    RAW("1e999", 0),
    RAW("-1e999", 0),
    RAW("[1e309]", 1),
    RAW("{\"a\":1e400}", 5),
    RAW("1.7976931348623159e308", 0),
    RAW(SIXTY_DIGITS "1234", 0),
    RAW("0." SIXTY_DIGITS "12", 0),
    RAW("[" SIXTY_DIGITS SIXTY_DIGITS SIXTY_DIGITS SIXTY_DIGITS SIXTY_DIGITS SIXTY_DIGITS "]", 1),
    RAW("1e0000000000000000000000000000000000000000000000000000000000000000000000001", 0),
    /* Strings. */
    RAW("\"a\nb\"", 2),
    RAW("\"a\tb\"", 2),
    RAW("\"\x01\"", 1),
    RAW("\"\x1f\"", 1),
    RAW("\"a\0b\"", 2),
    RAW("{\"a\0b\":1}", 3),
    RAW("\"\\x41\"", 1),
    RAW("\"\\'\"", 1),
    RAW("\"\\a\"", 1),
    RAW("\"\\\0\"", 1),
    RAW("\"\\U0041\"", 1),
    RAW("\"\\u\"", 3),
    RAW("\"\\u12\"", 5),
    RAW("\"\\u123g\"", 6),
    RAW("\"\\u+123\"", 3),
    RAW("\"\\u 123\"", 3),
    RAW("\"\\u0000\"", 1),
    RAW("\"ab\\u0000cd\"", 3),
    RAW("{\"\\u0000\":1}", 2),
    RAW("\"\\ud800\"", 1),
    RAW("\"\\udc00\"", 1),
    RAW("\"\\ud800\\ud800\"", 1),
    RAW("\"\\ud800\\u0041\"", 1),
    RAW("\"\\ud800x\"", 1),
    RAW("\"\\ud800\\n\"", 1),
    RAW("\"\\ud800\\u\"", 9),
    RAW("\"\\udfff\\ud800\"", 1),
    RAW("'a'", 0),
    RAW("\"a\"b\"", 3),
    /* UTF-8. */
    RAW("\xEF\xBB\xBF{}", 0),
    RAW("\xFE\xFF\0{", 0),
    RAW("{\0}\0", 1),
    RAW("\"\x80\"", 1),
    RAW("\"\xBF\"", 1),
    RAW("\"\xC0\x80\"", 1),
    RAW("\"\xC1\xBF\"", 1),
    RAW("\"\xC3\"", 1),
    RAW("\"\xC3", 1),
    RAW("\"\xE2\x82\"", 1),
    RAW("\"\xE0\x80\x80\"", 1),
    RAW("\"\xE0\x9F\xBF\"", 1),
    RAW("\"\xED\xA0\x80\"", 1),
    RAW("\"\xED\xBF\xBF\"", 1),
    RAW("\"\xF0\x80\x80\x80\"", 1),
    RAW("\"\xF0\x8F\xBF\xBF\"", 1),
    RAW("\"\xF4\x90\x80\x80\"", 1),
    RAW("\"\xF5\x80\x80\x80\"", 1),
    RAW("\"\xF8\x88\x80\x80\x80\"", 1),
    RAW("\"\xFF\"", 1),
    RAW("\"ok \xE2\x28\xA1\"", 4),
    RAW("{\"\xC3\x28\":1}", 2),
    RAW("\xC2\xA0 1", 0),
    RAW("\x0B 1", 0),
    RAW("\f1", 0),
    /* Duplicate keys, however they are written. */
    RAW("{\"a\":1,\"a\":2}", 7),
    RAW("{\"a\":1,\"b\":2,\"a\":3}", 13),
    RAW("{\"seed\":1,\"\\u0073eed\":2}", 10),
    RAW("{\"\\u0041\":1,\"A\":2}", 12),
    RAW("{\"/\":1,\"\\/\":2}", 7),
    RAW("{\"\":1,\"\":2}", 6),
    RAW("{\"\xC3\xA9\":1,\"\\u00e9\":2}", 8),
    RAW("{\"\xF0\x9F\x98\x80\":1,\"\\ud83d\\uDE00\":2}", 10),
    RAW("{\"o\":{\"k\":1,\"k\":2}}", 12),
    RAW("[{\"k\":1},{\"k\":1,\"k\":2}]", 16),
    RAW("{\"a\":{\"b\":1},\"b\":2,\"a\":3}", 19),
    RAW("{\"b\":1,\"a\":1,\"b\":2,\"a\":2}", 13),
    /* Depth 17. */
    RAW(SIXTEEN_OPEN "[]" SIXTEEN_CLOSE, 16),
    RAW(SIXTEEN_OPEN "{}" SIXTEEN_CLOSE, 16),
    RAW(SIXTEEN_OPEN SIXTEEN_OPEN SIXTEEN_OPEN, 16),
};

static const text_case accepted[] = {
    RAW("{}", 0),
    RAW("[]", 0),
    RAW(" \t\r\n{ } \n", 0),
    RAW("null", 0),
    RAW("true", 0),
    RAW("false", 0),
    RAW("\"\"", 0),
    RAW("0", 0),
    RAW("-0", 0),
    RAW("-0.0e-0", 0),
    RAW("1E5", 0),
    RAW("1e+5", 0),
    RAW("1.7976931348623157e308", 0),
    RAW("5e-324", 0),
    RAW("1e-999", 0),
    RAW("18446744073709551615", 0),
    RAW("9007199254740993", 0),
    RAW(SIXTY_DIGITS "123", 0),
    RAW("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\uDE00\"", 0),
    RAW("\"\x7f\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"", 0),
    RAW("\"\\uFFFF\\ue000\"", 0),
    RAW("\"a\xEF\xBB\xBF\"", 0),
    RAW("{\"a\":1,\"A\":2}", 0),
    RAW("{\"a\":{\"a\":{\"a\":1}}}", 0),
    RAW("[{\"a\":1},{\"a\":1}]", 0),
    RAW("{\"a\":[],\"b\":{},\"c\":[{}],\"\":null}", 0),
    RAW("{\"ab\":1,\"a\":1,\"b\":1,\"ba\":1}", 0),
    RAW(SIXTEEN_OPEN SIXTEEN_CLOSE, 0),
    RAW("[1,2.5,-3e2,true,false,null,\"x\"]", 0),
};

static const dn_json_limits usual = {.bytes_max = 1 << 20};

/* A copy of exact size, so that a sanitizer sees a read past the end. */
static char *exact_copy(const char *text, size_t bytes)
{
    char *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, text, bytes);
    return copy;
}

static void hostile_text_is_refused_at_its_byte(void)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char *text = exact_copy(refused[i].text, refused[i].bytes);
        size_t offset = 999;
        dn_error error = {0};
        cJSON *tree = NULL;
        dn_status status = dn_json_parse(&tree, text, refused[i].bytes, &usual, &offset, &error);
        free(text);
        CHECK_MSG(status == DN_INVALID && !tree && error.message[0], "case %zu accepted: %s", i, refused[i].text);
        CHECK_MSG(offset == refused[i].offset, "case %zu: byte %zu instead of %zu (%s): %s", i, offset, refused[i].offset, error.message,
                  refused[i].text);
    }
    size_t cases = sizeof refused / sizeof refused[0];
    CHECK_MSG(cases >= 100, "%zu cases", cases);
}

static void good_text_is_accepted_by_both(void)
{
    for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; i++) {
        char *text = exact_copy(accepted[i].text, accepted[i].bytes);
        dn_error error = {0};
        size_t offset = 0;
        cJSON *tree = NULL;
        dn_status status = dn_json_parse(&tree, text, accepted[i].bytes, &usual, &offset, &error);
        free(text);
        CHECK_MSG(status == DN_OK && tree, "case %zu, byte %zu: %s: %s", i, offset, error.message, accepted[i].text);
        cJSON_Delete(tree);
    }
}

/* Every prefix of a document is refused, without reading past its end. */
static void every_prefix_is_refused(void)
{
    static const char document[] = "{\"seed\":12345678901234567890,\"a\":[1.5e3,true,null,\"\\ud83d\\ude00\xC3\xA9\"],\"o\":{\"k\":false}}";
    dn_error error = {0};
    for (size_t bytes = 0; bytes + 1 < sizeof document; bytes++) {
        char *text = exact_copy(document, bytes);
        size_t offset = 999;
        dn_status status = dn_json_scan(text, bytes, &usual, &offset, &error);
        free(text);
        CHECK_MSG(status == DN_INVALID && offset <= bytes, "%zu bytes", bytes);
    }
    CHECK_OK(dn_json_scan(document, sizeof document - 1, &usual, NULL, &error), error);
}

/* Any single byte changed: the scanner and cJSON must not disagree in the dangerous direction. */
static void what_the_scanner_accepts_cjson_reads(void)
{
    static const char document[] = "{\"seed\":1234567,\"a\":[1.5e3,true,\"\\ud83d\\ude00\"],\"o\":{\"k\":false}}";
    for (size_t at = 0; at + 1 < sizeof document; at++) {
        for (int byte = 0; byte < 256; byte++) {
            char *text = exact_copy(document, sizeof document - 1);
            text[at] = (char)byte;
            dn_error error = {0};
            cJSON *tree = NULL;
            dn_status status = dn_json_parse(&tree, text, sizeof document - 1, &usual, NULL, &error);
            free(text);
            CHECK_MSG(status == DN_OK || status == DN_INVALID, "byte %zu set to %d: %s", at, byte, error.message);
            cJSON_Delete(tree);
        }
    }
}

static void limits_hold(void)
{
    dn_error error = {0};
    size_t offset = 0;
    dn_json_limits limits = {.bytes_max = 10};
    CHECK(dn_json_scan("[1,2,3,4,5]", 11, &limits, &offset, &error) == DN_INVALID && offset == 10);
    CHECK_OK(dn_json_scan("[1,2,3,45]", 10, &limits, &offset, &error), error);
    limits = (dn_json_limits){.bytes_max = 100, .depth_max = 2};
    CHECK_OK(dn_json_scan("[[1],{\"a\":2}]", 13, &limits, &offset, &error), error);
    CHECK(dn_json_scan("[[[]]]", 6, &limits, &offset, &error) == DN_INVALID && offset == 2);
    limits = (dn_json_limits){.bytes_max = 100, .tokens_max = 5};
    CHECK_OK(dn_json_scan("{\"a\":1,\"b\":2}", 13, &limits, &offset, &error), error);
    CHECK(dn_json_scan("{\"a\":1,\"b\":2,\"c\":3}", 19, &limits, &offset, &error) == DN_INVALID && offset == 13);
    CHECK(dn_json_scan("[1,2,3,4,5]", 11, &limits, &offset, &error) == DN_INVALID && offset == 9);
    limits = (dn_json_limits){.bytes_max = 1 << 20, .depth_max = 4000000000u};
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    dn_status status = dn_json_scan(deep, 100000, &limits, &offset, &error);
    free(deep);
    CHECK(status == DN_INVALID && offset <= 1000);
}

/* 50,000 keys in one object: n log n, and the one duplicate is found. */
static void large_objects_are_quick(void)
{
    char *text = malloc(2 << 20);
    size_t used = (size_t)sprintf(text, "{");
    for (int i = 0; i < 50000; i++) {
        used += (size_t)sprintf(text + used, "\"key%d\":%d,", i, i);
    }
    size_t expected = used;
    used += (size_t)sprintf(text + used, "\"key25000\":1}");
    dn_json_limits limits = {.bytes_max = 2 << 20};
    dn_error error = {0};
    size_t offset = 0;
    dn_status status = dn_json_scan(text, used, &limits, &offset, &error);
    free(text);
    CHECK_MSG(status == DN_INVALID && offset == expected, "byte %zu instead of %zu: %s", offset, expected, error.message);
}

static void cursor_reads_integers_and_strings(void)
{
    static const char text[] = " 18446744073709551615 18446744073709551616 1.0 1e3 -1 007 \"a\\u00e9\\n\" ";
    dn_json_cursor cursor = {.at = text, .end = text + sizeof text - 1};
    uint64_t value = 0;
    char out[16];
    size_t bytes = 0;
    CHECK(dn_json_take_u64(&cursor, &value) && value == UINT64_MAX);
    for (int i = 0; i < 4; i++) {
        CHECK(!dn_json_take_u64(&cursor, &value) && dn_json_skip_value(&cursor));
    }
    CHECK(dn_json_take_u64(&cursor, &value) && value == 7);
    CHECK(!dn_json_take_string(&cursor, out, 5, &bytes));
    CHECK(dn_json_take_string(&cursor, out, sizeof out, &bytes) && bytes == 4 && memcmp(out, "a\xC3\xA9\n", 4) == 0);
    CHECK(dn_json_peek(&cursor) == '\0' && !dn_json_take(&cursor, 'x') && !dn_json_skip_value(&cursor));
}

static void files_are_named_in_refusals(void)
{
    dn_error error = {0};
    cJSON *tree = NULL;
    CHECK_OK(dn_make_folder(FOLDER, &error), error);
    CHECK_OK(dn_file_write(FOLDER "/good.json", "{\"a\":[1,2]}\n", 12, false, &error), error);
    CHECK_OK(dn_file_write(FOLDER "/bad.json", "{\"a\":1,\"a\":2}", 13, false, &error), error);
    CHECK_OK(dn_json_read_file(&tree, FOLDER "/good.json", 1000, &error), error);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(tree, "a")) == 2);
    cJSON_Delete(tree);
    tree = NULL;
    CHECK(dn_json_read_file(&tree, FOLDER "/bad.json", 1000, &error) == DN_INVALID && !tree);
    CHECK_MSG(strstr(error.message, "bad.json: byte 7: duplicate key"), "%s", error.message);
    CHECK(dn_json_read_file(&tree, FOLDER "/bad.json", 12, &error) == DN_INVALID && !tree);
    CHECK(dn_json_read_file(&tree, FOLDER "/none.json", 12, &error) == DN_IO && !tree);
}

int main(void)
{
    RUN(hostile_text_is_refused_at_its_byte);
    RUN(good_text_is_accepted_by_both);
    RUN(every_prefix_is_refused);
    RUN(what_the_scanner_accepts_cjson_reads);
    RUN(limits_hold);
    RUN(large_objects_are_quick);
    RUN(cursor_reads_integers_and_strings);
    RUN(files_are_named_in_refusals);
    return test_end();
}
