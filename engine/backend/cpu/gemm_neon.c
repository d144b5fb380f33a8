/* The matrix product for AArch64 (Advanced SIMD, which all of them have: 32 registers of 4 floats): gemm.inc.c compiled
 * with that set's flags. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 8
#define DN_GEMM_NAME dn_cpu_gemm_neon
#include "backend/cpu/gemm.inc.c"
