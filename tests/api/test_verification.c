/* A picture's recipe read back, and the request that it becomes: what was asked for, exactly, and nothing of a stranger's making. */
#include "api/verification.h"

#include <stdlib.h>
#include <string.h>

#include "api/png_metadata.h"
#include "base/philox.h"
#include "batch/loaded_engine.h"
#include "tests/test.h"

static api_model model(void)
{
    api_model about = {.name = "tiny", .width = 8, .height = 8, .channels = 1, .device = "cpu", .build = "abc"};
    memset(about.weights_sha256, 'a', 64);
    return about;
}

static api_request asked(void)
{
    api_request request = {.model = "tiny",
                           .has_class = true,
                           .class_index = 7,
                           .class_name = "Sneaker, \"shoe\"",
                           .steps = 6,
                           .n = 4,
                           .priority = 3,
                           .deadline_ms = 5,
                           .sampler = "euler",
                           .has_seed = true,
                           .webhook = "https://a.example/"};
    request.guidance_scale = 0.1 + 0.2;
    request.seed = UINT64_MAX;
    dn_option_set(&request.options, DN_OPT_ETA, 1.0 / 3.0);
    return request;
}

static bool read_back(api_recipe *out, const char *json)
{
    bool no_memory = true;
    return api_recipe_read(out, json, strlen(json), &no_memory) && !no_memory;
}

static void a_recipe_comes_back_exactly(void)
{
    const api_model about = model();
    const api_request request = asked();
    char pixels[65], *json;
    api_recipe recipe;
    memset(pixels, 'b', 64);
    pixels[64] = '\0';
    json = api_recipe_json(&request, &about, request.seed, pixels);
    CHECK(json && read_back(&recipe, json));
    free(json);
    CHECK(recipe.request.guidance_scale == 0.1 + 0.2 && recipe.request.seed == UINT64_MAX && recipe.request.n == 1);
    CHECK(recipe.request.options.value[DN_OPT_ETA] == 1.0 / 3.0 && recipe.width == 8 && recipe.channels == 1);
    CHECK(strcmp(recipe.pixels_sha256, pixels) == 0 && strcmp(recipe.weights_sha256, about.weights_sha256) == 0);
    CHECK(!api_recipe_has_inputs(&recipe));
    char *body = api_recipe_body(&recipe, "other", NULL, NULL);
    CHECK(body &&
          strcmp(body, "{\"model\":\"other\",\"class_label\":7,\"guidance_scale\":0.30000000000000004,\"steps\":6,\"sampler\":\"euler\","
                       "\"eta\":0.3333333333333333,\"seed\":\"18446744073709551615\",\"n\":1,\"priority\":0}") == 0);
    free(body);
}

static void mixtures_and_pictures_are_asked_for_again(void)
{
    api_recipe recipe = {.request = asked()};
    recipe.request.mixture_count = 2;
    recipe.request.mixture[0] = (api_class_weight){{1, "Trouser"}, 0.1};
    recipe.request.mixture[1] = (api_class_weight){{2, ""}, -0.30000000000000004};
    memset(recipe.request.init_image.sha256, 'c', 64);
    recipe.request.init_image.byte_count = 10;
    CHECK(api_recipe_has_inputs(&recipe));
    char *body = api_recipe_body(&recipe, "tiny", "AAAA", NULL);
    CHECK(body &&
          strstr(body, "\"class_mixture\":[{\"class_label\":1,\"weight\":0.1},{\"class_label\":2,\"weight\":-0.30000000000000004}]"));
    CHECK(body && strstr(body, "\"init_image\":\"AAAA\"") && !strstr(body, "sha256") && !strstr(body, "class_name") &&
          !strstr(body, "mask_image"));
    CHECK(body && !strstr(body, "\"class_label\":null") && !strstr(body, "webhook") && !strstr(body, "deadline"));
    free(body);
}

static void strangers_recipes_are_refused(void)
{
    static const char *const bad[] = {"", "{", "[]", "5", "{}", "{\"request\":{}}", "{\"request\":{},\"request\":{}}"};
    const api_model about = model();
    const api_request request = asked();
    char pixels[65], *json;
    api_recipe recipe;
    bool refused = true;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refused &= !read_back(&recipe, bad[i]);
    }
    memset(pixels, 'B', 64); /* capitals are no hash that denoised writes */
    pixels[64] = '\0';
    json = api_recipe_json(&request, &about, request.seed, pixels);
    refused &= !read_back(&recipe, json);
    free(json);
    CHECK(refused);
}

