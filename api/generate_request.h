/* POST /generate: bytes to a validated request, or a refusal that names the field. Nothing is clamped or repaired. */
#ifndef API_GENERATE_REQUEST_H
#define API_GENERATE_REQUEST_H

#include "api/model_description.h"
#include "api/problem.h"
#include "api/limits.h"
#include "diffusion/sampler.h"

typedef struct api_request {
    char model[65];
    bool has_class;
    uint32_t class_index;
    char class_name[256];        /* first synonym, "" when unconditional */
    double guidance_scale;
    uint32_t steps;
    char sampler[32];
    dn_options options;
    bool has_seed;               /* as the client sent it; the caller draws one when false and sets seed */
    uint64_t seed;
    uint32_t n;
    int priority;
} api_request;

/* Finds a model's description by name; NULL: unknown. name NULL asks for the default model, which is
 * refused as `loading` when nothing is known of it yet. */
typedef const api_model *api_model_lookup(void *payload, const char *name);

/* Parses one JSON object, or an array of 1..API_BATCH_JOBS_MAX of them (all or nothing; fields are then "/3/steps").
 * *out is malloc'd, *count its length, *is_array how it came. Returns false with *problem filled. */
bool api_parse_generate(api_request **out, size_t *count, bool *is_array, const char *body, size_t body_bytes, api_model_lookup *lookup, void *payload,
                        api_problem *problem);

/* sha256 of the parsed client body (keys sorted, no defaults filled in) and the route. Numbers count by value: 2 equals 2.0.
 * False only when the body does not pass the scanner or memory runs out. */
bool api_fingerprint(unsigned char out[32], const char *route, const char *body, size_t body_bytes);

/* The request as stored and shown (JOB's "request"), and back. Seeds are strings. malloc'd. */
char *api_request_json(const api_request *request);
bool api_request_from_json(api_request *out, const char *json, size_t bytes);

/* What it costs: n * evaluations * rows, the measure of queue caps and fair turns. */
uint64_t api_request_cost(const api_request *request);

#endif
