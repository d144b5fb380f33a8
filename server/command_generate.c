/* `denoised generate`: pictures from the command line, with the engine of the service and the same bytes for the same spec.
 * Ctrl-C stops before anything is written (exit status 130). One thread calls it; the engine brings its own. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/file.h"
#include "server/commands.h"
#include "server/generation.h"
#include "server/options.h"
#include "server/progress.h"

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static bool show_progress(void *payload, uint32_t done, uint32_t total)
{
    (void)total;
    dn_progress_update(payload, done, "");
    return stop == 0;
}

static dn_status open_model(generation *g, dn_error *error)
{
    dn_status status = generation_find_model(g, error);
    dn_engine_options options = {.threads = (unsigned)g->threads, .vae_tiling = g->vae_tiling};
    if (status == DN_OK)
        status = dn_precision_parse(&options.precision, g->precision, error);
    if (status == DN_OK)
        status = dn_engine_open(&g->engine, g->model_path, &options, error);
    if (status != DN_OK)
        return status;
    uint32_t channels = g->engine->image_channels;
    if ((g->output != NULL || g->output_dir != NULL) && channels != 1 && channels != 3)
        return dn_fail(error, DN_UNSUPPORTED, "%s makes %u channels, which are no picture: use --output-latents", g->model_path, channels);
    return DN_OK;
}

static dn_status run(generation *g, dn_error *error)
{
    dn_progress_bar bar;
    double steps = 0.0;
    for (uint32_t i = 0; i < g->count; i++)
        steps += g->specs[i].steps;
    dn_progress_begin(&bar, "denoising", steps);
    dn_status status = dn_generate(g->engine, g->specs, g->count, g->pixels, g->floats, show_progress, &bar, error);
    dn_progress_end(&bar);
    return status;
}

static dn_status generate(generation *g, dn_error *error)
{
    if (g->output == NULL && g->output_dir == NULL && g->output_latents == NULL)
        g->output = "generated.png";
    dn_status status = g->output != NULL ? dn_file_check_target(g->output, error) : DN_OK;
    if (status == DN_OK && g->output_latents != NULL)
        status = dn_file_check_target(g->output_latents, error);
    if (status == DN_OK)
        status = generation_read_options(g, error);
    if (status == DN_OK)
        status = open_model(g, error);
    if (status == DN_OK)
        status = generation_plan(g, error);
    if (status == DN_OK)
        status = run(g, error);
    if (status == DN_OK)
        status = generation_save(g, error);
    if (status == DN_OK)
        fprintf(stderr, "%u image%s, seed %llu%s%s\n", g->count, g->count == 1 ? "" : "s", (unsigned long long)g->seed,
                g->output != NULL ? ": " : "", g->output != NULL ? g->output : "");
    return status;
}

#define OWN_OPTIONS_MAX 24

/* The main options, which --help shows; those of the engine's table lie behind them. */
static size_t add_own_options(dn_option *out, generation *g)
{
    const dn_option own[] = {
        DN_TEXT_OPTION("model", "DIR", g->model, "folder or checkpoint; default: $DENOISED_MODEL, or the built-in"),
        DN_TEXT_OPTION("class", "CLASS", g->classes, "a name, a number or a list of them (2,9,...), for images in turn"),
        DN_TEXT_OPTION("mixture", "LIST", g->mixture_text, "instead: several classes in one image by weight (2:0.5,9:0.5)"),
        DN_TEXT_OPTION("negative-class", "CLASS", g->negative_text, "guided away from this one instead of the null class"),
        DN_NUMBER_OPTION("guidance-scale", g->guidance_scale, -DN_GUIDANCE_SCALE_MAX, DN_GUIDANCE_SCALE_MAX,
                         "1 is off, 0 unconditional; default: the model's"),
        DN_COUNT_OPTION("steps", g->steps, 1, DN_STEPS_MAX, "sampler steps; default: the model's"),
        DN_TEXT_OPTION("sampler", "NAME", g->sampler, "of --list-samplers, or model: its scheduler's; default: the model's"),
        DN_COUNT_OPTION("seed", g->seed, 0, UINT64_MAX, "of the first image, the next has one more; default: drawn, and told"),
        DN_TEXT_OPTION("variation-seed", "N", g->variation_text, "start noise between seed's and this one's, by --variation-strength"),
        DN_TEXT_OPTION("init-image", "PNG", g->init_path, "a picture to start from, noised by --strength"),
        DN_TEXT_OPTION("mask-image", "PNG", g->mask_path, "what of it is painted anew (white) and what stays (black)"),
        {.name = "images",
         .letter = 'n',
         .kind = DN_OPTION_COUNT,
         .value = "N",
         .target = &g->n,
         .count_low = 1,
         .count_high = GENERATION_IMAGES_MAX,
         .help = "how many; default: one per class of a list"},
        DN_TEXT_OPTION("output", "FILE", g->output, "a PNG: the image, or a sheet of all; default: generated.png"),
        DN_TEXT_OPTION("output-dir", "DIR", g->output_dir, "one PNG for each image: 00000.png, ..."),
        DN_COUNT_OPTION("columns", g->columns, 1, GENERATION_IMAGES_MAX, "of the sheet; default: about as many as rows"),
        DN_TEXT_OPTION("latents", "FILE", g->latents, "safetensors: latents [N,C,H,W], standard normal start noise"),
        DN_TEXT_OPTION("output-latents", "FILE", g->output_latents, "safetensors: latents [N,C,H,W], final, before 8-bit pixels"),
        DN_COUNT_OPTION("threads", g->threads, 0, DN_THREADS_MAX, "0, the default: all available"),
        DN_TEXT_OPTION("precision", "NAME", g->precision, DN_PRECISION_HELP),
        DN_FLAG_OPTION("vae-tiling", g->vae_tiling, "decode large latents in tiles: less memory, slightly other pictures"),
        DN_FLAG_OPTION("list-samplers", g->list_samplers, "print the samplers with their options"),
        DN_FLAG_OPTION("help-sampling", g->help_sampling, "print the options of samplers, guidance, pictures and seeds"),
    };
    _Static_assert(sizeof own / sizeof own[0] <= OWN_OPTIONS_MAX, "room for the main options");
    memcpy(out, own, sizeof own);
    return sizeof own / sizeof own[0];
}

