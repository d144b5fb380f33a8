/* Server-sent events out of bytes (client.h), as the HTML standard reads them: fields of lines, an event at an empty one. */
#include <stdlib.h>
#include <string.h>

#include "server/client.h"

static void forget(client_events *e)
{
    free(api_text_take(&e->data));
    e->name[0] = e->id[0] = '\0';
    e->has_id = false;
}

void client_events_again(client_events *e)
{
    free(api_text_take(&e->line));
    forget(e);
    e->broken = false;
}

void client_events_done(client_events *e)
{
    client_events_again(e);
}

static bool dispatch(client_events *e)
{
    bool more = true;
    if (e->has_id)
        memcpy(e->last_id, e->id, sizeof e->last_id);
    if (e->data.length > 0) {
        const client_event event = {.name = e->name[0] != '\0' ? e->name : "message", .data = e->data.data, .id = e->has_id ? e->id : NULL};
        more = e->on_event(e->payload, &event);
    }
    forget(e);
    return more;
}

static void keep(char *out, size_t room, const char *value)
{
    const size_t bytes = strlen(value);
    if (bytes < room)
        memcpy(out, value, bytes + 1);
}

/* An id goes into a header: digits alone are taken. */
static void take_field(client_events *e, const char *field, const char *value)
{
    if (strcmp(field, "event") == 0) {
        keep(e->name, sizeof e->name, value);
    } else if (strcmp(field, "id") == 0 && value[0] != '\0' && strspn(value, "0123456789") == strlen(value) &&
               strlen(value) < sizeof e->id) {
        keep(e->id, sizeof e->id, value);
        e->has_id = true;
    } else if (strcmp(field, "data") == 0) {
        if (e->data.length > 0)
            api_text_add(&e->data, "\n");
        api_text_add(&e->data, value);
    }
}

static bool take_line(client_events *e)
{
    char *line = e->line.data != NULL ? e->line.data : "";
    bool more = true;
    if (e->line.length == 0) {
        more = dispatch(e);
    } else if (line[0] != ':') {
        char *colon = strchr(line, ':');
        if (colon != NULL)
            *colon = '\0';
        take_field(e, line, colon == NULL ? "" : colon[1] == ' ' ? colon + 2 : colon + 1);
    }
    e->line.length = 0;
    if (e->line.data != NULL)
        e->line.data[0] = '\0';
    return more;
}

bool client_events_feed(void *events, const char *bytes, size_t count)
{
    client_events *e = events;
    for (size_t at = 0; at < count;) {
        const char *end = memchr(bytes + at, '\n', count - at);
        const size_t length = end != NULL ? (size_t)(end - (bytes + at)) : count - at;
        api_text_bytes(&e->line, bytes + at, length);
        e->broken |= e->line.failed || e->data.failed || e->line.length + e->data.length > CLIENT_EVENT_BYTES_MAX;
        if (e->broken)
            return false;
        if (end != NULL && e->line.length > 0 && e->line.data[e->line.length - 1] == '\r')
            e->line.data[--e->line.length] = '\0';
        if (end != NULL && !take_line(e))
            return false;
        at += length + (end != NULL);
    }
    return true;
}
