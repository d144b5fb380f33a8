/* Conditioning on pictures, second seeds and mixtures of classes: the ends of every range, what is kept exactly, and refusals. */
#include "batch_cases.h"

#include "base/philox.h"
#include "diffusion/conditioning.h"

static dn_lane_spec spec_with(const char *sampler, uint32_t steps, const char *first, const char *second)
{
    case_row row = {.sampler = sampler, .steps = steps, .scale = 1.0, .label = 3};
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

/* What a lane begins with, in units of its first level's sigma for a start of noise alone. */
static void read_start(float out[ELEMENTS], dn_engine *engine, const dn_lane_spec *spec)
{
    dn_batch *batch = NULL;
    if (dn_batch_create(&batch, engine, 4, &error) != DN_OK || dn_batch_admit(batch, 1, spec, &error) != DN_OK ||
        dn_batch_read_floats(batch, 1, out, &error) != DN_OK) {
        printf("FAIL %s\n", error.message);
        exit(1);
    }
    dn_batch_free(batch);
}

static void slerp(double *out, const float *a, const float *b, double t)
{
    double aa = 0.0, bb = 0.0, ab = 0.0;
    for (int i = 0; i < ELEMENTS; i++) {
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
        ab += (double)a[i] * (double)b[i];
    }
    double angle = acos(ab / sqrt(aa * bb));
    for (int i = 0; i < ELEMENTS; i++)
        out[i] = (sin((1.0 - t) * angle) * (double)a[i] + sin(t * angle) * (double)b[i]) / sin(angle);
}

static void variations_turn_the_start(void)
{
    float one[ELEMENTS], other[ELEMENTS], turned[ELEMENTS];
    double expected[ELEMENTS], off = 0.0;
    dn_engine *engine = open_engine(1);
    dn_lane_spec plain = spec_with("ddim", 5, NULL, NULL), zero = spec_with("ddim", 5, "variation_strength=0", NULL);
    dn_lane_spec full = spec_with("ddim", 5, "variation_strength=1", NULL), some = spec_with("ddim", 5, "variation_strength=0.3", NULL);
    dn_lane_spec standard = spec_with("ddim", 5, NULL, NULL), second = plain;
    zero.has_variation = full.has_variation = some.has_variation = standard.has_variation = true;
    zero.variation_seed = full.variation_seed = some.variation_seed = standard.variation_seed = second.seed = 1234567890123456789u;
    CHECK(same_image(engine, plain, zero));
    CHECK(same_image(engine, second, full));
    CHECK(!same_image(engine, plain, some) && !same_image(engine, second, some) && !same_image(engine, plain, standard));
    dn_noise_normal(one, ELEMENTS, 0, plain.seed, DN_STREAM_START, 0);
    dn_noise_normal(other, ELEMENTS, 0, second.seed, DN_STREAM_START, 0);
    slerp(expected, one, other, 0.3);
    read_start(turned, engine, &some);
    for (int i = 0; i < ELEMENTS; i++)
        off = fmax(off, fabs(expected[i] - (double)turned[i]));
    CHECK_MSG(off < 1e-5, "the start is off the great circle by %.3g", off);
    dn_engine_close(engine);
}

/* diffusers' get_timesteps: init_timestep = min(int(steps * strength), steps). */
static void strength_leaves_steps_out(void)
{
    static const struct {
        const char *strength;
        uint32_t steps, evaluations;
    } rows[] = {{"strength=1", 10, 10},   {"strength=0.8", 10, 8}, {"strength=0.79", 10, 7}, {"strength=0.5", 7, 3},
                {"strength=0.05", 10, 0}, {"strength=0", 10, 0},   {"strength=0.3", 10, 3}};
    dn_engine *engine = open_engine(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_lane_spec spec = spec_with("ddim", rows[i].steps, rows[i].strength, NULL);
        spec.init = case_init();
        uint32_t count = dn_lane_spec_evaluations(engine, &spec);
        CHECK_MSG(count == rows[i].evaluations, "%s of %u steps: %u evaluations", rows[i].strength, rows[i].steps, count);
    }
    dn_lane_spec standard = spec_with("ddim", 10, NULL, NULL);
    standard.init = case_init();
    CHECK(dn_lane_spec_evaluations(engine, &standard) == 8);
    dn_engine_close(engine);
}

/* Strength 0 is the picture; any other starts at alpha init + sigma noise of its level. */
static void pictures_are_noised_to_their_level(void)
{
    float noise[ELEMENTS], start[ELEMENTS];
    dn_engine *engine = open_engine(1);
    picture made;
    dn_lane_spec none = spec_with("dpmpp_2m", 10, "strength=0", NULL);
    none.init = case_init();
    make(&made, engine, &none);
    CHECK(memcmp(made.floats, case_init(), sizeof made.floats) == 0);
    static const char *const samplers[] = {"ddim", "euler", "dpmpp_2m"};
    dn_noise_normal(noise, ELEMENTS, 0, none.seed, DN_STREAM_START, 0);
    for (int s = 0; s < 3; s++) {
        static dn_sampler_context context;
        dn_lane_spec spec = spec_with(samplers[s], 10, "strength=0.6", NULL);
        spec.init = case_init();
        CHECK_OK(dn_sampler_context_init(&context, spec.sampler, 10, &spec.options, 7, engine->training, &engine->scheduler, &error),
                 error);
        read_start(start, engine, &spec);
        const dn_level *level = &context.schedule.level[4];
        double off = 0.0;
        for (int i = 0; i < ELEMENTS; i++) {
            double x = level->alpha * (double)spec.init[i] + level->sigma * (double)noise[i];
            off = fmax(off, fabs(x / context.schedule.start_scale - (double)start[i])); /* what is read is in units of the start's scale */
        }
        CHECK_MSG(off < 1e-5, "%s: the start is off by %.3g", samplers[s], off);
    }
    dn_engine_close(engine);
}

/* edm_heun's first churn is part of its start: a picture is noised to the churned level, where the network is asked first. */
static void a_churned_start_is_noised_as_much(void)
{
    static dn_sampler_context context;
    float noise[ELEMENTS], start[ELEMENTS];
    dn_engine *engine = open_engine(1);
    dn_lane_spec spec = spec_with("edm_heun", 10, "strength=1", "s_churn=3");
    dn_sampler_state state = {0};
    dn_evaluation asked;
    spec.init = case_init();
    CHECK_OK(dn_sampler_context_init(&context, spec.sampler, 10, &spec.options, 7, engine->training, &engine->scheduler, &error), error);
    CHECK(context.sampler->next(&context, &state, &asked) && asked.level.sigma > 1.2 * context.schedule.level[0].sigma);
    dn_noise_normal(noise, ELEMENTS, 0, spec.seed, DN_STREAM_START, 0);
    read_start(start, engine, &spec);
    for (int i = 0; i < ELEMENTS; i++) {
        double x = (double)spec.init[i] + asked.level.sigma * (double)noise[i];
        CHECK_MSG(fabs(x / context.schedule.start_scale - (double)start[i]) < 1e-5, "element %d starts at %g", i, (double)start[i]);
    }
    dn_engine_close(engine);
}

/* Where the mask is 0 the picture stays, bit for bit, whatever the sampler; where it is 1 it does not. */
static void the_kept_part_is_kept(void)
{
    static const char *const samplers[] = {"ddim", "ddpm", "euler", "euler_ancestral", "heun", "dpmpp_2m", "model"};
    dn_engine *engine = open_engine(1);
    for (size_t s = 0; s < sizeof samplers / sizeof samplers[0]; s++)
        for (int strength = 0; strength < 2; strength++) {
            picture made;
            dn_lane_spec spec = spec_with(samplers[s], 5, strength ? "strength=0.7" : NULL, NULL);
            spec.init = case_init();
            spec.mask = case_mask();
            make(&made, engine, &spec);
            int changed = 0, painted = 0;
            for (int i = 0; i < ELEMENTS; i++) {
                bool same = made.floats[i] == spec.init[i];
                CHECK_MSG(spec.mask[i % PLANE] > 0.0f || same, "%s: element %d was to stay", samplers[s], i);
                painted += spec.mask[i % PLANE] == 1.0f;
                changed += spec.mask[i % PLANE] == 1.0f && !same;
            }
            CHECK_MSG(changed > painted * 9 / 10, "%s: %d of %d painted elements changed", samplers[s], changed, painted);
        }
    dn_engine_close(engine);
}

/* A mask of ones keeps nothing: the same bytes as without. One of zeros keeps everything. */
static void ends_of_the_mask(void)
{
    static float ones[PLANE], zeros[PLANE];
    picture all, none, plain;
    dn_engine *engine = open_engine(1);
    for (int i = 0; i < PLANE; i++)
        ones[i] = 1.0f;
    dn_lane_spec spec = spec_with("ddim", 5, NULL, NULL);
    make(&plain, engine, &spec);
    spec.init = case_init();
    spec.mask = ones;
    make(&all, engine, &spec);
    double off = 0.0;
    for (int i = 0; i < ELEMENTS; i++)
        off = fmax(off, fabs((double)all.floats[i] - (double)plain.floats[i]));
    CHECK_MSG(off == 0.0, "a mask of ones is off by %.3g", off);
    spec.mask = zeros;
    make(&none, engine, &spec);
    CHECK(memcmp(none.floats, case_init(), sizeof none.floats) == 0);
    dn_engine_close(engine);
}

/* RePaint: r passes over every step cost r evaluations and draw other noise each. */
static void resampling(void)
{
    static const char *const memoryless[] = {"ddpm", "ddim", "euler", "euler_ancestral"};
    dn_engine *engine = open_engine(1);
    for (int s = 0; s < 4; s++) {
        dn_lane_spec once = spec_with(memoryless[s], 4, "resample=1", NULL), thrice = spec_with(memoryless[s], 4, "resample=3", NULL);
        once.init = thrice.init = case_init();
        once.mask = thrice.mask = case_mask();
        CHECK(dn_lane_spec_evaluations(engine, &once) == 4 && dn_lane_spec_evaluations(engine, &thrice) == 12);
        CHECK(!same_image(engine, once, thrice));
        dn_lane_spec same = once;
        same.options = (dn_options){0};
        CHECK(same_image(engine, once, same));
    }
    dn_engine_close(engine);
}

/* A step that is taken again draws other noise than the first time; what stood in the program before its feed does not change. */
static void passes_draw_other_noise(void)
{
    static dn_ops ops;
    dn_ops_noise(&ops, DN_REG_NOISE, 1, DN_STREAM_STEP, 3);
    dn_ops_noise(&ops, DN_REG_NOISE, 1, DN_STREAM_STEP, 3);
    dn_conditioning_redraw(2, 1, &ops);
    uint32_t second = ops.op[1].draw;
    dn_conditioning_redraw(1, 1, &ops);
    CHECK(ops.op[0].draw == 3 && second != 3 && second > DN_STEPS_MAX && ops.op[1].draw != second);
}

static void mixtures_and_negatives(void)
{
    dn_engine *engine = open_engine(1);
    dn_lane_spec plain = spec_with("ddim", 5, NULL, NULL), mixed = plain, turned = plain;
    mixed.mixture = (dn_condition){.count = 1, .classes = {3}, .weights = {1.0f}};
    CHECK(same_image(engine, plain, mixed));
    mixed.mixture = (dn_condition){.count = 2, .classes = {3, 5}, .weights = {1.0f, 0.0f}};
    turned.mixture = (dn_condition){.count = 2, .classes = {3, 5}, .weights = {0.5f, 0.5f}};
    CHECK(same_image(engine, plain, mixed) && !same_image(engine, plain, turned));
    /* Guided away from itself, a class is itself; away from the null class's row, what guidance does anyway. */
    dn_lane_spec guided = plain, itself = plain;
    guided.guidance_scale = itself.guidance_scale = 2.0;
    itself.has_negative = true;
    itself.negative_class = 3;
    CHECK(same_image(engine, plain, itself));
    guided.has_negative = true;
    guided.negative_class = 5;
    dn_lane_spec null = guided;
    null.has_negative = false;
    CHECK(!same_image(engine, guided, null));
    uint32_t kept = engine->null_class;
    engine->null_class = 5; /* as if class 5 were the null class */
    CHECK(same_image(engine, null, guided));
    engine->null_class = kept;
    dn_engine_close(engine);
}

/* A network without a null class can still be guided away from a class. */
static void without_a_null_class(void)
{
    dn_engine *engine = open_engine(1);
    dn_lane_spec spec = spec_with("ddim", 5, NULL, NULL);
    engine->null_class = DN_NONE;
    spec.guidance_scale = 2.0;
    CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "guidance_scale must be 1"));
    spec.has_negative = true;
    spec.negative_class = 5;
    CHECK_OK(dn_lane_spec_check(engine, &spec, &error), error);
    spec.has_negative = spec.has_class = false;
    CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "class_label is needed"));
    dn_engine_close(engine);
}

