/* Request bodies as a table: what is accepted with which values, what is refused with which code, field and sentence. */
#include <math.h>

#include "tests/api/models.h"
#include "tests/test.h"

#define OK API_NONE, "", ""
#define STEPS API_INVALID_FIELD, "/steps", "steps must be an integer from 1 to 1000"
#define GUIDANCE API_INVALID_FIELD, "/guidance_scale", "guidance_scale must be a number from -100 to 100"
#define SEED API_INVALID_FIELD, "/seed", "seed must be an integer or a string of digits from 0 to 18446744073709551615"
#define COUNT API_INVALID_FIELD, "/n", "n must be an integer from 1 to 64"
#define WEBHOOK API_INVALID_FIELD, "/webhook", "webhook must be a URL of 1 to 2048 printable ASCII characters"
#define DEADLINE API_INVALID_FIELD, "/deadline_ms", "deadline_ms must be an integer from 1 to 604800000"
#define PRIORITY API_INVALID_FIELD, "/priority", "priority must be an integer from -10 to 10"
#define SAMPLER API_INVALID_FIELD, "/sampler", "sampler must be \"model\" or one of "
#define LABEL API_INVALID_FIELD, "/class_label", "class_label must be an integer from 0 to 9"
#define NAME API_INVALID_FIELD, "/class_label", "class_label names no class of this model"
#define MODEL API_INVALID_FIELD, "/model", "model must be"
#define NOT_JSON API_MALFORMED_JSON, "", "the body is not JSON: "
#define BODY API_INVALID_FIELD, "", "the body must be an object, or an array of 1 to 64 objects"
#define OPTION(name) API_UNSUPPORTED_OPTION, "/" name, name " is not an option of the sampler "

