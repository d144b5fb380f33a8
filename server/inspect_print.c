/* The facts of `denoised inspect` as text for people, and as JSON. One thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/text.h"
#include "server/inspect.h"

#define CLASSES_SHOWN_MAX 12u

static double mib(uint64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

static const char *prediction_name(dn_prediction prediction)
{
    static const char *const names[] = {[DN_PREDICT_EPSILON] = "epsilon",
                                        [DN_PREDICT_SAMPLE] = "sample",
                                        [DN_PREDICT_V] = "v_prediction",
                                        [DN_PREDICT_FLOW] = "flow_prediction"};
    return names[prediction];
}

static const char *family_name(dn_family family)
{
    static const char *const names[] = {[DN_FAMILY_VP] = "variance preserving",
                                        [DN_FAMILY_EDM] = "EDM",
                                        [DN_FAMILY_FLOW] = "flow matching",
                                        [DN_FAMILY_VE] = "variance exploding"};
    return names[family];
}

static const char *convention_name(dn_convention convention)
{
    static const char *const names[] = {[DN_CONVENTION_DIFFUSERS] = "diffusers",
                                        [DN_CONVENTION_GUIDED_DIFFUSION] = "guided-diffusion",
                                        [DN_CONVENTION_SIT] = "SiT",
                                        [DN_CONVENTION_REPA] = "REPA",
                                        [DN_CONVENTION_EDM] = "EDM"};
    return names[convention];
}

/* ---- Text */

static void print_weights(const inspect_weights *w)
{
    printf("weights       %s\n", w->path);
    printf("stored        %u tensors in %u file%s, %.2f MiB:", w->tensors, w->shards, w->shards == 1 ? "" : "s", mib(w->bytes));
    const char *between = " ";
    for (uint32_t i = 0; i < INSPECT_TYPES; i++)
        if (w->numbers_of[i] > 0) {
            printf("%s%" PRIu64 " numbers of %s", between, w->numbers_of[i], dn_dtype_name((dn_dtype)i));
            between = ", ";
        }
    printf("\n");
    if (w->numbers > w->needed)
        printf("not read      %" PRIu64 " numbers: stored twice, or not needed to denoise\n", w->numbers - w->needed);
}

static void print_classes(const dn_engine *engine)
{
    const dn_model_folder *folder = engine->folder;
    printf("classes       %u", engine->class_count);
    if (engine->null_class != DN_NONE)
        printf(", null class in row %u", engine->null_class);
    else if (engine->class_count > 0)
        printf(", no null class");
    for (uint32_t i = 0; i < folder->class_count && i < CLASSES_SHOWN_MAX; i++)
        printf("%s%s", i ? "; " : ": ", folder->class_names[i]);
    printf("%s\n", folder->class_count > CLASSES_SHOWN_MAX ? "; ..." : "");
}

static void print_abilities(const inspect_facts *f)
{
    const api_model *model = f->description;
    const char *const *methods = dn_option_info_of(DN_OPT_GUIDANCE_METHOD)->choices;
    const dn_sampler *sampler;
    printf("guidance     ");
    for (uint32_t i = 0; methods[i]; i++)
        if (model->guidance_methods >> i & 1u)
            printf(" %s", methods[i]);
    printf("%s\n", model->guidance_methods ? "" : " none");
    if (f->engine->folder->guide_path)
        printf("guide         %s, for autoguidance\n", f->engine->folder->guide_path);
    if (f->engine->folder->classifier_path)
        printf("classifier    %s, for classifier guidance%s\n", f->engine->folder->classifier_path,
               f->engine->backend->host_values ? "" : ", which runs on the CPU alone");
    printf("samplers     ");
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++)
        if (api_model_serves(model, sampler))
            printf(" %s", sampler->name);
    printf("\n\"model\" is    %s, for %s\n", model->model_sampler[0] ? model->model_sampler : "no sampler of this program",
           f->engine->scheduler.class_name);
    printf("defaults      sampler %s, %u steps, guidance scale %g\n", model->default_sampler, model->default_steps,
           model->default_guidance);
}

