/* The element-wise kernels for AArch64 (Advanced SIMD), and the table of all its kernels. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 8
#define DN_GEMM_NAME dn_cpu_gemm_neon
#define DN_KERNELS_NAME dn_cpu_kernels_neon
#define DN_ISA_NAME "neon"
#include "backend/cpu/kernels.inc.c"
