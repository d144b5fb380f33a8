/* How a network multiplies. fp32 is the reference; the others round the operands of its large products to 16 bits, on a machine that
 * multiplies these faster, and give other bytes. On a CPU everything between the products stays in float; on a GPU values between
 * operations are rounded too. */
#ifndef DN_BASE_PRECISION_H
#define DN_BASE_PRECISION_H

#include "base/error.h"

typedef enum dn_precision {
    DN_PRECISION_AUTO = -1, /* the back end's own: fp32 on a CPU, bf16 on a GPU. Settled when an engine opens; no network has it */
    DN_PRECISION_FP32 = 0,
    DN_PRECISION_FP16, /* operands and sums of up to 64 products in binary16, the sums of these in float */
    DN_PRECISION_BF16, /* operands in bfloat16, sums in float */
    DN_PRECISIONS
} dn_precision;

const char *dn_precision_name(dn_precision precision);
/* NULL, "" and "auto" are DN_PRECISION_AUTO. */
dn_status dn_precision_parse(dn_precision *out, const char *name, dn_error *error);

#endif
