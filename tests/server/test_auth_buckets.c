/* Token buckets: never more than size plus rate times time, whatever is asked for, and honest about when. */
#include "server/auth_buckets.h"
#include <stdint.h>

#include "tests/test.h"

static void a_bucket_is_full_at_first(void)
{
    auth_bucket b = {0, 0};
    double wait = -1;
    for (int i = 0; i < 5; i++)
        CHECK(auth_bucket_take(&b, 1, 5, 2, 100, &wait) && wait == 0);
    CHECK(!auth_bucket_take(&b, 1, 5, 2, 100, &wait) && fabs(wait - 0.5) < 1e-12);
    CHECK(!auth_bucket_take(&b, 1, 5, 2, 100.499, &wait) && auth_bucket_take(&b, 1, 5, 2, 100.5, &wait));
}

static void idle_time_saves_no_more_than_its_size(void)
{
    auth_bucket b = {0, 0};
    double wait;
    CHECK(auth_bucket_take(&b, 5, 5, 2, 1, &wait) && auth_bucket_take(&b, 5, 5, 2, 1e6, &wait));
    CHECK(!auth_bucket_take(&b, 1, 5, 2, 1e6, &wait));
}

static void too_much_is_never_allowed(void)
{
    auth_bucket b = {0, 0};
    double wait;
    CHECK(!auth_bucket_take(&b, 6, 5, 2, 1, &wait) && isinf(wait));
    CHECK(auth_bucket_take(&b, 5, 5, 2, 1, &wait));
}

/* Ten thousand draws: what was let through stays within the law, and a refusal's time is enough. */
static void the_law_holds(void)
{
    auth_bucket b = {0, 0};
    double now = 10, taken = 0, wait;
    const double size = 7, rate = 3;
    uint64_t state = 1;
    for (int i = 0; i < 10000; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const double amount = (double)(state >> 40) / (1 << 24) * 4;
        now += (double)(state >> 20 & 1023) / 1024;
        if (auth_bucket_take(&b, amount, size, rate, now, &wait)) {
            taken += amount;
        } else {
            auth_bucket later = b;
            double again;
            CHECK(wait > 0 && auth_bucket_take(&later, amount, size, rate, now + wait + 1e-9, &again));
        }
        CHECK_MSG(taken <= size + rate * (now - 10) + 1e-6, "%g were taken in %g s", taken, now - 10);
    }
    CHECK_MSG(taken > 0.9 * rate * (now - 10), "only %g were taken in %g s", taken, now - 10);
}

int main(void)
{
    RUN(a_bucket_is_full_at_first);
    RUN(idle_time_saves_no_more_than_its_size);
    RUN(too_much_is_never_allowed);
    RUN(the_law_holds);
    return test_end();
}
