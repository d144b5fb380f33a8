/* AUTOMATIC1111's bodies to native ones, field by field, and its names and answers. What a running daemon makes of them is
 * e2e/sdapi_test.py. */
#include <cjson/cJSON.h>

#include "api/generate_request.h"
#include "api/infotext.h"
#include "api/sdapi_options.h"
#include "api/sdapi_request.h"
#include "api/sdapi_views.h"
#include "tests/api/models.h"
#include "tests/test.h"

/* The native body of a call on the model, or NULL with the refusal. */
static char *native_of(const char *body, bool img2img, const api_model *model, api_sdapi_refusal *refusal)
{
    api_sdapi_request asked;
    char *native = NULL;
    *refusal = (api_sdapi_refusal){.kind = NULL};
    if (!api_sdapi_read(&asked, img2img, body, strlen(body), refusal)) {
        return NULL;
    }
    api_sdapi_translate(&native, &asked, model->name, model, UINT64_C(0x2a0000001f), refusal);
    api_sdapi_done(&asked);
    return native;
}

/* ---- Bodies */

static void bodies_become_native_ones(void)
{
    static const struct {
        const char *body, *native;
    } rows[] = {
        {"{}", "\"class_label\":null,\"guidance_scale\":1,\"seed\":31,\"sampler\":\"euler\",\"steps\":50,\"n\":1"},
        {"{\"prompt\":\"a bag\"}", "\"class_label\":8,\"guidance_scale\":7,\"seed\":31,\"sampler\":\"euler\",\"steps\":50,\"n\":1"},
        {"{\"prompt\":\"class:7\",\"negative_prompt\":\"coat\",\"cfg_scale\":2.5,\"seed\":18446744073709551615,\"steps\":20,\"sampler_"
         "name\":\"DPM++ 2M "
         "Karras\",\"batch_size\":2,\"n_iter\":3,\"width\":32,\"height\":32.0}",
         "\"class_label\":7,\"negative_class\":4,\"guidance_scale\":2.5,\"seed\":18446744073709551615,\"sampler\":\"dpmpp_2m\",\"sigma_"
         "schedule\":"
         "\"karras\",\"steps\":20,\"n\":6"},
        {"{\"prompt\":\"bag\",\"subseed_strength\":0.5,\"sampler_index\":\"k_euler_a\",\"eta\":1,\"scheduler\":\"Uniform\"}",
         "\"class_label\":8,\"guidance_scale\":7,\"seed\":31,\"variation_strength\":0.5,\"variation_seed\":42,\"sampler\":\"euler_"
         "ancestral\","
         "\"timestep_spacing\":\"linspace\",\"eta\":1,\"steps\":50,\"n\":1"},
        {"{\"prompt\":\"bag\",\"sampler_name\":\"heun\",\"s_churn\":3,\"s_tmin\":0.5,\"s_tmax\":9,\"s_noise\":1,\"eta\":1,\"subseed\":9}",
         "\"class_label\":8,\"guidance_scale\":7,\"seed\":31,\"sampler\":\"heun\",\"s_churn\":3,\"s_tmin\":0.5,\"s_tmax\":9,\"steps\":50,"
         "\"n\":1"},
        {"{\"prompt\":\"bag\",\"steps\":null,\"tiling\":false,\"styles\":[],\"enable_hr\":0,\"hr_scale\":3,\"seed_resize_from_w\":0,\"clip_"
         "skip\":2,"
         "\"override_settings\":{\"CLIP_stop_at_last_layers\":2,\"sd_vae\":\"None\"},\"denoising_strength\":0.7}",
         "\"class_label\":8,\"guidance_scale\":7,\"seed\":31,\"sampler\":\"euler\",\"steps\":50,\"n\":1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_sdapi_refusal refusal;
        char whole[1024];
        snprintf(whole, sizeof whole, "{\"model\":\"fashion-mnist\",%s}", rows[i].native);
        char *native = native_of(rows[i].body, false, &fashion, &refusal);
        CHECK_MSG(native, "%s: %s", rows[i].body, refusal.problem.detail);
        const bool same = strcmp(native, whole) == 0;
        CHECK_MSG(same, "%s: %s", rows[i].body, native);
        free(native);
    }
}

static void pictures_become_native_ones(void)
{
    api_sdapi_refusal refusal;
    char *native = native_of("{\"prompt\":\"bag\",\"init_images\":[\"data:image/png;base64,QUJD\"],\"mask\":\"REVG\",\"mask_blur\":4}",
                             true, &fashion, &refusal);
    CHECK_MSG(native, "%s", refusal.problem.detail);
    const bool there = strstr(native, "\"init_image\":\"QUJD\",\"mask_image\":\"REVG\",\"strength\":0.75,") != NULL;
    free(native);
    CHECK(there);
}

static void models_bound_what_is_asked(void)
{
    api_sdapi_refusal refusal;
    char *native = native_of("{\"prompt\":\"tench\",\"width\":64,\"height\":48}", false, &bare, &refusal);
    CHECK_MSG(native == NULL && strcmp(refusal.problem.field, "/width") == 0, "%s", refusal.problem.detail);
    /* A model without a null class takes its own guidance where webui's default would be refused. */
    native = native_of("{\"prompt\":\"class:0\"}", false, &bare, &refusal);
    CHECK_MSG(native, "%s", refusal.problem.detail);
    const bool unguided = strstr(native, "guidance_scale") == NULL;
    free(native);
    CHECK(unguided);
}

static void wrong_bodies_are_refused_at_their_field(void)
{
    static const struct {
        const char *body, *field, *kind;
        bool img2img;
    } rows[] = {
        {"{\"steps\":1.5}", "/steps", "type_error.integer", false},
        {"{\"cfg_scale\":\"7\"}", "/cfg_scale", "type_error.float", false},
        {"{\"send_images\":2}", "/send_images", "value_error.strictbool", false},
        {"{\"styles\":{}}", "/styles", "type_error.list", false},
        {"{\"comments\":[]}", "/comments", "type_error.dict", false},
        {"{\"sampler_name\":1}", "/sampler_name", "type_error.str", false},
        {"{\"enable_hr\":true}", "/enable_hr", "value_error", false},
        {"{\"firstphase_width\":64}", "/firstphase_width", "value_error", false},
        {"{\"alwayson_scripts\":{\"x\":1}}", "/alwayson_scripts", "value_error", false},
        {"{\"hr_scal\":2}", "/hr_scal", "value_error.extra", false},
        {"{\"a b\":2}", "", "value_error.extra", false},
        {"[]", "", "type_error.dict", false},
        {"{\"seed\":-2}", "/seed", "value_error", false},
        {"{\"seed\":2e1}", "/seed", "value_error", false},
        {"{\"batch_size\":64,\"n_iter\":2}", "/batch_size", "value_error", false},
        {"{\"n_iter\":0}", "/n_iter", "value_error", false},
        {"{\"eta\":0.5}", "/eta", "value_error", false},
        {"{\"prompt\":\"bag\",\"sampler_name\":\"euler karra\"}", "/sampler_name", "value_error", false},
        {"{\"override_settings\":{\"x\":1}}", "/override_settings/x", "value_error", false},
        {"{\"init_images\":[\"QUJD\"]}", "/init_images", "value_error", false},
        {"{}", "/init_images", "value_error", true},
        {"{\"init_images\":[\"QUJD\"],\"mask\":\"QUJD\",\"mask_blur_y\":3}", "/mask_blur_y", "value_error", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_sdapi_refusal refusal;
        char *native = native_of(rows[i].body, rows[i].img2img, &fashion, &refusal);
        CHECK_MSG(native == NULL, "%s: %s", rows[i].body, native);
        const char *kind = refusal.kind ? refusal.kind : "value_error";
        CHECK_MSG(strcmp(refusal.problem.field, rows[i].field) == 0 && strcmp(kind, rows[i].kind) == 0, "%s: %s %s: %s", rows[i].body,
                  refusal.problem.field, kind, refusal.problem.detail);
    }
}

/* ---- Refusals */

static void refusals_have_fastapis_shapes(void)
{
    static const struct {
        api_problem problem;
        const char *kind, *json;
        int status;
    } rows[] = {
        {{.code = API_INVALID_FIELD, .detail = "x must be 1", .field = "/x"},
         NULL,
         "{\"detail\":[{\"loc\":[\"body\",\"x\"],\"msg\":\"x must be 1\",\"type\":\"value_error\"}]}",
         422},
        {{.code = API_UNSUPPORTED_OPTION, .detail = "d", .field = "/init_images/0"},
         "k",
         "{\"detail\":[{\"loc\":[\"body\",\"init_images\",0],\"msg\":\"d\",\"type\":\"k\"}]}",
         422},
        {{.code = API_INVALID_FIELD, .detail = "d"},
         NULL,
         "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"d\",\"type\":\"value_error\"}]}",
         422},
        {{.code = API_MALFORMED_JSON, .detail = "d", .has_offset = true, .offset = 7},
         NULL,
         "{\"detail\":[{\"loc\":[\"body\",7],\"msg\":\"d\",\"type\":\"value_error.jsondecode\"}]}",
         422},
        {{.code = API_NOT_FOUND, .detail = "d"}, NULL, "{\"detail\":\"Not Found\"}", 404},
        {{.code = API_METHOD_NOT_ALLOWED, .detail = "d"}, NULL, "{\"detail\":\"Method Not Allowed\"}", 405},
        {{.code = API_QUOTA, .detail = "d"}, NULL, "{\"error\":\"quota\",\"detail\":\"d\",\"body\":\"\",\"errors\":\"d\"}", 429},
        {{.code = API_IDEMPOTENCY_MISMATCH, .detail = "d"},
         NULL,
         "{\"error\":\"idempotency-mismatch\",\"detail\":\"d\",\"body\":\"\",\"errors\":\"d\"}",
         422},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int status = 0;
        char *json = api_sdapi_refusal_json(&rows[i].problem, rows[i].kind, &status);
        CHECK_MSG(json && strcmp(json, rows[i].json) == 0 && status == rows[i].status, "row %zu: %d %s", i, status, json);
        free(json);
    }
}

static void native_words_become_the_dialects(void)
{
    static const struct {
        const char *field, *detail, *renamed, *said;
        bool img2img;
    } rows[] = {
        {"/guidance_scale", "guidance_scale must be 1", "/cfg_scale", "cfg_scale must be 1", false},
        {"/negative_class", "negative_class needs a guidance_scale other than 1", "/negative_prompt",
         "negative_prompt needs a cfg_scale other than 1", false},
        {"/n", "n must be an n of n", "/batch_size", "batch_size must be an n of n", false},
        {"/sampler", "sampler cannot serve this model", "/sampler_name", "sampler_name cannot serve this model", false},
        {"/sigma_schedule", "sigma_schedule must be model or karras", "/scheduler", "scheduler must be automatic or karras", false},
        {"/init_image", "init_image has no place", "/init_images/0", "init_images has no place", true},
        {"/init_image", "init_image is needed", "/sampler_name", "init_images is needed", false},
        {"/steps", "steps must be at least 4", "/steps", "steps must be at least 4", false},
        {"", "the default model is loading", "", "the default model is loading", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_problem problem = {.code = API_INVALID_FIELD};
        snprintf(problem.field, sizeof problem.field, "%s", rows[i].field);
        snprintf(problem.detail, sizeof problem.detail, "%s", rows[i].detail);
        api_sdapi_rename(&problem, rows[i].img2img);
        CHECK_MSG(strcmp(problem.field, rows[i].renamed) == 0 && strcmp(problem.detail, rows[i].said) == 0, "%s: %s: %s", rows[i].field,
                  problem.field, problem.detail);
    }
}

/* ---- Names */

static void names_are_webuis(void)
{
    static const struct {
        const char *text, *sampler, *scheduler;
    } rows[] = {
        {"Euler a", "euler_ancestral", NULL},
        {"euler A", "euler_ancestral", NULL},
        {"k_euler_ancestral", "euler_ancestral", NULL},
        {"DPM++ 2M", "dpmpp_2m", NULL},
        {"dpmpp_2m", "dpmpp_2m", NULL},
        {"DPM-Solver++(2M)", "dpmpp_2m", NULL},
        {"DPM++ 2M Karras", "dpmpp_2m", "karras"},
        {"DPM++ 2M SDE Exponential", "dpmpp_2m_sde", "exponential"},
        {"Euler SGM Uniform", "euler", "sgm_uniform"},
        {"Euler SGMUniform", "euler", "sgm_uniform"},
        {"DDIM", "ddim", NULL},
        {"DPM2 a", "kdpm2_ancestral", NULL},
        {"DPM2", "kdpm2", NULL},
        {"Euler aa", NULL, NULL},
        {"Karras", NULL, NULL},
        {" Karras", NULL, NULL},
        {"EulerKarras", NULL, NULL},
        {"Euler_Karras", NULL, NULL},
        {"DPM++ 2S a", NULL, NULL},
        {"Euler a ", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const api_sdapi_scheduler *scheduler = NULL;
        const dn_sampler *sampler = api_sdapi_find_sampler(rows[i].text, &scheduler);
        const char *name = sampler ? sampler->name : "nothing", *wanted = rows[i].sampler ? rows[i].sampler : "nothing";
        const char *levels = scheduler ? scheduler->name : "none", *wanted_levels = rows[i].scheduler ? rows[i].scheduler : "none";
        CHECK_MSG(strcmp(name, wanted) == 0 && strcmp(levels, wanted_levels) == 0, "%s: %s, %s", rows[i].text, name, levels);
    }
}

/* Each name finds its own sampler and no other's. */
static void every_listed_name_finds_its_sampler(void)
{
    const dn_sampler *sampler;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        const api_sdapi_scheduler *scheduler = NULL;
        const char *names[] = {api_sdapi_sampler_name(sampler), sampler->name, sampler->title};
        for (size_t k = 0; k < 3; k++) {
            const dn_sampler *found = api_sdapi_find_sampler(names[k], &scheduler);
            CHECK_MSG(found == sampler && !scheduler, "%s: %s", names[k], found ? found->name : "nothing");
        }
    }
}

static void models_have_titles(void)
{
    static const struct {
        const char *text;
        bool known, unloaded;
    } rows[] = {
        {"fashion-mnist", true, true},
        {"fashion-mnist [0123456789]", true, true},
        {"fashion-mnist [1123456789]", false, true},
        {"0123456789", true, false},
        {"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", true, false},
        {"012345678", false, false},
        {"Fashion-mnist", false, false},
        {"fashion-mnist ", false, false},
        {"fashion-mnist [0123456789", false, false},
        {"fashion-mnist [0123456789]]", false, false},
        {"", false, false},
    };
    api_model unloaded = fashion;
    unloaded.weights_sha256[0] = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_MSG(api_sdapi_model_is("fashion-mnist", &fashion, rows[i].text) == rows[i].known, "%s", rows[i].text);
        CHECK_MSG(api_sdapi_model_is("fashion-mnist", &unloaded, rows[i].text) == rows[i].unloaded, "%s, not loaded", rows[i].text);
    }
    CHECK(!api_sdapi_model_is("x", NULL, "") && api_sdapi_model_is("x", NULL, "x"));
}

/* ---- Infotext */

static void infotexts_are_read(void)
{
    static const struct {
        const char *text, *fields;
    } rows[] = {
        {"", "{}"},
        {"  \n ", "{}"},
        {"a cat", "{\"Prompt\":\"a cat\",\"Negative prompt\":\"\",\"Schedule type\":\"Automatic\"}"},
        {"a cat\nSteps: 20, Sampler: Euler a",
         "{\"Prompt\":\"a cat\\nSteps: 20, Sampler: Euler a\",\"Negative prompt\":\"\",\"Schedule type\":\"Automatic\"}"},
        {"a cat,\n on a mat\nNegative prompt: dog\nand bird\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, "
         "Size: 512x768, Model: x",
         "{\"Prompt\":\"a cat,\\non a mat\",\"Negative prompt\":\"dog\\nand bird\",\"Steps\":\"20\",\"Sampler\":\"DPM++ 2M\",\"Schedule "
         "type\":\"Karras\","
         "\"CFG scale\":\"7\",\"Seed\":\"1\",\"Size-1\":\"512\",\"Size-2\":\"768\",\"Model\":\"x\"}"},
        {"Steps: 1, Lora hashes: \"a: 1, b: \\\"2\\\"\", Seed: 3, Seed: 4, Size: 5x, Empty: , Version: v1",
         "{\"Prompt\":\"\",\"Negative prompt\":\"\",\"Schedule type\":\"Automatic\",\"Steps\":\"1\",\"Lora hashes\":\"a: 1, b: "
         "\\\"2\\\"\",\"Seed\":\"4\",\"Size\":\"5x\","
         "\"Empty\":\"\",\"Version\":\"v1\"}"},
        {"x\nA: 1, BB: \"unclosed, CC: 2, DD: 3",
         "{\"Prompt\":\"x\",\"Negative prompt\":\"\",\"Schedule type\":\"Automatic\",\"BB\":\"\\\"unclosed\",\"CC\":\"2\",\"DD\":\"3\"}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *fields = api_infotext_fields(rows[i].text);
        cJSON *got = cJSON_Parse(fields), *wanted = cJSON_Parse(rows[i].fields);
        const bool same = got && wanted && cJSON_Compare(got, wanted, true);
        CHECK_MSG(same, "%s: %s", rows[i].text, fields);
        cJSON_Delete(got);
        cJSON_Delete(wanted);
        free(fields);
    }
}

/* Whatever the bytes: JSON of strings comes out, and nothing is read beyond the end. */
static void any_text_is_an_infotext(void)
{
    static const char letters[] = "ab: ,\"\\\n\x80\xffxS1-/";
    unsigned state = 1;
    for (int round = 0; round < test_rounds(20000); round++) {
        char *text = malloc(41);
        size_t used = 0;
        for (; text && used < 40; used++) {
            state = state * 1664525u + 1013904223u;
            text[used] = letters[(state >> 16) % (sizeof letters - 1)];
            if ((state >> 8 & 31) == 0) {
                break;
            }
        }
        text[used] = '\0';
        char *fields = api_infotext_fields(text);
        cJSON *got = cJSON_Parse(fields);
        CHECK_MSG(cJSON_IsObject(got), "%s", fields);
        cJSON_Delete(got);
        free(fields);
        free(text);
    }
}

static void recipes_have_infotexts(void)
{
    static const char recipe[] = "{\"request\":{\"model\":\"m\",\"class_label\":7,\"class_name\":\"Bag\",\"guidance_scale\":2.0,\"steps\":"
                                 "3,\"sampler\":\"ddim\",\"seed\":\"9\",\"n\":1,"
                                 "\"priority\":0},\"width\":8,\"height\":4,\"channels\":1,\"weights_sha256\":\"0123456789abcdef\"}";
    char *text = api_infotext_of_recipe(recipe);
    CHECK_MSG(
        text &&
            strcmp(text,
                   "Bag\nSteps: 3, Sampler: DDIM, CFG scale: 2, Seed: 9, Size: 8x4, Class: 7 (Bag), Model hash: 0123456789, Model: m, RNG: "
                   "philox-1, Version: denoised") == 0,
        "%s", text);
    free(text);
    static const char *const none[] = {
        "", "{}", "[]", "x", "{\"request\":{}}", "{\"width\":8,\"height\":4,\"weights_sha256\":\"a\",\"request\":{}}"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        CHECK_MSG(api_infotext_of_recipe(none[i]) == NULL, "%s", none[i]);
    }
}

/* ---- Progress */

static void progress_is_webuis(void)
{
    api_sdapi_progress running = {.known = true,
                                  .fraction = 0.25,
                                  .eta_seconds = 3,
                                  .created_ms = 1000,
                                  .queue_position = -1,
                                  .n_iter = 2,
                                  .n = 4,
                                  .images_done = 2,
                                  .steps = 20,
                                  .done = 20,
                                  .preview = (const unsigned char *)"ABC",
                                  .preview_bytes = 3,
                                  .preview_id = 5};
    char *one = api_sdapi_task_body(&running), *all = api_sdapi_progress_body(&running);
    CHECK_MSG(
        one &&
            strcmp(one,
                   "{\"active\":true,\"queued\":false,\"paused\":false,\"completed\":false,\"progress\":0.25,\"eta\":3.0,\"live_preview\":"
                   "\"data:image/png;base64,QUJD\",\"id_live_preview\":5,\"textinfo\":null}") == 0,
        "%s", one);
    CHECK_MSG(all && strcmp(all, "{\"progress\":0.25,\"eta_relative\":3.0,\"state\":{\"skipped\":false,\"interrupted\":false,\"stopping_"
                                 "generation\":false,\"job\":"
                                 "\"scripts_txt2img\",\"job_count\":2,\"job_timestamp\":\"19700101000001\",\"job_no\":1,\"sampling_step\":"
                                 "5,\"sampling_steps\":20},"
                                 "\"current_image\":\"QUJD\",\"textinfo\":null}") == 0,
              "%s", all);
    free(one);
    free(all);
    running.queued = true;
    running.queue_position = 3;
    one = api_sdapi_task_body(&running);
    CHECK_MSG(strstr(one, "\"active\":false,\"queued\":true") && strstr(one, "\"In queue: 3 before it\"") &&
                  strstr(one, "\"live_preview\":null"),
              "%s", one);
    free(one);
}

int main(void)
{
    RUN(bodies_become_native_ones);
    RUN(pictures_become_native_ones);
    RUN(models_bound_what_is_asked);
    RUN(wrong_bodies_are_refused_at_their_field);
    RUN(refusals_have_fastapis_shapes);
    RUN(native_words_become_the_dialects);
    RUN(names_are_webuis);
    RUN(every_listed_name_finds_its_sampler);
    RUN(models_have_titles);
    RUN(infotexts_are_read);
    RUN(any_text_is_an_infotext);
    RUN(recipes_have_infotexts);
    RUN(progress_is_webuis);
    return test_end();
}
