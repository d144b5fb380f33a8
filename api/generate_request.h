/* POST /generate: bytes to a validated request, or a refusal that names the field. Nothing is clamped or repaired. */
#ifndef API_GENERATE_REQUEST_H
#define API_GENERATE_REQUEST_H

#include "api/model_description.h"
#include "api/problem.h"
#include "api/limits.h"
#include "diffusion/sampler.h"

#define API_CLASS_NAME_BYTES 256

/* A class by its index, with its first synonym cut to fit. */
typedef struct api_class {
    uint32_t index;
    char name[API_CLASS_NAME_BYTES];
} api_class;

typedef struct api_class_weight {
    api_class label;
    double weight;
} api_class_weight;

/* A picture that came with a request: the bytes of its PNG, whose header alone has been looked at. */
typedef struct api_input_image {
    char sha256[65];             /* of the bytes; "": there is none */
    uint64_t byte_count;
    const unsigned char *bytes;  /* in the block that api_parse_generate made; NULL when read back from the stored form */
} api_input_image;

typedef struct api_request {
    char model[65];
    bool has_class;              /* with mixture_count > 0 too: something to be guided to */
    uint32_t class_index;
    char class_name[API_CLASS_NAME_BYTES]; /* first synonym, "" when unconditional or a mixture */
    uint32_t mixture_count;      /* > 0: several classes by weight instead of class_index */
    api_class_weight mixture[API_CLASS_MIXTURE_MAX];
    bool has_negative;
    api_class negative;          /* guided away from this one instead of the null class */
    double guidance_scale;
    uint32_t steps;
    char sampler[32];
    uint32_t evaluations_per_step; /* of that sampler, for the cost; 0 when read back from the stored form */
    dn_options options;
    api_input_image init_image, mask_image; /* of the size of the model's pictures */
    bool has_variation;
    uint64_t variation_seed;
    bool has_seed;               /* as the client sent it; the caller draws one when false and sets seed */
    uint64_t seed;
    uint32_t n;
    int priority;
    int64_t deadline_ms;         /* from acceptance; 0: none */
    char webhook[API_WEBHOOK_BYTES_MAX + 1]; /* a URL to be told of the end; "": none */
} api_request;

/* Finds a model's description by name; NULL: unknown. name NULL asks for the default model, which is
 * refused as `loading` when nothing is known of it yet. */
typedef const api_model *api_model_lookup(void *payload, const char *name);

/* Parses one JSON object, or an array of 1..API_BATCH_JOBS_MAX of them (all or nothing; fields are then "/3/steps").
 * *out is one malloc'd block that holds the input images' bytes too, *count its length, *is_array how it came. Returns false with
 * *problem filled. A body over API_BODY_BYTES_MAX is taken, up to API_BODY_IMAGE_BYTES_MAX, when it carries a picture. */
bool api_parse_generate(api_request **out, size_t *count, bool *is_array, const char *body, size_t body_bytes, api_model_lookup *lookup, void *payload,
                        api_problem *problem);

/* sha256 of the parsed client body (keys sorted, no defaults filled in) and the route. Numbers count by value: 2 equals 2.0.
 * False only when the body does not pass the scanner or memory runs out. */
bool api_fingerprint(unsigned char out[32], const char *route, const char *body, size_t body_bytes);

/* The request as stored and shown (JOB's "request"), and back. Seeds are strings. malloc'd. */
char *api_request_json(const api_request *request);
bool api_request_from_json(api_request *out, const char *json, size_t bytes);
/* The same where it matters why: DN_INVALID: no such request; DN_NO_MEMORY: another try may read it. */
dn_status api_request_read(api_request *out, const char *json, size_t bytes);

/* Rows of the network, guide and classifier that one evaluation of an image takes at most: 1 to 3. */
uint32_t api_request_rows(const api_request *request);

/* Steps of an image that are made, 1 at least: image-to-image leaves out those before its strength (diffusers' get_timesteps). */
uint32_t api_request_steps_made(const api_request *request);

/* What it costs at most: n * steps * evaluations a step * rows, the measure of queue caps and fair turns. The steps are those that are
 * made; an interval of guidance and a solver's shorter last step save some of it, and an adaptive sampler, whose evaluations nobody knows
 * beforehand, counts as if it took every step once. PNDM's nine of its first steps are not counted. */
uint64_t api_request_cost(const api_request *request);

#endif
