/* API keys (auth.h). The table is replaced whole under a lock; a bad file on reload leaves the old one in force. */
#include "server/auth.h"

#include <ctype.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"

#define AUTH_FILE_BYTES_MAX (1u << 20)
#define AUTH_SECRETS_FOLDER "/run/secrets/"

typedef struct auth_key {
    char name[65];
    unsigned char hash[DN_SHA256_BYTES];
} auth_key;

struct auth {
    char *path;
    pthread_mutex_t lock; /* guards all below */
    auth_key *keys;
    unsigned count;
    double looked_at;
    struct timespec changed;
    off_t size;
};

static bool valid_name(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > 64) {
        return false;
    }
    return strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

static dn_status parse_line(auth_key *key, char *line, const char *path, unsigned number, dn_error *error)
{
    char *rest = NULL;
    char *name = strtok_r(line, " \t\r", &rest);
    char *secret = strtok_r(NULL, " \t\r", &rest);
    if (name == NULL || secret == NULL || strtok_r(NULL, " \t\r", &rest) != NULL || !valid_name(name)) {
        return dn_fail(error, DN_INVALID, "%s:%u: a line is NAME SECRET, the name of letters, digits and . _ -", path, number);
    }
    size_t length = strlen(secret);
    if (length < AUTH_SECRET_BYTES_MIN || length > AUTH_SECRET_BYTES_MAX) {
        return dn_fail(error, DN_INVALID, "%s:%u: a secret has %d to %d characters", path, number, AUTH_SECRET_BYTES_MIN,
                       AUTH_SECRET_BYTES_MAX);
    }
    snprintf(key->name, sizeof key->name, "%s", name);
    dn_sha256_of(key->hash, secret, length);
    return DN_OK;
}

static dn_status parse_keys(auth_key **out, unsigned *count, char *text, const char *path, dn_error *error)
{
    auth_key *keys = calloc(AUTH_KEYS_MAX, sizeof *keys);
    unsigned used = 0, number = 0;
    if (keys == NULL) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
        number++;
        line += strspn(line, " \t\r");
        if (*line == '\0' || *line == '#') {
            continue;
        }
        dn_status status = used == AUTH_KEYS_MAX ? dn_fail(error, DN_INVALID, "%s: more than %d keys", path, AUTH_KEYS_MAX)
                                                 : parse_line(&keys[used], line, path, number, error);
        if (status != DN_OK) {
            free(keys);
            return status;
        }
        used++;
    }
    if (used == 0) {
        free(keys);
        return dn_fail(error, DN_INVALID, "%s: no keys in it", path);
    }
    *out = keys;
    *count = used;
    return DN_OK;
}

dn_status auth_reload(auth *a, dn_error *error)
{
    struct stat info;
    unsigned char *text = NULL;
    size_t bytes = 0;
    auth_key *keys = NULL;
    unsigned count = 0;
    if (stat(a->path, &info) != 0) {
        return dn_fail(error, DN_IO, "%s: cannot be read", a->path);
    }
    bool secret_mount = strncmp(a->path, AUTH_SECRETS_FOLDER, strlen(AUTH_SECRETS_FOLDER)) == 0;
    if ((info.st_mode & 027) != 0 && !secret_mount) {
        return dn_fail(error, DN_INVALID, "%s: others may read or change it; chmod 0600 or 0640", a->path);
    }
    dn_status status = dn_file_read(&text, &bytes, a->path, AUTH_FILE_BYTES_MAX, error);
    if (status == DN_OK) {
        status = parse_keys(&keys, &count, (char *)text, a->path, error);
    }
    pthread_mutex_lock(&a->lock);
    a->changed = info.st_mtim;
    a->size = info.st_size;
    if (status == DN_OK) {
        free(a->keys);
        a->keys = keys;
        a->count = count;
    }
    pthread_mutex_unlock(&a->lock);
    if (text != NULL) {
        explicit_bzero(text, bytes);
        free(text);
    }
    return status;
}

dn_status auth_open(auth **out, const char *path, dn_error *error)
{
    auth *a = calloc(1, sizeof *a);
    if (a == NULL || (a->path = strdup(path)) == NULL) {
        free(a);
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    pthread_mutex_init(&a->lock, NULL);
    dn_status status = auth_reload(a, error);
    if (status != DN_OK) {
        auth_free(a);
        return status;
    }
    *out = a;
    return DN_OK;
}

void auth_free(auth *a)
{
    if (a != NULL) {
        pthread_mutex_destroy(&a->lock);
        free(a->keys);
        free(a->path);
        free(a);
    }
}

/* A changed file is read within a second of the change, so that a revoked key stops working without a restart. */
static void look_again(auth *a)
{
    struct stat info;
    double now = dn_now_seconds();
    pthread_mutex_lock(&a->lock);
    bool due = now - a->looked_at > 0.9;
    if (due) {
        a->looked_at = now;
    }
    struct timespec changed = a->changed;
    off_t size = a->size;
    pthread_mutex_unlock(&a->lock);
    if (due && stat(a->path, &info) == 0 &&
        (info.st_mtim.tv_sec != changed.tv_sec || info.st_mtim.tv_nsec != changed.tv_nsec || info.st_size != size)) {
        dn_error error;
        if (auth_reload(a, &error) != DN_OK) {
            fprintf(stderr, "denoised: keys not reloaded: %s\n", error.message);
        }
    }
}

bool auth_check(auth *a, const char *authorization, char client[65])
{
    unsigned char hash[DN_SHA256_BYTES];
    if (authorization == NULL || strncasecmp(authorization, "Bearer ", 7) != 0) {
        return false;
    }
    const char *secret = authorization + 7 + strspn(authorization + 7, " ");
    look_again(a);
    dn_sha256_of(hash, secret, strlen(secret));
    bool found = false;
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->count; i++) {
        unsigned difference = 0;
        for (unsigned k = 0; k < DN_SHA256_BYTES; k++) {
            difference |= (unsigned)(hash[k] ^ a->keys[i].hash[k]);
        }
        if (difference == 0) {
            found = true;
            memcpy(client, a->keys[i].name, sizeof a->keys[i].name);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return found;
}
