/* The worker from the outside: a thread serves one end of a socket pair, the test speaks the protocol on the other. */
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "server/protocol.h"
#include "tests/server/dispatcher_harness.h"

static protocol_pipe line;
static pthread_t worker_thread;
static worker_options worker_how;
static dn_status worker_outcome;
static dn_error worker_error;

static void *serve_line(void *unused)
{
    (void)unused;
    worker_outcome = worker_run(&worker_how, &worker_error);
    return NULL;
}

/* The next message of this type, others skipped; false after a long silence or at the end of the line. */
static bool hear(protocol_type type, protocol_message *m)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until) {
        bool got = false;
        if (protocol_receive(&line, m, &got, &error) != DN_OK)
            return false;
        if (got && m->type == type)
            return true;
        if (got)
            continue;
        if (line.ended)
            return false;
        struct pollfd fd = {.fd = line.fd, .events = POLLIN};
        poll(&fd, 1, 100);
        if (protocol_flush(&line, &error) != DN_OK || protocol_fill(&line, &error) != DN_OK)
            return false;
    }
    return false;
}

static bool say(protocol_message m)
{
    return protocol_send(&line, &m, &error) == DN_OK;
}

static batching policy;

static bool open_line(const char *folder)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    protocol_pipe_init(&line, pair[0]);
    worker_how =
        (worker_options){.fd = pair[1], .threads = 1, .rows_max = 8, .batching = policy, .snapshot_every_seconds = 0, .model_count = 1};
    worker_how.models[0].name = "tiny";
    worker_how.models[0].folder = folder;
    protocol_message m;
    return pthread_create(&worker_thread, NULL, serve_line, NULL) == 0 && hear(PROTOCOL_HELLO, &m) && m.state == PROTOCOL_VERSION &&
           m.credit == WORKER_CREDIT;
}

static void close_line(void)
{
    protocol_pipe_done(&line);
    pthread_join(worker_thread, NULL);
}

static bool open_ready_line(void)
{
    protocol_message m;
    return open_line(model_folder) && hear(PROTOCOL_MODEL, &m) && m.state == PROTOCOL_MODEL_LOADING && hear(PROTOCOL_MODEL, &m) &&
           m.state == PROTOCOL_MODEL_READY && m.rows == 8 && m.seconds > 0;
}

static char *request_json(uint32_t steps, uint64_t seed, int priority)
{
    const api_request request = {.model = "tiny",
                                 .has_class = true,
                                 .class_index = 1,
                                 .guidance_scale = 2,
                                 .steps = steps,
                                 .sampler = "ddim",
                                 .has_seed = true,
                                 .seed = seed,
                                 .n = 1,
                                 .priority = priority};
    return api_request_json(&request);
}

static bool admit_as(uint64_t lane, uint32_t steps, uint64_t seed, int priority, protocol_bytes snapshot)
{
    char *json = request_json(steps, seed, priority);
    const bool sent =
        json &&
        say((protocol_message){.type = PROTOCOL_ADMIT, .lane = lane, .text = protocol_text(json), .data = snapshot, .steps_done = 2});
    free(json);
    return sent;
}

static bool admit(uint64_t lane, uint32_t steps, protocol_bytes snapshot)
{
    return admit_as(lane, steps, 7, 0, snapshot);
}

/* Whatever comes next; false after a long silence. */
static bool hear_any(protocol_message *m)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    for (bool got = false; dn_now_seconds() < until && !line.ended;) {
        if (protocol_receive(&line, m, &got, &error) != DN_OK)
            return false;
        if (got)
            return true;
        struct pollfd fd = {.fd = line.fd, .events = POLLIN};
        poll(&fd, 1, 100);
        if (protocol_flush(&line, &error) != DN_OK || protocol_fill(&line, &error) != DN_OK)
            return false;
    }
    return false;
}

/* Listens until `images` lanes have sent their images, whose hashes go to sha256[lane]; together: ticks that lanes 1 and 4 shared; most:
 * lanes of the fullest tick. Lane 4 is admitted after the first tick of lane 1. */
