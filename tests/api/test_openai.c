/* OpenAI's Images API as bytes: bodies with the native bodies that they become, refusals with their parameters, answers, events, waits. */
#include "api/enlarge.h"
#include "api/openai_answer.h"
#include "api/openai_request.h"
#include "format/png_image.h"
#include "tests/api/models.h"
#include "tests/test.h"

static const struct {
    const char *body, *native;
} TAKEN[] = {
    {"{\"prompt\":\"a sneaker\"}", "{\"class_label\":7}"},
    {"{\"prompt\":\"a sneaker\",\"model\":\"fashion-mnist\",\"n\":4,\"size\":\"32x32\"}",
     "{\"model\":\"fashion-mnist\",\"n\":4,\"class_label\":7}"},
    {" { \"n\" : 2 , \"prompt\" : \"class:3\" } ", "{\"n\":2,\"class_label\":3}"},
    /* Numbers stay as they are written, whatever a double makes of them. */
    {"{\"prompt\":\"bag\",\"seed\":18446744073709551615}", "{\"seed\":18446744073709551615,\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"seed\":\"18446744073709551615\"}", "{\"seed\":\"18446744073709551615\",\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"num_inference_steps\":20,\"guidance_scale\":2.50}", "{\"steps\":20,\"guidance_scale\":2.50,\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"num_inference_steps\":2e1}", "{\"steps\":2e1,\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"negative_prompt\":\"coats\"}", "{\"class_label\":8,\"negative_class\":4}"},
    {"{\"prompt\":\"bag\",\"negative_prompt\":\"  \"}", "{\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"negative_prompt\":null,\"seed\":null,\"n\":null,\"model\":null,\"size\":null,\"stream\":null,\"quality\":null}",
     "{\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"user\":\"u\",\"quality\":\"xhigh\",\"style\":\"natural\",\"background\":\"auto\",\"moderation\":\"auto\","
     "\"output_compression\":0,\"complexity\":\"high\",\"safety_identifier\":\"s\",\"output_format\":\"png\",\"size\":\"auto\"}",
     "{\"class_label\":8}"},
    /* The native fields by their own names, known or not: their own validator says. */
    {"{\"prompt\":\"bag\",\"sampler\":\"ddim\",\"eta\":0.5}", "{\"sampler\":\"ddim\",\"eta\":0.5,\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"steps\":5}", "{\"steps\":5,\"class_label\":8}"},
    {"{\"prompt\":\"bag\",\"no\\\"such\":{\"a\":[1, 2]}}", "{\"no\\\"such\":{\"a\":[1, 2]},\"class_label\":8}"},
    /* class_label and class_mixture count for more than the prompt. */
    {"{\"prompt\":\"nothing\",\"class_label\":3}", "{\"class_label\":3}"},
    {"{\"prompt\":\"nothing\",\"class_label\":null}", "{\"class_label\":null}"},
    {"{\"class_label\":\"Bag\"}", "{\"class_label\":\"Bag\"}"},
    {"{\"class_mixture\":[]}", "{\"class_mixture\":[]}"},
    /* Of a model that cannot be found nothing is judged. */
    {"{\"prompt\":\"zebra\",\"model\":\"other\",\"size\":\"1x1\"}", "{\"model\":\"other\"}"},
};

static void bodies_become_native_bodies(void)
{
    for (size_t i = 0; i < sizeof TAKEN / sizeof TAKEN[0]; i++) {
        api_openai_request asked;
        api_problem problem;
        char *native = NULL;
        const char *body = TAKEN[i].body;
        CHECK_MSG(api_openai_translate(&asked, &native, body, strlen(body), find_model, NULL, &problem), "%s: %s", body, problem.detail);
        const bool fine = strcmp(native, TAKEN[i].native) == 0 && asked.resolved == (strstr(body, "other") == NULL);
        CHECK_MSG(fine, "%s: %s", body, native);
        free(native);
    }
}

#define REQUIRED "prompt is required: words that name a class of the model"