typedef struct refusal {
    const char *sampler, *option, *words[2];
    bool init, mask, variation;
} refusal;

static void what_makes_no_sense_is_refused(void)
{
    static const refusal rows[] = {
        {.sampler = "ddim", .option = "strength=0.5", .words = {"strength", "init_image"}},
        {.sampler = "ddim", .words = {"mask_image", "init_image"}, .mask = true},
        {.sampler = "ddim", .option = "resample=2", .words = {"resample", "mask_image"}, .init = true},
        {.sampler = "ddim", .option = "variation_strength=0.5", .words = {"variation_strength", "variation_seed"}},
        {.sampler = "heun", .option = "resample=2", .words = {"resample", "heun"}, .init = true, .mask = true},
        {.sampler = "dpmpp_2m", .option = "resample=2", .words = {"resample", "dpmpp_2m"}, .init = true, .mask = true},
        {.sampler = "ddim", .option = "strength=1.5", .words = {"strength", "from 0 to 1"}, .init = true},
        {.sampler = "ddim", .option = "resample=33", .words = {"resample", "from 1 to 32"}, .init = true, .mask = true},
    };
    dn_engine *engine = open_engine(1);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_lane_spec spec = spec_with(rows[i].sampler, 5, rows[i].option, NULL);
        spec.init = rows[i].init ? case_init() : NULL;
        spec.mask = rows[i].mask ? case_mask() : NULL;
        dn_status status = dn_lane_spec_check(engine, &spec, &error);
        CHECK_MSG(status == DN_INVALID && strstr(error.message, rows[i].words[0]) && strstr(error.message, rows[i].words[1]), "row %zu: %s",
                  i, status == DN_OK ? "accepted" : error.message);
    }
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++) {
        const dn_sampler *sampler = dn_sampler_at(i);
        if (!sampler->inverts || dn_engine_serves(engine, sampler, NULL) != DN_OK)
            continue;
        dn_lane_spec spec = spec_with(sampler->name, 5, NULL, NULL);
        CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "init_image"));
        spec.init = case_init();
        CHECK_OK(dn_lane_spec_check(engine, &spec, &error), error);
        set_option(&spec.options, "strength=0.5");
        CHECK(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "strength"));
    }
    dn_engine_close(engine);
}