static void print_costs(const inspect_facts *f)
{
    char device[128];
    f->engine->backend->device_describe(f->engine->device, device, sizeof device);
    double stored = mib(f->weights.needed * sizeof(float));
    printf("device        %s\n", device);
    if (f->engine->gpu[0])
        printf("              %s\n", f->engine->gpu);
    printf("work          %.4g GFLOP a row", f->gflop);
    if (f->engine->precision != DN_PRECISION_FP32)
        printf(", %.3g %% of them in %s", 100.0 * f->gflop_half / f->gflop, dn_precision_name(f->engine->precision));
    printf("\n");
    if (f->form[0])
        printf("compiled      %s\n", f->form);
    if (f->engine->plan[0])
        printf("plan          %s\n", f->engine->plan);
    printf("memory        %.2f MiB of packed weights (%.2f MiB as floats%s)\n", mib(f->packed_bytes), stored,
           f->engine->gpu[0] ? "" : ", the rest for Winograd and padding");
    printf("              %.2f MiB a lane at most", mib(f->lane_bytes));
    if (f->engine->network)
        printf("; %.2f MiB for the first row of a tick, %.2f MiB for each further one", mib(f->arena_bytes), mib(f->row_bytes));
    if (f->measured)
        printf(", %.2f MiB for %u", mib(f->tick_bytes), f->rows_max);
    printf("\n");
    if (f->kept_bytes)
        printf("              %.2f MiB at most for the vectors of times and conditions met before\n", mib(f->kept_bytes));
    if (f->measured)
        printf("speed         %.3g ms a row alone, %.3g ms among %u (%.3g GFLOP/s): at most %u rows a tick\n", 1e3 * f->row_seconds,
               1e3 * f->rows_seconds, f->rows, f->gflop / f->rows_seconds, f->rows_max);
    else if (f->engine->network)
        printf("speed         not measured: a row is more than %g GFLOP\n", INSPECT_GFLOP_MAX);
}

static void print_codec(const inspect_facts *f)
{
    const dn_engine *engine = f->engine;
    if (!f->has_codec)
        return;
    printf("codec         %s: pictures of %u x %u pixels, %u channels\n", engine->codec_path, engine->image_width, engine->image_height,
           engine->image_channels);
    if (f->measured)
        printf("              %.2f MiB, %.3g ms a picture%s\n", mib(f->codec_bytes), 1e3 * f->decode_seconds,
               f->codec.tiled ? ", in tiles" : "");
}

static const char *what_is_denoised(const inspect_facts *f)
{
    uint32_t channels = f->engine->model->channels;
    if (f->has_codec)
        return "latents";
    return channels == 1 || channels == 3 ? "pixels" : "latents of an autoencoder that is not here";
}

void inspect_print_text(const inspect_facts *f)
{
    const dn_engine *engine = f->engine;
    const dn_model *model = engine->model;
    const char *pipeline = engine->folder->pipeline_class;
    printf("model         %s\n", engine->folder->path);
    printf("architecture  %s, %s%s; the format is that of %s\n", model->architecture, pipeline ? "in a " : "alone",
           pipeline ? pipeline : "", convention_name(model->convention));
    printf("sample        %u x %u %s, %u channels; answers %u channels%s\n", model->width, model->height, what_is_denoised(f),
           model->channels, model->out_channels, f->description->learned_variance ? ", half of them its variance" : "");
    printf("parameters    %" PRIu64 " in %u weights of %u nodes\n", f->weights.needed, model->plan->weight_count, model->plan->node_count);
    print_weights(&f->weights);
    if (model->weights_sha256[0])
        printf("sha256        %s\n", model->weights_sha256);
    print_classes(engine);
    printf("training      %s, ", family_name(engine->training->family));
    if (engine->training->alphas_cumprod)
        printf("%u timesteps, ", engine->training->timesteps);
    printf("predicts %s\n", prediction_name(engine->training->prediction));
    print_abilities(f);
    print_codec(f);
    print_costs(f);
}

/* ---- JSON */

