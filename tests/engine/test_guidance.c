/* Guidance: every method against its formula in float64, through the program that the CPU runs; which rows are asked for; and on a
 * whole engine the identities at the ends of the scale, intervals, autoguidance and the classifier's gradient. */
#include "batch_cases.h"

#include "base/philox.h"
#include "diffusion/guidance.h"

#define N 12 /* elements of the register programs */

static dn_device *device;
static dn_buffer *registers;

/* One evaluation in float64: x, the raw answers, and what becomes of them. */
typedef struct bench {
    dn_sampler_context context;
    dn_training_schedule training;
    dn_evaluation evaluation;
    double x[N], cond[N], uncond[N], guide[N];
    double x0[N], eps[N], x_after[N];
    bool moving;
} bench;

static void fill(double out[N], uint32_t draw)
{
    float values[N];
    dn_noise_normal(values, N, 0, 9, DN_STREAM_TRAIN, draw);
    for (int i = 0; i < N; i++)
        out[i] = (double)values[i];
}

static void set_up(bench *b, dn_prediction prediction, double sigma)
{
    memset(b, 0, sizeof *b);
    b->training = (dn_training_schedule){.family = DN_FAMILY_VP, .prediction = prediction};
    b->context.training = &b->training;
    b->evaluation.reg = DN_REG_X;
    b->evaluation.level = (dn_level){.time = 400.0, .alpha = sqrt(1.0 - sigma * sigma), .sigma = sigma};
    fill(b->x, 1);
    fill(b->cond, 2);
    fill(b->uncond, 3);
    fill(b->guide, 4);
}

static void put(uint32_t reg, const double values[N])
{
    float floats[N];
    for (int i = 0; i < N; i++)
        floats[i] = (float)values[i];
    if (dn_backend_cpu()->buffer_write(registers, reg * N, floats, N, &error) != DN_OK)
        abort();
}

static void get(uint32_t reg, double values[N])
{
    float floats[N];
    if (dn_backend_cpu()->buffer_read(registers, reg * N, floats, N, &error) != DN_OK)
        abort();
    for (int i = 0; i < N; i++)
        values[i] = (double)floats[i];
}

/* What a lane does with the answers. */
static void fold(bench *b, const dn_guidance *guidance, uint32_t rows)
{
    dn_ops ops = {.count = 0};
    put(DN_REG_X, b->x);
    put(DN_REG_COND, b->cond);
    put(DN_REG_UNCOND, b->uncond);
    put(DN_REG_GUIDE, b->guide);
    dn_guidance_fold(guidance, &b->context, &b->evaluation, rows, &b->moving, &ops);
    dn_parametrise(&b->context, &b->evaluation, DN_REG_COND, &ops);
    dn_guidance_renoise(guidance, &b->context, &b->evaluation, rows, &ops);
    dn_program program = {.registers = registers, .elements = N, .ops = ops.op, .op_count = ops.count};
    if (dn_backend_cpu()->execute(device, &program, 1, &error) != DN_OK)
        abort();
    get(DN_REG_X0, b->x0);
    get(DN_REG_EPS, b->eps);
    get(DN_REG_X, b->x_after);
}

/* x0 and noise of a raw answer, from the papers' formulas (alpha^2 + sigma^2 = 1). */
static void predict(const bench *b, const double raw[N], double x0[N], double eps[N])
{
    double alpha = b->evaluation.level.alpha, sigma = b->evaluation.level.sigma;
    for (int i = 0; i < N; i++) {
        if (b->training.prediction == DN_PREDICT_EPSILON) {
            x0[i] = (b->x[i] - sigma * raw[i]) / alpha;
            eps[i] = raw[i];
        } else if (b->training.prediction == DN_PREDICT_SAMPLE) {
            x0[i] = raw[i];
            eps[i] = (b->x[i] - alpha * raw[i]) / sigma;
        } else {
            x0[i] = alpha * b->x[i] - sigma * raw[i];
            eps[i] = alpha * raw[i] + sigma * b->x[i];
        }
    }
}

static double distance(const double a[N], const double b[N])
{
    double most = 0.0, size = 1.0;
    for (int i = 0; i < N; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
        size = fmax(size, fabs(b[i]));
    }
    return most / size;
}

#define CLOSE(a, b) CHECK_MSG(distance(a, b) < 3e-6, "prediction %d, sigma %g: off by %.3g", (int)p, sigma, distance(a, b))
#define EACH_BENCH(b)                                                                                                                      \
    for (dn_prediction p = DN_PREDICT_EPSILON; p <= DN_PREDICT_V; p++)                                                                     \
        for (double sigma = 0.2; sigma < 0.99 && (set_up(&b, p, sigma), true); sigma += 0.25)

#define BOTH (DN_ROW_COND | DN_ROW_NULL)

