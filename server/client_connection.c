/* A daemon's address, the key, and requests by libcurl (client.h). The key comes from a file or the environment, never from the command
 * line, where everybody on the machine could read it. */
#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"
#include "server/client.h"
#include "server/version.h"

#define KEY_BYTES_MAX 4096
#define CONNECT_SECONDS 20L
#define SILENT_SECONDS 90L /* a stream has a ping every 15 s */
#define SECRETS_FOLDER "/run/secrets/"

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

void client_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool client_stopped(void)
{
    return stopped != 0;
}

void client_add_options(dn_option out[CLIENT_OPTIONS], client *c)
{
    const dn_option options[CLIENT_OPTIONS] = {
        DN_TEXT_OPTION("url", "URL", c->url, "or unix:PATH ($DENOISED_URL, " CLIENT_URL_DEFAULT ")"),
        DN_TEXT_OPTION("key-file", "FILE", c->key_file, "an API key's file ($DENOISED_API_KEY: the key)"),
        DN_TEXT_OPTION("ca-file", "FILE", c->ca_file, "certificates to trust for https (the system's)"),
    };
    memcpy(out, options, sizeof options);
}

static int complain(const client *c, const char *what, const char *why)
{
    fprintf(stderr, "denoised %s: %s%s (see denoised %s --help)\n", c->command, what, why, c->command);
    return DN_EXIT_USAGE;
}

/* "unix:PATH", "unix:PATH:/PREFIX", "http://HOST[:PORT][/PREFIX]", https likewise. */
static int read_url(client *c, const char *url)
{
    char *prefix = "";
    if (strncmp(url, "unix:", 5) == 0) {
        if (url[5] == '\0' || strlen(url + 5) >= sizeof c->socket_path)
            return complain(c, "--url: ", "unix:PATH needs a path of at most 107 bytes");
        snprintf(c->socket_path, sizeof c->socket_path, "%s", url + 5);
        char *colon = strstr(c->socket_path, ":/");
        if (colon != NULL) {
            *colon = '\0';
            prefix = colon + 1;
        }
        snprintf(c->base, sizeof c->base, "http://localhost%s", prefix);
    } else {
        const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
        if (host == NULL || host[0] == '\0' || host[0] == '/' || strpbrk(url, " ?#\\") != NULL || strlen(url) >= sizeof c->base)
            return complain(c, "--url: ", "must be http://HOST[:PORT][/PREFIX], https://... or unix:PATH[:/PREFIX]");
        if (strchr(host, '@') != NULL)
            return complain(c, "--url: ", "has no place for names and passwords: keys come from --key-file or $DENOISED_API_KEY");
        snprintf(c->base, sizeof c->base, "%s", url);
    }
    for (size_t end = strlen(c->base); end > 0 && c->base[end - 1] == '/'; end--)
        c->base[end - 1] = '\0';
    return DN_OPTIONS_GO_ON;
}

/* The secret in a text: its only word, or the second of "NAME SECRET"; lines that begin with # are skipped. */
static bool take_secret(client *c, char *text)
{
    char *rest = NULL;
    for (char *line = strtok_r(text, "\r\n", &rest); line != NULL; line = strtok_r(NULL, "\r\n", &rest)) {
        char *after = NULL;
        char *first = line[0] != '#' ? strtok_r(line, " \t", &after) : NULL;
        char *second = first != NULL ? strtok_r(NULL, " \t", &after) : NULL;
        const char *secret = second != NULL ? second : first;
        if (secret == NULL)
            continue;
        for (const char *at = secret; *at != '\0'; at++)
            if (!isgraph((unsigned char)*at))
                return false;
        const size_t room = strlen(secret) + sizeof "Authorization: Bearer ";
        c->authorization = malloc(room);
        if (c->authorization != NULL)
            snprintf(c->authorization, room, "Authorization: Bearer %s", secret);
        return c->authorization != NULL;
    }
    return false;
}

static int read_key(client *c)
{
    unsigned char *text = NULL;
    size_t bytes = 0;
    struct stat info;
    dn_error error;
    char copy[KEY_BYTES_MAX + 1];
    const char *given = getenv("DENOISED_API_KEY");
    if (c->key_file == NULL) {
        if (given == NULL || given[0] == '\0')
            return DN_OPTIONS_GO_ON;
        snprintf(copy, sizeof copy, "%s", given);
        const bool taken = strlen(given) < sizeof copy && take_secret(c, copy);
        explicit_bzero(copy, sizeof copy);
        return taken ? DN_OPTIONS_GO_ON : complain(c, "DENOISED_API_KEY: ", "is no key: one word of printable characters");
    }
    if (dn_file_read(&text, &bytes, c->key_file, KEY_BYTES_MAX, &error) != DN_OK)
        return dn_command_failed(c->command, &error);
    int status = DN_OPTIONS_GO_ON;
    if (stat(c->key_file, &info) == 0 && (info.st_mode & 027) != 0 && strncmp(c->key_file, SECRETS_FOLDER, strlen(SECRETS_FOLDER)) != 0) {
        fprintf(stderr, "denoised %s: %s may be read by others: chmod 600 it\n", c->command, c->key_file);
        status = DN_EXIT_CONFIG;
    } else if (!take_secret(c, (char *)text)) {
        fprintf(stderr, "denoised %s: %s holds no key: a line with the key, as `denoised key add` prints it\n", c->command, c->key_file);
        status = DN_EXIT_CONFIG;
    }
    explicit_bzero(text, bytes);
    free(text);
    return status;
}

