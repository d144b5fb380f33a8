/* Pins in memory and in their file (pins.h): {"pins": 1, "identity": "...", "products": {"name": {"engine": 3, "knobs": [[2, 5], ...]} or
 * {"algo": "128 hexadecimal digits"}}}. */
#include "backend/cuda/pins.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1
#define WHOLE_MAX 9007199254740992.0 /* numbers of JSON that doubles hold exactly */

typedef struct entry {
    char name[DN_CUDA_PIN_NAME];
    dn_cuda_pin pin;
} entry;

struct dn_cuda_pins {
    pthread_mutex_t lock; /* all below */
    char identity[200];
    char *path; /* NULL: kept nowhere */
    entry *entries;
    uint32_t count, capacity;
    bool changed, told;
};

/* ---- In memory. */
static entry *look_up(dn_cuda_pins *pins, const char *name)
{
    for (uint32_t i = 0; i < pins->count; i++) {
        if (!strcmp(pins->entries[i].name, name))
            return &pins->entries[i];
    }
    return NULL;
}

bool dn_cuda_pins_find(dn_cuda_pins *pins, const char *name, dn_cuda_pin *out)
{
    pthread_mutex_lock(&pins->lock);
    entry *found = look_up(pins, name);
    if (found)
        *out = found->pin;
    pthread_mutex_unlock(&pins->lock);
    return found != NULL;
}

/* false: no room. */
static bool put(dn_cuda_pins *pins, const char *name, const dn_cuda_pin *pin)
{
    entry *into = look_up(pins, name);
    if (!into) {
        if (pins->count == DN_CUDA_PINS_MAX || strlen(name) >= sizeof into->name)
            return false;
        if (pins->count == pins->capacity) {
            uint32_t capacity = pins->capacity ? pins->capacity * 2 : 64;
            entry *entries = realloc(pins->entries, capacity * sizeof *entries);
            if (!entries)
                return false;
            pins->entries = entries;
            pins->capacity = capacity;
        }
        into = &pins->entries[pins->count++];
        snprintf(into->name, sizeof into->name, "%s", name);
    }
    into->pin = *pin;
    return true;
}

void dn_cuda_pins_put(dn_cuda_pins *pins, const char *name, const dn_cuda_pin *pin)
{
    pthread_mutex_lock(&pins->lock);
    if (put(pins, name, pin))
        pins->changed = true;
    pthread_mutex_unlock(&pins->lock);
}

void dn_cuda_pin_print(const dn_cuda_pin *pin, char *out, size_t bytes)
{
    int used = 0;
    if (pin->is_algo) {
        used = snprintf(out, bytes, "algo ");
        for (uint32_t i = 0; i < DN_CUDA_ALGO_BYTES && used < (int)bytes; i++)
            used += snprintf(out + used, bytes - (size_t)used, "%02x", pin->algo[i]);
        return;
    }
    used = snprintf(out, bytes, "engine %lld", (long long)pin->engine);
    for (uint32_t i = 0; i < pin->knob_count && used < (int)bytes; i++)
        used += snprintf(out + used, bytes - (size_t)used, " %d=%lld", pin->knobs[i].type, (long long)pin->knobs[i].value);
}

/* ---- From JSON. */
static bool whole(const cJSON *item, double least, double most, int64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= least && item->valuedouble <= most) ||
        floor(item->valuedouble) != item->valuedouble)
        return false;
    *out = (int64_t)item->valuedouble;
    return true;
}

static bool parse_algo(const cJSON *text, dn_cuda_pin *pin)
{
    pin->is_algo = true;
    if (!cJSON_IsString(text) || strlen(text->valuestring) != 2 * (size_t)DN_CUDA_ALGO_BYTES)
        return false;
    for (uint32_t i = 0; i < DN_CUDA_ALGO_BYTES; i++) {
        const char digits[3] = {text->valuestring[2 * i], text->valuestring[2 * i + 1], '\0'};
        if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]))
            return false;
        pin->algo[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return true;
}

static bool parse_knobs(const cJSON *list, dn_cuda_pin *pin)
{
    if (!cJSON_IsArray(list))
        return false;
    const cJSON *knob;
    cJSON_ArrayForEach(knob, list)
    {
        int64_t type = 0, value = 0;
        if (pin->knob_count == DN_CUDA_KNOBS_MAX || !cJSON_IsArray(knob) || cJSON_GetArraySize(knob) != 2 ||
            !whole(cJSON_GetArrayItem(knob, 0), 0, 1000, &type) || !whole(cJSON_GetArrayItem(knob, 1), -WHOLE_MAX, WHOLE_MAX, &value))
            return false;
        pin->knobs[pin->knob_count++] = (dn_cuda_knob){.type = (int32_t)type, .value = value};
    }
    return true;
}

