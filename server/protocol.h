/* What the dispatcher and a worker say to each other over a socket pair: framed binary messages, little-endian.
 *
 * A frame is {u32 length of what follows the header, u32 type} and then the fields of its type in a fixed order (the table in
 * protocol.c). The worker announces how many lanes may be outstanding (credit); a lane is outstanding from ADMIT until the
 * worker has said GONE or FAILED of it, or the dispatcher has answered its IMAGE with STORED. A malformed frame, or one that
 * this side never receives, ends the connection. Both ends are non-blocking; each end has one owner thread. */
#ifndef SERVER_PROTOCOL_H
#define SERVER_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PROTOCOL_VERSION 5u
#define PROTOCOL_FRAME_BYTES_MAX (64u << 20) /* header included: a snapshot of 512 x 512 x 3 floats has 12 registers' room */
#define PROTOCOL_SNAPSHOT_BYTES_MAX (PROTOCOL_FRAME_BYTES_MAX - (1u << 20)) /* it comes back in an ADMIT, beside a request */
#define PROTOCOL_TURN_BYTES (8u << 20) /* read at most in one go, so that one loud side cannot keep the other from its work */
#define PROTOCOL_BUFFER_BYTES (8u << 20) /* a buffer that grew past this for one large frame is given back when it is empty */
#define PROTOCOL_DROP_BYTES (256u << 10) /* unsent bytes above which previews are dropped */
#define PROTOCOL_HEADER_BYTES 8u
#define PROTOCOL_TICK_LANE_BYTES 16u

typedef enum protocol_type {
    /* worker to dispatcher */
    PROTOCOL_HELLO = 1, /* state: version; credit: lanes that may be outstanding */
    /* text: name; state: protocol_model_state; data: description or cause; rows: of a tick; seconds: of a row; bytes: in memory, or 0 */
    PROTOCOL_MODEL,
    PROTOCOL_TABLE, /* text: name of a model in memory; rows: of a tick at most; data: what ticks take (tick_table_pack) */
    PROTOCOL_ADMITTED, /* lane; steps: done (resumed) and total; text: why a snapshot was refused, "" */
    PROTOCOL_ASIDE, /* lane: it made way for a more urgent one, and goes on where it stands when there is room: ADMITTED again */
    PROTOCOL_TICK, /* rows, seconds, and the steps of every lane in the batch */
    PROTOCOL_PREVIEW, /* lane, steps, size, data: PNG */
    PROTOCOL_SNAPSHOT, /* lane, steps, data */
    PROTOCOL_IMAGE, /* lane, steps_done: evaluations, size, hashes of file and pixels, data: PNG; the lane is done */
    PROTOCOL_GONE, /* lane: cancelled as asked, or let go by a drain */
    PROTOCOL_FAILED, /* lane; state: protocol_failure; text: cause */
    PROTOCOL_DRAINED, /* nothing runs any more */
    PROTOCOL_ALIVE, /* the answer to PING, and now and then without one */
    PROTOCOL_LOST, /* text: why the device cannot be used (any more); the process is about to end */
    /* dispatcher to worker */
    PROTOCOL_ADMIT =
        64, /* lane, index in its job, text: the request's JSON, name: the job's id, data: snapshot or nothing; steps: where that
                          * stood; seconds: since the job was accepted */
    PROTOCOL_CANCEL, /* lane */
    PROTOCOL_WATCH, /* lane; state: 1 previews wanted, 0 not */
    PROTOCOL_STORED, /* lane: its image is durable (or discarded): credit comes back */
    PROTOCOL_DRAIN, /* snapshot and let go of every lane, then say DRAINED */
    PROTOCOL_PING
} protocol_type;

/* UNLOADED: described (data) and not in memory; its lanes are welcome, and have it loaded. */
typedef enum protocol_model_state {
    PROTOCOL_MODEL_LOADING,
    PROTOCOL_MODEL_READY,
    PROTOCOL_MODEL_FAILED,
    PROTOCOL_MODEL_UNLOADED
} protocol_model_state;
typedef enum protocol_failure {
    PROTOCOL_FAILED_ENGINE,
    PROTOCOL_FAILED_MODEL,
    PROTOCOL_FAILED_MEMORY,
    PROTOCOL_FAILED_INPUT
} protocol_failure;

typedef struct protocol_tick_lane {
    uint64_t lane;
    uint32_t steps_done, steps_total;
} protocol_tick_lane;

/* Borrowed bytes: of the sender until protocol_send returns, of the pipe until the next protocol_receive. */
typedef struct protocol_bytes {
    const unsigned char *bytes;
    size_t count;
} protocol_bytes;

typedef struct protocol_message {
    protocol_type type;
    uint64_t lane;
    uint32_t index, steps_done, steps_total, width, height, rows, credit, state;
    double seconds;
    uint64_t bytes;
    unsigned char sha256[32], pixels_sha256[32];
    protocol_bytes text, data, name;
    const protocol_tick_lane *lanes; /* to send; a received TICK is read by protocol_lane_at */
    uint32_t lane_count;
    const unsigned char *lane_bytes;
} protocol_message;

protocol_bytes protocol_text(const char *text);
/* Copies text into a NUL-terminated buffer, cut where it is full. */
void protocol_copy_text(char *out, size_t out_bytes, protocol_bytes text);
protocol_tick_lane protocol_lane_at(const protocol_message *tick, uint32_t i);

/* The codec alone. Encode: *out is malloc'd, the frame with its header; DN_INVALID: longer than a frame may be. Decode: one
 * payload; DN_INVALID: not exactly the fields of this type. */
dn_status protocol_encode(unsigned char **out, size_t *out_bytes, const protocol_message *message, dn_error *error);
dn_status protocol_decode(protocol_message *out, uint32_t type, const unsigned char *payload, size_t count, dn_error *error);

/* One end of the pair. */
typedef struct protocol_pipe {
    int fd;
    unsigned char *in, *out;
    size_t in_start, in_count, in_capacity; /* unread bytes are in[in_start .. in_start + in_count) */
    size_t out_start, out_count, out_capacity; /* unsent ones likewise */
    bool ended; /* the other side has closed */
} protocol_pipe;

void protocol_pipe_init(protocol_pipe *pipe, int fd); /* takes the descriptor, which must be non-blocking */
void protocol_pipe_done(protocol_pipe *pipe);
/* Queues a message and writes what the socket takes. DN_IO: the connection is broken. */
dn_status protocol_send(protocol_pipe *pipe, const protocol_message *message, dn_error *error);
dn_status protocol_flush(protocol_pipe *pipe, dn_error *error);
size_t protocol_unsent(const protocol_pipe *pipe);
/* Reads what the socket has, PROTOCOL_TURN_BYTES at most. Every whole frame must be received before the next call. */
dn_status protocol_fill(protocol_pipe *pipe, dn_error *error);
/* The next whole message, if any (*got). Its bytes stay valid until the next call of fill or receive. */
dn_status protocol_receive(protocol_pipe *pipe, protocol_message *out, bool *got, dn_error *error);

#endif
