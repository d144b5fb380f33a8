/* A small file system in memory that knows what a power cut takes: bytes that were not synced, names whose folder was not.
 *
 * Invariant: `bytes` is what a process sees, `safe` what is on the platters; they differ at most between dirty_from and dirty_to, and in their
 * sizes. Names likewise: `names` is what is seen, `journal` what has been done to them since their folder was last synced, in order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { NAMES_MAX = 4096, SECTOR = 512, PATH_BYTES = 160 };

struct sim_file {
    unsigned char *bytes, *safe;
    size_t size, room, safe_size, safe_room;
    size_t dirty_from, dirty_to; /* from < to: differs */
    uint64_t hollow; /* bytes that are reserved, and of no content */
    unsigned names; /* here, in the journal and on the platters: freed when nobody knows it */
    void *shared;
    bool ghost; /* made while the disk was dead: nobody ever had it */
};

typedef struct name_entry {
    char path[PATH_BYTES];
    sim_file *file, *before; /* before: in the journal, what the name meant (NULL: nothing) */
} name_entry;

static struct {
    name_entry *names, *journal;
    size_t count, journal_count;
    bool dead;
    sim_disk_fault fault;
    unsigned fault_after;
    bool fault_sticky, fault_seen;
    uint64_t room, used;
} disk;

static void unref(sim_file *file)
{
    if (!file || --file->names)
        return;
    disk.used -= file->size + file->hollow;
    free(file->bytes);
    free(file->safe);
    free(file);
}

static name_entry *find(const char *path)
{
    for (size_t i = 0; i < disk.count; i++)
        if (strcmp(disk.names[i].path, path) == 0)
            return &disk.names[i];
    return NULL;
}

void sim_disk_reset(void)
{
    if (!disk.names) {
        disk.names = calloc(NAMES_MAX, sizeof *disk.names);
        disk.journal = calloc(NAMES_MAX, sizeof *disk.journal);
    }
    sim_disk_settle();
    while (disk.count)
        unref(disk.names[--disk.count].file);
    disk.dead = false;
    disk.used = 0;
    disk.room = 1ull << 30;
    sim_disk_heal();
}

void sim_disk_room(uint64_t bytes)
{
    disk.room = bytes;
}

uint64_t sim_disk_free(void)
{
    return disk.room > disk.used ? disk.room - disk.used : 0;
}

void sim_disk_fault_in(sim_disk_fault kind, unsigned operations, bool sticky)
{
    disk.fault = kind;
    disk.fault_after = operations;
    disk.fault_sticky = sticky;
}

void sim_disk_heal(void)
{
    disk.fault = FAULT_NONE;
    disk.fault_seen = false;
}

bool sim_disk_fault_seen(void)
{
    return disk.fault_seen;
}

/* Whether this operation fails; 0 or errno. */
static int strike(bool sync)
{
    if (disk.dead || disk.fault == FAULT_NONE || sync != (disk.fault == FAULT_SYNC))
        return 0;
    if (disk.fault_after) {
        disk.fault_after--;
        return 0;
    }
    static const sim_count counts[] = {
        [FAULT_FULL] = COUNT_DISK_FULL, [FAULT_WRITE] = COUNT_WRITE_ERRORS, [FAULT_SYNC] = COUNT_SYNC_ERRORS};
    const int code = disk.fault == FAULT_FULL ? ENOSPC : EIO;
    sim_count_one(counts[disk.fault]);
    disk.fault_seen = true;
    if (!disk.fault_sticky)
        disk.fault = FAULT_NONE;
    return code;
}

/* ---- Names */

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

/* What a change of a name does to `names`; file NULL: it goes. */
static void set_name(const char *path, sim_file *file)
{
    name_entry *entry = find(path);
    if (file)
        file->names++;
    if (!entry && !file)
        return;
    if (!entry) {
        if (disk.count == NAMES_MAX)
            abort();
        entry = &disk.names[disk.count++];
        snprintf(entry->path, sizeof entry->path, "%s", path);
        entry->file = NULL;
    }
    unref(entry->file);
    entry->file = file;
    if (!file)
        *entry = disk.names[--disk.count];
}

static void journal_forget(size_t i)
{
    unref(disk.journal[i].file);
    unref(disk.journal[i].before);
    memmove(&disk.journal[i], &disk.journal[i + 1], (disk.journal_count - i - 1) * sizeof disk.journal[0]);
    disk.journal_count--;
}

