/* Opening: restart after a crash, the lock, migrations with their backups, and every database that must be refused. */
#include <sys/file.h>

#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

/* A crash: the folder as it is now, in a place of its own, as if the process had died. The store goes on living beside it. */
static bool crash(char old[64])
{
    static const char *const names[] = {"denoised.db", "denoised.db-wal", "denoised.lock"};
    char from[160], to[160];
    memcpy(old, folder, sizeof folder);
    if (!make_test_folder()) {
        return false;
    }
    for (size_t i = 0; i < 3; i++) {
        unsigned char *bytes = NULL;
        size_t count = 0;
        snprintf(from, sizeof from, "%s/%s", old, names[i]);
        snprintf(to, sizeof to, "%s/%s", folder, names[i]);
        FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
        bytes = malloc(1 << 24);
        count = in ? fread(bytes, 1, 1 << 24, in) : 0;
        bool written = out && fwrite(bytes, 1, count, out) == count;
        free(bytes);
        if (in) {
            fclose(in);
        }
        if (!out || fclose(out) != 0 || !written) {
            return false;
        }
    }
    return true;
}

static void drop_old(char old[64])
{
    nftw(old, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void running_jobs_come_back_first(void)
{
    CHECK(fresh());
    char ids[3][27], old[64];
    for (int i = 0; i < 3; i++) {
        CHECK(enqueue(ids[i], (spec){.n = 2}) == STORE_OK);
    }
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 1).result == STORE_OK);
    CHECK(crash(old));
    close_store();
    drop_old(old);
    CHECK_OK(open_store(), error);
    store_job job = job_of(c.id);
    CHECK(job.state == API_STATE_QUEUED && job.boots == 1 && job.attempt == 0 && job.crashes == 0 && job.images_done == 1);
    CHECK(strcmp(milestones(c.id), "queued,started,image,requeued") == 0);
    claim again = claim_one();
    CHECK(strcmp(again.id, c.id) == 0 && again.token > c.token && again.done_count == 1 && again.attempt == 1);
    CHECK(put_image(c.id, c.token, 0).result == STORE_STALE); /* an orphaned worker's late result */
}

static void litter_is_swept(void)
{
    CHECK(fresh());
    char id[27], kept[64], queued[64];
    CHECK(enqueue(id, (spec){.n = 2}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 0).result == STORE_OK);
    snprintf(kept, sizeof kept, "%s-0-%lld.png", id, (long long)c.token);
    snprintf(queued, sizeof queued, "%s-1", id);
    make_file("images", kept);
    make_file("images", "bbbbbbbbbbbbbbbbbbbbbbbbbb-0-1.png");
    make_file("images", "x.png.tmp.123");
    make_file("images", "README");
    char half[64], late[64];
    snprintf(half, sizeof half, "%s-1-%lld.png.tmp", id, (long long)c.token);
    snprintf(late, sizeof late, "%s-1-%lld.png", id, (long long)c.token);
    make_file("images", half);
    make_file("images", late);
    make_file("snapshots", queued);
    make_file("snapshots", "bbbbbbbbbbbbbbbbbbbbbbbbbb-0");
    make_file("snapshots", "y.tmp.1");
    CHECK_OK(open_store(), error);
    for (int i = 0; i < 3000 && !store_swept(st); i++) {
        usleep(10000);
    }
    CHECK(store_swept(st) && !file_exists("images", half) && !file_exists("images", late));
    CHECK(file_exists("images", kept) && file_exists("images", "README") && file_exists("snapshots", queued));
    CHECK(!file_exists("images", "bbbbbbbbbbbbbbbbbbbbbbbbbb-0-1.png") && !file_exists("images", "x.png.tmp.123"));
    CHECK(!file_exists("snapshots", "bbbbbbbbbbbbbbbbbbbbbbbbbb-0") && !file_exists("snapshots", "y.tmp.1"));
}

/* The keeper sweeps while jobs run: what the present claim writes has no row yet, and is no litter. */
static void what_is_being_written_is_not_swept(void)
{
    CHECK(fresh());
    char id[27], names[3][64];
    CHECK(enqueue(id, (spec){.n = 4}) == STORE_OK);
    claim old = claim_one();
    CHECK_OK(open_store(), error);
    claim c = claim_one();
    CHECK(strcmp(c.id, id) == 0 && c.token == old.token + 1);
    snprintf(names[0], sizeof names[0], "%s-0-%lld.png", id, (long long)old.token);
    snprintf(names[1], sizeof names[1], "%s-0-%lld.png", id, (long long)c.token);
    snprintf(names[2], sizeof names[2], "%s-1-%lld.png.tmp", id, (long long)c.token);
    sql reader;
    CHECK_OK(sql_open(&reader, st->database, false, &error), error);
    const int64_t tokens[] = {old.token, c.token, c.token};
    int64_t litter[3];
    for (int i = 0; i < 3; i++) {
        litter[i] = sql_integer(&reader, SQL_IMAGE_LITTER, -1, "tti", id, names[i], tokens[i]);
    }
    sql_close(&reader);
    CHECK_MSG(litter[0] == 1 && litter[1] == 0 && litter[2] == 0, "%d %d %d", (int)litter[0], (int)litter[1], (int)litter[2]);
}

