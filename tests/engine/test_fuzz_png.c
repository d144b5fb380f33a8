/* Replays the corpus of the picture decoder's fuzz entry, and 60,000 deterministic changes of it, without a fuzzer. */
#include "tests/fuzz/fuzz_png.c"

#include "tests/fuzz/replay.h"

static void the_corpus_and_changes_of_it(void)
{
    replay_corpus("tests/fuzz/corpus/png", 60000);
}

int main(void)
{
    RUN(the_corpus_and_changes_of_it);
    return test_end();
}
