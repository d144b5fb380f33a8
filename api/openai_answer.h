/* OpenAI's bodies: errors, models, pictures, and the events of a stream (openai-python 3.54, types/image*.py). Pure; any thread; all text is
 * malloc'd, NULL when memory ran out.
 *
 * What is ours in them: `seed` (a string, exact), `index` of an event's picture, and `revised_prompt`, which is the name of the class that was
 * drawn. `usage` is there, as clients read it, and zero: nothing here counts tokens. */
#ifndef API_OPENAI_ANSWER_H
#define API_OPENAI_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "api/problem.h"
#include "api/text.h"

/* {"error":{message,type,param,code}} and its status. Types: invalid_request_error, authentication_error (401, code invalid_api_key),
 * permission_error (403), rate_limit_error (429, code rate_limit_exceeded), server_error (500 and above). What is 422 here is 400 there; a model
 * that is none is 404, code model_not_found. Other codes are this service's own, with '_' for '-'. problem->field, with or without a slash
 * before it, is param. */
char *api_openai_error(const api_problem *problem, int *status);
/* The same for what is no problem of the table: param null. */
char *api_openai_error_of(const char *type, const char *code, const char *message);

/* {"object":"list","data":[...]} and one of its elements; when a model was made is not known: created is 0. */
char *api_openai_models(const char *const *names, size_t count);
char *api_openai_model(const char *name);

typedef struct api_openai_image {
    uint32_t index;
    uint64_t seed;
    const unsigned char *png; /* NULL: url is there instead */
    size_t png_bytes;
    const char *url;
    uint32_t width, height;
    const char *class_name; /* NULL or "": not of one class */
} api_openai_image;

/* An ImagesResponse is begun, gets each of its pictures, and is ended; count: how many were added before. */
void api_openai_images_begin(api_text *text, int64_t created_seconds, uint32_t width, uint32_t height);
void api_openai_images_add(api_text *text, size_t count, const api_openai_image *image);
void api_openai_images_end(api_text *text);

/* Whole server-sent events. partial_index counts an image's partial pictures from 0. error: the body of api_openai_error. */
char *api_openai_partial_event(const api_openai_image *image, unsigned partial_index, int64_t created_seconds);
char *api_openai_completed_event(const api_openai_image *image, int64_t created_seconds);
char *api_openai_error_event(const char *error);

#endif
