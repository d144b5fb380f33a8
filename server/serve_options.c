/* The options of `denoised serve` (serve_options.h). Nothing is opened here; every refusal is one line and exit 78. */
#include "server/serve_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/limits.h"
#include "base/limits.h"
#include "server/device_option.h"
#include "server/http.h"

#define STREAMS_MOST 8192 /* of --streams-max: each has a connection and its 32 KB */

static int refuse_option(const char *text)
{
    fprintf(stderr, "denoised serve: %s\n", text);
    return DN_EXIT_CONFIG;
}

/* "10G", "512M", "4096": bytes. */
static bool parse_bytes(const char *text, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (!isdigit((unsigned char)text[0]) || errno != 0) {
        return false;
    }
    if (*end != '\0') {
        const char *unit = strchr("KMGT", toupper((unsigned char)*end));
        if (unit == NULL || end[1] != '\0') {
            return false;
        }
        shift = 10 * (unsigned)(unit - "KMGT" + 1);
    }
    if (value > UINT64_MAX >> shift) {
        return false;
    }
    *out = (uint64_t)value << shift;
    return true;
}

/* Bytes, or "50%" of the machine's memory. */
static bool parse_memory(const char *text, uint64_t *out)
{
    size_t length = strlen(text);
    if (length < 2 || text[length - 1] != '%') {
        return parse_bytes(text, out);
    }
    char *end = NULL;
    double share = strtod(text, &end);
    if (!isdigit((unsigned char)text[0]) || end != text + length - 1 || !(share > 0 && share <= 100)) {
        return false;
    }
    *out = (uint64_t)(share / 100 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
    return true;
}

static bool parse_public_host(serve_options *o)
{
    const char *url = o->public_url;
    if (url[0] == '\0') {
        return true;
    }
    const char *host = strncmp(url, "https://", 8) == 0 ? url + 8 : strncmp(url, "http://", 7) == 0 ? url + 7 : NULL;
    size_t length = host == NULL ? 0 : strcspn(host, ":/");
    if (length == 0 || length >= sizeof o->public_host) {
        return false;
    }
    memcpy(o->public_host, host, length);
    return true;
}

dn_status serve_options_guarded(const serve_options *o, bool keys, dn_error *error)
{
    return keys || o->insecure || listen_is_loopback(o->listen)
               ? DN_OK
               : dn_fail(error, DN_INVALID,
                         "listening beyond loopback without keys: make one with `denoised key add`, give --api-key-file FILE, or "
                         "--insecure if a proxy guards this port");
}

dn_status serve_options_pages(const serve_options *o, bool keys, dn_error *error)
{
    bool all = false;
    for (uint32_t i = 0; i < o->cors_list.count; i++) {
        all |= strcmp(o->cors_list.values[i], "*") == 0;
    }
    return keys && all ? dn_fail(error, DN_INVALID, "--cors-origin * is for daemons without keys: name each origin") : DN_OK;
}

/* "https://app.example", as browsers write it: a scheme, a host in lower case, a port if it is not the scheme's own, nothing behind. */
static bool is_origin(const char *text)
{
    static const char scheme_letters[] = "abcdefghijklmnopqrstuvwxyz0123456789+.-";
    size_t scheme = strspn(text, scheme_letters);
    const char *host = text + scheme + 3;
    if (strcmp(text, "*") == 0) {
        return true;
    }
    return islower((unsigned char)text[0]) && strncmp(text + scheme, "://", 3) == 0 && host[0] != '\0' &&
           host[strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")] == '\0';
}

static bool take_origins(serve_options *o)
{
    for (uint32_t i = 0; i < o->cors_list.count; i++) {
        if (!is_origin(o->cors_list.values[i])) {
            return false;
        }
        o->cors_origins[i] = o->cors_list.values[i];
    }
    return true;
}

/* Then it may have keys: they are looked at when it is open. */
static bool has_database(const serve_options *o)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/denoised.db", o->data);
    return access(path, F_OK) == 0;
}

static int check_options(serve_options *o)
{
    size_t base = strlen(o->base_path);
    size_t octal = strspn(o->socket_mode_text, "01234567");
    o->socket_mode = (unsigned)strtoul(o->socket_mode_text, NULL, 8);
    if (octal < 3 || octal > 4 || o->socket_mode_text[octal] != '\0' || o->socket_mode > 0777) {
        return refuse_option("--socket-mode must be an octal mode such as 0660");
    }
    if (base > 0 && (o->base_path[0] != '/' || o->base_path[base - 1] == '/' ||
                     strspn(o->base_path, "/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != base)) {
        return refuse_option("--base-path must look like /prefix, without a slash at its end");
    }
    if (!parse_bytes(o->keep_bytes_text, &o->keep_bytes)) {
        return refuse_option("--keep-bytes must be a number of bytes such as 10G");
    }
    if (!parse_memory(o->memory_limit_text, &o->memory_limit)) {
        return refuse_option("--memory-limit must be a number of bytes such as 8G, a share of the machine's such as 50%, or 0 for none");
    }
    if (!batching_from(o->batching_text, &o->batching)) {
        return refuse_option("--batching must be continuous, request or single");
    }
    if (!log_format_from(o->log_format_text, &o->log_format)) {
        return refuse_option("--log-format must be text or json");
    }
    dn_error error;
    if (dn_precision_parse(&o->precision, o->precision_text, &error) != DN_OK) {
        return refuse_option(error.message);
    }
    o->device_fallback = o->device_fallback_text != NULL;
    if (o->device_fallback && strcmp(o->device_fallback_text, "cpu") != 0) {
        return refuse_option("--device-fallback must be cpu");
    }
    if (dn_device_names_check(o->device_text, &error) != DN_OK) {
        return refuse_option(error.message);
    }
    if (o->plan_cache == NULL) {
        snprintf(o->plan_cache_path, sizeof o->plan_cache_path, "%s/plans", o->data);
        o->plan_cache = o->plan_cache_path;
    }
    if (!parse_public_host(o)) {
        return refuse_option("--public-url must be http://HOST[:PORT] or https://HOST[:PORT]");
    }
    if (!listen_is_well_formed(o->listen)) {
        return refuse_option(LISTEN_FORM);
    }
    dn_error unguarded;
    if (serve_options_guarded(o, o->api_key_file[0] != '\0' || has_database(o), &unguarded) != DN_OK) {
        return refuse_option(unguarded.message);
    }
    for (uint32_t i = 0; i < o->webhook_list.count; i++) {
        o->webhook_allowed[i] = o->webhook_list.values[i];
    }
    if ((o->webhook_list.count > 0 || o->webhook_ca_file) && !o->webhook_secret_file) {
        return refuse_option("--webhook-allow and --webhook-ca-file need --webhook-secret-file FILE");
    }
    if (!take_origins(o)) {
        return refuse_option("--cors-origin must be an origin as browsers send it, such as https://app.example or http://localhost:3000");
    }
    unsigned hosts = 0;
    for (uint32_t i = 0; i < o->host_list.count; i++) {
        o->hosts[hosts++] = o->host_list.values[i];
    }
    if (o->public_host[0] != '\0') {
        o->hosts[hosts++] = o->public_host;
    }
    if (hosts == 0 && !listen_is_loopback(o->listen)) {
        o->hosts[hosts++] = "*";
    }
    return DN_OPTIONS_GO_ON;
}

int serve_options_parse(serve_options *o, int argc, char **argv)
{
    *o = (serve_options){.listen = "127.0.0.1:8080",
                         .data = "./data",
                         .base_path = "",
                         .public_url = "",
                         .api_key_file = "",
                         .keep_bytes_text = "10G",
                         .memory_limit_text = "0",
                         .socket_mode_text = "0660",
                         .log_format_text = "text",
                         .batching_text = "continuous",
                         .device_text = device_option_standard("auto"),
                         .keep_days = 7,
                         .streams_max = API_STREAMS_MAX,
                         .drain_seconds = 60.0,
                         .snapshot_every = 5.0,
                         .webhook_pause = 5.0,
                         .patience = 1.0};
    const dn_option table[] = {
        DN_TEXT_OPTION("listen", "ADDR:PORT|unix:PATH", o->listen, "where to listen (127.0.0.1:8080)"),
        DN_TEXT_OPTION("data", "DIR", o->data, "queue, images and snapshots (./data)"),
        DN_LIST_OPTION("model", "NAME=DIR", o->models, "repeat for more; the first is the default"),
        DN_COUNT_OPTION("threads", o->threads, 0, DN_THREADS_MAX, "of the worker (0: all)"),
        DN_COUNT_OPTION("rows-max", o->rows_max, 0, DN_BATCH_ROWS_MAX, "rows in one forward pass (0: measured)"),
        DN_TEXT_OPTION("memory-limit", "BYTES|N%", o->memory_limit_text, "all models in memory; the least used make room"),
        DN_FLAG_OPTION("preload", o->preload, "load every model at the start, not the first alone"),
        DN_TEXT_OPTION("device", "NAME", o->device_text, DN_DEVICE_HELP " (auto); cuda:0,cuda:1, all: a worker on each"),
        DN_TEXT_OPTION("device-fallback", "cpu", o->device_fallback_text, "while no GPU works, the CPU does, with other bytes"),
        DN_TEXT_OPTION("precision", "NAME", o->precision_text, DN_PRECISION_HELP),
        DN_FLAG_OPTION("fast", o->fast, DN_FAST_HELP),
        DN_TEXT_OPTION("plan-cache", "DIR", o->plan_cache, DN_PLAN_CACHE_HELP " (plans in --data)"),
        DN_FLAG_OPTION("vae-tiling", o->vae_tiling, "decode large latents in tiles: less memory, slightly other pictures"),
        DN_TEXT_OPTION("batching", "POLICY", o->batching_text, "who joins a batch: continuous; request, single to compare"),
        DN_TEXT_OPTION("api-key-file", "FILE", o->api_key_file, "lines NAME SECRET (see also denoised key)"),
        DN_FLAG_OPTION("insecure", o->insecure, "listen beyond loopback without keys"),
        DN_LIST_OPTION("allowed-host", "HOST", o->host_list, "a Host to answer besides loopback names; * for all"),
        DN_LIST_OPTION("cors-origin", "ORIGIN", o->cors_list, "pages that may use this daemon from elsewhere; repeat for more"),
        DN_TEXT_OPTION("public-url", "URL", o->public_url, "how clients reach it; its host is allowed"),
        DN_TEXT_OPTION("base-path", "/PREFIX", o->base_path, "in front of every path"),
        DN_COUNT_OPTION("keep-days", o->keep_days, 0, 3650, "images are deleted after so many days (7)"),
        DN_TEXT_OPTION("keep-bytes", "BYTES", o->keep_bytes_text, "and, oldest first, beyond so many bytes (10G)"),
        DN_COUNT_OPTION("streams-max", o->streams_max, 1, STREAMS_MOST, "event streams open at once (512); one client may have 100"),
        DN_NUMBER_OPTION("drain-seconds", o->drain_seconds, 0.0, 3600.0, "to finish what runs at SIGTERM (60)"),
        DN_NUMBER_OPTION("snapshot-every", o->snapshot_every, 0.01, 3600.0, "seconds between snapshots of a running image (5)"),
        DN_TEXT_OPTION("webhook-secret-file", "FILE", o->webhook_secret_file, "what webhooks are signed with; without it there are none"),
        DN_LIST_OPTION("webhook-allow", "HOST:PORT", o->webhook_list, "a receiver that need be neither public nor https; repeat for more"),
        DN_TEXT_OPTION("webhook-ca-file", "FILE", o->webhook_ca_file, "certificates that receivers are checked with (the system's)"),
        DN_NUMBER_OPTION("webhook-pause", o->webhook_pause, 0.01, 3600.0, "seconds before the second try; then five times as long (5)"),
        DN_NUMBER_OPTION("patience", o->patience, 0.01, 100.0, "times the 10 s of a slow head, 30 s of body and reader (1)"),
        DN_TEXT_OPTION("log-format", "FORM", o->log_format_text, "of the lines on standard error: text (the default), json"),
        DN_TEXT_OPTION("socket-mode", "MODE", o->socket_mode_text, "of a Unix socket (0660)"),
    };
    static const char *const brief[] = {"listen",       "data",      "model",        "threads",  "memory-limit", "preload",
                                        "device",       "precision", "api-key-file", "insecure", "public-url",   "base-path",
                                        "allowed-host", "keep-days", "keep-bytes",   NULL};
    const dn_command_line line = {.command = "serve",
                                  .operands = "",
                                  .summary = "Serves models over HTTP: a durable queue, a worker on each device.",
                                  .options = table,
                                  .option_count = sizeof table / sizeof table[0],
                                  .brief = brief};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    return status != DN_OPTIONS_GO_ON ? status : check_options(o);
}
