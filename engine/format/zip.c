/* Reads a zip's directory. Owns nothing: names and tables lie in the caller's arena. Invariant of a zip that was read: entries
 * lie inside the file, stored, each one's extent closed by the next one's header, and all three accounts of an entry agree.
 * Layout: PKWARE APPNOTE 6.3.3, sections 4.3 and 4.5.3. One call, one thread. */
#include "format/zip.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/limits.h"
#include "format/safetensors_file.h"

#define LOCAL_BYTES 30u
#define CENTRAL_BYTES 46u
#define END_BYTES 22u
#define END64_BYTES 56u
#define LOCATOR_BYTES 20u
#define LOCAL_MAGIC 0x04034b50u
#define CENTRAL_MAGIC 0x02014b50u
#define END_MAGIC 0x06054b50u
#define END64_MAGIC 0x06064b50u
#define LOCATOR_MAGIC 0x07064b50u
#define DESCRIPTOR_MAGIC 0x08074b50u
#define DESCRIPTOR_BYTES 16u
#define DESCRIPTOR64_BYTES 24u
#define FLAG_DESCRIPTOR 0x0008u
#define FLAG_UTF8 0x0800u
#define FLAG_ENCRYPTED 0x0001u
#define NAME_BYTES_MAX 512u
#define DIRECTORY_BYTES_MAX (32u << 20)
#define ENTRIES_MAX (2u * DN_SAFETENSORS_TENSORS_MAX)
#define ZIP64_EXTRA 0x0001u
#define IN_ZIP64 0xFFFFFFFFu

/* One entry as the directory has it, on its way to dn_zip_entry. */
typedef struct record {
    const char *name;
    uint64_t bytes, local; /* local: offset of its local header */
    uint32_t crc;
    uint16_t flags;
} record;

static uint16_t u16(const unsigned char *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t u32(const unsigned char *at)
{
    return (uint32_t)u16(at) | (uint32_t)u16(at + 2) << 16;
}

static uint64_t u64(const unsigned char *at)
{
    return (uint64_t)u32(at) | (uint64_t)u32(at + 4) << 32;
}

static dn_status refuse(const dn_zip *zip, dn_error *error, const char *rule)
{
    return dn_fail(error, DN_INVALID, "%s: zip: %s", zip->path, rule);
}

static dn_status refuse_entry(const dn_zip *zip, const char *name, dn_error *error, const char *rule)
{
    return dn_fail(error, DN_INVALID, "%s: zip entry \"%.100s\": %s", zip->path, name, rule);
}

static dn_status read_at(const dn_zip *zip, void *out, size_t count, uint64_t offset, dn_error *error)
{
    if (offset > zip->file_bytes || count > zip->file_bytes - offset)
        return refuse(zip, error, "a record lies beyond the end of the file");
    return dn_pread_exactly(zip->fd, zip->path, out, count, offset, error);
}

typedef struct directory {
    uint64_t offset, bytes, count;
} directory;

/* The 64-bit end record, which torch always writes, takes the place of the short one's numbers. `end` is the short one's offset. */
static dn_status read_end64(const dn_zip *zip, directory *out, bool *there, uint64_t end, dn_error *error)
{
    unsigned char locator[LOCATOR_BYTES], record64[END64_BYTES];
    if (end < LOCATOR_BYTES + END64_BYTES)
        return DN_OK;
    dn_status status = read_at(zip, locator, sizeof locator, end - LOCATOR_BYTES, error);
    if (status != DN_OK || u32(locator) != LOCATOR_MAGIC)
        return status;
    uint64_t at = u64(locator + 8);
    if (u32(locator + 4) != 0 || u32(locator + 16) != 1 || at != end - LOCATOR_BYTES - END64_BYTES)
        return refuse(zip, error, "the 64-bit end record is not where its locator says");
    status = read_at(zip, record64, sizeof record64, at, error);
    if (status != DN_OK)
        return status;
    directory large = {.count = u64(record64 + 32), .bytes = u64(record64 + 40), .offset = u64(record64 + 48)};
    bool one_disk = u32(record64 + 16) == 0 && u32(record64 + 20) == 0 && u64(record64 + 24) == large.count;
    if (u32(record64) != END64_MAGIC || u64(record64 + 4) != END64_BYTES - 12 || !one_disk)
        return refuse(zip, error, "the 64-bit end record breaks its form");
    bool agree = (out->count == 0xFFFFu || out->count == large.count) && (out->bytes == IN_ZIP64 || out->bytes == large.bytes) &&
                 (out->offset == IN_ZIP64 || out->offset == large.offset);
    if (!agree)
        return refuse(zip, error, "the two end records differ");
    if (large.offset > at || large.bytes != at - large.offset)
        return refuse(zip, error, "the directory does not end where the end record begins");
    *out = large;
    *there = true;
    return DN_OK;
}

/* The end record is the file's last 22 bytes: a comment, or anything behind it, is refused. */
static dn_status read_end(const dn_zip *zip, directory *out, dn_error *error)
{
    unsigned char end[END_BYTES];
    if (zip->file_bytes < END_BYTES)
        return refuse(zip, error, "shorter than an end record");
    uint64_t at = zip->file_bytes - END_BYTES;
    dn_status status = read_at(zip, end, sizeof end, at, error);
    if (status != DN_OK)
        return status;
    if (u32(end) != END_MAGIC || u16(end + 20) != 0)
        return refuse(zip, error, "no end record at the file's end: the file is cut short or something follows it");
    if (u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 8) != u16(end + 10))
        return refuse(zip, error, "spread over several disks");
    directory found = {.count = u16(end + 10), .bytes = u32(end + 12), .offset = u32(end + 16)};
    bool wide = false;
    status = read_end64(zip, &found, &wide, at, error);
    if (status != DN_OK)
        return status;
    if (!wide && (found.offset > at || found.bytes != at - found.offset))
        return refuse(zip, error, "the directory does not end where the end record begins");
    if (found.count > ENTRIES_MAX || found.bytes > DIRECTORY_BYTES_MAX || found.bytes / CENTRAL_BYTES < found.count)
        return refuse(zip, error, "too many entries for the size of the directory");
    *out = found;
    return DN_OK;
}

