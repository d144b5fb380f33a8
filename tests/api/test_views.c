/* Bodies and events, compared as text with what the API promises; and the framing of an event stream. */
#include <cjson/cJSON.h>

#include "api/limits.h"
#include "api/views.h"
#include "diffusion/sampler.h"
#include "tests/test.h"

static int equals_free(char *text, const char *wanted)
{
    int same = text && strcmp(text, wanted) == 0;
    if (!same) {
        printf("# got  %s\n# want %s\n", text ? text : "(null)", wanted);
    }
    free(text);
    return same;
}

#define ID "aaaaaaaaaaaaaaaaaaaaaaaaaa"
#define IMAGE                                                                                                                              \
    "{\"index\":0,\"seed\":\"42\",\"url\":\"/p/jobs/" ID "/images/0.png\",\"width\":32,\"height\":32,\"bytes\":812,\"sha256\":\"aa\","     \
    "\"pixels_sha256\":\"bb\",\"device\":\"cpu\",\"build\":\"cc\",\"evaluations\":20}"
#define URLS "\"urls\":{\"self\":\"/p/jobs/" ID "\",\"events\":\"/p/jobs/" ID "/events\"}}"

static api_image_view image(void)
{
    return (api_image_view){.index = 0,
                            .seed = 42,
                            .width = 32,
                            .height = 32,
                            .bytes = 812,
                            .sha256 = "aa",
                            .pixels_sha256 = "bb",
                            .device = "cpu",
                            .build = "cc",
                            .evaluations = 20};
}

static api_job_view queued_job(void)
{
    return (api_job_view){
        .id = ID, .created_ms = 1795294536123, .request_json = "{\"n\":4}", .total = 80, .queue_position = 0, .eta_seconds = 1.23456};
}

static void a_queued_job(void)
{
    api_job_view job = queued_job();
    CHECK(equals_free(api_job_body(&job, "/p"),
                      "{\"id\":\"" ID
                      "\",\"state\":\"queued\",\"cancel_requested\":false,\"created_at\":\"2026-11-21T20:55:36.123Z\",\"started_at\":null,"
                      "\"finished_at\":null,\"expires_at\":null,\"request\":{\"n\":4},\"progress\":{\"fraction\":0,\"done\":0,\"total\":80,"
                      "\"images_done\":0},\"queue_position\":0,\"eta_seconds\":1.235,\"attempt\":0,\"images\":[],\"error\":null," URLS));
}

static void an_ended_job(void)
{
    api_image_view view = image();
    api_job_view job = queued_job();
    job.state = API_STATE_FAILED;
    job.started_ms = 1795294537000;
    job.finished_ms = 1795294538001;
    job.expires_ms = 1795899338001;
    job.done = 28;
    job.images_done = 1;
    job.images = &view;
    job.image_count = 1;
    job.queue_position = -1;
    job.eta_seconds = -1;
    job.attempt = 3;
    job.error_code = "crashed";
    job.error_detail = "the \"worker\" died";
    CHECK(equals_free(
        api_job_body(&job, "/p"),
        "{\"id\":\"" ID "\",\"state\":\"failed\",\"cancel_requested\":false,\"created_at\":\"2026-11-21T20:55:36.123Z\","
        "\"started_at\":\"2026-11-21T20:55:37.000Z\",\"finished_at\":\"2026-11-21T20:55:38.001Z\",\"expires_at\":\"2026-11-28T20:55:38."
        "001Z\","
        "\"request\":{\"n\":4},\"progress\":{\"fraction\":0.35,\"done\":28,\"total\":80,\"images_done\":1},\"queue_position\":null,"
        "\"eta_seconds\":null,\"attempt\":3,\"images\":[" IMAGE
        "],\"error\":{\"code\":\"crashed\",\"detail\":\"the \\\"worker\\\" died\"}," URLS));
}

static void an_adaptive_and_expired_job(void)
{
    api_job_view job = queued_job();
    job.adaptive = true;
    job.request_json = NULL;
    job.cancel_requested = true;
    char *body = api_job_body(&job, "");
    CHECK(body);
    bool ok = strstr(body, "\"fraction\":null,\"done\":0,\"total\":null") && strstr(body, "\"request\":null") &&
              strstr(body, "\"cancel_requested\":true") && strstr(body, "\"self\":\"/jobs/" ID "\"");
    free(body);
    CHECK(ok);
}