static void bad_mixtures_and_pictures(void)
{
    static float init[ELEMENTS], mask[PLANE];
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    const dn_condition mixtures[] = {
        {.count = 2, .classes = {3, 3}, .weights = {1.0f, 1.0f}}, {.count = 1, .classes = {10}, .weights = {1.0f}},
        {.count = 1, .classes = {3}, .weights = {11.0f}},         {.count = 1, .classes = {3}, .weights = {NAN}},
        {.count = 9, .classes = {0, 1, 2, 3, 4, 5, 6, 7}},
    };
    for (size_t i = 0; i < sizeof mixtures / sizeof mixtures[0]; i++) {
        dn_lane_spec spec = spec_with("ddim", 5, NULL, NULL);
        spec.mixture = mixtures[i];
        CHECK_MSG(dn_lane_spec_check(engine, &spec, &error) == DN_INVALID && strstr(error.message, "class_mixture"), "mixture %zu", i);
    }
    CHECK_OK(dn_batch_create(&batch, engine, 4, &error), error);
    dn_lane_spec spec = spec_with("ddim", 5, NULL, NULL);
    spec.init = init;
    init[9] = INFINITY;
    CHECK(dn_batch_admit(batch, 1, &spec, &error) == DN_INVALID && strstr(error.message, "init_image"));
    init[9] = 0.0f;
    spec.mask = mask;
    mask[5] = 1.5f;
    CHECK(dn_batch_admit(batch, 1, &spec, &error) == DN_INVALID && strstr(error.message, "mask_image"));
    mask[5] = 1.0f;
    CHECK_OK(dn_batch_admit(batch, 1, &spec, &error), error);
    dn_batch_free(batch);
    dn_engine_close(engine);
}

