/* Content negotiation (RFC 9110, 12.5.1) and preferences (RFC 7240) from header text. Pure; any thread. */
#include "api/negotiate.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "api/limits.h"

#define QUALITY_ONE 1000 /* q is kept in thousandths, as the grammar has three digits */

typedef struct slice {
    const char *at;
    size_t bytes;
} slice;

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static slice trim(slice s)
{
    while (s.bytes && is_blank(s.at[0])) {
        s.at++;
        s.bytes--;
    }
    while (s.bytes && is_blank(s.at[s.bytes - 1])) {
        s.bytes--;
    }
    return s;
}

/* Takes the text before the next `separator` that stands outside quotes; false at the end. */
static bool take(slice *rest, char separator, slice *part)
{
    if (!rest->at) {
        return false;
    }
    bool quoted = false;
    size_t i = 0;
    for (; i < rest->bytes; i++) {
        char c = rest->at[i];
        if (quoted && c == '\\' && i + 1 < rest->bytes) {
            i++;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (c == separator && !quoted) {
            break;
        }
    }
    *part = trim((slice){rest->at, i});
    if (i < rest->bytes) {
        *rest = (slice){rest->at + i + 1, rest->bytes - i - 1};
    } else {
        *rest = (slice){NULL, 0};
    }
    return true;
}

static bool equals(slice s, const char *text)
{
    return s.bytes == strlen(text) && strncasecmp(s.at, text, s.bytes) == 0;
}

/* Splits "name=value"; blanks around '=' are allowed, quotes around the value are taken off. */
static void name_value(slice parameter, slice *name, slice *value)
{
    const char *sign = memchr(parameter.at, '=', parameter.bytes);
    size_t before = sign ? (size_t)(sign - parameter.at) : parameter.bytes;
    *name = trim((slice){parameter.at, before});
    *value = sign ? trim((slice){sign + 1, parameter.bytes - before - 1}) : (slice){parameter.at, 0};
    if (value->bytes >= 2 && value->at[0] == '"' && value->at[value->bytes - 1] == '"') {
        *value = (slice){value->at + 1, value->bytes - 2};
    }
}

/* "0.5" -> 500; -1: not a quality from 0 to 1. ".2" is taken, because a widespread client sends it. */
static int quality(slice text)
{
    int whole = 0, fraction = 0, scale = 100;
    size_t i = 0;
    if (i < text.bytes && (text.at[i] == '0' || text.at[i] == '1')) {
        whole = text.at[i++] - '0';
    } else if (text.bytes < 2 || text.at[0] != '.') {
        return -1;
    }
    if (i < text.bytes && text.at[i++] != '.') {
        return -1;
    }
    for (; i < text.bytes; i++, scale /= 10) {
        if (text.at[i] < '0' || text.at[i] > '9' || scale == 0) {
            return -1;
        }
        fraction += (text.at[i] - '0') * scale;
    }
    int q = whole * QUALITY_ONE + fraction;
    return q <= QUALITY_ONE ? q : -1;
}

/* The quality of one form, taken from the most specific range that matches it. */
typedef struct form_quality {
    int specificity; /* 0 nothing matched, 1 any type, 2 type with a star, 3 exact */
    int q;
} form_quality;

static int specificity_of(slice range, int form)
{
    static const char *const exact[] = {"application/json", "image/png", "text/event-stream"};
    if (equals(range, exact[form])) {
        return 3;
    }
    /* text with a star is left out on purpose: who asks for any text does not expect an endless one. */
    bool family = (form == API_FORM_JSON && equals(range, "application/*")) || (form == API_FORM_PNG && equals(range, "image/*"));
    return family ? 2 : equals(range, "*/*") || equals(range, "*") ? 1 : 0;
}

/* How closely a range of Accept fits candidate number `which`; 0: not at all. */
typedef int closeness(slice range, int which);

static void weigh_range(form_quality *best, int count, closeness *fits, slice range)
{
    slice type, parameter, name, value;
    int q = QUALITY_ONE;
    take(&range, ';', &type);
    while (take(&range, ';', &parameter)) {
        name_value(parameter, &name, &value);
        if (equals(name, "q")) {
            q = quality(value);
            break; /* what follows q are extensions, not parameters of the type */
        }
    }
    if (q < 0) {
        return;
    }
    for (int form = 0; form < count; form++) {
        int specificity = fits(type, form);
        bool closer = specificity > best[form].specificity;
        bool higher = specificity && specificity == best[form].specificity && q > best[form].q;
        if (closer || higher) {
            best[form] = (form_quality){specificity, q};
        }
    }
}

api_form api_negotiate(const char *accept)
{
    slice rest = trim((slice){accept, accept ? strlen(accept) : 0}), range;
    if (!rest.bytes) {
        return API_FORM_JSON;
    }
    form_quality best[3] = {{0, 0}, {0, 0}, {0, 0}};
    while (take(&rest, ',', &range)) {
        if (range.bytes) {
            weigh_range(best, 3, specificity_of, range);
        }
    }
    int json = best[API_FORM_JSON].q, png = best[API_FORM_PNG].q, events = best[API_FORM_EVENTS].q;
    int highest = json > png ? json : png;
    highest = highest > events ? highest : events;
    if (highest == 0) {
        return API_FORM_NONE;
    }
    if ((json == highest) + (png == highest) + (events == highest) > 1 || json == highest) {
        return API_FORM_JSON;
    }
    return png == highest ? API_FORM_PNG : API_FORM_EVENTS;
}

static int page_specificity(slice range, int which)
{
    return equals(range, which == 0 ? "text/plain" : "text/html") ? 3 : equals(range, "text/*") ? 2 : equals(range, "*/*") ? 1 : 0;
}

bool api_prefers_html(const char *accept)
{
    slice rest = trim((slice){accept, accept ? strlen(accept) : 0}), range;
    form_quality best[2] = {{0, 0}, {0, 0}};
    while (rest.bytes && take(&rest, ',', &range)) {
        if (range.bytes) {
            weigh_range(best, 2, page_specificity, range);
        }
    }
    return best[1].q > best[0].q;
}

static int coding_specificity(slice range, int which)
{
    (void)which;
    return equals(range, "gzip") || equals(range, "x-gzip") ? 2 : equals(range, "*") ? 1 : 0;
}

bool api_accepts_gzip(const char *accept_encoding)
{
    slice rest = trim((slice){accept_encoding, accept_encoding ? strlen(accept_encoding) : 0}), range;
    form_quality best = {0, 0};
    while (rest.bytes && take(&rest, ',', &range)) {
        if (range.bytes) {
            weigh_range(&best, 1, coding_specificity, range);
        }
    }
    return best.q > 0;
}

static int wait_seconds(slice value, unsigned *seconds)
{
    unsigned total = 0;
    if (!value.bytes || value.bytes > 9) {
        return -1;
    }
    for (size_t i = 0; i < value.bytes; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') {
            return -1;
        }
        total = total * 10 + (unsigned)(value.at[i] - '0');
    }
    if (total > API_WAIT_SECONDS_MAX) {
        return -1;
    }
    *seconds = total;
    return 1;
}

