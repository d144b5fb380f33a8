/* The names of the batching policies. Owns nothing; pure, any thread. */
#include "server/batching.h"

#include <string.h>

static const char *const names[] = {[BATCHING_CONTINUOUS] = "continuous", [BATCHING_REQUEST] = "request", [BATCHING_SINGLE] = "single"};

const char *batching_name(batching policy)
{
    return names[policy];
}

bool batching_from(const char *name, batching *out)
{
    for (int i = BATCHING_CONTINUOUS; i <= BATCHING_SINGLE; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (batching)i;
            return true;
        }
    return false;
}