/* Pixels of a given picture in the network's space, and masks cut at one half. */
static void pictures_are_prepared(void)
{
    static uint8_t pixels[ELEMENTS], grey[PLANE];
    static float init[ELEMENTS], mask[PLANE];
    dn_engine *engine = open_engine(1);
    for (int i = 0; i < ELEMENTS; i++)
        pixels[i] = (uint8_t)(i * 5 % 256);
    for (int i = 0; i < PLANE; i++)
        grey[i] = (uint8_t)(i * 4);
    CHECK_OK(dn_engine_prepare_init(engine, pixels, grey, init, mask, &error), error);
    for (int i = 0; i < PLANE; i++) {
        CHECK(mask[i] == (grey[i] >= 128 ? 1.0f : 0.0f));
        for (int c = 0; c < 3; c++)
            CHECK(fabsf(init[c * PLANE + i] - ((float)pixels[i * 3 + c] / 127.5f - 1.0f)) < 1e-6f);
    }
    dn_engine_close(engine);
}

int main(void)
{
    RUN(variations_turn_the_start);
    RUN(strength_leaves_steps_out);
    RUN(pictures_are_noised_to_their_level);
    RUN(a_churned_start_is_noised_as_much);
    RUN(the_kept_part_is_kept);
    RUN(ends_of_the_mask);
    RUN(resampling);
    RUN(passes_draw_other_noise);
    RUN(mixtures_and_negatives);
    RUN(without_a_null_class);
    RUN(what_makes_no_sense_is_refused);
    RUN(bad_mixtures_and_pictures);
    RUN(pictures_are_prepared);
    return test_end();
}
