/* See sdapi_views.h. */
#include "api/sdapi_views.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/infotext.h"
#include "api/png_metadata.h"
#include "api/sdapi_names.h"
#include "api/text.h"

static void add_time(api_text *text, int64_t ms)
{
    struct tm utc;
    const time_t seconds = (time_t)(ms / 1000);
    char stamp[20] = "0"; /* webui's before the first job */
    if (ms > 0 && gmtime_r(&seconds, &utc)) {
        strftime(stamp, sizeof stamp, "%Y%m%d%H%M%S", &utc);
    }
    api_text_string(text, stamp);
}

/* ---- A call's pictures */

static void add_repeated(api_text *text, const char *value, uint32_t count)
{
    api_text_add(text, "[");
    for (uint32_t i = 0; i < count; i++) {
        api_text_add(text, i ? "," : "");
        api_text_string(text, value);
    }
    api_text_add(text, "]");
}

static void add_seeds(api_text *text, uint64_t first, uint64_t by, uint32_t count)
{
    api_text_add(text, "[");
    for (uint32_t i = 0; i < count; i++) {
        api_text_format(text, "%s%" PRIu64, i ? "," : "", first + i * by);
    }
    api_text_add(text, "]");
}

/* Picture i has the seed + i, whatever the subseed: each can be made again alone. */
static void add_seed_members(api_text *text, const api_request *request)
{
    const uint64_t subseed = request->has_variation ? request->variation_seed : request->seed;
    const double strength =
        dn_option_given(&request->options, DN_OPT_VARIATION_STRENGTH) ? request->options.value[DN_OPT_VARIATION_STRENGTH] : 0;
    api_text_format(text, ",\"seed\":%" PRIu64 ",\"all_seeds\":", request->seed);
    add_seeds(text, request->seed, 1, request->n);
    api_text_format(text, ",\"subseed\":%" PRIu64 ",\"all_subseeds\":", subseed);
    add_seeds(text, subseed, request->has_variation ? 0 : 1, request->n);
    api_text_add(text, ",\"subseed_strength\":");
    api_text_number(text, strength);
}

static void add_infotexts(api_text *text, const api_sdapi_result *result)
{
    api_text_add(text, ",\"infotexts\":[");
    for (size_t i = 0; result->model && i < result->count; i++) {
        char *one = api_infotext(result->request, result->model, result->request->seed + result->pictures[i].index);
        text->failed |= !one;
        api_text_add(text, i ? "," : "");
        api_text_string(text, one);
        free(one);
    }
    api_text_add(text, "]");
}

static void add_model_members(api_text *text, const api_sdapi_result *result)
{
    const api_model *model = result->model;
    char hash[11] = "";
    if (model) {
        memcpy(hash, model->weights_sha256, sizeof hash - 1);
    }
    api_text_format(text, ",\"width\":%" PRIu32 ",\"height\":%" PRIu32, model ? model->width : 0, model ? model->height : 0);
    api_text_add(text, ",\"sd_model_name\":");
    api_text_string(text, result->request->model);
    api_text_add(text, ",\"sd_model_hash\":");
    api_text_string(text, model ? hash : NULL);
}

static char *info_of(const api_sdapi_result *result)
{
    const api_request *request = result->request;
    const dn_sampler *sampler = dn_sampler_find(request->sampler);
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"prompt\":");
    api_text_string(&text, result->prompt);
    api_text_add(&text, ",\"all_prompts\":");
    add_repeated(&text, result->prompt, request->n);
    api_text_add(&text, ",\"negative_prompt\":");
    api_text_string(&text, result->negative_prompt);
    api_text_add(&text, ",\"all_negative_prompts\":");
    add_repeated(&text, result->negative_prompt, request->n);
    add_seed_members(&text, request);
    add_model_members(&text, result);
    api_text_add(&text, ",\"sampler_name\":");
    api_text_string(&text, sampler ? api_sdapi_sampler_name(sampler) : request->sampler);
    api_text_add(&text, ",\"cfg_scale\":");
    api_text_real(&text, request->guidance_scale);
    api_text_format(&text, ",\"steps\":%" PRIu32 ",\"batch_size\":%" PRIu32, request->steps, result->batch_size);
    api_text_add(&text, ",\"restore_faces\":false,\"face_restoration_model\":null,\"sd_vae_name\":null,\"sd_vae_hash\":null,"
                        "\"seed_resize_from_w\":-1,\"seed_resize_from_h\":-1,\"denoising_strength\":");
    if (dn_option_given(&request->options, DN_OPT_STRENGTH)) {
        api_text_number(&text, request->options.value[DN_OPT_STRENGTH]);
    } else {
        api_text_add(&text, "null");
    }
    api_text_add(&text, ",\"extra_generation_params\":{},\"index_of_first_image\":0");
    add_infotexts(&text, result);
    api_text_add(&text, ",\"styles\":[],\"job_timestamp\":");
    add_time(&text, result->created_ms);
    api_text_add(&text, ",\"clip_skip\":1,\"is_using_inpainting_conditioning\":false,\"version\":");
    api_text_string(&text, result->version);
    api_text_add(&text, ",\"interrupted\":");
    api_text_bool(&text, result->interrupted);
    api_text_add(&text, ",\"job_id\":");
    api_text_string(&text, result->job_id);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_sdapi_result_body(const api_sdapi_result *result)
{
    api_text text = API_TEXT_INIT;
    char *info = info_of(result);
    text.failed = !info;
    api_text_add(&text, "{\"images\":[");
    for (size_t i = 0; i < result->count && result->pictures[i].png; i++) {
        api_text_add(&text, i ? ",\"" : "\"");
        api_text_base64(&text, result->pictures[i].png, result->pictures[i].bytes);
        api_text_add(&text, "\"");
    }
    api_text_add(&text, "],\"parameters\":");
    api_text_add(&text, result->parameters);
    api_text_add(&text, ",\"info\":");
    api_text_string(&text, info);
    api_text_add(&text, "}");
    free(info);
    return api_text_take(&text);
}

