/* The worker protocol: every message survives the trip, no byte string is misread, and a pipe delivers whole frames in order. */
#include "server/protocol.h"

#include <sys/socket.h>
#include <unistd.h>

#include "tests/test.h"

static const protocol_type types[] = {PROTOCOL_HELLO,    PROTOCOL_MODEL, PROTOCOL_ADMITTED, PROTOCOL_TICK,   PROTOCOL_PREVIEW,
                                      PROTOCOL_SNAPSHOT, PROTOCOL_IMAGE, PROTOCOL_GONE,     PROTOCOL_FAILED, PROTOCOL_DRAINED,
                                      PROTOCOL_ALIVE,    PROTOCOL_ADMIT, PROTOCOL_CANCEL,   PROTOCOL_WATCH,  PROTOCOL_STORED,
                                      PROTOCOL_DRAIN,    PROTOCOL_PING,  PROTOCOL_TABLE,    PROTOCOL_ASIDE};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned char blob[70000];
static protocol_tick_lane lanes[3] = {{1ull << 63, 4, 20}, {7, 0, 1}, {~0ull, 1000, 1000}};

static protocol_message sample(protocol_type type)
{
    protocol_message m = {.type = type,
                          .lane = 0x0123456789abcdefu,
                          .index = 63,
                          .steps_done = 7,
                          .steps_total = 20,
                          .width = 32,
                          .height = 16,
                          .rows = 31,
                          .credit = 64,
                          .state = 2,
                          .seconds = 0.125,
                          .text = protocol_text("a sentence"),
                          .data = {blob, sizeof blob},
                          .lanes = lanes,
                          .lane_count = 3};
    for (int i = 0; i < 32; i++) {
        m.sha256[i] = (unsigned char)i;
        m.pixels_sha256[i] = (unsigned char)(200 + i);
    }
    return m;
}

/* Encoding what was decoded gives the same bytes: the two directions agree on every field they carry. */
static void every_type_makes_the_trip(void)
{
    for (size_t i = 0; i < sizeof blob; i++)
        blob[i] = (unsigned char)(i * 31);
    for (int t = 0; t < TYPE_COUNT; t++) {
        const protocol_message m = sample(types[t]);
        unsigned char *frame = NULL, *again = NULL;
        size_t count = 0, again_count = 0;
        dn_error error;
        CHECK_OK(protocol_encode(&frame, &count, &m, &error), error);
        protocol_message back;
        CHECK_OK(protocol_decode(&back, types[t], frame + 8, count - 8, &error), error);
        protocol_tick_lane read[3] = {0};
        for (uint32_t i = 0; i < back.lane_count; i++)
            read[i] = protocol_lane_at(&back, i);
        back.lanes = read;
        CHECK_OK(protocol_encode(&again, &again_count, &back, &error), error);
        CHECK_MSG(count == again_count && memcmp(frame, again, count) == 0, "type %d changes on its way", (int)types[t]);
        free(frame);
        free(again);
    }
}

static void image_fields_arrive(void)
{
    const protocol_message m = sample(PROTOCOL_IMAGE);
    unsigned char *frame = NULL;
    size_t count = 0;
    dn_error error;
    CHECK_OK(protocol_encode(&frame, &count, &m, &error), error);
    protocol_message back;
    CHECK_OK(protocol_decode(&back, PROTOCOL_IMAGE, frame + 8, count - 8, &error), error);
    CHECK(back.lane == m.lane && back.width == 32 && back.height == 16 && back.data.count == sizeof blob);
    CHECK(memcmp(back.data.bytes, blob, sizeof blob) == 0 && memcmp(back.sha256, m.sha256, 32) == 0 && back.pixels_sha256[31] == 231);
    free(frame);
}

static void cut_or_longer_payloads_are_refused(void)
{
    for (int t = 0; t < TYPE_COUNT; t++) {
        protocol_message m = sample(types[t]), back;
        m.data.count = 40;
        unsigned char *frame = NULL;
        size_t count = 0;
        CHECK(protocol_encode(&frame, &count, &m, NULL) == DN_OK);
        for (size_t cut = 8; cut < count; cut++) {
            unsigned char *exact = malloc(cut - 8 + 1);
            memcpy(exact, frame + 8, cut - 8);
            const dn_status status = protocol_decode(&back, types[t], exact, cut - 8, NULL);
            free(exact);
            CHECK_MSG(status == DN_INVALID, "type %d cut to %zu bytes is accepted", (int)types[t], cut);
        }
        unsigned char *longer = calloc(1, count + 1);
        memcpy(longer, frame, count);
        CHECK(protocol_decode(&back, types[t], longer + 8, count - 7, NULL) == DN_INVALID);
        free(longer);
        free(frame);
    }
    protocol_message back;
    CHECK(protocol_decode(&back, 0, blob, 0, NULL) == DN_INVALID && protocol_decode(&back, 40, blob, 0, NULL) == DN_INVALID);
}

/* Random payloads, and sample payloads with changed bytes: decode either refuses, or what it read encodes to the same bytes. */
static void noise_is_never_misread(void)
{
    uint64_t random = 1;
    for (int round = 0; round < 200000; round++) {
        const uint32_t type = (uint32_t)types[next_random(&random) % TYPE_COUNT];
        const size_t count = next_random(&random) % 96;
        unsigned char *payload = malloc(count + 1);
        for (size_t i = 0; i < count; i++)
            payload[i] = next_random(&random) % 3 ? 0 : (unsigned char)next_random(&random);
        protocol_message m;
        if (protocol_decode(&m, type, payload, count, NULL) == DN_OK) {
            protocol_tick_lane read[8];
            CHECK(m.lane_count < 8);
            for (uint32_t i = 0; i < m.lane_count; i++)
                read[i] = protocol_lane_at(&m, i);
            m.lanes = read;
            unsigned char *frame = NULL;
            size_t frame_count = 0;
            CHECK(protocol_encode(&frame, &frame_count, &m, NULL) == DN_OK);
            CHECK(frame_count == count + 8 && memcmp(frame + 8, payload, count) == 0);
            free(frame);
        }
        free(payload);
    }
}

