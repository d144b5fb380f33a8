/* What a power cut leaves: a file system that has lost whatever was not synced, made from the operations that disk_shim.h wrote down.
 *
 * A file has its bytes as of its last sync; later writes may be there, in part (sectors of 512 bytes) or not at all. A folder has its
 * names as of its last sync; of later ones (made, renamed, removed) a first part may be there, in order. `strict` leaves out all that
 * may be left out. One thread, after recording has ended. */
#ifndef DN_TESTS_DISK_MODEL_H
#define DN_TESTS_DISK_MODEL_H

#include "tests/store/disk_shim.h"

/* What a lying disk does not do although it says so: for the checks that these tests can fail. */
enum { DISK_HONEST, DISK_NO_SYNC, DISK_NO_IMAGE_SYNC, DISK_NO_FOLDER_SYNC };

typedef struct disk_content {
    unsigned char *bytes;
    size_t count, room;
} disk_content;

static uint64_t disk_state = 1;

static unsigned disk_chance(unsigned below)
{
    disk_state ^= disk_state << 13;
    disk_state ^= disk_state >> 7;
    disk_state ^= disk_state << 17;
    return (unsigned)(disk_state >> 20) % below;
}

static void disk_put(disk_content *file, size_t offset, const unsigned char *bytes, size_t count)
{
    size_t end = offset + count;
    if (end > file->room) {
        size_t room = end * 2;
        file->bytes = realloc(file->bytes, room);
        memset(file->bytes + file->room, 0, room - file->room);
        file->room = room;
    }
    memcpy(file->bytes + offset, bytes, count);
    file->count = end > file->count ? end : file->count;
}

static void disk_cut_to(disk_content *file, size_t size)
{
    static const unsigned char zero[1];
    if (size > file->count) {
        disk_put(file, size - 1, zero, 1);
    } else if (file->bytes) {
        memset(file->bytes + size, 0, file->count - size);
    }
    file->count = size;
}

static bool disk_believed(const disk_entry *entry, int lie)
{
    bool image = strncmp(entry->path, "images", 6) == 0 || strncmp(entry->path, "inputs", 6) == 0;
    return entry->kind == DISK_SYNC ? lie != DISK_NO_SYNC && !(lie == DISK_NO_IMAGE_SYNC && image) : lie != DISK_NO_FOLDER_SYNC || !image;
}

typedef enum disk_fate { DISK_OPEN_FATE, DISK_CERTAIN, DISK_LOST } disk_fate;

/* Whether a sync speaks of an earlier operation: of that file's bytes, or of that folder's names. */
static bool disk_covers(const disk_entry *sync, const disk_entry *earlier)
{
    bool names =
        earlier->kind == DISK_CREATE || earlier->kind == DISK_RENAME || earlier->kind == DISK_UNLINK || earlier->kind == DISK_MKDIR;
    bool bytes = earlier->kind == DISK_WRITE || earlier->kind == DISK_TRUNCATE;
    if (sync->kind == DISK_SYNC || sync->kind == DISK_SYNC_FAILED) {
        return bytes && earlier->node == sync->node;
    }
    const char *slash = strrchr(earlier->path, '/');
    size_t parent = slash ? (size_t)(slash - earlier->path) : 0;
    return names && parent == strlen(sync->path) && strncmp(earlier->path, sync->path, parent) == 0;
}

/* What became of the operations before `end`. A sync makes certain; one that failed has thrown the bytes away, and a later one that
 * succeeds does not bring them back. */
static void disk_fates(disk_fate *out, size_t end, int lie)
{
    for (size_t i = 0; i < end; i++) {
        const disk_entry *entry = &disk.entries[i];
        bool failed = entry->kind == DISK_SYNC_FAILED;
        bool synced = (entry->kind == DISK_SYNC || entry->kind == DISK_SYNC_FOLDER) && disk_believed(entry, lie);
        for (size_t j = 0; (failed || synced) && j < i; j++) {
            if (out[j] == DISK_OPEN_FATE && disk_covers(entry, &disk.entries[j])) {
                out[j] = failed ? DISK_LOST : DISK_CERTAIN;
            }
        }
    }
}

