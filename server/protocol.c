/* The codec of the worker protocol: one table says which fields each type carries; encode and decode walk it alike.
 *
 * Invariant: a payload decodes only if its fields use up exactly its bytes, so no frame has two readings. Nothing here trusts
 * a length: every one is checked against what is left. Pure. */
#include "server/protocol.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    HAS_LANE = 1,
    HAS_INDEX = 2,
    HAS_STEPS = 4,
    HAS_SIZE = 8,
    HAS_ROWS = 16,
    HAS_CREDIT = 32,
    HAS_STATE = 64,
    HAS_SECONDS = 128,
    HAS_HASHES = 256,
    HAS_TEXT = 512,
    HAS_DATA = 1024,
    HAS_LANES = 2048,
    HAS_NAME = 4096,
    HAS_BYTES = 8192
};

/* The fields of a type, in the order of the bits above, but that BYTES comes before HASHES; -1: no such type. */
static int fields_of(uint32_t type)
{
    switch (type) {
    case PROTOCOL_HELLO:
        return HAS_CREDIT | HAS_STATE;
    case PROTOCOL_MODEL:
        return HAS_ROWS | HAS_STATE | HAS_SECONDS | HAS_BYTES | HAS_TEXT | HAS_DATA;
    case PROTOCOL_TABLE:
        return HAS_ROWS | HAS_TEXT | HAS_DATA;
    case PROTOCOL_ADMITTED:
        return HAS_LANE | HAS_STEPS | HAS_TEXT;
    case PROTOCOL_TICK:
        return HAS_ROWS | HAS_SECONDS | HAS_LANES;
    case PROTOCOL_PREVIEW:
        return HAS_LANE | HAS_STEPS | HAS_SIZE | HAS_DATA;
    case PROTOCOL_SNAPSHOT:
        return HAS_LANE | HAS_STEPS | HAS_DATA;
    case PROTOCOL_IMAGE:
        return HAS_LANE | HAS_STEPS | HAS_SIZE | HAS_HASHES | HAS_DATA;
    case PROTOCOL_LOST:
        return HAS_TEXT;
    case PROTOCOL_FAILED:
        return HAS_LANE | HAS_STATE | HAS_TEXT;
    case PROTOCOL_ADMIT:
        return HAS_LANE | HAS_INDEX | HAS_STEPS | HAS_SECONDS | HAS_TEXT | HAS_DATA | HAS_NAME;
    case PROTOCOL_WATCH:
        return HAS_LANE | HAS_STATE;
    case PROTOCOL_GONE:
    case PROTOCOL_ASIDE:
    case PROTOCOL_CANCEL:
    case PROTOCOL_STORED:
        return HAS_LANE;
    case PROTOCOL_DRAINED:
    case PROTOCOL_ALIVE:
    case PROTOCOL_DRAIN:
    case PROTOCOL_PING:
        return 0;
    default:
        return -1;
    }
}

protocol_bytes protocol_text(const char *text)
{
    return (protocol_bytes){.bytes = (const unsigned char *)text, .count = strlen(text)};
}

void protocol_copy_text(char *out, size_t out_bytes, protocol_bytes text)
{
    const size_t count = text.count < out_bytes ? text.count : out_bytes - 1;
    if (count)
        memcpy(out, text.bytes, count);
    out[count] = 0;
}

/* ---- Writing */

static unsigned char *put_u32(unsigned char *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (unsigned char)(value >> 8 * i);
    return to + 4;
}

static unsigned char *put_u64(unsigned char *to, uint64_t value)
{
    return put_u32(put_u32(to, (uint32_t)value), (uint32_t)(value >> 32));
}

static unsigned char *put_bytes(unsigned char *to, protocol_bytes bytes)
{
    to = put_u32(to, (uint32_t)bytes.count);
    if (bytes.count)
        memcpy(to, bytes.bytes, bytes.count);
    return to + bytes.count;
}

static size_t payload_bytes(const protocol_message *m, int fields)
{
    size_t count = 0;
    count += fields & HAS_LANE ? 8 : 0;
    count += fields & HAS_INDEX ? 4 : 0;
    count += fields & HAS_STEPS ? 8 : 0;
    count += fields & HAS_SIZE ? 8 : 0;
    count += fields & HAS_ROWS ? 4 : 0;
    count += fields & HAS_CREDIT ? 4 : 0;
    count += fields & HAS_STATE ? 4 : 0;
    count += fields & HAS_SECONDS ? 8 : 0;
    count += fields & HAS_BYTES ? 8 : 0;
    count += fields & HAS_HASHES ? 64 : 0;
    count += fields & HAS_TEXT ? 4 + m->text.count : 0;
    count += fields & HAS_DATA ? 4 + m->data.count : 0;
    count += fields & HAS_NAME ? 4 + m->name.count : 0;
    count += fields & HAS_LANES ? 4 + (size_t)m->lane_count * PROTOCOL_TICK_LANE_BYTES : 0;
    return count;
}

static unsigned char *put_numbers(unsigned char *to, const protocol_message *m, int fields)
{
    if (fields & HAS_LANE)
        to = put_u64(to, m->lane);
    if (fields & HAS_INDEX)
        to = put_u32(to, m->index);
    if (fields & HAS_STEPS)
        to = put_u32(put_u32(to, m->steps_done), m->steps_total);
    if (fields & HAS_SIZE)
        to = put_u32(put_u32(to, m->width), m->height);
    if (fields & HAS_ROWS)
        to = put_u32(to, m->rows);
    if (fields & HAS_CREDIT)
        to = put_u32(to, m->credit);
    if (fields & HAS_STATE)
        to = put_u32(to, m->state);
    if (fields & HAS_SECONDS) {
        uint64_t bits;
        memcpy(&bits, &m->seconds, 8);
        to = put_u64(to, bits);
    }
    if (fields & HAS_BYTES)
        to = put_u64(to, m->bytes);
    return to;
}

