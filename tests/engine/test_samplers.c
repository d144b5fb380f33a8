/* Every row of the table of samplers, whatever it is: its options and their standards, the registers that it says live on, and that
 * no spacing, order or number of steps makes NaN. Networks are exact ones of the family, for data of independent normals. */
#include "tests/test.h"

#include "gaussian_network.h"

static dn_error error;
static dn_sampler_context context;
static machine m;

static const char *const family_classes[] = {"DDPMScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler",
                                             "ScoreSdeVeScheduler"};

static dn_training_schedule *open_class(const char *class_name, const char *prediction)
{
    dn_training_schedule *training = NULL;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "_class_name", class_name);
    if (prediction != NULL)
        cJSON_AddStringToObject(json, "prediction_type", prediction);
    if (dn_training_schedule_from_json(&training, json, "test", &error) != DN_OK)
        abort();
    cJSON_Delete(json);
    return training;
}

static dn_training_schedule *open_family(dn_family family, const char *prediction)
{
    return open_class(family_classes[family], prediction);
}

static dn_status begin(const dn_sampler *sampler, uint32_t steps, const dn_options *options, const dn_training_schedule *training)
{
    const dn_options none = {0};
    const dn_scheduler_config unused = {0};
    return dn_sampler_context_init(&context, sampler->name, steps, options != NULL ? options : &none, 9, training, &unused, &error);
}

/* The start: noise at the first level, and a given picture for samplers that invert one. */
static void start(void)
{
    const dn_level *first = &context.schedule.level[0];
    dn_op draw = {.kind = DN_OP_NOISE, .seed = 9, .stream = DN_STREAM_START};
    machine_philox(NULL, m.reg[DN_REG_NOISE], m.elements, &draw);
    for (size_t i = 0; i < m.elements; i++) {
        double data = GAUSSIAN_MEAN + GAUSSIAN_SPREAD * m.reg[DN_REG_NOISE][m.elements - 1 - i];
        m.reg[DN_REG_X][i] = context.sampler->inverts ? data : context.schedule.start_scale * m.reg[DN_REG_NOISE][i];
        m.reg[DN_REG_INIT][i] = data;
        (void)first;
    }
}

/* Between ticks only the image, its estimate and what the sampler calls live may be relied on: the rest is made NaN. */
static void poison(uint32_t live)
{
    for (uint32_t r = 0; r < DN_REG_COUNT; r++)
        for (size_t i = 0; i < m.elements && !(live >> r & 1u); i++)
            m.reg[r][i] = NAN;
}

static void run_poisoned(bool poisoned)
{
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    m.noise = machine_philox;
    start();
    while (machine_next(&m, &context, &state, &evaluation)) {
        double scale = dn_input_scale(&context, &evaluation.level);
        for (size_t i = 0; i < m.elements; i++)
            m.reg[DN_REG_COND][i] = gaussian_answer(context.training, scale * m.reg[evaluation.reg][i], evaluation.level.time);
        memset(m.reg[DN_REG_VARIANCE], 0, sizeof m.reg[0]);
        machine_answer(&m, &context, &state, &evaluation);
        if (poisoned)
            poison(1u << DN_REG_X | 1u << DN_REG_INIT | state.live);
    }
}

/* One sampler: the image is the same when everything that it does not call live is lost between ticks. */
static void check_live(const dn_sampler *sampler, const dn_options *options, const dn_training_schedule *training)
{
    static double kept[MACHINE_ELEMENTS_MAX];
    CHECK_OK(begin(sampler, 12, options, training), error);
    m.elements = 16;
    run_poisoned(false);
    memcpy(kept, m.reg[DN_REG_X], m.elements * sizeof kept[0]);
    run_poisoned(true);
    for (size_t i = 0; i < m.elements; i++)
        CHECK_MSG(isfinite(kept[i]) && kept[i] == m.reg[DN_REG_X][i], "%s: element %zu is %.9g, and %.9g when what is not live is lost",
                  sampler->name, i, kept[i], m.reg[DN_REG_X][i]);
}

