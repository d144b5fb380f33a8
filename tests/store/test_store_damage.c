/* Bytes that change on the disk: whatever is flipped, cut or zeroed in the database, its log or its index, a start either refuses in one
 * line or serves what was acknowledged; it never crashes and never shows a job that nobody asked for. */
#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

enum { JOBS = 240, FLIPS = 600, CUTS = 40 };

static const char *const FILES[] = {"denoised.db", "denoised.db-wal", "denoised.db-shm"};
enum { FILE_COUNT = 3 };

static struct {
    unsigned char *bytes[FILE_COUNT];
    size_t count[FILE_COUNT];
    char ids[JOBS][27];
} sound;

static uint64_t state = 88172645463325252ull;

static unsigned chance(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 11) % below;
}

static void path_of(char out[160], int which)
{
    snprintf(out, 160, "%s/%s", folder, FILES[which]);
}

static bool read_whole(int which)
{
    char path[160];
    path_of(path, which);
    FILE *in = fopen(path, "rb");
    free(sound.bytes[which]);
    sound.bytes[which] = malloc(8 << 20);
    sound.count[which] = in ? fread(sound.bytes[which], 1, 8 << 20, in) : 0;
    if (in) {
        fclose(in);
    }
    return in != NULL;
}

static bool write_whole(int which, const unsigned char *bytes, size_t count)
{
    char path[160];
    path_of(path, which);
    FILE *out = fopen(path, "wb");
    bool fine = out && fwrite(bytes, 1, count, out) == count;
    return (!out || fclose(out) == 0) && fine;
}

/* A folder as a kill leaves it, half of the jobs in the database and half in the log; its three files are kept in memory. */
static bool make_sound(void)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return false;
    }
    new_folder();
    pid_t child = fork();
    if (child == 0) {
        bool fine = open_store() == DN_OK;
        for (int i = 0; fine && i < JOBS; i++) {
            char id[27];
            fine = enqueue(id, (spec){0}) == STORE_OK && write(ends[1], id, 27) == 27;
            if (i == JOBS / 2) {
                ask_database("PRAGMA wal_checkpoint(TRUNCATE)");
            }
        }
        if (fine) {
            raise(SIGKILL);
        }
        _exit(1);
    }
    close(ends[1]);
    size_t ids = 0;
    while (ids < JOBS && read(ends[0], sound.ids[ids], 27) == 27) {
        ids++;
    }
    close(ends[0]);
    int status = 0;
    bool killed = waitpid(child, &status, 0) == child && WIFSIGNALED(status);
    return killed && read_whole(0) && read_whole(1) && read_whole(2) && sound.count[1] > 4096;
}

/* The sound files, but for one of them. */
static bool put_back(int changed, const unsigned char *bytes, size_t count)
{
    bool fine = true;
    for (int i = 0; i < FILE_COUNT; i++) {
        fine = (i == changed ? write_whole(i, bytes, count) : write_whole(i, sound.bytes[i], sound.count[i])) && fine;
    }
    return fine;
}

static bool is_known(const char *id)
{
    for (int i = 0; i < JOBS; i++) {
        if (strcmp(sound.ids[i], id) == 0) {
            return true;
        }
    }
    return false;
}

typedef struct tally {
    int refused, opened, incomplete, strange, wordless;
} tally;

/* One start on what lies there. Jobs that are told of must be such as were asked for. */
static void try_start(tally *t)
{
    error.message[0] = 0;
    if (open_store() != DN_OK) {
        t->refused++;
        t->wordless += error.message[0] == 0 || strchr(error.message, '\n') != NULL;
        return;
    }
    t->opened++;
    int seen = 0;
    store_job *jobs = NULL;
    size_t count = 0;
    char cursor[64] = "", next[64];
    for (int page = 0; page < 8 && store_list(st, "alice", NULL, NULL, cursor, 100, &jobs, &count, next) == STORE_OK; page++) {
        for (size_t i = 0; i < count; i++) {
            seen += is_known(jobs[i].id);
            t->strange += !is_known(jobs[i].id);
            store_job_done(&jobs[i]);
        }
        free(jobs);
        jobs = NULL;
        memcpy(cursor, next, sizeof cursor);
        if (!cursor[0]) {
            break;
        }
    }
    claim got[16];
    claim_jobs(got, 16, NULL);
    t->incomplete += seen < JOBS;
    close_store();
}

