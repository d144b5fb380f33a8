/* The HTTP server's end: what a handler waits for without a time limit is waited for by http_stop too, and nothing new begins. And that a
 * client which leaves is noticed while its request sleeps. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/http.h"
#include "tests/test.h"

static char socket_path[64], listen_text[80];
static atomic_bool answered, began, noticed;
static atomic_int calls, early_calls;
static pthread_t helper;

/* Stands for the store: answers after a while, whatever the server does meanwhile. */
static void *answer_later(void *payload)
{
    usleep(300000);
    atomic_store(&answered, true);
    http_resume(payload);
    return NULL;
}

static void nothing_to_free(void *state)
{
    (void)state;
}

static void say_hello(http_request *request)
{
    http_answer_empty(request, 204);
}

static void write_something(http_request *request)
{
    atomic_fetch_add(&calls, 1);
    if (request->state == NULL) {
        request->state = request;
        request->state_free = nothing_to_free;
        http_suspend(request, -1.0);
        atomic_store(&began, true);
        pthread_create(&helper, NULL, answer_later, request);
        return;
    }
    if (!atomic_load(&answered)) {
        atomic_fetch_add(&early_calls, 1);
    }
    http_answer_empty(request, 204);
}

static void wait_long(http_request *request)
{
    if (request->state == NULL) {
        request->state = request;
        request->state_free = nothing_to_free;
        http_suspend(request, 60.0);
        atomic_store(&began, true);
        return;
    }
    atomic_store(&noticed, atomic_load(&request->gone));
    http_answer_empty(request, 204);
}

static const http_route routes[] = {
    {"GET", "/write", write_something, 0, true}, {"GET", "/wait", wait_long, 0, true}, {"GET", "/hello", say_hello, 0, true}, {0}};

static bool start(http **server, dn_error *error)
{
    snprintf(socket_path, sizeof socket_path, "/tmp/dn-http-%d", (int)getpid());
    snprintf(listen_text, sizeof listen_text, "unix:%s", socket_path);
    atomic_store(&answered, false);
    atomic_store(&began, false);
    atomic_store(&noticed, false);
    atomic_store(&calls, 0);
    atomic_store(&early_calls, 0);
    const http_options options = {.listen = listen_text, .socket_mode = 0600, .base_path = "", .routes = routes, .threads = 3};
    return http_start(server, &options, error) == DN_OK;
}

/* Asks for a path; returns the connection once a handler has begun to wait, or -1. */
static int ask(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    char text[128];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0 || send(fd, text, (size_t)length, 0) != length) {
        return -1;
    }
    for (int i = 0; i < 60000 && !atomic_load(&began); i++) {
        usleep(1000);
    }
    return fd;
}

static void a_stop_waits_for_what_always_answers(void)
{
    http *server = NULL;
    dn_error error;
    CHECK_MSG(start(&server, &error), "%s", error.message);
    int fd = ask("/write");
    CHECK(fd >= 0 && atomic_load(&began));
    http_stop(server);
    CHECK_MSG(atomic_load(&answered), "the server was gone before the answer came");
    CHECK_MSG(atomic_load(&early_calls) == 0, "the handler was called again before the answer came");
    CHECK(atomic_load(&calls) == 2);
    pthread_join(helper, NULL);
    close(fd);
}

static void a_stop_wakes_what_waits_with_a_limit(void)
{
    http *server = NULL;
    dn_error error;
    CHECK_MSG(start(&server, &error), "%s", error.message);
    int fd = ask("/wait");
    CHECK(fd >= 0 && atomic_load(&began));
    http_stop(server);
    close(fd);
    CHECK(access(socket_path, F_OK) != 0);
}

static void a_client_that_leaves_wakes_what_waits(void)
{
    http *server = NULL;
    dn_error error;
    CHECK_MSG(start(&server, &error), "%s", error.message);
    int stays = ask("/wait");
    atomic_store(&began, false);
    int leaves = ask("/wait");
    CHECK(stays >= 0 && leaves >= 0 && atomic_load(&began));
    close(leaves);
    for (int i = 0; i < 60000 && !atomic_load(&noticed); i++) {
        usleep(1000);
    }
    CHECK_MSG(atomic_load(&noticed), "nobody noticed that the client left");
    char byte;
    CHECK_MSG(recv(stays, &byte, 1, MSG_DONTWAIT) < 0, "the other client was answered too");
    http_stop(server);
    close(stays);
}

/* Asks again and again, on a new connection each time, whether a server is there or not. */
static void *connect_for_ever(void *payload)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    static const char text[] = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    while (!atomic_load((atomic_bool *)payload)) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char answer[512];
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && send(fd, text, sizeof text - 1, MSG_NOSIGNAL) > 0 &&
            recv(fd, answer, sizeof answer, 0) > 0) {
            atomic_fetch_add(&calls, 1);
        } else {
            usleep(100);
        }
        close(fd);
    }
    return NULL;
}

/* libmicrohttpd ended the process at one of a thousand such stops, when it was it that accepted. */
static void a_stop_while_clients_connect_ends_nothing_but_the_server(void)
{
    enum { STOPS = 300, CLIENTS = 3 };
    pthread_t clients[CLIENTS];
    static atomic_bool over;
    dn_error error;
    http *server = NULL;
    CHECK_MSG(start(&server, &error), "%s", error.message);
    for (int i = 0; i < CLIENTS; i++) {
        CHECK(pthread_create(&clients[i], NULL, connect_for_ever, &over) == 0);
    }
    for (int i = 0; i < 60000 && atomic_load(&calls) == 0; i++) {
        usleep(1000);
    }
    CHECK_MSG(atomic_load(&calls) > 0, "no client was answered");
    for (int i = 0; i < STOPS; i++) {
        http_stop(server);
        CHECK_MSG(start(&server, &error), "%s", error.message);
        usleep((unsigned)i % 4 * 500);
    }
    http_stop(server);
    atomic_store(&over, true);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i], NULL);
    }
}

int main(void)
{
    RUN(a_stop_waits_for_what_always_answers);
    RUN(a_stop_wakes_what_waits_with_a_limit);
    RUN(a_client_that_leaves_wakes_what_waits);
    RUN(a_stop_while_clients_connect_ends_nothing_but_the_server);
    return test_end();
}
