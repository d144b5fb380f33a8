/* Accept, Prefer and Content-Type as tables. */
#include "api/negotiate.h"
#include "tests/test.h"

static void accept_headers(void)
{
    static const struct {
        const char *accept;
        api_form wanted;
    } rows[] = {
        {NULL, API_FORM_JSON},
        {"", API_FORM_JSON},
        {"  ", API_FORM_JSON},
        {"*/*", API_FORM_JSON},
        {"application/json", API_FORM_JSON},
        {"APPLICATION/JSON", API_FORM_JSON},
        {"application/*", API_FORM_JSON},
        {"image/png", API_FORM_PNG},
        {"Image/PNG", API_FORM_PNG},
        {"image/*", API_FORM_PNG},
        {"text/event-stream", API_FORM_EVENTS},
        {"image/png, application/json", API_FORM_JSON},
        {"image/png, text/event-stream", API_FORM_JSON},
        {"image/png;q=0.9, application/json;q=0.8", API_FORM_PNG},
        {"image/png;q=0.8, application/json;q=0.9", API_FORM_JSON},
        {"image/png, */*;q=0.8", API_FORM_PNG},
        {"text/event-stream, */*;q=0.1", API_FORM_EVENTS},
        {"text/html, application/xhtml+xml, */*;q=0.8", API_FORM_JSON},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,*/*;q=0.8", API_FORM_PNG},
        {"image/avif,image/webp,image/*,*/*;q=0.8", API_FORM_PNG},
        {"*/*;q=0.5, application/json;q=0", API_FORM_JSON}, /* png and events tie */
        {"application/json;q=0, image/png;q=0.2", API_FORM_PNG},
        {"image/*;q=0.5, image/png;q=0", API_FORM_NONE},
        {"image/png;q=0", API_FORM_NONE},
        {"*/*;q=0", API_FORM_NONE},
        {"text/html", API_FORM_NONE},
        {"image/jpeg", API_FORM_NONE},
        {"text/*", API_FORM_NONE},
        {"application/problem+json", API_FORM_NONE},
        {"image/pngx", API_FORM_NONE},
        {"nonsense", API_FORM_NONE},
        {";;;,,,", API_FORM_NONE},
        {"image/png;q=2", API_FORM_NONE},
        {"image/png;q=abc, application/json;q=0.1", API_FORM_JSON},
        {"image/png;q=0.1234", API_FORM_NONE},
        {"image/png;q=1.001", API_FORM_NONE},
        {"image/png;q=1.000", API_FORM_PNG},
        {"image/png ; q = 0.7 , application/json ; q = 0.6", API_FORM_PNG},
        {"image/png;level=1;q=0.4, application/json;q=0.3", API_FORM_PNG},
        {"image/png;note=\"a,b;q=0\";q=0.4", API_FORM_PNG},
        {"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", API_FORM_JSON},
        {",, image/png ,,", API_FORM_PNG},
        {"image/png;q=0.001", API_FORM_PNG},
        {"image/png;q=", API_FORM_NONE},
        {"image/png;q=.", API_FORM_NONE},
        {"\"", API_FORM_NONE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_form got = api_negotiate(rows[i].accept);
        CHECK_MSG(got == rows[i].wanted, "%s: %d, not %d", rows[i].accept ? rows[i].accept : "(none)", (int)got, (int)rows[i].wanted);
    }
}

static void wait_preferences(void)
{
    static const struct {
        const char *prefer;
        int wanted;
        unsigned seconds;
    } rows[] = {
        {NULL, 0, 0},
        {"", 0, 0},
        {"respond-async", 0, 0},
        {"wait=0", 1, 0},
        {"wait=10", 1, 10},
        {"wait=300", 1, 300},
        {"WAIT=5", 1, 5},
        {"wait = 5", 1, 5},
        {"wait=\"7\"", 1, 7},
        {"respond-async, wait=10", 1, 10},
        {"wait=10, respond-async", 1, 10},
        {"wait=10; foo=bar", 1, 10},
        {"wait=1, wait=2", 1, 1},
        {"respond-async; wait=10", 0, 0},
        {"handling=lenient", 0, 0},
        {"waiting=10", 0, 0},
        {"wait=301", -1, 0},
        {"wait=-1", -1, 0},
        {"wait=1.5", -1, 0},
        {"wait=abc", -1, 0},
        {"wait=", -1, 0},
        {"wait", -1, 0},
        {"wait=99999999999999999999", -1, 0},
        {"wait=000000000000000000000", -1, 0},
        {"wait=+3", -1, 0},
        {"wait=3 4", -1, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned seconds = 0;
        int got = api_prefer_wait(rows[i].prefer, &seconds);
        CHECK_MSG(got == rows[i].wanted && seconds == rows[i].seconds, "%s: %d %u", rows[i].prefer ? rows[i].prefer : "(none)", got,
                  seconds);
    }
}

static void content_types(void)
{
    static const struct {
        const char *type;
        bool wanted;
    } rows[] = {
        {NULL, false},
        {"", false},
        {"application/json", true},
        {"Application/JSON", true},
        {" application/json ", true},
        {"application/json; charset=utf-8", true},
        {"application/json;charset=\"UTF-8\"", true},
        {"application/json; charset=utf8", true},
        {"application/json;", true},
        {"application/json; profile=x", true},
        {"application/json; charset=latin1", false},
        {"application/json; charset=utf-16", false},
        {"application/jsonx", false},
        {"application/problem+json", false},
        {"text/json", false},
        {"text/plain", false},
        {"application/x-www-form-urlencoded", false},
        {"application/json, text/plain", false},
        {"application", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_MSG(api_is_json(rows[i].type) == rows[i].wanted, "%s", rows[i].type ? rows[i].type : "(none)");
    }
}

static void who_gets_the_page(void)
{
    static const struct {
        const char *accept;
        bool wanted;
    } rows[] = {
        {NULL, false},
        {"", false},
        {"*/*", false},
        {"text/*", false},
        {"text/plain", false},
        {"text/html", true},
        {"TEXT/HTML; charset=utf-8", true},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true},
        {"text/html, text/plain", false}, /* a tie is no preference */
        {"text/plain;q=0.9, text/html", true},
        {"text/plain, text/html;q=0.9", false},
        {"text/html;q=0.1, */*;q=0", true},
        {"text/html;q=0", false},
        {"application/json", false},
        {"text/htmlx", false},
        {",,text/html,", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_MSG(api_prefers_html(rows[i].accept) == rows[i].wanted, "Accept: %s", rows[i].accept != NULL ? rows[i].accept : "none");
    }
}

static void who_takes_gzip(void)
{
    static const struct {
        const char *accepted;
        bool wanted;
    } rows[] = {
        {NULL, false},
        {"", false},
        {"gzip", true},
        {"gzip, deflate, br, zstd", true},
        {"deflate, GZIP;q=0.5", true},
        {"x-gzip", true},
        {"*", true},
        {"*;q=0", false},
        {"gzip;q=0, *", false},
        {"gzip;q=0", false},
        {"gzip;q=0.000", false},
        {"identity", false},
        {"br", false},
        {"gzipped", false},
        {"*;q=0, gzip", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_MSG(api_accepts_gzip(rows[i].accepted) == rows[i].wanted, "Accept-Encoding: %s",
                  rows[i].accepted != NULL ? rows[i].accepted : "none");
    }
}

int main(void)
{
    RUN(accept_headers);
    RUN(wait_preferences);
    RUN(content_types);
    RUN(who_gets_the_page);
    RUN(who_takes_gzip);
    return test_end();
}
