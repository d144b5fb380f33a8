/* `denoised generate`, its parts: from options to specs, and from pictures to files. Private to the command, but for its options,
 * which `denoised submit` takes too. One thread. */
#ifndef DN_SERVER_GENERATION_H
#define DN_SERVER_GENERATION_H

#include "api/generate_request.h"
#include "api/text.h"
#include "base/sha256.h"
#include "engine.h"
#include "server/device_option.h"
#include "server/options.h"

#define GENERATION_IMAGES_MAX 4096u

/* A PNG that was written. */
typedef struct generation_file {
    char path[1200]; /* "-": standard output */
    uint64_t seed;
    size_t bytes;
    char sha256[DN_SHA256_HEX_BYTES];
} generation_file;

typedef struct generation {
    /* What the command line said; NULL, NaN and 0 where it was silent. */
    const char *model, *classes, *mixture_text, *negative_text, *sampler, *output, *output_dir, *latents, *output_latents;
    const char *init_path, *mask_path, *variation_text;
    device_option device;
    double guidance_scale;
    const char *option_text[DN_OPT_COUNT]; /* options of the engine's table, as given */
    uint64_t steps, seed, n, columns, threads;
    const char *show; /* a terminal_way's name */
    bool help_sampling, list_samplers, vae_tiling, json;

    dn_engine *engine;
    char model_path[1024];
    dn_options options; /* option_text, read */
    uint32_t mixture_count;
    api_class_weight mixture[API_CLASS_MIXTURE_MAX];
    bool has_negative;
    uint32_t negative_class;
    uint64_t variation_seed;
    api_input_image init_image, mask_image; /* by hash, for recipes */
    float *init; /* [C*H*W] in the network's space, or NULL */
    float *mask; /* [H*W] or NULL */
    uint32_t count; /* images */
    dn_lane_spec *specs; /* [count] */
    float *start; /* [count][C*H*W] given by --latents, or NULL */
    uint8_t *pixels; /* [count][H][W][C] of the pictures; NULL: latents alone are wanted */
    float *floats; /* [count][C*H*W], for --output-latents */
    double seconds; /* that making them took */
    generation_file output_file; /* what --output wrote */
    generation_file *files; /* [count], what --output-dir wrote; NULL: nothing */
} generation;

/* generation_options.c: one dn_option for each option of the engine's table, with text[] as targets. */
void generation_add_options(dn_option out[DN_OPT_COUNT], const char *text[DN_OPT_COUNT]);
/* Such an option's text as a member of a request's JSON; false: it is none of its kind's values. */
bool generation_option_json(api_text *out, dn_option_id id, const char *text);
/* Words to values, within the table's widest ranges; the engine checks the sampler's and the model's own. */
dn_status generation_read_options(generation *g, dn_error *error);
/* Puts flags in the place of a request's fields: "sigma_min must ..." becomes "--sigma-min must ...". */
void generation_name_flag(dn_error *error);
void generation_print_options(void);
void generation_print_samplers(void);

/* generation_inputs.c */
dn_status generation_read_start(generation *g, uint32_t *images, dn_error *error);
dn_status generation_read_pictures(generation *g, dn_error *error);

/* --model, else $DENOISED_MODEL, else the built-in model beside the program or installed with it. */
dn_status generation_find_model(generation *g, dn_error *error);
/* Fills count, specs and start from the options and the open engine. */
dn_status generation_plan(generation *g, dn_error *error);
size_t generation_picture_bytes(const generation *g); /* of one picture */
/* Writes what was asked for; each file whole or not at all. */
dn_status generation_save(generation *g, dn_error *error);
/* The picture of --output: the image, or a sheet of all. *out is malloc'd. */
dn_status generation_sheet(const generation *g, uint8_t **out, uint32_t *width, uint32_t *height, dn_error *error);
/* generation_report.c: what was made, as one JSON object on standard output. */
dn_status generation_print_json(const generation *g, dn_error *error);
void generation_done(generation *g);

#endif