/* Every order and kind of each sampler's solver. */
static void check_live_orders(const dn_sampler *sampler, const dn_training_schedule *training)
{
    const dn_option_field *orders = dn_sampler_field_of(sampler, DN_OPT_SOLVER_ORDER);
    check_live(sampler, NULL, training);
    for (double order = orders != NULL ? orders->minimum : 1.0; orders != NULL && order <= orders->maximum && !test_failed; order++) {
        dn_options options = {0};
        if (sampler->algorithm != NULL && strncmp(sampler->algorithm, "sde-", 4) == 0 && order == 3.0)
            continue;
        dn_option_set(&options, DN_OPT_SOLVER_ORDER, order);
        check_live(sampler, &options, training);
    }
    if (!test_failed && dn_sampler_field_of(sampler, DN_OPT_S_CHURN) != NULL) {
        dn_options options = {0};
        dn_option_set(&options, DN_OPT_S_CHURN, 3.0);
        check_live(sampler, &options, training);
    }
}

static void live_registers_are_all_that_is_needed(void)
{
    for (int family = 0; family < 4; family++) {
        dn_training_schedule *training = open_family((dn_family)family, NULL);
        for (uint32_t s = 0; dn_sampler_at(s) != NULL && !test_failed; s++)
            if ((dn_sampler_at(s)->families >> family & 1u) && strcmp(dn_sampler_at(s)->name, "consistency") != 0)
                check_live_orders(dn_sampler_at(s), training);
        dn_training_schedule_free(training);
    }
    dn_training_schedule *training = open_class("CMStochasticIterativeScheduler", NULL);
    if (!test_failed)
        check_live_orders(dn_sampler_find("consistency"), training);
    dn_training_schedule_free(training);
}

/* The image lies where the data lie, whatever the spacing, order and number of steps. */
static void check_sound(const dn_sampler *sampler, const dn_options *options, uint32_t steps, const char *what,
                        const dn_training_schedule *training)
{
    if (begin(sampler, steps, options, training) != DN_OK) {
        bool named = strstr(error.message, "steps must be") != NULL || strstr(error.message, "solver_order") != NULL ||
                     (sampler->inverts && strstr(error.message, "predicts the sample") != NULL);
        CHECK_MSG(named, "%s, %u steps, %s: %s", sampler->name, steps, what, error.message);
        return;
    }
    m.elements = 64;
    run_poisoned(false);
    for (size_t i = 0; i < m.elements; i++) {
        double far = sampler->inverts || steps < 60 ? 1e4 : 20.0;
        CHECK_MSG(fabs(m.reg[DN_REG_X][i]) < far, "%s, %u steps, %s: an element is %g", sampler->name, steps, what, m.reg[DN_REG_X][i]);
    }
}

static void check_all_steps(const dn_sampler *sampler, const dn_options *options, const char *what, const dn_training_schedule *training)
{
    static const uint32_t counts[] = {1, 2, 3, 5, 10, 60, 400};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0] && !test_failed; c++)
        check_sound(sampler, options, counts[c], what, training);
}

/* One option at each of its choices, or at its ends, with few and many steps. */
static void check_option(const dn_sampler *sampler, dn_option_id id, const dn_training_schedule *training)
{
    const dn_option_field *field = dn_sampler_field_of(sampler, id);
    for (double value = field != NULL ? field->minimum : 1.0; field != NULL && value <= field->maximum && !test_failed; value++) {
        dn_options options = {0};
        char what[64];
        snprintf(what, sizeof what, "%s %g", dn_option_info_of(id)->name, value);
        dn_option_set(&options, id, value);
        check_all_steps(sampler, &options, what, training);
    }
}

static void check_sampler(const dn_sampler *sampler, const dn_training_schedule *training)
{
    static const dn_option_id ids[] = {DN_OPT_SIGMA_SCHEDULE,    DN_OPT_TIMESTEP_SPACING, DN_OPT_FINAL_SIGMA,   DN_OPT_SOLVER_ORDER,
                                       DN_OPT_SOLVER_TYPE,       DN_OPT_CORRECTOR_ORDER,  DN_OPT_VARIANCE_TYPE, DN_OPT_ETA,
                                       DN_OPT_LOWER_ORDER_FINAL, DN_OPT_CLIP_SAMPLE,      DN_OPT_THRESHOLDING};
    check_all_steps(sampler, NULL, "no option", training);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0] && !test_failed; i++)
        check_option(sampler, ids[i], training);
}