static void a_second_store_is_refused(void)
{
    CHECK(fresh());
    store *second = NULL;
    CHECK(store_open(&second, &options, &error) == DN_IO);
    CHECK_MSG(strstr(error.message, "in use") && !second, "%s", error.message);
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    CHECK_OK(open_store(), error);
}

static void a_child_does_not_keep_the_lock(void)
{
    CHECK(fresh());
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sleep", "sleep", "30", (char *)NULL);
        _exit(127);
    }
    usleep(100000); /* past its exec */
    dn_status status = open_store();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(status, error);
}

/* ---- Migrations */
static bool make_schema(int version)
{
    char path[128], marks[96];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    snprintf(marks, sizeof marks, "PRAGMA journal_mode=WAL; PRAGMA application_id=%d; PRAGMA user_version=%d;", 0x646e7364, version);
    sqlite3 *db = NULL;
    bool fine = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, store_migration(1), NULL, NULL, NULL) == SQLITE_OK &&
                sqlite3_exec(db, marks, NULL, NULL, NULL) == SQLITE_OK &&
                sqlite3_exec(db, "INSERT INTO model VALUES('old','{}',1)", NULL, NULL, NULL) == SQLITE_OK;
    sqlite3_close(db);
    return fine;
}

static void an_older_schema_is_migrated_and_kept(void)
{
    new_folder();
    CHECK(make_schema(1));
    CHECK_OK(open_store(), error);
    CHECK(file_exists("backup", "denoised-schema-1.db"));
    char *json = NULL;
    CHECK(store_model(st, "old", &json) == STORE_OK);
    free(json);
    close_store();
    CHECK(ask_database("PRAGMA user_version") == store_schema_newest());
    CHECK(ask_database("SELECT count(*) FROM outbox") == 0);
    char from[160], to[160];
    snprintf(from, sizeof from, "%s/backup/denoised-schema-1.db", folder);
    snprintf(to, sizeof to, "%s/denoised.db", folder);
    CHECK(rename(from, to) == 0); /* the way back */
    CHECK(ask_database("PRAGMA user_version") == 1 && ask_database("SELECT count(*) FROM model") == 1);
}

static void a_new_database_has_no_backup(void)
{
    CHECK(fresh());
    CHECK(!file_exists("backup", "denoised-schema-1.db") && !file_exists("", "backup"));
}

static void a_failed_migration_changes_nothing(void)
{
    new_folder();
    CHECK(make_schema(1));
    CHECK(ask_database("PRAGMA user_version") == 1);
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    int rc = sqlite3_exec(db, "CREATE TABLE outbox(x)", NULL, NULL, NULL); /* in the way of migration 2, after its first table */
    sqlite3_close(db);
    CHECK(rc == SQLITE_OK);
    CHECK(open_store() == DN_IO);
    CHECK_MSG(strstr(error.message, "migration 2"), "%s", error.message);
    CHECK(ask_database("PRAGMA user_version") == 1);
    CHECK(ask_database("SELECT count(*) FROM sqlite_schema WHERE name='api_key'") == 0);
}

/* ---- Refusals */
static void a_newer_schema_is_refused(void)
{
    new_folder();
    CHECK(make_schema(99));
    CHECK(open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "newer"), "%s", error.message);
    CHECK(ask_database("PRAGMA user_version") == 99 && ask_database("SELECT count(*) FROM model") == 1);
}

static void a_damaged_schema_is_refused(void)
{
    CHECK(fresh());
    close_store();
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    int rc = sqlite3_exec(
        db, "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=replace(sql,'error_detail','error_detaih') WHERE name='job'", NULL,
        NULL, NULL);
    sqlite3_close(db);
    CHECK(rc == SQLITE_OK && open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "schema is damaged") && strstr(error.message, "backup"), "%s", error.message);
}

static void anothers_database_is_refused(void)
{
    new_folder();
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    int rc = sqlite3_exec(db, "CREATE TABLE mine(x)", NULL, NULL, NULL);
    sqlite3_close(db);
    CHECK(rc == SQLITE_OK && open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "not made by"), "%s", error.message);
    CHECK(ask_database("SELECT count(*) FROM sqlite_schema") == 1);
    CHECK(ask_database("SELECT journal_mode!='wal' FROM pragma_journal_mode") == 1);
}

