/* The interleavings that matter, by name; each with what must hold of it. `test_store_interleavings NAME` tries that one alone, with many
 * more rounds of threads. */
#include "tests/store/interleave.h"

#define THREAD_ROUNDS 8

static const store_job *job(int number)
{
    return &scene.jobs[number - 1];
}

static bool is_state(api_state state)
{
    return scene.job_count > 0 && job(1)->state == state;
}

/* How many words of that name had that result, in all sessions. */
static int count_results(const char *word, store_result result)
{
    int count = 0;
    for (size_t s = 0; s < scene.session_count; s++) {
        for (size_t i = 0; i < scene.sessions[s].count; i++) {
            count += strcmp(scene.sessions[s].words[i], word) == 0 && scene.sessions[s].results[i] == result;
        }
    }
    return count;
}

/* ---- Invariants */
static const char *the_first_commit_wins(void)
{
    const int cancel = result_of(1, "cancel");
    if (cancel == STORE_OK) {
        return is_state(API_STATE_CANCELED) || (is_state(API_STATE_RUNNING) && job(1)->cancel_requested)
                   ? NULL
                   : "a cancel that was promised did not come";
    }
    return cancel == STORE_ENDED && api_state_ended(job(1)->state) && !job(1)->cancel_requested
               ? NULL
               : "a cancel came too late and told so falsely";
}

static const char *a_cancel_or_a_failure(void)
{
    if (result_of(1, "cancel") == STORE_OK && !is_state(API_STATE_CANCELED)) {
        return "canceled, and yet not";
    }
    return result_of(2, "claim") == STORE_NONE && api_state_ended(job(1)->state) ? NULL : "an ended job was claimed";
}

static const char *images_once(void)
{
    if (count_results("image0", STORE_OK) > 1 || count_results("image1", STORE_OK) > 1) {
        return "an image was stored twice";
    }
    return job(1)->images_done == (unsigned)(count_results("image0", STORE_OK) + count_results("image1", STORE_OK))
               ? NULL
               : "the images that were taken are not those that are there";
}

/* One of a run's own ends is its end. */
static const char *one_end_of_a_run(void)
{
    const int ends = (result_of(0, "requeue") == STORE_OK) + (result_of(1, "crash") == STORE_OK) + (result_of(2, "fail") == STORE_OK);
    return ends == 1 ? NULL : "a run ended more than once, or never";
}

static const char *purged_in_the_end(void)
{
    if (result_of(1, "purge") != STORE_OK) {
        return "the purge was refused";
    }
    return api_state_ended(job(1)->state) || job(1)->cancel_requested ? images_once() : "a purged job goes on";
}

static const char *the_key_keeps_its_job(void)
{
    for (size_t i = 0; i < scene.sessions[2].count; i++) {
        if (strcmp(scene.sessions[2].words[i], "postk") == 0 && scene.sessions[2].results[i] != STORE_REPLAY) {
            return "a key was forgotten before its job";
        }
    }
    return scene.job_count == 1 ? NULL : "a key has two jobs";
}

static const char *one_job_of_a_key(void)
{
    const int made = count_results("postk", STORE_OK), again = count_results("postk", STORE_REPLAY);
    char first[27] = "";
    for (size_t s = 0; s < scene.session_count; s++) {
        for (size_t i = 0; i < scene.sessions[s].count; i++) {
            const char *id = scene.sessions[s].ids[i];
            if (id[0] && first[0] && strcmp(first, id) != 0) {
                return "one key brought two ids";
            }
            snprintf(first, sizeof first, "%s", id[0] ? id : first);
        }
    }
    return made == 1 && again == 1 && scene.job_count == 1 ? NULL : "a key has none or two jobs";
}

static const char *one_body_of_a_key(void)
{
    const int k = result_of(0, "postk"), j = result_of(1, "postj");
    const bool one = (k == STORE_OK && j == STORE_MISMATCH) || (k == STORE_MISMATCH && j == STORE_OK);
    return one && scene.job_count == 1 ? NULL : "a key was used for two bodies";
}

static const char *a_known_key_needs_no_room(void)
{
    const int made = count_results("postk", STORE_OK), again = count_results("postk", STORE_REPLAY),
              no_room = count_results("postk", STORE_QUOTA);
    if (result_of(2, "post") == STORE_OK) {
        return no_room == 2 && scene.job_count == 1 ? NULL : "more jobs than there was room for";
    }
    return made == 1 && again == 1 ? NULL : "a known key was refused for want of room";
}

static const char *all_are_claimed_once(void)
{
    for (int i = 1; i <= 3; i++) {
        if (job(i)->state != API_STATE_RUNNING || job(i)->token != 1 || job(i)->attempt != 1) {
            return "a job was claimed twice, or never";
        }
    }
    return count_results("claim", STORE_NONE) == 1 ? NULL : "four claims of three jobs";
}

