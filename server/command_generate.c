/* `denoised generate`: pictures from the command line, with the engine of the service and the same bytes for the same spec.
 * Ctrl-C stops before anything is written (exit status 130). One thread calls it; the engine brings its own. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "server/commands.h"
#include "server/generation.h"
#include "server/options.h"
#include "server/progress.h"
#include "server/terminal.h"

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
        status = device_option_settle(&g->device, &options, "generate", "auto", error);
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
    const double begun = dn_now_seconds();
    dn_progress_begin(&bar, "denoising", steps);
    dn_status status = dn_generate(g->engine, g->specs, g->count, g->pixels, g->floats, show_progress, &bar, error);
    dn_progress_end(&bar);
    g->seconds = dn_now_seconds() - begun;
    return status;
}

static dn_status show(const generation *g, const terminal *screen, dn_error *error)
{
    uint8_t *sheet = NULL;
    uint32_t width = 0, height = 0, lines = 0;
    if (screen->way == TERMINAL_NONE || g->pixels == NULL)
        return DN_OK;
    if (generation_sheet(g, &sheet, &width, &height, NULL) != DN_OK) {
        fprintf(stderr, "denoised generate: the sheet of %u images is too large to be shown\n", g->count);
        return DN_OK;
    }
    dn_status status = DN_OK;
    if (!terminal_show(screen, sheet, width, height, g->engine->image_channels, 0, &lines))
        status = dn_fail(error, DN_IO, "standard output: the picture cannot be drawn there");
    free(sheet);
    return status;
}

static dn_status tell(const generation *g, dn_error *error)
{
    if (g->json)
        return generation_print_json(g, error);
    const bool named = g->output != NULL && strcmp(g->output, "-") != 0;
    fprintf(stderr, "%u image%s, seed %llu%s%s\n", g->count, g->count == 1 ? "" : "s", (unsigned long long)g->seed, named ? ": " : "",
            named ? g->output : "");
    return DN_OK;
}

static dn_status check_target(const char *path, dn_error *error)
{
    return path == NULL || strcmp(path, "-") == 0 ? DN_OK : dn_file_check_target(path, error);
}

static dn_status generate(generation *g, const terminal *screen, dn_error *error)
{
    if (g->output == NULL && g->output_dir == NULL && g->output_latents == NULL)
        g->output = "generated.png";
    dn_status status = check_target(g->output, error);
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
        status = show(g, screen, error);
    if (status == DN_OK)
        status = tell(g, error);
    return status;
}

/* Standard output can hold one thing: a picture's bytes, JSON, or what is drawn. */
static int settle_output(const generation *g, terminal *screen)
{
    terminal_way way;
    const char *wrong = NULL;
    const bool piped = g->output != NULL && strcmp(g->output, "-") == 0;
    if (!terminal_way_parse(g->show, &way))
        wrong = "--show: must be one of " TERMINAL_WAYS;
    else if (piped && g->json)
        wrong = "--output - and --json: both want standard output";
    else if ((piped || g->json) && way != TERMINAL_AUTO && way != TERMINAL_NONE)
        wrong = piped ? "--output - and --show: both want standard output" : "--json and --show: both want standard output";
    else if (piped && isatty(STDOUT_FILENO))
        wrong = "--output -: standard output is a terminal, and a PNG is no text; send it to a file or a program";
    if (wrong != NULL) {
        fprintf(stderr, "denoised generate: %s (see denoised generate --help)\n", wrong);
        return DN_EXIT_USAGE;
    }
    terminal_look(screen, STDOUT_FILENO, piped || g->json ? TERMINAL_NONE : way);
    const char *warning = terminal_warning(screen, way);
    if (warning != NULL)
        fprintf(stderr, "denoised generate: %s\n", warning);
    return DN_OPTIONS_GO_ON;
}

#define OWN_OPTIONS_MAX 28

