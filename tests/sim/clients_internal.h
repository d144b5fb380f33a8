/* What the clients' files share: clients.c (what a client does) and posts.c (how it posts). */
#ifndef DN_TESTS_SIM_CLIENTS_INTERNAL_H
#define DN_TESTS_SIM_CLIENTS_INTERNAL_H

#include "tests/sim/world.h"

typedef struct client {
    char name[16];
    unsigned number, keys;
    ledger_job *last[4]; /* posts that may be repeated: the first job of each */
    size_t last_count;
    unsigned posts;
} client;

typedef enum posted { POSTED, REFUSED, UNKNOWN } posted;

/* The first of the post's jobs once more; other: with another fingerprint. */
posted client_post_again(client *c, ledger_job *first, bool other);
void client_post_new(client *c);
void posts_reset(void);

#endif
