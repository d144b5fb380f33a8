/* Snapshot files: snapshots/<job>-<index>.snap, a header, the worker's bytes, and a checksum over both.
 *
 * Layout: magic (8), job id (26), index, steps done (u32 each), payload length (u64), SHA-256 of all of that and the payload (32),
 * payload; little-endian. Invariant: a file that is read back whole is exactly what some worker said of exactly this image; whether
 * it still fits the model is the worker's to judge. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "server/dispatcher_internal.h"

enum { FIXED_BYTES = 8 + API_ID_BYTES + 4 + 4 + 8, HEADER_BYTES = FIXED_BYTES + 32 };

static const unsigned char magic[8] = {'d', 'n', 's', 'n', 'a', 'p', '1', '\n'};

void snapshot_name(char out[SNAPSHOT_NAME_BYTES], const char *job_id, uint32_t index)
{
    snprintf(out, SNAPSHOT_NAME_BYTES, "%.26s-%u.snap", job_id, index);
}

static void put_number(unsigned char *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get_number(const unsigned char *from, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

static void checksum(unsigned char out[32], const unsigned char *fixed, const unsigned char *payload, size_t count)
{
    dn_sha256 hash;
    dn_sha256_init(&hash);
    dn_sha256_update(&hash, fixed, FIXED_BYTES);
    dn_sha256_update(&hash, payload, count);
    dn_sha256_final(&hash, out);
}

unsigned char *snapshot_wrap(const char *job_id, uint32_t index, uint32_t steps, protocol_bytes payload, size_t *out_bytes)
{
    unsigned char *file = malloc(HEADER_BYTES + payload.count);
    if (!file)
        return NULL;
    memcpy(file, magic, sizeof magic);
    memcpy(file + 8, job_id, API_ID_BYTES);
    put_number(file + 34, index, 4);
    put_number(file + 38, steps, 4);
    put_number(file + 42, payload.count, 8);
    memcpy(file + HEADER_BYTES, payload.bytes, payload.count);
    checksum(file + FIXED_BYTES, file, file + HEADER_BYTES, payload.count);
    *out_bytes = HEADER_BYTES + payload.count;
    return file;
}

/* Opens a lane's file and reads its header; -1: there is none of this lane. *count: payload bytes the header tells of. */
static int open_snapshot(unsigned char header[HEADER_BYTES], int folder_fd, const char *job_id, uint32_t index, uint64_t *count)
{
    char name[SNAPSHOT_NAME_BYTES];
    snapshot_name(name, job_id, index);
    const int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -1;
    const bool whole = read(fd, header, HEADER_BYTES) == HEADER_BYTES && memcmp(header, magic, 8) == 0 &&
                       memcmp(header + 8, job_id, API_ID_BYTES) == 0 && get_number(header + 34, 4) == index;
    if (whole) {
        *count = get_number(header + 42, 8);
        return fd;
    }
    close(fd);
    return -1;
}

unsigned char *snapshot_read(int folder_fd, const char *job_id, uint32_t index, uint32_t *steps, size_t *out_bytes)
{
    unsigned char header[HEADER_BYTES], digest[32];
    uint64_t count = 0;
    const int fd = open_snapshot(header, folder_fd, job_id, index, &count);
    if (fd < 0)
        return NULL;
    unsigned char *payload = count && count < PROTOCOL_FRAME_BYTES_MAX ? malloc(count + 1) : NULL;
    size_t have = 0;
    while (payload && have <= count) { /* One byte more than told must not be there. */
        const ssize_t got = read(fd, payload + have, count + 1 - have);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    close(fd);
    if (payload && have == count)
        checksum(digest, header, payload, count);
    if (!payload || have != count || memcmp(digest, header + FIXED_BYTES, 32) != 0) {
        free(payload);
        return NULL;
    }
    *steps = (uint32_t)get_number(header + 38, 4);
    *out_bytes = count;
    return payload;
}

bool snapshot_exists(int folder_fd, const char *job_id, uint32_t index)
{
    char name[SNAPSHOT_NAME_BYTES];
    snapshot_name(name, job_id, index);
    return faccessat(folder_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* On the store's writer thread: reads headers only. */
uint64_t snapshot_resumed_done(void *payload, const store_job *job)
{
    const pending *claim = payload;
    uint64_t done = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        unsigned char header[HEADER_BYTES];
        uint64_t count;
        const int fd = open_snapshot(header, claim->d->files.snapshots_fd, job->id, i, &count);
        if (fd < 0)
            continue;
        done += get_number(header + 38, 4);
        close(fd);
    }
    return done;
}

void snapshot_sweep(dispatcher *d)
{
    const int fd = openat(d->files.snapshots_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (!folder) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (const struct dirent *entry; (entry = readdir(folder));) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        char id[API_ID_BYTES + 1];
        snprintf(id, sizeof id, "%.26s", name);
        store_job job = {0};
        const size_t length = strlen(name);
        const bool ours = length > 5 && strcmp(name + length - 5, ".snap") == 0 && api_id_valid(id);
        const store_result result = ours ? store_get(d->options.store, NULL, id, &job) : STORE_NONE;
        const bool needed = result == STORE_UNKNOWN || (result == STORE_OK && !api_state_ended(job.state));
        if (result == STORE_OK || result == STORE_GONE)
            store_job_done(&job);
        if (!needed)
            files_unlink(&d->files, FILE_UNLINK_SNAPSHOT, name);
    }
    closedir(folder);
}

bool dispatcher_snapshot_whole(int folder_fd, const char *name)
{
    char id[API_ID_BYTES + 1] = "";
    uint32_t index, steps;
    size_t count;
    memcpy(id, name, strnlen(name, API_ID_BYTES));
    if (!api_id_valid(id) || sscanf(name + API_ID_BYTES, "-%9u.snap", &index) != 1)
        return false;
    unsigned char *payload = snapshot_read(folder_fd, id, index, &steps, &count);
    const bool whole = payload != NULL;
    free(payload);
    return whole;
}
