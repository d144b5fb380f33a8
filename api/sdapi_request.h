/* AUTOMATIC1111's POST /sdapi/v1/txt2img and /img2img: its body to the text of a POST /generate body, which the one validator then reads.
 * Nothing is clamped or repaired; what this program does not do is refused by name (sdapi_fields.h). Two steps, because the model is
 * looked up between them: api_sdapi_read, then api_sdapi_translate. Pure; any thread. */
#ifndef API_SDAPI_REQUEST_H
#define API_SDAPI_REQUEST_H

#include "api/model_description.h"
#include "api/sdapi_fields.h"
#include "api/sdapi_names.h"

#define API_SDAPI_TASK_BYTES 128 /* of force_task_id, with its NUL */

typedef struct api_sdapi_request {
    bool img2img;
    cJSON *root; /* what values points into, beside the body itself */
    api_sdapi_value values[API_SDAPI_FIELD_COUNT];
    const char *checkpoint; /* override_settings.sd_model_checkpoint; NULL: none */
    bool keeps_checkpoint;  /* override_settings_restore_afterwards false: it is the client's from now on */
    const char *prompt, *negative_prompt; /* "": none */
    const dn_sampler *sampler;            /* NULL: none was named */
    const api_sdapi_scheduler *scheduler;
    uint32_t batch_size, n_iter; /* their product is at most API_N_MAX */
    bool send_images;
    char task_id[API_SDAPI_TASK_BYTES]; /* "": none */
} api_sdapi_request;

/* All that can be told without the model. *out borrows from body. On false *refusal is filled and there is nothing to be freed. */
bool api_sdapi_read(api_sdapi_request *out, bool img2img, const char *body, size_t bytes, api_sdapi_refusal *refusal);
void api_sdapi_done(api_sdapi_request *request);

/* *native: the body of POST /generate, malloc'd. model_name: which was asked for; model NULL: nothing is known of it, and the validator says
 * why. draw: random bits, for a seed and a subseed of -1 (32 bits each, as webui draws them). */
bool api_sdapi_translate(char **native, const api_sdapi_request *request, const char *model_name, const api_model *model, uint64_t draw,
                         api_sdapi_refusal *refusal);

/* The native validator speaks of native fields: gives the problem the dialect's field and word for it, in pointer and sentence. */
void api_sdapi_rename(api_problem *problem, bool img2img);

/* What a field of the body says when it is sent, else its default. */
double api_sdapi_number(const api_sdapi_request *request, api_sdapi_field field, double otherwise);

/* The body of a refusal in FastAPI's shapes, and its status:
 *   422 {"detail":[{"loc":["body","steps"],"msg":...,"type":"value_error"}]} of a body that says what cannot be, or is no JSON;
 *   404 {"detail":"Not Found"} and 405 {"detail":"Method Not Allowed"};
 *   {"error","detail","body","errors"} with the problem's own status for all else.
 * kind: pydantic's; NULL: "value_error". malloc'd. */
char *api_sdapi_refusal_json(const api_problem *problem, const char *kind, int *status);

#endif
