/* Event payloads and their framing for an event stream (WHATWG HTML, 9.2). Pure; any thread; all text is malloc'd. */
#include <inttypes.h>
#include <string.h>

#include "api/view_parts.h"

char *api_event_queued(const char *job_id, int64_t queue_position, const char *trace_id)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"id\":");
    api_text_string(&text, job_id);
    api_text_add(&text, ",\"queue_position\":");
    api_add_position(&text, queue_position);
    if (trace_id[0]) {
        api_text_add(&text, ",\"trace_id\":");
        api_text_string(&text, trace_id);
    }
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_event_started(uint32_t attempt, const char *device, uint64_t resumed_done)
{
    api_text text = API_TEXT_INIT;
    api_text_format(&text, "{\"attempt\":%" PRIu32 ",\"device\":", attempt);
    api_text_string(&text, device);
    api_text_format(&text, ",\"resumed_done\":%" PRIu64 "}", resumed_done);
    return api_text_take(&text);
}

char *api_event_image(const char *job_id, const api_image_view *image, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"image\":");
    api_add_image(&text, job_id, image, base_path);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_event_requeued(const char *reason, uint32_t attempt)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"reason\":");
    api_text_string(&text, reason);
    api_text_format(&text, ",\"attempt\":%" PRIu32 "}", attempt);
    return api_text_take(&text);
}

char *api_event_ended(const api_job_view *job, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"job\":");
    api_add_job(&text, job, base_path);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_event_position(int64_t queue_position, double eta_seconds)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"queue_position\":");
    api_add_position(&text, queue_position);
    api_text_add(&text, ",\"eta_seconds\":");
    api_add_rounded(&text, eta_seconds, 1e3);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_event_progress(const api_job_view *job)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{");
    api_add_progress(&text, job);
    api_text_add(&text, ",\"eta_seconds\":");
    api_add_rounded(&text, job->eta_seconds, 1e3);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_event_preview(uint32_t index, uint32_t done, uint32_t total, uint32_t width, uint32_t height, const unsigned char *png,
                        size_t bytes)
{
    api_text text = API_TEXT_INIT;
    api_text_format(
        &text, "{\"index\":%" PRIu32 ",\"done\":%" PRIu32 ",\"total\":%" PRIu32 ",\"width\":%" PRIu32 ",\"height\":%" PRIu32 ",\"png\":\"",
        index, done, total, width, height);
    api_text_base64(&text, png, bytes);
    api_text_add(&text, "\"}");
    return api_text_take(&text);
}

char *api_sse(int64_t id, const char *event, const char *data)
{
    api_text text = API_TEXT_INIT;
    if (id >= 0) {
        api_text_format(&text, "id: %" PRId64 "\n", id);
    }
    api_text_format(&text, "event: %s\n", event);
    /* A line end of any kind inside data would end the field, so each line gets a field of its own; the client joins them with LF. */
    for (;;) {
        size_t line = strcspn(data, "\r\n");
        api_text_add(&text, "data: ");
        api_text_bytes(&text, data, line);
        api_text_add(&text, "\n");
        data += line;
        if (!*data) {
            break;
        }
        data += data[0] == '\r' && data[1] == '\n' ? 2 : 1;
    }
    api_text_add(&text, "\n");
    return api_text_take(&text);
}
