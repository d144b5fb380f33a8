/* `denoised get`: a job's pictures, each held against its SHA-256 and written whole or not at all. */
#include <stdio.h>
#include <string.h>

#include "server/client.h"
#include "server/commands.h"

typedef struct get_options {
    client c;
    const char *output, *show;
    bool json;
} get_options;

static int fetch_job(client *c, const char *id, cJSON **job)
{
    char path[64];
    client_answer answer;
    snprintf(path, sizeof path, "/jobs/%s", id);
    int status = client_call(c, "GET", path, NULL, NULL, &answer);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (answer.status != 200)
        status = client_refused(c, &answer);
    else if ((*job = client_json(c, &answer)) == NULL)
        status = DN_EXIT_PROTOCOL;
    client_answer_done(&answer);
    return status;
}

/* A job that has not ended may have pictures all the same: they are fetched, and the status says that there will be more. */
static int judge(const client *c, const char *id, const cJSON *job)
{
    const char *state = client_text(job, "state");
    const int pictures = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(job, "images"));
    if (strcmp(state, "succeeded") == 0)
        return DN_EXIT_OK;
    if (strcmp(state, "failed") == 0 || strcmp(state, "canceled") == 0)
        return client_tell_end(c, job);
    fprintf(stderr, "denoised get: the job is ");
    client_print(stderr, state);
    fprintf(stderr, ", with %d of its %.0f pictures; `denoised watch %s` waits for the others\n", pictures,
            client_number(cJSON_GetObjectItemCaseSensitive(job, "request"), "n", 1), id);
    return DN_EXIT_TEMPORARY;
}

static int get(get_options *o, const char *id, const terminal *screen)
{
    cJSON *job = NULL;
    client_pictures pictures = {0};
    const client_wish wish = {.output = o->output, .save = true, .json = o->json, .screen = screen};
    int status = client_check_id(&o->c, id);
    if (status == DN_OPTIONS_GO_ON)
        status = fetch_job(&o->c, id, &job);
    if (status == DN_OPTIONS_GO_ON)
        status =
            client_output_check(&o->c, o->output, (uint32_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(job, "images")), o->json);
    if (status == DN_OPTIONS_GO_ON) {
        status = client_collect(&o->c, job, &wish, &pictures);
        const int judged = judge(&o->c, id, job);
        status = status == DN_EXIT_OK ? judged : status;
    }
    client_pictures_done(&pictures);
    cJSON_Delete(job);
    return status;
}

int dn_command_get(int argc, char **argv)
{
    get_options o = {.show = "none"};
    char **ids = NULL;
    int count = 0;
    terminal screen;
    dn_option options[CLIENT_OPTIONS + 3] = {
        {.name = "output",
         .letter = 'o',
         .kind = DN_OPTION_TEXT,
         .value = "DIR|FILE",
         .target = &o.output,
         .help = "a folder, a file, or - to a pipe (ID-INDEX.png here)"},
        DN_TEXT_OPTION("show", TERMINAL_WAYS, o.show, "draw them in the terminal (none)"),
        DN_FLAG_OPTION("json", o.json, "print the job and its files as one JSON object"),
    };
    client_add_options(options + 3, &o.c);
    const dn_command_line line = {.command = "get",
                                  .operands = "ID",
                                  .summary = "Fetches a job's pictures from a daemon and prints the names of their files.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 1,
                                  .footer = "Exits 75 while the job goes on, 1 when it failed or was canceled."};
    int status = dn_options_parse(&line, argc, argv, &ids, &count);
    if (status == DN_OPTIONS_GO_ON)
        status = client_open(&o.c, "get");
    if (status == DN_OPTIONS_GO_ON)
        status = client_look(&o.c, &screen, o.show, o.json, o.output);
    if (status == DN_OPTIONS_GO_ON)
        status = get(&o, ids[0], &screen);
    client_close(&o.c);
    return status;
}
