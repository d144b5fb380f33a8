/* Guidance on a whole engine: the identities at the ends of the scale, intervals and what they cost, autoguidance, the classifier's
 * gradient, and refusals. */
#include "batch_cases.h"

#include "base/philox.h"

static dn_lane_spec spec_with(const char *sampler, double scale, const char *first, const char *second)
{
    case_row row = {.sampler = sampler, .steps = 6, .scale = scale, .label = 3};
    row.options[0] = first;
    row.options[1] = second;
    return spec_of_row(&row, 7);
}

static void make(picture *out, dn_engine *engine, const dn_lane_spec *spec)
{
    if (dn_generate(engine, spec, 1, out->pixels, out->floats, NULL, NULL, &error) != DN_OK) {
        printf("FAIL %s\n", error.message);
        exit(1);
    }
}

static bool same_image(dn_engine *engine, dn_lane_spec a, dn_lane_spec b)
{
    picture first, second;
    make(&first, engine, &a);
    make(&second, engine, &b);
    return same_picture(&first, &second);
}

/* Every method is the conditional row's bytes at s = 1 (CFG++, which has no such end, at none), and s = 0 the null row's. */
static void ends_of_the_scale(void)
{
    static const char *const methods[] = {"guidance_method=cfg", "guidance_method=apg", "guidance_method=autoguidance"};
    dn_engine *engine = open_engine(1);
    dn_lane_spec none = spec_with("ddim", 1.0, NULL, NULL);
    none.has_class = false;
    for (int i = 0; i < 3; i++) {
        dn_lane_spec one = spec_with("ddim", 1.0, methods[i], NULL);
        CHECK(dn_lane_spec_rows(engine, &one) == 1 && dn_lane_spec_evaluations(engine, &one) == 6);
        CHECK_MSG(same_image(engine, one, spec_with("ddim", 1.0, NULL, NULL)), "%s at 1 is not the conditional image", methods[i]);
        CHECK(!same_image(engine, spec_with("ddim", 3.0, methods[i], NULL), one));
    }
    CHECK(same_image(engine, spec_with("ddim", 0.0, "guidance_method=cfg", NULL), none));
    CHECK(same_image(engine, spec_with("ddim", 0.0, "guidance_method=apg", NULL), none));
    CHECK(same_image(engine, spec_with("ddim", 0.0, "guidance_method=cfg_pp", NULL), none));
    CHECK(
        same_image(engine, spec_with("ddim", 2.0, "guidance_method=classifier", "classifier_scale=0"), spec_with("ddim", 2.0, NULL, NULL)));
    dn_engine_close(engine);
}

static uint32_t rows_of_all_ticks(dn_engine *engine, const dn_lane_spec *spec)
{
    static dn_tick_report report;
    dn_batch *batch = NULL;
    uint32_t rows = 0;
    if (dn_batch_create(&batch, engine, 8, &error) != DN_OK || dn_batch_admit(batch, 1, spec, &error) != DN_OK)
        return 0;
    do {
        if (dn_batch_tick(batch, &report, &error) != DN_OK)
            return 0;
        rows += report.rows;
    } while (report.lanes[0].state == DN_LANE_RUNNING);
    dn_batch_free(batch);
    return report.lanes[0].state == DN_LANE_DONE ? rows : 0;
}

