/* The document inside the program is the file, and it is JSON. */
#include "api/openapi.h"
#include "base/file.h"
#include "format/json.h"
#include "tests/test.h"

static void the_program_carries_the_file(void)
{
    dn_error error = {0};
    unsigned char *file = NULL;
    size_t bytes = 0, carried = 0;
    const char *json = api_openapi_json(&carried);
    CHECK_OK(dn_file_read(&file, &bytes, "api/openapi.json", 1u << 20, &error), error);
    bool same = bytes == carried && memcmp(file, json, bytes) == 0;
    free(file);
    CHECK(same);
}

static void it_is_strict_json(void)
{
    const dn_json_limits limits = {.bytes_max = 1u << 20};
    dn_error error = {0};
    size_t bytes = 0;
    const char *json = api_openapi_json(&bytes);
    CHECK_OK(dn_json_scan(json, bytes, &limits, NULL, &error), error);
}

int main(void)
{
    RUN(the_program_carries_the_file);
    RUN(it_is_strict_json);
    return test_end();
}