static const struct {
    const char *body;
    api_code code;
    const char *field, *detail;
} ROWS[] = {
    /* What is accepted. */
    {"{}", OK},
    {" \r\n\t{ } ", OK},
    {"{\"class_label\":7}", OK},
    {"{\"class_label\":\"Sneaker\",\"guidance_scale\":2,\"seed\":42}", OK},
    {"{\"class_label\":null}", OK},
    {"{\"class_label\":0}", OK},
    {"{\"class_label\":9}", OK},
    {"{\"class_label\":\"t-SHIRT/TOP\"}", OK},
    {"{\"steps\":1}", OK},
    {"{\"steps\":1000}", OK},
    {"{\"guidance_scale\":-100}", OK},
    {"{\"guidance_scale\":100}", OK},
    {"{\"guidance_scale\":1e2}", OK},
    {"{\"guidance_scale\":0}", OK},
    {"{\"n\":64,\"priority\":-10}", OK},
    {"{\"n\":1,\"priority\":10}", OK},
    {"{\"priority\":-0}", OK},
    {"{\"deadline_ms\":1}", OK},
    {"{\"deadline_ms\":604800000}", OK},
    {"{\"webhook\":\"https://example.com/\"}", OK},
    {"{\"seed\":0}", OK},
    {"{\"seed\":18446744073709551615}", OK},
    {"{\"seed\":\"18446744073709551615\"}", OK},
    {"{\"seed\":\"0\"}", OK},
    {"{\"sampler\":\"model\"}", OK},
    {"{\"sampler\":\"model\",\"eta\":0.5}", OK},
    {"{\"model\":\"birds\",\"s_churn\":1}", OK},
    {"{\"sampler\":\"ddpm\"}", OK},
    {"{\"sampler\":\"ddim\",\"eta\":0.5}", OK},
    {"{\"sampler\":\"ddim\",\"eta\":0}", OK},
    {"{\"sampler\":\"ddim\",\"eta\":1}", OK},
    {"{\"sampler\":\"euler_ancestral\",\"eta\":0.25}", OK},
    {"{\"sampler\":\"euler\",\"s_churn\":1,\"s_noise\":1.003,\"s_tmin\":0.05,\"s_tmax\":50}", OK},
    {"{\"sampler\":\"heun\",\"sigma_schedule\":\"karras\"}", OK},
    {"{\"sigma_schedule\":\"model\"}", OK},
    {"{\"model\":\"plain\",\"guidance_scale\":1}", OK},
    {"{\"model\":\"plain\",\"class_label\":null}", OK},
    {"{\"model\":\"bare\",\"class_label\":3}", OK},
    {"{\"model\":\"bare\",\"class_label\":3,\"guidance_scale\":1.0}", OK},
    {"{\"model\":\"birds\",\"class_label\":\"Tinca Tinca\"}", OK},
    {"{\"model\":\"birds\",\"class_label\":\"tench, tinca tinca\"}", OK},
    {"{\"model\":\"birds\",\"class_label\":\"7\"}", OK},
    {"{\"model\":\"birds\",\"class_label\":\"\\u00e9toile\"}", OK},
    {"{\"model\":\"birds\",\"class_label\":\"b\"}", OK},
    {"{\"st\\u0065ps\":12}", OK},
    {"[{}]", OK},
    {"[{\"seed\":1},{\"seed\":2}]", OK},
    /* Not JSON. */
    {"", NOT_JSON},
    {"   ", NOT_JSON},
    {"{", NOT_JSON},
    {"{\"steps\":}", NOT_JSON},
    {"{\"steps\":20,}", NOT_JSON},
    {"{\"steps\":20} x", NOT_JSON},
    {"{\"steps\":20}{}", NOT_JSON},
    {"{steps:20}", NOT_JSON},
    {"{'steps':20}", NOT_JSON},
    {"{\"steps\":020}", NOT_JSON},
    {"{\"steps\":+20}", NOT_JSON},
    {"{\"steps\":0x20}", NOT_JSON},
    {"{\"steps\":20.}", NOT_JSON},
    {"{\"guidance_scale\":NaN}", NOT_JSON},
    {"{\"guidance_scale\":Infinity}", NOT_JSON},
    {"{\"guidance_scale\":-Infinity}", NOT_JSON},
    {"{\"guidance_scale\":1e999}", NOT_JSON},
    {"{\"guidance_scale\":-1e999}", NOT_JSON},
    {"{\"guidance_scale\":.5}", NOT_JSON},
    {"{\"steps\":1,\"steps\":2}", NOT_JSON},
    {"{\"steps\":1,\"st\\u0065ps\":2}", NOT_JSON},
    {"{\"class_label\":\"a\\u0000b\"}", NOT_JSON},
    {"{\"class_label\":\"\\ud800\"}", NOT_JSON},
    {"{\"class_label\":\"\xC0\x80\"}", NOT_JSON},
    {"{\"class_label\":\"\xFF\"}", NOT_JSON},
    {"{\"class_label\":\"a\nb\"}", NOT_JSON},
    {"\xEF\xBB\xBF{}", NOT_JSON},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]", NOT_JSON},
    {"steps=20&class_label=7", NOT_JSON},
    {"// {}", NOT_JSON},
    /* JSON, but no request. */
    {"null", BODY},
    {"true", BODY},
    {"20", BODY},
    {"\"Sneaker\"", BODY},
    {"[]", BODY},
    {"[1]", API_INVALID_FIELD, "/0", "each element of the array must be an object"},
    {"[{},[]]", API_INVALID_FIELD, "/1", "each element of the array must be an object"},
    {"[{},null]", API_INVALID_FIELD, "/1", "each element of the array must be an object"},
    /* Unknown fields. */
    {"{\"clas_label\":7}", API_INVALID_FIELD, "/clas_label", "clas_label is not a field of a request; did you mean class_label?"},
    {"{\"step\":7}", API_INVALID_FIELD, "/step", "step is not a field of a request; did you mean steps?"},
    {"{\"Seed\":7}", API_INVALID_FIELD, "/Seed", "Seed is not a field of a request; did you mean seed?"},
    {"{\"prompt\":\"a shoe\"}", API_INVALID_FIELD, "/prompt", "prompt is not a field of a request"},
    {"{\"__proto__\":{}}", API_INVALID_FIELD, "/__proto__", "__proto__ is not a field of a request"},
    {"{\"\":1}", API_INVALID_FIELD, "", "the request has a field that is not known"},
    {"{\"a b\":1}", API_INVALID_FIELD, "", "the request has a field that is not known"},
    {"{\"<script>\":1}", API_INVALID_FIELD, "", "the request has a field that is not known"},
    {"{\"7\":1}", API_INVALID_FIELD, "", "the request has a field that is not known"},
    {"{\"a/b~c\":1}", API_INVALID_FIELD, "", "the request has a field that is not known"},
    {"{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}", API_INVALID_FIELD, "",
     "the request has a field that is not known"},
    {"{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}", API_INVALID_FIELD,
     "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaa"},
    {"[{},{\"foo\":1}]", API_INVALID_FIELD, "/1/foo", "foo is not a field of a request"},
    /* model */
    {"{\"model\":\"nope\"}", API_INVALID_FIELD, "/model", "model is not one of GET /models"},
    {"{\"model\":\"FASHION-MNIST\"}", API_INVALID_FIELD, "/model", "model is not one of GET /models"},
    {"{\"model\":\"\"}", MODEL},
    {"{\"model\":\"../etc\"}", MODEL},
    {"{\"model\":\"a b\"}", MODEL},
    {"{\"model\":7}", MODEL},
    {"{\"model\":null}", MODEL},
    {"{\"model\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", MODEL},
    /* class_label */
    {"{\"class_label\":10}", LABEL},
    {"{\"class_label\":-1}", LABEL},
    {"{\"class_label\":7.0}", LABEL},
    {"{\"class_label\":7e0}", LABEL},
    {"{\"class_label\":1e30}", LABEL},
    {"{\"class_label\":99999999999999999999999}", LABEL},
    {"{\"class_label\":\"\"}", NAME},
    {"{\"class_label\":\" Sneaker\"}", NAME},
    {"{\"class_label\":\"Sneeker\"}", API_INVALID_FIELD, "/class_label",
     "class_label names no class of this model; did you mean \"Sneaker\""},
    {"{\"class_label\":\"boot\"}", API_INVALID_FIELD, "/class_label",
     "class_label names no class of this model; did you mean \"Ankle boot\""},
    {"{\"class_label\":\"7\"}", API_INVALID_FIELD, "/class_label",
     "class_label names no class of this model: a string is a name; send a number"},
    {"{\"class_label\":\"zebra crossing\"}", API_INVALID_FIELD, "/class_label",
     "class_label names no class of this model; GET /models/fashion-mnist lists them"},
    {"{\"class_label\":true}", API_INVALID_FIELD, "/class_label", "class_label must be a class name, an index or null"},
    {"{\"class_label\":[7]}", API_INVALID_FIELD, "/class_label", "class_label must be a class name, an index or null"},
    {"{\"class_label\":{\"index\":7}}", API_INVALID_FIELD, "/class_label", "class_label must be a class name, an index or null"},
    {"{\"model\":\"birds\",\"class_label\":\"crane\"}", API_INVALID_FIELD, "/class_label",
     "class_label is the name of 2 classes: send one of the indices 1, 3"},
    {"{\"model\":\"birds\",\"class_label\":\"CRANE\"}", API_INVALID_FIELD, "/class_label", "class_label is the name of 2 classes"},
    {"{\"model\":\"birds\",\"class_label\":\",\"}", NAME},
    {"{\"model\":\"plain\",\"class_label\":0}", API_INVALID_FIELD, "/class_label",
     "class_label must be null or left out: this model has no classes"},
    {"{\"model\":\"plain\",\"class_label\":\"x\"}", API_INVALID_FIELD, "/class_label", "class_label must be null or left out"},
    {"{\"model\":\"bare\"}", API_INVALID_FIELD, "/class_label", "class_label is required: this model has no null class"},
    {"{\"model\":\"bare\",\"class_label\":null}", API_INVALID_FIELD, "/class_label", "class_label is required"},
    {"[{},{\"class_label\":10}]", API_INVALID_FIELD, "/1/class_label", "class_label must be an integer from 0 to 9"},
    {"[{},{\"class_label\":\"zz\"}]", API_INVALID_FIELD, "/1/class_label", "class_label names no class"},
    /* guidance_scale */
    {"{\"guidance_scale\":100.001}", GUIDANCE},
    {"{\"guidance_scale\":-100.5}", GUIDANCE},
    {"{\"guidance_scale\":1e300}", GUIDANCE},
    {"{\"guidance_scale\":\"2\"}", GUIDANCE},
    {"{\"guidance_scale\":null}", GUIDANCE},
    {"{\"guidance_scale\":true}", GUIDANCE},
    {"{\"guidance_scale\":[2]}", GUIDANCE},
    {"{\"model\":\"plain\",\"guidance_scale\":2}", API_UNSUPPORTED_OPTION, "/guidance_scale",
     "guidance_scale must be 1: this model has no null class"},
    {"{\"model\":\"plain\",\"guidance_scale\":0}", API_UNSUPPORTED_OPTION, "/guidance_scale", "guidance_scale must be 1"},
    {"{\"model\":\"bare\",\"class_label\":1,\"guidance_scale\":1.5}", API_UNSUPPORTED_OPTION, "/guidance_scale",
     "guidance_scale must be 1"},
    /* steps */
    {"{\"steps\":0}", STEPS},
    {"{\"steps\":-1}", STEPS},
    {"{\"steps\":1001}", STEPS},
    {"{\"steps\":1000000000}", STEPS},
    {"{\"steps\":1e9}", STEPS},
    {"{\"steps\":20.0}", STEPS},
    {"{\"steps\":2e1}", STEPS},
    {"{\"steps\":2.5}", STEPS},
    {"{\"steps\":\"20\"}", STEPS},
    {"{\"steps\":null}", STEPS},
    {"{\"steps\":true}", STEPS},
    {"{\"steps\":{}}", STEPS},
    {"{\"steps\":[20]}", STEPS},
    {"{\"steps\":99999999999999999999}", STEPS},
    {"[{},{},{},{\"steps\":0}]", API_INVALID_FIELD, "/3/steps", "steps must be an integer from 1 to 1000"},
    /* sampler and its options */
    {"{\"sampler\":\"nope\"}", SAMPLER},
    {"{\"sampler\":\"DDIM\"}", SAMPLER},
    {"{\"sampler\":\"\"}", SAMPLER},
    {"{\"sampler\":3}", SAMPLER},
    {"{\"sampler\":null}", SAMPLER},
    {"{\"sampler\":\"ddim\",\"eta\":1.5}", API_INVALID_FIELD, "/eta", "eta must be a number from 0 to 1"},
    {"{\"sampler\":\"ddim\",\"eta\":-0.1}", API_INVALID_FIELD, "/eta", "eta must be a number from 0 to 1"},
    {"{\"sampler\":\"ddim\",\"eta\":\"0\"}", API_INVALID_FIELD, "/eta", "eta must be a number from 0 to 1"},
    {"{\"sampler\":\"ddim\",\"eta\":null}", API_INVALID_FIELD, "/eta", "eta must be a number from 0 to 1"},
    {"{\"eta\":0.5}", OPTION("eta")},
    {"{\"eta\":0}", OPTION("eta")},
    {"{\"sampler\":\"ddpm\",\"eta\":0.5}", OPTION("eta")},
    {"{\"sampler\":\"model\",\"s_churn\":1}", OPTION("s_churn")},
    {"{\"sampler\":\"ddim\",\"s_churn\":1}", OPTION("s_churn")},
    {"{\"sampler\":\"ddim\",\"s_noise\":1}", OPTION("s_noise")},
    {"{\"sampler\":\"ddim\",\"s_tmin\":1}", OPTION("s_tmin")},
    {"{\"sampler\":\"ddim\",\"s_tmax\":1}", OPTION("s_tmax")},
    {"{\"sampler\":\"ddim\",\"sigma_schedule\":\"karras\"}", OPTION("sigma_schedule")},
    {"{\"sampler\":\"model\",\"sigma_schedule\":\"model\"}", OPTION("sigma_schedule")},
    {"{\"model\":\"bare\",\"class_label\":1,\"sampler\":\"model\"}", API_UNSUPPORTED_OPTION, "/sampler",
     "sampler \"model\" asks for a scheduler that this program does not have"},
    {"{\"model\":\"bare\",\"class_label\":1,\"sampler\":\"dpmpp_2m\"}", API_UNSUPPORTED_OPTION, "/sampler",
     "sampler cannot serve this model"},
    {"{\"model\":\"bare\",\"class_label\":1,\"sampler\":\"nope\"}", API_INVALID_FIELD, "/sampler",
     "sampler must be \"model\" or one of ddim, euler"},
    {"{\"sigma_schedule\":1}", API_INVALID_FIELD, "/sigma_schedule", "sigma_schedule must be model, karras"},
    {"{\"sigma_schedule\":\"xyzzy\"}", API_INVALID_FIELD, "/sigma_schedule", "sigma_schedule must be model, karras"},
    {"{\"sampler\":\"euler\",\"s_churn\":-1}", API_INVALID_FIELD, "/s_churn", "s_churn must be a number from 0 to "},
    {"{\"sampler\":\"euler\",\"s_noise\":\"1\"}", API_INVALID_FIELD, "/s_noise", "s_noise must be a number from 0 to "},
    /* seed */
    {"{\"seed\":18446744073709551616}", SEED},
    {"{\"seed\":\"18446744073709551616\"}", SEED},
    {"{\"seed\":-1}", SEED},
    {"{\"seed\":-0}", SEED},
    {"{\"seed\":1.0}", SEED},
    {"{\"seed\":1e3}", SEED},
    {"{\"seed\":\"\"}", SEED},
    {"{\"seed\":\" 1\"}", SEED},
    {"{\"seed\":\"+1\"}", SEED},
    {"{\"seed\":\"-1\"}", SEED},
    {"{\"seed\":\"0x10\"}", SEED},
    {"{\"seed\":\"007\"}", SEED},
    {"{\"seed\":\"1.5\"}", SEED},
    {"{\"seed\":\"99999999999999999999999999\"}", SEED},
    {"{\"seed\":null}", SEED},
    {"{\"seed\":true}", SEED},
    {"{\"seed\":[1]}", SEED},
    /* n and priority */
    {"{\"n\":0}", COUNT},
    {"{\"n\":65}", COUNT},
    {"{\"n\":-1}", COUNT},
    {"{\"n\":1.0}", COUNT},
    {"{\"n\":\"1\"}", COUNT},
    {"{\"n\":null}", COUNT},
    {"{\"n\":1e1}", COUNT},
    {"{\"deadline_ms\":0}", DEADLINE},
    {"{\"deadline_ms\":604800001}", DEADLINE},
    {"{\"deadline_ms\":-5}", DEADLINE},
    {"{\"deadline_ms\":1.5}", DEADLINE},
    {"{\"deadline_ms\":\"soon\"}", DEADLINE},
    {"{\"deadline_ms\":null}", DEADLINE},
    {"{\"webhook\":null}", WEBHOOK},
    {"{\"webhook\":7}", WEBHOOK},
    {"{\"webhook\":\"\"}", WEBHOOK},
    {"{\"webhook\":\"https://example.com/a b\"}", WEBHOOK},
    {"{\"webhook\":\"https://example.com/\\u007f\"}", WEBHOOK},
    {"{\"webhook\":[\"https://example.com/\"]}", WEBHOOK},
    {"{\"priority\":11}", PRIORITY},
    {"{\"priority\":-11}", PRIORITY},
    {"{\"priority\":0.5}", PRIORITY},
    {"{\"priority\":\"high\"}", PRIORITY},
    {"{\"priority\":null}", PRIORITY},
};