/* Rows outside the interval cost one evaluation, and what a spec is said to cost is what its ticks run. */
static void intervals_cost_less(void)
{
    dn_engine *engine = open_engine(1);
    dn_lane_spec all = spec_with("heun", 2.0, NULL, NULL);
    dn_lane_spec part = spec_with("heun", 2.0, "guidance_sigma_min=0.5", "guidance_sigma_max=4");
    dn_lane_spec nowhere = spec_with("heun", 2.0, "guidance_sigma_min=900", "guidance_sigma_max=1000");
    uint32_t most = rows_of_all_ticks(engine, &all), some = rows_of_all_ticks(engine, &part), fewest = rows_of_all_ticks(engine, &nowhere);
    CHECK_MSG(most == 22 && fewest == 11 && some > 11 && some < 22, "%u, %u, %u rows", most, some, fewest);
    CHECK(dn_lane_spec_evaluations(engine, &all) == most && dn_lane_spec_evaluations(engine, &part) == some);
    CHECK(dn_lane_spec_evaluations(engine, &nowhere) == fewest);
    CHECK(same_image(engine, nowhere, spec_with("heun", 1.0, NULL, NULL)));
    dn_lane_spec classified = spec_with("ddim", 2.0, "guidance_method=classifier", NULL);
    CHECK(dn_lane_spec_rows(engine, &classified) == 3 && rows_of_all_ticks(engine, &classified) == 18);
    for (uint32_t i = 0; i < case_count(); i++) {
        dn_lane_spec spec = case_spec(i);
        if (dn_sampler_find(spec.sampler) != NULL && dn_sampler_find(spec.sampler)->adaptive)
            continue; /* nobody knows beforehand */
        CHECK_MSG(dn_lane_spec_evaluations(engine, &spec) == rows_of_all_ticks(engine, &spec), "case %u, %s", i, spec.sampler);
    }
    dn_engine_close(engine);
}

/* A guide that is the network itself changes nothing but rounding: c + s (c - c). */
static void a_network_that_guides_itself(void)
{
    dn_engine *engine = open_engine(1);
    picture guided, plain;
    dn_lane_spec spec = spec_with("ddim", 3.0, "guidance_method=autoguidance", NULL), alone = spec_with("ddim", 1.0, NULL, NULL);
    make(&plain, engine, &alone);
    dn_network *other = engine->guide;
    engine->guide = engine->network;
    make(&guided, engine, &spec);
    CHECK(same_picture(&guided, &plain));
    engine->guide = other;
    make(&guided, engine, &spec);
    CHECK(!same_picture(&guided, &plain));
    dn_engine_close(engine);
}

/* log p(class | scale x, time) of the classifier, by its own network; the gradient against central differences of it. */
static double log_p(dn_network *network, dn_workspace *workspace, dn_buffer *in, dn_buffer *out, const float *x, float time,
                    uint32_t wanted)
{
    float logits[10];
    dn_row row = {.in = in, .in_scale = 0.5f, .time = time, .out = out};
    if (dn_backend_cpu()->buffer_write(in, 0, x, ELEMENTS, &error) != DN_OK ||
        dn_backend_cpu()->run(network, workspace, &row, 1, &error) != DN_OK ||
        dn_backend_cpu()->buffer_read(out, 0, logits, 10, &error) != DN_OK)
        abort();
    double total = 0.0;
    for (int i = 0; i < 10; i++)
        total += exp((double)logits[i]);
    return (double)logits[wanted] - log(total);
}

