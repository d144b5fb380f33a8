/* Requests by route, method and status, how long they took by route and method, refusals by code.
 *
 * Invariant: the label sets are bounded: routes are the patterns of the table, methods those that some route takes or "other", codes
 * those of api/problem.h. What does not fit the tables any more is counted under the route "other". One lock, held for a look through a
 * table. Any thread. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "server/metrics.h"

enum { ROUTES_MAX = 128, ANSWERS_MAX = 1024, BOUNDS = 11 };

static const double bounds[BOUNDS] = {.001, .0025, .005, .01, .025, .05, .1, .5, 1, 10, 60};

/* One route and method. */
typedef struct route_value {
    const char *route, *method;
    uint64_t buckets[BOUNDS + 1]; /* the last: longer than all bounds */
    double seconds;
} route_value;

typedef struct answer_value {
    const char *route, *method;
    int status;
    uint64_t count;
} answer_value;

struct metrics_http {
    pthread_mutex_t lock; /* the tables */
    size_t route_count, answer_count;
    route_value routes[ROUTES_MAX];
    answer_value answers[ANSWERS_MAX];
    atomic_uint_fast64_t refusals[API_CODE_COUNT];
};

metrics_http *metrics_http_create(void)
{
    metrics_http *http = calloc(1, sizeof *http);
    if (http)
        pthread_mutex_init(&http->lock, NULL);
    return http;
}

void metrics_http_free(metrics_http *http)
{
    if (!http)
        return;
    pthread_mutex_destroy(&http->lock);
    free(http);
}

static const char other[] = "other";

/* One of a few constants, so that equal methods are equal pointers. */
static const char *method_label(const char *method)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(method, known[i]) == 0)
            return known[i];
    return other;
}

static route_value *route_of(metrics_http *http, const char *route, const char *method)
{
    for (size_t i = 0; i < http->route_count; i++)
        if (http->routes[i].method == method && strcmp(http->routes[i].route, route) == 0)
            return &http->routes[i];
    if (http->route_count + 1 >= ROUTES_MAX && route != other)
        return route_of(http, other, other); /* the last place is for what has none */
    http->routes[http->route_count] = (route_value){.route = route, .method = method};
    return &http->routes[http->route_count++];
}

static answer_value *answer_of(metrics_http *http, const char *route, const char *method, int status)
{
    for (size_t i = 0; i < http->answer_count; i++) {
        answer_value *answer = &http->answers[i];
        if (answer->method == method && answer->status == status && strcmp(answer->route, route) == 0)
            return answer;
    }
    if (http->answer_count + 1 >= ANSWERS_MAX && route != other)
        return answer_of(http, other, other, 0);
    http->answers[http->answer_count] = (answer_value){.route = route, .method = method, .status = status};
    return &http->answers[http->answer_count++];
}

void metrics_http_count(metrics_http *http, const char *route, const char *method, int status, double seconds)
{
    size_t bucket = 0;
    while (bucket < BOUNDS && seconds > bounds[bucket])
        bucket++;
    method = method_label(method);
    pthread_mutex_lock(&http->lock);
    route_value *where = route_of(http, route, method);
    where->buckets[bucket]++;
    where->seconds += seconds;
    answer_of(http, route, method, status)->count++;
    pthread_mutex_unlock(&http->lock);
}

void metrics_http_refused(metrics_http *http, api_code code)
{
    atomic_fetch_add_explicit(&http->refusals[code], 1, memory_order_relaxed);
}

static void write_labels(FILE *out, const char *route, const char *method)
{
    fputs("{route=\"", out);
    metrics_write_label(out, route);
    fprintf(out, "\",method=\"%s\"", method);
}

static void write_duration(FILE *out, const route_value *value)
{
    static const char name[] = "denoised_http_request_duration_seconds";
    uint64_t total = 0;
    for (size_t b = 0; b <= BOUNDS; b++) {
        total += value->buckets[b];
        fprintf(out, "%s_bucket", name);
        write_labels(out, value->route, value->method);
        if (b < BOUNDS)
            fprintf(out, ",le=\"%g\"} %llu\n", bounds[b], (unsigned long long)total);
        else
            fprintf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)total);
    }
    fprintf(out, "%s_sum", name);
    write_labels(out, value->route, value->method);
    fprintf(out, "} %.9g\n%s_count", value->seconds, name);
    write_labels(out, value->route, value->method);
    fprintf(out, "} %llu\n", (unsigned long long)total);
}

void metrics_http_write(metrics_http *http, FILE *out)
{
    pthread_mutex_lock(&http->lock);
    metrics_write_family(out, "denoised_http_requests_total", "counter",
                         "Requests that ended, by the status of their answer; 0: their client left before it.");
    for (size_t i = 0; i < http->answer_count; i++) {
        const answer_value *answer = &http->answers[i];
        fputs("denoised_http_requests_total", out);
        write_labels(out, answer->route, answer->method);
        fprintf(out, ",status=\"%d\"} %llu\n", answer->status, (unsigned long long)answer->count);
    }
    metrics_write_family(out, "denoised_http_request_duration_seconds", "histogram",
                         "From a request's first byte to the end of its answer, waiting and streaming included.");
    for (size_t i = 0; i < http->route_count; i++)
        write_duration(out, &http->routes[i]);
    pthread_mutex_unlock(&http->lock);
    metrics_write_family(out, "denoised_http_refusals_total", "counter", "Requests that were refused, by the code of the problem.");
    for (int code = API_NONE + 1; code < API_CODE_COUNT; code++)
        fprintf(out, "denoised_http_refusals_total{code=\"%s\"} %llu\n", api_problem_code((api_code)code),
                (unsigned long long)atomic_load_explicit(&http->refusals[code], memory_order_relaxed));
}