static bool parse(api_request **out, size_t *count, bool *is_array, const char *body, size_t bytes, api_problem *problem)
{
    /* An exact copy, so that the sanitizer sees a read past the end. */
    char *copy = malloc(bytes ? bytes : 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, body, bytes);
    bool ok = api_parse_generate(out, count, is_array, copy, bytes, find_model, NULL, problem);
    free(copy);
    return ok;
}

static bool parse_one(api_request *out, const char *body)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array = true;
    bool ok = parse(&requests, &count, &is_array, body, strlen(body), &problem) && count == 1 && !is_array;
    if (ok) {
        *out = requests[0];
    }
    free(requests);
    return ok;
}

static void every_row_is_answered_as_written(void)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        api_request *requests = NULL;
        api_problem problem;
        size_t count = 0;
        bool is_array = false;
        bool ok = parse(&requests, &count, &is_array, ROWS[i].body, strlen(ROWS[i].body), &problem);
        bool as_array = requests && is_array;
        free(requests);
        CHECK_MSG(ok == (ROWS[i].code == API_NONE) && problem.code == ROWS[i].code, "row %zu %s: %d %s", i, ROWS[i].body, (int)problem.code,
                  problem.detail);
        CHECK_MSG(strcmp(problem.field, ROWS[i].field) == 0, "row %zu %s: field %s", i, ROWS[i].body, problem.field);
        CHECK_MSG(strncmp(problem.detail, ROWS[i].detail, strlen(ROWS[i].detail)) == 0, "row %zu %s: %s", i, ROWS[i].body, problem.detail);
        CHECK_MSG(problem.has_offset == (ROWS[i].code == API_MALFORMED_JSON), "row %zu", i);
        CHECK(!ok || as_array == (ROWS[i].body[0] == '['));
    }
    CHECK(sizeof ROWS / sizeof ROWS[0] >= 120);
}