static bool parse_pin(const cJSON *item, dn_cuda_pin *pin)
{
    memset(pin, 0, sizeof *pin);
    const cJSON *algo = cJSON_GetObjectItemCaseSensitive(item, "algo");
    if (algo)
        return cJSON_GetArraySize(item) == 1 && parse_algo(algo, pin);
    return cJSON_IsObject(item) && cJSON_GetArraySize(item) == 2 &&
           whole(cJSON_GetObjectItemCaseSensitive(item, "engine"), 0, 1e9, &pin->engine) &&
           parse_knobs(cJSON_GetObjectItemCaseSensitive(item, "knobs"), pin);
}

static dn_status parse_document(dn_cuda_pins *pins, const cJSON *root, dn_error *error)
{
    const cJSON *identity = cJSON_GetObjectItemCaseSensitive(root, "identity"), *product;
    int64_t format = 0;
    if (!cJSON_IsObject(root) || !whole(cJSON_GetObjectItemCaseSensitive(root, "pins"), 0, 1e9, &format) || format != FORMAT)
        return dn_fail(error, DN_INVALID, "it is no list of pins of format %d", FORMAT);
    if (!cJSON_IsString(identity) || strcmp(identity->valuestring, pins->identity) != 0)
        return dn_fail(error, DN_INVALID, "it is not of \"%s\"", pins->identity);
    const cJSON *products = cJSON_GetObjectItemCaseSensitive(root, "products");
    if (!cJSON_IsObject(products))
        return dn_fail(error, DN_INVALID, "it has no products");
    cJSON_ArrayForEach(product, products)
    {
        dn_cuda_pin pin;
        if (!parse_pin(product, &pin))
            return dn_fail(error, DN_INVALID, "its pin of \"%.100s\" is broken", product->string);
        if (look_up(pins, product->string))
            return dn_fail(error, DN_INVALID, "\"%.100s\" is there twice", product->string);
        if (!put(pins, product->string, &pin))
            return dn_fail(error, DN_INVALID, "it has too many pins, or too long a name");
    }
    return DN_OK;
}

dn_status dn_cuda_pins_parse(dn_cuda_pins *pins, const char *text, size_t bytes, dn_error *error)
{
    if (bytes > DN_CUDA_PINS_BYTES_MAX)
        return dn_fail(error, DN_INVALID, "it has more than %u bytes", DN_CUDA_PINS_BYTES_MAX);
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    while (root && end < text + bytes && isspace((unsigned char)*end))
        end++;
    pthread_mutex_lock(&pins->lock);
    dn_status status = !root || end != text + bytes ? dn_fail(error, DN_INVALID, "it is not JSON") : parse_document(pins, root, error);
    if (status)
        pins->count = 0;
    pthread_mutex_unlock(&pins->lock);
    cJSON_Delete(root);
    return status;
}

/* ---- Files. The lock is held, or nobody else has the pins yet. */
static void tell(dn_cuda_pins *pins, const char *what, const char *why)
{
    if (!pins->told)
        fprintf(stderr, "denoised: %s %s: %s\n", pins->path, what, why);
    pins->told = true;
}

static void load(dn_cuda_pins *pins)
{
    FILE *file = fopen(pins->path, "re");
    if (!file) {
        if (errno != ENOENT)
            tell(pins, "cannot be read", strerror(errno));
        return;
    }
    char *text = malloc(DN_CUDA_PINS_BYTES_MAX + 1u);
    size_t bytes = text ? fread(text, 1, DN_CUDA_PINS_BYTES_MAX + 1u, file) : 0;
    dn_error error = {0};
    if (!text)
        tell(pins, "is not read", "out of memory");
    else if (ferror(file))
        tell(pins, "cannot be read", "input or output error");
    else if (dn_cuda_pins_parse(pins, text, bytes, &error))
        tell(pins, "is ignored, and will be written anew", error.message);
    free(text);
    fclose(file);
}

