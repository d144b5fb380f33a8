/* Starting on a large database after a kill: ready at once, the whole of it looked through beside the work, and damage that is only found
 * then stops the store. `--rows N` tries another size and prints what it took; images have no files then. */
#include <sys/wait.h>

#include "base/clock.h"
#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

#define READY_SECONDS 10.0 /* far above what it takes, far below a look through everything on a busy machine */
#define PATIENCE_MS 120000

static long rows = 200000;

/* Ended jobs with an image and three events each, of the size that real ones have. Counts are set at once: the triggers would take longer
 * than everything else. */
static const char PREPARE[] =
    "PRAGMA foreign_keys=OFF; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; PRAGMA temp_store=MEMORY;"
    "CREATE TEMP TABLE kept AS SELECT name,sql FROM sqlite_schema WHERE type='trigger'; CREATE TEMP TABLE span(x INTEGER PRIMARY KEY);"
    "CREATE TEMP TABLE third(y); INSERT INTO third VALUES(1),(2),(3); DROP TRIGGER job_added; DROP TRIGGER image_added";
static const char FILL[] =
    "INSERT INTO job(row,id,client,model,request,n,cost,priority,turn,state,images_done,token,attempt,created_ms,started_ms,finished_ms)"
    " SELECT x,substr('aaaaaaaaaaaaaaaaaaaaaaaaaa'||replace(replace(replace(replace(x,'0','x'),'1','y'),'8','z'),'9','w'),-26),'c'||(x%50),"
    "'m','{\"model\":\"m\",\"class_label\":7,\"class_name\":\"Sneaker\",\"guidance_scale\":2.0,\"steps\":20,\"sampler\":\"dpmpp_2m\","
    "\"seed\":\"42\",\"n\":1,\"priority\":0}',1,20,0,x*20,2,1,1,1,1700000000000+x,1700000000000+x,1700000000000+x FROM span;"
    "INSERT INTO image SELECT row,0,id||'-0-1.png',42,32,32,812,hex(zeroblob(32)),hex(zeroblob(32)),'cpu','0123456789abcdef',20"
    " FROM span JOIN job ON row=x;"
    "INSERT INTO event SELECT row,y,'image','{\"image\":{\"index\":0,\"seed\":\"42\",\"url\":\"/jobs/'||id||'/images/0.png\",\"width\":32,"
    "\"height\":32,\"bytes\":812,\"sha256\":\"'||hex(zeroblob(32))||'\",\"pixels_sha256\":\"'||hex(zeroblob(32))||'\",\"device\":\"cpu\"}}'"
    " FROM span JOIN job ON row=x,third;"
    "UPDATE total SET jobs=jobs+(SELECT count(*) FROM span),cost=cost+20*(SELECT count(*) FROM span) WHERE state=2 AND priority=0;"
    "UPDATE image_total SET bytes=bytes+812*(SELECT count(*) FROM span); DELETE FROM span; COMMIT";

static bool run_sql(sqlite3 *db, const char *text)
{
    bool fine = sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK;
    if (!fine) {
        printf("# %s\n", sqlite3_errmsg(db));
    }
    return fine;
}

static bool fill(sqlite3 *db, long from, long to)
{
    char span[160];
    snprintf(span, sizeof span,
             "BEGIN; WITH RECURSIVE g(x) AS (SELECT %ld UNION ALL SELECT x+1 FROM g WHERE x<%ld) INSERT INTO span SELECT x FROM g", from,
             to);
    return run_sql(db, span) && run_sql(db, FILL);
}

static int restore_trigger(void *payload, int count, char **values, char **names)
{
    (void)count, (void)names;
    return sqlite3_exec(payload, values[0], NULL, NULL, NULL) != SQLITE_OK;
}

static bool fill_all(void)
{
    char path[128];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    long most = rows - (rows < 200000 ? rows / 20 : 10000);
    return sqlite3_open(path, &db) == SQLITE_OK && run_sql(db, PREPARE) && fill(db, 1, most) &&
           run_sql(db, "PRAGMA wal_checkpoint(TRUNCATE)") && fill(db, most + 1, rows) &&
           sqlite3_exec(db, "SELECT sql FROM kept WHERE name IN ('job_added','image_added')", restore_trigger, db, NULL) == SQLITE_OK;
}

