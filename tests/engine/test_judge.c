/* A judge learns three easy classes, is kept in a folder, and says the same when it is opened again. */
#include "tests/test.h"

#include <unistd.h>

#include "base/philox.h"
#include "evaluate/judge_training.h"

#define SIDE 16
#define COUNT 480

/* Noise with a bright bar: at the left, at the top, or along the diagonal. */
static void make_pictures(dn_dataset *out, uint64_t seed)
{
    static uint8_t pixels[2][COUNT * SIDE * SIDE], labels[2][COUNT];
    int which = seed == 1 ? 0 : 1;
    for (uint32_t n = 0; n < COUNT; n++) {
        uint32_t label = n % 3, shift = dn_noise_word(seed, DN_STREAM_PROBE, 1, n) % 8;
        labels[which][n] = (uint8_t)label;
        for (uint32_t y = 0; y < SIDE; y++)
            for (uint32_t x = 0; x < SIDE; x++) {
                uint32_t place = label == 0 ? x : label == 1 ? y : (x + y) % SIDE;
                uint32_t noise = dn_noise_word(seed, DN_STREAM_PROBE, 0, (n * SIDE + y) * SIDE + x) % 100;
                pixels[which][(n * SIDE + y) * SIDE + x] = (uint8_t)(noise + (place / 2 == shift ? 150 : 0));
            }
    }
    *out = (dn_dataset){COUNT, SIDE, SIDE, 1, 3, pixels[which], labels[which]};
}

static void learns_keeps_and_repeats(void)
{
    char folder[64];
    snprintf(folder, sizeof folder, "/tmp/denoised-judge-%ld", (long)getpid());
    dn_dataset train, test;
    make_pictures(&train, 1);
    make_pictures(&test, 2);
    dn_judge_training training = {.dataset = &train, .epochs = 12, .seed = 5, .threads = 1};
    dn_judge *judge = NULL, *again = NULL;
    dn_verdict *first = NULL, *second = NULL;
    dn_error error = {DN_OK, ""};
    dn_status status = dn_judge_train(&judge, &training, folder, &error);
    if (status == DN_OK)
        status = dn_judge_open(&again, folder, 2, &error);
    if (status == DN_OK)
        status = dn_judge_look(&first, judge, test.pixels, test.count, &error);
    if (status == DN_OK)
        status = dn_judge_look(&second, again, test.pixels, test.count, &error);
    dn_agreement agreement = {0};
    bool same = false;
    if (status == DN_OK) {
        dn_agreement_of(&agreement, first, test.labels);
        same = first->dim == 64 && first->class_count == 3 && memcmp(first->labels, second->labels, COUNT) == 0 &&
               memcmp(first->features, second->features, (size_t)COUNT * first->dim * sizeof(float)) == 0;
    }
    dn_verdict_free(first);
    dn_verdict_free(second);
    dn_judge_free(judge);
    dn_judge_free(again);
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    unlink(path);
    rmdir(folder);
    CHECK_OK(status, error);
    CHECK_MSG(agreement.overall > 0.95, "only %.3f agree", agreement.overall);
    CHECK(same);
}

static void agreement_is_counted_by_class(void)
{
    uint8_t labels[6] = {0, 0, 1, 1, 2, 0}, wanted[6] = {0, 1, 1, 1, 2, 2};
    dn_verdict verdict = {.count = 6, .class_count = 4, .labels = labels};
    dn_agreement agreement;
    dn_agreement_of(&agreement, &verdict, wanted);
    CHECK(fabs(agreement.overall - 4.0 / 6.0) < 1e-12 && agreement.worst == 2 && agreement.per_class[0] == 1.0);
    CHECK(fabs(agreement.per_class[1] - 2.0 / 3.0) < 1e-12 && agreement.per_class[2] == 0.5 && isnan(agreement.per_class[3]));
}

static void other_networks_do_not_judge(void)
{
    dn_judge *judge = NULL;
    dn_error error = {DN_OK, ""};
    CHECK(dn_judge_open(&judge, "tests/golden/unet_default", 1, &error) == DN_INVALID && strstr(error.message, "UNet2DModel"));
}

int main(void)
{
    RUN(learns_keeps_and_repeats);
    RUN(agreement_is_counted_by_class);
    RUN(other_networks_do_not_judge);
    return test_end();
}
