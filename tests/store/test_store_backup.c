/* Backups: taken beside a running store, and good as a data directory. */
#include "tests/store/store_harness.h"

static bool write_image(const char *id, int64_t token)
{
    char name[64];
    snprintf(name, sizeof name, "%s-0-%lld.png", id, (long long)token);
    make_file("images", name);
    return put_image(id, token, 0).ended;
}

static void a_backup_is_a_data_directory(void)
{
    CHECK(fresh());
    char queued[27], ended[27], copy[96];
    CHECK(enqueue(ended, (spec){0}) == STORE_OK);
    claim c = claim_one();
    CHECK(write_image(c.id, c.token));
    CHECK(enqueue(queued, (spec){0}) == STORE_OK);
    snprintf(copy, sizeof copy, "%s/copy", folder);
    size_t images = 0, missing = 0;
    CHECK_OK(store_backup(folder, copy, &images, &missing, &error), error);
    CHECK(images == 1 && missing == 0);
    char late[27];
    CHECK(enqueue(late, (spec){0}) == STORE_OK); /* after the copy */
    close_store();
    options.folder = copy;
    CHECK_OK(open_store(), error);
    options.folder = folder;
    CHECK(job_of(queued).state == API_STATE_QUEUED && job_of(ended).state == API_STATE_SUCCEEDED);
    CHECK((int)job_of(late).state == -1);
    store_image *rows;
    size_t count;
    CHECK(store_images(st, ended, &rows, &count) == STORE_OK && count == 1);
    bool there = file_exists("images", rows[0].file);
    store_images_free(rows, count);
    CHECK(there);
}

static void a_missing_image_is_counted(void)
{
    CHECK(fresh());
    char id[27], copy[96];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 0).ended);
    snprintf(copy, sizeof copy, "%s/copy", folder);
    size_t images = 7, missing = 7;
    CHECK_OK(store_backup(folder, copy, &images, &missing, &error), error);
    CHECK(images == 0 && missing == 1);
}

static void a_backup_replaces_nothing(void)
{
    CHECK(fresh());
    size_t images, missing;
    CHECK(store_backup(folder, folder, &images, &missing, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "not empty"), "%s", error.message);
}

static void a_backup_of_nothing_is_refused(void)
{
    new_folder();
    char copy[96];
    snprintf(copy, sizeof copy, "%s/copy", folder);
    size_t images, missing;
    CHECK(store_backup(folder, copy, &images, &missing, &error) == DN_IO);
    CHECK(access(copy, F_OK) != 0);
}

static void a_closed_store_can_be_copied(void)
{
    CHECK(fresh());
    char id[27], copy[96];
    CHECK(enqueue(id, (spec){.jobs = 40}) == STORE_OK);
    close_store();
    snprintf(copy, sizeof copy, "%s/copy", folder);
    size_t images, missing;
    CHECK_OK(store_backup(folder, copy, &images, &missing, &error), error);
    options.folder = copy;
    CHECK_OK(open_store(), error);
    options.folder = folder;
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 40);
}

int main(void)
{
    RUN(a_backup_is_a_data_directory);
    RUN(a_missing_image_is_counted);
    RUN(a_backup_replaces_nothing);
    RUN(a_backup_of_nothing_is_refused);
    RUN(a_closed_store_can_be_copied);
    end_store_tests();
    return test_end();
}
