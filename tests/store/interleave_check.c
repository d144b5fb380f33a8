/* See interleave_check.h. */
#include "tests/store/interleave_check.h"

static char wrong[600];

#define REQUIRE(condition, ...)                                                                                                            \
    do {                                                                                                                                   \
        if (!(condition)) {                                                                                                                \
            snprintf(wrong, sizeof wrong, __VA_ARGS__);                                                                                    \
            return wrong;                                                                                                                  \
        }                                                                                                                                  \
    } while (0)

static bool ends(const char *name)
{
    return strcmp(name, "succeeded") == 0 || strcmp(name, "failed") == 0 || strcmp(name, "canceled") == 0;
}

/* Numbered from 1 without a gap, and nothing after an end. */
static bool sound(const store_event *events, size_t count)
{
    bool fine = true;
    for (size_t i = 0; i < count; i++) {
        fine = fine && events[i].seq == (int64_t)i + 1 && (!ends(events[i].name) || i + 1 == count);
    }
    return fine;
}

store_result check_read(const char *id)
{
    store_job job;
    store_image *images = NULL;
    store_event *events = NULL;
    size_t image_count = 0, event_count = 0;
    if (store_get(st, NULL, id, &job) != STORE_OK) {
        return STORE_STALE; /* it was told, and tombstones stay */
    }
    const store_result seen = store_images(st, id, &images, &image_count), heard = store_events(st, id, 0, &events, &event_count);
    bool fine = (seen == STORE_OK || seen == STORE_GONE) && (heard == STORE_OK || heard == STORE_GONE);
    fine = fine && (seen != STORE_OK || (image_count >= (job.expired ? 0 : job.images_done) && image_count <= job.n));
    fine = fine && !(job.expired && (seen == STORE_OK || heard == STORE_OK)) && !(seen == STORE_GONE && heard == STORE_OK);
    fine = fine && (heard != STORE_OK || (event_count > 0 && sound(events, event_count)));
    for (size_t i = 0; i < image_count; i++) {
        fine = fine && images[i].index < job.n && (!i || images[i].index > images[i - 1].index);
    }
    store_images_free(images, image_count);
    store_events_free(events, event_count);
    store_job_done(&job);
    return fine ? STORE_OK : STORE_STALE;
}

static const char *read_jobs(void)
{
    store_job *jobs = NULL;
    size_t count = 0;
    char next[64];
    scene.job_count = 0;
    /* Expired jobs are in no list, so what sessions were told of is looked up too. */
    REQUIRE(store_list(st, NULL, NULL, NULL, NULL, SCENE_JOBS_MAX, &jobs, &count, next) == STORE_OK, "the list failed");
    for (size_t i = count; i-- > 0;) {
        scene.jobs[scene.job_count++] = job_of(jobs[i].id);
        store_job_done(&jobs[i]);
    }
    free(jobs);
    for (unsigned number = 1; number <= SCENE_JOBS_MAX; number++) {
        char id[27] = NOBODY;
        id[25] = (char)('a' + number);
        const store_job job = job_of(id);
        if ((int)job.state >= 0 && job.expired && scene.job_count < SCENE_JOBS_MAX) {
            scene.jobs[scene.job_count++] = job;
        }
    }
    for (size_t i = 0; i < scene.job_count; i++) {
        for (size_t k = i + 1; k < scene.job_count; k++) {
            if (scene.jobs[k].row < scene.jobs[i].row) {
                const store_job other = scene.jobs[i];
                scene.jobs[i] = scene.jobs[k];
                scene.jobs[k] = other;
            }
        }
    }
    for (size_t i = 0; i < scene.job_count; i++) {
        snprintf(scene.milestones[i], sizeof scene.milestones[i], "%s", milestones(scene.jobs[i].id));
    }
    return NULL;
}

static const char *check_job(const store_job *job)
{
    store_event *events = NULL;
    size_t count = 0;
    const store_result result = store_events(st, job->id, 0, &events, &count);
    bool fine = result == (job->expired ? STORE_GONE : STORE_OK);
    fine = fine && (job->expired || (count > 0 && sound(events, count) && ends(events[count - 1].name) == api_state_ended(job->state)));
    store_events_free(events, count);
    REQUIRE(fine, "the milestones of %s do not tell its state", job->id);
    REQUIRE(job->state != API_STATE_SUCCEEDED || job->images_done == job->n, "%s succeeded with %u images", job->id, job->images_done);
    return NULL;
}

