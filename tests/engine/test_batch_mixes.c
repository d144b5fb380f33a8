/* Random mixes: whatever shares an image's batches, whenever it enters, in whatever place, on one thread or two, and however often it
 * moves between batches as a snapshot, its bytes are those that it has alone; and it costs the evaluations that were foretold.
 *
 *     test_batch_mixes [SEED [MIXES]]     (in the repository root; the seed is printed)
 *
 * A mix is 1 to 16 images of one network: any sampler, steps, guidance, classes and options, a third of them close kin of another
 * (other seed or class, the same times), and strangers who come and are sent away. */
#include "mix_networks.h"

#include "base/sha256.h"

#define LANES 16u
#define STRANGERS 2u
#define TICKS_MAX 5000u
#define MIXES 500u

typedef struct item {
    dn_lane_spec spec;
    unsigned char alone[DN_SHA256_BYTES]; /* of its floats and pixels, or of the words with which it failed */
    dn_lane_id id;
    uint32_t due; /* tick of its admission */
    uint32_t batch; /* 0 or 1 */
    enum { ITEM_AWAY, ITEM_RUNNING, ITEM_ENDED } state;
} item;

static item items[LANES + STRANGERS];
static uint32_t item_count; /* strangers stand behind */
static mix_network *network;
static dn_batch *batches[2];
static uint32_t rows_max[2];
static uint64_t seed = 20261122, state;
static uint32_t mix_number, moving; /* moving: one in so many ticks of an image; 0: never */
static struct {
    uint32_t images, failed, moves, strangers, rows, kin, guided, mixtures, negatives, unconditional, pictures;
    uint64_t samplers; /* bit: place in the table */
} seen;

static uint32_t random_below(uint32_t end)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % end;
}

static uint64_t random_64(void)
{
    return (uint64_t)random_below(1u << 31) << 33 ^ (uint64_t)random_below(1u << 31) << 11 ^ random_below(1u << 11);
}

static double random_between(double low, double high)
{
    return low + (high - low) * random_below(1u << 20) / (1u << 20);
}

/* ---- A random request */

/* A field at one of its ends or anywhere between. */
static void give(dn_options *options, const dn_option_field *field)
{
    uint32_t kind = random_below(3);
    double value = kind == 0 ? field->minimum : kind == 1 ? field->maximum : random_between(field->minimum, field->maximum);
    dn_option_set(options, field->id, dn_option_info_of(field->id)->type == DN_TYPE_NUMBER ? value : rint(value));
}

static void give_some(dn_lane_spec *spec, const dn_sampler *sampler)
{
    const dn_option_field *field = NULL;
    for (uint32_t i = 0; i < sampler->field_count; i++)
        if (random_below(6) == 0)
            give(&spec->options, &sampler->fields[i]);
    for (uint32_t i = 0; (field = dn_engine_field_at(network->engines[0], i)) != NULL; i++) {
        bool needs_more = field->id == DN_OPT_STRENGTH || field->id == DN_OPT_RESAMPLE || field->id == DN_OPT_VARIATION_STRENGTH;
        if (!needs_more && random_below(6) == 0)
            give(&spec->options, field);
    }
    if (spec->init != NULL && !sampler->inverts && random_below(2) == 0)
        dn_option_set(&spec->options, DN_OPT_STRENGTH, random_between(0.0, 1.0));
    if (spec->mask != NULL && random_below(2) == 0)
        dn_option_set(&spec->options, DN_OPT_RESAMPLE, 1 + random_below(3));
    if (spec->has_variation && random_below(4) != 0)
        dn_option_set(&spec->options, DN_OPT_VARIATION_STRENGTH, random_between(0.0, 1.0));
    if (sampler->adaptive) {
        dn_option_set(&spec->options, DN_OPT_RTOL, 0.2);
        dn_option_set(&spec->options, DN_OPT_ATOL, 0.2);
    }
}

