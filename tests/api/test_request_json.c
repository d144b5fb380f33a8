/* A validated request as it is stored and shown, back again, and what it costs. */
#include "tests/api/models.h"
#include "tests/test.h"

static bool parse_one(api_request *out, const char *body)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array = true;
    bool ok = api_parse_generate(&requests, &count, &is_array, body, strlen(body), find_model, NULL, &problem);
    if (ok) {
        *out = requests[0];
    }
    free(requests);
    return ok;
}

static void the_stored_form_round_trips(void)
{
    static const char *const bodies[] = {
        "{}",
        "{\"class_label\":7,\"seed\":18446744073709551615,\"n\":64,\"priority\":-10,\"deadline_ms\":86400001,\"webhook\":\"https://"
        "example.com/?a=b&c\","
        "\"guidance_scale\":0.1}",
        "{\"sampler\":\"ddim\",\"eta\":0.30000000000000004}",
        "{\"sampler\":\"euler\",\"s_churn\":1,\"s_noise\":1.007,\"sigma_schedule\":\"karras\"}",
        "{\"model\":\"birds\",\"class_label\":\"\\u00e9toile\",\"sigma_schedule\":\"model\",\"sampler\":\"heun\"}",
        "{\"model\":\"plain\",\"sampler\":\"model\"}"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        api_request first, second;
        CHECK(parse_one(&first, bodies[i]));
        char *json = api_request_json(&first);
        CHECK(json);
        bool read = api_request_from_json(&second, json, strlen(json));
        char *again = read ? api_request_json(&second) : NULL;
        bool same = again && strcmp(json, again) == 0 && second.has_seed && second.seed == first.seed && second.steps == first.steps;
        free(again);
        free(json);
        CHECK_MSG(same, "%s", bodies[i]);
    }
}

static void the_stored_form_is_the_wires(void)
{
    api_request r;
    CHECK(parse_one(&r, "{\"class_label\":7,\"seed\":42,\"n\":4}"));
    char *json = api_request_json(&r);
    bool same =
        json &&
        strcmp(json, "{\"model\":\"fashion-mnist\",\"class_label\":7,\"class_name\":\"Sneaker\",\"guidance_scale\":2.0,\"steps\":20,"
                     "\"sampler\":\"dpmpp_2m\",\"seed\":\"42\",\"n\":4,\"priority\":0}") == 0;
    free(json);
    CHECK(same);
}

static void a_damaged_stored_form_is_refused(void)
{
    static const char *const rows[] = {
        "",
        "{}",
        "[]",
        "{\"model\":\"m\"}",
        "{\"model\":\"m\",\"class_label\":1,\"class_name\":\"x\",\"guidance_scale\":1,\"steps\":20,\"sampler\":\"ddim\",\"seed\":"
        "\"18446744073709551616\","
        "\"n\":1,\"priority\":0}",
        "{\"model\":\"m\",\"class_label\":1,\"class_name\":\"x\",\"guidance_scale\":1,\"steps\":0,\"sampler\":\"ddim\",\"seed\":\"1\","
        "\"n\":1,\"priority\":0}",
        "{\"model\":\"m\",\"class_label\":-1,\"class_name\":\"x\",\"guidance_scale\":1,\"steps\":2,\"sampler\":\"ddim\",\"seed\":\"1\","
        "\"n\":1,\"priority\":0}",
        "{\"model\":\"m\",\"class_label\":1,\"class_name\":\"x\",\"guidance_scale\":1,\"steps\":2,\"sampler\":\"ddim\",\"seed\":1,\"n\":1,"
        "\"priority\":0}",
        "{\"model\":\"m\",\"class_label\":1,\"class_name\":\"x\",\"guidance_scale\":1,\"steps\":2,\"sampler\":\"ddim\",\"eta\":\"0\","
        "\"seed\":\"1\",\"n\":1,"
        "\"priority\":0}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_request r;
        CHECK_MSG(!api_request_from_json(&r, rows[i], strlen(rows[i])), "row %zu", i);
    }
}

static void cost_counts_images_steps_evaluations_and_rows(void)
{
    static const struct {
        const char *body;
        uint64_t cost;
    } rows[] = {
        {"{\"class_label\":7,\"guidance_scale\":2,\"steps\":20,\"n\":4,\"sampler\":\"ddim\"}", 160},
        {"{\"class_label\":7,\"guidance_scale\":1,\"steps\":20,\"n\":4,\"sampler\":\"ddim\"}", 80},
        {"{\"class_label\":7,\"guidance_scale\":0,\"steps\":20,\"n\":4,\"sampler\":\"ddim\"}", 80},
        {"{\"guidance_scale\":2,\"steps\":20,\"n\":1,\"sampler\":\"ddim\"}", 20},
        {"{\"class_label\":7,\"guidance_scale\":2,\"steps\":10,\"n\":1,\"sampler\":\"heun\"}", 40},
        {"{\"class_label\":7,\"guidance_scale\":2,\"steps\":1000,\"n\":64,\"sampler\":\"model\"}", 128000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        api_request r;
        CHECK(parse_one(&r, rows[i].body));
        CHECK_MSG(api_request_cost(&r) == rows[i].cost, "%s: %llu", rows[i].body, (unsigned long long)api_request_cost(&r));
    }
}

int main(void)
{
    RUN(the_stored_form_round_trips);
    RUN(the_stored_form_is_the_wires);
    RUN(a_damaged_stored_form_is_refused);
    RUN(cost_counts_images_steps_evaluations_and_rows);
    return test_end();
}
