/* `denoised check`: is everything there that the database promises, and is it whole? Changes nothing. One thread.
 *
 * Exit 0: sound; 78: damaged, or no database that this program can use; 75: it could not be looked at. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/commands.h"
#include "server/dispatcher.h"
#include "server/options.h"
#include "server/progress.h"
#include "server/store/store.h"

typedef struct check_run {
    bool json;
    cJSON *damage, *notes;
    dn_progress_bar bar;
    char label[32];
} check_run;

static void found(void *payload, bool damage, const char *what, const char *detail)
{
    check_run *run = payload;
    if (!run->json) {
        dn_progress_end(&run->bar);
        printf("%s: %s: %s\n", damage ? "DAMAGE" : "note", what, detail);
        return;
    }
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "what", what);
    cJSON_AddStringToObject(item, "detail", detail);
    cJSON_AddItemToArray(damage ? run->damage : run->notes, item);
}

static void progress(void *payload, const char *label, double share)
{
    check_run *run = payload;
    if (strcmp(run->label, label) != 0) {
        snprintf(run->label, sizeof run->label, "%s", label);
        dn_progress_begin(&run->bar, run->label, 1);
    }
    dn_progress_update(&run->bar, share, "");
}

static void print_json(check_run *run, const char *data, const store_audit *audit, const dn_error *error)
{
    cJSON *body = cJSON_CreateObject();
    cJSON_AddStringToObject(body, "data", data);
    cJSON_AddBoolToObject(body, "sound", error == NULL && audit->damages == 0);
    if (error != NULL) {
        cJSON_AddStringToObject(body, "error", error->message);
    }
    cJSON_AddNumberToObject(body, "schema", audit->schema);
    cJSON_AddNumberToObject(body, "jobs", (double)audit->jobs);
    cJSON_AddNumberToObject(body, "images", (double)audit->images);
    cJSON_AddNumberToObject(body, "image_bytes", (double)audit->image_bytes);
    cJSON_AddNumberToObject(body, "snapshots", (double)audit->snapshots);
    cJSON_AddItemToObject(body, "damage", run->damage);
    cJSON_AddItemToObject(body, "notes", run->notes);
    char *text = cJSON_PrintUnformatted(body);
    puts(text != NULL ? text : "{\"sound\":false,\"error\":\"out of memory\"}");
    free(text);
    cJSON_Delete(body);
}

static int look(check_run *run, const char *data)
{
    dn_error error;
    store_audit audit = {.found = found, .progress = progress, .snapshot_whole = dispatcher_snapshot_whole, .payload = run};
    dn_status status = store_audit_folder(data, &audit, &error);
    dn_progress_end(&run->bar);
    if (run->json) {
        print_json(run, data, &audit, status == DN_OK ? NULL : &error);
    } else if (status != DN_OK) {
        fprintf(stderr, "denoised check: %s\n", error.message);
    } else if (audit.damages == 0) {
        printf("%s: sound: %llu jobs, %llu images (%llu bytes), %llu snapshots\n", data, (unsigned long long)audit.jobs,
               (unsigned long long)audit.images, (unsigned long long)audit.image_bytes, (unsigned long long)audit.snapshots);
    } else {
        printf("%s: damaged in %llu places\n", data, (unsigned long long)audit.damages);
    }
    if (status == DN_IO || status == DN_NO_MEMORY) {
        return DN_EXIT_TEMPORARY;
    }
    return status == DN_OK && audit.damages == 0 ? DN_EXIT_OK : DN_EXIT_CONFIG;
}

int dn_command_check(int argc, char **argv)
{
    const char *data = "./data";
    check_run run = {0};
    const dn_option options[] = {DN_TEXT_OPTION("data", "DIR", data, "the data directory to look at (default ./data)"),
                                 DN_FLAG_OPTION("json", run.json, "one JSON object: sound, counts, damage, notes")};
    const dn_command_line line = {.command = "check",
                                  .operands = "",
                                  .summary = "Looks for damage: the database, each image's bytes, what waiting jobs need. Changes nothing.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .footer = "Works beside a running daemon. Exits 0 when all is sound, 78 when not."};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON) {
        return status;
    }
    dn_progress_begin(&run.bar, "database", 1);
    if (run.json) {
        run.damage = cJSON_CreateArray();
        run.notes = cJSON_CreateArray();
    }
    return look(&run, data);
}
