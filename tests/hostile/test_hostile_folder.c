/* Model folders and key files that nobody should be served from: each is refused in its own words, and none takes memory beyond the
 * sizes of its files and 64 MB. The folder is the tiny model's, with one file changed. */
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine.h"
#include "format/json.h"
#include "server/auth.h"
#include "tests/hostile/folder_cases.h"
#include "tests/hostile/heap_peak.h"
#include "tests/test.h"

#define MODEL "tests/golden/tiny/"
#define FOLDER "build/test_hostile_folder"
#define WEIGHTS "/unet/diffusion_pytorch_model.safetensors"
#define SPARE_BYTES (65u << 20) /* 64 MB and what the files have */

static unsigned cases;
static const char *const names[] = {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json"};

static void put(int file, const char *text, size_t count)
{
    char path[160];
    snprintf(path, sizeof path, FOLDER "/%s", names[file]);
    CHECK(dn_file_write(path, text, count, false, NULL) == DN_OK);
}

static void put_honest(int file)
{
    char path[160];
    unsigned char *bytes = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, MODEL "%s", names[file]);
    CHECK(dn_file_read(&bytes, &count, path, 1 << 20, NULL) == DN_OK);
    put(file, (const char *)bytes, count);
    free(bytes);
}

static void make_folder(void)
{
    char weights[PATH_MAX];
    CHECK(dn_make_folder(FOLDER "/unet", NULL) == DN_OK && dn_make_folder(FOLDER "/scheduler", NULL) == DN_OK);
    unlink(FOLDER WEIGHTS);
    CHECK(realpath("tests/golden/tiny" WEIGHTS, weights) != NULL && symlink(weights, FOLDER WEIGHTS) == 0);
    for (int i = 0; i < 3 && !test_failed; i++)
        put_honest(i);
}