static void numbers_must_be_finite(void)
{
    protocol_message m = sample(PROTOCOL_TICK), back;
    const double wrong[] = {NAN, INFINITY, -1};
    for (int i = 0; i < 3; i++) {
        m.seconds = wrong[i];
        unsigned char *frame = NULL;
        size_t count = 0;
        CHECK(protocol_encode(&frame, &count, &m, NULL) == DN_OK);
        CHECK(protocol_decode(&back, PROTOCOL_TICK, frame + 8, count - 8, NULL) == DN_INVALID);
        free(frame);
    }
}

static void frames_have_a_limit(void)
{
    protocol_message m = sample(PROTOCOL_SNAPSHOT);
    m.data.count = PROTOCOL_FRAME_BYTES_MAX; /* Refused before a byte of it is read. */
    unsigned char *frame = NULL;
    size_t count = 0;
    CHECK(protocol_encode(&frame, &count, &m, NULL) == DN_INVALID);
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    protocol_pipe pipe;
    protocol_pipe_init(&pipe, pair[0]);
    const unsigned char header[8] = {0xff, 0xff, 0xff, 0x7f, 1};
    CHECK(write(pair[1], header, sizeof header) == sizeof header);
    CHECK(protocol_fill(&pipe, NULL) == DN_OK);
    bool got = true;
    CHECK(protocol_receive(&pipe, &m, &got, NULL) == DN_INVALID && !got);
    protocol_pipe_done(&pipe);
    close(pair[1]);
}

/* More than a socket holds goes through in order, while each side takes only what is there. */
static void pipes_deliver_in_order(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    protocol_pipe a, b;
    protocol_pipe_init(&a, pair[0]);
    protocol_pipe_init(&b, pair[1]);
    dn_error error;
    enum { MESSAGES = 200 };
    for (uint64_t i = 0; i < MESSAGES; i++) {
        protocol_message m = sample(PROTOCOL_SNAPSHOT);
        m.lane = i;
        m.data.count = i * 331 % sizeof blob;
        CHECK_OK(protocol_send(&a, &m, &error), error);
    }
    CHECK(protocol_unsent(&a) > PROTOCOL_DROP_BYTES);
    uint64_t seen = 0;
    for (int turn = 0; turn < 100000 && seen < MESSAGES; turn++) {
        CHECK_OK(protocol_flush(&a, &error), error);
        CHECK_OK(protocol_fill(&b, &error), error);
        for (;;) {
            protocol_message m;
            bool got;
            CHECK_OK(protocol_receive(&b, &m, &got, &error), error);
            if (!got)
                break;
            CHECK(m.lane == seen && m.data.count == seen * 331 % sizeof blob && memcmp(m.data.bytes, blob, m.data.count) == 0);
            seen++;
        }
    }
    CHECK(seen == MESSAGES && protocol_unsent(&a) == 0 && !b.ended);
    protocol_pipe_done(&a);
    CHECK_OK(protocol_fill(&b, &error), error);
    CHECK(b.ended);
    const protocol_message ping = {.type = PROTOCOL_PING};
    CHECK(protocol_send(&b, &ping, &error) == DN_IO);
    protocol_pipe_done(&b);
}

/* A snapshot of 512 x 512 x 3 with twelve registers, a large picture, and small messages around them; the room they took is
 * given back. */
static void large_frames_pass(void)
{
    static const size_t sizes[] = {0, 20u << 20, 1, (size_t)12 * 512 * 512 * 3 * sizeof(float), 0};
    enum { MESSAGES = sizeof sizes / sizeof sizes[0] };
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    protocol_pipe a, b;
    protocol_pipe_init(&a, pair[0]);
    protocol_pipe_init(&b, pair[1]);
    unsigned char *bytes = malloc(sizes[3]);
    dn_error error;
    for (size_t i = 0; i < sizes[3]; i++)
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        protocol_message m = sample(PROTOCOL_SNAPSHOT);
        m.lane = i;
        m.data = (protocol_bytes){bytes, sizes[i]};
        CHECK_OK(protocol_send(&a, &m, &error), error);
    }
    uint32_t seen = 0;
    for (int turn = 0; turn < 1000000 && seen < MESSAGES; turn++) {
        CHECK_OK(protocol_flush(&a, &error), error);
        CHECK_OK(protocol_fill(&b, &error), error);
        protocol_message m;
        for (bool got = true; got;) {
            CHECK_OK(protocol_receive(&b, &m, &got, &error), error);
            if (!got)
                break;
            CHECK(m.lane == seen && m.data.count == sizes[seen] && memcmp(m.data.bytes, bytes, m.data.count) == 0);
            seen++;
        }
    }
    CHECK_OK(protocol_fill(&b, &error), error);
    CHECK(seen == MESSAGES && a.out_capacity <= PROTOCOL_BUFFER_BYTES && b.in_capacity <= PROTOCOL_BUFFER_BYTES);
    free(bytes);
    protocol_pipe_done(&a);
    protocol_pipe_done(&b);
}

int main(void)
{
    RUN(every_type_makes_the_trip);
    RUN(image_fields_arrive);
    RUN(cut_or_longer_payloads_are_refused);
    RUN(noise_is_never_misread);
    RUN(numbers_must_be_finite);
    RUN(frames_have_a_limit);
    RUN(pipes_deliver_in_order);
    RUN(large_frames_pass);
    return test_end();
}