static void progress_never_passes_one(void)
{
    api_job_view job = queued_job();
    job.done = 81;
    job.images_done = 4;
    CHECK(equals_free(api_event_progress(&job), "{\"fraction\":1,\"done\":81,\"total\":80,\"images_done\":4,\"eta_seconds\":1.235}"));
    job.total = 0;
    CHECK(equals_free(api_event_progress(&job), "{\"fraction\":0,\"done\":81,\"total\":0,\"images_done\":4,\"eta_seconds\":1.235}"));
}

static void lists(void)
{
    api_job_view jobs[2] = {queued_job(), queued_job()};
    CHECK(equals_free(api_list_body(jobs, 0, NULL, ""), "{\"jobs\":[],\"next_cursor\":null}"));
    CHECK(equals_free(api_list_body(jobs, 0, "", ""), "{\"jobs\":[],\"next_cursor\":null}"));
    CHECK(equals_free(api_list_body(jobs, 0, "abc", ""), "{\"jobs\":[],\"next_cursor\":\"abc\"}"));
    char *body = api_jobs_array_body(jobs, 2, "");
    cJSON *root = cJSON_Parse(body);
    free(body);
    CHECK(root);
    int count = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "jobs"));
    int members = cJSON_GetArraySize(root);
    cJSON_Delete(root);
    CHECK(count == 2 && members == 1);
}

static void event_payloads(void)
{
    api_image_view view = image();
    CHECK(equals_free(api_image_body(ID, &view, "/p"), IMAGE));
    CHECK(equals_free(api_event_queued(ID, 3, ""), "{\"id\":\"" ID "\",\"queue_position\":3}"));
    CHECK(equals_free(api_event_queued(ID, -1, "abc"), "{\"id\":\"" ID "\",\"queue_position\":null,\"trace_id\":\"abc\"}"));
    CHECK(equals_free(api_event_started(1, "cpu", 28), "{\"attempt\":1,\"device\":\"cpu\",\"resumed_done\":28}"));
    CHECK(equals_free(api_event_image(ID, &view, "/p"), "{\"image\":" IMAGE "}"));
    CHECK(equals_free(api_event_requeued("worker-crashed", 1), "{\"reason\":\"worker-crashed\",\"attempt\":1}"));
    CHECK(equals_free(api_event_position(2, 4.1), "{\"queue_position\":2,\"eta_seconds\":4.1}"));
    CHECK(equals_free(api_event_position(0, -1), "{\"queue_position\":0,\"eta_seconds\":null}"));
    CHECK(equals_free(api_event_position(0, (double)NAN), "{\"queue_position\":0,\"eta_seconds\":null}"));
    CHECK(equals_free(api_event_preview(0, 7, 20, 32, 32, (const unsigned char *)"foob", 4),
                      "{\"index\":0,\"done\":7,\"total\":20,\"width\":32,\"height\":32,\"png\":\"Zm9vYg==\"}"));
    api_job_view job = queued_job();
    char *ended = api_event_ended(&job, ""), *body = api_job_body(&job, "");
    bool same = ended && body && strncmp(ended, "{\"job\":", 7) == 0 && strncmp(ended + 7, body, strlen(body)) == 0;
    free(ended);
    free(body);
    CHECK(same);
}

static void framing_of_events(void)
{
    CHECK(equals_free(api_sse(1, "queued", "{}"), "id: 1\nevent: queued\ndata: {}\n\n"));
    CHECK(equals_free(api_sse(-1, "progress", "{}"), "event: progress\ndata: {}\n\n"));
    CHECK(equals_free(api_sse(0, "x", ""), "id: 0\nevent: x\ndata: \n\n"));
    CHECK(equals_free(api_sse(-1, "x", "a\nb"), "event: x\ndata: a\ndata: b\n\n"));
    CHECK(equals_free(api_sse(-1, "x", "a\r\nb\rc\n"), "event: x\ndata: a\ndata: b\ndata: c\ndata: \n\n"));
    CHECK(equals_free(api_sse(9, "x", "a\n\nevent: forged"), "id: 9\nevent: x\ndata: a\ndata: \ndata: event: forged\n\n"));
}

