/* Replays the corpus of the pickle machine's fuzz entry, and 200,000 deterministic changes of it, without a fuzzer. */
#include "tests/fuzz/fuzz_pickle.c"

#include "tests/fuzz/replay.h"

static void the_corpus_and_changes_of_it(void)
{
    replay_corpus("tests/fuzz/corpus/pickle", 200000);
}

int main(void)
{
    RUN(the_corpus_and_changes_of_it);
    return test_end();
}