dn_status protocol_encode(unsigned char **out, size_t *out_bytes, const protocol_message *m, dn_error *error)
{
    const int fields = fields_of(m->type);
    if (fields < 0)
        return dn_fail(error, DN_INTERNAL, "no such message type: %d", (int)m->type);
    const size_t count = payload_bytes(m, fields);
    if (count > PROTOCOL_FRAME_BYTES_MAX - PROTOCOL_HEADER_BYTES)
        return dn_fail(error, DN_INVALID, "a message of %zu bytes is longer than a frame may be (%u)", count, PROTOCOL_FRAME_BYTES_MAX);
    unsigned char *frame = malloc(PROTOCOL_HEADER_BYTES + count);
    if (!frame)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a message");
    unsigned char *to = put_u32(put_u32(frame, (uint32_t)count), m->type);
    to = put_numbers(to, m, fields);
    if (fields & HAS_HASHES) {
        memcpy(to, m->sha256, 32);
        memcpy(to + 32, m->pixels_sha256, 32);
        to += 64;
    }
    if (fields & HAS_TEXT)
        to = put_bytes(to, m->text);
    if (fields & HAS_DATA)
        to = put_bytes(to, m->data);
    if (fields & HAS_NAME)
        to = put_bytes(to, m->name);
    if (fields & HAS_LANES) {
        to = put_u32(to, m->lane_count);
        for (uint32_t i = 0; i < m->lane_count; i++)
            to = put_u32(put_u32(put_u64(to, m->lanes[i].lane), m->lanes[i].steps_done), m->lanes[i].steps_total);
    }
    *out = frame;
    *out_bytes = PROTOCOL_HEADER_BYTES + count;
    return DN_OK;
}

/* ---- Reading */

typedef struct reader {
    const unsigned char *at;
    size_t left;
    bool failed;
} reader;

static const unsigned char *take(reader *r, size_t count)
{
    if (r->failed || count > r->left) {
        r->failed = true;
        return NULL;
    }
    const unsigned char *at = r->at;
    r->at += count;
    r->left -= count;
    return at;
}

static uint32_t u32_at(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t get_u32(reader *r)
{
    const unsigned char *at = take(r, 4);
    return at ? u32_at(at) : 0;
}

static uint64_t get_u64(reader *r)
{
    const uint64_t low = get_u32(r);
    return low | (uint64_t)get_u32(r) << 32;
}

static protocol_bytes get_bytes(reader *r)
{
    const size_t count = get_u32(r);
    const unsigned char *at = take(r, count);
    return (protocol_bytes){.bytes = at, .count = at ? count : 0};
}

static void get_numbers(reader *r, protocol_message *m, int fields)
{
    if (fields & HAS_LANE)
        m->lane = get_u64(r);
    if (fields & HAS_INDEX)
        m->index = get_u32(r);
    if (fields & HAS_STEPS) {
        m->steps_done = get_u32(r);
        m->steps_total = get_u32(r);
    }
    if (fields & HAS_SIZE) {
        m->width = get_u32(r);
        m->height = get_u32(r);
    }
    if (fields & HAS_ROWS)
        m->rows = get_u32(r);
    if (fields & HAS_CREDIT)
        m->credit = get_u32(r);
    if (fields & HAS_STATE)
        m->state = get_u32(r);
    if (fields & HAS_SECONDS) {
        const uint64_t bits = get_u64(r);
        memcpy(&m->seconds, &bits, 8);
        r->failed |= !isfinite(m->seconds) || m->seconds < 0;
    }
    if (fields & HAS_BYTES)
        m->bytes = get_u64(r);
}

dn_status protocol_decode(protocol_message *out, uint32_t type, const unsigned char *payload, size_t count, dn_error *error)
{
    const int fields = fields_of(type);
    if (fields < 0)
        return dn_fail(error, DN_INVALID, "a message of an unknown type (%u)", type);
    reader r = {.at = payload, .left = count};
    protocol_message m = {.type = (protocol_type)type};
    get_numbers(&r, &m, fields);
    if (fields & HAS_HASHES) {
        const unsigned char *hashes = take(&r, 64);
        if (hashes) {
            memcpy(m.sha256, hashes, 32);
            memcpy(m.pixels_sha256, hashes + 32, 32);
        }
    }
    if (fields & HAS_TEXT)
        m.text = get_bytes(&r);
    if (fields & HAS_DATA)
        m.data = get_bytes(&r);
    if (fields & HAS_NAME)
        m.name = get_bytes(&r);
    if (fields & HAS_LANES) {
        m.lane_count = get_u32(&r);
        m.lane_bytes = take(&r, (size_t)m.lane_count * PROTOCOL_TICK_LANE_BYTES);
    }
    if (r.failed || r.left != 0)
        return dn_fail(error, DN_INVALID, "a malformed message of type %u (%zu bytes)", type, count);
    *out = m;
    return DN_OK;
}

protocol_tick_lane protocol_lane_at(const protocol_message *tick, uint32_t i)
{
    const unsigned char *at = tick->lane_bytes + (size_t)i * PROTOCOL_TICK_LANE_BYTES;
    return (protocol_tick_lane){
        .lane = u32_at(at) | (uint64_t)u32_at(at + 4) << 32, .steps_done = u32_at(at + 8), .steps_total = u32_at(at + 12)};
}