/* The main options, which --help shows; those of the engine's table lie behind them. */
static size_t add_own_options(dn_option *out, generation *g)
{
    const dn_option own[] = {
        DN_TEXT_OPTION("model", "DIR", g->model, "folder or file ($DENOISED_MODEL, the built-in)"),
        DN_TEXT_OPTION("class", "CLASS", g->classes, "name, number or a list: 2,9 (images in turn)"),
        DN_TEXT_OPTION("mixture", "LIST", g->mixture_text, "instead: several classes in one image by weight (2:0.5,9:0.5)"),
        DN_TEXT_OPTION("negative-class", "CLASS", g->negative_text, "guided away from this one instead of the null class"),
        DN_NUMBER_OPTION("guidance-scale", g->guidance_scale, -DN_GUIDANCE_SCALE_MAX, DN_GUIDANCE_SCALE_MAX,
                         "1 is off, 0 unconditional (the model's)"),
        DN_COUNT_OPTION("steps", g->steps, 1, DN_STEPS_MAX, "of the sampler (the model's)"),
        DN_TEXT_OPTION("sampler", "NAME", g->sampler, "of --list-samplers; model: its scheduler's"),
        DN_COUNT_OPTION("seed", g->seed, 0, UINT64_MAX, "the next image has one more (drawn, and told)"),
        DN_TEXT_OPTION("variation-seed", "N", g->variation_text, "start noise between seed's and this one's, by --variation-strength"),
        DN_TEXT_OPTION("init-image", "PNG", g->init_path, "start from it, noised by --strength"),
        DN_TEXT_OPTION("mask-image", "PNG", g->mask_path, "what of it is painted anew: white"),
        {.name = "images",
         .letter = 'n',
         .kind = DN_OPTION_COUNT,
         .value = "N",
         .target = &g->n,
         .count_low = 1,
         .count_high = GENERATION_IMAGES_MAX,
         .help = "how many (one per class of a list)"},
        {.name = "output",
         .letter = 'o',
         .kind = DN_OPTION_TEXT,
         .value = "FILE",
         .target = &g->output,
         .help = "a PNG, or a sheet; - to a pipe (generated.png)"},
        DN_TEXT_OPTION("output-dir", "DIR", g->output_dir, "a PNG for each image: 00000.png, ..."),
        DN_COUNT_OPTION("columns", g->columns, 1, GENERATION_IMAGES_MAX, "of the sheet (about as many as rows)"),
        DN_TEXT_OPTION("latents", "FILE", g->latents, "safetensors: latents [N,C,H,W], standard normal start noise"),
        DN_TEXT_OPTION("output-latents", "FILE", g->output_latents, "safetensors: latents [N,C,H,W], final, before 8-bit pixels"),
        DN_COUNT_OPTION("threads", g->threads, 0, DN_THREADS_MAX, "(0: all available)"),
        DN_DEVICE_OPTIONS(g->device, "auto"),
        DN_FLAG_OPTION("vae-tiling", g->vae_tiling, "decode large latents in tiles: less memory, slightly other pictures"),
        DN_TEXT_OPTION("show", TERMINAL_WAYS, g->show, "draw it in the terminal (auto)"),
        DN_FLAG_OPTION("json", g->json, "print what was made as one JSON object"),
        DN_FLAG_OPTION("list-samplers", g->list_samplers, "and their options"),
        DN_FLAG_OPTION("help-sampling", g->help_sampling, "options of samplers, guidance, pictures"),
    };
    _Static_assert(sizeof own / sizeof own[0] <= OWN_OPTIONS_MAX, "room for the main options");
    memcpy(out, own, sizeof own);
    return sizeof own / sizeof own[0];
}

static int parse(generation *g, int argc, char **argv)
{
    static const char *const brief[] = {"model",  "class",         "guidance-scale", "steps", "sampler", "seed",
                                        "images", "init-image",    "device",         "show",  "output",  "output-dir",
                                        "json",   "list-samplers", "help-sampling",  NULL};
    dn_option options[OWN_OPTIONS_MAX + DN_OPT_COUNT];
    size_t count = add_own_options(options, g);
    generation_add_options(options + count, g->option_text);
    const dn_command_line line = {.command = "generate",
                                  .operands = "",
                                  .summary = "Makes pictures with a model.",
                                  .options = options,
                                  .option_count = count + DN_OPT_COUNT,
                                  .brief = brief,
                                  .footer = "  denoised generate --class Sneaker --seed 42 --sampler unipc --steps 10\n"
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
    generation g = {.guidance_scale = NAN, .show = "auto"};
    terminal screen;
    if (getrandom(&g.seed, sizeof g.seed, 0) != (ssize_t)sizeof g.seed)
        g.seed = 0;
    g.seed >>= 32; /* a drawn seed is short enough to be typed again */
    int status = parse(&g, argc, argv);
    if (status == DN_OPTIONS_GO_ON)
        status = settle_output(&g, &screen);
    if (status != DN_OPTIONS_GO_ON)
        return status;

    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    dn_error error = {DN_OK, ""};
    dn_status result = generate(&g, &screen, &error);
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
