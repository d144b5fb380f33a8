/* The text inside a PNG: infotext as other programs read it, and the recipe that makes the image again. */
#include <cjson/cJSON.h>
#include <math.h>

#include "api/png_metadata.h"
#include "tests/api/models.h"
#include "tests/test.h"

static api_request sneaker(void)
{
    return (api_request){.model = "fashion-mnist",
                         .has_class = true,
                         .class_index = 7,
                         .class_name = "Sneaker",
                         .guidance_scale = 2,
                         .steps = 20,
                         .sampler = "dpmpp_2m",
                         .has_seed = true,
                         .seed = 42,
                         .n = 4,
                         .priority = 3};
}

static int equals_free(char *text, const char *wanted)
{
    int same = text && strcmp(text, wanted) == 0;
    if (!same) {
        printf("# got  %s\n# want %s\n", text ? text : "(null)", wanted);
    }
    free(text);
    return same;
}

static void infotext_of_a_plain_request(void)
{
    api_request r = sneaker();
    CHECK(equals_free(
        api_infotext(&r, &fashion, 45),
        "Sneaker\nSteps: 20, Sampler: DPM-Solver++(2M), CFG scale: 2, Seed: 45, Size: 32x32, Class: 7 (Sneaker), Model hash: 0123456789, "
        "Model: fashion-mnist, RNG: philox-1, Version: denoised"));
}

static void names_that_would_break_the_line_are_quoted(void)
{
    api_request r = sneaker();
    snprintf(r.class_name, sizeof r.class_name, "crane, lifting: \"gear\"\nSteps: 1");
    CHECK(equals_free(api_infotext(&r, &fashion, 1),
                      "crane, lifting: \"gear\" Steps: 1\nSteps: 20, Sampler: DPM-Solver++(2M), CFG scale: 2, Seed: 1, Size: 32x32, "
                      "Class: \"7 (crane, lifting: \\\"gear\\\"\\u000aSteps: 1)\", Model hash: 0123456789, Model: fashion-mnist, RNG: "
                      "philox-1, Version: denoised"));
}

static void options_and_karras_are_shown(void)
{
    api_request r = sneaker();
    snprintf(r.sampler, sizeof r.sampler, "euler");
    dn_option_set(&r.options, DN_OPT_S_CHURN, 1.5);
    dn_option_set(&r.options, DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    char *text = api_infotext(&r, &fashion, UINT64_MAX);
    bool ok = text && strstr(text, "Sampler: Euler, Schedule type: Karras, CFG scale: 2, Seed: 18446744073709551615") &&
              strstr(text, ", Sigma churn: 1.5, ");
    free(text);
    CHECK(ok);
}

static void an_unconditional_image_names_no_class(void)
{
    api_request r = sneaker();
    r.has_class = false;
    snprintf(r.sampler, sizeof r.sampler, "model");
    CHECK(equals_free(api_infotext(&r, &plain, 1),
                      "Steps: 20, Sampler: model, CFG scale: 2, Seed: 1, Size: 16x16, Model hash: , Model: plain, "
                      "RNG: philox-1, Version: denoised"));
    r.has_class = true;
    r.class_name[0] = '\0';
    char *text = api_infotext(&r, &plain, 1);
    bool ok = text && strncmp(text, "Steps: 20, ", 11) == 0 && strstr(text, ", Class: 7, ");
    free(text);
    CHECK(ok);
}

static void mixtures_negatives_and_variations_are_shown(void)
{
    api_request r = sneaker();
    r.mixture_count = 2;
    r.mixture[0] = (api_class_weight){.label = {2, "Pullover"}, .weight = 0.25};
    r.mixture[1] = (api_class_weight){.label = {9, ""}, .weight = 0.75};
    r.has_negative = true;
    r.negative = (api_class){5, "Sandal"};
    r.has_variation = true;
    r.variation_seed = UINT64_MAX;
    dn_option_set(&r.options, DN_OPT_VARIATION_STRENGTH, 0.5);
    dn_option_set(&r.options, DN_OPT_STRENGTH, 0.75);
    CHECK(equals_free(api_infotext(&r, &fashion, 1),
                      "Pullover:0.25, 9:0.75\nNegative prompt: Sandal\nSteps: 20, Sampler: DPM-Solver++(2M), CFG scale: 2, Seed: 1, "
                      "Size: 32x32, Denoising strength: 0.75, Variation seed strength: 0.5, Variation seed: 18446744073709551615, "
                      "Model hash: 0123456789, Model: fashion-mnist, RNG: philox-1, Version: denoised"));
}

/* All of a request but what schedules it stands in the recipe; pictures by their hash. */
static void the_recipe_names_pictures_and_mixtures(void)
{
    api_request r = sneaker(), again;
    r.mixture_count = 1;
    r.mixture[0] = (api_class_weight){.label = {2, "Pullover"}, .weight = 0.25};
    r.has_variation = true;
    r.variation_seed = 8;
    memset(r.init_image.sha256, 'a', 64);
    r.init_image.byte_count = 77;
    r.init_image.bytes = (const unsigned char *)"never read";
    char *json = api_recipe_json(&r, &fashion, 45, "abcd");
    cJSON *root = cJSON_Parse(json);
    free(json);
    char *request = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(root, "request"));
    bool read = request && api_request_from_json(&again, request, strlen(request)) && again.mixture_count == 1 &&
                again.mixture[0].weight == 0.25 && again.variation_seed == 8 && again.init_image.byte_count == 77 &&
                strcmp(again.init_image.sha256, r.init_image.sha256) == 0;
    free(request);
    cJSON_Delete(root);
    CHECK(read);
}

