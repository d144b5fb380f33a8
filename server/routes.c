/* The route table, and the answers that several routes give. */
#include <stdlib.h>
#include <string.h>

#include "server/sdapi.h"
#include "server/service.h"

#define READERS (AUTH_READ | AUTH_READ_ALL | AUTH_ADMIN)

const http_route service_routes[] = {
    {"POST", "/generate", route_generate, API_BODY_IMAGE_BYTES_MAX, AUTH_SUBMIT},
    {"POST", "/verify", route_verify, API_BODY_IMAGE_BYTES_MAX, AUTH_SUBMIT},
    {"GET", "/jobs", route_jobs_list, 0, READERS},
    {"GET", "/jobs/{}", route_job_get, 0, READERS},
    {"DELETE", "/jobs/{}", route_job_delete, 0, AUTH_SUBMIT | AUTH_ADMIN},
    {"GET", "/jobs/{}/events", route_job_events, 0, READERS},
    {"GET", "/jobs/{}/images/{}", route_job_image, 0, READERS},
    {"GET", "/models", route_models, 0, AUTH_ANY},
    {"GET", "/models/{}", route_model, 0, AUTH_ANY},
    {"GET", "/samplers", route_samplers, 0, AUTH_ANY},
    {"GET", "/capabilities", route_capabilities, 0, AUTH_ANY},
    {"POST", "/v1/images/generations", route_openai_images, API_BODY_IMAGE_BYTES_MAX, AUTH_SUBMIT},
    {"GET", "/v1/models", route_openai_models, 0, AUTH_ANY},
    {"GET", "/v1/models/{}", route_openai_model, 0, AUTH_ANY},
    {"GET", "/openapi.json", route_openapi, 0, 0},
    {"GET", "/healthz", route_healthz, 0, 0},
    {"GET", "/readyz", route_readyz, 0, 0},
    {"GET", "/metrics", route_metrics, 0, AUTH_METRICS | AUTH_READ_ALL | AUTH_ADMIN},
    {"GET", "/stats", route_stats, 0, AUTH_ADMIN},
    {"POST", "/sdapi/v1/txt2img", route_sdapi_txt2img, API_BODY_BYTES_MAX, AUTH_SUBMIT},
    {"POST", "/sdapi/v1/img2img", route_sdapi_img2img, API_BODY_IMAGE_BYTES_MAX, AUTH_SUBMIT},
    {"GET", "/sdapi/v1/progress", route_sdapi_progress, 0, READERS},
    {"POST", "/internal/progress", route_sdapi_task, API_BODY_BYTES_MAX, READERS},
    {"POST", "/sdapi/v1/interrupt", route_sdapi_interrupt, API_BODY_BYTES_MAX, AUTH_SUBMIT | AUTH_ADMIN},
    {"POST", "/sdapi/v1/skip", route_sdapi_skip, API_BODY_BYTES_MAX, AUTH_SUBMIT | AUTH_ADMIN},
    {"GET", "/sdapi/v1/samplers", route_sdapi_samplers, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/schedulers", route_sdapi_schedulers, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/sd-models", route_sdapi_models, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/options", route_sdapi_options_get, 0, AUTH_ANY},
    {"POST", "/sdapi/v1/options", route_sdapi_options_set, API_BODY_BYTES_MAX, AUTH_SUBMIT},
    {"POST", "/sdapi/v1/png-info", route_sdapi_png_info, API_BODY_IMAGE_BYTES_MAX, AUTH_ANY},
    {"GET", "/sdapi/v1/cmd-flags", route_sdapi_flags, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/memory", route_sdapi_memory, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/scripts", route_sdapi_scripts, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/embeddings", route_sdapi_embeddings, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/script-info", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/sd-vae", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/upscalers", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/latent-upscale-modes", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/prompt-styles", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/loras", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/hypernetworks", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/face-restorers", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/realesrgan-models", route_sdapi_none, 0, AUTH_ANY},
    {"GET", "/sdapi/v1/extensions", route_sdapi_none, 0, AUTH_ANY},
    {"POST", "/sdapi/v1/refresh-checkpoints", route_sdapi_refresh, API_BODY_BYTES_MAX, AUTH_SUBMIT},
    {"POST", "/sdapi/v1/refresh-vae", route_sdapi_refresh, API_BODY_BYTES_MAX, AUTH_SUBMIT},
    {"POST", "/sdapi/v1/refresh-loras", route_sdapi_refresh, API_BODY_BYTES_MAX, AUTH_SUBMIT},
    {"GET", "/page/{}", route_page, 0, 0},
    {"GET", "/", route_root, 0, 0},
    {NULL, NULL, NULL, 0, 0},
};

const http_dialect service_dialects[] = {
    {"/v1/", route_openai_refusal, false},
    {"/sdapi/v1/", sdapi_refusal, true},
    {"/internal/", sdapi_refusal, true},
    {NULL, NULL, false},
};

const char *route_reach(const http_request *request)
{
    return (request->who.scopes & (AUTH_READ_ALL | AUTH_ADMIN)) != 0 ? NULL : request->client;
}

bool route_flag(http_request *request, const char *name, bool otherwise, bool *out)
{
    const char *text = http_query(request, name);
    api_problem problem = {0};
    *out = text == NULL ? otherwise : text[0] == '1';
    if (text != NULL && strcmp(text, "0") != 0 && strcmp(text, "1") != 0) {
        api_refuse(&problem, API_INVALID_FIELD, name, "%s must be 0 or 1", name);
        http_problem(request, &problem);
        return false;
    }
    return true;
}

static void missing_problem(store_result result, api_problem *problem)
{
    if (result == STORE_GONE) {
        api_refuse(problem, API_EXPIRED, "", "this job's images and parameters have been deleted by retention");
    } else if (result == STORE_NONE) {
        api_refuse(problem, API_NOT_FOUND, "", "there is no such job");
    } else {
        api_refuse(problem, API_INTERNAL, "", "the store could not be read");
    }
}

void route_missing(http_request *request, store_result result)
{
    api_problem problem = {0};
    missing_problem(result, &problem);
    http_problem(request, &problem);
}

static unsigned queue_seconds(service *s)
{
    store_stats stats;
    double eta = -1.0;
    if (store_get_stats(s->store, &stats) == STORE_OK) {
        eta = dispatcher_queue_seconds(s->dispatcher, stats.queued_cost / 10);
    }
    return eta > 1.0 ? (eta < 600.0 ? (unsigned)eta : 600u) : 1u;
}

void route_store_problem(service *s, const store_request *done, api_problem *problem)
{
    switch (done->result) {
    case STORE_MISMATCH:
        api_refuse(problem, API_IDEMPOTENCY_MISMATCH, "", "this Idempotency-Key was used with another request");
        break;
    case STORE_QUOTA:
        api_refuse(problem, API_QUOTA, "", "too many of your jobs are pending; the limit is %llu",
                   (unsigned long long)(done->pending_jobs_max && done->pending_jobs_max < API_CLIENT_JOBS_MAX ? done->pending_jobs_max
                                                                                                               : API_CLIENT_JOBS_MAX));
        problem->retry_after_seconds = queue_seconds(s);
        break;
    case STORE_QUEUE_FULL:
    case STORE_BUSY:
        api_refuse(problem, API_QUEUE_FULL, "", "the queue is full; try again later");
        problem->retry_after_seconds = queue_seconds(s);
        break;
    case STORE_SPACE:
        api_refuse(problem, API_STORAGE_FULL, "", "the disk is full; nothing was stored, finished images can still be read");
        problem->retry_after_seconds = 60;
        break;
    case STORE_UNKNOWN:
        api_refuse(problem, API_OUTCOME_UNKNOWN, "", "it is not known whether this was stored; try again with the same Idempotency-Key");
        problem->retry_after_seconds = 2;
        break;
    case STORE_NONE:
    case STORE_GONE:
        missing_problem(done->result, problem);
        break;
    default:
        api_refuse(problem, API_INTERNAL, "", "the store answered unexpectedly");
        break;
    }
}

void route_store_refusal(http_request *request, service *s, const store_request *done)
{
    api_problem problem = {0};
    route_store_problem(s, done, &problem);
    http_problem(request, &problem);
}

void route_job(http_request *request, int status, const char *id)
{
    service *s = request->application;
    job_view held;
    store_result result = job_view_get(&held, s, NULL, id);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    http_add_header(request, "Location", "%s/jobs/%s", s->base_path, id);
    if (status == 0) {
        status = api_state_ended(held.view.state) ? 200 : 202;
    }
    if (status == 202) {
        http_add_header(request, "Retry-After", "%u", job_retry_after(&held));
    }
    http_answer_json(request, status, api_job_body(&held.view, s->base_path));
    job_view_done(&held);
}
