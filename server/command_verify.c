/* `denoised verify FILE...`: makes pictures again from their own metadata, with the engine of this program and no daemon, and says whether
 * they agree. What POST /verify says (api/verification.h), by the same validator. One thread calls it; the engine brings its own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/base64.h"
#include "api/text.h"
#include "api/verification.h"
#include "base/file.h"
#include "base/sha256.h"
#include "server/commands.h"
#include "server/describe_model.h"
#include "server/generation.h"
#include "server/input_picture.h"
#include "server/picture_file.h"

#define FILE_BYTES_MAX (64u << 20)
#define FILES_MAX 4096

typedef struct verify_run {
    generation g; /* for its model alone */
    const char *init_path, *mask_path;
    bool json;
    char *init_image, *mask_image; /* in base64, as a request has them */
    api_model *model;
} verify_run;

typedef struct verify_file {
    unsigned char *png;
    size_t bytes;
    api_recipe recipe;
    api_verification found;
} verify_file;

static dn_status read_base64(char **out, const char *path, dn_error *error)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    api_text text = API_TEXT_INIT;
    if (path == NULL)
        return DN_OK;
    dn_status status = dn_file_read(&bytes, &count, path, API_BODY_IMAGE_BYTES_MAX, error);
    if (status != DN_OK)
        return status;
    api_text_base64(&text, bytes, count);
    free(bytes);
    *out = api_text_take(&text);
    return *out != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for %s", path);
}

static dn_status open_model(verify_run *run, dn_error *error)
{
    generation *g = &run->g;
    dn_engine_options options = {.threads = (unsigned)g->threads, .vae_tiling = g->vae_tiling};
    dn_status status = generation_find_model(g, error);
    if (status == DN_OK)
        status = device_option_settle(&g->device, &options, "verify", "auto", error);
    if (status == DN_OK)
        status = dn_engine_open(&g->engine, g->model_path, &options, error);
    if (status == DN_OK)
        status = dn_describe_model(&run->model, "model", g->engine, error);
    if (status == DN_OK && run->model->channels != 1 && run->model->channels != 3)
        status = dn_fail(error, DN_UNSUPPORTED, "%s makes %u channels, which are no picture", g->model_path, run->model->channels);
    return status;
}

static void cannot(verify_file *file, api_verify_code code, const char *detail)
{
    file->found.verdict = API_VERDICT_CANNOT;
    api_verify_reason(&file->found, code, "%s", detail);
}

static dn_status read_file(verify_file *file, const char *path, dn_error *error)
{
    uint32_t width = 0, height = 0;
    unsigned char digest[DN_SHA256_BYTES];
    dn_status status = dn_file_read(&file->png, &file->bytes, path, FILE_BYTES_MAX, error);
    if (status == DN_OK && !dn_png_size(&width, &height, file->png, file->bytes))
        status = dn_fail(error, DN_INVALID, "%s: not a PNG file", path);
    if (status != DN_OK)
        return status;
    file->found.bytes = file->bytes;
    dn_sha256_of(digest, file->png, file->bytes);
    dn_sha256_hex(file->found.sha256, digest);
    return DN_OK;
}

/* Sets the verdict where the file's recipe cannot be followed here. */
static dn_status read_recipe(const verify_run *run, verify_file *file, dn_error *error)
{
    char *text = NULL, detail[320];
    bool no_memory = false;
    dn_error why;
    dn_status status = dn_png_read_text(&text, file->png, file->bytes, "denoised", &why);
    bool fine = status == DN_OK && api_recipe_read(&file->recipe, text, strlen(text), &no_memory);
    free(text);
    if (status == DN_NO_MEMORY || no_memory)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (!fine) {
        cannot(file, status != DN_OK ? API_VERIFY_NO_METADATA : API_VERIFY_BAD_METADATA,
               status != DN_OK ? why.message : "the file's text \"denoised\" is not what denoised writes");
        return DN_OK;
    }
    const api_request *asked = &file->recipe.request;
    file->found.claimed = &file->recipe;
    if (strcmp(file->recipe.weights_sha256, run->model->weights_sha256) != 0) {
        snprintf(detail, sizeof detail, "%.140s has other weights than %.16s...; the file calls its model %.65s", run->g.model_path,
                 file->recipe.weights_sha256, asked->model);
        cannot(file, API_VERIFY_OTHER_WEIGHTS, detail);
    } else if ((asked->init_image.sha256[0] && !run->init_image) || (asked->mask_image.sha256[0] && !run->mask_image)) {
        cannot(file, API_VERIFY_NEEDS_INPUTS,
               "it was made from pictures that are not in the file: give them with --init-image and --mask-image");
    }
    return DN_OK;
}