static void the_recipe_makes_this_one_image_again(void)
{
    api_request r = sneaker(), again;
    char *json = api_recipe_json(&r, &fashion, 45, "abcd");
    cJSON *root = cJSON_Parse(json);
    bool quiet = json && !strstr(json, "\"id\"") && !strstr(json, "created");
    free(json);
    CHECK(root && quiet);
    char *request = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(root, "request"));
    bool read = request && api_request_from_json(&again, request, strlen(request));
    const cJSON *hash = cJSON_GetObjectItemCaseSensitive(root, "pixels_sha256");
    const cJSON *numerics = cJSON_GetObjectItemCaseSensitive(root, "numerics");
    bool ok = read && again.seed == 45 && again.n == 1 && again.priority == 0 && again.class_index == 7 && cJSON_IsString(hash) &&
              strcmp(hash->valuestring, "abcd") == 0 && cJSON_IsNumber(numerics);
    free(request);
    cJSON_Delete(root);
    CHECK(ok);
}

static void equal_images_of_different_jobs_have_equal_text(void)
{
    api_request one = sneaker(), many = sneaker();
    one.seed = 45;
    one.n = 1;
    one.priority = -5;
    char *a = api_recipe_json(&one, &fashion, 45, "x"), *b = api_recipe_json(&many, &fashion, 42 + 3, "x");
    char *c = api_infotext(&one, &fashion, 45), *d = api_infotext(&many, &fashion, 45);
    bool same = a && b && c && d && strcmp(a, b) == 0 && strcmp(c, d) == 0;
    free(a);
    free(b);
    free(c);
    free(d);
    CHECK(same);
}

int main(void)
{
    RUN(infotext_of_a_plain_request);
    RUN(names_that_would_break_the_line_are_quoted);
    RUN(options_and_karras_are_shown);
    RUN(an_unconditional_image_names_no_class);
    RUN(mixtures_negatives_and_variations_are_shown);
    RUN(the_recipe_names_pictures_and_mixtures);
    RUN(the_recipe_makes_this_one_image_again);
    RUN(equal_images_of_different_jobs_have_equal_text);
    return test_end();
}
