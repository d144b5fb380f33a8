/* Databases of every older schema: what an older program has left is there after an upgrade, the copy made before it is the way back, and
 * from there the upgrade goes again. */
#include "base/sha256.h"
#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

#define DONE_ID "aaaaaaaaaaaaaaaaaaaaaaaa2d"
#define QUEUED_ID "aaaaaaaaaaaaaaaaaaaaaaaa2q"
#define RUNNING_ID "aaaaaaaaaaaaaaaaaaaaaaaa2r"
#define IMAGE_FILE DONE_ID "-0-1.png"
#define JOB_COLUMNS                                                                                                                        \
    "INSERT INTO "                                                                                                                         \
    "job(id,client,idempotency,model,request,n,cost,priority,turn,state,owner,token,attempt,images_done,created_ms,started_ms,finished_"   \
    "ms)"

static const char picture[] = "what the old program has drawn";

/* Rows that schema 1 and all later ones can hold; the fingerprint is that of a `spec` with print 3. */
static const char ROWS[] =
    "INSERT INTO idempotency VALUES(1,'alice','old key',unhex_print,'" DONE_ID "');" JOB_COLUMNS " VALUES('" DONE_ID
    "','alice',1,'m','{\"n\":1}',1,20,0,20,2,NULL,1,1,1,1600000000000,1600000000001,1600000000002);" JOB_COLUMNS " VALUES('" QUEUED_ID
    "','alice',NULL,'m','{\"n\":1}',1,20,0,40,0,NULL,0,0,0,1600000000003,NULL,NULL);" JOB_COLUMNS " VALUES('" RUNNING_ID
    "','bob',NULL,'m','{\"n\":2}',2,20,0,60,1,'an old boot',1,1,0,1600000000004,1600000000005,NULL);"
    "INSERT INTO image(job,number,file,seed,width,height,bytes,sha256,pixels_sha256,device,build)"
    " VALUES(1,0,'" IMAGE_FILE "',-1,32,32,30,'sha256_of_picture','p','cpu','b');"
    "INSERT INTO event VALUES(1,1,'queued','{}'),(1,2,'succeeded','{}'),(2,1,'queued','{}'),(3,1,'queued','{}'),(3,2,'started','{}');"
    "INSERT INTO client VALUES('alice',0,60); INSERT INTO model VALUES('m','{}',1)";

static void replace_word(char *text, size_t room, const char *word, const char *with)
{
    char *at = strstr(text, word), rest[4096];
    snprintf(rest, sizeof rest, "%s", at + strlen(word));
    snprintf(at, room - (size_t)(at - text), "%s%s", with, rest);
}

static bool make_old(int version)
{
    char path[160], marks[96], rows[4096], print[80] = "x'", sha256[DN_SHA256_HEX_BYTES];
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256_of(digest, picture, sizeof picture - 1);
    dn_sha256_hex(sha256, digest);
    for (int i = 0; i < 32; i++) {
        memcpy(print + 2 + 2 * i, "03", 3);
    }
    memcpy(print + 66, "'", 2);
    snprintf(rows, sizeof rows, "%s", ROWS);
    replace_word(rows, sizeof rows, "unhex_print", print);
    replace_word(rows, sizeof rows, "sha256_of_picture", sha256);
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    snprintf(marks, sizeof marks, "PRAGMA application_id=%d; PRAGMA user_version=%d;", STORE_APPLICATION_ID, version);
    sqlite3 *db = NULL;
    bool fine = sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL) == SQLITE_OK;
    for (int i = 1; fine && i <= version; i++) {
        fine = sqlite3_exec(db, store_migration(i), NULL, NULL, NULL) == SQLITE_OK;
    }
    fine = fine && sqlite3_exec(db, rows, NULL, NULL, NULL) == SQLITE_OK && sqlite3_exec(db, marks, NULL, NULL, NULL) == SQLITE_OK;
    if (!fine) {
        printf("# schema %d: %s\n", version, sqlite3_errmsg(db));
    }
    sqlite3_close(db);
    snprintf(path, sizeof path, "%s/images", folder);
    fine = fine && mkdir(path, 0700) == 0;
    snprintf(path, sizeof path, "%s/images/" IMAGE_FILE, folder);
    FILE *out = fine ? fopen(path, "wb") : NULL;
    fine = out && fwrite(picture, 1, sizeof picture - 1, out) == sizeof picture - 1;
    return out && fclose(out) == 0 && fine;
}

