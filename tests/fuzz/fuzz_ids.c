/* Fuzz entry (libFuzzer's): any text as what a client names things by: ids, cursors, event ids, states, pictures, entity tags. The
 * first byte says which; what is taken must be the one way of writing it. */
#include "tests/fuzz/fuzz.h"

#include "api/negotiate.h"
#include "api/views.h"

static void id(const char *text)
{
    unsigned char bytes[16];
    char again[27];
    if (api_id_valid(text)) {
        REQUIRE(strlen(text) == 26 && strspn(text, "abcdefghijklmnopqrstuvwxyz234567") == 26);
        memcpy(bytes, text, 16);
        api_id_text(again, bytes);
        REQUIRE(api_id_valid(again));
    }
}

static void cursor(const char *text)
{
    int64_t ms = 0, row = 0, ms_again, row_again;
    char again[64];
    if (api_cursor_parse(text, &ms, &row)) {
        api_cursor_text(again, ms, row);
        REQUIRE(strcmp(again, text) == 0);
    }
    /* The bytes as numbers: any place has a cursor, and the cursor leads back to it. */
    memcpy(&ms, text, strnlen(text, 8));
    row = (int64_t)strlen(text);
    api_cursor_text(again, ms, row);
    REQUIRE(api_cursor_parse(again, &ms_again, &row_again) && ms_again == ms && row_again == row);
    again[row % 32] ^= 1;
    REQUIRE(!api_cursor_parse(again, &ms_again, &row_again) || ms_again != ms || row_again != row);
}

static void event_id(const char *text)
{
    int64_t value = -1;
    char again[32];
    if (!api_event_id_parse(text, &value))
        return;
    REQUIRE(value >= 0 && value < 1000000000000000);
    snprintf(again, sizeof again, "%lld", (long long)value);
    REQUIRE(strcmp(again, text + strspn(text, "0")) == 0 || value == 0);
}

static void picture(const char *text)
{
    uint32_t index = 0;
    char again[32];
    if (!api_image_name_parse(text, &index))
        return;
    snprintf(again, sizeof again, "%u.png", index);
    REQUIRE(strcmp(again, text) == 0);
}

static void state(const char *text)
{
    api_state value;
    if (api_state_parse(text, &value))
        REQUIRE(strcmp(api_state_name(value), text) == 0);
}

static void tags(const char *text)
{
    static const char tag[] = "0123456789abcdef";
    const bool matches = api_etag_matches(text, tag);
    REQUIRE(!matches || strchr(text, '*') != NULL || strstr(text, "\"0123456789abcdef\"") != NULL);
    REQUIRE(matches || (strcmp(text, "*") != 0 && strcmp(text, "\"0123456789abcdef\"") != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(const char *) = {id, cursor, event_id, picture, state, tags};
    if (size < 1)
        return 0;
    char *text = malloc(size);
    REQUIRE(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    kinds[data[0] % (sizeof kinds / sizeof kinds[0])](text);
    free(text);
    return 0;
}
