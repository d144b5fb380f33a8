/* Fuzz entry (libFuzzer's): any bytes as a body of AUTOMATIC1111's, as an infotext, as a recipe, or as a sampler's and a model's name; the first byte
 * says which, and of which model. What is translated must be JSON that the native reader judges in words of its own; whatever an infotext
 * is, JSON comes of it. */
#include "tests/fuzz/fuzz.h"

#include "api/infotext.h"
#include "api/sdapi_options.h"
#include "api/sdapi_request.h"
#include "api/sdapi_views.h"
#include "format/json.h"
#include "tests/api/models.h"

static const dn_json_limits LIMITS = {.bytes_max = 4 * API_BODY_IMAGE_BYTES_MAX};

static void judge_json(char *json)
{
    REQUIRE(json != NULL && dn_json_scan(json, strlen(json), &LIMITS, NULL, NULL) == DN_OK);
    free(json);
}

static void judge_refusal(const api_sdapi_refusal *refusal)
{
    int status = 0;
    REQUIRE(refusal->problem.code != API_NONE && refusal->problem.detail[0] != '\0');
    judge_json(api_sdapi_refusal_json(&refusal->problem, refusal->kind, &status));
    REQUIRE(status >= 400);
}

static void judge_native(const char *native, const api_sdapi_request *asked)
{
    api_sdapi_refusal refusal = {.kind = NULL};
    api_request *jobs = NULL;
    size_t count = 0;
    bool is_array = false;
    REQUIRE(dn_json_scan(native, strlen(native), &LIMITS, NULL, NULL) == DN_OK);
    if (api_parse_generate(&jobs, &count, &is_array, native, strlen(native), find_model, NULL, &refusal.problem)) {
        REQUIRE(count == 1 && !is_array && jobs[0].has_seed && jobs[0].n == asked->batch_size * asked->n_iter);
    } else {
        api_sdapi_rename(&refusal.problem, asked->img2img);
        judge_refusal(&refusal);
    }
    free(jobs);
}

static void body(const char *text, size_t size, bool img2img, const api_model *model)
{
    api_sdapi_request asked;
    api_sdapi_refusal refusal = {.kind = NULL};
    api_text parameters = API_TEXT_INIT;
    char *native = NULL;
    if (!api_sdapi_read(&asked, img2img, text, size, &refusal)) {
        judge_refusal(&refusal);
        return;
    }
    if (api_sdapi_translate(&native, &asked, model->name, model, 7, &refusal)) {
        judge_native(native, &asked);
    } else {
        REQUIRE(native == NULL);
        judge_refusal(&refusal);
    }
    api_sdapi_add_parameters(&parameters, asked.values, img2img, model->width, model->height);
    judge_json(api_text_take(&parameters));
    api_sdapi_done(&asked);
    free(native);
}

static void names(const char *text, const api_model *model)
{
    const api_sdapi_scheduler *scheduler = NULL;
    const dn_sampler *sampler = api_sdapi_find_sampler(text, &scheduler);
    REQUIRE(sampler != NULL || scheduler == NULL);
    if (strcmp(text, model->name) == 0)
        REQUIRE(api_sdapi_model_is(model->name, model, text));
    else
        REQUIRE(!api_sdapi_model_is(model->name, model, text) || strlen(text) >= 10);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const models[] = {"fashion-mnist", "birds", "plain", "bare"};
    if (size < 1)
        return 0;
    const api_model *model = find_model(NULL, models[data[0] & 3]);
    char *text = malloc(size), *infotext;
    REQUIRE(text != NULL && model != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] >> 2 & 7) {
    case 0:
        judge_json(api_sdapi_png_info_body(text, NULL, 0));
        break;
    case 1:
        infotext = api_infotext_of_recipe(text);
        judge_json(api_infotext_fields(infotext ? infotext : ""));
        free(infotext);
        break;
    case 2:
        names(text, model);
        break;
    default:
        body(text, size - 1, (data[0] >> 5 & 1) != 0, model);
        break;
    }
    free(text);
    return 0;
}
