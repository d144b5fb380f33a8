/* Events, socket pairs, poll, random bytes, and the one process that the daemon starts. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/sim/sim.h"
#include "tests/sim/wrapped.h"

static size_t socket_bytes;
static int inherited; /* what the next process gets as its socket */

void sim_socket_limit(size_t bytes)
{
    socket_bytes = bytes;
}

static int fail(int code)
{
    errno = code;
    return -1;
}

int __wrap_eventfd(unsigned count, int flags)
{
    (void)count, (void)flags;
    return sim_fd_open(FD_EVENT);
}

int __wrap_eventfd_write(int fd, eventfd_t value)
{
    sim_fd *f = sim_fd_at(fd);
    if (!f) { /* written to after it was closed: by a thread that outlived its owner */
        sim_wrong("an event is written to that is closed");
        return fail(EBADF);
    }
    f->events += value;
    sim_maybe_yield(30);
    return 0;
}

int __wrap_eventfd_read(int fd, eventfd_t *out)
{
    sim_fd *f = sim_fd_at(fd);
    *out = f->events;
    f->events = 0;
    return *out ? 0 : fail(EAGAIN);
}

int __wrap_socketpair(int domain, int type, int protocol, int out[2])
{
    (void)domain, (void)type, (void)protocol;
    out[0] = sim_fd_open(FD_SOCKET);
    out[1] = sim_fd_open(FD_SOCKET);
    if (out[0] < 0 || out[1] < 0)
        return fail(EMFILE);
    sim_fd_at(out[0])->peer = out[1];
    sim_fd_at(out[1])->peer = out[0];
    return 0;
}

ssize_t __wrap_send(int fd, const void *bytes, size_t count, int flags)
{
    (void)flags;
    sim_fd *f = sim_fd_at(fd), *peer = f ? sim_fd_at(f->peer) : NULL;
    if (!peer)
        return fail(EPIPE);
    const size_t room = peer->in_count < socket_bytes ? socket_bytes - peer->in_count : 0;
    if (!room)
        return fail(EAGAIN);
    size_t sent = count < room ? count : room;
    if (sent > 1 && sim_chance(20))
        sent = 1 + sim_below((uint32_t)sent - 1);
    if (peer->in_start + peer->in_count + sent > peer->in_room) {
        memmove(peer->in, peer->in + peer->in_start, peer->in_count);
        peer->in_start = 0;
        const size_t wanted = peer->in_count + sent;
        if (wanted > peer->in_room) {
            peer->in_room = wanted * 2;
            peer->in = realloc(peer->in, peer->in_room);
            if (!peer->in)
                abort();
        }
    }
    memcpy(peer->in + peer->in_start + peer->in_count, bytes, sent);
    peer->in_count += sent;
    sim_trace_bytes(bytes, sent);
    sim_maybe_yield(20);
    return (ssize_t)sent;
}

ssize_t __wrap_recv(int fd, void *out, size_t count, int flags)
{
    (void)flags;
    sim_fd *f = sim_fd_at(fd);
    if (!f)
        return fail(EBADF);
    if (!f->in_count)
        return sim_fd_at(f->peer) ? fail(EAGAIN) : 0;
    size_t got = f->in_count < count ? f->in_count : count;
    if (got > 1 && sim_chance(20))
        got = 1 + sim_below((uint32_t)got - 1);
    memcpy(out, f->in + f->in_start, got);
    f->in_start += got;
    f->in_count -= got;
    if (!f->in_count)
        f->in_start = 0;
    return (ssize_t)got;
}

/* ---- poll */

static short happened(int fd, short asked)
{
    const sim_fd *f = sim_fd_at(fd);
    if (!f)
        return fd < 0 ? 0 : POLLNVAL;
    short out = 0;
    if (f->kind == FD_EVENT && f->events)
        out |= POLLIN;
    if (f->kind == FD_PROCESS && !sim_worker_alive((int)f->offset))
        out |= POLLIN;
    if (f->kind == FD_SOCKET) {
        const sim_fd *peer = sim_fd_at(f->peer);
        out |= f->in_count || !peer ? POLLIN : 0;
        out |= !peer || peer->in_count < socket_bytes ? POLLOUT : 0;
        out |= !peer ? POLLHUP : 0;
    }
    return out & (asked | POLLHUP);
}

typedef struct polled {
    struct pollfd *asked;
    nfds_t count;
} polled;

static bool any_happened(void *payload)
{
    polled *p = payload;
    for (nfds_t i = 0; i < p->count; i++)
        if (happened(p->asked[i].fd, p->asked[i].events))
            return true;
    return false;
}

int __wrap_poll(struct pollfd *asked, nfds_t count, int timeout_ms)
{
    polled p = {asked, count};
    int found = 0;
    if (timeout_ms)
        sim_wait(any_happened, &p, timeout_ms < 0 ? 1e300 : sim_now() + 1e-3 * timeout_ms);
    for (nfds_t i = 0; i < count; i++) {
        asked[i].revents = happened(asked[i].fd, asked[i].events);
        found += asked[i].revents != 0;
    }
    return found;
}

ssize_t __wrap_getrandom(void *out, size_t count, unsigned flags)
{
    (void)flags;
    unsigned char *to = out;
    for (size_t i = 0; i < count; i++)
        to[i] = (unsigned char)sim_random();
    return (ssize_t)count;
}

/* ---- The process */

int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as)
{
    (void)actions, (void)as;
    inherited = fd;
    return 0;
}

int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const arguments[], char *const environment[])
{
    (void)path, (void)actions, (void)attributes, (void)environment;
    unsigned slot = 0;
    for (size_t i = 0; arguments[i] && arguments[i + 1]; i++)
        if (strcmp(arguments[i], "--device") == 0 && strncmp(arguments[i + 1], "sim:", 4) == 0)
            slot = (unsigned)(arguments[i + 1][4] - '0');
    *pid = sim_worker_start(inherited, slot);
    return *pid < 0 ? EAGAIN : 0;
}

int __wrap_pidfd_open(pid_t pid, unsigned flags)
{
    (void)flags;
    const int fd = sim_fd_open(FD_PROCESS);
    if (fd >= 0)
        sim_fd_at(fd)->offset = (uint64_t)pid;
    return fd;
}

int __wrap_kill(pid_t pid, int number)
{
    if (number == SIGKILL)
        sim_worker_kill(pid);
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
    (void)options;
    if (status)
        *status = sim_worker_status(pid);
    return pid;
}
