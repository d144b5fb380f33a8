/* The fields of AUTOMATIC1111's POST /sdapi/v1/txt2img and /img2img (StableDiffusionProcessing and modules/api/models.py of
 * stable-diffusion-webui 1.10), with its types and its defaults, and what becomes of each here. Inside api/sdapi_*.c only.
 *
 *   USED  is translated.
 *   FREE  may be anything of its type: it changes nothing, there in this use (hr_scale without enable_hr) or here (save_images: every picture
 *         is kept as a job's). Clients are known to send them whatever they want.
 *   OFF   must be what turns it off: false, "", [], {}, null, a number not above 0. What this program does not do is refused by name.
 *
 * A field that stands here is accepted by both routes; null is the default, as there. Unknown fields are refused by name. */
#ifndef API_SDAPI_FIELDS_H
#define API_SDAPI_FIELDS_H

#include <cjson/cJSON.h>

#include "api/json_walk.h"
#include "api/problem.h"
#include "api/text.h"

/* X(name, type, default as JSON, route whose `parameters` show it, what becomes of it) */
#define API_SDAPI_FIELDS(X)                                                 \
    X(prompt, STRING, "\"\"", BOTH, USED)                                   \
    X(negative_prompt, STRING, "\"\"", BOTH, USED)                          \
    X(styles, LIST, "null", BOTH, OFF)                                      \
    X(seed, INTEGER, "-1", BOTH, USED)                                      \
    X(subseed, INTEGER, "-1", BOTH, USED)                                   \
    X(subseed_strength, NUMBER, "0", BOTH, USED)                            \
    X(seed_resize_from_h, INTEGER, "-1", BOTH, OFF)                         \
    X(seed_resize_from_w, INTEGER, "-1", BOTH, OFF)                         \
    X(sampler_name, STRING, "null", BOTH, USED)                             \
    X(scheduler, STRING, "null", BOTH, USED)                                \
    X(batch_size, INTEGER, "1", BOTH, USED)                                 \
    X(n_iter, INTEGER, "1", BOTH, USED)                                     \
    X(steps, INTEGER, "50", BOTH, USED)                                     \
    X(cfg_scale, NUMBER, "7.0", BOTH, USED)                                 \
    X(width, INTEGER, "512", BOTH, USED)                                    \
    X(height, INTEGER, "512", BOTH, USED)                                   \
    X(restore_faces, BOOLEAN, "null", BOTH, OFF)                            \
    X(tiling, BOOLEAN, "null", BOTH, OFF)                                   \
    X(do_not_save_samples, BOOLEAN, "false", BOTH, FREE)                    \
    X(do_not_save_grid, BOOLEAN, "false", BOTH, FREE)                       \
    X(eta, NUMBER, "null", BOTH, USED)                                      \
    X(denoising_strength, NUMBER, "null", BOTH, USED)                       \
    X(s_min_uncond, NUMBER, "null", BOTH, OFF)                              \
    X(s_churn, NUMBER, "null", BOTH, USED)                                  \
    X(s_tmax, NUMBER, "null", BOTH, USED)                                   \
    X(s_tmin, NUMBER, "null", BOTH, USED)                                   \
    X(s_noise, NUMBER, "null", BOTH, USED)                                  \
    X(override_settings, DICTIONARY, "null", BOTH, USED)                    \
    X(override_settings_restore_afterwards, BOOLEAN, "true", BOTH, USED)    \
    X(refiner_checkpoint, STRING, "null", BOTH, OFF)                        \
    X(refiner_switch_at, NUMBER, "null", BOTH, FREE)                        \
    X(disable_extra_networks, BOOLEAN, "false", BOTH, FREE)                 \
    X(firstpass_image, STRING, "null", TEXT, OFF)                           \
    X(comments, DICTIONARY, "null", BOTH, FREE)                             \
    X(enable_hr, BOOLEAN, "false", TEXT, OFF)                               \
    X(firstphase_width, INTEGER, "0", TEXT, OFF)                            \
    X(firstphase_height, INTEGER, "0", TEXT, OFF)                           \
    X(hr_scale, NUMBER, "2.0", TEXT, FREE)                                  \
    X(hr_upscaler, STRING, "null", TEXT, FREE)                              \
    X(hr_second_pass_steps, INTEGER, "0", TEXT, FREE)                       \
    X(hr_resize_x, INTEGER, "0", TEXT, FREE)                                \
    X(hr_resize_y, INTEGER, "0", TEXT, FREE)                                \
    X(hr_checkpoint_name, STRING, "null", TEXT, FREE)                       \
    X(hr_sampler_name, STRING, "null", TEXT, FREE)                          \
    X(hr_scheduler, STRING, "null", TEXT, FREE)                             \
    X(hr_prompt, STRING, "\"\"", TEXT, FREE)                                \
    X(hr_negative_prompt, STRING, "\"\"", TEXT, FREE)                       \
    X(init_images, LIST, "null", IMAGE, USED)                               \
    X(resize_mode, INTEGER, "0", IMAGE, USED)                               \
    X(image_cfg_scale, NUMBER, "null", IMAGE, FREE)                         \
    X(mask, STRING, "null", IMAGE, USED)                                    \
    X(mask_blur_x, INTEGER, "4", IMAGE, USED)                               \
    X(mask_blur_y, INTEGER, "4", IMAGE, USED)                               \
    X(mask_blur, INTEGER, "null", IMAGE, USED)                              \
    X(mask_round, BOOLEAN, "true", IMAGE, FREE)                             \
    X(inpainting_fill, INTEGER, "0", IMAGE, USED)                           \
    X(inpaint_full_res, BOOLEAN, "true", IMAGE, FREE)                       \
    X(inpaint_full_res_padding, INTEGER, "0", IMAGE, FREE)                  \
    X(inpainting_mask_invert, INTEGER, "0", IMAGE, USED)                    \
    X(initial_noise_multiplier, NUMBER, "null", IMAGE, USED)                \
    X(latent_mask, STRING, "null", IMAGE, OFF)                              \
    X(include_init_images, BOOLEAN, "false", IMAGE, USED)                   \
    X(force_task_id, STRING, "null", BOTH, USED)                            \
    X(sampler_index, STRING, "\"Euler\"", BOTH, USED)                       \
    X(script_name, STRING, "null", BOTH, OFF)                               \
    X(script_args, LIST, "[]", BOTH, FREE)                                  \
    X(send_images, BOOLEAN, "true", BOTH, USED)                             \
    X(save_images, BOOLEAN, "false", BOTH, FREE)                            \
    X(alwayson_scripts, DICTIONARY, "{}", BOTH, OFF)                        \
    X(infotext, STRING, "null", BOTH, OFF)                                  \
    X(clip_skip, INTEGER, "null", NEITHER, FREE)

