/* `denoised key add|list|revoke`: the API keys of a data directory, beside a running daemon or before its first start. One thread. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/text.h"
#include "api/views.h"
#include "base/sha256.h"
#include "server/auth.h"
#include "server/commands.h"
#include "server/options.h"

#define NUMBER_CHARACTERS 8
#define SECRET_CHARACTERS 43 /* 5 bits each: 215 */
#define RATE_MAX 1e6
#define BUDGET_MAX 1e15

static const char *const scope_names[] = {"submit", "read", "read-all", "admin", "metrics"};
#define SCOPES (sizeof scope_names / sizeof scope_names[0])

typedef struct key_options {
    const char *data, *scopes;
    double rate, budget;
    uint64_t pending_jobs;
    bool json;
} key_options;

/* ---- Words */

static bool parse_scopes(const char *text, unsigned *out)
{
    *out = 0;
    for (size_t bytes; *text; text += bytes + (text[bytes] == ',')) {
        size_t i = 0;
        bytes = strcspn(text, ",");
        while (i < SCOPES && (strlen(scope_names[i]) != bytes || memcmp(scope_names[i], text, bytes) != 0))
            i++;
        if (i == SCOPES)
            return false;
        *out |= 1u << i;
    }
    return *out != 0;
}

static void scopes_text(char out[64], unsigned scopes)
{
    out[0] = 0;
    for (size_t i = 0; i < SCOPES; i++)
        if (scopes >> i & 1u)
            snprintf(out + strlen(out), 64 - strlen(out), "%s%s", out[0] ? "," : "", scope_names[i]);
}

static bool client_valid(const char *name)
{
    const size_t bytes = strlen(name);
    return bytes >= 1 && bytes <= 64 && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == bytes;
}

static bool draw(char *out, size_t characters)
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char random[64];
    if (getrandom(random, characters, 0) != (ssize_t)characters)
        return false;
    for (size_t i = 0; i < characters; i++)
        out[i] = digits[random[i] & 31];
    out[characters] = 0;
    explicit_bzero(random, sizeof random);
    return true;
}

/* ---- Add */

static int add(const key_options *o, const char *client)
{
    dn_error error;
    store_key key = {.rate = o->rate, .budget = o->budget, .pending_jobs = o->pending_jobs};
    char secret[SECRET_CHARACTERS + 1], whole[80];
    if (!client_valid(client)) {
        fprintf(stderr, "denoised key: a name has 1 to 64 letters, digits and . _ -\n");
        return DN_EXIT_USAGE;
    }
    if (!parse_scopes(o->scopes, &key.scopes)) {
        fprintf(stderr, "denoised key: --scopes are some of submit,read,read-all,admin,metrics\n");
        return DN_EXIT_USAGE;
    }
    if (!draw(key.number, NUMBER_CHARACTERS) || !draw(secret, SECRET_CHARACTERS)) {
        fprintf(stderr, "denoised key: no random bytes\n");
        return DN_EXIT_TEMPORARY;
    }
    snprintf(key.client, sizeof key.client, "%s", client);
    snprintf(whole, sizeof whole, "dn_%s_%s", key.number, secret);
    dn_sha256_of(key.hash, whole, strlen(whole));
    if (store_key_add(o->data, &key, &error) != DN_OK)
        return dn_command_failed("key", &error);
    fprintf(stderr, "key %s for %s; it is shown this once:\n", key.number, key.client);
    printf("%s\n", whole);
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(whole, sizeof whole);
    return DN_EXIT_OK;
}

/* ---- List */

static void limit_text(char out[32], double value, const char *unit)
{
    if (value > 0)
        snprintf(out, 32, "%g%s", value, unit);
    else
        snprintf(out, 32, "-");
}

static void print_table(const store_key *keys, size_t count)
{
    printf("%-8s  %-20s  %-26s  %-8s  %-8s  %-12s  %-24s  %s\n", "KEY", "NAME", "SCOPES", "RATE", "PENDING", "BUDGET", "CREATED",
           "REVOKED");
    for (size_t i = 0; i < count; i++) {
        char scopes[64], rate[32], pending[32], budget[32], created[32], revoked[32] = "-";
        scopes_text(scopes, keys[i].scopes);
        limit_text(rate, keys[i].rate, "/s");
        limit_text(pending, (double)keys[i].pending_jobs, "");
        limit_text(budget, keys[i].budget, "/h");
        api_time_text(created, keys[i].created_ms);
        if (keys[i].revoked_ms)
            api_time_text(revoked, keys[i].revoked_ms);
        printf("%-8s  %-20s  %-26s  %-8s  %-8s  %-12s  %-24s  %s\n", keys[i].number, keys[i].client, scopes, rate, pending, budget, created,
               revoked);
    }
}

