/* Guidance: every method against its formula in float64, through the program that the CPU runs; and which rows are asked for. */
#include "tests/test.h"

#include "base/philox.h"
#include "diffusion/family.h"
#include "diffusion/guidance.h"

#define N 12 /* elements of the register programs */

static dn_error error;
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
        most = isfinite(a[i]) ? fmax(most, fabs(a[i] - b[i])) : (double)INFINITY;
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

/* Inversion begins at the picture, where both estimates are the picture itself: nothing is projected, the noise is guided as by cfg. */
static void projected_without_noise(void)
{
    bench b;
    double eps[N], sigma = 0.0;
    const dn_prediction p = DN_PREDICT_EPSILON;
    const dn_guidance guidance = {
        .method = DN_GUIDE_APG, .conditional = true, .scale = 2.0, .sigma_max = INFINITY, .apg_eta = 0.3, .apg_norm = 2.0};
    set_up(&b, p, sigma);
    for (int i = 0; i < N; i++)
        eps[i] = b.uncond[i] + 2.0 * (b.cond[i] - b.uncond[i]);
    fold(&b, &guidance, BOTH);
    CLOSE(b.x0, b.x);
    CLOSE(b.eps, eps);
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

/* Where nothing of the image is left in x the classifier says nothing: neither of zero terminal signal nor of a flow's begin. */
static void a_classifier_of_noise_alone(void)
{
    static const dn_family families[] = {DN_FAMILY_VP, DN_FAMILY_FLOW};
    bench b;
    for (int f = 0; f < 2; f++) {
        double x0[N], eps[N], sigma = 1.0;
        const dn_prediction p = families[f] == DN_FAMILY_FLOW ? DN_PREDICT_FLOW : DN_PREDICT_V;
        const dn_guidance guidance = {
            .method = DN_GUIDE_CLASSIFIER, .conditional = true, .scale = 1.0, .sigma_max = INFINITY, .classifier_scale = 3.0};
        set_up(&b, p, sigma);
        b.training.family = families[f];
        for (int i = 0; i < N; i++) {
            x0[i] = f == 0 ? -b.cond[i] : b.x[i] - b.cond[i];
            eps[i] = b.x[i];
        }
        fold(&b, &guidance, DN_ROW_COND | DN_ROW_GRADIENT);
        CLOSE(b.x0, x0);
        CLOSE(b.eps, eps);
    }
}

/* One answer alone: x0 and noise as the lane sees them. */
static void alone(bench *b, const double raw[N], double x0[N], double eps[N])
{
    bench one = *b;
    const dn_guidance guidance = {.method = DN_GUIDE_CFG, .conditional = true, .scale = 1.0, .sigma_max = INFINITY};
    memcpy(one.cond, raw, sizeof one.cond);
    fold(&one, &guidance, DN_ROW_COND);
    memcpy(x0, one.x0, sizeof one.x0);
    memcpy(eps, one.eps, sizeof one.eps);
}

/* EDM's, flow matching's and variance-exploding answers are folded by the same words: x0 and noise are linear in the answer. */
static void other_families(void)
{
    static const dn_family families[] = {DN_FAMILY_EDM, DN_FAMILY_FLOW, DN_FAMILY_VE};
    bench b;
    for (size_t f = 0; f < 3; f++)
        for (double sigma = 0.3; sigma < 3.0; sigma += 0.9) {
            const dn_prediction p = families[f] == DN_FAMILY_FLOW ? DN_PREDICT_FLOW : DN_PREDICT_EPSILON;
            double dc[N], du[N], ec[N], eu[N], x0[N], x[N], update[N];
            dn_guidance guidance = {.conditional = true, .scale = 0.7, .sigma_max = INFINITY, .apg_eta = 0.3, .apg_norm = 2.0};
            set_up(&b, p, 0.5);
            b.training.family = families[f];
            b.training.sigma_data = 0.5;
            b.training.time_scale = 1.0;
            b.evaluation.level = dn_level_at(&b.training, 1.0, sigma);
            alone(&b, b.cond, dc, ec);
            alone(&b, b.uncond, du, eu);
            guidance.method = DN_GUIDE_APG;
            for (int i = 0; i < N; i++)
                x0[i] = dc[i] - du[i];
            project(update, x0, dc, 2.0, 0.3);
            for (int i = 0; i < N; i++)
                x0[i] = du[i] + 0.7 * update[i];
            fold(&b, &guidance, BOTH);
            CLOSE(b.x0, x0);
            guidance.method = DN_GUIDE_CFG_PP;
            for (int i = 0; i < N; i++) {
                x0[i] = du[i] + 0.7 * (dc[i] - du[i]);
                x[i] = x0[i] + sigma * eu[i];
            }
            fold(&b, &guidance, BOTH);
            CLOSE(b.x0, x0);
            CLOSE(b.eps, eu);
            CLOSE(b.x_after, x);
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
        {{.method = DN_GUIDE_CLASSIFIER, .conditional = true, .scale = 0.0, .sigma_min = 0.0, .sigma_max = 0.3, .classifier_scale = 1.0},
         0.5,
         DN_ROW_NULL},
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
    RUN(projected_without_noise);
    RUN(by_a_classifier);
    RUN(a_classifier_of_noise_alone);
    RUN(other_families);
    RUN(rows_that_are_asked_for);
    dn_backend_cpu()->buffer_free(registers);
    dn_backend_cpu()->device_close(device);
    return test_end();
}
