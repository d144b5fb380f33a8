/* What a start finds after a crash: jobs that another boot ran, snapshots and inputs of none. Before the writer thread starts; all of it
 * is bounded by the queue. Image files, of which there may be any number, are the keeper's.
 *
 * The lock on the data folder proves that the other boot is gone, so its jobs need no lease to run out: they go back to the queue in
 * their old turn, first in their priority. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/fault.h"
#include "server/store/sqlite_store.h"

typedef struct names {
    char **items;
    size_t count, room;
} names;

static void names_free(names *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
}

static bool names_add(names *list, const char *name)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        char **grown = realloc(list->items, room * sizeof *grown);
        if (!grown) {
            return false;
        }
        list->items = grown;
        list->room = room;
    }
    list->items[list->count] = strdup(name);
    return list->items[list->count] && ++list->count;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The first column of every row, sorted. */
static bool read_names(sql *c, names *list, sqlite3_stmt *statement)
{
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        if (!names_add(list, sql_column(c, statement, 0))) {
            sql_fail(c, SQLITE_NOMEM, "out of memory");
            break;
        }
    }
    sql_end(statement);
    return !c->code;
}

static bool names_hold(const names *list, const char *name)
{
    return list->count && bsearch(&name, list->items, list->count, sizeof *list->items, compare);
}

/* Snapshots are kept if a job of that name still waits or runs. */
static bool is_litter(const names *known, const char *name)
{
    if (strstr(name, ".tmp")) {
        return true; /* half-written: dn_file_write's temporary name */
    }
    char id[API_ID_BYTES + 1] = "";
    memcpy(id, name, strnlen(name, API_ID_BYTES));
    return api_id_valid(id) && !names_hold(known, id);
}

static void sweep_snapshots(store *s, const names *known)
{
    char *path = store_path(s, "snapshots", "");
    DIR *listing = path ? opendir(path) : NULL;
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (entry->d_name[0] != '.' && is_litter(known, entry->d_name)) {
            unlinkat(dirfd(listing), entry->d_name, 0);
            fault_point("recover_mid_sweep");
        }
    }
    if (listing) {
        closedir(listing);
    }
    free(path);
}

static bool requeue_all(store *s)
{
    sql *c = &s->writer;
    names ids = {0};
    bool fine = sql_run(c, SQL_BEGIN, "") && read_names(c, &ids, sql_row(c, SQL_RUNNING_OTHERS, "t", s->boot));
    for (size_t i = 0; fine && i < ids.count; i++) {
        store_job job;
        int64_t seq;
        fine = store_fetch(c, ids.items[i], &job);
        if (fine) {
            fine = store_requeue(s, &job, "restart", "", false, true, &seq);
            store_job_done(&job);
        }
    }
    names_free(&ids);
    fault_point("recover_before_commit");
    fine = fine && sql_run(c, SQL_COMMIT, "");
    fault_point("recover_after_commit");
    return fine;
}

static bool sweep_all(store *s)
{
    sql *c = &s->writer;
    names pending = {0};
    bool fine = read_names(c, &pending, sql_row(c, SQL_PENDING_IDS, ""));
    if (fine) {
        sweep_snapshots(s, &pending);
        store_sweep_inputs(s, &s->writer, true);
    }
    names_free(&pending);
    return fine;
}

dn_status store_recover(store *s, dn_error *error)
{
    if (requeue_all(s) && sweep_all(s)) {
        return DN_OK;
    }
    bool damaged = (s->writer.code & 0xff) == SQLITE_CORRUPT;
    dn_status status = damaged ? dn_fail(error, DN_INVALID, "%s is damaged (%s): restore a backup", s->database, s->writer.text)
                               : dn_fail(error, DN_IO, "%s: taking up the jobs of the last run failed: %s", s->database, s->writer.text);
    sql_clear(&s->writer);
    return status;
}
