/* The keeper: a thread beside the store that looks through the whole database after each start, and sweeps image files that no row knows.
 *
 * Both take as long as there are rows, and a daemon must be ready within two seconds however many there are. So a start waits for the
 * check where it is short: a database of usual size is known to be sound before anything is done with it. A larger one is looked through
 * while the daemon works; if it is damaged then, the store stops at once and the daemon ends as it would have at the start. Until then
 * little harm can come of it: SQLite checks each page's cells as it reads it, and a served image is checked against its row.
 * Its connection is its own, and writes nothing. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/store/sqlite_store.h"

#define KEEPER_SAID_SECONDS 5.0 /* a check that took longer is told of in the log */

static void tell(store *s, store_soundness soundness, const char *text)
{
    pthread_mutex_lock(&s->keeper_mutex);
    snprintf(s->damage, sizeof s->damage, "%s", text);
    atomic_store(&s->soundness, (int)soundness);
    pthread_cond_broadcast(&s->keeper_told);
    pthread_mutex_unlock(&s->keeper_mutex);
}

static bool leaving(store *s)
{
    return atomic_load(&s->keeper_leave);
}

/* Copies the verdict's first line out; "ok" when it is sound. */
static void look_through(sql *c, char text[200])
{
    sqlite3_stmt *statement = NULL;
    snprintf(text, 200, "no answer");
    if (sqlite3_prepare_v2(c->db, "PRAGMA integrity_check(1)", -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        const char *line = sql_column(c, statement, 0);
        bool heading = strncmp(line, "***", 3) == 0 && strchr(line, '\n'); /* "*** in database main ***" */
        snprintf(text, 200, "%s", heading ? strchr(line, '\n') + 1 : line);
        text[strcspn(text, "\n")] = 0;
    }
    int rc = sqlite3_finalize(statement);
    if (rc != SQLITE_OK) {
        sql_fail(c, rc, sqlite3_errmsg(c->db));
    }
}

static void check(store *s, sql *c)
{
    char text[200];
    double began = dn_now_seconds();
    look_through(c, text);
    double took = dn_now_seconds() - began;
    int primary = c->code & 0xff;
    if (leaving(s)) {
        return;
    }
    bool unreadable = c->code && primary != SQLITE_CORRUPT && primary != SQLITE_NOTADB;
    bool sound = !c->code && strcmp(text, "ok") == 0;
    tell(s, sound ? STORE_SOUND : unreadable ? STORE_UNREADABLE : STORE_DAMAGED, sound ? "" : c->code ? c->text : text);
    if (sound && took > KEEPER_SAID_SECONDS) {
        log_say(LOG_INFO, "store", "the database is sound (looked through in %.0f s)", took);
    } else if (!sound) {
        pthread_mutex_lock(&s->keeper_mutex);
        bool late = s->recovered; /* before, the start refuses with a line of its own */
        pthread_mutex_unlock(&s->keeper_mutex);
        atomic_store(&s->stopped, true);
        if (late) {
            log_say(LOG_ERROR, "store", "%s is %s (%s); writing has stopped", s->database, unreadable ? "not readable" : "damaged", text);
        }
    }
    sql_clear(c);
}

/* <job>-<index>-<token>.png, or the same with .tmp behind it: the job and the token. */
static bool parse_image_name(const char *name, char id[API_ID_BYTES + 1], long long *token)
{
    unsigned index;
    int end = 0;
    memcpy(id, name, strnlen(name, API_ID_BYTES));
    return api_id_valid(id) && sscanf(name + API_ID_BYTES, "-%9u-%18lld.png%n", &index, token, &end) == 2 && end > 0;
}

/* A file is litter if no row names it and none is about to: one statement sees both the row and the job's state. What is being written
 * now belongs to a job that runs with the very token of the file's name. */
bool store_image_is_litter(sql *c, const char *name)
{
    char id[API_ID_BYTES + 1] = "";
    long long token = 0;
    bool temporary = strstr(name, ".tmp") != NULL;
    if (!parse_image_name(name, id, &token)) {
        return temporary; /* else not ours */
    }
    return sql_integer(c, SQL_IMAGE_LITTER, 0, "tti", id, name, (int64_t)token) == 1;
}

static void sweep_images(store *s, sql *c)
{
    char *path = store_path(s, "images", "");
    DIR *listing = path ? opendir(path) : NULL;
    for (struct dirent *entry; listing && !leaving(s) && (entry = readdir(listing));) {
        if (entry->d_name[0] != '.' && store_image_is_litter(c, entry->d_name) && !c->code) {
            unlinkat(dirfd(listing), entry->d_name, 0);
            fault_point("images_mid_sweep");
        }
        sql_clear(c); /* one that cannot be asked about stays until the next start */
    }
    if (listing) {
        closedir(listing);
    }
    free(path);
}

static void *keep(void *payload)
{
    store *s = payload;
    check(s, &s->keeper);
    pthread_mutex_lock(&s->keeper_mutex);
    while (!s->recovered && !leaving(s)) {
        pthread_cond_wait(&s->keeper_told, &s->keeper_mutex);
    }
    pthread_mutex_unlock(&s->keeper_mutex);
    if (!leaving(s) && atomic_load(&s->soundness) == STORE_SOUND) {
        sql_text(&s->keeper, "SELECT 1 FROM sqlite_schema"); /* migrations may have changed it since */
        sweep_images(s, &s->keeper);
        atomic_store(&s->swept, true);
    }
    pthread_mutex_lock(&s->keeper_mutex);
    s->keeper_gone = true;
    pthread_cond_broadcast(&s->keeper_told);
    pthread_mutex_unlock(&s->keeper_mutex);
    return NULL;
}

static struct timespec from_now(long ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += ms / 1000;
    at.tv_nsec += ms % 1000 * 1000000;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    return at;
}

void store_keeper_init(store *s)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->keeper_mutex, NULL);
    pthread_cond_init(&s->keeper_told, &monotonic);
    pthread_condattr_destroy(&monotonic);
    atomic_store(&s->soundness, STORE_CHECKING);
}

