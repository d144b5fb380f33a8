/* Replays the corpus of the fuzz entry, and 40,000 deterministic changes of it, without a fuzzer. */
#include <dirent.h>

#include "tests/fuzz/fuzz_generate_request.c"
#include "tests/test.h"

#define CORPUS "tests/fuzz/corpus/generate_request"
#define SEEDS_MAX 64
#define SEED_BYTES_MAX 4096
#define CHANGES 40000

static struct {
    uint8_t bytes[SEED_BYTES_MAX];
    size_t size;
} seeds[SEEDS_MAX];
static size_t seed_count;

static uint32_t draw(uint32_t below)
{
    static uint64_t state = 20261121;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void the_corpus_is_answered(void)
{
    struct dirent **names = NULL;
    int count = scandir(CORPUS, &names, NULL, by_name);
    CHECK_MSG(count > 2, "no corpus at %s", CORPUS);
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, CORPUS "/%s", names[i]->d_name);
        FILE *file = names[i]->d_name[0] != '.' && seed_count < SEEDS_MAX ? fopen(path, "rb") : NULL;
        if (file) {
            seeds[seed_count].size = fread(seeds[seed_count].bytes, 1, SEED_BYTES_MAX, file);
            fclose(file);
            LLVMFuzzerTestOneInput(seeds[seed_count].bytes, seeds[seed_count].size);
            seed_count++;
        }
        free(names[i]);
    }
    free(names);
    CHECK(seed_count >= 10);
}

/* One to four edits: a byte changed, a piece cut, a piece doubled, a piece of another seed put in. */
static size_t change(uint8_t *bytes, size_t size)
{
    static const char tokens[] = "\"\\{}[]:,0129-.eE+nulltrue \x00\x7f\xC3\xED\xFF";
    for (uint32_t edits = 1 + draw(4); edits && size; edits--) {
        size_t at = draw((uint32_t)size), room = SEED_BYTES_MAX - size, length = 1 + draw(12);
        size_t other = draw((uint32_t)seed_count);
        length = length < size - at ? length : size - at;
        switch (draw(4)) {
        case 0:
            bytes[at] = draw(2) ? (uint8_t)tokens[draw(sizeof tokens - 1)] : (uint8_t)draw(256);
            break;
        case 1:
            memmove(bytes + at, bytes + at + length, size - at - length);
            size -= length;
            break;
        case 2:
            if (length <= room) {
                memmove(bytes + at + length, bytes + at, size - at);
                size += length;
            }
            break;
        default:
            if (seeds[other].size > length) {
                memcpy(bytes + at, seeds[other].bytes + draw((uint32_t)(seeds[other].size - length)), length);
            }
        }
    }
    return size;
}

static void changes_of_the_corpus_are_answered(void)
{
    static uint8_t bytes[SEED_BYTES_MAX];
    CHECK(seed_count > 0);
    for (int i = 0; i < CHANGES; i++) {
        size_t seed = draw((uint32_t)seed_count);
        memcpy(bytes, seeds[seed].bytes, seeds[seed].size);
        size_t size = change(bytes, seeds[seed].size);
        uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read past the end */
        CHECK(exact);
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
}

int main(void)
{
    RUN(the_corpus_is_answered);
    RUN(changes_of_the_corpus_are_answered);
    return test_end();
}
