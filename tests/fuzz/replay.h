/* Replays a fuzz entry's corpus, and deterministic changes of it, where there is no fuzzer. The file that includes this one has
 * included the entry (LLVMFuzzerTestOneInput) before. Single-threaded. */
#ifndef DN_TESTS_FUZZ_REPLAY_H
#define DN_TESTS_FUZZ_REPLAY_H

#include <dirent.h>
#include <stdint.h>

#include "tests/test.h"

#define REPLAY_SEEDS_MAX 64
#define REPLAY_SEED_BYTES_MAX 16384

static struct {
    uint8_t bytes[REPLAY_SEED_BYTES_MAX];
    size_t size;
} replay_seeds[REPLAY_SEEDS_MAX];
static size_t replay_seed_count;

static uint32_t replay_draw(uint32_t below)
{
    static uint64_t state = 20261122;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static int replay_by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void replay_load(const char *corpus)
{
    struct dirent **names = NULL;
    int count = scandir(corpus, &names, NULL, replay_by_name);
    CHECK_MSG(count > 2, "no corpus at %s", corpus);
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", corpus, names[i]->d_name);
        FILE *file = names[i]->d_name[0] != '.' && replay_seed_count < REPLAY_SEEDS_MAX ? fopen(path, "rb") : NULL;
        if (file) {
            replay_seeds[replay_seed_count].size = fread(replay_seeds[replay_seed_count].bytes, 1, REPLAY_SEED_BYTES_MAX, file);
            fclose(file);
            replay_seed_count++;
        }
        free(names[i]);
    }
    free(names);
}

/* One to four edits: a byte or a number changed, a piece cut, a piece doubled, a piece of another seed put in. */
static size_t replay_change(uint8_t *bytes, size_t size)
{
    static const uint64_t numbers[] = {0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, INT64_MAX, UINT64_MAX, 1ull << 63};
    for (uint32_t edits = 1 + replay_draw(4); edits && size; edits--) {
        size_t at = replay_draw((uint32_t)size), room = REPLAY_SEED_BYTES_MAX - size, length = 1 + replay_draw(24);
        size_t other = replay_draw((uint32_t)replay_seed_count), width = (size_t)1 << replay_draw(4);
        length = length < size - at ? length : size - at;
        switch (replay_draw(5)) {
        case 0:
            bytes[at] = (uint8_t)replay_draw(256);
            break;
        case 1:
            if (width <= size - at)
                memcpy(bytes + at, &numbers[replay_draw(sizeof numbers / sizeof numbers[0])], width);
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
            if (replay_seeds[other].size > length)
                memcpy(bytes + at, replay_seeds[other].bytes + replay_draw((uint32_t)(replay_seeds[other].size - length)), length);
        }
    }
    return size;
}

/* The corpus as it is, then `changes` changes of it. */
static void replay_corpus(const char *corpus, int changes)
{
    static uint8_t bytes[REPLAY_SEED_BYTES_MAX];
    replay_seed_count = 0;
    replay_load(corpus);
    CHECK(!test_failed && replay_seed_count > 0);
    for (int i = 0; i < (int)replay_seed_count + changes; i++) {
        bool is_changed = i >= (int)replay_seed_count;
        size_t seed = is_changed ? replay_draw((uint32_t)replay_seed_count) : (size_t)i;
        memcpy(bytes, replay_seeds[seed].bytes, replay_seeds[seed].size);
        size_t size = is_changed ? replay_change(bytes, replay_seeds[seed].size) : replay_seeds[seed].size;
        uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read past the end */
        CHECK(exact);
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
}

#endif
