/* `denoised generate`, its parts: from options to specs, and from pictures to files. Private to the command. One thread. */
#ifndef DN_SERVER_GENERATION_H
#define DN_SERVER_GENERATION_H

#include "api/generate_request.h"
#include "engine.h"

#define GENERATION_IMAGES_MAX 4096u

typedef struct generation {
    /* What the command line said; NULL, NaN and 0 where it was silent. */
    const char *model, *classes, *sampler, *output, *output_dir, *latents, *output_latents;
    double guidance_scale;
    dn_options options; /* as the engine takes them: choices and booleans too, once read */
    const char *option_text[DN_OPT_COUNT]; /* as given; NULL: not */
    uint64_t steps, seed, n, columns, threads;

    dn_engine *engine;
    char model_path[1024];
    uint32_t count; /* images */
    dn_lane_spec *specs; /* [count] */
    float *start; /* [count][C*H*W] given by --latents, or NULL */
    uint8_t *pixels; /* [count][H][W][C] */
    float *floats; /* [count][C*H*W], for --output-latents */
} generation;

/* --model, else $DENOISED_MODEL, else the built-in model beside the program or installed with it. */
dn_status generation_find_model(generation *g, dn_error *error);
/* Fills count, specs and start from the options and the open engine. */
dn_status generation_plan(generation *g, dn_error *error);
/* Writes what was asked for; each file whole or not at all. */
dn_status generation_save(const generation *g, dn_error *error);
void generation_done(generation *g);

#endif
