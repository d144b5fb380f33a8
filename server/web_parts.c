/* Embeds server/web. Paths are relative to the repository root, where the compiler runs; the compressed files are made by the Makefile, which
 * shows the assembler their folder. A new file needs its line in PARTS. */
#include "server/web_parts.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/sha256.h"

#define PARTS(X)                                                                                                                           \
    X(index, "index.html", "text/html; charset=utf-8")                                                                                     \
    X(style, "style.css", "text/css; charset=utf-8")                                                                                       \
    X(icon, "icon.svg", "image/svg+xml")                                                                                                   \
    X(theme, "theme.js", SCRIPT)                                                                                                           \
    X(dom, "dom.js", SCRIPT)                                                                                                               \
    X(api, "api.js", SCRIPT)                                                                                                               \
    X(jobs, "jobs.js", SCRIPT)                                                                                                             \
    X(noise, "noise.js", SCRIPT)                                                                                                           \
    X(fields, "fields.js", SCRIPT)                                                                                                         \
    X(classes, "classes.js", SCRIPT)                                                                                                       \
    X(form, "form.js", SCRIPT)                                                                                                             \
    X(stage, "stage.js", SCRIPT)                                                                                                           \
    X(gallery, "gallery.js", SCRIPT)                                                                                                       \
    X(sheets, "sheets.js", SCRIPT)                                                                                                         \
    X(shelf, "shelf.js", SCRIPT)                                                                                                           \
    X(samples, "samples.js", SCRIPT)                                                                                                       \
    X(png, "png.js", SCRIPT)                                                                                                               \
    X(recipe, "recipe.js", SCRIPT)                                                                                                         \
    X(paint, "paint.js", SCRIPT)                                                                                                           \
    X(machine, "machine.js", SCRIPT)                                                                                                       \
    X(app, "app.js", SCRIPT)

#define SCRIPT "text/javascript; charset=utf-8"

/* Each file, from NAME_first to NAME_last, and the same compressed. */
#define EMBED(id, file, type)                                                                                                              \
    __asm__(".pushsection .rodata\n"                                                                                                       \
            "web_" #id "_first: .incbin \"server/web/" file "\"\n"                                                                         \
            "web_" #id "_last: .byte 0\n"                                                                                                  \
            "web_" #id "_gzip_first: .incbin \"web/" file ".gz\"\n"                                                                        \
            "web_" #id "_gzip_last: .byte 0\n"                                                                                             \
            ".global web_" #id "_first, web_" #id "_last, web_" #id "_gzip_first, web_" #id "_gzip_last\n"                                 \
            ".popsection\n");                                                                                                              \
    extern const char web_##id##_first[], web_##id##_last[], web_##id##_gzip_first[], web_##id##_gzip_last[];
PARTS(EMBED)

#define COUNT(id, file, type) +1
#define PART_COUNT (0 PARTS(COUNT))

static web_part parts[PART_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(web_part *part, const char *const ends[4])
{
    unsigned char digest[DN_SHA256_BYTES];
    part->bytes = ends[0];
    part->count = (size_t)((uintptr_t)ends[1] - (uintptr_t)ends[0]);
    part->gzip = ends[2];
    part->gzip_count = (size_t)((uintptr_t)ends[3] - (uintptr_t)ends[2]);
    dn_sha256_of(digest, part->bytes, part->count);
    dn_sha256_hex(part->tag, digest);
}

static void fill_all(void)
{
    size_t i = 0;
#define FILL(id, file, type)                                                                                                               \
    parts[i] = (web_part){.name = file, .content_type = type};                                                                             \
    fill(&parts[i++], (const char *const[4]){web_##id##_first, web_##id##_last, web_##id##_gzip_first, web_##id##_gzip_last});
    PARTS(FILL)
}

const web_part *web_part_find(const char *name)
{
    pthread_once(&once, fill_all);
    for (size_t i = 0; i < PART_COUNT; i++) {
        if (strcmp(parts[i].name, name) == 0) {
            return &parts[i];
        }
    }
    return NULL;
}
