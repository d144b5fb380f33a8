/* Holds the data directory of an open store against what disk_life.h wrote down, as of a moment: `until` operations had been done. */
#ifndef DN_TESTS_DISK_JUDGE_H
#define DN_TESTS_DISK_JUDGE_H

#include "tests/store/disk_life.h"

static inline void judge_say(life_ledger *ledger, const char *what, const char *which)
{
    if (!ledger->first[0]) {
        snprintf(ledger->first, sizeof ledger->first, "%.40s: %.150s", what, which);
    }
}

static inline const life_ask *judge_ask_of(const char *id, size_t until)
{
    for (size_t i = 0; i < life.ask_count; i++) {
        for (size_t j = 0; j < life.asks[i].jobs; j++) {
            if (strcmp(life.asks[i].ids[j], id) == 0 && life.asks[i].asked_at <= until) {
                return &life.asks[i];
            }
        }
    }
    return NULL;
}

static inline bool judge_purged(const char *id, size_t until)
{
    bool purged = life.retention_at <= until;
    for (size_t i = 0; i < life.purge_count; i++) {
        purged = purged || (life.purges[i].at <= until && strcmp(life.purges[i].id, id) == 0);
    }
    return purged;
}

static inline void judge_asks(life_ledger *ledger, size_t until)
{
    for (size_t i = 0; i < life.ask_count; i++) {
        const life_ask *ask = &life.asks[i];
        size_t there = 0;
        for (size_t j = 0; j < ask->jobs; j++) {
            there += (int)job_of(ask->ids[j]).state >= 0;
        }
        if (ask->acked_at <= until && there != ask->jobs) {
            ledger->lost++;
            judge_say(ledger, "lost: an acknowledged job", ask->ids[0]);
        } else if (there && (there != ask->jobs || ask->result == STORE_SPACE || ask->result == STORE_BUSY)) {
            ledger->unexpected++;
            judge_say(ledger, "unexpected: a part of an ask, or a refused one", ask->ids[0]);
        } else if (there && ask->acked_at > until) {
            ledger->recovered++;
        }
    }
}

static inline void judge_facts(life_ledger *ledger, size_t until)
{
    for (size_t i = 0; i < life.fact_count; i++) {
        const life_fact *fact = &life.facts[i];
        if (fact->at > until) {
            continue;
        }
        store_job job = job_of(fact->id);
        bool kept = (int)job.state >= 0;
        if (fact->file[0] && kept && !(job.expired && judge_purged(fact->id, until))) {
            store_image *images = NULL;
            size_t count = 0;
            kept = store_images(st, fact->id, &images, &count) == STORE_OK;
            bool found = false;
            for (size_t j = 0; kept && j < count; j++) {
                found = found || strcmp(images[j].file, fact->file) == 0;
            }
            store_images_free(images, count);
            kept = found;
        } else if (!fact->file[0]) {
            kept = kept && job.state == fact->state;
        }
        if (!kept) {
            ledger->lost++;
            judge_say(ledger, fact->file[0] ? "lost: an acknowledged image" : "lost: an acknowledged end", fact->id);
        }
    }
}

static inline void judge_strangers(life_ledger *ledger, size_t until)
{
    char cursor[64] = "", next[64] = "";
    do {
        store_job *jobs = NULL;
        size_t count = 0;
        if (store_list(st, NULL, NULL, NULL, cursor, 100, &jobs, &count, next) != STORE_OK) {
            ledger->lost++;
            judge_say(ledger, "lost", "the list cannot be read");
            return;
        }
        for (size_t i = 0; i < count; i++) {
            if (!judge_ask_of(jobs[i].id, until)) {
                ledger->unexpected++;
                judge_say(ledger, "unexpected: a job that nobody asked for", jobs[i].id);
            }
            store_job_done(&jobs[i]);
        }
        free(jobs);
        memcpy(cursor, next, sizeof cursor);
    } while (cursor[0]);
}

/* Every key is tried again: what was acknowledged is answered again, what was not is made at most once. */
static inline void judge_keys(life_ledger *ledger, size_t until)
{
    for (size_t i = 0; i < life.ask_count; i++) {
        const life_ask *ask = &life.asks[i];
        if (!ask->key[0] || ask->asked_at > until) {
            continue;
        }
        bool there = (int)job_of(ask->ids[0]).state >= 0;
        store_request *r = life_enqueue_of(ask);
        for (size_t j = 0; j < ask->jobs; j++) {
            make_id(r->jobs[j].id);
        }
        store_result result = store_call(st, r);
        bool same = r->id_count == ask->jobs && strcmp(r->ids[0], ask->ids[0]) == 0;
        if (there ? result != STORE_REPLAY || !same : result != STORE_OK) {
            ledger->duplicated++;
            judge_say(ledger, "duplicated: a key is answered otherwise", ask->key);
        }
        store_request_free(r);
    }
}

static inline void judge_found(void *payload, bool damage, const char *what, const char *detail)
{
    char text[300];
    life_ledger *ledger = payload;
    snprintf(text, sizeof text, "%s: %.200s", what, detail);
    if (damage) {
        ledger->lost++;
        judge_say(ledger, "lost", text);
    }
}

/* The store is open. Whatever the database names is there and whole (the audit), and the ledger holds. */
static inline life_ledger judge(size_t until)
{
    life_ledger ledger = {0};
    store_audit audit = {.found = judge_found, .payload = &ledger};
    judge_asks(&ledger, until);
    judge_facts(&ledger, until);
    judge_strangers(&ledger, until);
    if (store_audit_folder(st->folder, &audit, &error) != DN_OK) {
        ledger.lost++;
        judge_say(&ledger, "lost", error.message);
    }
    judge_keys(&ledger, until);
    return ledger;
}

static inline bool judge_valid(const life_ledger *ledger)
{
    return ledger->lost + ledger->unexpected + ledger->duplicated == 0;
}

#endif