static void free_of_classifiers(void)
{
    bench b;
    EACH_BENCH(b)
    {
        double raw[N], x0[N], eps[N];
        dn_guidance guidance = {.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.5, .sigma_max = INFINITY};
        for (int i = 0; i < N; i++)
            raw[i] = b.uncond[i] + 2.5 * (b.cond[i] - b.uncond[i]);
        predict(&b, raw, x0, eps);
        fold(&b, &guidance, BOTH);
        CLOSE(b.x0, x0);
        CLOSE(b.eps, eps);
        guidance.method = DN_GUIDE_AUTO; /* the same, with the guide's answer in the null row's place */
        fold(&b, &guidance, DN_ROW_COND | DN_ROW_GUIDE);
        CLOSE(b.x0, x0);
        guidance.split = 5;
        for (int i = 5; i < N; i++)
            raw[i] = b.cond[i];
        predict(&b, raw, x0, eps);
        fold(&b, &guidance, DN_ROW_COND | DN_ROW_GUIDE);
        CLOSE(b.x0, x0);
    }
}

static double deviation(const double v[N])
{
    double mean = 0.0, sum = 0.0;
    for (int i = 0; i < N; i++)
        mean += v[i] / N;
    for (int i = 0; i < N; i++)
        sum += (v[i] - mean) * (v[i] - mean);
    return sqrt(sum / (N - 1));
}

/* Lin et al. 2023, section 3.4, on the raw answer as diffusers' rescale_noise_cfg. */
static void rescaled(void)
{
    bench b;
    EACH_BENCH(b)
    {
        double raw[N], x0[N], eps[N], phi = 0.7;
        const dn_guidance guidance = {.method = DN_GUIDE_CFG, .conditional = true, .scale = 6.0, .sigma_max = INFINITY, .rescale = phi};
        for (int i = 0; i < N; i++)
            raw[i] = b.uncond[i] + 6.0 * (b.cond[i] - b.uncond[i]);
        double factor = deviation(b.cond) / deviation(raw);
        for (int i = 0; i < N; i++)
            raw[i] = phi * raw[i] * factor + (1.0 - phi) * raw[i];
        predict(&b, raw, x0, eps);
        fold(&b, &guidance, BOTH);
        CLOSE(b.x0, x0);
    }
}

/* x0 from the guided answer, noise from the null row's, and x where the two say. */
static void plus_plus(void)
{
    bench b;
    EACH_BENCH(b)
    {
        double raw[N], x0[N], unused[N], eps[N], x[N];
        const dn_guidance guidance = {.method = DN_GUIDE_CFG_PP, .conditional = true, .scale = 0.6, .sigma_max = INFINITY};
        for (int i = 0; i < N; i++)
            raw[i] = b.uncond[i] + 0.6 * (b.cond[i] - b.uncond[i]);
        predict(&b, b.uncond, unused, eps);
        predict(&b, raw, x0, unused);
        for (int i = 0; i < N; i++)
            x[i] = b.evaluation.level.alpha * x0[i] + b.evaluation.level.sigma * eps[i];
        fold(&b, &guidance, BOTH);
        CLOSE(b.x0, x0);
        CLOSE(b.eps, eps);
        CLOSE(b.x_after, x);
    }
}

/* Adaptive projected guidance as diffusers' normalized_guidance has it. */
static void project(double out[N], const double difference[N], const double along[N], double bound, double eta)
{
    double size = 0.0, square = 0.0, dot = 0.0, d[N];
    for (int i = 0; i < N; i++)
        size += difference[i] * difference[i];
    double scale = bound > 0.0 && sqrt(size) > bound ? bound / sqrt(size) : 1.0;
    for (int i = 0; i < N; i++) {
        d[i] = difference[i] * scale;
        square += along[i] * along[i];
        dot += d[i] * along[i];
    }
    for (int i = 0; i < N; i++) {
        double parallel = dot / square * along[i];
        out[i] = d[i] - parallel + eta * parallel;
    }
}

static void projected(void)
{
    bench b;
    EACH_BENCH(b)
    {
        double dc[N], du[N], unused[N], mean[N], update[N], x0[N];
        const dn_guidance guidance = {.method = DN_GUIDE_APG,
                                      .conditional = true,
                                      .scale = 4.0,
                                      .sigma_max = INFINITY,
                                      .apg_eta = 0.3,
                                      .apg_norm = 2.0,
                                      .apg_momentum = -0.5};
        predict(&b, b.cond, dc, unused);
        predict(&b, b.uncond, du, unused);
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < N; i++)
                mean[i] = dc[i] - du[i] + (round > 0 ? -0.5 * mean[i] : 0.0);
            project(update, mean, dc, 2.0, 0.3);
            for (int i = 0; i < N; i++)
                x0[i] = du[i] + 4.0 * update[i];
            fold(&b, &guidance, BOTH);
            CLOSE(b.x0, x0);
            get(DN_REG_GUIDE, b.guide);
            CHECK(b.moving);
        }
    }
}

