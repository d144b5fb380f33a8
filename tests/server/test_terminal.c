/* The parts of terminal pictures that need no terminal: answers, palettes, scaling, and the reader of event streams (server/client.h). */
#include <stdlib.h>
#include <string.h>

#include "server/client.h"
#include "server/terminal.h"
#include "tests/test.h"

static terminal_answers parsed(const char *text)
{
    terminal_answers answers = {0};
    terminal_query_parse(&answers, text, strlen(text));
    return answers;
}

static void answers_are_read(void)
{
    terminal_answers a = parsed("\033_Gi=31;OK\033\\\033[6;18;9t\033[?62;4;22c");
    CHECK(a.heard && a.kitty && a.sixel && a.cell_width == 9 && a.cell_height == 18);
    a = parsed("\033[?62;22;14;44c");
    CHECK(a.heard && !a.kitty && !a.sixel && a.cell_width == 0);
    a = parsed("\033[?4c"); /* the first number is the terminal's class */
    CHECK(a.heard && !a.sixel);
    a = parsed("\033_Gi=31;ENOTSUPPORTED:x\033\\\033[?62;4c");
    CHECK(a.heard && !a.kitty && a.sixel);
    a = parsed("\033[6;18;9t\033[?62;4");
    CHECK(!a.heard && a.cell_width == 9); /* not all has come */
    a = parsed("\033[6;0;99999999999999999999t\033[?;;;;;c");
    CHECK(a.heard && a.cell_width == 0 && !a.sixel);
    CHECK(!parsed("").heard && !parsed("c\033[c\033[?x").heard);
    char junk[2000];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = "\033[?;4tc0"[i * 7919 % 8];
    terminal_answers any = {0};
    for (size_t i = 0; i < sizeof junk; i++)
        terminal_query_parse(&any, junk + i, sizeof junk - i);
}

static void few_colours_are_exact(void)
{
    uint8_t pixels[256 * 3];
    terminal_palette palette;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i / 3);
    CHECK(terminal_palette_of(&palette, pixels, 256, 3) && palette.exact && palette.count == 101);
    for (size_t i = 0; i < 256; i++)
        pixels[i] = (uint8_t)i;
    CHECK(terminal_palette_of(&palette, pixels, 256, 1) && palette.exact && palette.count == 101);
    uint8_t *indices = NULL;
    CHECK(terminal_palette_map(&indices, &palette, pixels, 16, 16, 1));
    for (size_t i = 0; indices != NULL && i < 256; i++)
        CHECK(palette.colours[indices[i]][0] == terminal_percent((uint8_t)i));
    free(indices);
}

/* A plane of 4,096 colours: the mean of every 8x8 pixels is near, and no pixel is far. */
static void many_colours_are_near(void)
{
    static uint8_t pixels[64 * 64 * 3];
    terminal_palette palette;
    uint8_t *indices = NULL;
    for (int y = 0; y < 64; y++)
        for (int x = 0; x < 64; x++) {
            uint8_t *p = pixels + (y * 64 + x) * 3;
            p[0] = (uint8_t)(4 * x);
            p[1] = (uint8_t)(4 * y);
            p[2] = (uint8_t)(2 * (x + y));
        }
    CHECK(terminal_palette_of(&palette, pixels, sizeof pixels / 3, 3) && !palette.exact && palette.count == 256);
    CHECK(terminal_palette_map(&indices, &palette, pixels, 64, 64, 3));
    double worst = 0.0, single = 0.0;
    for (int by = 0; indices != NULL && by < 64; by += 8)
        for (int bx = 0; bx < 64; bx += 8)
            for (int k = 0; k < 3; k++) {
                double sum = 0.0;
                for (int i = 0; i < 64; i++) {
                    const int at = (by + i / 8) * 64 + bx + i % 8;
                    const double off = pixels[at * 3 + k] * 100.0 / 255.0 - palette.colours[indices[at]][k];
                    sum += off;
                    single = off > single ? off : -off > single ? -off : single;
                }
                worst = sum / 64 > worst ? sum / 64 : -sum / 64 > worst ? -sum / 64 : worst;
            }
    CHECK_MSG(worst < 1.0 && single < 12.0, "off by %.2f %% in the mean of 64 pixels, %.2f %% in one", worst, single);
    free(indices);
}

