/* Listening sockets: TCP on one address, or a Unix socket with a mode. Every failure is one clear sentence. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/http.h"

#define LISTEN_BACKLOG 1024

/* Splits "host:port" or "[v6]:port". */
static bool split_address(const char *listen, char host[256], char port[6])
{
    const char *colon = strrchr(listen, ':');
    if (colon == NULL || colon == listen || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || atol(colon + 1) > 65535) {
        return false;
    }
    const char *first = listen;
    size_t length = (size_t)(colon - listen);
    if (*first == '[' && length > 2 && first[length - 1] == ']') {
        first++;
        length -= 2;
    } else if (memchr(first, ':', length) != NULL) {
        return false;
    }
    if (length == 0 || length > 255) {
        return false;
    }
    memcpy(host, first, length);
    host[length] = '\0';
    snprintf(port, 6, "%s", colon + 1);
    return true;
}

bool listen_is_loopback(const char *listen)
{
    char host[256], port[6];
    if (strncmp(listen, "unix:", 5) == 0) {
        return true;
    }
    struct in_addr address; /* numbers alone: a name may begin with 127 and mean anything */
    return split_address(listen, host, port) && (strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0 ||
                                                 (inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127));
}

bool listen_is_well_formed(const char *listen)
{
    char host[256], port[6];
    return strncmp(listen, "unix:", 5) == 0 || split_address(listen, host, port);
}

/* A socket file left by a killed daemon is removed; one that answers belongs to somebody. */
static dn_status open_unix(int *out, const char *path, unsigned mode, dn_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat info;
    if (strlen(path) == 0 || strlen(path) >= sizeof address.sun_path) {
        return dn_fail(error, DN_INVALID, "--listen unix:PATH: the path has 1 to %zu bytes", sizeof address.sun_path - 1);
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return dn_fail(error, DN_IO, "cannot make a socket: %s", strerror(errno));
    }
    if (stat(path, &info) == 0) {
        bool is_socket = S_ISSOCK(info.st_mode);
        bool answers = is_socket && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
        if (!is_socket || answers) {
            close(fd);
            return is_socket ? dn_fail(error, DN_IO, "cannot listen on %s: address in use", path)
                             : dn_fail(error, DN_INVALID, "cannot listen on %s: a file that is no socket is there", path);
        }
        unlink(path);
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || chmod(path, (mode_t)mode) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
        dn_status status = dn_fail(error, DN_INVALID, "cannot listen on %s: %s", path, strerror(errno));
        close(fd);
        return status;
    }
    *out = fd;
    return DN_OK;
}

static dn_status bind_first(int *out, const struct addrinfo *list, const char *listen_text, dn_error *error)
{
    int fd = -1, failure = EADDRNOTAVAIL;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        int one = 1;
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            failure = errno;
            continue;
        }
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0) {
            *out = fd;
            return DN_OK;
        }
        failure = errno;
        close(fd);
    }
    if (failure == EADDRINUSE) {
        return dn_fail(error, DN_IO, "cannot listen on %s: address in use; another program has this port, choose one with --listen",
                       listen_text);
    }
    return dn_fail(error, DN_INVALID, "cannot listen on %s: %s", listen_text, strerror(failure));
}

static dn_status open_tcp(int *out, char url[160], const char *listen_text, dn_error *error)
{
    char host[256], port[6];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (!split_address(listen_text, host, port)) {
        return dn_fail(error, DN_INVALID, LISTEN_FORM);
    }
    int found = getaddrinfo(host, port, &hints, &list);
    if (found != 0) {
        return dn_fail(error, DN_INVALID, "--listen %s: %s", listen_text, gai_strerror(found));
    }
    dn_status status = bind_first(out, list, listen_text, error);
    freeaddrinfo(list);
    if (status == DN_OK) {
        struct sockaddr_storage bound;
        socklen_t size = sizeof bound;
        char number[8] = "0";
        if (getsockname(*out, (struct sockaddr *)&bound, &size) == 0) {
            getnameinfo((struct sockaddr *)&bound, size, NULL, 0, number, sizeof number, NI_NUMERICSERV);
        }
        snprintf(url, 160, strchr(host, ':') != NULL ? "http://[%.120s]:%s" : "http://%.120s:%s", host, number);
    }
    return status;
}

dn_status listen_open(int *fd, char url[160], const char *listen_text, unsigned socket_mode, dn_error *error)
{
    if (strncmp(listen_text, "unix:", 5) == 0) {
        snprintf(url, 160, "%.150s", listen_text);
        return open_unix(fd, listen_text + 5, socket_mode, error);
    }
    return open_tcp(fd, url, listen_text, error);
}

void listen_close(int fd, const char *listen_text)
{
    if (fd < 0) {
        return; /* what lies at the path is somebody else's: another daemon's socket, or a file given by mistake */
    }
    close(fd);
    if (strncmp(listen_text, "unix:", 5) == 0) {
        unlink(listen_text + 5);
    }
}
