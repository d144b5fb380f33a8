/* Fuzz entry (libFuzzer's): any bytes as what comes over the socket between daemon and worker, from either side. Every frame that is
 * taken must be written again to the same bytes; what the two ends read out of its fields is read too. */
#include "tests/fuzz/fuzz.h"

#include "api/generate_request.h"
#include "server/protocol.h"
#include "server/tick_table.h"

static void same_bytes_again(protocol_message message, const unsigned char *frame, size_t count)
{
    dn_error error = {DN_OK, ""};
    unsigned char *again = NULL;
    size_t again_count = 0;
    protocol_tick_lane *lanes = calloc((size_t)message.lane_count + 1, sizeof *lanes);
    REQUIRE(lanes != NULL);
    for (uint32_t i = 0; i < message.lane_count; i++)
        lanes[i] = protocol_lane_at(&message, i);
    message.lanes = lanes;
    REQUIRE(protocol_encode(&again, &again_count, &message, &error) == DN_OK);
    REQUIRE(again_count == count && memcmp(again, frame, count) == 0);
    free(again);
    free(lanes);
}

static void read_fields(const protocol_message *m)
{
    char name[65];
    dn_error error = {DN_OK, ""};
    protocol_copy_text(name, sizeof name, m->text);
    REQUIRE(strlen(name) < sizeof name);
    if (m->type == PROTOCOL_TABLE) {
        tick_table table;
        if (tick_table_unpack(&table, m->data.bytes, m->data.count)) {
            const double seconds = tick_table_seconds(&table, 7);
            REQUIRE(seconds >= 0 && tick_table_rows_max(&table, 128, 2) <= 128);
        }
    }
    if (m->type == PROTOCOL_MODEL && m->data.count > 0) {
        api_model *model = NULL;
        dn_status status = api_model_from_json(&model, (const char *)m->data.bytes, m->data.count, &error);
        REQUIRE((status == DN_OK) == (model != NULL) && (status == DN_OK || error.message[0] != '\0'));
        api_model_free(model);
    }
    if (m->type == PROTOCOL_ADMIT && m->text.count > 0) {
        api_request request;
        if (api_request_from_json(&request, (const char *)m->text.bytes, m->text.count))
            REQUIRE(memchr(request.model, 0, sizeof request.model) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    protocol_pipe pipe;
    protocol_message message;
    dn_error error = {DN_OK, ""};
    bool got = true;
    protocol_pipe_init(&pipe, -1);
    pipe.in = malloc(size + 1);
    REQUIRE(pipe.in != NULL);
    if (size > 0)
        memcpy(pipe.in, data, size);
    pipe.in_count = pipe.in_capacity = size;
    while (got) {
        const unsigned char *frame = pipe.in + pipe.in_start;
        const size_t before = pipe.in_count;
        dn_status status = protocol_receive(&pipe, &message, &got, &error);
        REQUIRE(status == DN_OK || (!got && error.message[0] != '\0'));
        if (!got)
            break;
        same_bytes_again(message, frame, before - pipe.in_count);
        read_fields(&message);
    }
    protocol_pipe_done(&pipe);
    return 0;
}
