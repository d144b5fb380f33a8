/* The page's files (server/web), which lie in the program as they are and compressed. Immutable; any thread. */
#ifndef SERVER_WEB_PARTS_H
#define SERVER_WEB_PARTS_H

#include <stddef.h>

typedef struct web_part {
    const char *name; /* "app.js"; the first part is index.html */
    const char *content_type;
    const char *bytes, *gzip;
    size_t count, gzip_count;
    char tag[65]; /* SHA-256 of the bytes, in hex */
} web_part;

/* NULL: there is no such part. */
const web_part *web_part_find(const char *name);

#endif