int client_open(client *c, const char *command)
{
    const char *given = getenv("DENOISED_URL");
    c->command = command;
    int status = read_url(c, c->url != NULL ? c->url : given != NULL && given[0] != '\0' ? given : CLIENT_URL_DEFAULT);
    if (status == DN_OPTIONS_GO_ON)
        status = read_key(c);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    c->easy = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
    if (c->easy == NULL) {
        fprintf(stderr, "denoised %s: out of memory\n", command);
        return DN_EXIT_TEMPORARY;
    }
    return DN_OPTIONS_GO_ON;
}

void client_close(client *c)
{
    if (c->authorization != NULL)
        explicit_bzero(c->authorization, strlen(c->authorization));
    free(c->authorization);
    curl_easy_cleanup(c->easy);
    c->authorization = NULL;
    c->easy = NULL;
}

/* ---- Requests */

typedef struct transfer {
    client *c;
    client_answer *answer;
    api_text body;
    client_sink *sink; /* NULL: everything is kept */
    void *payload;
    bool enough; /* the sink wants no more */
} transfer;

static size_t on_body(char *bytes, size_t size, size_t count, void *payload)
{
    transfer *t = payload;
    long status = 0;
    count *= size;
    curl_easy_getinfo(t->c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (t->sink != NULL && status == 200) {
        t->enough = !t->sink(t->payload, bytes, count);
        return t->enough ? 0 : count;
    }
    if (t->body.length + count > CLIENT_ANSWER_BYTES_MAX)
        return 0;
    api_text_bytes(&t->body, bytes, count);
    return t->body.failed ? 0 : count;
}

static size_t on_header(char *bytes, size_t size, size_t count, void *payload)
{
    transfer *t = payload;
    static const char name[] = "retry-after:";
    char value[16];
    count *= size;
    if (count > sizeof name && strncasecmp(bytes, name, sizeof name - 1) == 0) {
        const size_t length = count - (sizeof name - 1) < sizeof value ? count - (sizeof name - 1) : sizeof value - 1;
        memcpy(value, bytes + sizeof name - 1, length);
        value[length] = '\0';
        const unsigned long seconds = strtoul(value, NULL, 10);
        t->answer->retry_after = seconds < 86400 ? (unsigned)seconds : 86400u;
    }
    return count;
}

static int on_progress(void *payload, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)payload, (void)a, (void)b, (void)c, (void)d;
    return client_stopped();
}

static bool is_loopback(const char *base)
{
    const char *host = strstr(base, "://") + 3;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost", 9) == 0 || strncmp(host, "[::1]", 5) == 0;
}

static void set_request(transfer *t, const char *method, const char *url, const char *body)
{
    CURL *easy = t->c->easy;
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "denoised/" DN_VERSION);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, SILENT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    if (t->c->socket_path[0] != '\0')
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, t->c->socket_path);
    if (is_loopback(t->c->base))
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (t->c->ca_file != NULL)
        curl_easy_setopt(easy, CURLOPT_CAINFO, t->c->ca_file);
    if (body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    }
}

static bool add_header(struct curl_slist **headers, const char *line)
{
    struct curl_slist *longer = line != NULL ? curl_slist_append(*headers, line) : *headers;
    *headers = longer != NULL ? longer : *headers;
    return longer != NULL || line == NULL;
}

static CURLcode perform(transfer *t, const char *method, const char *path, const char *body, const char *more)
{
    char url[2048];
    struct curl_slist *headers = NULL;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    *t->answer = (client_answer){0};
    snprintf(url, sizeof url, "%s%s", t->c->base, path);
    if (add_header(&headers, "Expect:") && add_header(&headers, t->c->authorization) && add_header(&headers, more) &&
        add_header(&headers, body != NULL ? "Content-Type: application/json" : NULL)) {
        set_request(t, method, url, body);
        curl_easy_setopt(t->c->easy, CURLOPT_HTTPHEADER, headers);
        code = curl_easy_perform(t->c->easy);
        curl_easy_getinfo(t->c->easy, CURLINFO_RESPONSE_CODE, &t->answer->status);
    }
    if (t->enough && code == CURLE_WRITE_ERROR)
        code = CURLE_OK;
    t->answer->bytes = t->body.length;
    t->answer->body = api_text_take(&t->body);
    curl_slist_free_all(headers);
    return code;
}

CURLcode client_try(client *c, const char *method, const char *path, const char *body, const char *more, client_answer *out)
{
    transfer t = {.c = c, .answer = out, .body = API_TEXT_INIT};
    return perform(&t, method, path, body, more);
}

CURLcode client_stream(client *c, const char *path, const char *more, client_sink *sink, void *payload, client_answer *out)
{
    transfer t = {.c = c, .answer = out, .body = API_TEXT_INIT, .sink = sink, .payload = payload};
    return perform(&t, "GET", path, NULL, more);
}

int client_call(client *c, const char *method, const char *path, const char *body, const char *more, client_answer *out)
{
    const CURLcode code = client_try(c, method, path, body, more, out);
    if (code == CURLE_OK)
        return DN_OPTIONS_GO_ON;
    client_answer_done(out);
    return client_unreachable(c, code);
}

void client_answer_done(client_answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}
