/* What the store keeps beside jobs: descriptions of models, input pictures. */
#include <fcntl.h>
#include <unistd.h>

#include "tests/store/contract.h"

static void models_are_remembered(void)
{
    CHECK(fresh());
    char *json = NULL;
    CHECK(store_model(st, "m", &json) == STORE_NONE);
    for (int i = 0; i < 2; i++) {
        store_request *r = store_request_create(STORE_MODEL, NULL, NULL);
        snprintf(r->model_name, sizeof r->model_name, "m");
        r->model_json = strdup(i ? "{\"second\":1}" : "{\"first\":1}");
        CHECK(finish_call(r).result == STORE_OK);
    }
    CHECK_OK(open_store(), error);
    CHECK(store_model(st, "m", &json) == STORE_OK);
    bool right = strcmp(json, "{\"second\":1}") == 0;
    free(json);
    CHECK(right);
}

static void models_of_queued_jobs_are_told_once(void)
{
    char id[27];
    CHECK(fresh());
    char **names = store_queued_models(st);
    const bool empty = names && !names[0];
    free(names);
    CHECK(empty);
    CHECK(enqueue(id, (spec){.model = "runs"}) == STORE_OK);
    claim_one();
    CHECK(enqueue(id, (spec){.model = "b", .jobs = 3}) == STORE_OK && enqueue(id, (spec){.model = "a", .priority = 1}) == STORE_OK);
    CHECK(enqueue(id, (spec){.model = "ended"}) == STORE_OK && cancel_job("alice", id).ended);
    names = store_queued_models(st);
    int a = 0, b = 0, others = 0;
    for (char **name = names; name && *name; name++) {
        a += strcmp(*name, "a") == 0;
        b += strcmp(*name, "b") == 0;
        others += strcmp(*name, "a") != 0 && strcmp(*name, "b") != 0;
        free(*name);
    }
    free(names);
    CHECK(a == 1 && b == 1 && others == 0);
}

/* ---- Input pictures: files that belong to jobs */
static void make_input(char name[64], const char *id, const char *suffix)
{
    snprintf(name, 64, "%.26s%s", id, suffix);
    char *path = store_path(st, "inputs", name);
    const int fd = path ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        close(fd);
    }
    free(path);
}

static void inputs_go_with_the_end_of_their_job(void)
{
    char ids[4][27], names[5][64];
    CHECK(fresh());
    for (int i = 0; i < 4; i++) {
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
        make_input(names[i], ids[i], i % 2 ? "-mask.png" : "-init.png");
    }
    make_input(names[4], "bbbbbbbbbbbbbbbbbbbbbbbbbb", "-init.png"); /* of a job that is about to be accepted */
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 0).ended);
    claim_one();
    CHECK(cancel_job("alice", ids[3]).ended);
    store_drop_inputs(st);
    CHECK(!file_exists("inputs", names[0]) && file_exists("inputs", names[1]) && file_exists("inputs", names[2]));
    CHECK(!file_exists("inputs", names[3]) && file_exists("inputs", names[4]));
    CHECK_OK(open_store(), error); /* only now it is nobody's */
    CHECK(!file_exists("inputs", names[4]) && file_exists("inputs", names[1]) && file_exists("inputs", names[2]));
}

static void purge_names_the_inputs(void)
{
    CHECK(fresh());
    store_request *r = enqueue_request((spec){0});
    char id[27];
    memcpy(id, r->jobs[0].id, 27);
    free(r->jobs[0].request_json);
    r->jobs[0].request_json = strdup("{\"model\":\"m\",\"init_image\":\"x\",\"mask_image\":\"y\"}");
    CHECK(finish_call(r).result == STORE_OK);
    r = job_request(STORE_PURGE, id, 0);
    bool fine = store_call(st, r) == STORE_OK && r->file_count == 2;
    char expected[2][64];
    snprintf(expected[0], sizeof expected[0], "inputs/%s-init.png", id);
    snprintf(expected[1], sizeof expected[1], "inputs/%s-mask.png", id);
    fine = fine && strcmp(r->files[0], expected[0]) == 0 && strcmp(r->files[1], expected[1]) == 0;
    store_request_free(r);
    CHECK(fine);
}

/* ---- API keys: written beside the open store, as another process would */
static bool add_key(const char *number, const char *client, unsigned char hash)
{
    store_key key = {.scopes = STORE_SCOPE_SUBMIT | STORE_SCOPE_READ, .rate = 2.5, .pending_jobs = 7, .budget = 0.25};
    snprintf(key.number, sizeof key.number, "%s", number);
    snprintf(key.client, sizeof key.client, "%s", client);
    memset(key.hash, hash, sizeof key.hash);
    return store_key_add(options.folder, &key, &error) == DN_OK;
}

static void keys_are_seen_while_the_store_is_open(void)
{
    store_key *keys = NULL;
    size_t count = 9;
    CHECK(fresh());
    CHECK(store_keys(st, &keys, &count) == STORE_OK && count == 0);
    free(keys);
    CHECK(add_key("zz", "alice", 1) && add_key("aa", "bob", 2));
    CHECK(store_keys(st, &keys, &count) == STORE_OK && count == 2);
    const store_key *alice = &keys[strcmp(keys[0].number, "zz") != 0], *bob = &keys[strcmp(keys[0].number, "zz") == 0];
    const bool whole = strcmp(alice->number, "zz") == 0 && strcmp(alice->client, "alice") == 0 && strcmp(bob->client, "bob") == 0 &&
                       bob->hash[0] == 2 && bob->hash[31] == 2 && alice->scopes == (STORE_SCOPE_SUBMIT | STORE_SCOPE_READ) &&
                       alice->rate == 2.5 && alice->pending_jobs == 7 && alice->budget == 0.25 && alice->revoked_ms == 0;
    free(keys);
    CHECK(whole);
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK); /* and the store writes on */
}

static void a_revoked_key_stays_revoked(void)
{
    store_key *keys = NULL;
    size_t count = 0;
    bool found = false;
    CHECK(fresh() && add_key("k1", "alice", 1));
    CHECK(store_key_revoke(options.folder, "k2", &found, &error) == DN_OK && !found);
    CHECK(store_key_revoke(options.folder, "k1", &found, &error) == DN_OK && found);
    CHECK(store_key_revoke(options.folder, "k1", &found, &error) == DN_OK && !found); /* it was not good any more */
    CHECK(!add_key("k1", "mallory", 3)); /* its number is not given out again */
    CHECK_OK(open_store(), error);
    CHECK(store_keys(st, &keys, &count) == STORE_OK && count == 1);
    const bool revoked = keys[0].revoked_ms > 0 && strcmp(keys[0].client, "alice") == 0;
    free(keys);
    CHECK(revoked);
}

static const contract_case CASES[] = {
    CASE(models_are_remembered),  CASE(models_of_queued_jobs_are_told_once),   CASE(inputs_go_with_the_end_of_their_job),
    CASE(purge_names_the_inputs), CASE(keys_are_seen_while_the_store_is_open), CASE(a_revoked_key_stays_revoked),
};
CONTRACT_GROUP(contract_memory, CASES)