static void disk_apply_content(disk_content *files, const disk_entry *entry, disk_fate fate, bool strict)
{
    unsigned luck = fate == DISK_CERTAIN ? 0 : fate == DISK_LOST || strict ? 2 : disk_chance(3);
    if (luck == 2 || (entry->kind != DISK_WRITE && entry->kind != DISK_TRUNCATE)) {
        return;
    }
    if (entry->kind == DISK_TRUNCATE) {
        disk_cut_to(&files[entry->node], (size_t)entry->offset);
        return;
    }
    size_t count = luck == 1 ? entry->count * disk_chance(8) / 8 / 512 * 512 : entry->count;
    if (count) {
        disk_put(&files[entry->node], (size_t)entry->offset, entry->bytes, count);
    }
}

typedef struct disk_names {
    struct disk_name list[512];
    size_t count;
} disk_names;

static void disk_forget(disk_names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->list[i].path, path) == 0) {
            names->list[i] = names->list[--names->count];
            return;
        }
    }
}

static void disk_name(disk_names *names, const char *path, int node)
{
    disk_forget(names, path);
    struct disk_name *name = &names->list[names->count++];
    snprintf(name->path, sizeof name->path, "%s", path);
    name->node = node;
}

static void disk_apply_name(disk_names *names, const char *root, const disk_entry *entry)
{
    char path[2 * DISK_PATH_BYTES];
    if (entry->kind == DISK_CREATE) {
        disk_name(names, entry->path, entry->node);
    } else if (entry->kind == DISK_RENAME) {
        disk_forget(names, entry->path);
        disk_name(names, entry->to, entry->node);
    } else if (entry->kind == DISK_UNLINK) {
        disk_forget(names, entry->path);
    } else if (entry->kind == DISK_MKDIR && entry->path[0]) {
        snprintf(path, sizeof path, "%s/%s", root, entry->path);
        mkdir(path, 0755);
    }
}

static bool disk_store_files(const disk_names *names, const disk_content *files, const char *root)
{
    bool fine = true;
    char path[2 * DISK_PATH_BYTES];
    for (size_t i = 0; fine && i < names->count; i++) {
        const struct disk_name *name = &names->list[i];
        const char *end = strrchr(name->path, '-');
        if (end && strcmp(end, "-shm") == 0) {
            continue; /* made anew by the first who opens */
        }
        snprintf(path, sizeof path, "%s/%s", root, name->path);
        FILE *out = fopen(path, "wb");
        const disk_content *file = &files[name->node];
        fine = out && fwrite(file->bytes ? file->bytes : (const unsigned char *)"", 1, file->count, out) == file->count;
        fine = (!out || fclose(out) == 0) && fine;
    }
    return fine;
}

/* Makes below the existing empty folder `root` what a cut after the first `end` operations leaves. The journal of a file system keeps the
 * order of names: once one is left out, so are all later ones of the same folder that are not certain. */
static inline bool disk_power_cut(const char *root, size_t end, bool strict, int lie)
{
    disk_fate *fates = calloc(end + 1, sizeof *fates);
    disk_content *files = calloc((size_t)disk.nodes + 1, sizeof *files);
    disk_names *names = calloc(1, sizeof *names);
    disk_fates(fates, end, lie);
    size_t names_until = strict ? 0 : disk_chance((unsigned)end + 1);
    for (size_t i = 0; i < end; i++) {
        disk_apply_content(files, &disk.entries[i], fates[i], strict);
        if (fates[i] == DISK_CERTAIN || i < names_until) {
            disk_apply_name(names, root, &disk.entries[i]);
        }
    }
    bool fine = disk_store_files(names, files, root);
    for (int i = 0; i < disk.nodes; i++) {
        free(files[i].bytes);
    }
    free(names);
    free(files);
    free(fates);
    return fine;
}

#endif
