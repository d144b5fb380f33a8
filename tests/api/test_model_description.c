/* Model descriptions: round trips, the wire's MODEL, class names, and what is refused. */
#include <cjson/cJSON.h>

#include "api/class_label.h"
#include "tests/api/models.h"
#include "tests/test.h"

static void descriptions_round_trip(void)
{
    CHECK(find_model(NULL, "bare")); /* settles its samplers */
    const api_model *const all[] = {&fashion, &birds, &plain, &bare};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        api_model *read = NULL;
        dn_error error = {0};
        char *json = api_model_to_json(all[i]);
        CHECK(json);
        dn_status status = api_model_from_json(&read, json, strlen(json), &error);
        CHECK_MSG(status == DN_OK, "%s: %s", json, error.message);
        char *again = api_model_to_json(read);
        bool same = again && strcmp(json, again) == 0 && read->class_count == all[i]->class_count && read->guidance == all[i]->guidance &&
                    read->default_guidance == all[i]->default_guidance && strcmp(read->build, all[i]->build) == 0 &&
                    read->guidance_methods == all[i]->guidance_methods && read->field_count == all[i]->field_count &&
                    read->latent == all[i]->latent && read->latent_channels == all[i]->latent_channels &&
                    strcmp(read->model_sampler, all[i]->model_sampler) == 0;
        for (uint32_t s = 0; dn_sampler_at(s); s++) {
            same = same && api_model_serves(read, dn_sampler_at(s)) == api_model_serves(all[i], dn_sampler_at(s));
        }
        for (uint32_t f = 0; same && f < read->field_count; f++) {
            const dn_option_field *a = &read->fields[f], *b = &all[i]->fields[f];
            same = a->id == b->id && a->minimum == b->minimum && a->standard == b->standard &&
                   (a->id == DN_OPT_GUIDANCE_METHOD || a->maximum == b->maximum); /* the methods name the last choice */
        }
        api_model_free(read);
        free(json);
        free(again);
        CHECK(same);
    }
    api_model_free(NULL);
}

static void a_description_that_lies_is_refused(void)
{
    static const char *const changes[][2] = {
        {"\"name\":\"plain\"", "\"name\":\"../plain\""},
        {"\"name\":\"plain\"", "\"name\":\"\""},
        {"\"name\":\"plain\"", "\"nam\":\"plain\""},
        {"\"width\":16", "\"width\":0"},
        {"\"width\":16", "\"width\":1.5"},
        {"\"width\":16", "\"width\":\"16\""},
        {"\"width\":16", "\"width\":5000"},
        {"\"guidance\":false", "\"guidance\":0"},
        {"\"latent\":null", "\"latent\":{}"},
        {"\"latent\":null", "\"latent\":{\"width\":4,\"height\":4,\"channels\":0}"},
        {"\"latent\":null", "\"latent\":true"},
        {"\"unconditional\":true", "\"unconditional\":1"},
        {"\"learned_variance\":false", "\"learned_varianc\":false"},
        {"\"guidance_methods\":[]", "\"guidance_methods\":[\"magic\"]"},
        {"\"guidance_methods\":[]", "\"guidance_methods\":null"},
        {"\"null_class\":null", "\"null_class\":-1"},
        {"\"samplers\":[", "\"samplers\":[\"magic\","},
        {"\"samplers\":[", "\"samples\":["},
        {"\"model_sampler\":\"ddpm\"", "\"model_sampler\":\"magic\""},
        {"\"model_sampler\":\"ddpm\"", "\"model_sampler\":3"},
        {"\"fields\":[", "\"fields\":[{},"},
        {"\"fields\":[", "\"field\":["},
        {"\"name\":\"strength\"", "\"name\":\"magic\""},
        {"\"minimum\":0,\"maximum\":1,\"default\":0.75", "\"minimum\":-1,\"maximum\":1,\"default\":0.75"},
        {"\"minimum\":0,\"maximum\":1,\"default\":0.75", "\"minimum\":0,\"maximum\":1,\"default\":2"},
        {"\"minimum\":0,\"maximum\":1,\"default\":0.75", "\"minimum\":0,\"maximum\":null,\"default\":0.75"},
        {"\"class_count\":0", "\"class_count\":1"},
        {"\"class_count\":0", "\"class_count\":-1"},
        {"\"classes\":[]", "\"classes\":{}"},
        {"\"classes\":[]", "\"classes\":[{\"index\":0,\"names\":[]}]"},
        {"\"steps\":10", "\"steps\":0"},
        {"\"sampler\":\"ddim\"", "\"sampler\":\"\""},
        {"\"guidance_scale\":1.0}", "\"guidance_scale\":101}"},
        {"\"device\":\"\"", "\"device\":null"},
        {"\"gpu\":null", "\"gpu\":1"},
        {"\"plan\":null", "\"plan\":[]"},
        {"\"plan\":null", "\"plan\":\"01234567890123456789012345678901234567890123456789012345678901234\""},
        {"{\"name\"", "[{\"name\""},
    };
    char *json = api_model_to_json(&plain);
    CHECK(json);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char changed[8192];
        char *at = strstr(json, changes[i][0]);
        CHECK_MSG(at, "row %zu", i);
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - json), json, changes[i][1], at + strlen(changes[i][0]));
        api_model *read = NULL;
        dn_error error = {0};
        CHECK_MSG(api_model_from_json(&read, changed, strlen(changed), &error) == DN_INVALID && !read && error.message[0], "%s", changed);
    }
    free(json);
}

