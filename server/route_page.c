/* GET / and GET /page/{}: the page for browsers (server/web), a few lines of text for everybody else. Both need no key: the page asks for
 * one, and sends it with every request of its own. */
#include <stdio.h>

#include "api/negotiate.h"
#include "server/service.h"
#include "server/web_parts.h"

/* Nothing from elsewhere, nothing written into the page: what a model or a message says can never become a script. */
#define POLICY                                                                                                                             \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "           \
    "form-action 'none'; frame-ancestors 'none'"

#define INDEX "index.html"

static void answer_part(http_request *request, const web_part *part, const char *vary)
{
    bool gzip = api_accepts_gzip(http_header(request, "Accept-Encoding"));
    char tag[80];
    /* One tag for each representation: a cache that has the compressed one must not be told that the other is the same bytes. */
    snprintf(tag, sizeof tag, "%s%s", part->tag, gzip ? "-gzip" : "");
    http_add_header(request, "ETag", "\"%s\"", tag);
    http_add_header(request, "Vary", "%s", vary);
    http_add_header(request, "Cache-Control", "no-cache");
    http_add_header(request, "Content-Security-Policy", "%s", POLICY);
    if (api_etag_matches(http_header(request, "If-None-Match"), tag)) {
        http_answer_empty(request, 304);
        return;
    }
    if (gzip) {
        http_add_header(request, "Content-Encoding", "gzip");
    }
    http_answer_constant(request, 200, part->content_type, gzip ? part->gzip : part->bytes, gzip ? part->gzip_count : part->count);
}

void route_page(http_request *request)
{
    const web_part *part = web_part_find(request->segment[0]);
    if (part == NULL || part == web_part_find(INDEX)) { /* which stands at / alone: what it names is found from there */
        http_refuse(request, API_NOT_FOUND, "the page has no such part");
        return;
    }
    answer_part(request, part, "Accept-Encoding");
}

void route_root(http_request *request)
{
    static const char text[] = "denoised: class-conditional diffusion models over HTTP\n\n"
                               "  GET  /               in a browser: a page to make pictures with\n"
                               "  POST /generate       {\"class_label\": \"Sneaker\", \"guidance_scale\": 2, \"seed\": 42}\n"
                               "  GET  /jobs/{id}      its state; /events streams progress; /images/0.png is the picture\n"
                               "  GET  /models         what can be made; /samplers, /capabilities\n"
                               "  GET  /openapi.json   the whole API\n";
    if (api_prefers_html(http_header(request, "Accept"))) {
        answer_part(request, web_part_find(INDEX), "Accept, Accept-Encoding");
        return;
    }
    http_add_header(request, "Vary", "Accept, Accept-Encoding");
    http_answer_constant(request, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}
