/* Growing text, JSON strings and numbers, and problems as application/problem+json. */
#include <cjson/cJSON.h>
#include <float.h>

#include "api/problem.h"
#include "api/text.h"
#include "tests/test.h"

static int equals_free(char *text, const char *wanted)
{
    int same = text && strcmp(text, wanted) == 0;
    if (!same) {
        printf("# got  %s\n# want %s\n", text ? text : "(null)", wanted);
    }
    free(text);
    return same;
}

static void strings_are_json_whatever_the_bytes(void)
{
    static const struct {
        const char *value, *wanted;
    } rows[] = {
        {"", "\"\""},
        {NULL, "null"},
        {"plain", "\"plain\""},
        {"a\"b\\c", "\"a\\\"b\\\\c\""},
        {"tab\tline\n", "\"tab\\u0009line\\u000a\""},
        {"\x7f", "\"\\u007f\""},
        {"gr\xC3\xBC\xC3\x9F", "\"gr\xC3\xBC\xC3\x9F\""},
        {"\xE2\x82\xAC", "\"\xE2\x82\xAC\""},
        {"\xF0\x9F\x91\x9F", "\"\xF0\x9F\x91\x9F\""},
        {"\xC0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* overlong NUL */
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* a surrogate */
        {"\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"cut \xE2\x82", "\"cut \xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"\xFF", "\"\xEF\xBF\xBD\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_text text = API_TEXT_INIT;
        api_text_string(&text, rows[i].value);
        CHECK_MSG(equals_free(api_text_take(&text), rows[i].wanted), "row %zu", i);
    }
}

static void numbers_read_back_exactly(void)
{
    static const double values[] = {0, 1, -1, 0.1, 1.0 / 3, 2.5, 1e-7, 123456789.125, 1e22, DBL_MAX, DBL_MIN, -7.25, 4.9e-324};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        api_text text = API_TEXT_INIT;
        api_text_number(&text, values[i]);
        char *shown = api_text_take(&text);
        CHECK(shown);
        double back = strtod(shown, NULL);
        free(shown);
        CHECK_MSG(back == values[i], "%zu: %.17g", i, values[i]);
    }
    api_text text = API_TEXT_INIT;
    api_text_number(&text, 2);
    api_text_add(&text, " ");
    api_text_real(&text, 2);
    api_text_add(&text, " ");
    api_text_real(&text, 2.25);
    api_text_add(&text, " ");
    api_text_number(&text, (double)NAN);
    api_text_add(&text, " ");
    api_text_real(&text, (double)INFINITY);
    api_text_add(&text, " ");
    api_text_number(&text, -0.0);
    CHECK(equals_free(api_text_take(&text), "2 2.0 2.25 null null 0"));
}

static void base64_follows_the_standard(void)
{
    static const char *const rows[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}}; /* RFC 4648, 10 */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_text text = API_TEXT_INIT;
        api_text_base64(&text, (const unsigned char *)rows[i][0], strlen(rows[i][0]));
        CHECK(equals_free(api_text_take(&text), rows[i][1]));
    }
}

static void text_grows_past_its_first_buffer(void)
{
    api_text text = API_TEXT_INIT;
    for (int i = 0; i < 1000; i++) {
        api_text_format(&text, "%04d,", i);
    }
    char *taken = api_text_take(&text);
    CHECK(taken && strlen(taken) == 5000);
    CHECK(strncmp(taken + 4995, "0999,", 5) == 0);
    free(taken);
    char *empty = api_text_take(&text);
    CHECK(empty && !empty[0]);
    free(empty);
}

