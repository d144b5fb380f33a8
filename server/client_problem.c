/* What goes wrong between a command and a daemon, in words that say what to do next (client.h). */
#include <stdlib.h>
#include <string.h>

#include "api/views.h"
#include "server/client.h"

/* By problem code: the exit status, and what may help. */
static const struct remedy {
    const char *code;
    int status;
    const char *hint;
} remedies[] = {
    {"unauthorized", DN_EXIT_NOT_PERMITTED, "give a key: --key-file FILE, or $DENOISED_API_KEY (`denoised key add` makes one)"},
    {"forbidden", DN_EXIT_NOT_PERMITTED, "the key lacks a scope: `denoised key add --scopes ...` beside the daemon makes one that has it"},
    {"wrong-host", DN_EXIT_UNAVAILABLE, "the daemon answers to other names: `denoised serve --allowed-host NAME`"},
    {"not-found", DN_EXIT_FAILED, "`denoised jobs` lists the jobs of this key"},
    {"expired", DN_EXIT_FAILED, "its pictures are gone; the same seed and options make the same ones again"},
    {"not-ready", DN_EXIT_TEMPORARY, "`denoised watch` waits for it"},
    {"canceled", DN_EXIT_FAILED, NULL},
    {"invalid-field", DN_EXIT_DATA, NULL},
    {"unsupported-option", DN_EXIT_DATA, NULL},
    {"idempotency-mismatch", DN_EXIT_DATA, "another --idempotency-key makes another job"},
    {"malformed-json", DN_EXIT_DATA, NULL},
    {"bad-cursor", DN_EXIT_DATA, NULL},
    {"too-large", DN_EXIT_DATA, NULL},
    {"quota", DN_EXIT_TEMPORARY, "wait, or cancel what is not needed (`denoised jobs --state queued`)"},
    {"queue-full", DN_EXIT_TEMPORARY, "try again later, nothing was stored"},
    {"draining", DN_EXIT_TEMPORARY, "the daemon is being stopped; try again when it is back"},
    {"loading", DN_EXIT_TEMPORARY, "the daemon is starting; `denoised health --ready` says when it can work"},
    {"outcome-unknown", DN_EXIT_TEMPORARY, "`denoised jobs` says whether it was stored"},
    {"storage-full", DN_EXIT_TEMPORARY, NULL},
    {"internal", DN_EXIT_UNAVAILABLE, "the daemon's log says more"},
};

/* Fields of a request whose flags are called otherwise. */
static const char *const flags[][2] = {
    {"class_label", "class"}, {"class_mixture", "mixture"}, {"n", "images"}, {"deadline_ms", "deadline"}};

void client_print(FILE *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
        if (at[0] == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0) {
            fputc('?', out);
            at++;
        } else {
            fputc(*at < 32 || *at == 127 ? '?' : *at, out);
        }
    }
}

const char *client_text(const cJSON *object, const char *key)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return value != NULL ? value : "";
}

double client_number(const cJSON *object, const char *key, double otherwise)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(value) ? value->valuedouble : otherwise;
}

int client_unreachable(const client *c, CURLcode code)
{
    const bool remote = code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CONNECT_ERROR || code == CURLE_SSL_CACERT_BADFILE;
    if (code == CURLE_OUT_OF_MEMORY) {
        fprintf(stderr, "denoised %s: out of memory\n", c->command);
        return DN_EXIT_TEMPORARY;
    }
    fprintf(stderr, "denoised %s: cannot reach %s: %s\n", c->command, c->socket_path[0] != '\0' ? c->socket_path : c->base,
            curl_easy_strerror(code));
    if (remote)
        fprintf(stderr, "  --ca-file FILE names the certificates to trust\n");
    else
        fprintf(stderr, "  `denoised serve --model NAME=DIR` starts a daemon; --url or $DENOISED_URL say where one is\n");
    return DN_EXIT_UNAVAILABLE;
}

static cJSON *problem_of(const client_answer *answer)
{
    return answer->body != NULL ? cJSON_ParseWithLength(answer->body, answer->bytes) : NULL;
}

bool client_problem_is(const client_answer *answer, const char *code)
{
    cJSON *problem = problem_of(answer);
    const bool is = strcmp(client_text(problem, "code"), code) == 0;
    cJSON_Delete(problem);
    return is;
}

/* "/sigma_min" as the flag that sets it. */
static void print_flag(const char *field)
{
    const char *name = field + 1;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (strcmp(flags[i][0], name) == 0)
            name = flags[i][1];
    fprintf(stderr, " (--");
    for (const char *at = name; (*at >= 'a' && *at <= 'z') || *at == '_'; at++)
        fputc(*at == '_' ? '-' : *at, stderr);
    fprintf(stderr, ")");
}

int client_refused(const client *c, const client_answer *answer)
{
    cJSON *problem = problem_of(answer);
    const char *code = client_text(problem, "code"), *field = client_text(problem, "field");
    const struct remedy *remedy = NULL;
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++)
        if (strcmp(remedies[i].code, code) == 0)
            remedy = &remedies[i];
    fprintf(stderr, "denoised %s: ", c->command);
    if (client_text(problem, "detail")[0] != '\0')
        client_print(stderr, client_text(problem, "detail"));
    else
        fprintf(stderr, "%s answered with status %ld", c->base, answer->status);
    if (field[0] == '/' && strcmp(c->command, "submit") == 0)
        print_flag(field);
    fprintf(stderr, "\n");
    if (answer->retry_after > 0 && (answer->status == 429 || answer->status >= 500))
        fprintf(stderr, "  it may do in %u s\n", answer->retry_after);
    if (remedy != NULL && remedy->hint != NULL)
        fprintf(stderr, "  %s\n", remedy->hint);
    else if (problem == NULL)
        fprintf(stderr, "  is this a daemon's address? --url and $DENOISED_URL say where one is, its --base-path included\n");
    const bool passing = answer->status == 429 || answer->status == 502 || answer->status == 503 || answer->status == 504;
    cJSON_Delete(problem);
    return remedy != NULL ? remedy->status : passing ? DN_EXIT_TEMPORARY : DN_EXIT_PROTOCOL;
}

cJSON *client_json(const client *c, const client_answer *answer)
{
    cJSON *body = problem_of(answer);
    if (cJSON_IsObject(body))
        return body;
    cJSON_Delete(body);
    fprintf(stderr, "denoised %s: what %s answered is no JSON of a denoised daemon\n  --url and $DENOISED_URL say where one is\n",
            c->command, c->base);
    return NULL;
}

int client_check_id(const client *c, const char *id)
{
    if (api_id_valid(id))
        return DN_OPTIONS_GO_ON;
    fprintf(stderr, "denoised %s: ", c->command);
    client_print(stderr, id);
    fprintf(stderr, ": is no job's id: 26 characters of a-z and 2-7, as `denoised submit` and `denoised jobs` print them\n");
    return DN_EXIT_USAGE;
}
