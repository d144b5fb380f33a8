/* `denoised jobs`: the jobs of a daemon, newest first. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/limits.h"
#include "base/clock.h"
#include "server/client.h"
#include "server/commands.h"

#define CURSOR_MAX 512
#define JOBS_MOST 100000

typedef struct jobs_options {
    client c;
    const char *state, *model;
    uint64_t limit;
    bool json;
} jobs_options;

/* "12s", "5m", "3h", "2d" since an RFC 3339 time of UTC. */
static void age_text(char out[24], const char *created)
{
    struct tm when = {0};
    snprintf(out, 24, "-");
    if (sscanf(created, "%4d-%2d-%2dT%2d:%2d:%2d", &when.tm_year, &when.tm_mon, &when.tm_mday, &when.tm_hour, &when.tm_min, &when.tm_sec) !=
        6)
        return;
    when.tm_year -= 1900;
    when.tm_mon -= 1;
    long long seconds = (long long)(dn_wall_ms() / 1000) - (long long)timegm(&when);
    seconds = seconds > 0 ? seconds : 0;
    if (seconds < 100)
        snprintf(out, 24, "%llds", seconds);
    else if (seconds < 6000)
        snprintf(out, 24, "%lldm", seconds / 60);
    else if (seconds < 360000)
        snprintf(out, 24, "%lldh", seconds / 3600);
    else
        snprintf(out, 24, "%lldd", seconds / 86400);
}

static void print_row(const cJSON *job)
{
    const cJSON *request = cJSON_GetObjectItemCaseSensitive(job, "request"), *progress = cJSON_GetObjectItemCaseSensitive(job, "progress");
    char age[24], share[16] = "-", images[32], name[64];
    const double fraction = client_number(progress, "fraction", -1), label = client_number(request, "class_label", -1);
    age_text(age, client_text(job, "created_at"));
    if (fraction >= 0)
        snprintf(share, sizeof share, "%.0f%%", 100 * fraction);
    snprintf(images, sizeof images, "%d/%.0f", cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(job, "images")),
             client_number(request, "n", 0));
    snprintf(name, sizeof name, "%.40s", client_text(request, "class_name"));
    if (name[0] == '\0' && label >= 0)
        snprintf(name, sizeof name, "%.0f", label);
    client_print(stdout, client_text(job, "id"));
    printf("  ");
    char state[16];
    snprintf(state, sizeof state, "%-9.9s", client_text(job, "state"));
    client_print(stdout, state);
    printf("  %4s  %6s  %5.0f  %4s  ", share, images, client_number(request, "steps", 0), age);
    client_print(stdout, name[0] != '\0' ? name : "-");
    printf("\n");
}

static void page_path(const jobs_options *o, uint64_t left, const char *cursor, char *out, size_t room)
{
    char *model = o->model != NULL ? curl_easy_escape(o->c.easy, o->model, 0) : NULL, *from = curl_easy_escape(o->c.easy, cursor, 0);
    char *state = o->state != NULL ? curl_easy_escape(o->c.easy, o->state, 0) : NULL;
    snprintf(out, room, "/jobs?limit=%llu%s%s%s%s%s%s", (unsigned long long)(left < API_LIST_LIMIT_MAX ? left : API_LIST_LIMIT_MAX),
             state != NULL ? "&state=" : "", state != NULL ? state : "", model != NULL ? "&model=" : "", model != NULL ? model : "",
             cursor[0] != '\0' ? "&cursor=" : "", from != NULL ? from : "");
    curl_free(model);
    curl_free(from);
    curl_free(state);
}

/* One page into `all`; *cursor: of the next one, "" after the last. */
static int read_page(jobs_options *o, uint64_t left, char cursor[CURSOR_MAX], cJSON *all)
{
    char path[2048];
    client_answer answer;
    page_path(o, left, cursor, path, sizeof path);
    int status = client_call(&o->c, "GET", path, NULL, NULL, &answer);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    cJSON *page = answer.status == 200 ? client_json(&o->c, &answer) : NULL;
    if (answer.status != 200)
        status = client_refused(&o->c, &answer);
    else if (page == NULL)
        status = DN_EXIT_PROTOCOL;
    cJSON *jobs = cJSON_GetObjectItemCaseSensitive(page, "jobs");
    snprintf(cursor, CURSOR_MAX, "%s", client_text(page, "next_cursor"));
    while (cJSON_GetArraySize(jobs) > 0)
        cJSON_AddItemToArray(all, cJSON_DetachItemFromArray(jobs, 0));
    cJSON_Delete(page);
    client_answer_done(&answer);
    return status;
}

static int list(jobs_options *o)
{
    char cursor[CURSOR_MAX] = "";
    cJSON *whole = cJSON_CreateObject(), *all = cJSON_AddArrayToObject(whole, "jobs"), *job;
    int status = DN_OPTIONS_GO_ON;
    uint64_t had = 0;
    do {
        status = read_page(o, o->limit - had, cursor, all);
        const uint64_t has = (uint64_t)cJSON_GetArraySize(all);
        if (has == had)
            break;
        had = has;
    } while (status == DN_OPTIONS_GO_ON && cursor[0] != '\0' && had < o->limit);
    if (status == DN_OPTIONS_GO_ON && o->json) {
        char *text = cJSON_PrintUnformatted(whole);
        printf("%s\n", text != NULL ? text : "");
        cJSON_free(text);
    } else if (status == DN_OPTIONS_GO_ON) {
        printf("%-26s  %-9s  %4s  %6s  %5s  %4s  %s\n", "ID", "STATE", "DONE", "IMAGES", "STEPS", "AGE", "CLASS");
        cJSON_ArrayForEach(job, all)
        {
            print_row(job);
        }
    }
    cJSON_Delete(whole);
    return status == DN_OPTIONS_GO_ON ? DN_EXIT_OK : status;
}

int dn_command_jobs(int argc, char **argv)
{
    jobs_options o = {.limit = API_LIST_LIMIT};
    dn_option options[CLIENT_OPTIONS + 4] = {
        DN_TEXT_OPTION("state", "queued|running|succeeded|failed|canceled", o.state, "only these"),
        DN_TEXT_OPTION("model", "NAME", o.model, "only this model's"),
        DN_COUNT_OPTION("limit", o.limit, 1, JOBS_MOST, "how many at most (20)"),
        DN_FLAG_OPTION("json", o.json, "print one JSON object"),
    };
    client_add_options(options + 4, &o.c);
    const dn_command_line line = {.command = "jobs",
                                  .operands = "",
                                  .summary = "Lists the jobs of a daemon, newest first.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0]};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status == DN_OPTIONS_GO_ON)
        status = client_open(&o.c, "jobs");
    if (status == DN_OPTIONS_GO_ON)
        status = list(&o);
    client_close(&o.c);
    return status;
}