static const api_model *only_model(void *payload, const char *name)
{
    (void)name;
    return payload;
}

/* The picture's request through the validator of POST /generate: *out holds its pictures' bytes too. NULL with DN_OK: it is refused. */
static dn_status parse(const verify_run *run, verify_file *file, api_request **out, dn_error *error)
{
    const api_request *claimed = &file->recipe.request;
    size_t count = 0;
    bool is_array = false;
    api_problem problem = {0};
    char *body = api_recipe_body(&file->recipe, claimed->model, claimed->init_image.sha256[0] ? run->init_image : NULL,
                                 claimed->mask_image.sha256[0] ? run->mask_image : NULL);
    if (body == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    /* What the texts name it. */
    snprintf(run->model->name, sizeof run->model->name, "%s", claimed->model);
    bool fine = api_parse_generate(out, &count, &is_array, body, strlen(body), only_model, run->model, &problem);
    free(body);
    if (!fine) {
        cannot(file, API_VERIFY_REFUSED, problem.detail);
        *out = NULL;
    } else if (strcmp((*out)->init_image.sha256, claimed->init_image.sha256) != 0 ||
               strcmp((*out)->mask_image.sha256, claimed->mask_image.sha256) != 0) {
        cannot(file, API_VERIFY_OTHER_INPUTS, "a picture that was given is not the one that it was made from");
        free(*out);
        *out = NULL;
    }
    return DN_OK;
}

/* The picture that it starts from, as the engine wants it. */
static dn_status prepare(const verify_run *run, const api_request *request, float **init, float **mask, dn_error *error)
{
    const dn_engine *engine = run->g.engine;
    uint8_t *pixels = NULL, *mask_pixels = NULL;
    if (request->init_image.bytes == NULL)
        return DN_OK;
    dn_status status = input_picture_decode(&pixels, request->init_image.bytes, request->init_image.byte_count, engine->image_width,
                                            engine->image_height, engine->image_channels, error);
    if (status == DN_OK && request->mask_image.bytes != NULL)
        status = input_picture_decode(&mask_pixels, request->mask_image.bytes, request->mask_image.byte_count, engine->image_width,
                                      engine->image_height, 1, error);
    if (status == DN_OK) {
        *init = calloc(dn_engine_elements(engine), sizeof **init);
        *mask = mask_pixels != NULL ? calloc((size_t)engine->model->height * engine->model->width, sizeof **mask) : NULL;
        if (*init == NULL || (mask_pixels != NULL && *mask == NULL))
            status = dn_fail(error, DN_NO_MEMORY, "out of memory for the given picture");
    }
    if (status == DN_OK)
        status = dn_engine_prepare_init(engine, pixels, mask_pixels, *init, *mask, error);
    free(pixels);
    free(mask_pixels);
    return status;
}

static dn_status make_again(verify_run *run, verify_file *file, const api_request *request, dn_error *error)
{
    const api_model *model = run->model;
    float *init = NULL, *mask = NULL;
    picture_file made = {.png = NULL};
    dn_error unreadable;
    uint8_t *pixels = malloc((size_t)model->width * model->height * model->channels);
    dn_status status =
        pixels != NULL ? prepare(run, request, &init, &mask, error) : dn_fail(error, DN_NO_MEMORY, "out of memory for a picture");
    if (status == DN_OK) {
        const dn_lane_spec spec = picture_spec(request, request->seed, init, mask);
        status = dn_generate(run->g.engine, &spec, 1, pixels, NULL, NULL, NULL, error);
    }
    if (status == DN_OK)
        status = picture_file_make(&made, request, model, request->seed, pixels, error);
    if (status == DN_OK) {
        api_verification *found = &file->found;
        found->made = true;
        found->model = model->name;
        found->found_bytes = made.png_bytes;
        dn_sha256_hex(found->found_sha256, made.sha256);
        dn_sha256_hex(found->found_pixels_sha256, made.pixels_sha256);
        snprintf(found->found_device, sizeof found->found_device, "%s", model->device);
        snprintf(found->found_build, sizeof found->found_build, "%s", model->build);
        snprintf(found->found_gpu, sizeof found->found_gpu, "%s", model->gpu);
        snprintf(found->found_plan, sizeof found->found_plan, "%s", model->plan);
        if (input_picture_hash(found->pixels_sha256, file->png, file->bytes, model->width, model->height, model->channels, &unreadable) !=
            DN_OK)
            found->pixels_sha256[0] = '\0';
        api_verify_judge(found);
    }
    free(made.png);
    free(pixels);
    free(init);
    free(mask);
    return status;
}

static dn_status tell(const verify_run *run, const char *path, const api_verification *found, dn_error *error)
{
    if (run->json) {
        char *body = api_verification_body(found);
        if (body == NULL)
            return dn_fail(error, DN_NO_MEMORY, "out of memory");
        puts(body);
        free(body);
        return DN_OK;
    }
    printf("%s: %s", path, api_verdict_name(found->verdict));
    for (uint32_t i = 0; i < found->reason_count; i++)
        printf("%s %s", i > 0 ? ";" : ":", found->reasons[i].detail);
    printf("\n");
    return DN_OK;
}

/* One file: its verdict is told; *same whether the picture is the one that was made. */
static dn_status verify(verify_run *run, const char *path, bool *same, dn_error *error)
{
    verify_file *file = calloc(1, sizeof *file);
    api_request *request = NULL;
    dn_status status = file != NULL ? read_file(file, path, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK)
        status = read_recipe(run, file, error);
    if (status == DN_OK && file->found.verdict == API_VERDICT_OPEN)
        status = parse(run, file, &request, error);
    if (status == DN_OK && request != NULL)
        status = make_again(run, file, request, error);
    if (status == DN_OK) {
        *same = file->found.verdict == API_VERDICT_SAME_BYTES || file->found.verdict == API_VERDICT_SAME_PIXELS;
        status = tell(run, path, &file->found, error);
    }
    free(request);
    if (file != NULL)
        free(file->png);
    free(file);
    return status;
}

int dn_command_verify(int argc, char **argv)
{
    verify_run run = {.g = {.guidance_scale = NAN}};
    const dn_option options[] = {
        DN_TEXT_OPTION("model", "DIR", run.g.model, "folder or checkpoint; default: $DENOISED_MODEL, or the built-in"),
        DN_TEXT_OPTION("init-image", "PNG", run.init_path, "what the pictures were made from; they hold its hash alone"),
        DN_TEXT_OPTION("mask-image", "PNG", run.mask_path, "and what was painted anew"),
        DN_FLAG_OPTION("json", run.json, "one JSON object a file, as POST /verify answers"),
        DN_COUNT_OPTION("threads", run.g.threads, 0, DN_THREADS_MAX, "0, the default: all available"),
        DN_DEVICE_OPTIONS(run.g.device, "auto"),
        DN_FLAG_OPTION("vae-tiling", run.g.vae_tiling, "decode large latents in tiles, as they were"),
    };
    const dn_command_line line = {.command = "verify",
                                  .operands = "FILE...",
                                  .summary = "Makes pictures again from what their files say, and says whether they agree.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = FILES_MAX,
                                  .footer =
                                      "Exit status: 0 if the pixels of every file are what was made again, 1 if not or if one cannot be."};
    char **files = NULL;
    int count = 0, outcome = dn_options_parse(&line, argc, argv, &files, &count);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    dn_error error = {DN_OK, ""};
    dn_status status = read_base64(&run.init_image, run.init_path, &error);
    if (status == DN_OK)
        status = read_base64(&run.mask_image, run.mask_path, &error);
    if (status == DN_OK)
        status = open_model(&run, &error);
    outcome = DN_EXIT_OK;
    for (int i = 0; i < count && status == DN_OK; i++) {
        bool same = false;
        status = verify(&run, files[i], &same, &error);
        outcome = same ? outcome : DN_EXIT_FAILED;
    }
    free(run.init_image);
    free(run.mask_image);
    api_model_free(run.model);
    generation_done(&run.g);
    return status == DN_OK ? outcome : dn_command_failed("verify", &error);
}
