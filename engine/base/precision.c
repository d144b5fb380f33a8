/* The names of precisions. Owns nothing. Any thread. */
#include "base/precision.h"

#include <string.h>

static const char *const names[DN_PRECISIONS] = {"fp32", "fp16", "bf16"};

const char *dn_precision_name(dn_precision precision)
{
    return precision == DN_PRECISION_AUTO ? "auto" : names[precision];
}

dn_status dn_precision_parse(dn_precision *out, const char *name, dn_error *error)
{
    if (!name || !name[0] || strcmp(name, "auto") == 0) {
        *out = DN_PRECISION_AUTO;
        return DN_OK;
    }
    for (int i = 0; i < DN_PRECISIONS; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (dn_precision)i;
            return DN_OK;
        }
    }
    return dn_fail(error, DN_INVALID, "precision \"%.40s\" is none of auto, fp32, fp16, bf16", name);
}