/* What one of a GPU says more; and one that an older daemon has stored, which knew of none. */
static void a_gpu_is_told_and_may_be_unknown(void)
{
    static const char added[] = ",\"gpu\":null,\"plan\":null";
    api_model about = plain, *read = NULL;
    dn_error error = {0};
    snprintf(about.device, sizeof about.device, "cuda sm_90 bf16");
    snprintf(about.gpu, sizeof about.gpu, "NVIDIA \"H200\", sm_90, cuDNN 9.19.0");
    snprintf(about.plan, sizeof about.plan, "0123456789abcdef");
    char *json = api_model_to_json(&about);
    CHECK(json && api_model_from_json(&read, json, strlen(json), &error) == DN_OK);
    bool same = strcmp(read->gpu, about.gpu) == 0 && strcmp(read->plan, about.plan) == 0 && strcmp(read->device, about.device) == 0;
    api_model_free(read);
    free(json);
    CHECK(same);
    read = NULL;
    json = api_model_to_json(&plain);
    char *at = json ? strstr(json, added) : NULL;
    CHECK(at);
    memmove(at, at + sizeof added - 1, strlen(at + sizeof added - 1) + 1);
    CHECK(api_model_from_json(&read, json, strlen(json), &error) == DN_OK && read->gpu[0] == '\0' && read->plan[0] == '\0');
    api_model_free(read);
    free(json);
}

static void the_body_is_the_wires(void)
{
    char *body = api_model_body(&plain, "plain", "ready", NULL, true, NULL);
    cJSON *root = cJSON_Parse(body);
    bool whole =
        body &&
        strncmp(body, "{\"name\":\"plain\",\"state\":\"ready\",\"error\":null,\"architecture\":\"UNet2DModel\",\"width\":16,", 84) == 0 &&
        strstr(body, "\"limits\":{\"steps\":[1,1000],\"guidance_scale\":[1,1],\"n\":[1,64]}") && strstr(body, "\"classes\":[]");
    free(body);
    CHECK(root && whole);
    cJSON_Delete(root);
    body = api_model_body(&fashion, "fashion-mnist", "failed", "no such \"file\"", false, NULL);
    bool listed = body && strstr(body, "\"error\":\"no such \\\"file\\\"\"") && !strstr(body, "\"classes\"") &&
                  strstr(body, "\"class_count\":10") && strstr(body, "\"guidance_scale\":[-100,100]") &&
                  strstr(body, "\"defaults\":{\"sampler\":\"dpmpp_2m\",\"steps\":20,\"guidance_scale\":2.0}");
    free(body);
    CHECK(listed);
    body = api_model_body(NULL, "soon", "loading", "", true, NULL);
    bool bareness = body && strcmp(body, "{\"name\":\"soon\",\"state\":\"loading\",\"error\":null,\"batch\":null}") == 0;
    free(body);
    CHECK(bareness);
    const api_batch batch = {.rows_max = 16, .count = 2, .rows = {1, 2}, .milliseconds = {2.75, 2.8004}};
    body = api_model_body(NULL, "busy", "ready", NULL, true, &batch);
    bool measured = body && strstr(body, ",\"batch\":{\"rows_max\":16,\"tick_ms\":[[1,2.750],[2,2.800]]}}");
    free(body);
    CHECK(measured);
}

static void the_body_says_what_a_form_needs(void)
{
    CHECK(find_model(NULL, "bare"));
    char *body = api_model_body(&birds, "birds", "ready", NULL, false, NULL);
    bool latent = body && strstr(body, "\"width\":64,\"height\":48,\"channels\":3,\"latent\":{\"width\":8,\"height\":6,\"channels\":4}") &&
                  strstr(body, "\"guidance_methods\":[\"cfg\",\"cfg_pp\",\"apg\",\"autoguidance\",\"classifier\"],\"null_class\":7") &&
                  strstr(body, "\"model_sampler\":\"euler\"") &&
                  strstr(body, "{\"name\":\"guidance_channels\",\"type\":\"integer\",\"minimum\":0,\"maximum\":4,\"default\":0,\"help\":");
    free(body);
    CHECK(latent);
    body = api_model_body(&fashion, "fashion-mnist", "ready", NULL, false, NULL);
    bool own =
        body &&
        strstr(body, "{\"name\":\"guidance_method\",\"type\":\"choice\",\"choices\":[\"cfg\",\"cfg_pp\",\"apg\"],\"default\":\"cfg\"");
    free(body);
    CHECK(own);
    body = api_model_body(&bare, "bare", "ready", NULL, false, NULL);
    bool few = body && strstr(body, "\"samplers\":[\"ddim\",\"euler\"],\"model_sampler\":null,\"fields\":[]");
    free(body);
    CHECK(few);
}

