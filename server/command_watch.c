/* `denoised watch`: follows a job of a daemon to its end. Ctrl-C leaves the job alone. */
#include <stdio.h>

#include "server/client.h"
#include "server/commands.h"

#define GIVE_UP_SECONDS 300.0

typedef struct watch_options {
    client c;
    const char *output, *show;
    double give_up;
    bool json;
} watch_options;

static int watch(watch_options *o, const char *id, const terminal *screen)
{
    client_watch w = {.c = &o->c, .id = id, .screen = screen, .json = o->json, .give_up_seconds = o->give_up};
    const client_wish wish = {.output = o->output, .save = o->output != NULL, .screen = screen};
    client_catch_signals();
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

int dn_command_watch(int argc, char **argv)
{
    watch_options o = {.show = "auto", .give_up = GIVE_UP_SECONDS};
    char **ids = NULL;
    int count = 0;
    terminal screen;
    dn_option options[CLIENT_OPTIONS + 4] = {
        {.name = "output",
         .letter = 'o',
         .kind = DN_OPTION_TEXT,
         .value = "DIR|FILE",
         .target = &o.output,
         .help = "also save its pictures, as denoised get does"},
        DN_TEXT_OPTION("show", TERMINAL_WAYS, o.show, "draw previews and pictures (auto)"),
        DN_FLAG_OPTION("json", o.json, "print each event as a line of JSON"),
        DN_NUMBER_OPTION("give-up", o.give_up, 0.0, 1e6, "seconds to look for a lost daemon (300)"),
    };
    client_add_options(options + 4, &o.c);
    const dn_command_line line = {.command = "watch",
                                  .operands = "ID",
                                  .summary = "Follows a job of a daemon to its end: progress, previews, pictures.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 1,
                                  .footer = "Ctrl-C leaves the job running. Exits 1 when it failed or was canceled."};
    int status = dn_options_parse(&line, argc, argv, &ids, &count);
    if (status == DN_OPTIONS_GO_ON)
        status = client_open(&o.c, "watch");
    if (status == DN_OPTIONS_GO_ON)
        status = client_check_id(&o.c, ids[0]);
    if (status == DN_OPTIONS_GO_ON)
        status = client_output_check(&o.c, o.output, 1, o.json);
    if (status == DN_OPTIONS_GO_ON)
        status = client_look(&o.c, &screen, o.show, o.json, o.output);
    if (status == DN_OPTIONS_GO_ON)
        status = watch(&o, ids[0], &screen);
    client_close(&o.c);
    return status;
}
