/* See device_probe.h. What goes over the pipe: a line "device NAME" for each, then perhaps "why TEXT"; or one line "refused STATUS TEXT". */
#include "server/device_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/options.h"

#define ANSWER_BYTES 2048
#define ANSWER_SECONDS 120.0 /* of a driver that comes up slowly; one that hangs is not waited for */

/* ---- The process */

static dn_status look(device_probe *out, const char *names, dn_precision precision, dn_error *error)
{
    dn_device_choice choices[DN_DEVICES_MAX];
    dn_device *device = NULL;
    dn_status status = dn_device_choose_all(choices, &out->count, names, out->why, sizeof out->why, error);
    for (uint32_t i = 0; status == DN_OK && i < out->count; i++) {
        const dn_device_options options = {.threads = 1, .index = choices[i].index};
        memcpy(out->names[i], choices[i].name, sizeof out->names[i]);
        status = choices[i].backend->device_open(&device, &options, error);
        if (status != DN_OK)
            break;
        if (precision != DN_PRECISION_AUTO)
            status = choices[i].backend->precision_check(device, precision, error);
        choices[i].backend->device_close(device);
    }
    return status;
}

/* Its text becomes one line. */
static void print_line(const char *what, const char *text)
{
    printf("%s ", what);
    for (; *text != '\0'; text++)
        putchar(*text == '\n' ? ' ' : *text);
    putchar('\n');
}

int device_probe_main(const char *names, const char *precision)
{
    device_probe found = {.count = 0};
    dn_precision wanted;
    dn_error error = {.status = DN_OK, .message = ""};
    dn_status status = dn_precision_parse(&wanted, precision, &error);
    if (status == DN_OK)
        status = look(&found, names, wanted, &error);
    if (status != DN_OK) {
        char what[32];
        snprintf(what, sizeof what, "refused %d", (int)status);
        print_line(what, error.message);
        return DN_EXIT_OK;
    }
    for (uint32_t i = 0; i < found.count; i++)
        print_line("device", found.names[i]);
    if (found.why[0] != '\0')
        print_line("why", found.why);
    return DN_EXIT_OK;
}

/* ---- The daemon */

static int spawn_process(pid_t *pid, const char *names, const char *precision, int answer)
{
    char program[] = "/proc/self/exe", command[] = "worker", flag[] = "--probe";
    char *const arguments[] = {program, command, flag, (char *)names, (char *)precision, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigmask(&attributes, &none);
    int failed = posix_spawn_file_actions_adddup2(&actions, answer, STDOUT_FILENO);
    if (failed == 0)
        failed = posix_spawn(pid, program, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* All that it prints, until it ends or its time is up. False: it has not ended. */
static bool read_answer(int fd, char *out, size_t room)
{
    const double until = dn_now_seconds() + ANSWER_SECONDS;
    size_t used = 0;
    ssize_t count = 1;
    for (double left = ANSWER_SECONDS; left > 0.0 && count != 0 && used + 1 < room; left = until - dn_now_seconds()) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (poll(&waiting, 1, (int)(1e3 * left) + 1) <= 0)
            continue;
        count = read(fd, out + used, room - used - 1);
        used += count > 0 ? (size_t)count : 0;
    }
    out[used] = '\0';
    return count == 0;
}

static dn_status parse_answer(device_probe *out, char *answer, dn_error *error)
{
    char *rest = NULL;
    for (char *line = strtok_r(answer, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *text = NULL;
        if (strncmp(line, "refused ", 8) == 0) {
            long status = strtol(line + 8, &text, 10);
            return dn_fail(error, (dn_status)status, "%s", text + strspn(text, " "));
        }
        if (strncmp(line, "device ", 7) == 0 && out->count < DN_DEVICES_MAX)
            snprintf(out->names[out->count++], sizeof out->names[0], "%.15s", line + 7);
        else if (strncmp(line, "why ", 4) == 0)
            snprintf(out->why, sizeof out->why, "%s", line + 4);
    }
    return out->count > 0 ? DN_OK
                          : dn_fail(error, DN_UNSUPPORTED, "the process that looked for devices ended without a word: try --device cpu");
}

static dn_status ask_process(device_probe *out, const char *names, const char *precision, dn_error *error)
{
    char answer[ANSWER_BYTES];
    int ends[2] = {-1, -1}, status;
    pid_t pid = -1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return dn_fail(error, DN_IO, "no pipe to look for devices: %s", strerror(errno));
    int failed = spawn_process(&pid, names, precision, ends[1]);
    close(ends[1]);
    bool ended = failed == 0 && read_answer(ends[0], answer, sizeof answer);
    close(ends[0]);
    if (failed != 0)
        return dn_fail(error, DN_IO, "cannot start a process to look for devices: %s", strerror(failed));
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return ended ? parse_answer(out, answer, error)
                 : dn_fail(error, DN_UNSUPPORTED, "the GPU's driver does not answer: look at nvidia-smi, or try --device cpu");
}

dn_status device_probe_ask(device_probe *out, const char *names, dn_precision precision, dn_error *error)
{
    *out = (device_probe){.count = 0};
    dn_status status = dn_device_names_check(names, error);
    if (status != DN_OK)
        return status;
    bool cpu = strcmp(names, "cpu") == 0 || (strcmp(names, "auto") == 0 && !dn_device_may_be_gpu());
    return cpu ? look(out, "cpu", precision, error) : ask_process(out, names, dn_precision_name(precision), error);
}
