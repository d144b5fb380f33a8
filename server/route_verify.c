/* POST /verify: a PNG is made again from its own metadata, as a job like any other, and compared with what was made.
 *
 * The file's text is read here; its pixels are decoded only when its bytes differ from the new file's, and by another process
 * (picture_hash.h). The handler is called to read and enqueue, then while it waits for the job, then when the pixels are known. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/negotiate.h"
#include "api/verification.h"
#include "base/sha256.h"
#include "format/png_image.h"
#include "server/submission.h"

typedef struct verify_state {
    submission submission;
    api_verify_request sent; /* of a JSON body */
    const unsigned char *png; /* in the body, or in `sent` */
    size_t png_bytes;
    api_recipe recipe;
    api_verification found;
    char model[65]; /* with the recipe's weights */
    char said[512]; /* what the request comes to: hashes in place of pictures */
    bool waits, waiting, stored, hashed;
    unsigned wait_seconds;
    waiter waiter;
    picture_task pixels;
} verify_state;

static void verify_state_free(void *payload)
{
    verify_state *v = payload;
    if (v->waiting) {
        waiter_done(&v->waiter);
    }
    submission_done(&v->submission);
    api_verify_request_done(&v->sent);
    free(v);
}

static void answer(http_request *request, int status, const verify_state *v)
{
    http_answer_json(request, status, api_verification_body(&v->found));
}

/* ---- Before the store. A step answers by itself and returns false when it is the last one. */

static bool refuse(http_request *request, const api_problem *problem)
{
    http_problem(request, problem);
    return false;
}

static bool is_png_type(const char *type)
{
    size_t length = type == NULL ? 0 : strcspn(type, "; \t");
    return length == 9 && strncasecmp(type, "image/png", length) == 0;
}

static void hash_text(char out[65], const void *bytes, size_t count)
{
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256_of(digest, bytes, count);
    dn_sha256_hex(out, digest);
}

/* The picture, however it was sent. */
static bool take_picture(http_request *request, verify_state *v)
{
    api_problem problem = {0};
    uint32_t width = 0, height = 0;
    const char *type = http_header(request, "Content-Type"), *body = request->body != NULL ? request->body : "";
    bool raw = is_png_type(type);
    if (!raw && !api_is_json(type)) {
        api_refuse(&problem, API_UNSUPPORTED_MEDIA_TYPE, "", "Content-Type must be image/png or application/json");
        return refuse(request, &problem);
    }
    if (!submission_check_key(&v->submission, &problem) || (!raw && !api_parse_verify(&v->sent, body, request->body_bytes, &problem))) {
        return refuse(request, &problem);
    }
    v->png = raw ? (const unsigned char *)body : v->sent.png;
    v->png_bytes = raw ? request->body_bytes : v->sent.png_bytes;
    if (!dn_png_size(&width, &height, v->png, v->png_bytes)) {
        api_refuse(&problem, API_INVALID_FIELD, raw ? "" : "/image", "%s must be a PNG: the bytes are none", raw ? "the body" : "image");
        return refuse(request, &problem);
    }
    v->found.bytes = v->png_bytes;
    hash_text(v->found.sha256, v->png, v->png_bytes);
    return true;
}

static bool cannot(http_request *request, verify_state *v, api_verify_code code, const char *detail)
{
    v->found.verdict = API_VERDICT_CANNOT;
    api_verify_reason(&v->found, code, "%s", detail);
    answer(request, 200, v);
    return false;
}

static bool read_recipe(http_request *request, verify_state *v)
{
    char *text = NULL;
    bool no_memory = false;
    dn_error error;
    dn_status status = dn_png_read_text(&text, v->png, v->png_bytes, "denoised", &error);
    bool read = status == DN_OK && api_recipe_read(&v->recipe, text, strlen(text), &no_memory);
    free(text);
    if (status == DN_NO_MEMORY || no_memory) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return false;
    }
    if (status != DN_OK) {
        return cannot(request, v, API_VERIFY_NO_METADATA, error.message);
    }
    if (!read) {
        return cannot(request, v, API_VERIFY_BAD_METADATA, "the file's text \"denoised\" is not what denoised writes");
    }
    v->found.claimed = &v->recipe;
    return true;
}

