/* POST /v1/images/generations: the body of OpenAI's Images API to that of POST /generate, or a refusal that names the parameter. Pure; any
 * thread.
 *
 * Taken over from openai-python 3.54 (types/image_generate_params.py): prompt, model, n, size, response_format, output_format, stream,
 * partial_images. Known to be sent by its clients, without meaning here, and checked for the values that the real API takes: quality, style,
 * background, moderation, complexity, output_compression, user, safety_identifier. Extensions, named as vLLM-Omni and SGLang name them:
 * num_inference_steps, guidance_scale, negative_prompt, seed; and every field of POST /generate by its own name. null is a field left out, as
 * clients write it; of class_label it is POST /generate's null. */
#ifndef API_OPENAI_REQUEST_H
#define API_OPENAI_REQUEST_H

#include "api/generate_request.h"

#define API_OPENAI_PARTIAL_IMAGES_MAX 3 /* as at OpenAI */

typedef struct api_openai_request {
    bool as_url; /* response_format "url"; else the pictures are in the answer */
    bool stream;
    unsigned partial_images;
    bool resolved; /* the model was found, and with it the class */
    /* Which native fields came under names of the dialect. */
    bool renamed_steps, renamed_negative;
} api_openai_request;

/* *native: malloc'd text of a POST /generate body. The prompt is matched to a class (class_match.h) unless class_label or class_mixture is
 * sent. A model that cannot be found leaves `resolved` false, and the refusal to that body's own validator. problem->field is the parameter's name, or its
 * path with slashes between, without a slash before it. */
bool api_openai_translate(api_openai_request *out, char **native, const char *body, size_t bytes, api_model_lookup *lookup, void *payload,
                          api_problem *problem);

/* A refusal of the native body, told in the dialect's names: "/steps" becomes "num_inference_steps" if that was sent. */
void api_openai_rename(const api_openai_request *request, api_problem *problem);

/* Seconds that a synchronous answer may take so that a client which reads for `read_timeout` seconds at most (what the headers
 * X-Stainless-Read-Timeout or X-Stainless-Timeout say, NULL: not told) still hears it: a quarter of its time less, 5 s at most; never more than `most`. */
double api_openai_wait_seconds(const char *read_timeout, double most);

#endif