int api_prefer_wait(const char *prefer, unsigned *seconds)
{
    slice rest = {prefer, prefer ? strlen(prefer) : 0}, preference, head, name, value;
    while (take(&rest, ',', &preference)) {
        take(&preference, ';', &head);
        name_value(head, &name, &value);
        if (equals(name, "wait")) {
            return wait_seconds(value, seconds); /* of several the first counts (RFC 7240, 2) */
        }
    }
    return 0;
}

bool api_is_json(const char *content_type)
{
    slice rest = {content_type, content_type ? strlen(content_type) : 0}, type, parameter, name, value;
    if (!take(&rest, ';', &type) || !equals(type, "application/json")) {
        return false;
    }
    while (take(&rest, ';', &parameter)) {
        name_value(parameter, &name, &value);
        if (equals(name, "charset") && !equals(value, "utf-8") && !equals(value, "utf8")) {
            return false;
        }
    }
    return true;
}

bool api_etag_matches(const char *list, const char *tag)
{
    slice rest = {list, list ? strlen(list) : 0}, item;
    size_t tag_bytes = strlen(tag);
    if (list && equals(trim(rest), "*")) {
        return true;
    }
    while (take(&rest, ',', &item)) {
        if (item.bytes >= 2 && memcmp(item.at, "W/", 2) == 0) {
            item = (slice){item.at + 2, item.bytes - 2};
        }
        if (item.bytes == tag_bytes + 2 && item.at[0] == '"' && item.at[item.bytes - 1] == '"' &&
            memcmp(item.at + 1, tag, tag_bytes) == 0) {
            return true;
        }
    }
    return false;
}