/* The pictures that it was made from come with the request, or it cannot be made again. */
static bool check_inputs(http_request *request, verify_state *v)
{
    const api_input_image *made_from[] = {&v->recipe.request.init_image, &v->recipe.request.mask_image};
    const char *const sent[] = {v->sent.init_image, v->sent.mask_image}, *const names[] = {"init_image", "mask_image"};
    api_problem problem = {0};
    char detail[256];
    for (int i = 0; i < 2; i++) {
        char field[16];
        snprintf(field, sizeof field, "/%s", names[i]);
        if (made_from[i]->sha256[0] != '\0' && sent[i] == NULL) {
            snprintf(detail, sizeof detail, "it was made from a picture that is not in the file: send it as %s, whose SHA-256 is %s",
                     names[i], made_from[i]->sha256);
            return cannot(request, v, API_VERIFY_NEEDS_INPUTS, detail);
        }
        if (made_from[i]->sha256[0] == '\0' && sent[i] != NULL) {
            api_refuse(&problem, API_INVALID_FIELD, field, "%s is not needed: this picture was made without one", names[i]);
            return refuse(request, &problem);
        }
    }
    return true;
}

/* A model with the recipe's weights: the one it names, else another. */
static bool find_model(http_request *request, verify_state *v)
{
    service *s = request->application;
    bool loading = false;
    char detail[256];
    for (size_t i = 0; i < models_count(s->models); i++) {
        const char *name = models_name(s->models, i);
        const api_model *model = models_lookup(s->models, name);
        bool same = model != NULL && strcmp(model->weights_sha256, v->recipe.weights_sha256) == 0;
        loading |= model == NULL && models_state(s->models, name, NULL, 0) != MODEL_FAILED;
        if (same && (v->model[0] == '\0' || strcmp(name, v->recipe.request.model) == 0)) {
            snprintf(v->model, sizeof v->model, "%s", name);
        }
    }
    if (v->model[0] == '\0' && loading) {
        http_add_header(request, "Retry-After", "1");
        http_refuse(request, API_LOADING, "a model is loading for the first time, and it may be the one that is needed");
        return false;
    }
    if (v->model[0] == '\0') {
        snprintf(detail, sizeof detail, "no model here has the weights %.16s...; the file calls its model %s", v->recipe.weights_sha256,
                 v->recipe.request.model);
        return cannot(request, v, API_VERIFY_OTHER_WEIGHTS, detail);
    }
    return true;
}

/* The request goes through the validator of POST /generate. What that refuses is the file's, unless it is a picture that came beside it. */
static bool parse(http_request *request, verify_state *v)
{
    api_problem problem = {0};
    char *body = api_recipe_body(&v->recipe, v->model, v->sent.init_image, v->sent.mask_image);
    if (body == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return false;
    }
    bool fine = submission_parse(&v->submission, body, strlen(body), &problem);
    free(body);
    if (!fine) {
        bool of_file = (problem.code == API_INVALID_FIELD || problem.code == API_UNSUPPORTED_OPTION) &&
                       strcmp(problem.field, "/init_image") != 0 && strcmp(problem.field, "/mask_image") != 0;
        return of_file ? cannot(request, v, API_VERIFY_REFUSED, problem.detail) : refuse(request, &problem);
    }
    const api_request *job = &v->submission.jobs[0], *claimed = &v->recipe.request;
    if (strcmp(job->init_image.sha256, claimed->init_image.sha256) != 0 ||
        strcmp(job->mask_image.sha256, claimed->mask_image.sha256) != 0) {
        return cannot(request, v, API_VERIFY_OTHER_INPUTS, "a picture that was sent with it is not the one that it was made from");
    }
    snprintf(v->said, sizeof v->said, "{\"image\":\"%s\",\"init_image\":\"%s\",\"mask_image\":\"%s\"}", v->found.sha256,
             job->init_image.sha256, job->mask_image.sha256);
    return true;
}