static void count_damage(void *payload, bool damage, const char *what, const char *detail)
{
    if (damage) {
        printf("# %s: %s\n", what, detail);
        ++*(int *)payload;
    }
}

/* NULL: everything is there; else what is not. The store is open. */
static const char *missing(void)
{
    if (job_of(DONE_ID).state != API_STATE_SUCCEEDED || job_of(QUEUED_ID).state != API_STATE_QUEUED) {
        return "a job";
    }
    if (job_of(RUNNING_ID).state != API_STATE_QUEUED || strcmp(milestones(RUNNING_ID), "queued,started,requeued") != 0) {
        return "the job that ran";
    }
    if (strcmp(milestones(DONE_ID), "queued,succeeded") != 0) {
        return "events";
    }
    store_image *images = NULL;
    size_t count = 0;
    bool kept = store_images(st, DONE_ID, &images, &count) == STORE_OK && count == 1 && images[0].view.seed == UINT64_MAX &&
                strcmp(images[0].file, IMAGE_FILE) == 0 && file_exists("images", IMAGE_FILE);
    store_images_free(images, count);
    if (!kept) {
        return "the picture";
    }
    int damages = 0;
    store_audit audit = {.found = count_damage, .payload = &damages};
    if (store_audit_folder(folder, &audit, &error) != DN_OK || damages || audit.images != 1) {
        return "soundness";
    }
    char id[27] = "";
    if (enqueue(id, (spec){.key = "old key", .print = 3}) != STORE_REPLAY || strcmp(id, DONE_ID) != 0) {
        return "the key";
    }
    return claim_one().token ? NULL : "work goes on";
}

static void every_older_schema_is_upgraded_with_all_it_holds(void)
{
    for (int version = 1; version < store_schema_newest(); version++) {
        new_folder();
        CHECK(make_old(version));
        CHECK_MSG(open_store() == DN_OK, "schema %d: %s", version, error.message);
        const char *what = missing();
        CHECK_MSG(!what, "schema %d: %s", version, what);
        for (int kept = version; kept < store_schema_newest(); kept++) {
            char name[64];
            snprintf(name, sizeof name, "denoised-schema-%d.db", kept);
            CHECK_MSG(file_exists("backup", name), "%s", name);
        }
        close_store();
        CHECK(ask_database("PRAGMA user_version") == store_schema_newest());
    }
}

static void the_copy_made_before_an_upgrade_is_the_way_back(void)
{
    for (int version = 1; version < store_schema_newest(); version++) {
        char copy[160], to[160];
        new_folder();
        CHECK(make_old(version));
        CHECK_OK(open_store(), error);
        char id[27];
        CHECK(enqueue(id, (spec){0}) == STORE_OK); /* is lost by going back, as it must be */
        close_store();
        snprintf(copy, sizeof copy, "%s/backup/denoised-schema-%d.db", folder, version);
        snprintf(to, sizeof to, "%s/denoised.db", folder);
        CHECK(rename(copy, to) == 0);
        CHECK(ask_database("PRAGMA user_version") == version);
        CHECK(ask_database("SELECT count(*) FROM job") == 3 && ask_database("SELECT count(*) FROM image") == 1);
        CHECK(ask_database("SELECT count(*) FROM job WHERE owner='an old boot'") == 1);
        CHECK(ask_database("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check!='ok'") == 0);
        CHECK_OK(open_store(), error);
        const char *what = missing();
        CHECK_MSG(!what, "schema %d again: %s", version, what);
        CHECK((int)job_of(id).state == -1);
    }
}

int main(void)
{
    RUN(every_older_schema_is_upgraded_with_all_it_holds);
    RUN(the_copy_made_before_an_upgrade_is_the_way_back);
    end_store_tests();
    return test_end();
}
