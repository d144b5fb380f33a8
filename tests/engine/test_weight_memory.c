/* What loading and serving take: floats are given back as they are packed, so a network never lies in memory twice, and the vectors
 * kept of times and conditions have their bound. (That it
 * packs alike either way the pinned images show: engines spend their floats, the goldens' networks keep them.) */
#include "tests/test.h"

#include <sys/resource.h>

#include "backend/backend.h"
#include "model/model.h"
#include "train/train.h"

#define ROWS 4u
#define RUNS 40u
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

/* Rows at times that all differ, until the vectors kept of them have long begun to give way. */
static void serve_rows(const dn_backend *backend, dn_device *device, dn_network *network, const dn_plan *plan)
{
    const dn_workspace_options options = {.rows_max = ROWS};
    const size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    dn_workspace *workspace = NULL;
    dn_buffer *from = NULL, *to = NULL;
    dn_row rows[ROWS];
    CHECK_OK(backend->workspace_create(&workspace, network, &options, &error), error);
    CHECK_OK(backend->buffer_create(&from, device, in, &error), error);
    CHECK_OK(backend->buffer_create(&to, device, ROWS * out, &error), error);
    for (uint32_t run = 0; run < RUNS; run++) {
        for (uint32_t r = 0; r < ROWS; r++) {
            rows[r] = (dn_row){.in = from, .in_scale = 1.0f, .time = (float)(run * ROWS + r), .out = to, .out_offset = r * out};
            rows[r].condition = (dn_condition){1, {r}, {1.0f}};
        }
        CHECK_OK(backend->run(network, workspace, rows, ROWS, &error), error);
    }
    backend->workspace_free(workspace);
    backend->buffer_free(from);
    backend->buffer_free(to);
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
    serve_rows(backend, device, network, model->plan);
    CHECK(backend->packed_bytes(device, model->plan, DN_PRECISION_FP32) == backend->network_bytes(network));
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