static void the_gradient_is_the_classifiers(void)
{
    static float x[ELEMENTS], gradient[ELEMENTS];
    dn_engine *engine = open_engine(1);
    const dn_backend *cpu = engine->backend;
    dn_device *device = engine->device;
    dn_model *model = NULL;
    dn_network *network = NULL;
    dn_workspace *workspace = NULL;
    dn_buffer *in = NULL, *out = NULL;
    char folder[] = "/tmp/denoised-classifier-XXXXXX", path[128];
    CHECK(mkdtemp(folder) != NULL);
    save_classifier(folder); /* the same weights again */
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    dn_network_options options = {.plan = model->plan, .weights = model->weights};
    dn_workspace_options work = {.rows_max = 1};
    CHECK_OK(cpu->network_create(&network, device, &options, &error), error);
    CHECK_OK(cpu->workspace_create(&workspace, network, &work, &error), error);
    CHECK_OK(cpu->buffer_create(&in, device, ELEMENTS, &error), error);
    CHECK_OK(cpu->buffer_create(&out, device, ELEMENTS, &error), error);
    dn_noise_normal(x, ELEMENTS, 0, 3, DN_STREAM_TRAIN, 0);
    for (uint32_t wanted = 0; wanted < 10; wanted += 3) {
        float time = 100.0f * (float)wanted + 20.0f;
        dn_row row = {.in = in, .in_scale = 0.5f, .time = time, .condition = {.count = 1, .classes = {wanted}}, .out = out};
        CHECK_OK(cpu->buffer_write(in, 0, x, ELEMENTS, &error), error);
        CHECK_OK(engine->classifier.run(engine->classifier.self, &row, 1, &error), error);
        CHECK_OK(cpu->buffer_read(out, 0, gradient, ELEMENTS, &error), error);
        CHECK(row.finite);
        double most = 0.0, off = 0.0;
        for (int i = 0; i < ELEMENTS; i += 7) {
            const float kept = x[i], step = 0.02f;
            x[i] = kept + step;
            double high = log_p(network, workspace, in, out, x, time, wanted);
            x[i] = kept - step;
            double low = log_p(network, workspace, in, out, x, time, wanted);
            x[i] = kept;
            double slope = (high - low) / (2.0 * (double)step) / 0.5; /* by in_scale * in */
            most = fmax(most, fabs(slope));
            off = fmax(off, fabs(slope - (double)gradient[i]));
        }
        CHECK_MSG(off < 0.02 * most + 1e-5, "class %u: off by %.3g of %.3g", wanted, off, most);
    }
    cpu->buffer_free(in);
    cpu->buffer_free(out);
    cpu->workspace_free(workspace);
    cpu->network_free(network);
    dn_model_free(model);
    snprintf(path, sizeof path, "%s/config.json", folder);
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    (void)unlink(path);
    (void)rmdir(folder);
    dn_engine_close(engine);
}

static void what_cannot_be_followed_is_refused(void)
{
    static const struct {
        const char *sampler;
        double scale;
        const char *option, *words[2];
    } rows[] = {
        {"ddim", 2.0, "guidance_method=cfg_pp", {"guidance_scale", "cfg_pp"}},
        {"dpmpp_2m", 0.5, "guidance_method=cfg_pp", {"cfg_pp", "dpmpp_2m"}},
        {"ddim", 2.0, "apg_eta=0.5", {"apg_eta", "cfg"}},
        {"ddim", 2.0, "classifier_scale=2", {"classifier_scale", "cfg"}},
        {"ddim", 2.0, "guidance_rescale=1.5", {"guidance_rescale", "from 0 to 1"}},
        {"ddim", 2.0, "guidance_channels=4", {"guidance_channels", "from 0 to 3"}},
        {"ddim", 2.0, "guidance_sigma_max=0", {"guidance_sigma_min", "below"}},
    };
    dn_engine *engine = open_engine(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_lane_spec spec = spec_with(rows[i].sampler, rows[i].scale, rows[i].option, NULL);
        dn_status status = dn_lane_spec_check(engine, &spec, &error);
        CHECK_MSG(status == DN_INVALID && strstr(error.message, rows[i].words[0]) && strstr(error.message, rows[i].words[1]), "row %zu: %s",
                  i, status == DN_OK ? "accepted" : error.message);
    }
    dn_lane_spec spec = spec_with("ddim", 2.0, "guidance_method=classifier", NULL);
    spec.has_class = false;
    CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "class_label"));
    spec = spec_with("ddim", 2.0, "guidance_method=autoguidance", NULL);
    spec.has_negative = true;
    CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "negative_class"));
    spec = spec_with("ddim", 1.0, NULL, NULL);
    spec.has_negative = true;
    CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "negative_class"));
    dn_engine_close(engine);
}

int main(void)
{
    RUN(ends_of_the_scale);
    RUN(intervals_cost_less);
    RUN(a_network_that_guides_itself);
    RUN(the_gradient_is_the_classifiers);
    RUN(what_cannot_be_followed_is_refused);
    return test_end();
}