static void what_a_client_sent_is_never_repeated(void)
{
    static const char *const bodies[] = {"{\"class_label\":\"xyzzy\"}",    "{\"sampler\":\"xyzzy\"}",     "{\"model\":\"xyzzy\"}",
                                         "{\"seed\":\"xyzzy\"}",           "{\"steps\":\"xyzzy\"}",       "{\"xyzzy!\":1}",
                                         "{\"guidance_scale\":\"xyzzy\"}", "{\"n\":\"xyzzy\"}",           "xyzzy",
                                         "{\"clip_sample\":\"xyzzy\"}",    "{\"priority\":{\"xyzzy\":1}}"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        api_request *requests;
        api_problem problem;
        size_t count;
        bool is_array;
        CHECK(!parse(&requests, &count, &is_array, bodies[i], strlen(bodies[i]), &problem));
        CHECK_MSG(!strstr(problem.detail, "xyzzy") && !strstr(problem.field, "xyzzy"), "%s: %s", bodies[i], problem.detail);
    }
}

static void defaults_are_the_models(void)
{
    api_request r;
    CHECK(parse_one(&r, "{\"class_label\":\"sneaker\"}"));
    CHECK(strcmp(r.model, "fashion-mnist") == 0 && r.has_class && r.class_index == 7 && strcmp(r.class_name, "Sneaker") == 0);
    CHECK(r.guidance_scale == 2 && r.steps == 20 && strcmp(r.sampler, "dpmpp_2m") == 0 && r.n == 1 && r.priority == 0 && !r.has_seed);
    CHECK(r.options.given == 0);
    CHECK(parse_one(&r, "{\"model\":\"bare\",\"class_label\":1}"));
    CHECK(r.guidance_scale == 1); /* nothing to be guided away from */
    CHECK(parse_one(&r, "{}"));
    CHECK(!r.has_class && r.guidance_scale == 1 && !r.class_name[0]);
    CHECK(parse_one(&r, "{\"model\":\"birds\",\"class_label\":0}"));
    CHECK(strcmp(r.sampler, "model") == 0 && r.steps == 50 && strcmp(r.class_name, "tench") == 0);
}