static bool hear_images(int images, unsigned char sha256[][32], int *together, uint32_t *most)
{
    protocol_message m;
    bool late = false;
    *together = 0;
    *most = 0;
    while (images > 0 && hear_any(&m)) {
        if (m.type == PROTOCOL_IMAGE) {
            memcpy(sha256[m.lane], m.sha256, 32);
            images--;
        }
        bool first = false, fourth = false;
        for (uint32_t i = 0; m.type == PROTOCOL_TICK && i < m.lane_count; i++) {
            first |= protocol_lane_at(&m, i).lane == 1;
            fourth |= protocol_lane_at(&m, i).lane == 4;
        }
        if (m.type == PROTOCOL_TICK && m.lane_count > *most)
            *most = m.lane_count;
        *together += first && fourth;
        if (first && !late)
            late = admit(4, 30, (protocol_bytes){0});
    }
    return images == 0;
}

/* The three policies differ in who shares a tick, and in no byte of any picture. */
static void policies_differ_in_company_alone(void)
{
    unsigned char sha256[3][5][32];
    for (policy = BATCHING_CONTINUOUS; policy <= BATCHING_SINGLE; policy++) {
        int together;
        uint32_t most;
        CHECK(open_ready_line());
        CHECK(admit(1, 400, (protocol_bytes){0}) && admit(2, 20, (protocol_bytes){0}) && admit(3, 30, (protocol_bytes){0}));
        CHECK(hear_images(4, sha256[policy], &together, &most));
        CHECK_MSG((policy == BATCHING_CONTINUOUS) == (together > 0), "%s: lanes 1 and 4 shared %d ticks", batching_name(policy), together);
        CHECK_MSG((policy == BATCHING_SINGLE) == (most == 1), "%s: %u lanes in one tick", batching_name(policy), most);
        CHECK(memcmp(sha256[policy][3], sha256[policy][4], 32) == 0);
        for (int lane = 1; lane <= 4; lane++)
            CHECK(memcmp(sha256[policy][lane], sha256[BATCHING_CONTINUOUS][lane], 32) == 0);
        close_line();
        CHECK_OK(worker_outcome, worker_error);
    }
    policy = BATCHING_CONTINUOUS;
}

/* A snapshot taken on the way gives the same file when another lane goes on from it; a spoilt one starts at step 0, with a word. */
static void lane_goes_on_from_a_snapshot(void)
{
    CHECK(open_ready_line());
    protocol_message m;
    CHECK(admit(1, 200, (protocol_bytes){0}) && hear(PROTOCOL_ADMITTED, &m) && m.lane == 1 && m.steps_done == 0 && m.text.count == 0);
    CHECK(hear(PROTOCOL_SNAPSHOT, &m) && m.lane == 1 && m.steps_done > 0);
    protocol_bytes snapshot = {malloc(m.data.count), m.data.count};
    memcpy((unsigned char *)snapshot.bytes, m.data.bytes, m.data.count);
    unsigned char first[32];
    CHECK(hear(PROTOCOL_IMAGE, &m) && m.lane == 1 && m.width == 8);
    memcpy(first, m.sha256, 32);
    CHECK(say((protocol_message){.type = PROTOCOL_STORED, .lane = 1}));
    CHECK(admit(2, 200, snapshot) && hear(PROTOCOL_ADMITTED, &m) && m.steps_done == 2 && m.text.count == 0);
    CHECK(hear(PROTOCOL_IMAGE, &m) && m.lane == 2 && memcmp(first, m.sha256, 32) == 0);
    ((unsigned char *)snapshot.bytes)[0] ^= 1;
    CHECK(admit(3, 200, snapshot) && hear(PROTOCOL_ADMITTED, &m) && m.steps_done == 0 && m.text.count > 0);
    CHECK(hear(PROTOCOL_IMAGE, &m) && m.lane == 3 && memcmp(first, m.sha256, 32) == 0);
    free((unsigned char *)snapshot.bytes);
    close_line();
    CHECK_OK(worker_outcome, worker_error);
}

