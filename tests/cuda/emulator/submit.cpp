/* How the emulated products, which are C, reach the emulated streams: as closures that own what they need. */
#include <cstdlib>

#include "cuemu.h"

extern "C" {
#include "plain.h"
}

extern "C" int dn_plain_submit(void *stream, const dn_plain_run *run)
{
    const dn_plain_run copy = *run;
    return cuemu::submit(stream, [copy] {
        if (!dn_plain_product(&copy))
            abort();
    });
}