static void begin(http_request *request)
{
    api_problem problem = {0};
    verify_state *v = calloc(1, sizeof *v);
    if (v == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = v;
    request->state_free = verify_state_free;
    v->waits = api_prefer_wait(http_header(request, "Prefer"), &v->wait_seconds) == 1;
    if (!submission_open(&v->submission, request, &problem)) {
        http_problem(request, &problem);
        return;
    }
    v->submission.said = v->said;
    if (take_picture(request, v) && read_recipe(request, v) && check_inputs(request, v) && find_model(request, v) && parse(request, v) &&
        !submission_send(&v->submission, "POST /verify", &problem)) {
        http_problem(request, &problem);
    }
}

/* ---- After the store */

static void on_hashed(void *request)
{
    http_resume(request);
}

/* The job has ended: what became of it, beside the file. False: the request sleeps until the file's pixels are known. */
static bool compare(http_request *request, verify_state *v, const job_view *held)
{
    service *s = request->application;
    if (held->job.state != API_STATE_SUCCEEDED || held->view.image_count == 0) {
        v->found.verdict = API_VERDICT_CANNOT;
        api_verify_reason(&v->found, API_VERIFY_JOB_ENDED, "the picture was not made: the job %s%s%s",
                          held->job.state == API_STATE_FAILED ? "failed" : "was canceled", held->job.error_detail != NULL ? ": " : "",
                          held->job.error_detail != NULL ? held->job.error_detail : "");
        return true;
    }
    const api_image_view *image = &held->view.images[0];
    const api_model *model = models_lookup(s->models, v->model);
    v->found.made = true;
    v->found.model = v->model;
    v->found.found_bytes = image->bytes;
    snprintf(v->found.found_sha256, sizeof v->found.found_sha256, "%s", image->sha256);
    snprintf(v->found.found_pixels_sha256, sizeof v->found.found_pixels_sha256, "%s", image->pixels_sha256);
    snprintf(v->found.found_device, sizeof v->found.found_device, "%s", image->device);
    snprintf(v->found.found_build, sizeof v->found.found_build, "%s", image->build);
    if (strcmp(image->build, model->build) == 0) { /* the store does not keep these */
        snprintf(v->found.found_gpu, sizeof v->found.found_gpu, "%s", model->gpu);
        snprintf(v->found.found_plan, sizeof v->found.found_plan, "%s", model->plan);
    }
    if (strcmp(v->found.sha256, image->sha256) != 0 && !v->hashed) {
        v->hashed = true;
        v->pixels = (picture_task){.png = v->png,
                                   .bytes = v->png_bytes,
                                   .width = image->width,
                                   .height = image->height,
                                   .channels = model->channels,
                                   .done = on_hashed,
                                   .payload = request};
        waiter_done(&v->waiter); /* from here on nobody wakes the request but the hasher, which works on what is the request's */
        v->waiting = false;
        http_suspend(request, -1.0);
        picture_hasher_submit(s->pictures, &v->pixels);
        return false;
    }
    memcpy(v->found.pixels_sha256, v->pixels.sha256, sizeof v->found.pixels_sha256);
    api_verify_judge(&v->found);
    return true;
}

static void answer_job(http_request *request, verify_state *v, bool ended)
{
    service *s = request->application;
    const char *id = v->submission.enqueue->ids[0];
    job_view held;
    store_result result = job_view_get(&held, s, NULL, id);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    if (!ended || compare(request, v, &held)) {
        char *job = api_job_body(&held.view, s->base_path);
        v->found.job_json = job;
        http_add_header(request, "Location", "%s/jobs/%s", s->base_path, id);
        if (!ended) {
            http_add_header(request, "Retry-After", "%u", job_retry_after(&held));
        }
        answer(request, ended ? 200 : 202, v);
        v->found.job_json = NULL;
        free(job);
    }
    job_view_done(&held);
}

/* The COMMIT is through, or was refused. False: answered. */
static bool stored(http_request *request, verify_state *v)
{
    api_problem problem = {0};
    if (!submission_stored(&v->submission, &problem)) {
        http_problem(request, &problem);
        return false;
    }
    if (!v->waits && !v->submission.replayed) {
        answer_job(request, v, false);
        return false;
    }
    v->waiting = waiter_begin(&v->waiter, request->application, request, v->submission.enqueue->ids, v->submission.enqueue->id_count,
                              v->waits ? v->wait_seconds : 0);
    if (v->waits && v->waiting) {
        http_add_header(request, "Preference-Applied", "wait=%u", v->wait_seconds);
    }
    if (!v->waiting) {
        answer_job(request, v, false);
    }
    return v->waiting;
}

void route_verify(http_request *request)
{
    verify_state *v = request->state;
    bool ended = false;
    if (v == NULL) {
        begin(request);
        return;
    }
    if (!v->stored) {
        v->stored = true;
        if (!stored(request, v)) {
            return;
        }
    }
    if (v->hashed) {
        answer_job(request, v, true);
    } else if (waiter_over(&v->waiter, &ended)) {
        answer_job(request, v, ended && !atomic_load(&request->gone)); /* nobody waits for what the pixels say */
    }
}
