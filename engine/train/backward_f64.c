/* Backward in double: what finite differences check and what the float kernels are compared with. */
#include "train/backward.h"

typedef double real;
#define VECTOR_BYTES 16
#define TILE 4
#define TABLE dn_backward_table_f64
#define RUN dn_backward_f64
#define EXPONENTIAL exp
#include "train/backward.inc.c"

const dn_backward_table_f64 *dn_backward_find_f64(void)
{
    static const dn_backward_table_f64 table = {"portable", backward_rows, pack, unpack};
    return &table;
}
