/* One end of the worker's socket pair: buffers around a non-blocking stream socket.
 *
 * Invariant: what is queued is whole frames in order, however little of them the socket takes at a time; the buffers never
 * outgrow what credit allows by more than one frame. One thread owns a pipe. */
#include "server/protocol.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10 };

void protocol_pipe_init(protocol_pipe *pipe, int fd)
{
    *pipe = (protocol_pipe){.fd = fd};
}

void protocol_pipe_done(protocol_pipe *pipe)
{
    if (pipe->fd >= 0)
        close(pipe->fd);
    free(pipe->in);
    free(pipe->out);
    *pipe = (protocol_pipe){.fd = -1};
}

/* Makes room for `more` bytes behind the used ones, moving them to the front first. */
static bool make_room(unsigned char **buffer, size_t *start, size_t count, size_t *capacity, size_t more)
{
    if (*start + count + more <= *capacity)
        return true;
    if (*start && count)
        memmove(*buffer, *buffer + *start, count);
    *start = 0;
    if (count + more <= *capacity)
        return true;
    size_t wanted = *capacity ? *capacity : READ_BYTES;
    while (wanted < count + more)
        wanted *= 2;
    unsigned char *grown = realloc(*buffer, wanted);
    if (!grown)
        return false;
    *buffer = grown;
    *capacity = wanted;
    return true;
}

/* Memory that one large frame took does not stay for ever. */
static void give_back(unsigned char **buffer, size_t *start, size_t count, size_t *capacity)
{
    if (count || *capacity <= PROTOCOL_BUFFER_BYTES)
        return;
    free(*buffer);
    *buffer = NULL;
    *start = *capacity = 0;
}

size_t protocol_unsent(const protocol_pipe *pipe)
{
    return pipe->out_count;
}

dn_status protocol_flush(protocol_pipe *pipe, dn_error *error)
{
    while (pipe->out_count) {
        const ssize_t sent = send(pipe->fd, pipe->out + pipe->out_start, pipe->out_count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return DN_OK;
        pipe->ended |= sent < 0 && (errno == EPIPE || errno == ECONNRESET);
        if (sent < 0)
            return dn_fail(error, DN_IO, "the other side of the worker's socket is gone: %s", strerror(errno));
        pipe->out_start += (size_t)sent;
        pipe->out_count -= (size_t)sent;
    }
    pipe->out_start = 0;
    give_back(&pipe->out, &pipe->out_start, 0, &pipe->out_capacity);
    return DN_OK;
}

dn_status protocol_send(protocol_pipe *pipe, const protocol_message *message, dn_error *error)
{
    unsigned char *frame = NULL;
    size_t count = 0;
    const dn_status status = protocol_encode(&frame, &count, message, error);
    if (status != DN_OK)
        return status;
    if (!make_room(&pipe->out, &pipe->out_start, pipe->out_count, &pipe->out_capacity, count)) {
        free(frame);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for unsent messages");
    }
    memcpy(pipe->out + pipe->out_start + pipe->out_count, frame, count);
    pipe->out_count += count;
    free(frame);
    return protocol_flush(pipe, error);
}

dn_status protocol_fill(protocol_pipe *pipe, dn_error *error)
{
    give_back(&pipe->in, &pipe->in_start, pipe->in_count, &pipe->in_capacity);
    for (size_t total = 0; total < PROTOCOL_TURN_BYTES && pipe->in_count < PROTOCOL_FRAME_BYTES_MAX;) {
        if (!make_room(&pipe->in, &pipe->in_start, pipe->in_count, &pipe->in_capacity, READ_BYTES))
            return dn_fail(error, DN_NO_MEMORY, "out of memory for received messages");
        const ssize_t got = recv(pipe->fd, pipe->in + pipe->in_start + pipe->in_count, READ_BYTES, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return DN_OK;
        if (got < 0 && errno != ECONNRESET)
            return dn_fail(error, DN_IO, "cannot read the worker's socket: %s", strerror(errno));
        if (got <= 0) {
            pipe->ended = true;
            return DN_OK;
        }
        pipe->in_count += (size_t)got;
        total += (size_t)got;
    }
    return DN_OK;
}

static uint32_t header_u32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

dn_status protocol_receive(protocol_pipe *pipe, protocol_message *out, bool *got, dn_error *error)
{
    *got = false;
    if (pipe->in_count < PROTOCOL_HEADER_BYTES)
        return DN_OK;
    const unsigned char *frame = pipe->in + pipe->in_start;
    const size_t count = header_u32(frame);
    if (count > PROTOCOL_FRAME_BYTES_MAX - PROTOCOL_HEADER_BYTES)
        return dn_fail(error, DN_INVALID, "a frame of %zu bytes is longer than one may be", count);
    if (pipe->in_count < PROTOCOL_HEADER_BYTES + count)
        return DN_OK;
    const dn_status status = protocol_decode(out, header_u32(frame + 4), frame + PROTOCOL_HEADER_BYTES, count, error);
    if (status != DN_OK)
        return status;
    pipe->in_start += PROTOCOL_HEADER_BYTES + count;
    pipe->in_count -= PROTOCOL_HEADER_BYTES + count;
    *got = true;
    return DN_OK;
}
