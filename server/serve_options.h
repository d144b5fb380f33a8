/* The options of `denoised serve`, checked: what the daemon is told, and nothing of how it does it. */
#ifndef SERVER_SERVE_OPTIONS_H
#define SERVER_SERVE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/precision.h"
#include "server/batching.h"
#include "server/log.h"
#include "server/options.h"

typedef struct serve_options {
    const char *listen, *data, *base_path, *public_url, *api_key_file, *keep_bytes_text, *memory_limit_text, *socket_mode_text;
    const char *batching_text, *log_format_text;
    const char *webhook_secret_file, *webhook_ca_file; /* NULL: none */
    dn_option_list models, host_list, webhook_list, cors_list;
    uint64_t threads, keep_days, rows_max, streams_max;
    double drain_seconds, snapshot_every, webhook_pause, patience;
    bool device_fallback; /* to the CPU */
    bool insecure, preload, vae_tiling;
    const char *precision_text; /* NULL: auto */
    const char *device_text; /* a name, a list, "all" */
    const char *device_fallback_text; /* NULL: none */
    const char *plan_cache; /* GPUs: folder of plans that were found */
    bool fast;
    /* Made from them by serve_options_parse: */
    const char *hosts[DN_OPTION_LIST_MAX + 2]; /* NULL-terminated */
    const char *webhook_allowed[DN_OPTION_LIST_MAX + 1]; /* NULL-terminated */
    const char *cors_origins[DN_OPTION_LIST_MAX + 1]; /* NULL-terminated */
    char public_host[256];
    char plan_cache_path[4096];
    uint64_t keep_bytes, memory_limit;
    dn_precision precision;
    unsigned socket_mode;
    batching batching;
    log_format log_format;
} serve_options;

/* DN_OPTIONS_GO_ON, or the exit status: help was printed, or what is wrong. */
int serve_options_parse(serve_options *out, int argc, char **argv);
/* Nobody beyond this machine may come in without a key, unless --insecure: DN_INVALID with what to do. */
dn_status serve_options_guarded(const serve_options *o, bool keys, dn_error *error);
/* Pages of every site may not be let in where there are keys: DN_INVALID with what to do. */
dn_status serve_options_pages(const serve_options *o, bool keys, dn_error *error);

#endif