static void add_limit(api_text *text, const char *name, double value)
{
    api_text_format(text, ",\"%s\":", name);
    if (value > 0)
        api_text_number(text, value);
    else
        api_text_add(text, "null");
}

static int print_json(const store_key *keys, size_t count)
{
    api_text text = API_TEXT_INIT;
    for (size_t i = 0; i < count; i++) {
        char scopes[64], when[32];
        scopes_text(scopes, keys[i].scopes);
        api_time_text(when, keys[i].created_ms);
        api_text_format(&text, "%s{\"key\":\"%s\",\"name\":\"%s\",\"scopes\":\"%s\"", i ? "," : "[", keys[i].number, keys[i].client,
                        scopes);
        add_limit(&text, "rate", keys[i].rate);
        add_limit(&text, "pending_jobs", (double)keys[i].pending_jobs);
        add_limit(&text, "budget", keys[i].budget);
        api_text_format(&text, ",\"created_at\":\"%s\",\"revoked_at\":", when);
        api_time_text(when, keys[i].revoked_ms);
        api_text_string(&text, keys[i].revoked_ms ? when : NULL);
        api_text_add(&text, "}");
    }
    api_text_add(&text, count ? "]" : "[]");
    char *whole = api_text_take(&text);
    if (!whole)
        return DN_EXIT_TEMPORARY;
    printf("%s\n", whole);
    free(whole);
    return DN_EXIT_OK;
}

static int list(const key_options *o)
{
    dn_error error;
    store_key *keys = NULL;
    size_t count = 0;
    int status = DN_EXIT_OK;
    if (store_key_list(o->data, &keys, &count, &error) != DN_OK)
        return dn_command_failed("key", &error);
    if (o->json)
        status = print_json(keys, count);
    else
        print_table(keys, count);
    free(keys);
    return status;
}

/* ---- Revoke */

static int revoke(const key_options *o, const char *number)
{
    dn_error error;
    bool found = false;
    if (store_key_revoke(o->data, number, &found, &error) != DN_OK)
        return dn_command_failed("key", &error);
    if (!found) {
        fprintf(stderr, "denoised key: there is no such key, or it has been revoked (see denoised key list)\n");
        return DN_EXIT_FAILED;
    }
    printf("key %s is revoked; a running daemon refuses it within a second\n", number);
    return DN_EXIT_OK;
}

int dn_command_key(int argc, char **argv)
{
    key_options o = {.data = "./data", .scopes = "submit,read"};
    const dn_option options[] = {
        DN_TEXT_OPTION("data", "DIR", o.data, "the data directory (./data)"),
        DN_TEXT_OPTION("scopes", "LIST", o.scopes, "add: of submit, read, read-all, admin, metrics (submit,read)"),
        DN_NUMBER_OPTION("rate", o.rate, 0, RATE_MAX, "add: requests a second (0: no limit)"),
        DN_COUNT_OPTION("pending-jobs", o.pending_jobs, 0, API_CLIENT_JOBS_MAX,
                        "add: jobs that may wait or run (0: as many as any client)"),
        DN_NUMBER_OPTION("budget", o.budget, 0, BUDGET_MAX, "add: megapixel-steps an hour (0: no limit)"),
        DN_FLAG_OPTION("json", o.json, "list: as JSON"),
    };
    const dn_command_line line = {.command = "key",
                                  .operands = "add NAME | list | revoke KEY",
                                  .summary = "API keys of a data directory: who may ask a daemon, for what, and how much.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 2};
    char **operands;
    int count;
    const int status = dn_options_parse(&line, argc, argv, &operands, &count);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (strcmp(operands[0], "add") == 0 && count == 2)
        return add(&o, operands[1]);
    if (strcmp(operands[0], "list") == 0 && count == 1)
        return list(&o);
    if (strcmp(operands[0], "revoke") == 0 && count == 2)
        return revoke(&o, operands[1]);
    fprintf(stderr, "denoised key: add NAME, list, or revoke KEY\n");
    return DN_EXIT_USAGE;
}