/* Each file that was taken is named by a row or was given back to be unlinked, once; none that was refused is. */
static const char *check_file(const char *file, bool taken)
{
    size_t rows = 0, given = 0;
    for (size_t i = 0; i < scene.job_count; i++) {
        store_image *images = NULL;
        size_t count = 0;
        if (store_images(st, scene.jobs[i].id, &images, &count) == STORE_OK) {
            for (size_t k = 0; k < count; k++) {
                rows += strcmp(images[k].file, file) == 0;
            }
            store_images_free(images, count);
        }
    }
    for (size_t i = 0; i < scene.unlinked_count; i++) {
        given += strncmp(scene.unlinked[i], "images/", 7) == 0 && strcmp(scene.unlinked[i] + 7, file) == 0;
    }
    REQUIRE(rows + given == taken, "%s, which was %s, has %zu rows and was given back %zu times", file, taken ? "stored" : "refused", rows,
            given);
    return NULL;
}

static const char *check_totals(void)
{
    store_stats told, counted = {0};
    REQUIRE(store_get_stats(st, &told) == STORE_OK, "no totals");
    for (size_t i = 0; i < scene.job_count; i++) {
        counted.jobs[scene.jobs[i].state]++;
    }
    REQUIRE(memcmp(told.jobs, counted.jobs, sizeof told.jobs) == 0, "the totals are not those of the jobs");
    return NULL;
}

/* No token is had by two claims. */
static const char *check_claims(void)
{
    for (size_t all = 0; all < SESSIONS_MAX * WORDS_MAX; all++) {
        for (size_t other = all + 1; other < SESSIONS_MAX * WORDS_MAX; other++) {
            const size_t a = all / WORDS_MAX, i = all % WORDS_MAX, b = other / WORDS_MAX, k = other % WORDS_MAX;
            const bool same = scene.sessions[a].tokens[i] && scene.sessions[a].tokens[i] == scene.sessions[b].tokens[k] &&
                              strcmp(scene.sessions[a].ids[i], scene.sessions[b].ids[k]) == 0;
            REQUIRE(!same, "two claims have %s under one token", scene.sessions[a].ids[i]);
        }
    }
    return NULL;
}

const char *check_always(void)
{
    const char *found = read_jobs();
    for (size_t i = 0; !found && i < scene.job_count; i++) {
        found = check_job(&scene.jobs[i]);
    }
    for (size_t s = 0; s < scene.session_count; s++) {
        for (size_t i = 0; !found && i < scene.sessions[s].count; i++) {
            if (scene.sessions[s].files[i][0]) {
                found = check_file(scene.sessions[s].files[i], scene.sessions[s].results[i] == STORE_OK);
            }
            if (!found && strcmp(scene.sessions[s].words[i], "read") == 0 && scene.sessions[s].results[i] == STORE_STALE) {
                found = "a reader saw something torn";
            }
        }
    }
    found = found ? found : check_claims();
    return found ? found : check_totals();
}

static int number_of(const char *id)
{
    for (size_t i = 0; i < scene.job_count; i++) {
        if (strcmp(scene.jobs[i].id, id) == 0) {
            return (int)i + 1;
        }
    }
    return 0;
}

void describe_outcome(char out[OUTCOME_BYTES])
{
    size_t used = 0;
    out[0] = 0;
#define SAY(...) used += (size_t)snprintf(out + used, used < OUTCOME_BYTES ? OUTCOME_BYTES - used : 0, __VA_ARGS__)
    for (size_t s = 0; s < scene.session_count; s++) {
        for (size_t i = 0; i < scene.sessions[s].count; i++) {
            if (strcmp(scene.sessions[s].words[i], "read") != 0) {
                SAY("%zu:%s=%d", s + 1, scene.sessions[s].words[i], (int)scene.sessions[s].results[i]);
                SAY("(%d,%lld) ", number_of(scene.sessions[s].ids[i]), (long long)scene.sessions[s].tokens[i]);
            }
        }
    }
    for (size_t i = 0; i < scene.job_count; i++) {
        const store_job *job = &scene.jobs[i];
        SAY("| job %zu: %s%s%s, %u images, %u crashes, delay %d: %s ", i + 1, api_state_name(job->state), job->expired ? ", expired" : "",
            job->cancel_requested ? ", asked" : "", job->images_done, job->crashes, job->run_at_ms != 0, scene.milestones[i]);
    }
#undef SAY
}
