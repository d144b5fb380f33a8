/* Content negotiation and preferences, from header text. Pure. */
#ifndef API_NEGOTIATE_H
#define API_NEGOTIATE_H

#include <stdbool.h>

typedef enum api_form { API_FORM_JSON, API_FORM_PNG, API_FORM_EVENTS, API_FORM_NONE } api_form;

/* Highest q wins among application/json, image/png (also image/ and a star), text/event-stream; absent, star/star and ties mean JSON;
 * API_FORM_NONE: 406. accept may be NULL. */
api_form api_negotiate(const char *accept);

/* Whether text/html is preferred to text/plain: a browser's Accept says so; absent, star/star and ties do not. accept may be NULL. */
bool api_prefers_html(const char *accept);

/* Whether Accept-Encoding allows gzip (RFC 9110, 12.5.3); absent: no, which every client can read. */
bool api_accepts_gzip(const char *accept_encoding);

/* Prefer: wait=N. 0 nothing asked, 1 understood (*seconds 0..300), -1 malformed or out of range (ignored, as RFC 7240 wants). */
int api_prefer_wait(const char *prefer, unsigned *seconds);

/* True when the Content-Type is application/json (parameters allowed, charset only utf-8). */
bool api_is_json(const char *content_type);

/* If-None-Match: whether it is a star or a list that has the tag, weak or not (RFC 9110, 13.1.2). tag: without quotes; list may be NULL. */
bool api_etag_matches(const char *list, const char *tag);

#endif