/* Replaces the numbers that the short fields pass on to the 64-bit extra field, in the order the format fixes. */
static bool take_zip64(const unsigned char *extra, size_t count, uint64_t *const *numbers, size_t number_count)
{
    size_t needed = 0;
    for (size_t i = 0; i < number_count; i++)
        needed += *numbers[i] == IN_ZIP64 ? 8 : 0;
    bool found = needed == 0;
    while (count >= 4) {
        size_t bytes = u16(extra + 2);
        if (bytes > count - 4)
            return false;
        if (u16(extra) == ZIP64_EXTRA && !found) {
            const unsigned char *at = extra + 4;
            if (bytes < needed)
                return false;
            for (size_t i = 0; i < number_count; i++) {
                if (*numbers[i] != IN_ZIP64)
                    continue;
                *numbers[i] = u64(at);
                at += 8;
            }
            found = true;
        }
        extra += 4 + bytes;
        count -= 4 + bytes;
    }
    return found && count == 0;
}

static bool is_plain_name(const char *name, size_t bytes)
{
    if (bytes == 0 || bytes > NAME_BYTES_MAX || name[0] == '/' || name[bytes - 1] == '/')
        return false;
    for (size_t i = 0; i < bytes; i++) {
        bool starts = i == 0 || name[i - 1] == '/';
        bool dots = starts && name[i] == '.' &&
                    (i + 1 == bytes || name[i + 1] == '/' || (name[i + 1] == '.' && (i + 2 == bytes || name[i + 2] == '/')));
        if (name[i] < 0x20 || name[i] > 0x7E || name[i] == '\\' || dots || (starts && name[i] == '/'))
            return false;
    }
    return true;
}

static dn_status check_form(const dn_zip *zip, const char *name, uint16_t flags, uint16_t method, dn_error *error)
{
    if (flags & FLAG_ENCRYPTED)
        return dn_fail(error, DN_UNSUPPORTED, "%s: zip entry \"%.100s\": encrypted", zip->path, name);
    if (method != 0)
        return dn_fail(
            error, DN_UNSUPPORTED,
            "%s: zip entry \"%.100s\": compressed, as torch.jit.save does and torch.save never; save a state_dict() with torch.save",
            zip->path, name);
    if (flags & ~(FLAG_DESCRIPTOR | FLAG_UTF8))
        return refuse_entry(zip, name, error, "unknown flags");
    return DN_OK;
}