#define API_SDAPI_STRENGTH 0.75 /* img2img's denoising_strength */

typedef enum api_sdapi_field {
#define X(name, type, standard, shown, rule) API_SDAPI_##name,
    API_SDAPI_FIELDS(X)
#undef X
        API_SDAPI_FIELD_COUNT
} api_sdapi_field;

typedef struct api_sdapi_value {
    const cJSON *value; /* NULL: not sent, or null */
    api_raw raw;        /* as sent; bytes 0: not sent */
} api_sdapi_value;

/* A refusal, and pydantic's word for its kind ("type_error.integer"), which FastAPI's clients find in `type`. */
typedef struct api_sdapi_refusal {
    api_problem problem;
    const char *kind;
} api_sdapi_refusal;

const char *api_sdapi_field_name(api_sdapi_field field);

/* Refuses at /NAME with "NAME RULE"; returns false. */
bool api_sdapi_refuse(api_sdapi_refusal *refusal, api_sdapi_field field, const char *rule);

/* The members of a body, each of a known name, of its type, and off where it must be. raw: the body, scanned. */
bool api_sdapi_collect(api_sdapi_value values[API_SDAPI_FIELD_COUNT], const cJSON *object, api_raw raw, api_sdapi_refusal *refusal);

/* `parameters`, to an empty text: every field of the route as it was sent, or webui's default; width and height left out are the model's. Pictures are shown
 * when include_init_images is true. */
void api_sdapi_add_parameters(api_text *text, const api_sdapi_value values[API_SDAPI_FIELD_COUNT], bool img2img, unsigned width,
                              unsigned height);

#endif