static const char *delayed_is_out_of_sight(void)
{
    if (result_of(2, "claim") != STORE_NONE) {
        return "a delayed job was claimed";
    }
    if (result_of(1, "cancel") == STORE_OK) {
        return is_state(API_STATE_CANCELED) ? NULL : "a delayed job was not canceled";
    }
    return "a job that cannot have ended had";
}

static const char *late_or_done(void)
{
    const bool claimed = result_of(1, "claim") == STORE_OK;
    return is_state(claimed ? API_STATE_SUCCEEDED : API_STATE_FAILED) ? NULL : "late and done, or neither";
}

static const char *nothing_stale_counts(void)
{
    /* The second claim's images are the only ones, unless the first has stored its own before it let go. */
    if (result_of(0, "fail") != STORE_STALE) {
        return "a claim that was let go failed the next one";
    }
    return is_state(API_STATE_FAILED) ? "failed by a stale claim" : images_once();
}

static const char *never_more_than_one(void)
{
    store_stats stats;
    if (store_get_stats(st, &stats) != STORE_OK || stats.jobs[API_STATE_QUEUED] + stats.jobs[API_STATE_RUNNING] > 1) {
        return "more jobs pend than the client may have";
    }
    return count_results("post", STORE_OK) >= 1 ? NULL : "nothing was accepted";
}

static const char *asked_is_asked(void)
{
    return is_state(API_STATE_CANCELED) ? images_once() : "asked twice to cancel, and it was not";
}

static const char *purges_agree(void)
{
    const int both = count_results("purge", STORE_OK) + count_results("purge", STORE_GONE);
    const bool gone = scene.unlinked_count == 1 && job(1)->expired;
    return both == 2 && count_results("purge", STORE_OK) <= 1 && gone ? NULL : "of two purges not just one took the picture";
}

static const interleaving SPECS[] = {
    {"cancel_or_the_last_image", "post", {"claim image0", "cancel"}, the_first_commit_wins, 0, 0},
    {"cancel_or_the_last_image_of_two", "post2 claim", {"image0 image1", "cancel", "read read"}, the_first_commit_wins, 0, 0},
    {"requeue_or_image_or_claim", "post claim", {"requeue", "image0", "claim image0"}, images_once, 0, 0},
    {"drain_and_the_late_image", "post2 claim", {"image0 requeue", "image1", "claim image0 image1"}, images_once, 0, 0},
    {"fail_or_cancel_or_claim", "post claim", {"fail", "cancel", "claim"}, a_cancel_or_a_failure, 0, 0},
    {"crash_or_cancel_or_claim", "post claim", {"crash", "cancel", "claim"}, NULL, 0, 0},
    {"delayed_out_of_sight", "post claim crash", {"read", "cancel", "claim claim"}, delayed_is_out_of_sight, 500, 0},
    {"three_ends_of_a_run", "post claim", {"requeue", "crash", "fail"}, one_end_of_a_run, 0, 0},
    {"purge_or_images", "post2 claim", {"image0 image1", "purge", "retention read"}, purged_in_the_end, 10, 0},
    {"purge_twice_or_the_end", "post claim image0", {"purge", "purge", "read retention"}, purges_agree, 10, 0},
    {"retention_or_read_or_replay", "postk claim image0", {"retention", "read read", "postk cancel postk"}, the_key_keeps_its_job, 10, 0},
    {"a_key_twice_and_a_purge", "", {"postk", "postk", "purge purge"}, one_job_of_a_key, 0, 0},
    {"a_key_with_two_bodies", "", {"postk", "postj", "claim"}, one_body_of_a_key, 0, 0},
    {"a_key_at_the_limit", "", {"postk", "postk", "post"}, a_known_key_needs_no_room, 0, 1},
    {"two_claims_of_three", "post post post", {"claim claim", "claim claim", "read"}, all_are_claimed_once, 0, 0},
    {"the_deadline_or_the_claim", "postd", {"deadlines", "claim image0"}, late_or_done, 10, 0},
    {"stale_after_another_claim", "post2 claim", {"requeue fail", "claim image0 image1"}, nothing_stale_counts, 0, 0},
    {"a_limit_of_one", "", {"post", "post", "claim image0"}, never_more_than_one, 0, 1},
    {"cancel_twice_and_let_go", "post2 claim cancel", {"cancel", "image0", "done"}, asked_is_asked, 0, 0},
    {"the_worker_dies_while_canceled", "post claim", {"crash", "cancel done"}, NULL, 0, 0},
};

static const interleaving *current;
static int rounds = THREAD_ROUNDS, all_orders;

static void try_current(void)
{
    int orders = 0;
    const char *wrong = interleave(current, rounds, 1, &orders);
    all_orders += orders;
    CHECK_MSG(!wrong, "%s", wrong);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof SPECS / sizeof SPECS[0]; i++) {
        current = &SPECS[i];
        if (argc < 2 || strcmp(argv[1], current->name) == 0) {
            rounds = argc < 2 ? THREAD_ROUNDS : 2000;
            test_run(current->name, try_current);
        }
    }
    printf("# %d orders, each one by one and in one transaction\n", all_orders);
    end_store_tests();
    return test_end();
}