static int parse(generation *g, int argc, char **argv)
{
    dn_option options[OWN_OPTIONS_MAX + DN_OPT_COUNT];
    size_t count = add_own_options(options, g);
    generation_add_options(options + count, g);
    const dn_command_line line = {.command = "generate",
                                  .operands = "",
                                  .summary = "Makes pictures with a model.",
                                  .options = options,
                                  .option_count = count + DN_OPT_COUNT,
                                  .footer = "Often used of the options that --help-sampling lists:\n"
                                            "  --sigma-schedule karras        --eta 0.5             --solver-order 3        --clip-sample\n"
                                            "  --guidance-method apg          --guidance-rescale 0.7 --guidance-sigma-max 5\n"
                                            "  --strength 0.6                 --resample 4          --variation-strength 0.2\n"
                                            "Examples:\n"
                                            "  denoised generate --class Sneaker --seed 42\n"
                                            "  denoised generate --class 7 --sampler unipc --steps 10 --sigma-schedule karras\n"
                                            "  denoised generate --class Bag --init-image shoe.png --strength 0.6"};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (g->help_sampling)
        generation_print_options();
    if (g->list_samplers)
        generation_print_samplers();
    return g->help_sampling || g->list_samplers ? DN_EXIT_OK : DN_OPTIONS_GO_ON;
}

int dn_command_generate(int argc, char **argv)
{
    generation g = {.guidance_scale = NAN};
    if (getrandom(&g.seed, sizeof g.seed, 0) != (ssize_t)sizeof g.seed)
        g.seed = 0;
    g.seed >>= 32; /* a drawn seed is short enough to be typed again */
    int status = parse(&g, argc, argv);
    if (status != DN_OPTIONS_GO_ON)
        return status;

    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    dn_error error = {DN_OK, ""};
    dn_status result = generate(&g, &error);
    generation_done(&g);
    if (result == DN_CANCELLED) {
        fprintf(stderr, "denoised generate: interrupted; nothing was written\n");
        return DN_EXIT_INTERRUPTED;
    }
    if (result == DN_OK)
        return DN_EXIT_OK;
    generation_name_flag(&error);
    return dn_command_failed("generate", &error);
}
