/* `denoised worker`: the process that computes. Started by the daemon, never by hand: without its socket it has nothing to do. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "server/commands.h"
#include "server/device_option.h"
#include "server/device_probe.h"
#include "server/log.h"
#include "server/options.h"
#include "server/picture_hash.h"
#include "server/worker.h"

/* Splits NAME=DIR where it stands, in argv, which lives as long as the process. */
static int add_models(worker_options *options, const dn_option_list *models)
{
    for (uint32_t i = 0; i < models->count; i++) {
        char *name = (char *)models->values[i], *folder = strchr(name, '=');
        if (!folder || folder == name) {
            fprintf(stderr, "denoised worker: --model wants NAME=DIR\n");
            return DN_EXIT_USAGE;
        }
        *folder++ = 0;
        options->models[options->model_count].name = name;
        options->models[options->model_count++].folder = folder;
    }
    return DN_OPTIONS_GO_ON;
}

/* Ends with the daemon whatever becomes of it; gives up what it never needs; is deaf to the terminal and to a service manager's signal to
 * the whole group, because the daemon lets it finish first. */
static void isolate(uint64_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (parent && (uint64_t)getppid() != parent)
        _exit(DN_EXIT_UNAVAILABLE);
    worker_confine();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

int worker_prepare(worker_options *options, int argc, char **argv)
{
    uint64_t fd = 3, parent = 0, threads = 0, rows_max = 0, memory_limit = 0, preload = 0, vae_tiling = 0, fast = 0;
    double snapshot_every = 5;
    const char *inputs = NULL, *policy = "continuous", *precision = NULL, *form = "text", *device = NULL, *plan_cache = NULL;
    dn_option_list models = {0};
    const dn_option table[] = {
        DN_COUNT_OPTION("fd", fd, 3, 1000000, "descriptor of the socket to the daemon (3)"),
        DN_COUNT_OPTION("parent", parent, 0, 1u << 30, "process id of the daemon; 0: any"),
        DN_COUNT_OPTION("threads", threads, 0, DN_THREADS_MAX, "threads; 0: all available"),
        DN_COUNT_OPTION("rows-max", rows_max, 0, DN_BATCH_ROWS_MAX, "rows of a tick; 0: measured"),
        DN_NUMBER_OPTION("snapshot-every", snapshot_every, 0, 86400, "seconds between snapshots of an image (5)"),
        DN_COUNT_OPTION("memory-limit", memory_limit, 0, UINT64_MAX, "bytes of all models in memory; 0: no limit"),
        DN_COUNT_OPTION("preload", preload, 0, 1, "1: every model is loaded at the start, 0: the first"),
        DN_COUNT_OPTION("vae-tiling", vae_tiling, 0, 1, "1: large latents are decoded in tiles"),
        DN_TEXT_OPTION("device", "NAME", device, "cpu (the default), cuda:N"),
        DN_COUNT_OPTION("fast", fast, 0, 1, "1: a GPU's fastest configurations, though bytes may depend on the batch"),
        DN_TEXT_OPTION("batching", "POLICY", policy, "when images enter a batch: continuous, request, single"),
        DN_TEXT_OPTION("plan-cache", "DIR", plan_cache, DN_PLAN_CACHE_HELP),
        DN_TEXT_OPTION("precision", "NAME", precision, DN_PRECISION_HELP),
        DN_TEXT_OPTION("log-format", "FORM", form, "of its lines: text, json"),
        DN_TEXT_OPTION("inputs", "DIR", inputs, "pictures that came with requests"),
        DN_LIST_OPTION("model", "NAME=DIR", models, "a model; the first is loaded at the start"),
    };
    const dn_command_line line = {.command = "worker",
                                  .operands = "",
                                  .summary = "Computes for a daemon that started it.",
                                  .options = table,
                                  .option_count = sizeof table / sizeof table[0]};
    char **operands;
    int operand_count;
    const int outcome = dn_options_parse(&line, argc, argv, &operands, &operand_count);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    isolate(parent);
    const int flags = fcntl((int)fd, F_GETFL);
    if (flags < 0 || fcntl((int)fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0) {
        fprintf(stderr, "denoised worker: descriptor %d is not open: a worker is started by `denoised serve`\n", (int)fd);
        return DN_EXIT_USAGE;
    }
    *options = (worker_options){.fd = (int)fd,
                                .threads = (unsigned)threads,
                                .rows_max = rows_max == 1 ? 2 : (unsigned)rows_max,
                                .snapshot_every_seconds = snapshot_every,
                                .memory_limit = memory_limit,
                                .inputs = inputs,
                                .preload = preload != 0,
                                .vae_tiling = vae_tiling != 0,
                                .device = device,
                                .fast = fast != 0,
                                .plan_cache = plan_cache && plan_cache[0] ? plan_cache : NULL};
    dn_error error;
    if (dn_precision_parse(&options->precision, precision, &error) != DN_OK) {
        fprintf(stderr, "denoised worker: %s\n", error.message);
        return DN_EXIT_USAGE;
    }
    if (!batching_from(policy, &options->batching)) {
        fprintf(stderr, "denoised worker: --batching must be continuous, request or single\n");
        return DN_EXIT_USAGE;
    }
    log_format format;
    if (!log_format_from(form, &format)) {
        fprintf(stderr, "denoised worker: --log-format must be text or json\n");
        return DN_EXIT_USAGE;
    }
    log_set_format(format);
    return add_models(options, &models);
}

int dn_command_worker(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--picture") == 0)
        return picture_hash_main(argv[2]);
    if (argc == 4 && strcmp(argv[1], "--probe") == 0)
        return device_probe_main(argv[2], argv[3]);
    worker_options options;
    const int outcome = worker_prepare(&options, argc, argv);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    dn_error error;
    if (worker_run(&options, &error) == DN_OK)
        return DN_EXIT_OK;
    return dn_exit_status(error.status);
}
