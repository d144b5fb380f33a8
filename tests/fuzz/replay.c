/* Replays one fuzz entry (this program's name says which: replay_NAME) where there is no fuzzer: its corpus, every input that once
 * broke something (tests/fuzz/crashes/NAME), and deterministic changes of both, as many as 3 seconds allow, 20,000 at most.
 *
 *     replay_NAME                      the tests
 *     replay_NAME FILE...              these inputs, to look into one of them */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "tests/test.h"

#define SEEDS_MAX 4096
#define SEED_BYTES_MAX 16384
#define CHANGES 20000
#define SECONDS_MAX 3.0

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *target;
static struct {
    uint8_t *bytes;
    size_t size;
} seeds[SEEDS_MAX];
static uint32_t seed_count;

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 20261122;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* In memory of exactly its size, so that the sanitizer sees a read past the end. */
static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (exact == NULL)
        abort();
    if (size > 0)
        memcpy(exact, bytes, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

static bool load(const char *path)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    run(bytes, size);
    if (seed_count < SEEDS_MAX && size <= SEED_BYTES_MAX && (seeds[seed_count].bytes = malloc(size + 1)) != NULL) {
        memcpy(seeds[seed_count].bytes, bytes, size);
        seeds[seed_count++].size = size;
    }
    return true;
}

/* Number of files of the folder that were run. */
static int load_folder(const char *kind)
{
    struct dirent **names = NULL;
    char path[512];
    int loaded = 0;
    snprintf(path, sizeof path, "tests/fuzz/%s/%s", kind, target);
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "tests/fuzz/%s/%s/%s", kind, target, names[i]->d_name);
        loaded += names[i]->d_name[0] != '.' && load(path);
        free(names[i]);
    }
    free(names);
    return loaded;
}

/* One to four edits: a byte or a number changed, a piece cut, a piece doubled, a piece of another seed put in. */
static size_t change(uint8_t *bytes, size_t size)
{
    static const uint64_t numbers[] = {0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, INT64_MAX, UINT64_MAX, 1ull << 63};
    for (uint32_t edits = 1 + draw(4); edits && size; edits--) {
        size_t at = draw((uint32_t)size), room = SEED_BYTES_MAX - size, length = 1 + draw(24);
        size_t other = draw(seed_count), width = (size_t)1 << draw(4);
        length = length < size - at ? length : size - at;
        switch (draw(5)) {
        case 0:
            bytes[at] = (uint8_t)draw(256);
            break;
        case 1:
            if (width <= size - at)
                memcpy(bytes + at, &numbers[draw(sizeof numbers / sizeof numbers[0])], width);
            break;
        case 2:
            memmove(bytes + at, bytes + at + length, size - at - length);
            size -= length;
            break;
        case 3:
            if (length <= room) {
                memmove(bytes + at + length, bytes + at, size - at);
                size += length;
            }
            break;
        default:
            if (seeds[other].size > length)
                memcpy(bytes + at, seeds[other].bytes + draw((uint32_t)(seeds[other].size - length)), length);
        }
    }
    return size;
}

static void the_corpus(void)
{
    CHECK_MSG(load_folder("corpus") > 2, "no corpus of %s", target);
}

static void every_input_that_broke_something(void)
{
    load_folder("crashes");
}

static void changes_of_the_corpus(void)
{
    static uint8_t bytes[SEED_BYTES_MAX];
    CHECK(seed_count > 0);
    const double end = now() + SECONDS_MAX;
    int done = 0;
    for (const int most = test_rounds(CHANGES); done < most && now() < end; done++) {
        const uint32_t seed = draw(seed_count);
        memcpy(bytes, seeds[seed].bytes, seeds[seed].size);
        run(bytes, change(bytes, seeds[seed].size));
    }
    printf("%s: %u inputs, %d changes of them\n", target, seed_count, done);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
    target = strncmp(name, "replay_", 7) == 0 ? name + 7 : name;
    for (int i = 1; i < argc; i++)
        if (!load(argv[i]))
            return 1;
    if (argc == 1) {
        RUN(the_corpus);
        RUN(every_input_that_broke_something);
        RUN(changes_of_the_corpus);
    }
    for (uint32_t i = 0; i < seed_count; i++)
        free(seeds[i].bytes);
    return test_end();
}
