/* What the wire accepts, the engine takes: random requests for real models, each accepted one held against dn_lane_spec_check, so that
 * no job fails for its options. Models: one of pixels, one of latents with a learned variance, one trained by flow matching, EDM's. */
#include "api/generate_request.h"
#include "api/text.h"
#include "engine.h"
#include "format/png_image.h"
#include "server/describe_model.h"
#include "tests/test.h"

#define REQUESTS 3000

static api_model *described;

static const api_model *lookup(void *payload, const char *name)
{
    (void)payload;
    return name && strcmp(name, described->name) != 0 ? NULL : described;
}

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 20261122;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static char *picture_in_base64(void)
{
    unsigned char *png = NULL;
    size_t bytes = 0;
    uint8_t *pixels = calloc((size_t)described->width * described->height, described->channels);
    api_text text = API_TEXT_INIT;
    if (!pixels || dn_png_encode(&png, &bytes, pixels, described->width, described->height, described->channels, NULL, 0, NULL) != DN_OK) {
        abort();
    }
    api_text_base64(&text, png, bytes);
    free(png);
    free(pixels);
    return api_text_take(&text);
}

/* A value of the field's range, more often than not one of its ends or its standard. */
static void add_value(api_text *text, const dn_option_field *field)
{
    const dn_option_info *info = dn_option_info_of(field->id);
    double width = field->maximum - field->minimum, value = field->minimum + width * draw(1000) / 999.0;
    switch (draw(5)) {
    case 0:
        value = field->minimum;
        break;
    case 1:
        value = field->maximum;
        break;
    case 2:
        value = isnan(field->standard) ? value : field->standard;
        break;
    default:
        break;
    }
    value = info->type == DN_TYPE_NUMBER ? value : rint(value);
    api_text_format(text, ",\"%s\":", info->name);
    if (info->type == DN_TYPE_BOOLEAN) {
        api_text_bool(text, value != 0);
    } else if (info->type == DN_TYPE_CHOICE) {
        api_text_string(text, info->choices[(uint32_t)value]);
    } else {
        api_text_number(text, value);
    }
}

static void add_options(api_text *text, const dn_option_field *fields, uint32_t count, uint32_t wanted)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < wanted && count > 0; i++) {
        uint32_t chosen = draw(count);
        if (!(used >> chosen & 1u)) {
            add_value(text, &fields[chosen]);
        }
        used |= UINT64_C(1) << chosen;
    }
}

static void add_classes(api_text *text)
{
    static const char *const rows[] = {"",
                                       ",\"class_label\":1",
                                       ",\"class_label\":0",
                                       ",\"class_label\":2,\"negative_class\":1",
                                       ",\"negative_class\":1",
                                       ",\"class_mixture\":[{\"class_label\":0,\"weight\":0.5},{\"class_label\":1,\"weight\":-2}]",
                                       ",\"class_mixture\":[{\"class_label\":2,\"weight\":1}],\"negative_class\":0"};
    static const char *const scales[] = {"",
                                         ",\"guidance_scale\":1",
                                         ",\"guidance_scale\":0",
                                         ",\"guidance_scale\":3.5",
                                         ",\"guidance_scale\":0.5",
                                         ",\"guidance_scale\":-100"};
    api_text_add(text, rows[draw(7)]);
    api_text_add(text, scales[draw(6)]);
}

/* Fields may be repeated by the draws below; such a body is refused as a whole, which is an answer too. */
static char *draw_body(const char *picture)
{
    static const uint32_t steps[] = {1, 2, 3, 5, 20, 50, 999, 1000};
    api_text text = API_TEXT_INIT;
    uint32_t count = 0;
    while (dn_sampler_at(count)) {
        count++;
    }
    const dn_sampler *sampler = dn_sampler_at(draw(count));
    bool own = draw(6) == 0;
    const dn_sampler *used = own ? dn_sampler_find(described->model_sampler) : sampler;
    api_text_format(&text, "{\"sampler\":\"%s\",\"steps\":%u", own ? "model" : sampler->name, steps[draw(8)]);
    add_classes(&text);
    if (draw(3) == 0 || (used && used->inverts)) {
        api_text_format(&text, ",\"init_image\":\"%s\"", picture);
        if (draw(2) == 0) {
            api_text_format(&text, ",\"mask_image\":\"%s\"", picture);
        }
    }
    if (draw(4) == 0) {
        api_text_add(&text, ",\"variation_seed\":7");
    }
    if (used) {
        add_options(&text, used->fields, used->field_count, draw(5));
    }
    add_options(&text, described->fields, described->field_count, draw(4));
    api_text_add(&text, "}");
    return api_text_take(&text);
}

