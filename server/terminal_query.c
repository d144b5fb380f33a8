/* Questions to a terminal (terminal.h), and their answers. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/terminal.h"

#define PATIENCE_SECONDS 1.0 /* for a terminal far away; most answer within milliseconds; $DENOISED_TERMINAL_WAIT */
#define ANSWER_BYTES_MAX 512

/* Kitty's graphics (a picture of one pixel that is only looked at), the size of a cell, and last what every terminal answers. */
static const char questions[] = "\033_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\033\\\033[16t\033[c";

/* Numbers of "a;b;c", at most `room`; how many there are. */
static size_t numbers(const char *at, const char *end, unsigned *out, size_t room)
{
    size_t count = 0;
    while (at < end && count < room) {
        char *after = NULL;
        out[count++] = (unsigned)strtoul(at, &after, 10);
        at = after > at ? after : at + 1;
        at += at < end && *at == ';';
    }
    return count;
}

bool terminal_query_parse(terminal_answers *out, const char *bytes, size_t count)
{
    char text[ANSWER_BYTES_MAX + 1];
    count = count < ANSWER_BYTES_MAX ? count : ANSWER_BYTES_MAX;
    memcpy(text, bytes, count);
    text[count] = '\0';
    if (strstr(text, "\033_Gi=31;OK") != NULL)
        out->kitty = true;
    for (const char *at = text; (at = strstr(at, "\033[")) != NULL; at++) {
        const char *first = at + 2 + (at[2] == '?'), *end = first + strspn(first, "0123456789;");
        unsigned values[32];
        const size_t got = numbers(first, end, values, 32);
        if (at[2] != '?' && *end == 't' && got == 3 && values[0] == 6 && values[1] > 0 && values[1] < 1000 && values[2] > 0 &&
            values[2] < 1000) {
            out->cell_height = values[1];
            out->cell_width = values[2];
        }
        if (at[2] != '?' || *end != 'c')
            continue;
        out->heard = true;
        for (size_t i = 1; i < got; i++) /* the first is the terminal's class */
            out->sixel |= values[i] == 4;
    }
    return out->heard;
}

/* The controlling terminal, if fd is the same one and we are in front of it. */
static int open_terminal(int fd)
{
    struct stat ours, its;
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (tty < 0)
        return -1;
    const char *name = ttyname(fd);
    if (name != NULL && stat(name, &ours) == 0 && fstat(fd, &its) == 0 && ours.st_rdev == its.st_rdev && tcgetpgrp(tty) == getpgrp() &&
        tcgetsid(fd) == getsid(0))
        return tty;
    close(tty);
    return -1;
}

/* Seconds to wait; 0: not to be asked. */
static double patience(void)
{
    const char *text = getenv("DENOISED_TERMINAL_WAIT");
    char *end = NULL;
    double seconds = text != NULL ? strtod(text, &end) : PATIENCE_SECONDS;
    return text == NULL || (end != text && *end == '\0' && seconds >= 0.0 && seconds <= 3600.0) ? seconds : PATIENCE_SECONDS;
}

/* What has been typed is for whoever reads next, and not to be taken for an answer. */
static bool typed_ahead(int tty)
{
    struct pollfd readable = {.fd = tty, .events = POLLIN};
    return poll(&readable, 1, 0) != 0;
}

static void converse(int tty, double seconds, terminal_answers *out)
{
    char bytes[ANSWER_BYTES_MAX];
    size_t count = 0;
    const double until = dn_now_seconds() + seconds;
    if (write(tty, questions, sizeof questions - 1) != (ssize_t)sizeof questions - 1)
        return;
    for (double left; (left = until - dn_now_seconds()) > 0 && count < sizeof bytes;) {
        struct pollfd readable = {.fd = tty, .events = POLLIN};
        if (poll(&readable, 1, (int)(left * 1000) + 1) != 1)
            return;
        ssize_t got = read(tty, bytes + count, sizeof bytes - count);
        if (got <= 0)
            return;
        count += (size_t)got;
        if (terminal_query_parse(out, bytes, count))
            return;
    }
}

terminal_answers terminal_query(int fd)
{
    terminal_answers answers = {0};
    struct termios before, quiet;
    const double seconds = patience();
    int tty = seconds > 0.0 ? open_terminal(fd) : -1;
    if (tty < 0)
        return answers;
    if (tcgetattr(tty, &before) == 0) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)(ICANON | ECHO); /* Ctrl-C still interrupts */
        quiet.c_cc[VMIN] = 0;
        quiet.c_cc[VTIME] = 0;
        if (tcsetattr(tty, TCSANOW, &quiet) == 0) {
            if (!typed_ahead(tty))
                converse(tty, seconds, &answers);
            tcsetattr(tty, TCSANOW, &before);
        }
    }
    close(tty);
    return answers;
}