/* The honest file with one member changed, or the case's own text. */
static void put_case(const folder_case *c)
{
    char path[160];
    cJSON *root = NULL;
    if (c->member == NULL) {
        put(c->file, c->value, strlen(c->value));
        return;
    }
    snprintf(path, sizeof path, MODEL "%s", names[c->file]);
    CHECK(dn_json_read_file(&root, path, 1 << 20, NULL) == DN_OK);
    cJSON *value = cJSON_Parse(c->value);
    CHECK(value != NULL);
    if (cJSON_GetObjectItemCaseSensitive(root, c->member) != NULL)
        cJSON_ReplaceItemInObjectCaseSensitive(root, c->member, value);
    else
        cJSON_AddItemToObject(root, c->member, value);
    char *text = cJSON_PrintUnformatted(root);
    put(c->file, text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(root);
}

static void every_configuration_is_refused_in_its_words(void)
{
    const dn_engine_options options = {.threads = 1, .describe_only = true};
    make_folder();
    for (size_t i = 0; i < sizeof folder_cases / sizeof folder_cases[0] && !test_failed; i++) {
        const folder_case *c = &folder_cases[i];
        dn_error error = {DN_OK, ""};
        dn_engine *engine = NULL;
        char says[640];
        if (c->says[0] == '*')
            snprintf(says, sizeof says, FOLDER "%s", c->says + 1);
        else
            snprintf(says, sizeof says, FOLDER "/%s: %s", names[c->file], c->says);
        put_case(c);
        heap_peak_begin();
        dn_status status = dn_engine_open(&engine, FOLDER, &options, &error);
        const size_t most = heap_peak();
        dn_engine_close(engine);
        cases++;
        CHECK_MSG(status == c->status && strcmp(error.message, says) == 0, "%s %s: %s, \"%s\", not \"%s\"",
                  c->member ? c->member : names[c->file], c->value, dn_status_name(status), error.message, says);
        CHECK_MSG(most <= SPARE_BYTES, "%s %s: %zu bytes", c->member ? c->member : names[c->file], c->value, most);
        put_honest(c->file);
    }
}

/* What stands where a file should: a folder, a FIFO, a link to a device, more than 4 MB. */
static void files_that_are_none(void)
{
    static const char *const says[] = {"not a regular file", "not a regular file", "not a regular file",
                                       "4194305 bytes, more than the 4194304 allowed"};
    make_folder();
    for (int file = 0; file < 3; file++) {
        for (int kind = 0; kind < 4 && !test_failed; kind++) {
            char path[160], whole[320];
            dn_error error = {DN_OK, ""};
            dn_engine *engine = NULL;
            snprintf(path, sizeof path, FOLDER "/%s", names[file]);
            unlink(path);
            bool made = kind == 0   ? mkdir(path, 0700) == 0
                        : kind == 1 ? mkfifo(path, 0600) == 0
                        : kind == 2 ? symlink("/dev/zero", path) == 0
                                    : dn_file_write(path, " ", 1, false, NULL) == DN_OK && truncate(path, (4 << 20) + 1) == 0;
            CHECK(made);
            dn_status status = dn_engine_open(&engine, FOLDER, &(dn_engine_options){.threads = 1, .describe_only = true}, &error);
            dn_engine_close(engine);
            snprintf(whole, sizeof whole, "%s: %s", path, says[kind]);
            cases++;
            CHECK_MSG(status == DN_INVALID && strcmp(error.message, whole) == 0, "%s: \"%s\"", path, error.message);
            CHECK(remove(path) == 0);
        }
        if (!test_failed)
            put_honest(file);
    }
}

#define SECRET "0123456789abcdef"
#define LINE "a line is NAME SECRET, the name of letters, digits and . _ -"
#define LENGTH "a secret has 16 to 256 characters"
#define TEN(x) x x x x x x x x x x
#define NAME_65 TEN("nnnnnn") "nnnnn"
#define SECRET_257 TEN(TEN("ss") "sssss") "sssssss"

static void every_key_file_is_refused_in_its_words(void)
{
    static const struct {
        const char *text;
        unsigned mode;
        const char *says;
    } files[] = {
        {"", 0600, ": no keys in it"},
        {"# nobody\n\n  \t\r\n", 0600, ": no keys in it"},
        {"alice", 0600, ":1: " LINE},
        {"alice " SECRET " more", 0600, ":1: " LINE},
        {"# one\nalice " SECRET "\nbob\n", 0600, ":3: " LINE},
        {"al/ice " SECRET, 0600, ":1: " LINE},
        {"al:ice " SECRET, 0600, ":1: " LINE},
        {"\xC3\xA9lise " SECRET, 0600, ":1: " LINE},
        {NAME_65 " " SECRET, 0600, ":1: " LINE},
        {"alice 0123456789abcde", 0600, ":1: " LENGTH},
        {"alice " SECRET_257, 0600, ":1: " LENGTH},
        {"alice " SECRET "\nbob " SECRET "\n", 0600, ":2: this secret stands on an earlier line already"},
        {"alice=" SECRET, 0600, ":1: " LINE},
        {"{\"alice\": \"" SECRET "\"}", 0600, ":1: " LINE},
        {"alice " SECRET, 0644, ": others may read or change it; chmod 0600 or 0640"},
        {"alice " SECRET, 0660, ": others may read or change it; chmod 0600 or 0640"},
        {"alice " SECRET, 0604, ": others may read or change it; chmod 0600 or 0640"},
    };
    static const char path[] = FOLDER "/keys";
    CHECK(dn_make_folder(FOLDER, NULL) == DN_OK);
    for (size_t i = 0; i < sizeof files / sizeof files[0] && !test_failed; i++) {
        dn_error error = {DN_OK, ""};
        auth *keys = NULL;
        char says[256];
        CHECK(dn_file_write(path, files[i].text, strlen(files[i].text), false, &error) == DN_OK && chmod(path, files[i].mode) == 0);
        dn_status status = auth_open(&keys, path, &error);
        snprintf(says, sizeof says, "%s%s", path, files[i].says);
        cases++;
        CHECK_MSG(status == DN_INVALID && keys == NULL && strcmp(error.message, says) == 0, "%s: \"%s\"", files[i].text, error.message);
        CHECK_MSG(strstr(error.message, "0123456789abcde") == NULL, "a secret is told");
    }
}

static void keys_without_number(void)
{
    static const char path[] = FOLDER "/keys";
    dn_error error = {DN_OK, ""};
    auth *keys = NULL;
    size_t used = 0, room = 2 << 20;
    char *text = malloc(room);
    for (int i = 0; i <= AUTH_KEYS_MAX; i++)
        used += (size_t)snprintf(text + used, room - used, "k%d %016d\n", i, i);
    CHECK(dn_file_write(path, text, used, false, &error) == DN_OK && chmod(path, 0600) == 0);
    CHECK(auth_open(&keys, path, &error) == DN_INVALID);
    CHECK_MSG(strcmp(error.message, FOLDER "/keys: more than 1024 keys") == 0, "%s", error.message);
    memset(text, 'a', room);
    CHECK(dn_file_write(path, text, room, false, &error) == DN_OK && chmod(path, 0600) == 0);
    CHECK(auth_open(&keys, path, &error) == DN_INVALID);
    CHECK_MSG(strcmp(error.message, FOLDER "/keys: 2097152 bytes, more than the 1048576 allowed") == 0, "%s", error.message);
    free(text);
    cases += 2;
}

int main(void)
{
    RUN(every_configuration_is_refused_in_its_words);
    RUN(files_that_are_none);
    RUN(every_key_file_is_refused_in_its_words);
    RUN(keys_without_number);
    printf("hostile files: %u cases of configuration\n", cases);
    return test_end();
}