static cJSON *pin_to_json(const dn_cuda_pin *pin)
{
    cJSON *item = cJSON_CreateObject();
    if (pin->is_algo) {
        char digits[2 * DN_CUDA_ALGO_BYTES + 1];
        for (uint32_t i = 0; i < DN_CUDA_ALGO_BYTES; i++)
            snprintf(digits + 2 * (size_t)i, 3, "%02x", pin->algo[i]);
        cJSON_AddStringToObject(item, "algo", digits);
        return item;
    }
    cJSON_AddNumberToObject(item, "engine", (double)pin->engine);
    cJSON *knobs = cJSON_AddArrayToObject(item, "knobs");
    for (uint32_t i = 0; i < pin->knob_count; i++) {
        const double knob[2] = {pin->knobs[i].type, (double)pin->knobs[i].value};
        cJSON_AddItemToArray(knobs, cJSON_CreateDoubleArray(knob, 2));
    }
    return item;
}

static char *to_text(const dn_cuda_pins *pins)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "pins", FORMAT);
    cJSON_AddStringToObject(root, "identity", pins->identity);
    cJSON *products = cJSON_AddObjectToObject(root, "products");
    for (uint32_t i = 0; i < pins->count; i++)
        cJSON_AddItemToObject(products, pins->entries[i].name, pin_to_json(&pins->entries[i].pin));
    char *text = cJSON_GetArraySize(products) == (int)pins->count ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    return text;
}

/* Nobody may see half a file, and several may write at a time: each writes its own and renames it. */
static bool write_file(const char *path, const char *text)
{
    size_t bytes = strlen(path) + sizeof ".XXXXXX";
    char *beside = malloc(bytes);
    if (!beside)
        return false;
    snprintf(beside, bytes, "%s.XXXXXX", path);
    int number = mkostemp(beside, O_CLOEXEC);
    FILE *file = number >= 0 ? fdopen(number, "w") : NULL;
    bool done = file && fputs(text, file) >= 0 && fflush(file) == 0 && fchmod(number, 0644) == 0 && fsync(number) == 0;
    if (file)
        done = fclose(file) == 0 && done;
    else if (number >= 0)
        close(number);
    done = done && rename(beside, path) == 0;
    if (!done && number >= 0) {
        int why = errno;
        unlink(beside);
        errno = why;
    }
    free(beside);
    return done;
}

void dn_cuda_pins_save(dn_cuda_pins *pins)
{
    pthread_mutex_lock(&pins->lock);
    if (pins->path && pins->changed) {
        char *text = to_text(pins);
        if (!text)
            tell(pins, "cannot be written", "out of memory");
        else if (!write_file(pins->path, text))
            tell(pins, "cannot be written", strerror(errno));
        free(text);
        pins->changed = false;
    }
    pthread_mutex_unlock(&pins->lock);
}

/* ---- Life. */
/* FOLDER/pins-IDENTITY.json, of the identity's letters and digits. */
static char *path_of(const char *folder, const char *identity)
{
    size_t bytes = strlen(folder) + strlen(identity) + 16;
    char *path = malloc(bytes);
    if (!path)
        return NULL;
    int used = snprintf(path, bytes, "%s/pins-", folder);
    size_t at = (size_t)used;
    for (const char *from = identity; *from; from++) {
        bool plain = isalnum((unsigned char)*from) || *from == '.' || *from == '_';
        if (plain || path[at - 1] != '-')
            path[at++] = plain ? *from : '-';
    }
    snprintf(path + at, bytes - at, ".json");
    return path;
}

/* The folder and those above it, as far as they are missing. errno says why not. */
static bool make_folders(const char *folder)
{
    char *path = strdup(folder);
    if (!path)
        return false;
    bool made = true;
    for (char *at = path + 1; made && path[0] && *at; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        made = mkdir(path, 0777) == 0 || errno == EEXIST;
        *at = '/';
    }
    made = made && (mkdir(path, 0777) == 0 || errno == EEXIST);
    free(path);
    return made;
}

dn_status dn_cuda_pins_open(dn_cuda_pins **out, const char *folder, const char *identity, dn_error *error)
{
    dn_cuda_pins *pins = calloc(1, sizeof *pins);
    if (!pins)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    pthread_mutex_init(&pins->lock, NULL);
    snprintf(pins->identity, sizeof pins->identity, "%s", identity);
    if (folder) {
        pins->path = path_of(folder, pins->identity);
        if (!pins->path) {
            dn_cuda_pins_close(pins);
            return dn_fail(error, DN_NO_MEMORY, "out of memory");
        }
        if (!make_folders(folder))
            tell(pins, "cannot be kept", strerror(errno));
        else
            load(pins);
    }
    *out = pins;
    return DN_OK;
}

void dn_cuda_pins_close(dn_cuda_pins *pins)
{
    if (!pins)
        return;
    dn_cuda_pins_save(pins);
    pthread_mutex_destroy(&pins->lock);
    free(pins->path);
    free(pins->entries);
    free(pins);
}
