/* `denoised submit`: sends a job to a daemon, and with --wait follows it and saves its pictures. A request carries an Idempotency-Key, so
 * that one whose answer was lost is sent again without making a second job. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "api/limits.h"
#include "engine.h"
#include "server/client.h"
#include "server/commands.h"
#include "server/generation.h"

#define GIVE_UP_SECONDS 300.0
#define TRIES 4

typedef struct submit_options {
    client c;
    client_request r;
    const char *output, *show, *idempotency;
    double give_up;
    bool wait, json;
} submit_options;

#define OWN_OPTIONS_MAX 26

static size_t add_own_options(dn_option *out, submit_options *o)
{
    const dn_option own[] = {
        DN_TEXT_OPTION("model", "NAME", o->r.model, "one of the daemon's (its default)"),
        DN_TEXT_OPTION("class", "CLASS", o->r.class_text, "name or number"),
        DN_TEXT_OPTION("mixture", "LIST", o->r.mixture, "instead: several by weight: 2:0.5,9:0.5"),
        DN_TEXT_OPTION("negative-class", "CLASS", o->r.negative, "guided away from this one instead of the null class"),
        DN_NUMBER_OPTION("guidance-scale", o->r.guidance_scale, -API_GUIDANCE_MAX, API_GUIDANCE_MAX,
                         "1 is off, 0 unconditional (the model's)"),
        DN_COUNT_OPTION("steps", o->r.steps, 1, API_STEPS_MAX, "of the sampler (the model's)"),
        DN_TEXT_OPTION("sampler", "NAME", o->r.sampler, "one of the model's, or model: its scheduler's"),
        DN_TEXT_OPTION("seed", "N", o->r.seed, "the next picture has one more (drawn, and told)"),
        DN_TEXT_OPTION("variation-seed", "N", o->r.variation, "noise between seed's and this, by --variation-strength"),
        {.name = "images",
         .letter = 'n',
         .kind = DN_OPTION_COUNT,
         .value = "N",
         .target = &o->r.n,
         .count_low = 1,
         .count_high = API_N_MAX,
         .help = "how many (1)"},
        DN_TEXT_OPTION("init-image", "PNG", o->r.init_path, "start from it, noised by --strength"),
        DN_TEXT_OPTION("mask-image", "PNG", o->r.mask_path, "what of it is painted anew: white"),
        DN_TEXT_OPTION("priority", "N", o->r.priority, "-10 to 10, higher is sooner (0)"),
        DN_NUMBER_OPTION("deadline", o->r.deadline, 0.001, API_DEADLINE_MS_MAX / 1000.0, "seconds by which it must have ended (none)"),
        DN_TEXT_OPTION("webhook", "URL", o->r.webhook, "told of the job's end"),
        DN_TEXT_OPTION("idempotency-key", "KEY", o->idempotency, "the same key makes no second job (drawn)"),
        DN_FLAG_OPTION("wait", o->wait, "follow it and save its pictures"),
        {.name = "output",
         .letter = 'o',
         .kind = DN_OPTION_TEXT,
         .value = "DIR|FILE",
         .target = &o->output,
         .help = "where --wait saves (ID-INDEX.png here); - to a pipe"},
        DN_TEXT_OPTION("show", TERMINAL_WAYS, o->show, "draw previews and pictures with --wait (auto)"),
        DN_NUMBER_OPTION("give-up", o->give_up, 0.0, 1e6, "seconds for which --wait looks for a lost daemon (300)"),
        DN_FLAG_OPTION("json", o->json, "print the job as one JSON object"),
    };
    _Static_assert(sizeof own / sizeof own[0] + CLIENT_OPTIONS <= OWN_OPTIONS_MAX, "room for the options");
    memcpy(out, own, sizeof own);
    client_add_options(out + sizeof own / sizeof own[0], &o->c);
    return sizeof own / sizeof own[0] + CLIENT_OPTIONS;
}

static int parse(submit_options *o, int argc, char **argv)
{
    static const char *const brief[] = {"model",    "class",   "guidance-scale", "steps", "sampler", "seed", "images", "init-image",
                                        "priority", "webhook", "wait",           "show",  "output",  "json", "url",    "key-file",
                                        NULL};
    dn_option options[OWN_OPTIONS_MAX + DN_OPT_COUNT];
    const size_t count = add_own_options(options, o);
    _Static_assert(DN_OPT_COUNT <= sizeof o->r.option_text / sizeof o->r.option_text[0], "room for the engine's options");
    generation_add_options(options + count, o->r.option_text);
    const dn_command_line line = {.command = "submit",
                                  .operands = "",
                                  .summary = "Sends a job to a daemon and prints its id.",
                                  .options = options,
                                  .option_count = count + DN_OPT_COUNT,
                                  .brief = brief,
                                  .footer = "  denoised submit --class Sneaker --seed 42 --wait -o sneaker.png"};
    return dn_options_parse(&line, argc, argv, NULL, NULL);
}

/* A key that nobody else has. */
static bool draw_key(char out[40])
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    snprintf(out, 40, "cli-%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    return true;
}

