/* Pictures that travel as PNGs within escape codes: the Kitty graphics protocol and iTerm2's inline images (terminal.h). */
#include <stdlib.h>
#include <string.h>

#include "server/terminal.h"

#define KITTY_CHUNK 4096 /* characters of base64, the most that the protocol allows */

/* An escape code, within tmux handed through: every escape doubled, the whole between "ESC P tmux ;" and "ESC \". */
static void add_code(api_text *out, const char *code, size_t bytes, bool tmux)
{
    if (!tmux) {
        api_text_bytes(out, code, bytes);
        return;
    }
    api_text_add(out, "\033Ptmux;");
    for (size_t i = 0; i < bytes; i++) {
        if (code[i] == '\033')
            api_text_add(out, "\033");
        api_text_bytes(out, code + i, 1);
    }
    api_text_add(out, "\033\\");
}

static void add_taken(api_text *out, api_text *code, bool tmux)
{
    const size_t bytes = code->length;
    char *text = api_text_take(code);
    if (text != NULL)
        add_code(out, text, bytes, tmux);
    out->failed |= text == NULL;
    free(text);
}

/* a=T: send and show; f=100: a PNG; C=1: the cursor stays; q=2: the terminal answers nothing, which a shell would read as typed. */
void terminal_kitty(api_text *out, const unsigned char *png, size_t bytes, bool tmux)
{
    api_text base64 = API_TEXT_INIT;
    api_text_base64(&base64, png, bytes);
    const size_t length = base64.length;
    char *text = api_text_take(&base64);
    out->failed |= text == NULL;
    for (size_t at = 0; text != NULL && at < length; at += KITTY_CHUNK) {
        api_text code = API_TEXT_INIT;
        const size_t count = length - at < KITTY_CHUNK ? length - at : KITTY_CHUNK;
        api_text_format(&code, "\033_G%sm=%d;", at == 0 ? "a=T,f=100,C=1,q=2," : "q=2,", at + count < length);
        api_text_bytes(&code, text + at, count);
        api_text_add(&code, "\033\\");
        add_taken(out, &code, tmux);
    }
    free(text);
}

void terminal_iterm(api_text *out, const unsigned char *png, size_t bytes, uint32_t columns, uint32_t rows, bool tmux)
{
    api_text code = API_TEXT_INIT;
    api_text_format(&code, "\033]1337;File=inline=1;size=%zu;width=%u;height=%u;preserveAspectRatio=1:", bytes, columns, rows);
    api_text_base64(&code, png, bytes);
    api_text_add(&code, "\a");
    add_taken(out, &code, tmux);
}