static void words_are_answered(void)
{
    CHECK(open_ready_line());
    protocol_message m;
    CHECK(say((protocol_message){.type = PROTOCOL_PING}) && hear(PROTOCOL_ALIVE, &m));
    CHECK(say((protocol_message){.type = PROTOCOL_CANCEL, .lane = 99}) && hear(PROTOCOL_GONE, &m) && m.lane == 99);
    CHECK(admit(5, 1000, (protocol_bytes){0}) && hear(PROTOCOL_TICK, &m) && m.rows == 2 && protocol_lane_at(&m, 0).lane == 5);
    CHECK(say((protocol_message){.type = PROTOCOL_CANCEL, .lane = 5}) && hear(PROTOCOL_GONE, &m) && m.lane == 5);
    CHECK(say((protocol_message){.type = PROTOCOL_ADMIT, .lane = 6, .text = protocol_text("{}")}) && hear(PROTOCOL_FAILED, &m) &&
          m.lane == 6);
    CHECK(m.state == PROTOCOL_FAILED_ENGINE);
    CHECK(admit(7, 1000, (protocol_bytes){0}) && say((protocol_message){.type = PROTOCOL_WATCH, .lane = 7, .state = 1}));
    CHECK(hear(PROTOCOL_PREVIEW, &m) && m.lane == 7 && m.data.count > 40 && memcmp(m.data.bytes, "\x89PNG", 4) == 0);
    CHECK(say((protocol_message){.type = PROTOCOL_DRAIN}) && hear(PROTOCOL_SNAPSHOT, &m) && hear(PROTOCOL_GONE, &m) && m.lane == 7);
    CHECK(hear(PROTOCOL_DRAINED, &m));
    CHECK(admit(8, 10, (protocol_bytes){0}) && hear(PROTOCOL_GONE, &m) && m.lane == 8);
    close_line();
    CHECK_OK(worker_outcome, worker_error);
}

/* Every break of the protocol ends the connection, with a reason. */
static void breaches_end_the_line(void)
{
    const protocol_message wrong[] = {{.type = PROTOCOL_HELLO}, {.type = PROTOCOL_STORED, .lane = 1}};
    for (int i = 0; i < 4; i++) {
        CHECK(open_ready_line());
        protocol_message m;
        CHECK(admit(1, 1000, (protocol_bytes){0}) && hear(PROTOCOL_ADMITTED, &m));
        if (i < 2)
            CHECK(say(wrong[i]));
        if (i == 2)
            CHECK(admit(1, 10, (protocol_bytes){0}));
        for (uint64_t lane = 2; i == 3 && lane < WORKER_CREDIT + 2; lane++)
            CHECK(admit(lane, 1000, (protocol_bytes){0}));
        CHECK(!hear(PROTOCOL_DRAINED, &m) && line.ended);
        close_line();
        CHECK_MSG(worker_outcome == DN_INVALID && worker_error.message[0], "breach %d is accepted", i);
    }
}

static void missing_model_is_told(void)
{
    CHECK(open_line("/nonexistent"));
    protocol_message m;
    CHECK(hear(PROTOCOL_MODEL, &m) && hear(PROTOCOL_MODEL, &m) && m.state == PROTOCOL_MODEL_FAILED && m.data.count > 0);
    CHECK(admit(1, 10, (protocol_bytes){0}) && hear(PROTOCOL_FAILED, &m) && m.state == PROTOCOL_FAILED_MODEL && m.text.count > 0);
    close_line();
    CHECK_OK(worker_outcome, worker_error);
}

static bool lane_in(const protocol_message *tick, uint64_t lane)
{
    for (uint32_t i = 0; i < tick->lane_count; i++)
        if (protocol_lane_at(tick, i).lane == lane)
            return true;
    return false;
}

/* Four lanes fill the batch. The urgent one is in the very next tick, in the place of the least urgent of them, which is set aside; it
 * comes back when there is room, and becomes the picture that it would have been. Lanes of the same priority make way for nobody. */
