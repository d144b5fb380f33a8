/* A model run plainly: rows in, rows out, and every node's value on request. What `forward`, `evaluate` and the golden tests
 * use; serving goes through batch/.
 *
 * Samples and answers are in the element order of the outside, [N,C,H,W]. One thread owns a dn_forward. */
#ifndef DN_MODEL_FORWARD_H
#define DN_MODEL_FORWARD_H

#include "backend/backend.h"
#include "model/model.h"

typedef struct dn_forward dn_forward;

typedef struct dn_forward_options {
    unsigned threads; /* 0: all available */
    uint32_t rows_max; /* rows in one pass, 1..DN_BATCH_ROWS_MAX; more are run in several */
    bool keep_values; /* dn_forward_value will be asked */
    dn_precision precision;
    const char *device; /* a name of backend/devices.h; NULL: "cpu" */
    const dn_backend *backend; /* instead: the first device of this one */
    bool fast; /* GPUs: see dn_device_options */
    const char *plan_cache; /* GPUs: folder of plans that were found; NULL: none */
} dn_forward_options;

typedef struct dn_forward_rows {
    uint32_t count;
    const float *samples; /* [count,C,H,W] */
    const float *times; /* [count]; NULL: all 0 */
    const uint32_t *classes; /* [count] rows of the class table; NULL for a network without one */
} dn_forward_rows;

/* Called after each pass with the index of its first row and their count; values may be read until it returns. */
typedef dn_status dn_forward_observer(void *payload, dn_forward *forward, uint32_t first, uint32_t count, dn_error *error);

/* The model is borrowed and outlives *out. */
dn_status dn_forward_open(dn_forward **out, const dn_model *model, const dn_forward_options *options, dn_error *error);
void dn_forward_close(dn_forward *forward); /* accepts NULL */

/* answers: [count,C',H',W'], may be NULL; observer may be NULL. A row with NaN or infinity in its answer is DN_NUMERIC. */
dn_status dn_forward_run(dn_forward *forward, const dn_forward_rows *rows, float *answers, dn_forward_observer *observer, void *payload,
                         dn_error *error);

/* Inside an observer of a forward with keep_values: value of row `row` of this pass, [C,H,W]. */
dn_status dn_forward_value(dn_forward *forward, dn_value value, uint32_t row, float *out, dn_error *error);

#endif