/* The folder as a kill leaves it: what was written last stands in the log alone. */
static bool large_folder(void)
{
    if (!fresh()) {
        return false;
    }
    close_store();
    pid_t child = fork();
    if (child == 0) {
        bool fine = fill_all();
        fflush(stdout);
        if (fine) {
            raise(SIGKILL);
        }
        _exit(1);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status);
}

static long long file_bytes(const char *name)
{
    char path[160];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &info) == 0 ? (long long)info.st_size : -1;
}

static bool checked(void)
{
    for (int i = 0; i < PATIENCE_MS / 10 && store_sound(st) == STORE_CHECKING; i++) {
        usleep(10000);
    }
    return store_sound(st) != STORE_CHECKING;
}

static void ready_soon_after_a_kill_however_many_rows(void)
{
    CHECK(large_folder());
    long long log_bytes = file_bytes("denoised.db-wal"), bytes = file_bytes("denoised.db");
    CHECK(log_bytes > (rows > 100000 ? 4 << 20 : 4096));
    double began = dn_now_seconds();
    CHECK_OK(open_store(), error);
    double ready = dn_now_seconds() - began;
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK && strcmp(claim_one().id, id) == 0);
    double working = dn_now_seconds() - began;
    CHECK(checked() && store_sound(st) == STORE_SOUND);
    double all = dn_now_seconds() - began;
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_SUCCEEDED] == (uint64_t)rows);
    CHECK_MSG(ready < READY_SECONDS, "open after %.1f s, everything looked through after %.1f s", ready, all);
    printf("# %ld jobs, %lld MB and %lld MB of log: open after %.2f s, first job claimed after %.2f s, all looked through after %.2f s\n",
           rows, bytes >> 20, log_bytes >> 20, ready, working, all);
}

/* A page in the middle becomes zeros while nobody holds the file. */
static bool zero_a_page(void)
{
    char path[160];
    static const char zeros[4096];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    long long pages = file_bytes("denoised.db") / 4096;
    bool fine = fd >= 0 && pwrite(fd, zeros, sizeof zeros, pages / 2 * 4096) == sizeof zeros;
    close(fd);
    return fine;
}

static void damage_found_late_stops_the_store(void)
{
    char id[27];
    CHECK(fresh());
    for (int i = 0; i < 20; i++) {
        CHECK(enqueue(id, (spec){.jobs = 60}) == STORE_OK);
    }
    close_store();
    CHECK(zero_a_page());
    CHECK(open_store() == DN_INVALID); /* a small one is looked through before anything else */
    CHECK_MSG(strstr(error.message, "damaged") && strstr(error.message, "backup"), "%s", error.message);
    options.check_wait_ms = -1; /* as if it were too large for that */
    if (open_store() == DN_OK) {
        CHECK(checked() && store_sound(st) == STORE_DAMAGED && store_stopped(st));
        CHECK(enqueue(id, (spec){0}) == STORE_UNKNOWN);
    } else {
        CHECK_MSG(strstr(error.message, "damaged"), "%s", error.message); /* the check was quicker */
    }
}

/* Closing does not wait for the check of a large database. */
static void closing_ends_the_check(void)
{
    CHECK(large_folder());
    options.check_wait_ms = -1;
    CHECK_OK(open_store(), error);
    double began = dn_now_seconds();
    close_store();
    CHECK(dn_now_seconds() - began < READY_SECONDS);
    CHECK_OK(open_store(), error);
    CHECK(checked() && store_sound(st) == STORE_SOUND);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--rows") == 0) {
        rows = atol(argv[2]);
        RUN(ready_soon_after_a_kill_however_many_rows);
        end_store_tests();
        return test_end();
    }
    RUN(ready_soon_after_a_kill_however_many_rows);
    RUN(damage_found_late_stops_the_store);
    rows = 20000;
    RUN(closing_ends_the_check);
    end_store_tests();
    return test_end();
}
