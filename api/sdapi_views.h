/* What AUTOMATIC1111's routes answer: pictures with their parameters and info, progress, png-info. Pure; all text is malloc'd, NULL: out of
 * memory. Shapes: modules/api/models.py, modules/processing.py (Processed.js) and modules/progress.py of stable-diffusion-webui 1.10. */
#ifndef API_SDAPI_VIEWS_H
#define API_SDAPI_VIEWS_H

#include "api/generate_request.h"
#include "api/views.h"

/* A picture that is there. */
typedef struct api_sdapi_picture {
    uint32_t index; /* of the job's: its seed is the request's and this */
    const unsigned char *png; /* NULL: send_images is false */
    size_t bytes;
} api_sdapi_picture;

typedef struct api_sdapi_result {
    const char *job_id;
    const char *parameters; /* JSON, as api_sdapi_add_parameters made it */
    const char *prompt, *negative_prompt; /* as they came */
    uint32_t batch_size;
    bool img2img, interrupted;
    const api_request *request; /* as stored */
    const api_model *model; /* NULL: no longer known; without infotexts then */
    int64_t created_ms;
    const char *version;
    const api_sdapi_picture *pictures;
    size_t count;
} api_sdapi_result;

/* {"images":[...],"parameters":{...},"info":"..."}; of an interrupted call the pictures that were finished. `info` has "job_id" besides. */
char *api_sdapi_result_body(const api_sdapi_result *result);

/* How it stands with a call. */
typedef struct api_sdapi_progress {
    bool known;         /* there is such a call */
    bool queued, ended; /* neither: it runs */
    bool interrupted, img2img;
    double fraction;    /* 0..1 */
    double eta_seconds; /* < 0: unknown */
    int64_t created_ms, queue_position; /* position < 0: unknown */
    uint32_t n_iter, n, images_done, steps;
    uint64_t done;      /* steps of all n pictures */
    const unsigned char *preview; /* a PNG; NULL: none */
    size_t preview_bytes;
    int64_t preview_id; /* what the client has seen by now */
} api_sdapi_progress;

char *api_sdapi_progress_body(const api_sdapi_progress *progress); /* GET /sdapi/v1/progress; not known: idle */
char *api_sdapi_task_body(const api_sdapi_progress *progress);     /* POST /internal/progress */

/* POST /sdapi/v1/png-info of the picture's own texts, NULL where it has none; items: the keys and texts besides. */
char *api_sdapi_png_info_body(const char *infotext, const char *const (*items)[2], size_t count);

#endif
