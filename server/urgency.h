/* Who goes before whom: the one rule of the store's claims, the dispatcher's order and the worker's batches. Pure.
 *
 * Waiting counts: every URGENCY_AGING_SECONDS are worth one more priority, at most the highest there is, so that nobody starves. But
 * between equals in priority waiting decides nothing: there the fair turn does, which the order of claims stands for. */
#ifndef SERVER_URGENCY_H
#define SERVER_URGENCY_H

#include <stdbool.h>

#include "api/limits.h"

#define URGENCY_AGING_SECONDS 120

static inline int urgency_of(int priority, double waited_seconds)
{
    const double aged = priority + (waited_seconds > 0 ? waited_seconds / URGENCY_AGING_SECONDS : 0);
    return aged < API_PRIORITY_MAX ? (int)(aged + 2 * API_PRIORITY_MAX) - 2 * API_PRIORITY_MAX : API_PRIORITY_MAX;
}

/* Whether the first takes a place that the second has. Never both ways, and never between equals in priority. */
static inline bool urgency_outranks(int priority, double waited_seconds, int other_priority, double other_waited_seconds)
{
    return priority > other_priority && urgency_of(priority, waited_seconds) > urgency_of(other_priority, other_waited_seconds);
}

#endif
