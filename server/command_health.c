/* denoised health: asks a running daemon whether it lives (or, with --ready, whether it can work), for health checks of
 * containers and service managers. Speaks just enough HTTP for one GET. Exit 0: yes; 1: no. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/commands.h"
#include "server/options.h"

#define HEALTH_SECONDS 2

static int connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        return -1;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* url: http://HOST:PORT[/prefix]; the prefix goes to *prefix. */
static int connect_url(const char *url, const char **prefix)
{
    char host[256] = "", port[6] = "80";
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int fd = -1;
    if (sscanf(url, "http://[%255[^]]]:%5[0-9]", host, port) < 1 && sscanf(url, "http://%255[^:/]:%5[0-9]", host, port) < 1) {
        errno = EINVAL;
        return -1;
    }
    const char *slash = strchr(url + 7, '/');
    *prefix = slash != NULL ? slash : "";
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        errno = EHOSTUNREACH;
        return -1;
    }
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    return fd;
}

/* One GET; the status, or -1. */
static int get_status(int fd, const char *prefix, const char *path)
{
    char text[512];
    struct timeval limit = {.tv_sec = HEALTH_SECONDS};
    int status = -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    int length = snprintf(text, sizeof text, "GET %.200s%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", prefix, path);
    if (send(fd, text, (size_t)length, MSG_NOSIGNAL) != length) {
        return -1;
    }
    ssize_t got = recv(fd, text, sizeof text - 1, MSG_WAITALL);
    text[got > 0 ? got : 0] = '\0';
    return sscanf(text, "HTTP/1.%*c %3d", &status) == 1 ? status : -1;
}

int dn_command_health(int argc, char **argv)
{
    const char *url = "http://127.0.0.1:8080", *socket_path = "", *prefix = "";
    bool ready = false;
    const dn_option options[] = {
        DN_FLAG_OPTION("ready", ready, "ask whether it can work now, not only whether it lives"),
        DN_TEXT_OPTION("url", "URL", url, "of the daemon (http://127.0.0.1:8080)"),
        DN_TEXT_OPTION("socket", "PATH", socket_path, "its Unix socket instead"),
    };
    const dn_command_line line = {.command = "health",
                                  .operands = "",
                                  .summary = "Exits 0 when the daemon is well, 1 when it is not.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0]};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON) {
        return status;
    }
    int fd = socket_path[0] != '\0' ? connect_unix(socket_path) : connect_url(url, &prefix);
    if (fd < 0) {
        fprintf(stderr, "denoised health: cannot reach %s: %s\n", socket_path[0] != '\0' ? socket_path : url, strerror(errno));
        return DN_EXIT_FAILED;
    }
    int answer = get_status(fd, prefix, ready ? "/readyz" : "/healthz");
    close(fd);
    if (answer != 200) {
        fprintf(stderr, "denoised health: answered %d\n", answer);
        return DN_EXIT_FAILED;
    }
    return DN_EXIT_OK;
}