static void values_arrive_exactly(void)
{
    api_request r;
    CHECK(parse_one(&r, "{\"seed\":9007199254740993}"));
    CHECK(r.has_seed && r.seed == 9007199254740993u);
    CHECK(parse_one(&r, "{\"seed\":18446744073709551615}"));
    CHECK(r.seed == UINT64_MAX);
    CHECK(parse_one(&r, "{\"seed\":\"9007199254740993\"}"));
    CHECK(r.seed == 9007199254740993u);
    CHECK(parse_one(
        &r, "{\"n\":3,\"priority\":-7,\"steps\":999,\"guidance_scale\":-1.25,\"class_label\":4,\"sampler\":\"euler\",\"s_churn\":2.5,"
            "\"s_noise\":1.5,\"s_tmin\":0.125,\"s_tmax\":80,\"sigma_schedule\":\"karras\"}"));
    CHECK(r.n == 3 && r.priority == -7 && r.steps == 999 && r.guidance_scale == -1.25 && r.class_index == 4);
    dn_options options = r.options;
    CHECK(options.value[DN_OPT_S_CHURN] == 2.5 && options.value[DN_OPT_S_NOISE] == 1.5 && options.value[DN_OPT_S_TMIN] == 0.125 &&
          options.value[DN_OPT_S_TMAX] == 80 && options.value[DN_OPT_SIGMA_SCHEDULE] == DN_SIGMAS_KARRAS &&
          !dn_option_given(&options, DN_OPT_ETA));
}