static void nothing_makes_nan(void)
{
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
    for (size_t p = 0; p < 3; p++) {
        dn_training_schedule *training = open_family(DN_FAMILY_VP, predictions[p]);
        for (uint32_t s = 0; dn_sampler_at(s) != NULL && !test_failed; s++)
            if (dn_sampler_at(s)->families >> DN_FAMILY_VP & 1u)
                check_sampler(dn_sampler_at(s), training);
        dn_training_schedule_free(training);
    }
}

/* Levels that repeat themselves (tables rounded to whole timesteps have them): steps of no length and differences of nothing. */
static void check_repeated(const dn_sampler *sampler, double order, const dn_training_schedule *training)
{
    dn_options options = {0};
    if (order > 0.0)
        dn_option_set(&options, DN_OPT_SOLVER_ORDER, order);
    if (begin(sampler, 12, &options, training) != DN_OK) {
        CHECK_MSG(strstr(error.message, "solver_order") != NULL, "%s: %s", sampler->name, error.message);
        return;
    }
    dn_level *level = context.schedule.level;
    level[4] = level[3];
    level[7] = level[6] = level[5];
    m.elements = 64;
    run_poisoned(false);
    for (size_t i = 0; i < m.elements; i++)
        CHECK_MSG(fabs(m.reg[DN_REG_X][i]) < 1e4, "%s, order %g: an element is %g", sampler->name, order, m.reg[DN_REG_X][i]);
}

static void repeated_levels_make_no_nan(void)
{
    dn_training_schedule *training = open_family(DN_FAMILY_VP, NULL);
    for (uint32_t s = 0; dn_sampler_at(s) != NULL; s++) {
        const dn_option_field *field = dn_sampler_field_of(dn_sampler_at(s), DN_OPT_SOLVER_ORDER);
        bool serves = dn_sampler_at(s)->families >> DN_FAMILY_VP & 1u;
        if (serves && field == NULL && !test_failed)
            check_repeated(dn_sampler_at(s), 0.0, training);
        for (double order = 1.0; serves && field != NULL && order <= field->maximum && !test_failed; order++)
            check_repeated(dn_sampler_at(s), order, training);
    }
    dn_training_schedule_free(training);
}

/* From a given picture: the steps before `first` are left out, and what they would have remembered is not there. The data are normal,
 * so that a picture noised to a level is like any image of that level, and the result has the data's mean. */
static void check_from_the_middle(const dn_sampler *sampler, uint32_t first, const dn_training_schedule *training)
{
    CHECK_OK(begin(sampler, 20, NULL, training), error);
    context.first_step = first;
    dn_sampler_state state = {.step = first};
    dn_op draw = {.kind = DN_OP_NOISE, .seed = 3, .stream = DN_STREAM_START};
    const dn_level *level = &context.schedule.level[first];
    double sum = 0.0, squares = 0.0, spread = hypot(level->alpha * GAUSSIAN_SPREAD, level->sigma);
    m.elements = 2048;
    m.noise = machine_philox;
    machine_philox(NULL, m.reg[DN_REG_X], m.elements, &draw);
    memset(m.reg[DN_REG_VARIANCE], 0, sizeof m.reg[0]);
    for (size_t i = 0; i < m.elements; i++)
        m.reg[DN_REG_X][i] = level->alpha * GAUSSIAN_MEAN + spread * m.reg[DN_REG_X][i];
    (void)gaussian_run(&m, &context, &state);
    for (size_t i = 0; i < m.elements; i++) {
        sum += m.reg[DN_REG_X][i];
        squares += pow(m.reg[DN_REG_X][i] - GAUSSIAN_MEAN, 2);
    }
    double mean = sum / (double)m.elements, deviation = sqrt(squares / (double)m.elements);
    CHECK(state.step == context.schedule.steps);
    CHECK_MSG(fabs(mean - GAUSSIAN_MEAN) < 0.03 && deviation > 0.1 && deviation < 0.45, "%s from step %u: mean %.3f, deviation %.3f",
              sampler->name, first, mean, deviation);
}

static void every_sampler_starts_in_the_middle(void)
{
    dn_training_schedule *training = open_family(DN_FAMILY_VP, NULL);
    for (uint32_t s = 0; dn_sampler_at(s) != NULL; s++)
        for (uint32_t first = 5; first < 20 && !test_failed; first++)
            if ((dn_sampler_at(s)->families >> DN_FAMILY_VP & 1u) && !dn_sampler_at(s)->inverts)
                check_from_the_middle(dn_sampler_at(s), first, training);
    dn_training_schedule_free(training);
}

