/* How a network multiplies. fp32 is the default and the reference; the others round the operands of its large products to 16 bits, on
 * a CPU that multiplies these faster, and give other bytes. Everything between the products stays in float. */
#ifndef DN_BASE_PRECISION_H
#define DN_BASE_PRECISION_H

#include "base/error.h"

typedef enum dn_precision {
    DN_PRECISION_FP32,
    DN_PRECISION_FP16, /* operands and sums of up to 64 products in binary16, the sums of these in float */
    DN_PRECISION_BF16, /* operands in bfloat16, sums in float */
    DN_PRECISIONS
} dn_precision;

const char *dn_precision_name(dn_precision precision);
/* NULL and "" are fp32. */
dn_status dn_precision_parse(dn_precision *out, const char *name, dn_error *error);

#endif