static bool is_lost(CURLcode code, const client_answer *answer)
{
    return code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR || code == CURLE_PARTIAL_FILE ||
           (code == CURLE_OK && answer->status == 503 && client_problem_is(answer, "outcome-unknown"));
}

static int post(submit_options *o, const char *body, cJSON **job)
{
    char drawn[40] = "", header[320];
    client_answer answer;
    if (o->idempotency == NULL && !draw_key(drawn)) {
        fprintf(stderr, "denoised submit: no random bytes\n");
        return DN_EXIT_TEMPORARY;
    }
    snprintf(header, sizeof header, "Idempotency-Key: %.255s", o->idempotency != NULL ? o->idempotency : drawn);
    CURLcode code = client_try(&o->c, "POST", "/generate", body, header, &answer);
    for (int i = 1; i < TRIES && is_lost(code, &answer); i++) {
        const struct timespec pause = {.tv_nsec = 250000000L * i};
        client_answer_done(&answer);
        nanosleep(&pause, NULL);
        code = client_try(&o->c, "POST", "/generate", body, header, &answer);
    }
    int status = DN_OPTIONS_GO_ON;
    if (code != CURLE_OK)
        status = client_unreachable(&o->c, code);
    else if (answer.status != 202 && answer.status != 200)
        status = client_refused(&o->c, &answer);
    else if ((*job = client_json(&o->c, &answer)) == NULL)
        status = DN_EXIT_PROTOCOL;
    else
        status = client_check_id(&o->c, client_text(*job, "id"));
    client_answer_done(&answer);
    return status;
}

static int follow(submit_options *o, const char *id, const terminal *screen)
{
    client_watch w = {.c = &o->c, .id = id, .screen = screen, .give_up_seconds = o->give_up};
    const client_wish wish = {.output = o->output, .save = true, .json = o->json, .screen = screen};
    int status = client_watch_run(&w);
    if (status == DN_OPTIONS_GO_ON && w.job != NULL) {
        status = client_collect(&o->c, w.job, &wish, &w.pictures);
        const int ended = client_tell_end(&o->c, w.job);
        status = status == DN_EXIT_OK ? ended : status;
    }
    client_pictures_done(&w.pictures);
    cJSON_Delete(w.job);
    return status;
}

static int submit(submit_options *o, const terminal *screen)
{
    cJSON *job = NULL;
    int status = DN_OPTIONS_GO_ON;
    char *body = client_body(&o->c, &o->r, &status);
    if (body != NULL)
        status = post(o, body, &job);
    free(body);
    if (status == DN_OPTIONS_GO_ON) {
        const bool piped = o->output != NULL && strcmp(o->output, "-") == 0;
        const char *id = client_text(job, "id");
        if (o->wait)
            client_catch_signals(); /* before the id is told: whoever has it may interrupt */
        if (o->json && !o->wait) {
            char *text = cJSON_PrintUnformatted(job);
            printf("%s\n", text != NULL ? text : "");
            cJSON_free(text);
        } else if (!o->json) {
            fprintf(o->wait && piped ? stderr : stdout, "%s\n", id);
        }
        fflush(stdout);
        status = o->wait ? follow(o, id, screen) : DN_EXIT_OK;
    }
    cJSON_Delete(job);
    return status;
}

int dn_command_submit(int argc, char **argv)
{
    submit_options o = {.show = "auto", .give_up = GIVE_UP_SECONDS, .r = {.guidance_scale = NAN}};
    terminal screen;
    int status = parse(&o, argc, argv);
    if (status == DN_OPTIONS_GO_ON)
        status = client_open(&o.c, "submit");
    if (status == DN_OPTIONS_GO_ON && !o.wait && o.output != NULL) {
        fprintf(stderr, "denoised submit: --output: only --wait saves pictures; denoised get fetches them later\n");
        status = DN_EXIT_USAGE;
    }
    if (status == DN_OPTIONS_GO_ON)
        status = client_output_check(&o.c, o.output, o.r.n > 0 ? (uint32_t)o.r.n : 1, o.json);
    if (status == DN_OPTIONS_GO_ON)
        status = client_look(&o.c, &screen, o.show, o.json || !o.wait, o.output);
    if (status == DN_OPTIONS_GO_ON)
        status = submit(&o, &screen);
    client_close(&o.c);
    return status;
}
