/* `denoised cancel`: ends jobs of a daemon. */
#include <stdio.h>
#include <string.h>

#include "server/client.h"
#include "server/commands.h"

/* Canceled now, or soon: 0. Ended before that, or unknown: 1. */
static int cancel(client *c, const char *id, bool purge, bool json)
{
    char path[64];
    client_answer answer;
    int status = client_check_id(c, id);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    snprintf(path, sizeof path, "/jobs/%s%s", id, purge ? "?purge=1" : "");
    status = client_call(c, "DELETE", path, NULL, NULL, &answer);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (answer.status != 200 && answer.status != 202) {
        status = client_refused(c, &answer);
        client_answer_done(&answer);
        return status;
    }
    cJSON *job = client_json(c, &answer);
    const char *state = client_text(job, "state");
    if (job != NULL && json) {
        char *line = cJSON_PrintUnformatted(job);
        printf("%s\n", line != NULL ? line : "");
        cJSON_free(line);
    } else if (job != NULL) {
        printf("%s %s", id, answer.status == 202 ? "is being canceled" : strcmp(state, "canceled") == 0 ? "" : "had ended: ");
        client_print(stdout, answer.status == 202 ? "" : state);
        printf("%s\n", purge ? ", its files are deleted" : "");
    }
    status = job == NULL ? DN_EXIT_PROTOCOL : answer.status == 202 || strcmp(state, "canceled") == 0 || purge ? DN_EXIT_OK : DN_EXIT_FAILED;
    cJSON_Delete(job);
    client_answer_done(&answer);
    return status;
}

int dn_command_cancel(int argc, char **argv)
{
    client c = {0};
    bool purge = false, json = false;
    char **ids = NULL;
    int count = 0;
    dn_option options[CLIENT_OPTIONS + 2] = {
        DN_FLAG_OPTION("purge", purge, "delete pictures, parameters and events too"),
        DN_FLAG_OPTION("json", json, "print each job as a line of JSON"),
    };
    client_add_options(options + 2, &c);
    const dn_command_line line = {.command = "cancel",
                                  .operands = "ID...",
                                  .summary = "Cancels jobs of a daemon. Exits 1 when one had ended before.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 1000};
    int status = dn_options_parse(&line, argc, argv, &ids, &count);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    status = client_open(&c, "cancel");
    if (status == DN_OPTIONS_GO_ON) {
        status = DN_EXIT_OK;
        for (int i = 0; i < count; i++) {
            const int one = cancel(&c, ids[i], purge, json);
            status = one != DN_EXIT_OK ? one : status;
        }
    }
    client_close(&c);
    return status;
}
