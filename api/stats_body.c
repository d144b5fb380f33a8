/* The body of GET /stats (stats_body.h). */
#include "api/stats_body.h"

#include <inttypes.h>
#include <math.h>

#include "api/text.h"

/* Three decimals: a microsecond of a millisecond says enough. */
static void add_rounded(api_text *text, const char *name, double value)
{
    api_text_format(text, "\"%s\":", name);
    api_text_number(text, round(value * 1000) / 1000);
}

static void add_pair(api_text *text, const char *name, const api_quantiles *q)
{
    api_text_format(text, "\"%s\":{", name);
    add_rounded(text, "p50", q->p50);
    api_text_add(text, ",");
    add_rounded(text, "p99", q->p99);
    api_text_add(text, "}");
}

static void add_triple(api_text *text, const char *name, const api_quantiles *q)
{
    api_text_format(text, "\"%s\":{", name);
    add_rounded(text, "p50", q->p50);
    api_text_add(text, ",");
    add_rounded(text, "p90", q->p90);
    api_text_add(text, ",");
    add_rounded(text, "p99", q->p99);
    api_text_add(text, "},");
}

static void add_workers(api_text *text, const api_stats *s)
{
    api_text_add(text, "\"workers\":[");
    for (size_t i = 0; i < s->worker_count; i++) {
        const api_worker_stats *worker = &s->workers[i];
        api_text_add(text, i ? ",{\"pid\":" : "{\"pid\":");
        api_text_format(text, worker->pid ? "%ld" : "null", worker->pid);
        api_text_format(text, ",\"state\":\"%s\",\"device\":\"%s\",\"restarts\":%u,\"resident_bytes\":%" PRIu64 "}", worker->state,
                        worker->device, worker->restarts, worker->resident_bytes);
    }
    api_text_add(text, "],\"models\":[");
    for (size_t i = 0; i < s->model_count; i++) {
        const api_model_stats *model = &s->models[i];
        api_text_format(text, "%s{\"name\":\"%s\",\"state\":\"%s\",\"bytes\":%" PRIu64 "}", i ? "," : "", model->name, model->state,
                        model->bytes);
    }
    api_text_add(text, "],");
}

char *api_stats_body(const api_stats *s)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{");
    add_rounded(&text, "uptime_seconds", s->uptime_seconds);
    api_text_add(&text, ",\"version\":");
    api_text_string(&text, s->version);
    api_text_add(&text, ",\"build\":");
    api_text_string(&text, s->build);
    api_text_format(&text, ",\"queue\":{\"queued\":%" PRIu64 ",\"running\":%" PRIu64 ",\"cost\":%" PRIu64 "}", s->queued, s->running,
                    s->cost);
    api_text_format(&text, ",\"jobs\":{\"succeeded\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"canceled\":%" PRIu64 "}", s->succeeded, s->failed,
                    s->canceled);
    api_text_add(&text, ",\"images_per_second\":{");
    add_rounded(&text, "10s", s->images_10s);
    api_text_add(&text, ",");
    add_rounded(&text, "60s", s->images_60s);
    api_text_add(&text, "},");
    add_rounded(&text, "rows_per_tick", s->rows_per_tick);
    api_text_add(&text, ",");
    add_pair(&text, "tick_ms", &s->tick);
    api_text_add(&text, ",");
    add_triple(&text, "latency_ms", &s->latency);
    add_triple(&text, "wait_ms", &s->wait);
    add_workers(&text, s);
    api_text_format(&text, "\"streams\":%u,\"resident_bytes\":%" PRIu64 ",\"store\":{", s->streams, s->resident_bytes);
    add_pair(&text, "commit_ms", &s->commit);
    api_text_format(&text, ",\"wal_bytes\":%" PRIu64 ",\"free_bytes\":%" PRIu64 "}}", s->wal_bytes, s->free_bytes);
    return api_text_take(&text);
}
