/* The directory of a zip archive whose entries are stored, not compressed: what torch.save writes. Private to this folder.
 *
 * Strict: the central directory, every local header and every data descriptor say the same; entries touch one another without
 * gap or overlap from the first byte to the directory; nothing follows the end record. So no byte of the file is hidden, and two
 * readers cannot disagree on what it holds. */
#ifndef DN_FORMAT_ZIP_H
#define DN_FORMAT_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

typedef struct dn_zip_entry {
    const char *name; /* printable, relative, no ".."; in the arena */
    uint64_t offset; /* of its first byte in the file */
    uint64_t bytes;
    uint32_t crc;
} dn_zip_entry;

typedef struct dn_zip {
    int fd; /* borrowed */
    const char *path; /* borrowed; for messages */
    uint64_t file_bytes;
    dn_zip_entry *entries; /* [count], in the order of their bytes; in the arena */
    size_t count;
    dn_zip_entry **by_name; /* [count], sorted */
} dn_zip;

/* fd, path and file_bytes are filled by the caller. Checksums are not read here. */
dn_status dn_zip_read(dn_zip *zip, dn_arena *arena, dn_error *error);
const dn_zip_entry *dn_zip_find(const dn_zip *zip, const char *name); /* NULL: not there */
/* One entry's bytes, checked against its checksum; *out is malloc'd. */
dn_status dn_zip_load(unsigned char **out, const dn_zip *zip, const dn_zip_entry *entry, size_t limit_bytes, dn_error *error);

/* Checks every entry's checksum while somebody reads the file from its first byte to its last, chunk by chunk. */
typedef struct dn_zip_audit {
    const dn_zip *zip;
    size_t entry; /* the next to end */
    uint64_t at; /* bytes seen */
    uint32_t crc;
} dn_zip_audit;
dn_status dn_zip_audit_chunk(dn_zip_audit *audit, const unsigned char *bytes, size_t count, dn_error *error);

#endif
