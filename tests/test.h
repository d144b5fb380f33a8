/* The whole test framework: a program is a list of named checks, and prints one line for each.
 *
 *     PASS name        FAIL name: file:line: what        SKIP name: reason
 *
 * tests/run.sh adds the lines up. A test function returns when its first CHECK fails. */
#ifndef DN_TESTS_TEST_H
#define DN_TESTS_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void test_function(void);

static int test_failures;
static int test_skipped;
static char test_message[1024];
static int test_failed;

#define CHECK_MSG(condition, ...)                                                              \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            int used_ = snprintf(test_message, sizeof test_message, "%s:%d: ", __FILE__, __LINE__); \
            snprintf(test_message + used_, sizeof test_message - (size_t)used_, __VA_ARGS__);  \
            test_failed = 1;                                                                   \
            return;                                                                            \
        }                                                                                      \
    } while (0)
#define CHECK(condition) CHECK_MSG(condition, "%s", #condition)
#define CHECK_OK(call, error) CHECK_MSG((call) == DN_OK, "%s: %s", #call, (error).message)
#define SKIP(...)                                                                              \
    do {                                                                                       \
        snprintf(test_message, sizeof test_message, __VA_ARGS__);                              \
        test_skipped = 1;                                                                      \
        return;                                                                                \
    } while (0)

#define RUN(function) test_run(#function, function)

static inline void test_run(const char *name, test_function *function)
{
    test_failed = 0;
    test_skipped = 0;
    function();
    if (test_failed) {
        test_failures++;
        printf("FAIL %s: %s\n", name, test_message);
    } else if (test_skipped) {
        printf("SKIP %s: %s\n", name, test_message);
    } else {
        printf("PASS %s\n", name);
    }
    fflush(stdout);
}

/* Rounds of random cases: as many as usual, or TEST_ROUNDS if that is fewer (under emulation, say). */
static inline int test_rounds(int usual)
{
    const char *text = getenv("TEST_ROUNDS");
    int wanted = text ? atoi(text) : 0;
    return wanted > 0 && wanted < usual ? wanted : usual;
}

static inline int test_end(void)
{
    return test_failures ? 1 : 0;
}

#endif
