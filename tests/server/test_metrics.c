/* The text form of metrics: names, labels, cumulative buckets. */
#include "server/metrics.h"

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
    metrics_request(m, "/jobs/{id}", 200, 0.25);
    metrics_request(m, "/jobs/{id}", 200, 0.25);
    metrics_request(m, "/a\"b\\c\n", 404, 0);
    char *text = metrics_text(m, "denoised_extra 1\n");
    CHECK(text);
    CHECK(strstr(text, "\ndenoised_images_total 7\n"));
    CHECK(strstr(text, "\ndenoised_event_streams 3\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"1\"} 1\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"4\"} 2\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"128\"} 2\n"));
    CHECK(strstr(text, "denoised_tick_rows_bucket{le=\"+Inf\"} 3\n"));
    CHECK(strstr(text, "denoised_tick_rows_sum 1004\ndenoised_tick_rows_count 3\n"));
    CHECK(strstr(text, "denoised_http_requests_total{route=\"/jobs/{id}\",status=\"200\"} 2\n"));
    CHECK(strstr(text, "denoised_http_request_seconds_total{route=\"/jobs/{id}\",status=\"200\"} 0.5\n"));
    CHECK(strstr(text, "{route=\"/a\\\"b\\\\c\\n\",status=\"404\"} 1\n"));
    CHECK(strcmp(text + strlen(text) - 17, "denoised_extra 1\n") == 0);
    free(text);
    metrics_free(m);
}

static void tables_do_not_grow_without_end(void)
{
    metrics *m = NULL;
    CHECK(metrics_create(&m, NULL) == DN_OK);
    for (int i = 0; i < 5000; i++) {
        char route[32];
        snprintf(route, sizeof route, "/%d", i);
        metrics_request(m, route, 200, 0);
    }
    char *text = metrics_text(m, NULL);
    CHECK(text && strlen(text) < 64 * 1024);
    free(text);
    metrics_free(m);
}

int main(void)
{
    RUN(text_has_every_number);
    RUN(tables_do_not_grow_without_end);
    return test_end();
}
