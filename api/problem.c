/* Refusals: the table of codes and their JSON. Invariant: no text of a client enters a problem but field names its validator
 * has let through. Pure; any thread. */
#include "api/problem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "api/text.h"

typedef struct code_row {
    int status;
    const char *code, *title;
} code_row;

static const code_row CODES[API_CODE_COUNT] = {[API_NONE] = {200, "none", "No problem"},
#define X(name, status, code, title) [API_##name] = {status, code, title},
                                               API_PROBLEM_CODES(X)
#undef X
};

static const code_row *row_of(api_code code)
{
    assert(code >= 0 && code < API_CODE_COUNT);
    return &CODES[code];
}

bool api_refuse(api_problem *problem, api_code code, const char *field, const char *format, ...)
{
    assert(code != API_NONE);
    *problem = (api_problem){.code = code};
    snprintf(problem->field, sizeof problem->field, "%s", field ? field : "");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem->detail, sizeof problem->detail, format, arguments);
    va_end(arguments);
    return false;
}

int api_problem_status(api_code code)
{
    return row_of(code)->status;
}

const char *api_problem_code(api_code code)
{
    return row_of(code)->code;
}

char *api_problem_json(const api_problem *problem, const char *request_id)
{
    const code_row *row = row_of(problem->code);
    api_text text = API_TEXT_INIT;
    api_text_format(&text, "{\"type\":\"urn:denoised:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\",\"detail\":", row->code,
                    row->title, row->status, row->code);
    api_text_string(&text, problem->detail);
    api_text_add(&text, ",\"field\":");
    api_text_string(&text, problem->field[0] ? problem->field : NULL);
    if (problem->has_offset) {
        api_text_format(&text, ",\"offset\":%zu", problem->offset);
    } else {
        api_text_add(&text, ",\"offset\":null");
    }
    api_text_add(&text, ",\"request_id\":");
    api_text_string(&text, request_id);
    api_text_add(&text, "}");
    return api_text_take(&text);
}