/* ---- Progress */

static void add_seconds(api_text *text, double seconds)
{
    if (seconds >= 0) {
        api_text_real(text, seconds);
    } else {
        api_text_add(text, "null");
    }
}

char *api_sdapi_progress_body(const api_sdapi_progress *p)
{
    api_text text = API_TEXT_INIT;
    const bool busy = p->known && !p->ended;
    const uint32_t batch = busy && p->n_iter ? p->n / p->n_iter : 0;
    api_text_add(&text, "{\"progress\":");
    api_text_real(&text, busy ? p->fraction : 0);
    api_text_add(&text, ",\"eta_relative\":");
    api_text_real(&text, busy && p->eta_seconds > 0 ? p->eta_seconds : 0);
    api_text_format(&text,
                    ",\"state\":{\"skipped\":false,\"interrupted\":%s,\"stopping_generation\":%s,\"job\":\"%s\",\"job_count\":%" PRIu32,
                    p->interrupted ? "true" : "false", busy && p->interrupted ? "true" : "false",
                    !busy        ? ""
                    : p->img2img ? "scripts_img2img"
                                 : "scripts_txt2img",
                    busy ? p->n_iter : 0);
    api_text_add(&text, ",\"job_timestamp\":");
    add_time(&text, busy ? p->created_ms : 0);
    api_text_format(&text, ",\"job_no\":%" PRIu32 ",\"sampling_step\":%" PRIu64 ",\"sampling_steps\":%" PRIu32 "},\"current_image\":",
                    batch ? p->images_done / batch : 0, busy && p->n ? p->done / p->n : 0, busy ? p->steps : 0);
    if (busy && p->preview) {
        api_text_add(&text, "\"");
        api_text_base64(&text, p->preview, p->preview_bytes);
        api_text_add(&text, "\"");
    } else {
        api_text_add(&text, "null");
    }
    api_text_add(&text, ",\"textinfo\":null}");
    return api_text_take(&text);
}

static void add_textinfo(api_text *text, const api_sdapi_progress *p)
{
    api_text_add(text, ",\"textinfo\":");
    if (p->known && p->queued && p->queue_position >= 0) {
        api_text_format(text, "\"In queue: %" PRId64 " before it\"", p->queue_position);
    } else {
        api_text_string(text, !p->known ? "Waiting..." : p->queued ? "Queued..." : NULL);
    }
}

char *api_sdapi_task_body(const api_sdapi_progress *p)
{
    api_text text = API_TEXT_INIT;
    const bool active = p->known && !p->queued && !p->ended;
    api_text_format(&text, "{\"active\":%s,\"queued\":%s,\"paused\":false,\"completed\":%s,\"progress\":", active ? "true" : "false",
                    p->known && p->queued ? "true" : "false", p->known && p->ended ? "true" : "false");
    add_seconds(&text, active ? p->fraction : -1);
    api_text_add(&text, ",\"eta\":");
    add_seconds(&text, active || (p->known && p->queued) ? p->eta_seconds : -1);
    api_text_add(&text, ",\"live_preview\":");
    if (active && p->preview) {
        api_text_add(&text, "\"data:image/png;base64,");
        api_text_base64(&text, p->preview, p->preview_bytes);
        api_text_add(&text, "\"");
    } else {
        api_text_add(&text, "null");
    }
    api_text_format(&text, ",\"id_live_preview\":%" PRId64, active ? p->preview_id : -1);
    add_textinfo(&text, p);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

/* ---- png-info */

char *api_sdapi_png_info_body(const char *infotext, const char *const (*items)[2], size_t count)
{
    api_text text = API_TEXT_INIT;
    char *fields = api_infotext_fields(infotext ? infotext : "");
    text.failed = !fields;
    api_text_add(&text, "{\"info\":");
    api_text_string(&text, infotext ? infotext : "");
    api_text_add(&text, ",\"items\":{");
    for (size_t i = 0; i < count; i++) {
        api_text_add(&text, i ? "," : "");
        api_text_string(&text, items[i][0]);
        api_text_add(&text, ":");
        api_text_string(&text, items[i][1]);
    }
    api_text_add(&text, "},\"parameters\":");
    api_text_add(&text, fields ? fields : "");
    api_text_add(&text, "}");
    free(fields);
    return api_text_take(&text);
}
