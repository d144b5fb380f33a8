/* What fault points do in `denoised-faults` (fault.h); no part of the program. Invariant: the table is filled once, before the first
 * point is passed, and only its counters change afterwards. */
#include "server/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FAULTS_MAX = 16, NAME_BYTES = 48, FIRED_BYTES_MAX = 65536, EXIT_STATUS = 70 };

typedef enum fault_action { FAULT_KILL, FAULT_STOP, FAULT_EXIT, FAULT_SLOW } fault_action;

typedef struct fault {
    char name[NAME_BYTES];
    unsigned long count;
    fault_action action;
    long slow_ms;
    atomic_ulong passed;
} fault;

static fault faults[FAULTS_MAX];
static size_t fault_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void refuse(const char *text)
{
    fprintf(stderr, "denoised-faults: DENOISED_FAULT wants NAME:COUNT[:ACTION][,...], not %s\n", text);
    _exit(64);
}

static void parse_action(fault *f, const char *word, const char *text)
{
    if (strcmp(word, "kill") == 0)
        f->action = FAULT_KILL;
    else if (strcmp(word, "stop") == 0)
        f->action = FAULT_STOP;
    else if (strcmp(word, "exit") == 0)
        f->action = FAULT_EXIT;
    else if (strncmp(word, "slow", 4) == 0 && (f->slow_ms = strtol(word + 4, NULL, 10)) > 0)
        f->action = FAULT_SLOW;
    else
        refuse(text);
}

/* Whether the name is a line of the file of those that have fired. */
static bool has_fired(const char *fired, const char *name)
{
    const size_t length = strlen(name);
    for (const char *line = fired; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, name, length) == 0 && (line[length] == '\n' || !line[length]))
            return true;
    return false;
}

static void parse_one(char *item, const char *text, const char *fired)
{
    char *rest = NULL, *end = NULL;
    fault *f = &faults[fault_count];
    const char *name = strtok_r(item, ":", &rest), *count = strtok_r(NULL, ":", &rest), *action = strtok_r(NULL, ":", &rest);
    if (fault_count == FAULTS_MAX || !name || !count || strlen(name) >= NAME_BYTES) {
        refuse(text);
        return;
    }
    snprintf(f->name, sizeof f->name, "%s", name);
    f->count = strtoul(count, &end, 10);
    if (*end || !f->count)
        refuse(text);
    parse_action(f, action ? action : "kill", text);
    fault_count += f->action == FAULT_SLOW || !has_fired(fired, f->name);
}

static void read_fired(char *out, size_t room)
{
    const char *path = getenv("DENOISED_FAULT_FIRED");
    const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    const ssize_t got = fd >= 0 ? read(fd, out, room - 1) : 0;
    out[got > 0 ? got : 0] = 0;
    if (fd >= 0)
        close(fd);
}

static void arm(void)
{
    static char fired[FIRED_BYTES_MAX];
    const char *text = getenv("DENOISED_FAULT");
    char *copy = text ? strdup(text) : NULL, *rest = NULL;
    if (!copy)
        return;
    read_fired(fired, sizeof fired);
    for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest))
        parse_one(item, text, fired);
    free(copy);
}

static void say_fired(const char *name)
{
    const char *path = getenv("DENOISED_FAULT_FIRED");
    const int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    char line[NAME_BYTES + 2];
    const int length = snprintf(line, sizeof line, "%s\n", name);
    if (write(fd, line, (size_t)length) != length)
        fprintf(stderr, "denoised-faults: %s: %s\n", path, strerror(errno));
    close(fd);
}

static void sleep_ms(long ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&pause, NULL);
}

static void pass(fault *f)
{
    const unsigned long passed = atomic_fetch_add(&f->passed, 1) + 1;
    if (f->action == FAULT_SLOW && passed >= f->count)
        sleep_ms(f->slow_ms);
    if (f->action == FAULT_SLOW || passed != f->count)
        return;
    say_fired(f->name);
    if (f->action == FAULT_KILL)
        kill(getpid(), SIGKILL);
    else if (f->action == FAULT_STOP)
        kill(getpid(), SIGSTOP);
    else if (f->action == FAULT_EXIT)
        _exit(EXIT_STATUS);
}

void fault_point(const char *name)
{
    const int saved = errno;
    pthread_once(&once, arm);
    for (size_t i = 0; i < fault_count; i++)
        if (strcmp(faults[i].name, name) == 0)
            pass(&faults[i]);
    errno = saved;
}
