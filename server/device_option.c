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

/* By the XDG base directory specification; "": there is no home, or none with a name of a usual length. */
static void find_cache(char *out, size_t bytes)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = 0;
    if (cache != NULL && cache[0] == '/')
        length = snprintf(out, bytes, "%s/denoised/plans", cache);
    else if (home != NULL && home[0] == '/')
        length = snprintf(out, bytes, "%s/.cache/denoised/plans", home);
    if (length <= 0 || (size_t)length >= bytes)
        out[0] = '\0';
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
    if (o->plan_cache == NULL)
        find_cache(o->cache, sizeof o->cache);
    const char *cache = o->plan_cache != NULL ? o->plan_cache : o->cache;
    if (!o->choice.backend->host_values && cache[0] != '\0' && dn_make_folder(cache, error) != DN_OK) {
        if (o->plan_cache != NULL)
            return error->status;
        cache = ""; /* a home that cannot be written to: plans are found again each time */
    }
    engine->device = o->choice.name;
    engine->fast = o->fast;
    engine->plan_cache = cache[0] != '\0' ? cache : NULL;
    return DN_OK;
}
