/* The hub: latest wins, wake-ups reach their owner, and an unsubscribed owner is never called again. */
#include "server/hub.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/test.h"

static const char job[] = "aaaaaaaaaaaaaaaaaaaaaaaaaa", other[] = "bbbbbbbbbbbbbbbbbbbbbbbbbb";

static void count_wake(void *payload)
{
    atomic_fetch_add((atomic_int *)payload, 1);
}

static void progress_latest_wins(void)
{
    hub *h = NULL;
    CHECK(hub_create(&h, NULL) == DN_OK);
    hub_live live;
    hub_read(h, job, &live);
    CHECK(!live.known && live.eta_seconds < 0);
    atomic_int woken = 0;
    hub_subscription *s = hub_subscribe(h, job, false, count_wake, &woken);
    CHECK(s);
    hub_read(h, job, &live);
    CHECK(!live.known);
    hub_milestone(h, job, 1, false);
    hub_progress(h, job, 3, 20, 0, 1.5);
    hub_progress(h, job, 4, 20, 1, 1.25);
    hub_progress(h, other, 1, 2, 0, -1);
    hub_read(h, job, &live);
    CHECK(live.known && live.seq == 1 && live.done == 4 && live.total == 20 && live.images_done == 1 && live.eta_seconds <= 1.25 &&
          live.eta_seconds > 0);
    CHECK(live.version == 2 && woken == 3);
    hub_milestone(h, job, 7, true);
    hub_milestone(h, job, 6, false);
    hub_read(h, job, &live);
    CHECK(live.seq == 7 && live.ended);
    hub_unsubscribe(h, s);
    hub_read(h, job, &live);
    CHECK(!live.known);
    hub_forget(h, other);
    hub_forget(h, job);
    hub_free(h);
}

static void previews_go_to_those_who_asked(void)
{
    hub *h = NULL;
    CHECK(hub_create(&h, NULL) == DN_OK);
    atomic_int plain = 0, wanting = 0;
    hub_subscription *a = hub_subscribe(h, job, false, count_wake, &plain);
    const unsigned char png[] = "not a picture";
    hub_preview(h, job, 0, 1, 20, 8, 8, png, sizeof png);
    CHECK(!hub_previews_wanted(h, job));
    hub_subscription *b = hub_subscribe(h, job, true, count_wake, &wanting);
    CHECK(hub_previews_wanted(h, job) && !hub_previews_wanted(h, other));
    hub_preview_view view;
    CHECK(!hub_next_preview(h, job, 0, &view));
    hub_preview(h, job, 0, 2, 20, 8, 8, png, 3);
    hub_preview(h, job, 1, 3, 20, 8, 8, png, 4);
    hub_preview(h, job, 0, 4, 20, 8, 8, png, 5);
    hub_preview(h, job, 64, 4, 20, 8, 8, png, 5);
    CHECK(plain == 0 && wanting == 3);
    CHECK(hub_next_preview(h, job, 0, &view) && view.index == 1 && view.bytes == 4 && memcmp(view.png, png, 4) == 0);
    free(view.png);
    const uint64_t after = view.version;
    CHECK(hub_next_preview(h, job, after, &view) && view.index == 0 && view.done == 4 && view.bytes == 5);
    free(view.png);
    CHECK(!hub_next_preview(h, job, view.version, &view));
    hub_unsubscribe(h, a);
    hub_unsubscribe(h, b);
    CHECK(!hub_previews_wanted(h, job));
    hub_free(h);
}

static void a_moving_queue_is_seen_and_wakes_nobody(void)
{
    hub *h = NULL;
    CHECK(hub_create(&h, NULL) == DN_OK);
    atomic_int waiting = 0;
    hub_subscription *a = hub_subscribe(h, job, false, count_wake, &waiting);
    hub_live before, after;
    hub_read(h, job, &before);
    hub_queue_moved(h);
    hub_read(h, job, &after);
    CHECK(after.queue_version != before.queue_version && waiting == 0);
    hub_unsubscribe(h, a);
    hub_free(h);
}

typedef struct owner {
    atomic_int alive, wrong, calls;
} owner;

static void check_alive(void *payload)
{
    owner *o = payload;
    atomic_fetch_add(&o->calls, 1);
    if (!atomic_load(&o->alive))
        atomic_fetch_add(&o->wrong, 1);
    usleep(50);
    if (!atomic_load(&o->alive))
        atomic_fetch_add(&o->wrong, 1);
}

static atomic_int stop_publishing;

static void *publish(void *payload)
{
    hub *h = payload;
    for (uint64_t i = 0; !atomic_load(&stop_publishing); i++) {
        hub_progress(h, job, i, 0, 0, -1);
        hub_queue_moved(h);
        hub_milestone(h, job, (int64_t)i, i % 7 == 0);
    }
    return NULL;
}

static void unsubscribed_owners_are_left_alone(void)
{
    hub *h = NULL;
    CHECK(hub_create(&h, NULL) == DN_OK);
    stop_publishing = 0;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, publish, h) == 0);
    owner owners[8] = {0};
    int calls = 0, wrong = 0;
    for (int round = 0; round < 100000 && (round < 200 || calls < 100); round++) {
        hub_subscription *s[8];
        for (int i = 0; i < 8; i++) {
            owners[i].alive = 1;
            s[i] = hub_subscribe(h, job, false, check_alive, &owners[i]);
        }
        for (int i = 0; i < 8; i++) {
            hub_unsubscribe(h, s[i]);
            owners[i].alive = 0;
        }
        calls = 0;
        for (int i = 0; i < 8; i++)
            calls += owners[i].calls;
    }
    stop_publishing = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        wrong += owners[i].wrong;
    hub_forget(h, job);
    hub_free(h);
    CHECK_MSG(wrong == 0 && calls > 0, "%d of %d calls came after hub_unsubscribe", wrong, calls);
}

int main(void)
{
    RUN(progress_latest_wins);
    RUN(previews_go_to_those_who_asked);
    RUN(a_moving_queue_is_seen_and_wakes_nobody);
    RUN(unsubscribed_owners_are_left_alone);
    return test_end();
}
