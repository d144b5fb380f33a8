/* Bits per dimension of real test pictures; see evaluation_likelihood.h. One thread; a pool works for it.
 *
 * The network is opened a second time, with its weights as they are stored: an engine has let them go, and its packed ones do not run
 * backward. */
#include "server/evaluation_likelihood.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "diffusion/family.h"
#include "evaluate/network_field.h"
#include "server/progress.h"

#define TOLERANCE 1e-4 /* rtol and atol of a step */

typedef struct likelihood_sum {
    double bits, squares, seconds;
    uint64_t evaluations;
    uint32_t count;
} likelihood_sum;

static double standard_error(const likelihood_sum *sum)
{
    double mean = sum->bits / sum->count, variance = sum->squares / sum->count - mean * mean;
    return sum->count > 1 ? sqrt(fmax(variance, 0.0) / (sum->count - 1)) : (double)NAN;
}

static dn_status measure_picture(likelihood_sum *sum, const likelihood_request *r, dn_network_field *field, float *x, uint32_t index,
                                 dn_error *error)
{
    const dn_dataset *test = r->test;
    size_t elements = (size_t)test->channels * test->height * test->width;
    const dn_condition condition = {.count = 1, .classes = {test->labels[index]}, .weights = {1.0f}};
    const dn_likelihood_options options = {.probes = r->probes, .rtol = TOLERANCE, .atol = TOLERANCE, .seed = r->seed + index};
    dn_flow_field flow = dn_network_field_of(field, r->engine->class_count > 0 ? &condition : NULL);
    dn_likelihood found;
    dn_dequantise(x, test->pixels + index * elements, test->height, test->width, test->channels, r->seed + index);
    dn_status status = dn_log_density(&found, &flow, x, &options, error);
    if (status != DN_OK)
        return status;
    double bits = dn_bits_per_dimension(found.log_density, elements);
    sum->bits += bits;
    sum->squares += bits * bits;
    sum->evaluations += found.evaluations;
    sum->count++;
    return DN_OK;
}

static dn_status measure_all(likelihood_sum *sum, const likelihood_request *r, dn_network_field *field, dn_error *error)
{
    dn_progress_bar bar;
    dn_status status = DN_OK;
    float *x = malloc(dn_engine_elements(r->engine) * sizeof *x);
    double started = dn_now_seconds();
    if (x == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a picture");
    dn_progress_begin(&bar, "likelihood", r->count);
    for (uint32_t i = 0; i < r->count && status == DN_OK; i++) {
        status = measure_picture(sum, r, field, x, i, error);
        dn_progress_update(&bar, i + 1.0, "");
    }
    dn_progress_end(&bar);
    sum->seconds = dn_now_seconds() - started;
    free(x);
    return status;
}

static dn_status save(const likelihood_sum *sum, const likelihood_request *r, dn_error *error)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "bits_per_dimension", sum->bits / sum->count);
    if (sum->count > 1)
        cJSON_AddNumberToObject(json, "standard_error", standard_error(sum));
    cJSON_AddNumberToObject(json, "pictures", sum->count);
    cJSON_AddNumberToObject(json, "probes", r->probes);
    cJSON_AddNumberToObject(json, "evaluations_per_picture", (double)sum->evaluations / sum->count);
    cJSON_AddStringToObject(json, "weights_sha256", r->engine->model->weights_sha256);
    char *text = cJSON_Print(json);
    cJSON_Delete(json);
    if (text == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", r->output_path);
    dn_status status = dn_file_write(r->output_path, text, strlen(text), false, error);
    cJSON_free(text);
    return status;
}

static dn_status check(const likelihood_request *r, dn_error *error)
{
    if (r->engine->codec_path != NULL)
        return dn_fail(error, DN_UNSUPPORTED, "--likelihood: a network of latents gives pictures no density");
    if (r->engine->training->family == DN_FAMILY_VE)
        return dn_fail(error, DN_UNSUPPORTED, "--likelihood: networks of %s are not measured", dn_family_title(DN_FAMILY_VE));
    if (r->count > r->test->count)
        return dn_fail(error, DN_INVALID, "--likelihood must be at most %u, the pictures of the test split", r->test->count);
    return r->output_path != NULL ? dn_file_check_target(r->output_path, error) : DN_OK;
}

dn_status likelihood_evaluate(const likelihood_request *r, dn_error *error)
{
    const dn_engine *engine = r->engine;
    dn_model *model = NULL;
    dn_network_field *field = NULL;
    likelihood_sum sum = {0};
    dn_status status = check(r, error);
    if (status == DN_OK)
        status = dn_model_open(&model, engine->folder->network_path, 0, 0, error);
    const dn_network_field_options options = {.backend = engine->backend,
                                              .device = engine->device,
                                              .model = model,
                                              .training = engine->training,
                                              .threads = r->threads,
                                              .products_max = r->probes};
    if (status == DN_OK)
        status = dn_network_field_create(&field, &options, error);
    if (status == DN_OK)
        status = measure_all(&sum, r, field, error);
    if (status == DN_OK)
        printf("likelihood  %.4f +- %.4f bits per dimension (%u test pictures, %u probes, %.1f evaluations each, %.0f s)\n",
               sum.bits / sum.count, standard_error(&sum), sum.count, r->probes, (double)sum.evaluations / sum.count, sum.seconds);
    if (status == DN_OK && r->output_path != NULL)
        status = save(&sum, r, error);
    dn_network_field_free(field);
    dn_model_free(model);
    return status;
}
