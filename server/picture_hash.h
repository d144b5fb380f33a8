/* The hash of the pixels of a picture that a stranger sent, for POST /verify. The PNG is decoded by a process of its own, confined as a
 * worker is and gone afterwards: a picture that breaks its decoder breaks neither the daemon nor anybody's job. One after the other. */
#ifndef SERVER_PICTURE_HASH_H
#define SERVER_PICTURE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct picture_hasher picture_hasher;

typedef struct picture_task {
    struct picture_task *next;
    const unsigned char *png; /* borrowed until done */
    size_t bytes;
    uint32_t width, height, channels; /* what it must be; another size is not decoded */
    char sha256[65]; /* out: of [height][width][channels], as an image's pixels_sha256; "": it cannot be decoded */
    void (*done)(void *payload); /* called once, by the hasher's thread, whatever happens; the task may be gone when it returns */
    void *payload;
} picture_task;

dn_status picture_hasher_start(picture_hasher **out, dn_error *error);
void picture_hasher_stop(picture_hasher *hasher); /* what is queued is done first; accepts NULL */
void picture_hasher_submit(picture_hasher *hasher, picture_task *task); /* borrows it until `done`; any thread */

/* The process: reads a PNG from standard input and prints the hash. shape: "WIDTHxHEIGHTxCHANNELS". The exit status. */
int picture_hash_main(const char *shape);

#endif