static void give_classes(dn_lane_spec *spec, uint32_t classes)
{
    spec->has_class = classes > 0 && random_below(6) != 0;
    if (!spec->has_class)
        return;
    spec->class_index = random_below(classes);
    spec->has_negative = random_below(4) == 0;
    spec->negative_class = random_below(classes);
    if (random_below(4) == 0)
        spec->mixture.count = 1 + random_below(DN_CONDITION_CLASSES_MAX);
    for (uint32_t i = 0; i < spec->mixture.count; i++) {
        spec->mixture.classes[i] = random_below(classes);
        spec->mixture.weights[i] = (float)random_between(-0.5, 1.0);
    }
}

static const dn_sampler *any_sampler(uint32_t *place)
{
    uint32_t count = 0;
    dn_error why;
    while (dn_sampler_at(count) != NULL)
        count++;
    do
        *place = random_below(count);
    while (dn_engine_serves(network->engines[0], dn_sampler_at(*place), &why) != DN_OK);
    return dn_sampler_at(*place);
}

/* Most random requests are refused for one reason or another; false then. */
static bool draw(dn_lane_spec *spec)
{
    static const double scales[] = {1.0, 0.0, 0.5, 2.0, 7.5, -100.0, 100.0};
    uint32_t place = 0;
    const dn_sampler *sampler = any_sampler(&place);
    *spec = (dn_lane_spec){.seed = random_64(), .guidance_scale = scales[random_below(7)], .steps = 1 + random_below(network->steps_max)};
    snprintf(spec->sampler, sizeof spec->sampler, "%s", random_below(16) == 0 ? "model" : sampler->name);
    give_classes(spec, network->engines[0]->class_count);
    spec->has_variation = random_below(4) == 0;
    spec->variation_seed = random_64();
    spec->init = sampler->inverts || random_below(3) == 0 ? network->init : NULL;
    spec->mask = spec->init != NULL && random_below(2) == 0 ? network->mask : NULL;
    give_some(spec, sampler);
    if (dn_lane_spec_check(network->engines[0], spec, &error) != DN_OK)
        return false;
    if (strcmp(spec->sampler, sampler->name) == 0)
        seen.samplers |= 1ull << place;
    return true;
}

/* The same request but for its seed, and every other time its class: its rows meet the other's at the same times. */
static bool draw_kin(dn_lane_spec *spec, const dn_lane_spec *other)
{
    *spec = *other;
    spec->seed = random_64();
    if (spec->has_class && random_below(2) == 0)
        spec->class_index = random_below(network->engines[0]->class_count);
    seen.kin++;
    return dn_lane_spec_check(network->engines[0], spec, &error) == DN_OK;
}

static void count_spec(const dn_lane_spec *spec)
{
    seen.images++;
    seen.guided += dn_lane_spec_rows(network->engines[0], spec) > 1;
    seen.mixtures += spec->mixture.count > 1;
    seen.negatives += spec->has_negative;
    seen.unconditional += !spec->has_class;
    seen.pictures += spec->init != NULL;
}

/* ---- Its picture */

/* Latent networks have no pixels of their own: floats alone. */
static void hash_lane(unsigned char out[DN_SHA256_BYTES], dn_batch *batch, const dn_lane_report *lane)
{
    size_t elements = dn_engine_elements(network->engines[0]);
    float *floats = malloc(elements * sizeof *floats);
    uint8_t *pixels = malloc(elements);
    dn_sha256 hash;
    dn_sha256_init(&hash);
    if (lane->state == DN_LANE_FAILED) {
        dn_sha256_update(&hash, lane->error.message, strlen(lane->error.message));
    } else {
        if (floats == NULL || pixels == NULL || dn_batch_read_floats(batch, lane->id, floats, &error) != DN_OK)
            abort();
        dn_sha256_update(&hash, floats, elements * sizeof *floats);
        if (network->engines[0]->codec_path == NULL && dn_batch_read_pixels(batch, lane->id, pixels, &error) == DN_OK)
            dn_sha256_update(&hash, pixels, elements);
    }
    dn_sha256_final(&hash, out);
    free(floats);
    free(pixels);
}

