/* The element-wise kernels for AVX2 with FMA, and the table of all its kernels. Any thread. */
#define DN_LANES 8
#define DN_TILE_ROWS 6
#define DN_GEMM_NAME dn_cpu_gemm_avx2
#define DN_KERNELS_NAME dn_cpu_kernels_avx2
#define DN_ISA_NAME "avx2"
#include "backend/cpu/kernels.inc.c"