static void states_have_names(void)
{
    static const char *const names[] = {"queued", "running", "succeeded", "failed", "canceled"};
    for (int i = 0; i < 5; i++) {
        api_state state = API_STATE_QUEUED;
        CHECK(strcmp(api_state_name((api_state)i), names[i]) == 0);
        CHECK(api_state_parse(names[i], &state) && state == (api_state)i);
        CHECK(api_state_ended((api_state)i) == (i >= 2));
    }
    api_state state = API_STATE_FAILED;
    CHECK(!api_state_parse("", &state) && !api_state_parse("Queued", &state) && !api_state_parse("cancelled", &state));
    CHECK(state == API_STATE_FAILED);
}

static void times_are_rfc_3339(void)
{
    static const struct {
        int64_t ms;
        const char *wanted;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {951782399999, "2000-02-28T23:59:59.999Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {1795294536123, "2026-11-21T20:55:36.123Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {253402300800000, "1970-01-01T00:00:00.000Z"}, /* beyond what the form can say */
        {INT64_MAX, "1970-01-01T00:00:00.000Z"},
        {INT64_MIN, "1970-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[32];
        api_time_text(text, rows[i].ms);
        CHECK_MSG(strcmp(text, rows[i].wanted) == 0, "%lld: %s", (long long)rows[i].ms, text);
    }
}

static void samplers_are_the_engines_table(void)
{
    char *body = api_samplers_body();
    cJSON *root = cJSON_Parse(body);
    bool fields =
        body && strstr(body, "{\"name\":\"eta\",\"type\":\"number\",\"minimum\":0,\"maximum\":1,\"default\":0,\"help\":\"fresh noise") &&
        strstr(body, "{\"name\":\"sigma_schedule\",\"type\":\"choice\",\"choices\":[\"model\",\"karras\",\"exponential\",\"beta\"");
    free(body);
    CHECK(root);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "samplers"), *row;
    bool same = true;
    uint32_t i = 0;
    cJSON_ArrayForEach(row, list)
    {
        const dn_sampler *sampler = dn_sampler_at(i++);
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(row, "name");
        same = same && sampler && strcmp(name->valuestring, sampler->name) == 0 &&
               cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(row, "fields")) == (int)sampler->field_count &&
               cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "cfg_pp")) == sampler->renoises &&
               cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "needs_init_image")) == sampler->inverts &&
               cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(row, "trainings")) == __builtin_popcount(sampler->families);
    }
    cJSON_Delete(root);
    CHECK(fields && same && i >= 6 && !dn_sampler_at(i));
}

static void capabilities_show_every_limit(void)
{
    char *body = api_capabilities_body(&(api_capabilities){
        .version = "1.0", .build = "abc", .streams_max = API_STREAMS_MAX, .dialects = {"native", "openai"}, .cors = true});
    cJSON *root = cJSON_Parse(body);
    free(body);
    CHECK(root);
    const cJSON *limits = cJSON_GetObjectItemCaseSensitive(root, "limits");
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(limits, "steps_max");
    const cJSON *evaluations = cJSON_GetObjectItemCaseSensitive(limits, "queue_evaluations_max");
    bool ok = cJSON_IsNumber(steps) && steps->valuedouble == API_STEPS_MAX && cJSON_IsNumber(evaluations) &&
              evaluations->valuedouble == API_QUEUE_EVALUATIONS_MAX;
    int count = cJSON_GetArraySize(limits), representations = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(root, "representations"));
    cJSON_Delete(root);
    CHECK(ok && count == 24 && representations == 3);
}

int main(void)
{
    RUN(a_queued_job);
    RUN(an_ended_job);
    RUN(an_adaptive_and_expired_job);
    RUN(progress_never_passes_one);
    RUN(lists);
    RUN(event_payloads);
    RUN(framing_of_events);
    RUN(states_have_names);
    RUN(times_are_rfc_3339);
    RUN(samplers_are_the_engines_table);
    RUN(capabilities_show_every_limit);
    return test_end();
}
