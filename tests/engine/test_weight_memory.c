/* What loading takes: floats are given back as they are packed, so a network never lies in memory twice. (That it
 * packs alike either way the pinned images show: engines spend their floats, the goldens' networks keep them.) */
#include "tests/test.h"

#include <sys/resource.h>

#include "backend/backend.h"
#include "model/model.h"
#include "train/train.h"

#define SLACK_BYTES (24u << 20) /* what is in flight on both sides, and all that is no weight */

static dn_error error;

static size_t peak_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

static dn_model *make_model(void)
{
    static const char text[] = "{\"_class_name\":\"DiTTransformer2DModel\",\"num_attention_heads\":8,\"attention_head_dim\":64,"
                               "\"num_layers\":6,\"sample_size\":8,\"num_embeds_ada_norm\":10,\"out_channels\":8}";
    cJSON *config = cJSON_Parse(text);
    dn_model *model = NULL;
    if (dn_model_from_config(&model, config, "the transformer", &error) != DN_OK)
        abort();
    cJSON_Delete(config);
    return model;
}

static void floats_give_way_to_packed_weights(void)
{
    const char *variant = getenv("TEST_VARIANT");
    if (variant != NULL && strcmp(variant, "release") != 0)
        SKIP("a sanitizer keeps memory of its own");
    const dn_backend *backend = dn_backend_cpu();
    const dn_device_options options = {.threads = 2};
    dn_device *device = NULL;
    dn_network *network = NULL;
    dn_model *model = make_model();
    CHECK_OK(backend->device_open(&device, &options, &error), error);
    size_t before = peak_bytes();
    CHECK_OK(dn_weights_create(&model->weights, model->plan, &error), error);
    dn_initialise(model->plan, model->weights, 3, false);
    const dn_network_options wanted = {.plan = model->plan, .spent = model->weights};
    CHECK_OK(backend->network_create(&network, device, &wanted, &error), error);
    double packed = (double)backend->network_bytes(network), taken = (double)(peak_bytes() - before);
    CHECK_MSG(packed > 64e6, "%g bytes prove nothing", packed);
    CHECK_MSG(taken <= 1.15 * packed + SLACK_BYTES, "%.0f MB were taken for %.0f MB of packed weights", taken / 1e6, packed / 1e6);
    backend->network_free(network);
    backend->device_close(device);
    dn_model_free(model);
}

int main(void)
{
    RUN(floats_give_way_to_packed_weights);
    return test_end();
}
