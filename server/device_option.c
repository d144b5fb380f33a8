/* See device_option.h. */
#include "server/device_option.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

const char *device_option_standard(const char *otherwise)
{
    const char *wished = getenv("DENOISED_DEVICE");
    return wished != NULL && wished[0] != '\0' ? wished : otherwise;
}

/* By the XDG base directory specification; "": there is no home. */
static void find_cache(char *out, size_t bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache != NULL && cache[0] == '/')
        snprintf(out, bytes, "%s/denoised/plans", cache);
    else if (home != NULL && home[0] == '/')
        snprintf(out, bytes, "%s/.cache/denoised/plans", home);
}

dn_status device_option_settle(device_option *o, dn_engine_options *engine, const char *command, const char *otherwise, dn_error *error)
{
    char why[DN_DEVICE_WHY_BYTES];
    dn_status status = dn_precision_parse(&engine->precision, o->precision, error);
    if (status == DN_OK)
        status = dn_device_choose(&o->choice, o->device != NULL ? o->device : device_option_standard(otherwise), why, sizeof why, error);
    if (status != DN_OK)
        return status;
    if (why[0] != '\0')
        fprintf(stderr, "denoised %s: on the CPU: %s\n", command, why);
    if (o->plan_cache != NULL)
        snprintf(o->cache, sizeof o->cache, "%s", o->plan_cache);
    else
        find_cache(o->cache, sizeof o->cache);
    if (!o->choice.backend->host_values && o->cache[0] != '\0' && dn_make_folder(o->cache, error) != DN_OK) {
        if (o->plan_cache != NULL)
            return error->status;
        o->cache[0] = '\0'; /* a home that cannot be written to: plans are found again each time */
    }
    engine->device = o->choice.name;
    engine->fast = o->fast;
    engine->plan_cache = o->cache[0] != '\0' ? o->cache : NULL;
    return DN_OK;
}
