/* A pipe or terminal is opened anew, so that the flag is ours alone and not that of everybody who has it; where that is refused (it is
 * another user's), the flag is set on the one that is shared. A socket, which a journal gives, has a time-out instead: the shortest. */
#include "server/log_sink.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static void open_anew(void)
{
    const int own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) {
        dup2(own, STDERR_FILENO);
        close(own);
        return;
    }
    const int flags = fcntl(STDERR_FILENO, F_GETFL);
    if (flags >= 0)
        fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK);
}

void log_never_blocks(void)
{
    struct stat info;
    if (fstat(STDERR_FILENO, &info) != 0)
        return;
    if (S_ISFIFO(info.st_mode) || isatty(STDERR_FILENO)) {
        open_anew();
    } else if (S_ISSOCK(info.st_mode)) {
        const struct timeval shortest = {.tv_usec = 1};
        setsockopt(STDERR_FILENO, SOL_SOCKET, SO_SNDTIMEO, &shortest, sizeof shortest);
    }
}
