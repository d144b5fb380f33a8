/* The registry of AUTOMATIC1111's calls: whose they are, which are open, who makes room, and what is watched. */
#include <string.h>

#include "server/sdapi_calls.h"
#include "tests/test.h"

static hub *h;
static sdapi_calls *calls;

static void begin(void)
{
    dn_error error;
    if (hub_create(&h, &error) != DN_OK || sdapi_calls_create(&calls, h, &error) != DN_OK) {
        abort();
    }
}

static void end(void)
{
    sdapi_calls_free(calls);
    hub_free(h);
}

static sdapi_call made(const char *client, unsigned number, const char *task)
{
    sdapi_call call = {.n_iter = 1};
    snprintf(call.client, sizeof call.client, "%s", client);
    snprintf(call.id, sizeof call.id, "job%023u", number);
    snprintf(call.task, sizeof call.task, "%s", task);
    return call;
}

static void add(const char *client, unsigned number, const char *task)
{
    const sdapi_call call = made(client, number, task);
    sdapi_calls_add(calls, &call);
}

static bool finds(const char *client, const char *task, unsigned number)
{
    sdapi_call found;
    const sdapi_call wanted = made("", number, "");
    return sdapi_calls_find(calls, client, task, &found) && strcmp(found.id, wanted.id) == 0;
}

static void calls_are_their_clients(void)
{
    sdapi_call open[4];
    begin();
    add("alice", 1, "one");
    add("bob", 2, "one");
    add("alice", 3, "");
    const sdapi_call third = made("alice", 3, "");
    CHECK(finds("alice", "one", 1) && finds("bob", "one", 2) && finds(NULL, "one", 2));
    CHECK(finds("alice", third.id, 3) && !finds("bob", third.id, 3) && !finds("alice", "", 3) && !finds("alice", "two", 1));
    CHECK(sdapi_calls_open(calls, "alice", open, 4) == 2 && strcmp(open[1].id, third.id) == 0);
    CHECK(sdapi_calls_open(calls, "alice", open, 1) == 1 && strcmp(open[0].task, "one") == 0);
    sdapi_calls_end(calls, open[0].id);
    CHECK(sdapi_calls_open(calls, "alice", open, 4) == 1 && sdapi_calls_open(calls, "bob", open, 4) == 1);
    CHECK(finds("alice", "one", 1)); /* ended ones are found, too */
    add("alice", 4, "one");
    CHECK(finds("alice", "one", 4)); /* the newest of a name */
    add("mallory", 3, "x");
    CHECK(!finds("mallory", "x", 3)); /* a call of the same job is that one */
    end();
}

static void the_oldest_that_ended_makes_room(void)
{
    begin();
    for (unsigned i = 0; i < SDAPI_CALLS_MAX; i++) {
        add("alice", i, "");
    }
    for (unsigned i = 5; i < 8; i++) {
        const sdapi_call one = made("alice", i, "");
        sdapi_calls_end(calls, one.id);
    }
    for (unsigned i = 0; i < 4; i++) { /* 5, 6 and 7 go, then the oldest that is open */
        add("bob", 5000 + i, "");
    }
    for (unsigned i = 0; i < 10; i++) {
        const sdapi_call one = made("alice", i, "");
        const bool gone = i == 0 || (i >= 5 && i < 8);
        CHECK_MSG(finds("alice", one.id, i) == !gone, "call %u", i);
    }
    for (unsigned i = 0; i < 4; i++) {
        const sdapi_call one = made("bob", 5000 + i, "");
        CHECK_MSG(finds("bob", one.id, 5000 + i), "bob's call %u", i);
    }
    end();
}

static void a_busy_client_pushes_out_its_own_calls(void)
{
    begin();
    const sdapi_call hers = made("alice", 1, ""), his = made("bob", 6000, "");
    add("alice", 1, "");
    for (unsigned i = 0; i < 2 * SDAPI_CALLS_MAX; i++) {
        add("bob", 5000 + i, "");
    }
    CHECK(finds("alice", hers.id, 1));
    CHECK(!finds("bob", his.id, 6000));
    const sdapi_call last = made("bob", 5000 + 2 * SDAPI_CALLS_MAX - 1, "");
    CHECK(finds("bob", last.id, 5000 + 2 * SDAPI_CALLS_MAX - 1));
    end();
}

static void previews_are_wanted_while_a_call_is_open_and_looked_at(void)
{
    begin();
    add("alice", 1, "");
    const sdapi_call one = made("alice", 1, ""), unknown = made("alice", 2, "");
    CHECK(!hub_previews_wanted(h, one.id));
    sdapi_calls_watch(calls, one.id);
    sdapi_calls_watch(calls, one.id);
    sdapi_calls_watch(calls, unknown.id);
    CHECK(hub_previews_wanted(h, one.id) && !hub_previews_wanted(h, unknown.id));
    sdapi_calls_end(calls, one.id);
    CHECK(!hub_previews_wanted(h, one.id));
    sdapi_calls_watch(calls, one.id);
    CHECK(!hub_previews_wanted(h, one.id));
    add("alice", 3, "");
    const sdapi_call third = made("alice", 3, "");
    sdapi_calls_watch(calls, third.id);
    end(); /* what is still watched ends with it */
}

static void clients_choose_models(void)
{
    char model[65] = "";
    begin();
    CHECK(!sdapi_calls_model(calls, "alice", model));
    sdapi_calls_choose(calls, "alice", "one");
    sdapi_calls_choose(calls, "bob", "two");
    sdapi_calls_choose(calls, "alice", "three");
    CHECK(sdapi_calls_model(calls, "alice", model) && strcmp(model, "three") == 0);
    CHECK(sdapi_calls_model(calls, "bob", model) && strcmp(model, "two") == 0);
    for (unsigned i = 2; i < SDAPI_CLIENTS_MAX; i++) {
        char client[16];
        snprintf(client, sizeof client, "client%u", i);
        sdapi_calls_choose(calls, client, "one");
    }
    /* Keys that were revoked long ago hold no place for ever: who has been silent for longest makes room. */
    CHECK(sdapi_calls_model(calls, "alice", model));
    sdapi_calls_choose(calls, "one too many", "four");
    CHECK(sdapi_calls_model(calls, "one too many", model) && strcmp(model, "four") == 0);
    CHECK(!sdapi_calls_model(calls, "bob", model));
    CHECK(sdapi_calls_model(calls, "alice", model) && strcmp(model, "three") == 0);
    CHECK(sdapi_calls_model(calls, "client2", model) && strcmp(model, "one") == 0);
    end();
}

int main(void)
{
    RUN(calls_are_their_clients);
    RUN(the_oldest_that_ended_makes_room);
    RUN(a_busy_client_pushes_out_its_own_calls);
    RUN(previews_are_wanted_while_a_call_is_open_and_looked_at);
    RUN(clients_choose_models);
    return test_end();
}