void sim_disk_dead(bool dead)
{
    disk.dead = dead;
    for (size_t i = 0; !dead && i < disk.count;) {
        if (disk.names[i].file->ghost) {
            unref(disk.names[i].file);
            disk.names[i] = disk.names[--disk.count];
        } else {
            i++;
        }
    }
}

static void change_name(const char *path, sim_file *file, bool synced)
{
    if (disk.dead)
        return;
    const name_entry *entry = find(path);
    if (!synced) {
        if (disk.journal_count == NAMES_MAX)
            journal_forget(0);
        name_entry *change = &disk.journal[disk.journal_count++];
        snprintf(change->path, sizeof change->path, "%s", path);
        change->file = file;
        change->before = entry ? entry->file : NULL;
        if (change->file)
            change->file->names++;
        if (change->before)
            change->before->names++;
    }
    set_name(path, file);
}

static void sync_folder(const char *path, size_t length)
{
    for (size_t i = 0; !disk.dead && i < disk.journal_count;)
        if (folder_length(disk.journal[i].path) == length && memcmp(disk.journal[i].path, path, length) == 0)
            journal_forget(i);
        else
            i++;
}

int sim_folder_sync(const char *path)
{
    sim_maybe_yield(100);
    const int code = strike(true);
    if (!code)
        sync_folder(path, strlen(path));
    return code;
}

sim_file *sim_file_find(const char *path)
{
    const name_entry *entry = find(path);
    return entry ? entry->file : NULL;
}

sim_file *sim_file_make(const char *path)
{
    sim_file *file = sim_file_find(path);
    if (file)
        return file;
    file = calloc(1, sizeof *file);
    if (!file)
        abort();
    if (disk.dead) {
        file->ghost = true;
        set_name(path, file);
        return file;
    }
    change_name(path, file, false);
    return file;
}

void sim_file_remove(const char *path, bool synced)
{
    change_name(path, NULL, false);
    if (synced)
        sync_folder(path, folder_length(path));
}

bool sim_file_rename(const char *from, const char *to)
{
    sim_file *file = sim_file_find(from);
    if (!file)
        return false;
    if (disk.dead)
        return true;
    file->names++;
    change_name(to, file, false);
    change_name(from, NULL, false);
    unref(file);
    return true;
}

void sim_folder_each(const char *folder, void (*visit)(const char *name, sim_file *file, void *payload), void *payload)
{
    const size_t length = strlen(folder);
    for (size_t i = 0; i < disk.count; i++)
        if (folder_length(disk.names[i].path) == length && memcmp(disk.names[i].path, folder, length) == 0)
            visit(disk.names[i].path + length + 1, disk.names[i].file, payload);
}

/* ---- Contents */

size_t sim_file_size(const sim_file *file)
{
    return file->size;
}

const unsigned char *sim_file_bytes(const sim_file *file)
{
    return file->bytes;
}

void **sim_file_shared(sim_file *file)
{
    return &file->shared;
}

static void grow(unsigned char **bytes, size_t *room, size_t wanted)
{
    if (wanted <= *room)
        return;
    const size_t larger = wanted * 2 < 4096 ? 4096 : wanted * 2;
    unsigned char *grown = realloc(*bytes, larger);
    if (!grown)
        abort();
    memset(grown + *room, 0, larger - *room);
    *bytes = grown;
    *room = larger;
}

static void dirty(sim_file *file, size_t from, size_t to)
{
    if (file->dirty_from >= file->dirty_to) {
        file->dirty_from = from;
        file->dirty_to = to;
        return;
    }
    file->dirty_from = from < file->dirty_from ? from : file->dirty_from;
    file->dirty_to = to > file->dirty_to ? to : file->dirty_to;
}

static void put(sim_file *file, const void *bytes, size_t count, size_t offset)
{
    grow(&file->bytes, &file->room, offset + count);
    if (offset > file->size)
        memset(file->bytes + file->size, 0, offset - file->size);
    memcpy(file->bytes + offset, bytes, count);
    dirty(file, offset < file->size ? offset : file->size, offset + count);
    if (offset + count > file->size) {
        disk.used += offset + count - file->size;
        file->size = offset + count;
    }
}

