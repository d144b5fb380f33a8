/* The matrix product for AVX2 with FMA: gemm.inc.c compiled with that set's flags. Any thread. */
#define DN_LANES 8
#define DN_TILE_ROWS 6
#define DN_GEMM_NAME dn_cpu_gemm_avx2
#include "backend/cpu/gemm.inc.c"