static void an_escaped_key_is_the_same_key(void)
{
    api_request r;
    CHECK(parse_one(&r, "{\"n\":2,\"st\\u0065ps\":12,\"\\u0073eed\":18446744073709551614}"));
    CHECK(r.steps == 12 && r.n == 2 && r.seed == UINT64_MAX - 1);
}

static void an_unknown_default_model_is_still_loading(void)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count;
    bool is_array;
    int nothing_loaded = 1;
    CHECK(!api_parse_generate(&requests, &count, &is_array, "{}", 2, find_model, &nothing_loaded, &problem));
    CHECK(problem.code == API_LOADING && problem.retry_after_seconds > 0);
}

static void an_array_keeps_its_order(void)
{
    static const char body[] = " [ {\"seed\":5, \"class_label\" : \"Bag\"} , {\"seed\":18446744073709551615},{\"n\":2}]";
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array = false;
    CHECK(parse(&requests, &count, &is_array, body, strlen(body), &problem));
    bool ok = is_array && count == 3 && requests[0].seed == 5 && requests[0].class_index == 8 && requests[1].seed == UINT64_MAX &&
              requests[2].n == 2 && !requests[2].has_seed;
    free(requests);
    CHECK(ok);
}

static void limits_of_the_body_hold(void)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array;
    char *body = malloc(API_BODY_BYTES_MAX + 2);
    CHECK(body);
    memset(body, ' ', API_BODY_BYTES_MAX + 1);
    memcpy(body, "{}", 2);
    bool whole = parse(&requests, &count, &is_array, body, API_BODY_BYTES_MAX, &problem);
    free(requests);
    bool beyond = parse(&requests, &count, &is_array, body, API_BODY_BYTES_MAX + 1, &problem);
    bool too_large = problem.code == API_TOO_LARGE;
    /* 64 objects are taken, 65 are not. */
    size_t used = 0;
    body[used++] = '[';
    for (int i = 0; i < 64; i++) {
        used += (size_t)snprintf(
            body + used, API_BODY_BYTES_MAX - used,
            "%s{\"class_label\":7,\"guidance_scale\":2,\"steps\":20,\"sampler\":\"euler\",\"seed\":1,\"n\":1,\"priority\":0}",
            i ? "," : "");
    }
    body[used] = ']';
    bool sixty_four = parse(&requests, &count, &is_array, body, used + 1, &problem) && count == 64;
    if (sixty_four) {
        free(requests);
    }
    memcpy(body + used, ",{}]", 4);
    bool sixty_five = parse(&requests, &count, &is_array, body, used + 4, &problem);
    free(body);
    CHECK(whole && !beyond && too_large);
    CHECK(sixty_four && !sixty_five && problem.code == API_INVALID_FIELD);
}

