/* Pictures by the bare engine on a device: how long the engine takes to open and to its first image, then images a second.
 *
 *     gpu_generate --model FOLDER [--device cuda:0] [--images 64] [--steps 20] [--guidance 4] [--sampler NAME] [--cache FOLDER] [--floats FILE]
 *
 * --floats: what the networks made, as floats, to compare devices by. --images 0: the first image alone. */
#include "tests/gpu/gpu.h"

#include "base/file.h"
#include "engine.h"

static double count_of(const dn_engine *engine)
{
    return (double)engine->model->channels * engine->model->width * engine->model->height;
}

static void fill_specs(dn_lane_spec *specs, uint32_t n, const dn_engine *engine, int argc, char **argv)
{
    for (uint32_t i = 0; i < n; i++) {
        specs[i] = (dn_lane_spec){.seed = i,
                                  .has_class = engine->class_count > 0,
                                  .class_index = engine->class_count > 0 ? i % engine->class_count : 0,
                                  .guidance_scale = atof(gpu_option(argc, argv, "--guidance", "4")),
                                  .steps = (uint32_t)atoi(gpu_option(argc, argv, "--steps", "20"))};
        snprintf(specs[i].sampler, sizeof specs[i].sampler, "%s", gpu_option(argc, argv, "--sampler", engine->default_sampler));
    }
}

static dn_status made(dn_engine *engine, uint32_t n, double began, int argc, char **argv, dn_error *error)
{
    const size_t picture = (size_t)engine->image_width * engine->image_height * engine->image_channels, floats = (size_t)count_of(engine);
    const uint32_t room = n > 0 ? n : 1;
    const char *path = gpu_option(argc, argv, "--floats", NULL);
    dn_lane_spec *specs = calloc(room, sizeof *specs);
    uint8_t *pixels = malloc(room * picture);
    float *answers = malloc(room * floats * sizeof *answers);
    dn_status status = specs && pixels && answers ? DN_OK : dn_fail(error, DN_NO_MEMORY, "no memory for %u pictures", room);
    if (status == DN_OK) {
        fill_specs(specs, room, engine, argc, argv);
        status = dn_generate(engine, specs, 1, pixels, answers, NULL, NULL, error);
    }
    if (status == DN_OK)
        gpu_print(gpu_figure("first image", dn_now_seconds() - began, "s"));
    if (status == DN_OK && n > 0 && path == NULL) /* once more as many: graphs of the batch's sizes are there then */
        status = dn_generate(engine, specs, n, pixels, NULL, NULL, NULL, error);
    began = dn_now_seconds();
    if (status == DN_OK && n > 0)
        status = dn_generate(engine, specs, n, pixels, answers, NULL, NULL, error);
    if (status == DN_OK && n > 0) {
        cJSON *line = gpu_figure("bare engine", n / (dn_now_seconds() - began), "images/s");
        cJSON_AddNumberToObject(line, "images", n);
        cJSON_AddNumberToObject(line, "evaluations", dn_lane_spec_evaluations(engine, &specs[0]));
        cJSON_AddNumberToObject(line, "row_flops", dn_plan_flops(engine->model->plan));
        cJSON_AddStringToObject(line, "device", engine->device_text);
        gpu_print(line);
    }
    if (status == DN_OK && path != NULL)
        status = dn_file_write(path, answers, room * floats * sizeof *answers, false, error);
    free(answers);
    free(pixels);
    free(specs);
    return status;
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    dn_engine *engine = NULL;
    dn_engine_options options = {.device = gpu_option(argc, argv, "--device", "cuda:0"),
                                 .plan_cache = gpu_option(argc, argv, "--cache", NULL)};
    const char *model = gpu_option(argc, argv, "--model", NULL);
    const int images = atoi(gpu_option(argc, argv, "--images", "64"));
    if (model == NULL || images < 0 || images > 256) {
        fprintf(stderr, "gpu_generate: --model FOLDER, and 0 to 256 images\n");
        return 64;
    }
    dn_device_choice choice;
    if (dn_device_choose(&choice, options.device, NULL, 0, &error) != DN_OK) {
        gpu_skip(error.message);
        return 0;
    }
    const double began = dn_now_seconds();
    dn_status status = dn_precision_parse(&options.precision, gpu_option(argc, argv, "--precision", "auto"), &error);
    if (status == DN_OK)
        status = dn_engine_open(&engine, model, &options, &error);
    if (status == DN_OK) {
        gpu_print(gpu_figure("open", dn_now_seconds() - began, "s"));
        status = made(engine, (uint32_t)images, began, argc, argv, &error);
    }
    if (status != DN_OK)
        gpu_check("generate", false, "%s", error.message);
    dn_engine_close(engine);
    return gpu_failed > 0;
}
