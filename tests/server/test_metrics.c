/* The text form of metrics: names, labels, cumulative buckets. */
#include "server/metrics.h"

#include <math.h>

#include "tests/test.h"

static void text_has_every_number(void)
{
    metrics *m = NULL;
    CHECK(metrics_create(&m, NULL) == DN_OK);
    metrics_add(m, METRIC_IMAGES, 3);
    metrics_add(m, METRIC_IMAGES, 4);
    metrics_set(m, METRIC_STREAMS, 5);
    metrics_change(m, METRIC_STREAMS, -2);
    metrics_observe(m, METRIC_TICK_ROWS, 1);
    metrics_observe(m, METRIC_TICK_ROWS, 3);
    metrics_observe(m, METRIC_TICK_ROWS, 1000);
    metrics_request(m, "/jobs/{id}", "GET", 200, 0.25);
    metrics_request(m, "/jobs/{id}", "GET", 200, 0.25);
    metrics_request(m, "/jobs/{id}", "BREW", 405, 0.0005);
    metrics_request(m, "/a\"b\\c\n", "GET", 404, 0);
    metrics_refused(m, API_QUOTA);
    char *text = metrics_text(m, "denoised_extra 1\n");
    CHECK(text);
    CHECK(strstr(text, "\ndenoised_images_total 7\n"));
    CHECK(strstr(text, "\ndenoised_event_streams 3\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"1\"} 1\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"4\"} 2\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"128\"} 2\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"+Inf\"} 3\n"));
    CHECK(strstr(text, "denoised_tick_rows_sum 1004\ndenoised_tick_rows_count 3\n"));
    CHECK(strstr(text, "denoised_http_requests_total{route=\"/jobs/{id}\",method=\"GET\",status=\"200\"} 2\n"));
    CHECK(strstr(text, "denoised_http_requests_total{route=\"/jobs/{id}\",method=\"other\",status=\"405\"} 1\n"));
    CHECK(strstr(text, "denoised_http_request_duration_seconds_bucket{route=\"/jobs/{id}\",method=\"GET\",le=\"0.1\"} 0\n"));
    CHECK(strstr(text, "denoised_http_request_duration_seconds_bucket{route=\"/jobs/{id}\",method=\"GET\",le=\"0.5\"} 2\n"));
    CHECK(strstr(text, "denoised_http_request_duration_seconds_sum{route=\"/jobs/{id}\",method=\"GET\"} 0.5\n"));
    CHECK(strstr(text, "denoised_http_request_duration_seconds_count{route=\"/jobs/{id}\",method=\"GET\"} 2\n"));
    CHECK(strstr(text, "{route=\"/a\\\"b\\\\c\\n\",method=\"GET\",status=\"404\"} 1\n"));
    CHECK(strstr(text, "denoised_http_refusals_total{code=\"quota\"} 1\n"));
    CHECK(strstr(text, "denoised_http_refusals_total{code=\"storage-full\"} 0\n"));
    CHECK(strcmp(text + strlen(text) - 17, "denoised_extra 1\n") == 0);
    free(text);
    metrics_free(m);
}

static void tables_do_not_grow_without_end(void)
{
    metrics *m = NULL;
    CHECK(metrics_create(&m, NULL) == DN_OK);
    static char routes[5000][8];
    for (int i = 0; i < 5000; i++) {
        snprintf(routes[i], sizeof routes[i], "/%d", i);
        metrics_request(m, routes[i], "GET", 200, 0);
    }
    for (int status = 100; status < 2000; status++)
        metrics_request(m, "/", "GET", status, 0);
    char *text = metrics_text(m, NULL);
    CHECK(text && strlen(text) < 256 * 1024);
    CHECK(text && strstr(text, "{route=\"/0\",method=\"GET\",status=\"200\"} 1\n"));
    CHECK(text && strstr(text, "denoised_http_requests_total{route=\"other\",method=\"other\",status=\"0\"} 5877\n"));
    CHECK(text && strstr(text, "denoised_http_request_duration_seconds_count{route=\"other\",method=\"other\"} 6773\n"));
    free(text);
    metrics_free(m);
}

static void what_was_lately_is_known(void)
{
    metrics *m = NULL;
    CHECK(metrics_create(&m, NULL) == DN_OK);
    CHECK(isnan(metrics_quantile(m, METRIC_TICK_SECONDS, 0.5)) && isnan(metrics_mean(m, METRIC_TICK_SECONDS)));
    metrics_observe(m, METRIC_TICK_SECONDS, 7);
    CHECK(metrics_quantile(m, METRIC_TICK_SECONDS, 0) == 7 && metrics_quantile(m, METRIC_TICK_SECONDS, 1) == 7);
    for (int i = 0; i < METRICS_RECENT; i++)
        metrics_observe(m, METRIC_TICK_SECONDS, METRICS_RECENT - i);
    CHECK(metrics_quantile(m, METRIC_TICK_SECONDS, 0.5) == METRICS_RECENT / 2);
    CHECK(metrics_quantile(m, METRIC_TICK_SECONDS, 0.99) == 507);
    CHECK(metrics_quantile(m, METRIC_TICK_SECONDS, 1) == METRICS_RECENT);
    CHECK(metrics_mean(m, METRIC_TICK_SECONDS) == (METRICS_RECENT + 1) / 2.0);
    CHECK(metrics_images_per_second(m, METRICS_MINUTE) == 0);
    metrics_add(m, METRIC_IMAGES, 120);
    CHECK(metrics_images_per_second(m, METRICS_MINUTE) >= 2.0 && metrics_images_per_second(m, METRICS_MINUTE) < 2.1);
    metrics_free(m);
}

int main(void)
{
    RUN(what_was_lately_is_known);
    RUN(text_has_every_number);
    RUN(tables_do_not_grow_without_end);
    return test_end();
}