static void too_many_tokens_are_refused(void)
{
    api_request *requests;
    api_problem problem;
    size_t count, used = 0;
    bool is_array;
    char *body = malloc(API_BODY_BYTES_MAX);
    CHECK(body);
    used += (size_t)snprintf(body, API_BODY_BYTES_MAX, "{\"n\":[");
    for (int i = 0; i < API_JSON_TOKENS_MAX; i++) {
        used += (size_t)snprintf(body + used, API_BODY_BYTES_MAX - used, "%s1", i ? "," : "");
    }
    used += (size_t)snprintf(body + used, API_BODY_BYTES_MAX - used, "]}");
    bool ok = parse(&requests, &count, &is_array, body, used, &problem);
    free(body);
    CHECK(!ok && problem.code == API_MALFORMED_JSON && problem.has_offset);
}

/* Every prefix and every one-byte change of a good body is answered, and never with a read past its end. */
static void damaged_bodies_are_answered(void)
{
    static const char body[] =
        "[{\"class_label\":\"Sn\\u0065aker\",\"guidance_scale\":2.5e0,\"seed\":18446744073709551615,\"n\":4},{\"steps\":20}]";
    static const char bytes[] = "\"\\{}[],:0-. \x00\xFF"
                                "e";
    char changed[sizeof body];
    api_request *requests;
    api_problem problem;
    size_t count, length = strlen(body);
    bool is_array;
    for (size_t cut = 0; cut < length; cut++) {
        CHECK(!parse(&requests, &count, &is_array, body, cut, &problem));
        CHECK(problem.code == API_MALFORMED_JSON && problem.offset <= cut);
    }
    for (size_t i = 0; i < length; i++) {
        for (size_t b = 0; b < sizeof bytes - 1; b++) {
            memcpy(changed, body, length);
            changed[i] = bytes[b];
            bool ok = parse(&requests, &count, &is_array, changed, length, &problem);
            if (ok) {
                free(requests);
            }
            CHECK(ok == (problem.code == API_NONE));
        }
    }
}

int main(void)
{
    RUN(every_row_is_answered_as_written);
    RUN(what_a_client_sent_is_never_repeated);
    RUN(defaults_are_the_models);
    RUN(values_arrive_exactly);
    RUN(an_escaped_key_is_the_same_key);
    RUN(an_unknown_default_model_is_still_loading);
    RUN(an_array_keeps_its_order);
    RUN(limits_of_the_body_hold);
    RUN(too_many_tokens_are_refused);
    RUN(damaged_bodies_are_answered);
    return test_end();
}