static void urgent_lane_takes_a_place(void)
{
    unsigned char alone[6][32], crowded[6][32];
    static const int priorities[6] = {0, 0, -5, 0, 0, 5};
    protocol_message m;
    CHECK(open_ready_line());
    for (uint64_t lane = 1; lane <= 5; lane++) {
        CHECK(admit_as(lane, lane == 5 ? 20 : 300, lane, 0, (protocol_bytes){0}) && hear(PROTOCOL_IMAGE, &m) && m.lane == lane);
        memcpy(alone[lane], m.sha256, 32);
        CHECK(say((protocol_message){.type = PROTOCOL_STORED, .lane = lane}));
    }
    for (uint64_t lane = 1; lane <= 4; lane++)
        CHECK(admit_as(lane, 300, lane, priorities[lane], (protocol_bytes){0}));
    do
        CHECK(hear(PROTOCOL_TICK, &m));
    while (m.lane_count < 4);
    CHECK(admit_as(5, 20, 5, priorities[5], (protocol_bytes){0}));
    CHECK(hear(PROTOCOL_ASIDE, &m) && m.lane == 2);
    CHECK(hear(PROTOCOL_TICK, &m) && m.rows == 8 && lane_in(&m, 5) && !lane_in(&m, 2));
    bool came_back = false;
    for (int images = 0, order = 0; images < 5;) {
        CHECK(hear_any(&m));
        CHECK(m.type != PROTOCOL_ASIDE);
        came_back |= m.type == PROTOCOL_ADMITTED && m.lane == 2 && m.steps_done > 0 && m.text.count == 0;
        if (m.type != PROTOCOL_IMAGE)
            continue;
        CHECK_MSG(order++ > 0 || m.lane == 5, "lane %llu ends before the urgent one", (unsigned long long)m.lane);
        memcpy(crowded[m.lane], m.sha256, 32);
        images++;
    }
    CHECK(came_back);
    for (int lane = 1; lane <= 5; lane++)
        CHECK_MSG(memcmp(alone[lane], crowded[lane], 32) == 0, "lane %d became another picture", lane);
    close_line();
    CHECK_OK(worker_outcome, worker_error);
}

/* What was set aside is not lost when the worker lets go of everything. */
static void lane_set_aside_is_snapshotted_at_a_drain(void)
{
    protocol_message m;
    CHECK(open_ready_line());
    for (uint64_t lane = 1; lane <= 4; lane++)
        CHECK(admit_as(lane, 1000, lane, -1, (protocol_bytes){0}));
    do
        CHECK(hear(PROTOCOL_TICK, &m));
    while (m.lane_count < 4);
    CHECK(admit_as(5, 1000, 5, 1, (protocol_bytes){0}) && hear(PROTOCOL_ASIDE, &m) && m.lane == 4);
    /* The sixth has never entered here: it is given back as it came, at its two steps. */
    CHECK(admit_as(6, 1000, 6, -1, protocol_text("somebody's snapshot")) && say((protocol_message){.type = PROTOCOL_DRAIN}));
    bool kept = false, untouched = false;
    for (m.type = PROTOCOL_ALIVE; m.type != PROTOCOL_DRAINED;) {
        CHECK(hear_any(&m));
        kept |= m.type == PROTOCOL_SNAPSHOT && m.lane == 4 && m.steps_done > 0 && m.data.count > 0;
        untouched |= m.type == PROTOCOL_SNAPSHOT && m.lane == 6 && m.steps_done == 2 && m.data.count == strlen("somebody's snapshot");
    }
    CHECK(kept && untouched);
    close_line();
    CHECK_OK(worker_outcome, worker_error);
}

int main(void)
{
    snprintf(root, sizeof root, "/tmp/dn-worker-XXXXXX");
    if (!mkdtemp(root))
        return 1;
    snprintf(model_folder, sizeof model_folder, "%s/model", root);
    make_model(model_folder);
    RUN(lane_goes_on_from_a_snapshot);
    RUN(words_are_answered);
    RUN(breaches_end_the_line);
    RUN(missing_model_is_told);
    RUN(policies_differ_in_company_alone);
    RUN(urgent_lane_takes_a_place);
    RUN(lane_set_aside_is_snapshotted_at_a_drain);
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return test_end();
}