static const struct {
    const char *body;
    api_code code;
    const char *field, *detail; /* detail: how it begins */
} REFUSED[] = {
    {"", API_MALFORMED_JSON, "", "the body is not JSON: "},
    {"{\"prompt\":\"bag\",\"prompt\":\"coat\"}", API_MALFORMED_JSON, "", "the body is not JSON: "},
    {"{\"seed\":01}", API_MALFORMED_JSON, "", "the body is not JSON: "},
    {"7", API_INVALID_FIELD, "", "the body must be an object"},
    {"[]", API_INVALID_FIELD, "", "the body must be an object"},
    {"{}", API_INVALID_FIELD, "prompt", REQUIRED},
    {"{\"prompt\":null}", API_INVALID_FIELD, "prompt", REQUIRED},
    {"{\"prompt\":[\"bag\"]}", API_INVALID_FIELD, "prompt", "prompt must be a string"},
    {"{\"prompt\":\"zebra\"}", API_INVALID_FIELD, "prompt", "prompt names no class of this model; the nearest are "},
    {"{\"prompt\":\"bag\",\"negative_prompt\":\"zebra\"}", API_INVALID_FIELD, "negative_prompt", "negative_prompt names no class"},
    {"{\"prompt\":\"bag\",\"negative_prompt\":7}", API_INVALID_FIELD, "negative_prompt", "negative_prompt must be a string"},
    {"{\"prompt\":\"bag\",\"model\":7}", API_INVALID_FIELD, "model", "model must be a string: one of GET /v1/models"},
    {"{\"prompt\":\"bag\",\"size\":\"32X32\"}", API_INVALID_FIELD, "size",
     "size must be \"auto\" or \"32x32\": all pictures of the model fashion-mnist"},
    {"{\"prompt\":\"tench\",\"model\":\"birds\",\"size\":\"48x64\"}", API_INVALID_FIELD, "size", "size must be \"auto\" or \"64x48\""},
    {"{\"prompt\":\"bag\",\"size\":[32,32]}", API_INVALID_FIELD, "size", "size must be a string"},
    {"{\"prompt\":\"bag\",\"response_format\":\"file\"}", API_INVALID_FIELD, "response_format",
     "response_format must be \"b64_json\" or \"url\""},
    {"{\"prompt\":\"bag\",\"stream\":true,\"response_format\":\"url\"}", API_INVALID_FIELD, "response_format",
     "response_format must be \"b64_json\" with"},
    {"{\"prompt\":\"bag\",\"output_format\":\"jpeg\"}", API_UNSUPPORTED_OPTION, "output_format", "output_format must be \"png\""},
    {"{\"prompt\":\"bag\",\"stream\":\"true\"}", API_INVALID_FIELD, "stream", "stream must be true or false"},
    {"{\"prompt\":\"bag\",\"partial_images\":4}", API_INVALID_FIELD, "partial_images", "partial_images must be an integer from 0 to 3"},
    {"{\"prompt\":\"bag\",\"partial_images\":1.0}", API_INVALID_FIELD, "partial_images", "partial_images must be an integer"},
    {"{\"prompt\":\"bag\",\"partial_images\":\"1\"}", API_INVALID_FIELD, "partial_images", "partial_images must be an integer"},
    {"{\"prompt\":\"bag\",\"output_compression\":101}", API_INVALID_FIELD, "output_compression", "output_compression must be an integer"},
    {"{\"prompt\":\"bag\",\"background\":\"transparent\"}", API_UNSUPPORTED_OPTION, "background", "background cannot be \"transparent\""},
    {"{\"prompt\":\"bag\",\"background\":true}", API_INVALID_FIELD, "background", "background must be \"opaque\" or \"auto\""},
    {"{\"prompt\":\"bag\",\"quality\":\"igh\"}", API_INVALID_FIELD, "quality", "quality must be one of: auto low medium"},
    {"{\"prompt\":\"bag\",\"quality\":\"hi\"}", API_INVALID_FIELD, "quality", "quality must be one of"},
    {"{\"prompt\":\"bag\",\"style\":7}", API_INVALID_FIELD, "style", "style must be one of: vivid natural"},
    {"{\"prompt\":\"bag\",\"user\":{}}", API_INVALID_FIELD, "user", "user must be a string"},
    {"{\"prompt\":\"bag\",\"steps\":3,\"num_inference_steps\":3}", API_INVALID_FIELD, "num_inference_steps",
     "num_inference_steps is what steps says too"},
    {"{\"prompt\":\"class:0\",\"model\":\"plain\"}", API_UNSUPPORTED_OPTION, "prompt", "prompt names a class, and this model has none"},
};

