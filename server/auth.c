/* API keys (auth.h). Each source's table is replaced whole under a lock; a bad file on reload leaves the old one in force. */
#include "server/auth.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "server/auth_buckets.h"
#include "server/log.h"

#define AUTH_FILE_BYTES_MAX (1u << 20)
#define AUTH_BASIC_BYTES_MAX 1023 /* of a user's name, a colon and a secret; a multiple of three */
#define AUTH_SECRETS_FOLDER "/run/secrets/"

/* Of one source. */
typedef struct auth_keys {
    auth_identity *keys;
    size_t count;
} auth_keys;

/* What a key of the database has used. */
typedef struct auth_use {
    char number[17];
    auth_bucket requests, cost;
} auth_use;

struct auth {
    char *path; /* NULL: no file */
    store *store; /* NULL: no database yet */
    pthread_mutex_t lock; /* guards all below */
    auth_keys of_file, of_store;
    bool store_had_keys;
    auth_use *uses; /* AUTH_KEYS_MAX of them, by first use */
    size_t use_count;
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

static dn_status parse_line(auth_identity *key, char *line, const char *path, unsigned number, dn_error *error)
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
    *key = (auth_identity){.scopes = AUTH_SUBMIT | AUTH_READ};
    snprintf(key->client, sizeof key->client, "%s", name);
    dn_sha256_of(key->hash, secret, length);
    return DN_OK;
}

static dn_status parse_keys(auth_keys *out, char *text, const char *path, dn_error *error)
{
    auth_identity *keys = calloc(AUTH_KEYS_MAX, sizeof *keys);
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
        for (unsigned i = 0; status == DN_OK && i < used; i++) {
            if (memcmp(keys[i].hash, keys[used].hash, sizeof keys[i].hash) == 0) {
                status = dn_fail(error, DN_INVALID, "%s:%u: this secret stands on an earlier line already", path, number);
            }
        }
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
    *out = (auth_keys){keys, used};
    return DN_OK;
}

