/* What `denoised generate --json` prints. */
#include <stdio.h>
#include <stdlib.h>

#include "api/text.h"
#include "server/generation.h"

static void add_file(api_text *text, const generation_file *file)
{
    api_text_add(text, "\"file\":");
    api_text_string(text, file->path[0] != '\0' ? file->path : NULL);
    api_text_format(text, ",\"seed\":\"%llu\",\"bytes\":%zu,\"sha256\":", (unsigned long long)file->seed, file->bytes);
    api_text_string(text, file->sha256[0] != '\0' ? file->sha256 : NULL);
}

dn_status generation_print_json(const generation *g, dn_error *error)
{
    api_text text = API_TEXT_INIT;
    const dn_lane_spec *spec = &g->specs[0];
    generation_file first = g->output_file;
    first.seed = g->seed;
    api_text_add(&text, "{");
    add_file(&text, &first);
    api_text_add(&text, ",\"model\":");
    api_text_string(&text, g->model_path);
    api_text_format(&text, ",\"images\":%u,\"width\":%u,\"height\":%u,\"channels\":%u,\"sampler\":", g->count, g->engine->image_width,
                    g->engine->image_height, g->engine->image_channels);
    api_text_string(&text, spec->sampler);
    api_text_format(&text, ",\"steps\":%u,\"guidance_scale\":", spec->steps);
    api_text_number(&text, spec->guidance_scale);
    api_text_add(&text, ",\"files\":[");
    for (uint32_t i = 0; g->files != NULL && i < g->count; i++) {
        api_text_add(&text, i > 0 ? ",{" : "{");
        add_file(&text, &g->files[i]);
        api_text_add(&text, "}");
    }
    api_text_add(&text, "],\"latents\":");
    api_text_string(&text, g->output_latents);
    api_text_format(&text, ",\"ms\":%.0f}", g->seconds * 1000.0);
    char *whole = api_text_take(&text);
    if (whole == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the answer");
    const bool printed = printf("%s\n", whole) > 0 && fflush(stdout) == 0;
    free(whole);
    return printed ? DN_OK : dn_fail(error, DN_IO, "standard output: it cannot be written to");
}