/* One central header at `at`, of which `left` bytes remain; *used is its length. */
static dn_status read_central(const dn_zip *zip, record *out, size_t *used, const unsigned char *at, size_t left, dn_arena *arena,
                              dn_error *error)
{
    if (left < CENTRAL_BYTES || u32(at) != CENTRAL_MAGIC)
        return refuse(zip, error, "the directory breaks off");
    size_t name_bytes = u16(at + 28), extra_bytes = u16(at + 30), comment_bytes = u16(at + 32);
    if (left - CENTRAL_BYTES < name_bytes + extra_bytes + comment_bytes)
        return refuse(zip, error, "the directory breaks off");
    const char *stored = (const char *)at + CENTRAL_BYTES;
    if (!is_plain_name(stored, name_bytes))
        return refuse(zip, error, "an entry's name is empty, too long, not printable, absolute or leads out of the archive");
    char *name = dn_arena_alloc(arena, name_bytes + 1);
    if (name == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory for the zip's directory", zip->path);
    memcpy(name, stored, name_bytes);
    uint64_t unpacked = u32(at + 24), packed = u32(at + 20), local = u32(at + 42);
    uint64_t *const numbers[] = {&unpacked, &packed, &local};
    *out = (record){.name = name, .crc = u32(at + 16), .flags = u16(at + 8)};
    dn_status status = check_form(zip, name, out->flags, u16(at + 10), error);
    if (status != DN_OK)
        return status;
    if (u16(at + 34) != 0 || !take_zip64((const unsigned char *)stored + name_bytes, extra_bytes, numbers, 3))
        return refuse_entry(zip, name, error, "its extra fields break their form");
    if (packed != unpacked)
        return refuse_entry(zip, name, error, "stored, but of two sizes");
    out->bytes = unpacked;
    out->local = local;
    *used = CENTRAL_BYTES + name_bytes + extra_bytes + comment_bytes;
    return DN_OK;
}

/* Whether the local header agrees with the directory; *start is where its data begins. */
static dn_status read_local(const dn_zip *zip, const record *entry, uint64_t *start, dn_error *error)
{
    unsigned char head[LOCAL_BYTES];
    dn_status status = read_at(zip, head, sizeof head, entry->local, error);
    if (status != DN_OK)
        return status;
    size_t name_bytes = u16(head + 26), extra_bytes = u16(head + 28);
    if (u32(head) != LOCAL_MAGIC || u16(head + 6) != entry->flags || u16(head + 8) != 0 || name_bytes != strlen(entry->name))
        return refuse_entry(zip, entry->name, error, "its local header differs from the directory");
    unsigned char *tail = malloc(name_bytes + extra_bytes + 1);
    if (tail == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", zip->path);
    status = read_at(zip, tail, name_bytes + extra_bytes, entry->local + LOCAL_BYTES, error);
    uint64_t unpacked = u32(head + 22), packed = u32(head + 18);
    uint64_t *const numbers[] = {&unpacked, &packed};
    bool later = entry->flags & FLAG_DESCRIPTOR, same = false;
    if (status == DN_OK && take_zip64(tail + name_bytes, extra_bytes, numbers, 2)) {
        bool given = unpacked == entry->bytes && packed == entry->bytes && u32(head + 14) == entry->crc;
        bool left_open = later && unpacked == 0 && packed == 0 && u32(head + 14) == 0;
        same = memcmp(tail, entry->name, name_bytes) == 0 && (given || left_open);
    }
    free(tail);
    if (status != DN_OK)
        return status;
    *start = entry->local + LOCAL_BYTES + name_bytes + extra_bytes;
    return same ? DN_OK : refuse_entry(zip, entry->name, error, "its local header differs from the directory");
}

/* What lies between an entry's data and the next header: nothing, or a descriptor that says what the directory says. */
static dn_status check_gap(const dn_zip *zip, const record *entry, uint64_t data_end, uint64_t next, dn_error *error)
{
    uint64_t gap = next - data_end;
    if (!(entry->flags & FLAG_DESCRIPTOR))
        return gap == 0 ? DN_OK : refuse_entry(zip, entry->name, error, "bytes between it and the next entry");
    if (gap != DESCRIPTOR_BYTES && gap != DESCRIPTOR64_BYTES)
        return refuse_entry(zip, entry->name, error, "no data descriptor between it and the next entry");
    unsigned char tail[DESCRIPTOR64_BYTES];
    dn_status status = read_at(zip, tail, (size_t)gap, data_end, error);
    if (status != DN_OK)
        return status;
    bool wide = gap == DESCRIPTOR64_BYTES;
    uint64_t packed = wide ? u64(tail + 8) : u32(tail + 8), unpacked = wide ? u64(tail + 16) : u32(tail + 12);
    if (u32(tail) != DESCRIPTOR_MAGIC || u32(tail + 4) != entry->crc || packed != entry->bytes || unpacked != entry->bytes)
        return refuse_entry(zip, entry->name, error, "its data descriptor differs from the directory");
    return DN_OK;
}

static int compare_records(const void *a, const void *b)
{
    const record *left = a, *right = b;
    return left->local < right->local ? -1 : left->local > right->local;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(dn_zip_entry *const *)a)->name, (*(dn_zip_entry *const *)b)->name);
}

