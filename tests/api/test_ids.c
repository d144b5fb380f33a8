/* Ids and cursors: shape, round trips, and what is refused. */
#include <stdint.h>

#include "api/views.h"
#include "tests/test.h"

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 11;
}

static void ids_have_26_characters_of_the_alphabet(void)
{
    unsigned char bytes[16];
    char id[27], other[27];
    memset(bytes, 0, sizeof bytes);
    api_id_text(id, bytes);
    CHECK(strcmp(id, "aaaaaaaaaaaaaaaaaaaaaaaaaa") == 0);
    memset(bytes, 255, sizeof bytes);
    api_id_text(id, bytes);
    CHECK(strcmp(id, "7777777777777777777777777"
                     "4") == 0);
    uint64_t state = 1;
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 16; i++) {
            bytes[i] = (unsigned char)next_random(&state);
        }
        api_id_text(id, bytes);
        CHECK(strlen(id) == 26 && api_id_valid(id));
        bytes[round % 16] ^= 1;
        api_id_text(other, bytes);
        CHECK(strcmp(id, other) != 0);
    }
}

static void other_texts_are_no_ids(void)
{
    static const char *const rows[] = {
        "",
        "a",
        "aaaaaaaaaaaaaaaaaaaaaaaaa",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "Aaaaaaaaaaaaaaaaaaaaaaaaaa",
        "0aaaaaaaaaaaaaaaaaaaaaaaaa",
        "1aaaaaaaaaaaaaaaaaaaaaaaaa",
        "8aaaaaaaaaaaaaaaaaaaaaaaaa",
        "aaaaaaaaaaaaa/aaaaaaaaaaaa",
        "../aaaaaaaaaaaaaaaaaaaaaaa",
        "aaaaaaaaaaaaaaaaaaaaaaaaa\xC3",
        " aaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    CHECK(!api_id_valid(NULL));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_MSG(!api_id_valid(rows[i]), "%s", rows[i]);
    }
}

static void cursors_round_trip(void)
{
    static const int64_t values[] = {0, 1, -1, 1795294539123, INT64_MAX, INT64_MIN, 255, 256};
    size_t count = sizeof values / sizeof values[0];
    for (size_t i = 0; i < count * count; i++) {
        char text[64];
        int64_t created, row;
        api_cursor_text(text, values[i / count], values[i % count]);
        CHECK(strlen(text) == 32 && strspn(text, "abcdefghijklmnopqrstuvwxyz234567") == 32);
        CHECK(api_cursor_parse(text, &created, &row));
        CHECK(created == values[i / count] && row == values[i % count]);
    }
}

static void a_changed_cursor_is_refused(void)
{
    char text[64];
    int64_t created = 7, row = 8;
    api_cursor_text(text, 1795294539123, 42);
    for (size_t i = 0; i < 32; i++) {
        char kept = text[i];
        text[i] = kept == 'a' ? 'b' : 'a';
        CHECK(!api_cursor_parse(text, &created, &row));
        text[i] = kept;
    }
    CHECK(!api_cursor_parse(NULL, &created, &row));
    CHECK(!api_cursor_parse("", &created, &row));
    CHECK(!api_cursor_parse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &created, &row));
    text[31] = '\0';
    CHECK(!api_cursor_parse(text, &created, &row));
    CHECK(!api_cursor_parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &created, &row));
    CHECK(!api_cursor_parse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &created, &row));
    CHECK(created == 7 && row == 8);
}

int main(void)
{
    RUN(ids_have_26_characters_of_the_alphabet);
    RUN(other_texts_are_no_ids);
    RUN(cursors_round_trip);
    RUN(a_changed_cursor_is_refused);
    return test_end();
}
