/* Files read whole under a limit, and written so that a reader sees the old file or the new one, never half of one. */
#ifndef DN_BASE_FILE_H
#define DN_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Opens a regular file for reading (symlinks followed, O_CLOEXEC; a FIFO or a folder is refused without blocking) and
 * tells its size. The caller closes *fd. */
dn_status dn_file_open(int *fd, unsigned long long *size_bytes, const char *path, dn_error *error);

/* Reads a regular file (no FIFO, no directory; opened O_CLOEXEC) of at most limit_bytes. *out is malloc'd, NUL
 * terminated one past the end, and owned by the caller. */
dn_status dn_file_read(unsigned char **out, size_t *out_bytes, const char *path, size_t limit_bytes, dn_error *error);

/* Writes PATH.tmp.<pid>, optionally fsyncs file and folder, renames. The temporary file is removed on failure. A PATH that
 * is a device, a pipe or a link is DN_INVALID: the rename would put a plain file in its place. */
dn_status dn_file_write(const char *path, const void *bytes, size_t count, bool durable, dn_error *error);

/* The same from several pieces, so that a large file need not be copied together first. */
typedef struct dn_file_part {
    const void *bytes;
    size_t count;
} dn_file_part;
dn_status dn_file_write_parts(const char *path, const dn_file_part *parts, size_t part_count, bool durable, dn_error *error);

/* NAME of an open folder by way of NAME.tmp; fsyncs the file if `synced`, never the folder: the caller does that once for many files.
 * False with errno; the temporary file is gone then. */
bool dn_file_write_at(int folder_fd, const char *name, const void *bytes, size_t count, bool synced);

/* The same; passed is told of each step that has been made, and leaves errno alone. */
typedef enum dn_file_step { DN_FILE_WRITTEN, DN_FILE_SYNCED, DN_FILE_RENAMED } dn_file_step;
typedef void dn_file_passed(dn_file_step step);
bool dn_file_write_at_steps(int folder_fd, const char *name, const void *bytes, size_t count, bool synced, dn_file_passed *passed);

/* Whether dn_file_write could put a file there, asked before the work whose result it is to hold. */
dn_status dn_file_check_target(const char *path, dn_error *error);

dn_status dn_make_folder(const char *path, dn_error *error); /* like mkdir -p, mode 0755; an existing folder is fine */

/* Whether anything goes by this name, be it a link that leads nowhere or what may not be looked at: a file that was meant to be there
 * and cannot be read is no file that is missing. */
bool dn_path_exists(const char *path);

#endif
