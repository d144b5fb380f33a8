/* Bits per dimension of real test pictures under a model: `denoised evaluate --likelihood N`. */
#ifndef DN_SERVER_EVALUATION_LIKELIHOOD_H
#define DN_SERVER_EVALUATION_LIKELIHOOD_H

#include "batch/loaded_engine.h"
#include "format/idx.h"

typedef struct likelihood_request {
    const dn_engine *engine;
    const dn_dataset *test; /* of the engine's shape; its first `count` pictures, each under its own class */
    uint32_t count, probes;
    uint64_t seed; /* of the probes and of the dequantisation; picture i has seed + i */
    unsigned threads;
    const char *output_path; /* the numbers as JSON; NULL: not wanted */
} likelihood_request;

/* Measures, prints, and saves. DN_UNSUPPORTED for networks of latents, which give pictures no density. */
dn_status likelihood_evaluate(const likelihood_request *request, dn_error *error);

#endif