static void make_alone_and_count(item *one)
{
    static dn_tick_report report;
    dn_engine *engine = network->engines[0];
    dn_batch *batch = NULL;
    uint64_t rows = 0;
    bool adaptive = strcmp(one->spec.sampler, "rk45") == 0;
    CHECK_OK(dn_batch_create(&batch, engine, 2, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &one->spec, &error), error);
    do {
        CHECK_OK(dn_batch_tick(batch, &report, &error), error);
        rows += report.rows;
    } while (report.lanes[0].state == DN_LANE_RUNNING);
    uint32_t foretold = dn_lane_spec_evaluations(engine, &one->spec);
    if (report.lanes[0].state == DN_LANE_DONE)
        CHECK_MSG(adaptive || rows == foretold, "%s of %u steps ran %llu evaluations, %u were foretold", one->spec.sampler, one->spec.steps,
                  (unsigned long long)rows, foretold);
    seen.failed += report.lanes[0].state == DN_LANE_FAILED;
    hash_lane(one->alone, batch, &report.lanes[0]);
    dn_batch_free(batch);
}

/* ---- Its company */

static void describe(const char *what, const item *one)
{
    CHECK_MSG(false,
              "seed %llu, mix %u, %s: %s: %s, %u steps, guidance %g, seed %llu, in batch %u of %u rows on %u threads, among %u images",
              (unsigned long long)seed, mix_number, network->name, what, one->spec.sampler, one->spec.steps, one->spec.guidance_scale,
              (unsigned long long)one->spec.seed, one->batch, rows_max[one->batch], one->batch + 1, item_count);
}

static void admit(item *one)
{
    one->id = random_64();
    one->state = ITEM_RUNNING;
    CHECK_OK(dn_batch_admit(batches[one->batch], one->id, &one->spec, &error), error);
}

/* Takes a lane out of its batch and goes on with it in any of the two, in another place. */
static void move(item *one)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    CHECK_OK(dn_batch_snapshot(batches[one->batch], one->id, &bytes, &count, &error), error);
    CHECK(dn_batch_evict(batches[one->batch], one->id) == DN_OK);
    one->batch = random_below(2);
    one->id = random_64();
    dn_status status = dn_batch_restore(batches[one->batch], one->id, bytes, count, &error);
    free(bytes);
    CHECK_OK(status, error);
    seen.moves++;
}

static item *item_of(dn_lane_id id)
{
    for (uint32_t i = 0; i < item_count + STRANGERS; i++)
        if (items[i].state == ITEM_RUNNING && items[i].id == id)
            return &items[i];
    abort();
}

/* Strangers stay for as long as it pleases nobody. */
static void take(const dn_lane_report *lane)
{
    unsigned char together[DN_SHA256_BYTES];
    item *one = item_of(lane->id);
    bool stranger = one >= items + item_count;
    if (lane->state == DN_LANE_RUNNING && !stranger) {
        if (moving > 0 && random_below(moving) == 0)
            move(one);
        return;
    }
    if (lane->state == DN_LANE_RUNNING && random_below(4) != 0)
        return;
    if (!stranger) {
        hash_lane(together, batches[one->batch], lane);
        if (memcmp(together, one->alone, sizeof together) != 0) {
            describe("differs from itself made alone", one);
            return;
        }
    }
    one->state = stranger ? ITEM_AWAY : ITEM_ENDED;
    CHECK(dn_batch_evict(batches[one->batch], one->id) == DN_OK);
}

static void let_in(uint32_t tick)
{
    for (uint32_t i = 0; i < item_count && !test_failed; i++)
        if (items[i].state == ITEM_AWAY && items[i].due <= tick)
            admit(&items[i]);
    for (uint32_t i = item_count; i < item_count + STRANGERS && !test_failed; i++)
        if (items[i].state == ITEM_AWAY && random_below(4) == 0) {
            items[i].spec = items[random_below(item_count)].spec;
            items[i].spec.seed = random_64();
            items[i].batch = items[random_below(item_count)].batch;
            admit(&items[i]);
            seen.strangers++;
        }
}

