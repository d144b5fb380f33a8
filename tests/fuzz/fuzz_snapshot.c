/* Fuzz entry (libFuzzer's): any bytes as a lane's snapshot. The first byte says how: 'f', the file that the daemon keeps it in; else the
 * worker's own bytes behind their origin (build and weights, which no corpus could know), with registers of made numbers behind them
 * and the checksum put right. A lane that is restored can be written, restored from that, and run. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>

#include "base/sha256.h"
#include "batch/batch_private.h"
#include "engine.h"
#include "server/dispatcher_internal.h"

#define MODEL "tests/golden/tiny"
#define JOB "abcdefghijklmnopqrstuvwxyz"
#define HEAD_BYTES_MAX 8192u
#define REGISTERS_MAX 19u

static dn_batch *batch;
static unsigned char origin[HEAD_BYTES_MAX], *whole;
static size_t origin_bytes, elements;
static int file_fd, folder_fd;

/* A genuine snapshot tells what every other must begin with. */
static void prepare(void)
{
    dn_engine *engine = NULL;
    dn_error error = {DN_OK, ""};
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_lane_spec spec = {.steps = 4, .guidance_scale = 1, .sampler = "ddim", .seed = 7};
    REQUIRE(dn_engine_open(&engine, MODEL, &(dn_engine_options){.threads = 1}, &error) == DN_OK);
    REQUIRE(dn_batch_create(&batch, engine, 8, &error) == DN_OK);
    REQUIRE(dn_batch_admit(batch, 1, &spec, &error) == DN_OK && dn_batch_snapshot(batch, 1, &bytes, &count, &error) == DN_OK);
    REQUIRE(dn_batch_evict(batch, 1) == DN_OK);
    origin_bytes = 8 + 8 + sizeof engine->build + sizeof engine->model->weights_sha256 + DN_SHA256_HEX_BYTES +
                   sizeof engine->classifier.weights_sha256 + 8;
    elements = dn_engine_elements(engine);
    memcpy(origin, bytes, origin_bytes);
    free(bytes);
    whole = malloc(HEAD_BYTES_MAX * 2 + REGISTERS_MAX * elements * sizeof(float) + DN_SHA256_BYTES);
    REQUIRE(whole != NULL);
    char name[SNAPSHOT_NAME_BYTES];
    snapshot_name(name, JOB, 3);
    file_fd = open(fuzz_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    folder_fd = open(fuzz_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(file_fd >= 0 && folder_fd >= 0);
}

static void read_file(const uint8_t *data, size_t size)
{
    uint32_t steps = 0;
    size_t count = 0;
    fuzz_put(file_fd, data, size);
    unsigned char *payload = snapshot_read(folder_fd, JOB, 3, &steps, &count);
    REQUIRE(payload == NULL || (count > 0 && count < size));
    free(payload);
    if (size == 0)
        return;
    size_t bytes = 0;
    unsigned char *made = snapshot_wrap(JOB, 3, 5, (protocol_bytes){data, size}, &bytes);
    REQUIRE(made != NULL);
    fuzz_put(file_fd, made, bytes);
    free(made);
    payload = snapshot_read(folder_fd, JOB, 3, &steps, &count);
    REQUIRE(payload != NULL && steps == 5 && count == size && memcmp(payload, data, size) == 0);
    free(payload);
}

static void restore_again(dn_lane_id id)
{
    dn_error error = {DN_OK, ""};
    unsigned char *bytes = NULL;
    size_t count = 0;
    REQUIRE(dn_batch_snapshot(batch, id, &bytes, &count, &error) == DN_OK);
    REQUIRE(dn_batch_restore(batch, id + 1, bytes, count, &error) == DN_OK);
    REQUIRE(dn_batch_evict(batch, id + 1) == DN_OK);
    free(bytes);
}

static void restore(const uint8_t *data, size_t size)
{
    static dn_tick_report report;
    dn_error error = {DN_OK, ""};
    unsigned run = 0;
    uint64_t live = 0;
    memcpy(whole, origin, origin_bytes);
    memcpy(whole + origin_bytes, data, size);
    size_t count = origin_bytes + size;
    if (size >= 8)
        memcpy(&live, data + size - 8, 8); /* the head ends with the mask of the registers that follow */
    for (size_t r = (size_t)__builtin_popcountll(live & ((1u << REGISTERS_MAX) - 1)); r > 0; r--) {
        memset(whole + count, (int)r, elements * sizeof(float)); /* small numbers */
        count += elements * sizeof(float);
    }
    dn_sha256_of(whole + count, whole, count);
    dn_status status = dn_batch_restore(batch, 1, whole, count + DN_SHA256_BYTES, &error);
    REQUIRE(status == DN_OK || error.message[0] != '\0');
    if (status != DN_OK)
        return;
    REQUIRE(dn_batch_lanes(batch) == 1 && dn_batch_rows_wanted(batch) <= 8);
    restore_again(1);
    for (size_t i = 0; i < size; i++)
        run += data[i];
    if (run % 64 == 0)
        REQUIRE(dn_batch_tick(batch, &report, &error) == DN_OK && report.lane_count == 1);
    REQUIRE(dn_batch_evict(batch, 1) == DN_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (batch == NULL)
        prepare();
    if (size < 1 || size > HEAD_BYTES_MAX)
        return 0;
    if (data[0] == 'f')
        read_file(data + 1, size - 1);
    else
        restore(data + 1, size - 1);
    return 0;
}