static dn_status verdict(store *s, dn_error *error)
{
    switch (atomic_load(&s->soundness)) {
    case STORE_DAMAGED:
        return dn_fail(error, DN_INVALID, "%s is damaged (%s): restore a backup", s->database, s->damage);
    case STORE_UNREADABLE:
        return dn_fail(error, DN_IO, "%s cannot be read: %s", s->database, s->damage);
    default:
        return DN_OK;
    }
}

dn_status store_keeper_start(store *s, bool patient, dn_error *error)
{
    dn_status status = sql_open_checker(&s->keeper, s->database, error);
    if (status != DN_OK) {
        return status;
    }
    s->keeper_started = pthread_create(&s->keeper_thread, NULL, keep, s) == 0;
    if (!s->keeper_started) {
        return dn_fail(error, DN_IO, "the store's keeper thread could not be started");
    }
    const int64_t wait = s->options.check_wait_ms ? s->options.check_wait_ms : STORE_CHECK_WAIT_MS;
    const struct timespec end = from_now(wait > 0 ? (long)wait : 0);
    int late = 0;
    pthread_mutex_lock(&s->keeper_mutex);
    while (atomic_load(&s->soundness) == STORE_CHECKING && (patient || !late)) {
        late = patient ? pthread_cond_wait(&s->keeper_told, &s->keeper_mutex)
                       : pthread_cond_timedwait(&s->keeper_told, &s->keeper_mutex, &end);
    }
    status = verdict(s, error);
    pthread_mutex_unlock(&s->keeper_mutex);
    return status;
}

void store_keeper_recovered(store *s)
{
    pthread_mutex_lock(&s->keeper_mutex);
    s->recovered = true;
    pthread_cond_broadcast(&s->keeper_told);
    pthread_mutex_unlock(&s->keeper_mutex);
}

void store_keeper_stop(store *s)
{
    if (s->keeper_started) {
        pthread_mutex_lock(&s->keeper_mutex);
        atomic_store(&s->keeper_leave, true);
        pthread_cond_broadcast(&s->keeper_told);
        while (!s->keeper_gone) {
            sqlite3_interrupt(s->keeper.db); /* says nothing to a statement that is only about to begin: so again */
            const struct timespec soon = from_now(10);
            pthread_cond_timedwait(&s->keeper_told, &s->keeper_mutex, &soon);
        }
        pthread_mutex_unlock(&s->keeper_mutex);
        pthread_join(s->keeper_thread, NULL);
        s->keeper_started = false;
    }
    sql_close(&s->keeper);
    pthread_mutex_destroy(&s->keeper_mutex);
    pthread_cond_destroy(&s->keeper_told);
}

store_soundness store_sound(const store *s)
{
    return (store_soundness)atomic_load(&s->soundness);
}

bool store_swept(const store *s)
{
    return atomic_load(&s->swept);
}