static bool all_ended(void)
{
    for (uint32_t i = 0; i < item_count; i++)
        if (items[i].state != ITEM_ENDED)
            return false;
    return true;
}

static void run_together(void)
{
    static dn_tick_report report;
    for (uint32_t tick = 0; !all_ended() && !test_failed; tick++) {
        CHECK_MSG(tick < TICKS_MAX, "mix %u does not end", mix_number);
        let_in(tick);
        for (uint32_t b = 0; b < 2 && !test_failed; b++) {
            CHECK_OK(dn_batch_tick(batches[b], &report, &error), error);
            seen.rows = report.rows > seen.rows ? report.rows : seen.rows;
            for (uint32_t i = 0; i < report.lane_count && !test_failed; i++)
                take(&report.lanes[i]);
        }
    }
}

/* Both batches, or one of them alone; rows enough for all of them, or hardly for one. */
static void draw_company(void)
{
    uint32_t where = random_below(4), spread = random_below(3) == 0 ? 1 : 1 + random_below(12);
    moving = random_below(2) == 0 ? 0 : 4 + random_below(8);
    for (uint32_t b = 0; b < 2; b++)
        rows_max[b] = random_below(3) == 0 ? 2 + random_below(4) : 2 + random_below(2 * LANES);
    for (uint32_t i = 0; i < item_count + STRANGERS; i++) {
        items[i].state = ITEM_AWAY;
        items[i].due = random_below(spread);
        items[i].batch = where < 2 ? where : random_below(2);
    }
}

static void run_mix(void)
{
    item_count = 1 + random_below(LANES);
    for (uint32_t i = 0; i < item_count && !test_failed; i++) {
        bool kin = i > 0 && random_below(3) == 0 && draw_kin(&items[i].spec, &items[random_below(i)].spec);
        while (!kin && !draw(&items[i].spec))
            continue;
        count_spec(&items[i].spec);
        make_alone_and_count(&items[i]);
    }
    if (test_failed)
        return;
    draw_company();
    for (uint32_t b = 0; b < 2; b++)
        CHECK_OK(dn_batch_create(&batches[b], network->engines[b], rows_max[b], &error), error);
    run_together();
    for (uint32_t b = 0; b < 2; b++)
        dn_batch_free(batches[b]);
}

/* ---- The mixes: each network its share of them */

static uint32_t mixes = MIXES;

static void any_mix_of_requests_keeps_every_image(void)
{
    uint32_t wanted = 0, samplers = 0;
    for (uint32_t n = 0; n < MIX_NETWORKS && !test_failed; n++) {
        network = &mix_networks[n];
        wanted += network->share;
        dn_status status = mix_open(network);
        if (status == DN_UNSUPPORTED) {
            printf("%s has not run, the next has its share: %s\n", network->name, error.message);
            continue;
        }
        CHECK_OK(status, error);
        for (; mix_number < wanted * mixes / MIXES && !test_failed; mix_number++) {
            state = seed * 1000003u + mix_number;
            run_mix();
        }
        if (test_failed)
            return;
        mix_close(network);
    }
    printf("seed %llu: %u mixes, %u images (%u of them kin, %u failing alike), %u guided, %u of mixed classes, %u with a negative class, "
           "%u unconditional, %u of a given picture, %u moves, %u strangers, up to %u rows a tick\n",
           (unsigned long long)seed, mix_number, seen.images, seen.kin, seen.failed, seen.guided, seen.mixtures, seen.negatives,
           seen.unconditional, seen.pictures, seen.moves, seen.strangers, seen.rows);
    while (dn_sampler_at(samplers) != NULL)
        samplers++;
    CHECK_MSG(mixes < MIXES || seen.samplers == (1ull << samplers) - 1, "not every sampler took part: %llx of %u",
              (unsigned long long)seen.samplers, samplers);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        mixes = (uint32_t)strtoul(argv[2], NULL, 10);
    RUN(any_mix_of_requests_keeps_every_image);
    return test_end();
}
