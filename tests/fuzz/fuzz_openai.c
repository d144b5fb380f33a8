/* Fuzz entry (libFuzzer's): any bytes as a body in OpenAI's words, or as a prompt; the first byte says which, and of which model. What is
 * translated must be JSON that the native reader judges in words of its own; a prompt names a class that the model has, or is refused. */
#include "tests/fuzz/fuzz.h"

#include "api/class_match.h"
#include "api/openai_answer.h"
#include "api/openai_request.h"
#include "format/json.h"
#include "tests/api/models.h"

static void judge_refusal(const api_problem *problem)
{
    int status = 0;
    char *error = api_openai_error(problem, &status);
    const dn_json_limits limits = {.bytes_max = 65536};
    REQUIRE(problem->code != API_NONE && problem->detail[0] != '\0' && status >= 400);
    REQUIRE(error != NULL && dn_json_scan(error, strlen(error), &limits, NULL, NULL) == DN_OK);
    free(error);
}

static void body(const char *text, size_t size)
{
    const dn_json_limits limits = {.bytes_max = 2 * API_BODY_IMAGE_BYTES_MAX};
    api_openai_request asked;
    api_problem problem = {0};
    api_request *jobs = NULL;
    char *native = NULL;
    size_t count = 0;
    bool is_array = false;
    if (!api_openai_translate(&asked, &native, text, size, find_model, NULL, &problem)) {
        REQUIRE(native == NULL);
        judge_refusal(&problem);
        return;
    }
    REQUIRE(native != NULL && dn_json_scan(native, strlen(native), &limits, NULL, NULL) == DN_OK);
    if (api_parse_generate(&jobs, &count, &is_array, native, strlen(native), find_model, NULL, &problem)) {
        REQUIRE(asked.resolved && count == 1 && !is_array);
    } else {
        api_openai_rename(&asked, &problem);
        judge_refusal(&problem);
    }
    free(native);
    free(jobs);
}

static void prompt(const char *text, const char *name)
{
    const api_model *model = find_model(NULL, name);
    api_problem problem = {0};
    uint32_t index = UINT32_MAX;
    if (api_match_class(&index, model, text, "prompt", &problem)) {
        REQUIRE(index < model->class_count);
    } else {
        judge_refusal(&problem);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const models[] = {"fashion-mnist", "birds", "plain"};
    if (size < 1)
        return 0;
    char *text = malloc(size);
    REQUIRE(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if ((data[0] & 3) == 3)
        body(text, size - 1);
    else
        prompt(text, models[data[0] & 3]);
    free(text);
    return 0;
}
