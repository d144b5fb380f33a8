/* The library in thirty lines: one picture of class 7 into a file.
 *
 *     generate MODEL-FOLDER OUTPUT.png */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "engine.h"

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    dn_engine *engine = NULL;
    uint8_t *pixels = NULL;
    unsigned char *png = NULL;
    size_t png_bytes = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL-FOLDER OUTPUT.png\n");
        return 64;
    }
    dn_status status = dn_engine_open(&engine, argv[1], NULL, &error);
    if (status == DN_OK) {
        dn_lane_spec spec = {.seed = 42, .has_class = true, .class_index = 7, .guidance_scale = 2.0, .steps = 20, .sampler = "dpmpp_2m"};
        pixels = malloc((size_t)engine->image_width * engine->image_height * engine->image_channels);
        status = pixels != NULL ? dn_generate(engine, &spec, 1, pixels, NULL, NULL, NULL, &error)
                                : dn_fail(&error, DN_NO_MEMORY, "out of memory");
        if (status == DN_OK)
            status =
                dn_png_encode(&png, &png_bytes, pixels, engine->image_width, engine->image_height, engine->image_channels, NULL, 0, &error);
    }
    if (status == DN_OK)
        status = dn_file_write(argv[2], png, png_bytes, false, &error);
    if (status != DN_OK)
        fprintf(stderr, "%s\n", error.message);
    free(png);
    free(pixels);
    dn_engine_close(engine);
    return status == DN_OK ? 0 : 1;
}
