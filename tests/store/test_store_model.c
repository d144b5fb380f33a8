/* Random operations on the store and on a model of it, which must agree on every answer and on every read. A run of so many steps has a
 * seed of its own. One that fails is made shorter before it is shown.
 *
 *     test_store_model                        seeds from 1 on
 *     test_store_model --torture SEED COUNT   seeds from SEED on, until COUNT operations are done; COUNT 1: that one seed */
#include <unistd.h>

#include "base/clock.h"
#include "tests/store/contract.h"
#include "tests/store/model_run.h"

enum { OPERATIONS = 200000, RUN_STEPS = 2000, SHORTEN_SECONDS = 60, TOLD_MAX = 60 };

static const char *program;

/* Leaves out what can be left out: halves, then quarters, and so on to single steps. Returns how many are left. */
static size_t shorten(model_step *steps, size_t count, bool strict)
{
    model_step *shorter = calloc(count, sizeof *shorter);
    const double until = dn_now_seconds() + SHORTEN_SECONDS;
    for (size_t part = count / 2; part > 0 && dn_now_seconds() < until; part = part > 1 ? part / 2 : 0) {
        for (size_t from = 0; from + part <= count && dn_now_seconds() < until;) {
            memcpy(shorter, steps, from * sizeof *steps);
            memcpy(shorter + from, steps + from + part, (count - from - part) * sizeof *steps);
            const model_failure failure = model_run_steps(shorter, count - part, strict, false);
            if (failure.failed) {
                count = failure.steps < count - part ? failure.steps : count - part;
                memcpy(steps, shorter, count * sizeof *steps);
            } else {
                from += part;
            }
        }
    }
    free(shorter);
    return count;
}

static void show(uint64_t seed, model_step *steps, size_t count, const model_failure *seen)
{
    printf("# seed=%llu commit=%s: %s\n", (unsigned long long)seed, DN_COMMIT, seen->what);
    printf("# again: %s --torture %llu 1\n", program, (unsigned long long)seed);
    fflush(stdout);
    const model_failure strict = model_run_steps(steps, count, true, false);
    const size_t most = strict.failed ? strict.steps : seen->steps;
    const size_t left = shorten(steps, most, strict.failed);
    printf("# it fails within %zu steps; %zu of them are enough:\n", most, left);
    const model_failure last = model_run_steps(steps, left, strict.failed, left <= TOLD_MAX);
    printf("# %s\n", last.what);
    fflush(stdout);
}

/* Runs from that seed on until so many operations are done; stops at the first that fails. */
static uint64_t run_seeds(uint64_t seed, uint64_t count, uint64_t *failed)
{
    model_step *steps = calloc(RUN_STEPS, sizeof *steps);
    uint64_t done = 0;
    *failed = 0;
    while (done < count && !*failed) {
        model_make_steps(seed, steps, RUN_STEPS);
        const model_failure failure = model_run_steps(steps, RUN_STEPS, false, false);
        done += failure.steps;
        if (failure.failed) {
            *failed += 1;
            show(seed, steps, RUN_STEPS, &failure);
        }
        seed++;
    }
    free(steps);
    return done;
}

static void the_store_does_what_the_model_says(void)
{
    uint64_t failed = 0;
    /* Without memory to put it in, every transaction waits for the disk. */
    const int usual = access("/dev/shm", W_OK) == 0 ? OPERATIONS : OPERATIONS / 20;
    const uint64_t done = run_seeds(1, (uint64_t)test_rounds(usual), &failed);
    printf("# %llu operations\n", (unsigned long long)done);
    CHECK_MSG(failed == 0, "they do not agree: see above");
}

int main(int argc, char **argv)
{
    program = argv[0];
    if (argc == 4 && strcmp(argv[1], "--torture") == 0) {
        uint64_t failed = 0;
        const uint64_t seed = strtoull(argv[2], NULL, 10), done = run_seeds(seed, strtoull(argv[3], NULL, 10), &failed);
        end_store_tests();
        printf("TORTURE key=store_model seed=%llu done=%llu failed=%llu\n", (unsigned long long)seed, (unsigned long long)done,
               (unsigned long long)failed);
        return failed ? 1 : 0;
    }
    RUN(the_store_does_what_the_model_says);
    end_store_tests();
    return test_end();
}