/* A closed store with some hundred jobs, so that there are pages to damage. */
static bool full_database(void)
{
    char id[27];
    bool fine = fresh();
    for (int i = 0; fine && i < 5; i++) {
        fine = enqueue(id, (spec){.jobs = 60}) == STORE_OK;
    }
    close_store();
    return fine;
}

static int open_file(int flags)
{
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    return open(path, flags | O_CLOEXEC);
}

static bool damage(off_t offset, const void *bytes, size_t count)
{
    int fd = open_file(O_WRONLY);
    bool fine = fd >= 0 && pwrite(fd, bytes, count, offset) == (ssize_t)count;
    close(fd);
    return fine;
}

static void a_garbled_header_is_refused(void)
{
    CHECK(full_database());
    CHECK(damage(0, "garbage!", 8));
    CHECK(open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "denoised.db"), "%s", error.message);
    char header[8] = "";
    int fd = open_file(O_RDONLY);
    bool untouched = pread(fd, header, 8, 0) == 8 && memcmp(header, "garbage!", 8) == 0;
    close(fd);
    CHECK(untouched);
}

static void a_truncated_database_is_refused(void)
{
    CHECK(full_database());
    int fd = open_file(O_WRONLY);
    struct stat info;
    bool cut = fstat(fd, &info) == 0 && ftruncate(fd, info.st_size / 2 / 4096 * 4096) == 0;
    close(fd);
    CHECK(cut);
    CHECK(open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "backup"), "%s", error.message);
}

static void an_emptied_database_is_refused(void)
{
    CHECK(full_database());
    int fd = open_file(O_WRONLY);
    bool cut = ftruncate(fd, 0) == 0;
    close(fd);
    CHECK(cut && open_store() == DN_INVALID);
    CHECK_MSG(strstr(error.message, "missing or empty"), "%s", error.message);
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    CHECK(unlink(path) == 0 && open_store() == DN_INVALID);
    CHECK(access(path, F_OK) != 0); /* nothing was put in its place */
}

static void flipped_bytes_never_crash_it(void)
{
    CHECK(full_database());
    int fd = open_file(O_RDONLY);
    struct stat info;
    CHECK(fstat(fd, &info) == 0);
    unsigned char *sound = malloc((size_t)info.st_size);
    bool whole = pread(fd, sound, (size_t)info.st_size, 0) == info.st_size;
    close(fd);
    int refused = 0, opened = 0;
    for (unsigned i = 0; whole && i < 150; i++) {
        off_t offset = (off_t)((i * 2654435761u) % (unsigned)info.st_size);
        unsigned char flipped = sound[offset] ^ (unsigned char)(1u << i % 8);
        whole = damage(offset, &flipped, 1);
        dn_status status = open_store();
        refused += status != DN_OK;
        opened += status == DN_OK;
        if (status == DN_OK) { /* a value changed, not the structure: reading must still be safe */
            claim got[16];
            claim_jobs(got, 16, NULL);
        }
        close_store();
        whole = whole && damage(0, sound, (size_t)info.st_size);
        fd = open_file(O_WRONLY);
        whole = whole && ftruncate(fd, info.st_size) == 0;
        close(fd);
    }
    free(sound);
    CHECK(whole);
    CHECK_MSG(refused > 0, "%d refused, %d opened", refused, opened);
}

static void a_lost_folder_is_refused(void)
{
    new_folder();
    options.folder = "/proc/denoised";
    CHECK(open_store() == DN_IO);
    options.folder = folder;
}

static void a_read_only_database_is_refused(void)
{
    if (geteuid() == 0) {
        SKIP("the superuser may write anything");
    }
    CHECK(full_database());
    CHECK(chmod(folder, 0500) == 0);
    dn_status status = open_store();
    CHECK(chmod(folder, 0700) == 0);
    CHECK(status == DN_IO);
}

int main(void)
{
    RUN(running_jobs_come_back_first);
    RUN(litter_is_swept);
    RUN(what_is_being_written_is_not_swept);
    RUN(a_second_store_is_refused);
    RUN(a_child_does_not_keep_the_lock);
    RUN(an_older_schema_is_migrated_and_kept);
    RUN(a_new_database_has_no_backup);
    RUN(a_failed_migration_changes_nothing);
    RUN(a_newer_schema_is_refused);
    RUN(a_damaged_schema_is_refused);
    RUN(anothers_database_is_refused);
    RUN(a_garbled_header_is_refused);
    RUN(a_truncated_database_is_refused);
    RUN(an_emptied_database_is_refused);
    RUN(flipped_bytes_never_crash_it);
    RUN(a_lost_folder_is_refused);
    RUN(a_read_only_database_is_refused);
    end_store_tests();
    return test_end();
}