/* The stored form carries how the model was trained; the wire's does not. */
static void training_is_kept(void)
{
    api_model *read = NULL;
    train_fashion();
    char *json = api_model_to_json(&fashion), *body = api_model_body(&fashion, "fashion-mnist", "ready", NULL, true, NULL);
    bool hidden = json && body && strstr(json, ",\"training\":{\"convention\":0,") && !strstr(body, "\"training\"");
    free(body);
    CHECK(hidden && api_model_from_json(&read, json, strlen(json), NULL) == DN_OK);
    bool same = read->training && read->training->timesteps == 1000 && strcmp(read->scheduler.class_name, "DDIMScheduler") == 0 &&
                read->training->alphas_cumprod[999] == fashion.training->alphas_cumprod[999];
    api_model_free(read);
    free(json);
    CHECK(same);
    json = api_model_to_json(&plain);
    CHECK(json && !strstr(json, "training") && api_model_from_json(&read, json, strlen(json), NULL) == DN_OK);
    bool unknown = !read->training;
    api_model_free(read);
    char *tail = json ? strrchr(json, '}') : NULL;
    char broken[8192];
    snprintf(broken, sizeof broken, "%.*s,\"training\":{\"convention\":99}}", (int)(tail - json), json);
    free(json);
    CHECK(unknown && api_model_from_json(&read, broken, strlen(broken), NULL) == DN_INVALID);
}

static void synonyms_are_split_and_trimmed(void)
{
    static const char *const wanted[] = {"tench", "Tinca tinca", "x"};
    const char *rest = " tench ,Tinca tinca,, ,x ", *name;
    size_t bytes;
    for (int i = 0; i < 3; i++) {
        CHECK(api_next_synonym(&rest, &name, &bytes));
        CHECK(bytes == strlen(wanted[i]) && strncmp(name, wanted[i], bytes) == 0);
    }
    CHECK(!api_next_synonym(&rest, &name, &bytes));
    rest = "";
    CHECK(!api_next_synonym(&rest, &name, &bytes));
    char *json = api_model_to_json(&birds);
    bool split = json && strstr(json, "{\"index\":6,\"names\":[\"a\",\"b\"]}");
    free(json);
    CHECK(split);
}

static void a_first_name_is_cut_at_a_whole_character(void)
{
    char out[4];
    api_class_first_name(out, sizeof out, &birds, 5);
    CHECK(strcmp(out, "\xC3\xA9t") == 0);
    api_class_first_name(out, 2, &birds, 5);
    CHECK(strcmp(out, "") == 0);
}

static void distances_between_names(void)
{
    static const struct {
        const char *a, *b;
        unsigned wanted;
    } rows[] = {
        {"", "", 0},    {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"Sneaker", "sneaker", 0}, {"Sneeker", "Sneaker", 1},
        {"ab", "ba", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(api_name_distance(rows[i].a, strlen(rows[i].a), rows[i].b, strlen(rows[i].b)) == rows[i].wanted);
    }
}

static void model_names(void)
{
    static const char *const good[] = {"a", "fashion-mnist", "A.b_c-9", "0123456789012345678901234567890123456789012345678901234567890123"};
    static const char *const bad[] = {"",   "a b", "a/b", "\xC3\xA9", "01234567890123456789012345678901234567890123456789012345678901234",
                                      "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(api_model_name_valid(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!api_model_name_valid(bad[i]));
    }
    CHECK(!api_model_name_valid(NULL));
}

static void many_classes_with_one_name_are_cut(void)
{
    static char name[] = "bird";
    char *names[40];
    for (int i = 0; i < 40; i++) {
        names[i] = name;
    }
    api_model model = fashion;
    model.class_names = names;
    model.class_count = 40;
    api_problem problem;
    uint32_t index;
    CHECK(!api_find_class(&index, &model, "bird", "/class_label", &problem));
    CHECK_MSG(
        strcmp(problem.detail,
               "class_label is the name of 40 classes: send one of the indices 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 ...") ==
            0,
        "%s", problem.detail);
}

int main(void)
{
    RUN(descriptions_round_trip);
    RUN(a_description_that_lies_is_refused);
    RUN(a_gpu_is_told_and_may_be_unknown);
    RUN(the_body_is_the_wires);
    RUN(training_is_kept);
    RUN(the_body_says_what_a_form_needs);
    RUN(synonyms_are_split_and_trimmed);
    RUN(a_first_name_is_cut_at_a_whole_character);
    RUN(distances_between_names);
    RUN(model_names);
    RUN(many_classes_with_one_name_are_cut);
    return test_end();
}