/* eps - sigma s grad, x0 + sigma^2 / alpha s grad. */
static void by_a_classifier(void)
{
    bench b;
    EACH_BENCH(b)
    {
        double x0[N], eps[N], alpha = b.evaluation.level.alpha;
        const dn_guidance guidance = {
            .method = DN_GUIDE_CLASSIFIER, .conditional = true, .scale = 1.0, .sigma_max = INFINITY, .classifier_scale = 3.0};
        predict(&b, b.cond, x0, eps);
        for (int i = 0; i < N; i++) {
            x0[i] += sigma * sigma / alpha * 3.0 * b.guide[i];
            eps[i] -= sigma * 3.0 * b.guide[i];
        }
        fold(&b, &guidance, DN_ROW_COND | DN_ROW_GRADIENT);
        CLOSE(b.x0, x0);
        CLOSE(b.eps, eps);
    }
}

static void rows_that_are_asked_for(void)
{
    static const struct {
        dn_guidance guidance;
        double sigma;
        uint32_t rows;
    } rows[] = {
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, BOTH},
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 1.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 0.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_NULL},
        {{.method = DN_GUIDE_CFG, .conditional = false, .scale = 3.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.0, .sigma_min = 0.6, .sigma_max = 5.0}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.0, .sigma_min = 0.5, .sigma_max = 5.0},
         0.5,
         BOTH}, /* 0.5 / sqrt(0.75) = 0.577 */
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 0.0, .sigma_min = 0.5, .sigma_max = 0.55}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_CFG_PP, .conditional = true, .scale = 1.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, BOTH},
        {{.method = DN_GUIDE_CFG_PP, .conditional = true, .scale = 0.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_NULL},
        {{.method = DN_GUIDE_APG, .conditional = true, .scale = 4.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, BOTH},
        {{.method = DN_GUIDE_APG, .conditional = true, .scale = 1.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_AUTO, .conditional = true, .scale = 2.0, .sigma_min = 0.0, .sigma_max = INFINITY},
         0.5,
         DN_ROW_COND | DN_ROW_GUIDE},
        {{.method = DN_GUIDE_AUTO, .conditional = false, .scale = 2.0, .sigma_min = 0.0, .sigma_max = INFINITY},
         0.5,
         DN_ROW_COND | DN_ROW_GUIDE},
        {{.method = DN_GUIDE_AUTO, .conditional = true, .scale = 1.0, .sigma_min = 0.0, .sigma_max = INFINITY}, 0.5, DN_ROW_COND},
        {{.method = DN_GUIDE_CLASSIFIER,
          .conditional = true,
          .scale = 1.0,
          .sigma_min = 0.0,
          .sigma_max = INFINITY,
          .classifier_scale = 1.0},
         0.5,
         DN_ROW_COND | DN_ROW_GRADIENT},
        {{.method = DN_GUIDE_CLASSIFIER,
          .conditional = true,
          .scale = 0.0,
          .sigma_min = 0.0,
          .sigma_max = INFINITY,
          .classifier_scale = 1.0},
         0.5,
         DN_ROW_NULL | DN_ROW_GRADIENT},
        {{.method = DN_GUIDE_CLASSIFIER,
          .conditional = true,
          .scale = 2.0,
          .sigma_min = 0.0,
          .sigma_max = INFINITY,
          .classifier_scale = 0.0},
         0.5,
         BOTH},
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.0, .sigma_min = 0.0, .sigma_max = INFINITY},
         1.0,
         BOTH}, /* no signal: the ratio is infinite */
        {{.method = DN_GUIDE_CFG, .conditional = true, .scale = 2.0, .sigma_min = 0.0, .sigma_max = 1e9}, 1.0, DN_ROW_COND},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_level level = {.alpha = sqrt(1.0 - rows[i].sigma * rows[i].sigma), .sigma = rows[i].sigma};
        uint32_t asked = dn_guidance_rows(&rows[i].guidance, &level);
        CHECK_MSG(asked == rows[i].rows, "row %zu: asks for %u, not %u", i, asked, rows[i].rows);
    }
}

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
    const dn_backend *cpu = dn_backend_cpu();
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
    dn_device_options options = {.threads = 1};
    if (dn_backend_cpu()->device_open(&device, &options, &error) != DN_OK ||
        dn_backend_cpu()->buffer_create(&registers, device, (size_t)DN_REG_COUNT * N, &error) != DN_OK)
        return 1;
    RUN(free_of_classifiers);
    RUN(rescaled);
    RUN(plus_plus);
    RUN(projected);
    RUN(by_a_classifier);
    RUN(rows_that_are_asked_for);
    RUN(ends_of_the_scale);
    RUN(intervals_cost_less);
    RUN(a_network_that_guides_itself);
    RUN(the_gradient_is_the_classifiers);
    RUN(what_cannot_be_followed_is_refused);
    dn_backend_cpu()->buffer_free(registers);
    dn_backend_cpu()->device_close(device);
    return test_end();
}