static void refusals_name_the_parameter(void)
{
    for (size_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        api_openai_request asked;
        api_problem problem;
        char *native = NULL;
        const char *body = REFUSED[i].body;
        CHECK_MSG(!api_openai_translate(&asked, &native, body, strlen(body), find_model, NULL, &problem), "%s: %s", body, native);
        CHECK_MSG(native == NULL && problem.code == REFUSED[i].code && strcmp(problem.field, REFUSED[i].field) == 0 &&
                      strncmp(problem.detail, REFUSED[i].detail, strlen(REFUSED[i].detail)) == 0,
                  "%s: %s at %s", body, problem.detail, problem.field);
    }
}

static void choices_are_read(void)
{
    static const struct {
        const char *body;
        bool as_url, stream;
        unsigned partial_images;
    } rows[] = {
        {"{\"prompt\":\"bag\"}", false, false, 0},
        {"{\"prompt\":\"bag\",\"response_format\":\"url\",\"stream\":false}", true, false, 0},
        {"{\"prompt\":\"bag\",\"response_format\":\"b64_json\",\"stream\":true,\"partial_images\":3}", false, true, 3},
        {"{\"prompt\":\"bag\",\"stream\":true,\"partial_images\":0}", false, true, 0},
        {"{\"prompt\":\"bag\",\"partial_images\":2}", false, false, 2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_openai_request asked;
        api_problem problem;
        char *native = NULL;
        CHECK(api_openai_translate(&asked, &native, rows[i].body, strlen(rows[i].body), find_model, NULL, &problem));
        free(native);
        CHECK_MSG(asked.as_url == rows[i].as_url && asked.stream == rows[i].stream && asked.partial_images == rows[i].partial_images, "%s",
                  rows[i].body);
    }
}

static void native_refusals_get_the_dialects_names(void)
{
    static const struct {
        bool steps, negative;
        const char *field, *detail, *own_field, *own_detail;
    } rows[] = {
        {true, false, "/steps", "steps must be an integer", "num_inference_steps", "num_inference_steps must be an integer"},
        {false, false, "/steps", "steps must be an integer", "/steps", "steps must be an integer"},
        {true, false, "/steps_max", "steps", "/steps_max", "steps"},
        {true, false, "/n", "steps", "/n", "steps"},
        {false, true, "/negative_class", "negative_class needs guidance", "negative_prompt", "negative_prompt needs guidance"},
        {false, true, "/negative_class", "it negative_class", "negative_prompt", "it negative_class"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const api_openai_request asked = {.renamed_steps = rows[i].steps, .renamed_negative = rows[i].negative};
        api_problem problem;
        api_refuse(&problem, API_INVALID_FIELD, rows[i].field, "%s", rows[i].detail);
        api_openai_rename(&asked, &problem);
        CHECK_MSG(strcmp(problem.field, rows[i].own_field) == 0 && strcmp(problem.detail, rows[i].own_detail) == 0, "%s: %s", problem.field,
                  problem.detail);
    }
}

static void a_wait_ends_before_the_client_does(void)
{
    static const struct {
        const char *told;
        double seconds;
    } rows[] = {{NULL, 300}, {"600", 300}, {"600.0", 300}, {"60", 55}, {"20", 15},  {"10", 7.5},  {"1", 0.75}, {"0.5", 0.375},
                {"", 300},   {"x", 300},   {"5x", 300},    {"0", 300}, {"-5", 300}, {"nan", 300}, {"inf", 300}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const double got = api_openai_wait_seconds(rows[i].told, 300);
        CHECK_MSG(fabs(got - rows[i].seconds) < 1e-9, "%s: %g", rows[i].told ? rows[i].told : "(none)", got);
    }
    CHECK(api_openai_wait_seconds("600", 2) == 2);
}

static int is_text(char *text, const char *wanted)
{
    const int same = text && strcmp(text, wanted) == 0;
    if (!same) {
        printf("# got  %s\n# want %s\n", text ? text : "(null)", wanted);
    }
    free(text);
    return same;
}

static void errors_have_their_types(void)
{
    static const struct {
        api_code code;
        const char *field;
        int status;
        const char *type, *param, *own_code;
    } rows[] = {
        {API_MALFORMED_JSON, "", 400, "invalid_request_error", "null", "malformed_json"},
        {API_UNAUTHORIZED, "", 401, "authentication_error", "null", "invalid_api_key"},
        {API_FORBIDDEN, "", 403, "permission_error", "null", "forbidden"},
        {API_NOT_FOUND, "", 404, "invalid_request_error", "null", "not_found"},
        {API_NOT_FOUND, "/model", 404, "invalid_request_error", "\"model\"", "model_not_found"},
        {API_INVALID_FIELD, "/model", 404, "invalid_request_error", "\"model\"", "model_not_found"},
        {API_INVALID_FIELD, "model", 400, "invalid_request_error", "\"model\"", "invalid_field"},
        {API_LOADING, "/model", 503, "server_error", "\"model\"", "loading"},
        {API_INVALID_FIELD, "/class_mixture/0/weight", 400, "invalid_request_error", "\"class_mixture/0/weight\"", "invalid_field"},
        {API_UNSUPPORTED_OPTION, "eta", 400, "invalid_request_error", "\"eta\"", "unsupported_option"},
        {API_IDEMPOTENCY_MISMATCH, "", 400, "invalid_request_error", "null", "idempotency_mismatch"},
        {API_METHOD_NOT_ALLOWED, "", 405, "invalid_request_error", "null", "method_not_allowed"},
        {API_CANCELED, "", 409, "invalid_request_error", "null", "canceled"},
        {API_EXPIRED, "", 410, "invalid_request_error", "null", "expired"},
        {API_TOO_LARGE, "", 413, "invalid_request_error", "null", "too_large"},
        {API_UNSUPPORTED_MEDIA_TYPE, "", 415, "invalid_request_error", "null", "unsupported_media_type"},
        {API_QUOTA, "", 429, "rate_limit_error", "null", "rate_limit_exceeded"},
        {API_INTERNAL, "", 500, "server_error", "null", "internal"},
        {API_JOB_FAILED, "", 500, "server_error", "null", "job_failed"},
        {API_QUEUE_FULL, "", 503, "server_error", "null", "queue_full"},
        {API_STORAGE_FULL, "", 507, "server_error", "null", "storage_full"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char wanted[256];
        api_problem problem;
        int status = 0;
        api_refuse(&problem, rows[i].code, rows[i].field, "so \"it\" is");
        char *got = api_openai_error(&problem, &status);
        snprintf(wanted, sizeof wanted, "{\"error\":{\"message\":\"so \\\"it\\\" is\",\"type\":\"%s\",\"param\":%s,\"code\":\"%s\"}}",
                 rows[i].type, rows[i].param, rows[i].own_code);
        CHECK(is_text(got, wanted));
        CHECK_MSG(status == rows[i].status, "%s: %d", rows[i].own_code, status);
    }
    CHECK(is_text(api_openai_error_of("server_error", "timeout", "wait"),
                  "{\"error\":{\"message\":\"wait\",\"type\":\"server_error\",\"param\":null,\"code\":\"timeout\"}}"));
    CHECK(is_text(api_openai_error_event("{\"error\":{}}"), "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"));
}

#define USAGE                                                                                                                              \
    "\"usage\":{\"input_tokens\":0,\"input_tokens_details\":{\"image_tokens\":0,\"text_tokens\":0},\"output_tokens\":0,\"total_tokens\":"  \
    "0}"

static void models_and_pictures_have_openais_form(void)
{
    const char *const names[] = {"a", "b.c"};
    const unsigned char bytes[] = "PNG";
    const api_openai_image
        image = {.index = 2, .seed = UINT64_MAX, .png = bytes, .png_bytes = 3, .width = 8, .height = 4, .class_name = "Ankle boot"},
        link = {.seed = 1, .url = "http://h/jobs/x/images/0.png", .class_name = ""};
    api_text text = API_TEXT_INIT;
    CHECK(is_text(api_openai_model("a"), "{\"id\":\"a\",\"object\":\"model\",\"created\":0,\"owned_by\":\"denoised\"}"));
    CHECK(is_text(api_openai_models(names, 2),
                  "{\"object\":\"list\",\"data\":[{\"id\":\"a\",\"object\":\"model\",\"created\":0,\"owned_by\":\"denoised\"},"
                  "{\"id\":\"b.c\",\"object\":\"model\",\"created\":0,\"owned_by\":\"denoised\"}]}"));
    CHECK(is_text(api_openai_models(NULL, 0), "{\"object\":\"list\",\"data\":[]}"));
    api_openai_images_begin(&text, 1700000000, 8, 4);
    api_openai_images_add(&text, 0, &image);
    api_openai_images_add(&text, 1, &link);
    api_openai_images_end(&text);
    CHECK(is_text(api_text_take(&text),
                  "{\"created\":1700000000,\"background\":\"opaque\",\"output_format\":\"png\",\"size\":\"8x4\"," USAGE ",\"data\":["
                  "{\"b64_json\":\"UE5H\",\"revised_prompt\":\"Ankle boot\",\"seed\":\"18446744073709551615\"},"
                  "{\"url\":\"http://h/jobs/x/images/0.png\",\"seed\":\"1\"}]}"));
    CHECK(is_text(
        api_openai_partial_event(&image, 1, 17),
        "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"UE5H\",\"created_at\":17,"
        "\"size\":\"8x4\",\"quality\":\"auto\",\"background\":\"opaque\",\"output_format\":\"png\",\"index\":2,\"partial_image_index\":1}"
        "\n\n"));
    CHECK(
        is_text(api_openai_completed_event(&image, 17),
                "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"UE5H\",\"created_at\":17,"
                "\"size\":\"8x4\",\"quality\":\"auto\",\"background\":\"opaque\",\"output_format\":\"png\",\"index\":2,"
                "\"revised_prompt\":\"Ankle boot\",\"seed\":\"18446744073709551615\"," USAGE "}\n\n"));
}

static void small_pictures_are_enlarged(void)
{
    static const uint8_t small[2 * 3 * 3] = {10, 20, 30, 40, 50, 60, 70, 80, 90, 11, 21, 31, 41, 51, 61, 71, 81, 91};
    unsigned char *png = NULL, *large = NULL;
    uint8_t *pixels = NULL;
    uint32_t width = 0, height = 0, channels = 0;
    size_t bytes = 0, large_bytes = 0;
    CHECK(dn_png_encode(&png, &bytes, small, 3, 2, 3, NULL, 0, NULL) == DN_OK);
    CHECK(api_enlarge_png(&large_bytes, png, bytes, 2, 8) == NULL);
    CHECK(api_enlarge_png(&large_bytes, png, bytes, 8, 1) == NULL);
    CHECK(api_enlarge_png(&large_bytes, png, bytes - 20, 7, 4) == NULL);
    large = api_enlarge_png(&large_bytes, png, bytes, 7, 4);
    CHECK(large && dn_png_decode(&pixels, &width, &height, &channels, large, large_bytes, 7, NULL) == DN_OK);
    CHECK(width == 7 && height == 4 && channels == 3);
    static const uint32_t column[7] = {0, 0, 0, 1, 1, 2, 2};
    for (uint32_t y = 0; y < 4; y++) {
        for (uint32_t x = 0; x < 7; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                CHECK_MSG(pixels[(y * 7 + x) * 3 + c] == small[((y / 2) * 3 + column[x]) * 3 + c], "pixel %u, %u", x, y);
            }
        }
    }
    free(png);
    free(large);
    free(pixels);
}

int main(void)
{
    RUN(bodies_become_native_bodies);
    RUN(refusals_name_the_parameter);
    RUN(choices_are_read);
    RUN(native_refusals_get_the_dialects_names);
    RUN(a_wait_ends_before_the_client_does);
    RUN(errors_have_their_types);
    RUN(models_and_pictures_have_openais_form);
    RUN(small_pictures_are_enlarged);
    return test_end();
}
