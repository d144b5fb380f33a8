/* The matrix product for AVX-512 (F, DQ, BW, VL): gemm.inc.c compiled with that set's flags. Any thread. */
#define DN_LANES 16
#define DN_TILE_ROWS 14
#define DN_GEMM_NAME dn_cpu_gemm_avx512
#include "backend/cpu/gemm.inc.c"