static void every_code_has_its_status(void)
{
    static const struct {
        api_code code;
        int status;
        const char *name;
    } rows[] = {
        {API_MALFORMED_HTTP, 400, "malformed-http"},
        {API_MALFORMED_JSON, 400, "malformed-json"},
        {API_BAD_CURSOR, 400, "bad-cursor"},
        {API_BAD_EVENT_ID, 400, "bad-event-id"},
        {API_UNAUTHORIZED, 401, "unauthorized"},
        {API_FORBIDDEN, 403, "forbidden"},
        {API_NOT_FOUND, 404, "not-found"},
        {API_NOT_READY, 404, "not-ready"},
        {API_METHOD_NOT_ALLOWED, 405, "method-not-allowed"},
        {API_NOT_ACCEPTABLE, 406, "not-acceptable"},
        {API_CANCELED, 409, "canceled"},
        {API_EXPIRED, 410, "expired"},
        {API_TOO_LARGE, 413, "too-large"},
        {API_UNSUPPORTED_MEDIA_TYPE, 415, "unsupported-media-type"},
        {API_WRONG_HOST, 421, "wrong-host"},
        {API_INVALID_FIELD, 422, "invalid-field"},
        {API_UNSUPPORTED_OPTION, 422, "unsupported-option"},
        {API_IDEMPOTENCY_MISMATCH, 422, "idempotency-mismatch"},
        {API_QUOTA, 429, "quota"},
        {API_INTERNAL, 500, "internal"},
        {API_JOB_FAILED, 500, "job-failed"},
        {API_QUEUE_FULL, 503, "queue-full"},
        {API_DRAINING, 503, "draining"},
        {API_LOADING, 503, "loading"},
        {API_OUTCOME_UNKNOWN, 503, "outcome-unknown"},
        {API_STORAGE_FULL, 507, "storage-full"},
    };
    CHECK(sizeof rows / sizeof rows[0] == API_CODE_COUNT - 1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(api_problem_status(rows[i].code) == rows[i].status);
        CHECK(strcmp(api_problem_code(rows[i].code), rows[i].name) == 0);
    }
}

static void a_problem_is_rfc_9457_json(void)
{
    api_problem problem;
    CHECK(!api_refuse(&problem, API_INVALID_FIELD, "/steps", "steps must be an integer from %d to %d", 1, 1000));
    CHECK(
        equals_free(api_problem_json(&problem, "r1"),
                    "{\"type\":\"urn:denoised:invalid-field\",\"title\":\"Invalid field\",\"status\":422,\"code\":\"invalid-field\","
                    "\"detail\":\"steps must be an integer from 1 to 1000\",\"field\":\"/steps\",\"offset\":null,\"request_id\":\"r1\"}"));
    api_refuse(&problem, API_MALFORMED_JSON, "", "bad \"quote\"");
    problem.has_offset = true;
    problem.offset = 17;
    CHECK(equals_free(api_problem_json(&problem, NULL),
                      "{\"type\":\"urn:denoised:malformed-json\",\"title\":\"Malformed JSON\",\"status\":400,\"code\":\"malformed-json\","
                      "\"detail\":\"bad \\\"quote\\\"\",\"field\":null,\"offset\":17,\"request_id\":null}"));
}

static void an_offset_of_zero_is_shown(void)
{
    api_problem problem;
    api_refuse(&problem, API_MALFORMED_JSON, NULL, "empty");
    problem.has_offset = true;
    char *json = api_problem_json(&problem, "x");
    cJSON *root = cJSON_Parse(json);
    free(json);
    CHECK(root);
    const cJSON *offset = cJSON_GetObjectItemCaseSensitive(root, "offset");
    int ok = cJSON_IsNumber(offset) && offset->valuedouble == 0;
    cJSON_Delete(root);
    CHECK(ok);
}

static void a_long_detail_is_cut_not_overrun(void)
{
    api_problem problem;
    char *longer = malloc(4096);
    CHECK(longer);
    memset(longer, 'x', 4095);
    longer[4095] = '\0';
    api_refuse(&problem, API_INTERNAL, longer, "%s", longer);
    free(longer);
    CHECK(strlen(problem.detail) == sizeof problem.detail - 1);
    CHECK(strlen(problem.field) == sizeof problem.field - 1);
}

int main(void)
{
    RUN(strings_are_json_whatever_the_bytes);
    RUN(numbers_read_back_exactly);
    RUN(base64_follows_the_standard);
    RUN(text_grows_past_its_first_buffer);
    RUN(every_code_has_its_status);
    RUN(a_problem_is_rfc_9457_json);
    RUN(an_offset_of_zero_is_shown);
    RUN(a_long_detail_is_cut_not_overrun);
    return test_end();
}
