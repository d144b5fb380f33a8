/* Fuzz entry (libFuzzer's): any bytes as the body of POST /generate. What is accepted must survive being stored and read back;
 * what is refused must say why, and scanner, parser and fingerprint must agree with one another. */
#include "tests/fuzz/fuzz.h"

#include "api/limits.h"
#include "format/json.h"
#include "tests/api/models.h"

static void stored_form_survives(const api_request *request)
{
    api_request again;
    char *json = api_request_json(request);
    REQUIRE(json != NULL);
    REQUIRE(api_request_from_json(&again, json, strlen(json)));
    char *second = api_request_json(&again);
    REQUIRE(second && strcmp(json, second) == 0);
    REQUIRE(api_request_cost(request) == api_request_cost(&again) && api_request_cost(request) > 0);
    free(json);
    free(second);
}

/* What passes the scanner, cJSON reads whole, and what it prints of it passes again. */
static bool scanner_and_parser_agree(const char *text, size_t count)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    cJSON *root = NULL;
    size_t offset = 0;
    dn_error error = {DN_OK, ""};
    const dn_status status = dn_json_parse(&root, text, count, &limits, &offset, &error);
    REQUIRE((status == DN_OK) == (root != NULL) && (status == DN_OK || (error.message[0] != '\0' && offset <= count)));
    if (root == NULL)
        return false;
    char *printed = cJSON_PrintUnformatted(root);
    REQUIRE(printed != NULL);
    const dn_json_limits wide = {.bytes_max = 16 * API_BODY_BYTES_MAX};
    REQUIRE(dn_json_scan(printed, strlen(printed), &wide, NULL, &error) == DN_OK);
    free(printed);
    cJSON_Delete(root);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array = false;
    unsigned char digest[32];
    const char *text = (const char *)data;
    bool ok = api_parse_generate(&requests, &count, &is_array, text, size, find_model, NULL, &problem);
    bool scanned = scanner_and_parser_agree(text, size);
    REQUIRE(ok == (problem.code == API_NONE));
    REQUIRE(ok || problem.detail[0]);
    REQUIRE(!ok || scanned || size > API_BODY_BYTES_MAX);
    REQUIRE(problem.code != API_MALFORMED_JSON || !scanned);
    bool has_digest = api_fingerprint(digest, "/generate", text, size);
    REQUIRE(!ok || has_digest);
    for (size_t i = 0; ok && i < count; i++)
        stored_form_survives(&requests[i]);
    if (ok) {
        free(requests);
    } else {
        char *json = api_problem_json(&problem, "fuzz");
        REQUIRE(json != NULL);
        free(json);
    }
    return 0;
}
