/* Replays the corpus of the checkpoint readers' fuzz entry, and 8,000 deterministic changes of it, without a fuzzer. */
#include "tests/fuzz/fuzz_tensors.c"

#include "tests/fuzz/replay.h"

static void the_corpus_and_changes_of_it(void)
{
    replay_corpus("tests/fuzz/corpus/tensors", 8000);
}

int main(void)
{
    RUN(the_corpus_and_changes_of_it);
    return test_end();
}