/* Sorts by place and checks that headers, data and descriptors cover the file up to the directory exactly once. */
static dn_status settle(dn_zip *zip, record *records, uint64_t directory_offset, dn_error *error)
{
    qsort(records, zip->count, sizeof *records, compare_records);
    uint64_t expected = 0;
    for (size_t i = 0; i < zip->count; i++) {
        uint64_t next = i + 1 < zip->count ? records[i + 1].local : directory_offset, start = 0;
        if (records[i].local != expected)
            return refuse_entry(zip, records[i].name, error, "it overlaps another entry, or bytes lie before it");
        dn_status status = read_local(zip, &records[i], &start, error);
        if (status != DN_OK)
            return status;
        if (start > next || records[i].bytes > next - start)
            return refuse_entry(zip, records[i].name, error, "its data runs into the next entry");
        status = check_gap(zip, &records[i], start + records[i].bytes, next, error);
        if (status != DN_OK)
            return status;
        zip->entries[i] = (dn_zip_entry){.name = records[i].name, .offset = start, .bytes = records[i].bytes, .crc = records[i].crc};
        zip->by_name[i] = &zip->entries[i];
        expected = next;
    }
    if (expected != directory_offset)
        return refuse(zip, error, "bytes before the directory");
    qsort(zip->by_name, zip->count, sizeof(dn_zip_entry *), compare_names);
    for (size_t i = 1; i < zip->count; i++)
        if (strcmp(zip->by_name[i - 1]->name, zip->by_name[i]->name) == 0)
            return refuse_entry(zip, zip->by_name[i]->name, error, "there twice");
    return DN_OK;
}

dn_status dn_zip_read(dn_zip *zip, dn_arena *arena, dn_error *error)
{
    directory where = {0};
    dn_status status = read_end(zip, &where, error);
    if (status != DN_OK)
        return status;
    zip->count = (size_t)where.count;
    unsigned char *bytes = malloc((size_t)where.bytes + 1);
    record *records = calloc(zip->count + 1, sizeof *records);
    zip->entries = dn_arena_alloc_array(arena, zip->count, sizeof *zip->entries);
    zip->by_name = dn_arena_alloc_array(arena, zip->count, sizeof(dn_zip_entry *));
    if (bytes == NULL || records == NULL || zip->entries == NULL || zip->by_name == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory for the zip's directory", zip->path);
        goto done;
    }
    status = read_at(zip, bytes, (size_t)where.bytes, where.offset, error);
    size_t at = 0, used = 0;
    for (size_t i = 0; i < zip->count && status == DN_OK; i++, at += used)
        status = read_central(zip, &records[i], &used, bytes + at, (size_t)where.bytes - at, arena, error);
    if (status == DN_OK && at != where.bytes)
        status = refuse(zip, error, "bytes behind the last entry of the directory");
    if (status == DN_OK)
        status = settle(zip, records, where.offset, error);
done:
    free(records);
    free(bytes);
    return status;
}

const dn_zip_entry *dn_zip_find(const dn_zip *zip, const char *name)
{
    dn_zip_entry key = {.name = name}, *pointer = &key;
    dn_zip_entry **found = bsearch(&pointer, zip->by_name, zip->count, sizeof pointer, compare_names);
    return found != NULL ? *found : NULL;
}

static dn_status refuse_checksum(const dn_zip *zip, const dn_zip_entry *entry, dn_error *error)
{
    return refuse_entry(zip, entry->name, error,
                        "its checksum does not match its bytes (damaged, or written with torch's CRC32 option off)");
}

dn_status dn_zip_load(unsigned char **out, const dn_zip *zip, const dn_zip_entry *entry, size_t limit_bytes, dn_error *error)
{
    if (entry->bytes > limit_bytes)
        return dn_fail(error, DN_INVALID, "%s: zip entry \"%.100s\": larger than %zu bytes", zip->path, entry->name, limit_bytes);
    unsigned char *bytes = malloc((size_t)entry->bytes + 1);
    if (bytes == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", zip->path);
    dn_status status = read_at(zip, bytes, (size_t)entry->bytes, entry->offset, error);
    if (status == DN_OK && (uint32_t)crc32_z(0, bytes, (size_t)entry->bytes) != entry->crc)
        status = refuse_checksum(zip, entry, error);
    if (status == DN_OK) {
        *out = bytes;
        bytes = NULL;
    }
    free(bytes);
    return status;
}

dn_status dn_zip_audit_chunk(dn_zip_audit *audit, const unsigned char *bytes, size_t count, dn_error *error)
{
    uint64_t chunk_end = audit->at + count;
    for (; audit->entry < audit->zip->count; audit->entry++) {
        const dn_zip_entry *entry = &audit->zip->entries[audit->entry];
        uint64_t from = entry->offset > audit->at ? entry->offset : audit->at, end = entry->offset + entry->bytes;
        uint64_t to = end < chunk_end ? end : chunk_end;
        if (from < to)
            audit->crc = (uint32_t)crc32_z(audit->crc, bytes + (from - audit->at), (size_t)(to - from));
        if (end > chunk_end || entry->offset > chunk_end)
            break;
        if (audit->crc != entry->crc)
            return refuse_checksum(audit->zip, entry, error);
        audit->crc = 0;
    }
    audit->at = chunk_end;
    return DN_OK;
}