static void sizes_change_by_whole_factors(void)
{
    const uint8_t pixels[] = {0, 100, 200, 50, 60, 70};
    uint8_t *out = NULL;
    uint32_t width = 0, height = 0;
    CHECK(terminal_scale(&out, &width, &height, pixels, 3, 2, 1, 2, 1) && width == 6 && height == 4);
    CHECK(out[0] == 0 && out[7] == 0 && out[2] == 100 && out[23] == 70 && out[12] == 50);
    free(out);
    CHECK(terminal_scale(&out, &width, &height, pixels, 3, 2, 1, 1, 2) && width == 2 && height == 1);
    CHECK(out[0] == 53 && out[1] == 135); /* (0 + 100 + 50 + 60) / 4; the last column has two pixels */
    free(out);
}

/* ---- Events */

typedef struct heard {
    char text[512];
    uint32_t stop_after, count;
} heard;

static bool on_event(void *payload, const client_event *event)
{
    heard *h = payload;
    snprintf(h->text + strlen(h->text), sizeof h->text - strlen(h->text), "%s|%s|%s;", event->name, event->data,
             event->id ? event->id : "-");
    return ++h->count != h->stop_after;
}

static const char stream[] =
    "retry: 2000\n\nid: 1\nevent: queued\ndata: {\"a\":1}\n\n: ping\n\nevent: progress\r\ndata:x\r\ndata: y\r\n\r\n"
    "id:22\nevent:image\ndata: z\n\nid: evil\ndata: q\n\nevent: empty\n\n";
static const char wanted[] = "queued|{\"a\":1}|1;progress|x\ny|-;image|z|22;message|q|-;";

static void events_come_in_any_pieces(void)
{
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        heard h = {.text = ""};
        client_events e = {.on_event = on_event, .payload = &h};
        for (size_t at = 0; at < sizeof stream - 1; at += piece)
            CHECK(client_events_feed(&e, stream + at, sizeof stream - 1 - at < piece ? sizeof stream - 1 - at : piece));
        CHECK_MSG(strcmp(h.text, wanted) == 0 && strcmp(e.last_id, "22") == 0, "pieces of %zu: %s, last %s", piece, h.text, e.last_id);
        client_events_done(&e);
    }
}

static void half_an_event_is_forgotten(void)
{
    heard h = {.text = "", .stop_after = 2};
    client_events e = {.on_event = on_event, .payload = &h};
    CHECK(client_events_feed(&e, "id: 5\nevent: a\ndata: 1\n\nid: 6\nevent: b\ndata: lo", 48));
    CHECK(strcmp(e.last_id, "5") == 0);
    client_events_again(&e);
    CHECK(!client_events_feed(&e, "data: 2\n\ndata: 3\n\n", 18)); /* the second is the last that is wanted */
    CHECK_MSG(strcmp(h.text, "a|1|5;message|2|-;") == 0 && strcmp(e.last_id, "5") == 0, "%s", h.text);
    client_events_done(&e);
}

static void an_event_without_end_is_broken(void)
{
    heard h = {.text = ""};
    client_events e = {.on_event = on_event, .payload = &h};
    char *much = malloc(1 << 20);
    bool fed = true;
    memset(much, 'x', 1 << 20);
    for (int i = 0; fed && i < 8; i++)
        fed = client_events_feed(&e, much, 1 << 20);
    CHECK(!fed && e.broken);
    free(much);
    client_events_done(&e);
}

int main(void)
{
    RUN(answers_are_read);
    RUN(few_colours_are_exact);
    RUN(many_colours_are_near);
    RUN(sizes_change_by_whole_factors);
    RUN(events_come_in_any_pieces);
    RUN(half_an_event_is_forgotten);
    RUN(an_event_without_end_is_broken);
    return test_end();
}