static void a_gpus_recipe_names_the_card(void)
{
    api_model about = model();
    const api_request request = asked();
    char pixels[65], *plain, *json, *at;
    api_recipe recipe;
    memset(pixels, 'b', 64);
    pixels[64] = '\0';
    plain = api_recipe_json(&request, &about, request.seed, pixels);
    CHECK(plain && strstr(plain, "\"gpu\"") == NULL && read_back(&recipe, plain) && recipe.gpu[0] == '\0' && recipe.plan[0] == '\0');
    free(plain);
    snprintf(about.gpu, sizeof about.gpu, "NVIDIA H200, sm_90");
    snprintf(about.plan, sizeof about.plan, "0123456789abcdef");
    json = api_recipe_json(&request, &about, request.seed, pixels);
    CHECK(json && read_back(&recipe, json) && strcmp(recipe.gpu, about.gpu) == 0 && strcmp(recipe.plan, about.plan) == 0);
    at = strstr(json, "\"NVIDIA");
    memcpy(at, "7, \"x\":\"", 9); /* a number in the text's place */
    CHECK(!read_back(&recipe, json));
    free(json);
}

static api_verification files(const api_recipe *claimed, char sent, char sent_pixels, char found, char found_pixels)
{
    api_verification v = {.claimed = claimed, .made = true, .model = "tiny", .found_device = "cpu", .found_build = "abc"};
    v.sha256[0] = sent;
    v.pixels_sha256[0] = sent_pixels;
    v.found_sha256[0] = found;
    v.found_pixels_sha256[0] = found_pixels;
    api_verify_judge(&v);
    return v;
}

static void verdicts_and_their_reasons(void)
{
    api_recipe claimed = {.request = {.model = "tiny"},
                          .pixels_sha256 = "p",
                          .build = "abc",
                          .device = "cpu",
                          .noise = DN_NOISE_NAME,
                          .numerics = DN_NUMERICS_VERSION};
    api_verification v = files(&claimed, '1', 'x', '1', 'p');
    CHECK(v.verdict == API_VERDICT_SAME_BYTES && v.reason_count == 0 && v.pixels_sha256[0] == 'p');
    v = files(&claimed, '1', 'p', '2', 'p');
    CHECK(v.verdict == API_VERDICT_SAME_PIXELS && v.reason_count == 1 && v.reasons[0].code == API_VERIFY_EDITED_FILE);
    v = files(&claimed, '1', 'q', '2', 'p');
    CHECK(v.verdict == API_VERDICT_DIFFERENT && v.reason_count == 1 && v.reasons[0].code == API_VERIFY_EDITED_PIXELS);
    v = files(&claimed, '1', '\0', '2', 'p');
    CHECK(v.verdict == API_VERDICT_DIFFERENT && v.reason_count == 1 && v.reasons[0].code == API_VERIFY_UNREADABLE);
    snprintf(claimed.gpu, sizeof claimed.gpu, "NVIDIA H200, sm_90");
    snprintf(claimed.device, sizeof claimed.device, "cuda sm_90 bf16");
    v = files(&claimed, '1', 'p', '2', 'q');
    CHECK(v.reason_count == 1 && v.reasons[0].code == API_VERIFY_OTHER_BUILD);
    CHECK(strcmp(v.reasons[0].detail, "made by build abc on cuda sm_90 bf16 (NVIDIA H200, sm_90); here it is build abc on cpu") == 0);
    claimed.numerics++;
    claimed.build[0] = 'x';
    claimed.request.model[0] = 'x';
    v = files(&claimed, '1', 'p', '2', 'q');
    CHECK(v.verdict == API_VERDICT_DIFFERENT && v.reason_count == 3 && v.reasons[0].code == API_VERIFY_OTHER_NUMERICS &&
          v.reasons[1].code == API_VERIFY_OTHER_BUILD && v.reasons[2].code == API_VERIFY_OTHER_NAME);
    for (int i = 0; i < 20; i++) {
        api_verify_reason(&v, API_VERIFY_REFUSED, "%d", i);
    }
    CHECK(v.reason_count == API_VERIFY_REASONS_MAX);
    char *body = api_verification_body(&v);
    CHECK(body && strncmp(body, "{\"verdict\":\"different\",\"reasons\":[{\"code\":\"other-numerics\"", 57) == 0);
    free(body);
}

int main(void)
{
    RUN(a_recipe_comes_back_exactly);
    RUN(mixtures_and_pictures_are_asked_for_again);
    RUN(strangers_recipes_are_refused);
    RUN(a_gpus_recipe_names_the_card);
    RUN(verdicts_and_their_reasons);
    return test_end();
}