dn_status auth_reload(auth *a, dn_error *error)
{
    struct stat info;
    unsigned char *text = NULL;
    size_t bytes = 0;
    auth_keys read = {NULL, 0};
    if (!a->path) {
        return DN_OK;
    }
    if (stat(a->path, &info) != 0) {
        return dn_fail(error, DN_IO, "%s: cannot be read", a->path);
    }
    bool secret_mount = strncmp(a->path, AUTH_SECRETS_FOLDER, strlen(AUTH_SECRETS_FOLDER)) == 0;
    if ((info.st_mode & 027) != 0 && !secret_mount) {
        return dn_fail(error, DN_INVALID, "%s: others may read or change it; chmod 0600 or 0640", a->path);
    }
    dn_status status = dn_file_read(&text, &bytes, a->path, AUTH_FILE_BYTES_MAX, error);
    if (status == DN_OK) {
        status = parse_keys(&read, (char *)text, a->path, error);
    }
    pthread_mutex_lock(&a->lock);
    a->changed = info.st_mtim;
    a->size = info.st_size;
    if (status == DN_OK) {
        free(a->of_file.keys);
        a->of_file = read;
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
    if (a == NULL || (a->uses = calloc(AUTH_KEYS_MAX, sizeof *a->uses)) == NULL || (path != NULL && (a->path = strdup(path)) == NULL)) {
        if (a != NULL) {
            free(a->uses);
        }
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
        free(a->of_file.keys);
        free(a->of_store.keys);
        free(a->uses);
        free(a->path);
        free(a);
    }
}

/* ---- Looking again */

/* The database's good keys take the place of those known; a database that cannot be read leaves them: false. */
static bool look_at_store(auth *a)
{
    store_key *rows = NULL;
    size_t count = 0;
    if (a->store == NULL || store_keys(a->store, &rows, &count) != STORE_OK) {
        return false;
    }
    auth_identity *keys = calloc(count + 1, sizeof *keys);
    size_t used = 0;
    for (size_t i = 0; keys != NULL && i < count; i++) {
        const store_key *row = &rows[i];
        if (row->revoked_ms == 0 && used < AUTH_KEYS_MAX) {
            auth_identity *key = &keys[used++];
            *key = (auth_identity){.scopes = row->scopes, .rate = row->rate, .budget = row->budget, .pending_jobs = row->pending_jobs};
            memcpy(key->client, row->client, sizeof key->client);
            memcpy(key->number, row->number, sizeof key->number);
            memcpy(key->hash, row->hash, sizeof key->hash);
        }
    }
    free(rows);
    if (keys != NULL) {
        pthread_mutex_lock(&a->lock);
        free(a->of_store.keys);
        a->of_store = (auth_keys){keys, used};
        a->store_had_keys = count > 0;
        pthread_mutex_unlock(&a->lock);
    }
    return keys != NULL;
}

/* A changed file is read within a second of the change, so that a revoked key stops working without a restart. */
static void look_at_file(auth *a, struct timespec changed, off_t size)
{
    struct stat info;
    dn_error error;
    if (a->path != NULL && stat(a->path, &info) == 0 &&
        (info.st_mtim.tv_sec != changed.tv_sec || info.st_mtim.tv_nsec != changed.tv_nsec || info.st_size != size) &&
        auth_reload(a, &error) != DN_OK) {
        log_say(LOG_ERROR, "auth", "keys not reloaded: %s", error.message);
    }
}

static void look_again(auth *a)
{
    double now = dn_now_seconds();
    pthread_mutex_lock(&a->lock);
    bool due = now - a->looked_at > 0.9;
    if (due) {
        a->looked_at = now;
    }
    struct timespec changed = a->changed;
    off_t size = a->size;
    pthread_mutex_unlock(&a->lock);
    if (due) {
        look_at_file(a, changed, size);
        look_at_store(a);
    }
}

dn_status auth_watch(auth *a, store *s, dn_error *error)
{
    a->store = s;
    return look_at_store(a) ? DN_OK : dn_fail(error, DN_IO, "the database's keys cannot be read");
}

/* ---- Asking */

bool auth_required(auth *a)
{
    look_again(a);
    pthread_mutex_lock(&a->lock);
    bool required = a->path != NULL || a->store_had_keys;
    pthread_mutex_unlock(&a->lock);
    return required;
}

size_t auth_count(auth *a)
{
    look_again(a);
    pthread_mutex_lock(&a->lock);
    const size_t count = a->of_file.count + a->of_store.count;
    pthread_mutex_unlock(&a->lock);
    return count;
}

/* Every key is compared, and every byte of it: the time tells nothing. */
static bool find(const auth_keys *among, const unsigned char hash[DN_SHA256_BYTES], auth_identity *out)
{
    bool found = false;
    for (size_t i = 0; i < among->count; i++) {
        unsigned difference = 0;
        for (unsigned k = 0; k < DN_SHA256_BYTES; k++) {
            difference |= (unsigned)(hash[k] ^ among->keys[i].hash[k]);
        }
        if (difference == 0) {
            found = true;
            *out = among->keys[i];
        }
    }
    return found;
}

static bool check_secret(auth *a, const char *secret, auth_identity *out)
{
    unsigned char hash[DN_SHA256_BYTES];
    look_again(a);
    dn_sha256_of(hash, secret, strlen(secret));
    pthread_mutex_lock(&a->lock);
    bool of_file = find(&a->of_file, hash, out), of_store = find(&a->of_store, hash, out);
    pthread_mutex_unlock(&a->lock);
    return of_file || of_store;
}

/* What stands behind a scheme's name; NULL: it is another. */
static const char *credentials(const char *authorization, const char *scheme)
{
    const size_t bytes = strlen(scheme);
    if (authorization == NULL || strncasecmp(authorization, scheme, bytes) != 0) {
        return NULL;
    }
    return authorization + bytes + strspn(authorization + bytes, " ");
}

bool auth_check(auth *a, const char *authorization, auth_identity *out)
{
    const char *secret = credentials(authorization, "Bearer ");
    return secret != NULL && check_secret(a, secret, out);
}

bool auth_check_basic(auth *a, const char *authorization, auth_identity *out)
{
    unsigned char pair[AUTH_BASIC_BYTES_MAX + 1];
    const char *text = credentials(authorization, "Basic ");
    size_t bytes = 0;
    if (text == NULL || strlen(text) > AUTH_BASIC_BYTES_MAX / 3 * 4 || !api_base64_decode(pair, &bytes, text, strlen(text))) {
        return false;
    }
    pair[bytes] = '\0';
    const unsigned char *colon = memchr(pair, ':', bytes);
    const bool fine = colon != NULL && check_secret(a, (const char *)colon + 1, out);
    explicit_bzero(pair, sizeof pair);
    return fine;
}

void auth_look(auth *a)
{
    look_again(a);
}

bool auth_holds(auth *a, const auth_identity *who)
{
    static const unsigned char none[DN_SHA256_BYTES];
    auth_identity known;
    pthread_mutex_lock(&a->lock);
    const bool required = a->path != NULL || a->store_had_keys;
    const bool good = memcmp(who->hash, none, sizeof none) == 0
                          ? !required
                          : find(&a->of_file, who->hash, &known) || find(&a->of_store, who->hash, &known);
    pthread_mutex_unlock(&a->lock);
    return good;
}

/* ---- How much */

/* The key's buckets, under the lock; NULL: keys of the file, which have no limits, and one too many, which nobody has. */
static auth_use *use_of(auth *a, const auth_identity *who)
{
    for (size_t i = 0; i < a->use_count; i++) {
        if (strcmp(a->uses[i].number, who->number) == 0) {
            return &a->uses[i];
        }
    }
    if (who->number[0] == '\0' || a->use_count == AUTH_KEYS_MAX) {
        return NULL;
    }
    auth_use *use = &a->uses[a->use_count++];
    memcpy(use->number, who->number, sizeof use->number);
    return use;
}

static unsigned whole_seconds(double wait)
{
    return isfinite(wait) ? (unsigned)fmin(fmax(ceil(wait), 1), 86400) : 0;
}

bool auth_allow_request(auth *a, const auth_identity *who, unsigned *retry_seconds)
{
    double wait = 0;
    if (who->rate <= 0) {
        return true;
    }
    pthread_mutex_lock(&a->lock);
    auth_use *use = use_of(a, who);
    bool allowed =
        use == NULL || auth_bucket_take(&use->requests, 1, fmax(1, who->rate * AUTH_BURST_SECONDS), who->rate, dn_now_seconds(), &wait);
    pthread_mutex_unlock(&a->lock);
    *retry_seconds = whole_seconds(wait);
    return allowed;
}

bool auth_allow_cost(auth *a, const auth_identity *who, double megapixel_steps, unsigned *retry_seconds)
{
    double wait = 0;
    if (who->budget <= 0) {
        return true;
    }
    pthread_mutex_lock(&a->lock);
    auth_use *use = use_of(a, who);
    bool allowed = use == NULL || auth_bucket_take(&use->cost, megapixel_steps, who->budget, who->budget / 3600, dn_now_seconds(), &wait);
    pthread_mutex_unlock(&a->lock);
    *retry_seconds = whole_seconds(wait);
    return allowed;
}

void auth_return_cost(auth *a, const auth_identity *who, double megapixel_steps)
{
    if (who->budget > 0) {
        pthread_mutex_lock(&a->lock);
        auth_use *use = use_of(a, who);
        if (use != NULL) {
            use->cost.level += megapixel_steps; /* never over its size for long: the next take cuts it */
        }
        pthread_mutex_unlock(&a->lock);
    }
}