int sim_file_write(sim_file *file, const void *bytes, size_t count, uint64_t offset)
{
    sim_maybe_yield(20);
    if (disk.dead)
        return 0;
    const uint64_t growth = offset + count > file->size ? offset + count - file->size : 0;
    int code = strike(false);
    if (!code && disk.used + growth > disk.room) {
        code = ENOSPC;
        disk.fault_seen = true;
        sim_count_one(COUNT_DISK_FULL);
    }
    if (!code)
        put(file, bytes, count, offset);
    else if (code == ENOSPC && !growth && count > SECTOR)
        put(file, bytes, count / 2, offset); /* a short write before the error, as a full disk makes it */
    return code;
}

int sim_file_reserve(sim_file *file, uint64_t bytes)
{
    if (disk.dead)
        return 0;
    if (disk.used + bytes > disk.room)
        return ENOSPC;
    file->hollow = bytes;
    disk.used += bytes;
    return 0;
}

int sim_file_truncate(sim_file *file, uint64_t size)
{
    if (disk.dead)
        return 0;
    if (size < file->size) {
        disk.used -= file->size - size;
        dirty(file, size, file->size);
        file->size = size;
    } else if (size > file->size) {
        static const unsigned char zero = 0;
        put(file, &zero, 1, size - 1);
    }
    return 0;
}

static void settle(sim_file *file)
{
    if (file->dirty_from < file->dirty_to) {
        const size_t to = file->dirty_to < file->size ? file->dirty_to : file->size;
        grow(&file->safe, &file->safe_room, file->size);
        if (file->dirty_from < to)
            memcpy(file->safe + file->dirty_from, file->bytes + file->dirty_from, to - file->dirty_from);
    }
    file->safe_size = file->size;
    file->dirty_from = file->dirty_to = 0;
}

int sim_file_sync_bytes(sim_file *file)
{
    sim_maybe_yield(100);
    const int code = strike(true);
    if (!code && !disk.dead)
        settle(file);
    return code;
}

/* What SQLite's own layer does: a file that it made is synced with its folder. */
int sim_file_sync(sim_file *file)
{
    const int code = sim_file_sync_bytes(file);
    if (!code)
        sync_folder("data", 4);
    return code;
}

void sim_disk_settle(void)
{
    while (disk.journal_count)
        journal_forget(disk.journal_count - 1);
    for (size_t i = 0; i < disk.count; i++)
        settle(disk.names[i].file);
}

/* ---- A power cut */

/* What of a file survives: all, nothing of what was not synced, or one sector and not another. */
static void cut_file(sim_file *file)
{
    const size_t old = file->safe_size, now = file->size;
    const uint32_t fate = sim_below(3);
    if (file->dirty_from >= file->dirty_to && old == now)
        return;
    sim_count_one(COUNT_TORN_WRITES);
    if (fate == 0) {
        settle(file);
        return;
    }
    const size_t size = fate == 1 ? old : sim_below(2) ? old : now;
    grow(&file->bytes, &file->room, size);
    grow(&file->safe, &file->safe_room, size);
    for (size_t at = file->dirty_from / SECTOR * SECTOR; at < size && at < file->dirty_to; at += SECTOR) {
        const size_t end = at + SECTOR < size ? at + SECTOR : size, kept = end < old ? end : old;
        if (fate == 2 && end <= now && sim_below(2))
            continue; /* this one was written */
        if (kept > at)
            memcpy(file->bytes + at, file->safe + at, kept - at);
        if (end > (kept > at ? kept : at))
            memset(file->bytes + (kept > at ? kept : at), 0, end - (kept > at ? kept : at));
    }
    disk.used += size - file->size;
    file->size = size;
    file->dirty_to = size > file->dirty_to ? size : file->dirty_to;
    settle(file);
}

/* Names of a folder whose sync is due: the last of its changes are undone, the newest first. */
void sim_disk_power_cut(void)
{
    size_t kept = disk.journal_count ? sim_below((uint32_t)disk.journal_count + 1) : 0;
    if (sim_below(2))
        kept = sim_below(2) ? 0 : disk.journal_count;
    while (disk.journal_count > kept) {
        name_entry *change = &disk.journal[disk.journal_count - 1];
        set_name(change->path, change->before);
        journal_forget(disk.journal_count - 1);
    }
    while (disk.journal_count)
        journal_forget(disk.journal_count - 1);
    for (size_t i = 0; i < disk.count; i++)
        cut_file(disk.names[i].file);
}
