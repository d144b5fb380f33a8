/* The oracle's connection: reads what is committed, at any moment, without the program's help. Opened after the daemon has recovered the
 * database and closed before it closes it, so that the program's own last connection is the last. */
#include <sqlite3.h>
#include <string.h>

#include "tests/sim/world.h"

typedef enum question { ASK_RUNNING, ASK_IMAGE, ASK_EVENT, ASK_COUNTS, ASK_FIRST, ASK_BEFORE, QUESTIONS } question;

static const char *const texts[QUESTIONS] = {
    [ASK_RUNNING] = "SELECT token FROM job WHERE id=?1 AND state=1",
    [ASK_IMAGE] = "SELECT 1 FROM image JOIN job ON job.row=image.job WHERE id=?1 AND number=?2",
    [ASK_EVENT] = "SELECT expired OR EXISTS(SELECT 1 FROM event WHERE event.job=job.row AND seq=?2) FROM job WHERE id=?1",
    [ASK_FIRST] = "SELECT state=0 AND token=0 AND turn<=(SELECT turn FROM level WHERE level.priority=j.priority)"
                  " AND 1=(SELECT count(*) FROM job o WHERE o.client=j.client AND o.state<2) FROM job j WHERE id=?1 AND ?2=0",
    [ASK_BEFORE] =
        "SELECT coalesce(max(n),0) FROM (SELECT count(*) n FROM job b,job o WHERE b.id=?1 AND ?2=0 AND o.state=0 AND o.token=0"
        " AND o.client!=b.client AND o.priority=b.priority AND o.model=b.model AND (o.turn,o.row)<(b.turn,b.row) GROUP BY o.client)",
    [ASK_COUNTS] = "SELECT count(*) FILTER(WHERE state=2),count(*) FILTER(WHERE state=3),count(*) FILTER(WHERE state=4),"
                   "coalesce(sum(images_done),0),count(*) FILTER(WHERE state<2) FROM job",
};

static sqlite3 *db;
static sqlite3_stmt *asked[QUESTIONS];

void oracle_close(void)
{
    for (int i = 0; i < QUESTIONS; i++) {
        sqlite3_finalize(asked[i]);
        asked[i] = NULL;
    }
    sqlite3_close(db);
    db = NULL;
}

void oracle_reset(void)
{
    oracle_close();
}

bool oracle_open(void)
{
    if (db)
        return true;
    if (sqlite3_open_v2("data/denoised.db", &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        oracle_close();
        return false;
    }
    sqlite3_busy_timeout(db, 1000);
    return true;
}

sqlite3 *oracle_database(void)
{
    return db;
}

static sqlite3_stmt *ask(question q, const char *job, int64_t number)
{
    if (!db)
        return NULL;
    if (!asked[q] && sqlite3_prepare_v2(db, texts[q], -1, &asked[q], NULL) != SQLITE_OK)
        return NULL;
    if (job)
        sqlite3_bind_text(asked[q], 1, job, -1, SQLITE_STATIC);
    if (job && q != ASK_RUNNING)
        sqlite3_bind_int64(asked[q], 2, number);
    return asked[q];
}

/* The first column of the first row; otherwise: no row. *known false: it could not be read. */
static int64_t answer(question q, const char *job, int64_t number, int64_t otherwise, bool *known)
{
    sqlite3_stmt *statement = ask(q, job, number);
    const int rc = statement ? sqlite3_step(statement) : SQLITE_ERROR;
    *known = rc == SQLITE_ROW || rc == SQLITE_DONE;
    const int64_t value = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : otherwise;
    sqlite3_reset(statement);
    return value;
}

int64_t oracle_running(const char *job)
{
    bool known;
    return answer(ASK_RUNNING, job, 0, 0, &known);
}

bool oracle_has_image(const char *job, unsigned index, bool *known)
{
    return answer(ASK_IMAGE, job, index, 0, known);
}

bool oracle_has_event(const char *job, int64_t seq, bool *known)
{
    return answer(ASK_EVENT, job, seq, 0, known);
}

int64_t oracle_goes_before(const char *job)
{
    bool known;
    if (plan.models > 1) /* each model's claims wait for its own room: turns are in order within a model only */
        return 0;
    if (!answer(ASK_FIRST, job, 0, 0, &known))
        return 0;
    sim_count_one(COUNT_FIRST_OF_CLIENT);
    return answer(ASK_BEFORE, job, 0, 0, &known);
}

bool oracle_count(oracle_counts *out)
{
    sqlite3_stmt *statement = ask(ASK_COUNTS, NULL, 0);
    const bool known = statement && sqlite3_step(statement) == SQLITE_ROW;
    if (known)
        *out = (oracle_counts){sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1), sqlite3_column_int64(statement, 2),
                               sqlite3_column_int64(statement, 3), sqlite3_column_int64(statement, 4)};
    sqlite3_reset(statement);
    return known;
}

/* Every milestone that is published passes here first: it must be in the database already. */
void __wrap_hub_milestone(hub *h, const char *job_id, int64_t seq, bool ended);
void __real_hub_milestone(hub *h, const char *job_id, int64_t seq, bool ended);

void __wrap_hub_milestone(hub *h, const char *job_id, int64_t seq, bool ended)
{
    bool known = false;
    if (seq && !oracle_has_event(job_id, seq, &known) && known)
        sim_wrong("event %lld of job %s is published, and was never stored", (long long)seq, job_id);
    __real_hub_milestone(h, job_id, seq, ended);
}