/* rounds starts, each on one changed byte of the file (a run of zeros, a cut), all else sound. */
static tally tries(int which, int rounds, int kind)
{
    tally t = {0};
    unsigned char *changed = malloc(sound.count[which]);
    for (int i = 0; i < rounds; i++) {
        size_t at = chance((unsigned)sound.count[which]), count = sound.count[which];
        memcpy(changed, sound.bytes[which], count);
        if (kind == 'f') {
            changed[at] ^= (unsigned char)(1u << chance(8));
        } else if (kind == 'z') {
            at = at / 4096 * 4096;
            memset(changed + at, 0, count - at < 4096 ? count - at : 4096);
        } else {
            count = at;
        }
        if (!put_back(which, changed, count)) {
            t.wordless = -1;
            break;
        }
        try_start(&t);
    }
    free(changed);
    static const char *const kinds[] = {"flipped bytes", "zeroed pages", "cuts"};
    printf("# %s: %d %s, %d starts refused, %d went on (%d without every job), %d strange jobs\n", FILES[which], rounds,
           kinds[kind == 'f'   ? 0
                 : kind == 'z' ? 1
                               : 2],
           t.refused, t.opened, t.incomplete, t.strange);
    return t;
}

/* What the check of a start can see, it must see: whatever an index knows too (ids, clients, states, times) is held against it. A changed
 * value that stands in one place only is as good as another to SQLite, which keeps no checksums. */
static void a_changed_database_is_refused_or_read(void)
{
    CHECK(make_sound());
    tally flips = tries(0, FLIPS, 'f'), zeros = tries(0, CUTS, 'z'), cuts = tries(0, CUTS, 'c');
    CHECK(flips.wordless == 0 && zeros.wordless == 0 && cuts.wordless == 0);
    CHECK(flips.refused > FLIPS / 20 && flips.opened > 0);
    CHECK_MSG(flips.incomplete + zeros.incomplete + cuts.incomplete == 0, "opened without all of its jobs %d, %d, %d times",
              flips.incomplete, zeros.incomplete, cuts.incomplete);
    CHECK(flips.strange + zeros.strange + cuts.strange == 0);
}

/* Frames have checksums: what follows a changed one is not there, as after a power cut. Nothing is ever made up. */
static void a_changed_log_is_cut_short(void)
{
    CHECK(make_sound());
    tally flips = tries(1, FLIPS / 3, 'f'), zeros = tries(1, CUTS, 'z'), cuts = tries(1, CUTS, 'c');
    CHECK(flips.wordless == 0 && zeros.wordless == 0 && cuts.wordless == 0);
    CHECK_MSG(flips.strange == 0 && zeros.strange == 0 && cuts.strange == 0, "%d %d %d", flips.strange, zeros.strange, cuts.strange);
    CHECK(flips.incomplete > 0 && cuts.opened == CUTS);
}

/* The index of the log is made anew by the first who opens. */
static void a_changed_index_of_the_log_changes_nothing(void)
{
    CHECK(make_sound());
    tally flips = tries(2, FLIPS / 6, 'f'), zeros = tries(2, CUTS / 4, 'z'), cuts = tries(2, CUTS / 4, 'c');
    CHECK(flips.opened == FLIPS / 6 && flips.incomplete == 0 && flips.strange == 0);
    CHECK(zeros.opened == CUTS / 4 && zeros.incomplete == 0 && cuts.opened == CUTS / 4 && cuts.incomplete == 0);
}

int main(void)
{
    if (!freopen("/dev/null", "w", stderr)) { /* SQLite tells each damage there */
        return 1;
    }
    RUN(a_changed_database_is_refused_or_read);
    RUN(a_changed_log_is_cut_short);
    RUN(a_changed_index_of_the_log_changes_nothing);
    end_store_tests();
    return test_end();
}