static void add_weights(api_text *text, const inspect_weights *w)
{
    const char *between = "";
    api_text_add(text, ",\"weights\":{\"path\":");
    api_text_string(text, w->path);
    api_text_format(text, ",\"files\":%u,\"tensors\":%u,\"bytes\":%" PRIu64 ",\"numbers\":%" PRIu64 ",\"not_read\":%" PRIu64 ",\"types\":{",
                    w->shards, w->tensors, w->bytes, w->numbers, w->numbers > w->needed ? w->numbers - w->needed : 0);
    for (uint32_t i = 0; i < INSPECT_TYPES; i++)
        if (w->numbers_of[i] > 0) {
            api_text_format(text, "%s\"%s\":%" PRIu64, between, dn_dtype_name((dn_dtype)i), w->numbers_of[i]);
            between = ",";
        }
    api_text_add(text, "}}");
}

/* Null where it was not measured. */
static void add_measure(api_text *text, const char *name, bool known, double value)
{
    api_text_format(text, ",\"%s\":", name);
    api_text_number(text, known ? value : (double)NAN);
}

static void add_costs(api_text *text, const inspect_facts *f)
{
    bool open = f->engine->network != NULL;
    api_text_add(text, ",\"costs\":{\"gflop_row\":");
    api_text_number(text, f->gflop);
    api_text_add(text, ",\"gflop_row_16_bit\":");
    api_text_number(text, f->gflop_half);
    api_text_add(text, ",\"form\":");
    api_text_string(text, f->form[0] ? f->form : NULL);
    api_text_format(text, ",\"packed_bytes\":%zu,\"lane_bytes\":%zu", f->packed_bytes, f->lane_bytes);
    add_measure(text, "first_row_bytes", open, (double)f->arena_bytes);
    add_measure(text, "further_row_bytes", open, (double)f->row_bytes);
    add_measure(text, "tick_bytes", f->measured, (double)f->tick_bytes);
    add_measure(text, "kept_bytes", open, (double)f->kept_bytes);
    add_measure(text, "row_ms", f->measured, 1e3 * f->row_seconds);
    add_measure(text, "row_among_many_ms", f->measured, 1e3 * f->rows_seconds);
    add_measure(text, "rows_max", f->measured, f->rows_max);
    add_measure(text, "codec_bytes", f->measured && f->has_codec, (double)f->codec_bytes);
    add_measure(text, "decode_ms", f->measured && f->has_codec, 1e3 * f->decode_seconds);
    api_text_add(text, "}");
}

char *inspect_json(const inspect_facts *f)
{
    const dn_engine *engine = f->engine;
    api_text text = API_TEXT_INIT;
    char *model = api_model_body(f->description, "model", "ready", NULL, true, NULL);
    text.failed = model == NULL;
    api_text_add(&text, "{\"error\":null,\"path\":");
    api_text_string(&text, engine->folder->path);
    api_text_add(&text, ",\"pipeline\":");
    api_text_string(&text, engine->folder->pipeline_class);
    api_text_add(&text, ",\"format\":");
    api_text_string(&text, convention_name(engine->model->convention));
    api_text_format(&text, ",\"parameters\":%" PRIu64 ",\"training\":", f->weights.needed);
    api_text_string(&text, family_name(engine->training->family));
    api_text_add(&text, ",\"prediction\":");
    api_text_string(&text, prediction_name(engine->training->prediction));
    api_text_add(&text, ",\"scheduler\":");
    api_text_string(&text, engine->scheduler.class_name);
    api_text_add(&text, ",\"codec\":");
    api_text_string(&text, engine->codec_path);
    api_text_add(&text, ",\"guide\":");
    api_text_string(&text, engine->folder->guide_path);
    api_text_add(&text, ",\"classifier\":");
    api_text_string(&text, engine->folder->classifier_path);
    add_weights(&text, &f->weights);
    add_costs(&text, f);
    api_text_add(&text, ",\"model\":");
    api_text_add(&text, model ? model : "null");
    api_text_add(&text, "}");
    free(model);
    return api_text_take(&text);
}

char *inspect_error_json(const dn_error *error)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"error\":");
    api_text_string(&text, error->message);
    api_text_add(&text, "}");
    return api_text_take(&text);
}
