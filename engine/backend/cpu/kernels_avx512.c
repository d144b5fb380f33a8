/* The element-wise kernels for AVX-512 (F, DQ, BW, VL), and the table of all its kernels. Any thread. */
#define DN_LANES 16
#define DN_TILE_ROWS 14
#define DN_GEMM_NAME dn_cpu_gemm_avx512
#define DN_KERNELS_NAME dn_cpu_kernels_avx512
#define DN_ISA_NAME "avx512"
#include "backend/cpu/kernels.inc.c"
