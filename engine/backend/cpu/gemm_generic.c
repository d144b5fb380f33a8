/* The matrix product for machines that have no kernels of their own: vectors of 4 floats, which the compiler makes of what there is: gemm.inc.c compiled
 * with that set's flags. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 4
#define DN_GEMM_NAME dn_cpu_gemm_generic
#include "backend/cpu/gemm.inc.c"
