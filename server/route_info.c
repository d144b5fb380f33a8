/* What the service says of itself: models, samplers, limits, health. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/openapi.h"
#include "api/text.h"
#include "server/service.h"

void route_samplers(http_request *request)
{
    http_answer_json(request, 200, api_samplers_body());
}

/* A dialect is spoken where its first route is served. */
static void find_dialects(const char *out[4])
{
    static const char *const known[][2] = {{"native", "/generate"}, {"openai", "/v1/images/generations"}, {"sdapi", "/sdapi/v1/txt2img"}};
    size_t count = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        for (const http_route *route = service_routes; route->method != NULL; route++) {
            if (strcmp(route->pattern, known[i][1]) == 0) {
                out[count++] = known[i][0];
                break;
            }
        }
    }
}

void route_capabilities(http_request *request)
{
    service *s = request->application;
    api_capabilities about = {.version = s->version,
                              .build = s->build,
                              .streams_max = s->streams_max,
                              .auth_required = auth_required(s->auth),
                              .webhooks = s->webhooks != NULL,
                              .cors = s->cors};
    find_dialects(about.dialects);
    http_answer_json(request, 200, api_capabilities_body(&about));
}

void route_openapi(http_request *request)
{
    size_t bytes = 0;
    const char *json = api_openapi_json(&bytes);
    http_answer_constant(request, 200, "application/json", json, bytes);
}

static char *model_body(service *s, const char *name, bool with_classes)
{
    char error[256] = "";
    model_state state = models_state(s->models, name, error, sizeof error);
    api_batch batch;
    bool measured = models_batch(s->models, name, &batch);
    return api_model_body(models_lookup(s->models, name), name, models_state_name(state), error[0] != '\0' ? error : NULL, with_classes,
                          measured ? &batch : NULL);
}

void route_models(http_request *request)
{
    service *s = request->application;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    fprintf(out, "{\"default\":\"%s\",\"models\":[", models_count(s->models) > 0 ? models_name(s->models, 0) : "");
    for (size_t i = 0; i < models_count(s->models); i++) {
        char *body = model_body(s, models_name(s->models, i), false);
        fprintf(out, "%s%s", i > 0 ? "," : "", body != NULL ? body : "null");
        free(body);
    }
    fputs("],\"device_note\":", out);
    api_text note = API_TEXT_INIT;
    api_text_string(&note, s->device_note != NULL && s->device_note[0] != '\0' ? s->device_note : NULL);
    char *quoted = api_text_take(&note);
    fprintf(out, "%s}", quoted != NULL ? quoted : "null");
    free(quoted);
    fclose(out);
    http_answer_json(request, 200, text);
}

void route_model(http_request *request)
{
    service *s = request->application;
    if (!models_known(s->models, request->segment[0])) {
        http_refuse(request, API_NOT_FOUND, "there is no such model");
        return;
    }
    http_answer_json(request, 200, model_body(s, request->segment[0], true));
}

void route_healthz(http_request *request)
{
    http_answer_constant(request, 200, "application/json", "{\"status\":\"alive\"}", 18);
}

void route_readyz(http_request *request)
{
    service *s = request->application;
    char reason[512] = "";
    if (atomic_load(&s->draining)) {
        http_add_header(request, "Retry-After", "5");
        http_refuse(request, API_DRAINING, "the daemon is draining");
    } else if (store_stopped(s->store)) {
        http_add_header(request, "Retry-After", "2");
        http_refuse(request, API_OUTCOME_UNKNOWN, "the store has stopped; the daemon restarts");
    } else if (!dispatcher_worker_ready(s->dispatcher, reason, sizeof reason)) {
        http_add_header(request, "Retry-After", "1");
        http_refuse(request, API_LOADING, reason[0] != '\0' ? reason : "the worker is loading");
    } else {
        http_answer_constant(request, 200, "application/json", "{\"status\":\"ready\"}", 18);
    }
}
