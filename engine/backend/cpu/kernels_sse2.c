/* The element-wise kernels for SSE2 (every x86-64), and the table of all its kernels. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 4
#define DN_GEMM_NAME dn_cpu_gemm_sse2
#define DN_KERNELS_NAME dn_cpu_kernels_sse2
#define DN_ISA_NAME "sse2"
#include "backend/cpu/kernels.inc.c"