/* A sampler chosen by name without options does what its fields say. */
static void standards_are_what_is_done(void)
{
    for (uint32_t s = 0; dn_sampler_at(s) != NULL; s++) {
        const dn_sampler *sampler = dn_sampler_at(s);
        dn_family family = DN_FAMILY_VP;
        while (!(sampler->families >> family & 1u))
            family++;
        bool consistency = strcmp(sampler->name, "consistency") == 0;
        dn_training_schedule *training = open_class(consistency ? sampler->scheduler_class : family_classes[family], NULL);
        CHECK_OK(begin(sampler, 20, NULL, training), error);
        for (uint32_t i = 0; i < sampler->field_count; i++) {
            const dn_option_field *field = &sampler->fields[i];
            const dn_option_info *info = dn_option_info_of(field->id);
            double used = dn_option_value(&context, field->id);
            CHECK_MSG(isnan(field->standard) || used == field->standard, "%s: %s is %g, not %g", sampler->name, info->name, used,
                      field->standard);
            CHECK_MSG(field->minimum >= info->minimum && field->maximum <= info->maximum, "%s: %s reaches past the table's range",
                      sampler->name, info->name);
            CHECK_MSG(isnan(field->standard) || dn_option_check(field, field->standard, &error) == DN_OK, "%s: %s", sampler->name,
                      error.message);
            for (uint32_t k = 0; k < i; k++)
                CHECK_MSG(sampler->fields[k].id != field->id, "%s has %s twice", sampler->name, info->name);
        }
        CHECK_MSG(sampler->source != NULL && sampler->source[0] != '\0', "%s names no source", sampler->name);
        dn_training_schedule_free(training);
    }
}

static void check_refused(const char *sampler, dn_options options, const char *words, const dn_training_schedule *training)
{
    CHECK_MSG(begin(dn_sampler_find(sampler), 10, &options, training) != DN_OK, "%s took what should be refused: %s", sampler, words);
    CHECK_MSG(strstr(error.message, words) != NULL, "%s", error.message);
}

static dn_options one(dn_option_id id, double value)
{
    dn_options options = {0};
    dn_option_set(&options, id, value);
    return options;
}

