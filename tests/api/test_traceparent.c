/* W3C Trace Context: which headers are honoured, and what goes on. */
#include "api/traceparent.h"

#include "tests/test.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static void valid_headers_give_their_trace(void)
{
    static const char *const valid[] = {
        "00-" TRACE "-" SPAN "-01",
        "01-" TRACE "-" SPAN "-01", /* versions to come */
        "cc-" TRACE "-" SPAN "-01-what-the-future-says",
        "fe-" TRACE "-" SPAN "-01-",
        "00-" TRACE "-" SPAN "-01 \t", /* white space behind a value is no part of it */
    };
    char trace[API_TRACE_BYTES], id[33];
    for (size_t i = 0; i < sizeof valid / sizeof valid[0]; i++) {
        CHECK_MSG(api_traceparent_read(trace, valid[i]) && strcmp(trace, TRACE "-01") == 0, "%s", valid[i]);
        api_trace_id(id, trace);
        CHECK(strcmp(id, TRACE) == 0);
    }
    CHECK(api_traceparent_read(trace, "00-" TRACE "-" SPAN "-fe") && strcmp(trace, TRACE "-fe") == 0);
}

static void malformed_headers_are_as_if_not_there(void)
{
    static const char *const malformed[] = {
        "",
        "00",
        "00-" TRACE "-" SPAN,
        "00-" TRACE "-" SPAN "-0",
        "00-" TRACE "-" SPAN "-01-",
        "00-" TRACE "-" SPAN "-01-more",
        "00-" TRACE "-" SPAN "-010",
        "01-" TRACE "-" SPAN "-010",
        "ff-" TRACE "-" SPAN "-01",
        "0-" TRACE "-" SPAN "-001",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-" TRACE "-00F067AA0BA902B7-01",
        "00-" TRACE "-" SPAN "-0x",
        "0x-" TRACE "-" SPAN "-01",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE "_" SPAN "-01",
        "00-" TRACE "-" SPAN "_01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-0" SPAN "-01",
        " 00-" TRACE "-" SPAN "-01",
        "00-" TRACE "-" SPAN "-0 ",
        "00-" TRACE "-" SPAN "-01 x",
    };
    char trace[API_TRACE_BYTES] = "left over";
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        CHECK_MSG(!api_traceparent_read(trace, malformed[i]) && !trace[0], "%s", malformed[i]);
    CHECK(!api_traceparent_read(trace, NULL) && !trace[0]);
}

static void a_trace_goes_on_with_a_span_of_its_own(void)
{
    char header[API_TRACEPARENT_BYTES], again[API_TRACE_BYTES];
    api_traceparent_write(header, TRACE "-01", (const unsigned char[8]){0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0});
    CHECK(strcmp(header, "00-" TRACE "-123456789abcdef0-01") == 0);
    CHECK(api_traceparent_read(again, header) && strcmp(again, TRACE "-01") == 0);
    api_traceparent_write(header, TRACE "-00", (const unsigned char[8]){0});
    CHECK(strcmp(header, "00-" TRACE "-0000000000000001-00") == 0 && api_traceparent_read(again, header));
}

int main(void)
{
    RUN(valid_headers_give_their_trace);
    RUN(malformed_headers_are_as_if_not_there);
    RUN(a_trace_goes_on_with_a_span_of_its_own);
    return test_end();
}