/* As the worker makes it. */
static dn_lane_spec spec_of(const api_request *r)
{
    static const float somewhere[1];
    dn_lane_spec spec = {.seed = r->seed,
                         .has_class = r->has_class,
                         .class_index = r->class_index,
                         .mixture = {.count = r->mixture_count},
                         .has_negative = r->has_negative,
                         .negative_class = r->negative.index,
                         .guidance_scale = r->guidance_scale,
                         .steps = r->steps,
                         .options = r->options,
                         .has_variation = r->has_variation,
                         .variation_seed = r->variation_seed,
                         .init = r->init_image.sha256[0] ? somewhere : NULL,
                         .mask = r->mask_image.sha256[0] ? somewhere : NULL};
    for (uint32_t i = 0; i < r->mixture_count; i++) {
        spec.mixture.classes[i] = r->mixture[i].label.index;
        spec.mixture.weights[i] = (float)r->mixture[i].weight;
    }
    snprintf(spec.sampler, sizeof spec.sampler, "%s", r->sampler);
    return spec;
}

/* One random request: false with a message when the two disagree; *accepted counts. The cost bounds the rows of what is accepted. */
static bool agree(const dn_engine *engine, const char *picture, uint32_t *accepted)
{
    api_request *requests = NULL;
    api_problem problem;
    size_t count = 0;
    bool is_array, fine = true;
    char *body = draw_body(picture);
    bool ok = api_parse_generate(&requests, &count, &is_array, body, strlen(body), lookup, NULL, &problem);
    if (ok) {
        dn_error error = {DN_OK, ""};
        dn_lane_spec spec = spec_of(&requests[0]);
        fine = dn_lane_spec_check(engine, &spec, &error) == DN_OK;
        *accepted += 1;
        if (!fine) {
            char *shown = api_request_json(&requests[0]);
            printf("# %s: %s\n", shown, error.message);
            free(shown);
        }
        free(requests);
    } else if (problem.code == API_INTERNAL || !problem.detail[0]) {
        printf("# %.300s: %s\n", body, problem.detail);
        fine = false;
    }
    free(body);
    return fine;
}

static void hold_against(const char *folder)
{
    const dn_engine_options options = {.threads = 1, .describe_only = true};
    dn_engine *engine = NULL;
    dn_error error = {DN_OK, ""};
    uint32_t accepted = 0, wrong = 0;
    dn_status status = dn_engine_open(&engine, folder, &options, &error);
    CHECK_MSG(status == DN_OK, "%s", error.message);
    api_model *model = NULL;
    status = dn_describe_model(&model, "m", engine, &error);
    /* The daemon knows what was stored, not what was described. */
    char *json = status == DN_OK ? api_model_to_json(model) : NULL;
    status = json ? api_model_from_json(&described, json, strlen(json), &error) : DN_INVALID;
    free(json);
    api_model_free(model);
    CHECK_MSG(status == DN_OK, "%s", error.message);
    char *picture = picture_in_base64();
    for (uint32_t i = 0; i < REQUESTS; i++) {
        wrong += !agree(engine, picture, &accepted);
    }
    free(picture);
    api_model_free(described);
    dn_engine_close(engine);
    CHECK_MSG(wrong == 0, "%s: %u of %u accepted requests are refused by the engine", folder, wrong, accepted);
    CHECK_MSG(accepted > REQUESTS / 50, "%s: only %u accepted", folder, accepted);
}

static void pixels(void)
{
    hold_against("tests/golden/pipe_unet_ddim10_cfg3");
}

static void the_built_in_model(void)
{
    hold_against("models/fashion-mnist");
}

static void latents_with_a_learned_variance(void)
{
    hold_against("tests/golden/pipe_dit_ddpm10_cfg4");
}

/* The pipeline of pixels with another scheduler: the same network, taken as if it had been trained otherwise. */
static void hold_against_scheduler(const char *class_name)
{
    char folder[64] = "/tmp/denoised-agreement-XXXXXX", command[512];
    CHECK(mkdtemp(folder));
    snprintf(command, sizeof command,
             "cp -rL tests/golden/pipe_unet_ddim10_cfg3/. %s && chmod -R u+w %s && "
             "echo '{\"_class_name\":\"%s\"}' >%s/scheduler/scheduler_config.json",
             folder, folder, class_name, folder);
    int copied = system(command);
    if (copied == 0) {
        hold_against(folder);
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(system(command) == 0 && copied == 0);
}

static void flow_matching(void)
{
    hold_against_scheduler("FlowMatchEulerDiscreteScheduler");
}

static void edm(void)
{
    hold_against_scheduler("EDMEulerScheduler");
}

static void variance_exploding(void)
{
    hold_against_scheduler("ScoreSdeVeScheduler");
}

static void other_schedulers(void)
{
    static const char *const names[] = {"UniPCMultistepScheduler", "PNDMScheduler", "LCMScheduler", "DPMSolverSinglestepScheduler",
                                        "DDPMScheduler"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        hold_against_scheduler(names[i]);
    }
}

int main(void)
{
    RUN(pixels);
    RUN(the_built_in_model);
    RUN(latents_with_a_learned_variance);
    RUN(flow_matching);
    RUN(edm);
    RUN(variance_exploding);
    RUN(other_schedulers);
    return test_end();
}