static void options_without_effect_are_refused_by_name(void)
{
    static const struct {
        const char *sampler;
        dn_option_id id;
        double value;
        const char *words;
    } rows[] = {
        {"euler", DN_OPT_RHO, 5.0, "rho needs sigma_schedule karras"},
        {"euler", DN_OPT_SIGMA_MIN, 0.1, "sigma_min needs sigma_schedule karras, exponential or beta"},
        {"unipc", DN_OPT_SIGMA_MAX, 10.0, "sigma_max needs sigma_schedule"},
        {"lcm", DN_OPT_CLIP_SAMPLE_RANGE, 2.0, "clip_sample_range needs clip_sample true"},
        {"dpmpp_2m", DN_OPT_DYNAMIC_THRESHOLDING_RATIO, 0.9, "dynamic_thresholding_ratio needs thresholding true"},
        {"ddim", DN_OPT_SAMPLE_MAX_VALUE, 2.0, "sample_max_value needs thresholding true"},
        {"ddim", DN_OPT_SOLVER_ORDER, 2.0, "solver_order is not an option of the sampler ddim"},
        {"dpmpp_2m", DN_OPT_SOLVER_ORDER, 4.0, "solver_order must be an integer from 1 to 3"},
        {"unipc", DN_OPT_SOLVER_TYPE, DN_SOLVER_HEUN, "solver_type must be bh1 or bh2"},
        {"lcm", DN_OPT_ORIGINAL_INFERENCE_STEPS, 5.0, "steps must be at most original_inference_steps"},
        {"ddpm", DN_OPT_VARIANCE_TYPE, DN_VARIANCE_LEARNED, "variance_type must be fixed_small, "},
        {"dpmpp_2m_sde", DN_OPT_SOLVER_ORDER, 3.0, "solver_order must be an integer from 1 to 2"},
    };
    dn_training_schedule *training = open_family(DN_FAMILY_VP, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !test_failed; i++)
        check_refused(rows[i].sampler, one(rows[i].id, rows[i].value), rows[i].words, training);
    dn_options range = one(DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    dn_option_set(&range, DN_OPT_SIGMA_MIN, 5.0);
    dn_option_set(&range, DN_OPT_SIGMA_MAX, 5.0);
    if (!test_failed)
        check_refused("euler", range, "sigma_min must be below sigma_max", training);
    dn_options spacing = one(DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    dn_option_set(&spacing, DN_OPT_TIMESTEP_SPACING, DN_SPACING_TRAILING);
    if (!test_failed)
        check_refused("dpmpp_2m", spacing, "timestep_spacing needs sigma_schedule model", training);
    dn_option_set(&range, DN_OPT_SIGMA_MIN, 500.0);
    range.given &= ~(UINT64_C(1) << DN_OPT_SIGMA_MAX);
    if (!test_failed)
        check_refused("dpmpp_2m", range, "sigma_min must be below", training);
    dn_training_schedule_free(training);
}

/* Tables rescaled to zero terminal signal have a last entry that no step can divide by, and may fall towards it. */
static void tables_without_signal_make_no_nan(void)
{
    static const uint32_t counts[] = {4, 5, 60, 300, 999};
    dn_options rescaled = {0};
    cJSON *json = cJSON_Parse("{\"prediction_type\":\"v_prediction\",\"rescale_betas_zero_snr\":true}");
    dn_training_schedule *training = NULL;
    CHECK_OK(dn_training_schedule_from_json(&training, json, "test", &error), error);
    for (uint32_t s = 0; dn_sampler_at(s) != NULL && !test_failed; s++)
        for (size_t c = 0; c < sizeof counts / sizeof counts[0] && !test_failed; c++)
            if (dn_sampler_serves(dn_sampler_at(s), training))
                check_sound(dn_sampler_at(s), &rescaled, counts[c], "zero terminal signal", training);
    for (int i = 0; i < 2 && !test_failed; i++)
        check_refused(i == 0 ? "pndm" : "plms", one(DN_OPT_TIMESTEP_SPACING, DN_SPACING_TRAILING), "timestep_spacing must be", training);
    dn_training_schedule_free(training);
    cJSON_Delete(json);
}

static void consistency_models_have_no_score_at_their_end(void)
{
    dn_training_schedule *consistency = open_class("CMStochasticIterativeScheduler", NULL);
    dn_training_schedule *edm = open_family(DN_FAMILY_EDM, NULL);
    check_refused("predictor_corrector", (dn_options){0}, "does not serve consistency models", consistency);
    if (!test_failed)
        check_refused("consistency", (dn_options){0}, "does not serve models trained by EDM", edm);
    dn_training_schedule_free(consistency);
    dn_training_schedule_free(edm);
}

/* Options reach what they mirror: levels, configuration and training schedule. */
static void options_override_the_configuration(void)
{
    dn_training_schedule *training = open_family(DN_FAMILY_VP, "v_prediction");
    dn_options options = one(DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    dn_option_set(&options, DN_OPT_SIGMA_MIN, 0.05);
    dn_option_set(&options, DN_OPT_SIGMA_MAX, 50.0);
    dn_option_set(&options, DN_OPT_RHO, 3.0);
    CHECK_OK(begin(dn_sampler_find("euler"), 3, &options, training), error);
    double middle = pow(0.5 * (cbrt(50.0) + cbrt(0.05)), 3.0);
    CHECK(fabs(context.schedule.level[0].sigma - 50.0) < 1e-9 && fabs(context.schedule.level[1].sigma - middle) < 1e-9);
    CHECK(fabs(context.schedule.level[2].sigma - 0.05) < 1e-9 && context.schedule.level[3].sigma == 0.0);
    CHECK_OK(begin(dn_sampler_find("unipc"), 3, &options, training), error);
    CHECK(fabs(context.schedule.level[1].sigma / context.schedule.level[1].alpha - middle) < 1e-9);
    options = one(DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_EXPONENTIAL);
    CHECK_OK(begin(dn_sampler_find("unipc"), 4, &options, training), error);
    double high = dn_training_sigma(training, 999.0), low = dn_training_sigma(training, 0.0);
    for (uint32_t i = 0; i < 4; i++) { /* even in their logarithms, at whole timesteps */
        const dn_level *level = &context.schedule.level[i];
        double ratio = high * pow(low / high, i / 3.0);
        CHECK(fabs(level->sigma / level->alpha / ratio - 1.0) < 1e-9);
        CHECK(level->time == floor(dn_network_time(training, ratio) + 1e-5));
    }
    options = one(DN_OPT_RESCALE_ZERO_SNR, 1.0);
    dn_option_set(&options, DN_OPT_TIMESTEP_SPACING, DN_SPACING_TRAILING);
    CHECK_OK(begin(dn_sampler_find("ddim"), 10, &options, training), error);
    CHECK(context.training == training->rescaled && context.schedule.level[0].alpha == 0.0 && context.schedule.level[0].time == 999.0);
    CHECK(dn_option_value(&context, DN_OPT_RESCALE_ZERO_SNR) == 1.0);
    CHECK_OK(begin(dn_sampler_find("ddim"), 10, NULL, training), error);
    CHECK(context.training == training && dn_option_value(&context, DN_OPT_RESCALE_ZERO_SNR) == 0.0);
    options = one(DN_OPT_SOLVER_TYPE, DN_SOLVER_BH1);
    CHECK_OK(begin(dn_sampler_find("unipc"), 10, &options, training), error);
    CHECK(strcmp(context.config.solver_type, "bh1") == 0 && context.config.solver_order == 2);
    CHECK_OK(begin(dn_sampler_find("dpmpp_3m"), 10, NULL, training), error);
    CHECK(context.config.solver_order == 3);
    CHECK_OK(begin(dn_sampler_find("dpmpp_2m_sde"), 10, NULL, training), error);
    CHECK(strcmp(context.config.algorithm_type, "sde-dpmsolver++") == 0);
    dn_training_schedule_free(training);
}

/* "model": the folder's values are the standards, and the row is that of its class and algorithm. */
static void the_folder_has_the_last_word_of_standards(void)
{
    dn_scheduler_config folder;
    dn_training_schedule *training = open_family(DN_FAMILY_VP, NULL);
    CHECK_OK(dn_scheduler_config_defaults(&folder, "DPMSolverMultistepScheduler", &error), error);
    folder.solver_order = 3;
    folder.use_karras_sigmas = true;
    snprintf(folder.algorithm_type, sizeof folder.algorithm_type, "dpmsolver++");
    dn_options none = {0};
    CHECK_OK(dn_sampler_context_init(&context, "model", 10, &none, 1, training, &folder, &error), error);
    CHECK(strcmp(context.sampler->name, "dpmpp_2m") == 0 && dn_option_value(&context, DN_OPT_SOLVER_ORDER) == 3.0);
    CHECK(dn_option_value(&context, DN_OPT_SIGMA_SCHEDULE) == DN_SIGMAS_KARRAS);
    folder.solver_order = 2;
    snprintf(folder.algorithm_type, sizeof folder.algorithm_type, "sde-dpmsolver++");
    CHECK_OK(dn_sampler_context_init(&context, "model", 10, &none, 1, training, &folder, &error), error);
    CHECK(strcmp(context.sampler->name, "dpmpp_2m_sde") == 0);
    CHECK(strcmp(dn_sampler_for_scheduler("DDIMParallelScheduler")->name, "ddim") == 0);
    CHECK(strcmp(dn_sampler_for_scheduler("PNDMScheduler")->name, "pndm") == 0 && dn_sampler_for_scheduler("NoSuchScheduler") == NULL);
    dn_options order = one(DN_OPT_SOLVER_ORDER, 1.0);
    CHECK_OK(dn_sampler_context_init(&context, "model", 10, &order, 1, training, &folder, &error), error);
    CHECK(context.config.solver_order == 1 && context.config.use_karras_sigmas);
    dn_training_schedule_free(training);
}

int main(void)
{
    RUN(standards_are_what_is_done);
    RUN(options_override_the_configuration);
    RUN(the_folder_has_the_last_word_of_standards);
    RUN(options_without_effect_are_refused_by_name);
    RUN(live_registers_are_all_that_is_needed);
    RUN(nothing_makes_nan);
    RUN(tables_without_signal_make_no_nan);
    RUN(repeated_levels_make_no_nan);
    RUN(consistency_models_have_no_score_at_their_end);
    RUN(every_sampler_starts_in_the_middle);
    return test_end();
}
