/* The element-wise kernels for machines that have none of their own, and the table of all its kernels. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 4
#define DN_GEMM_NAME dn_cpu_gemm_generic
#define DN_KERNELS_NAME dn_cpu_kernels_generic
#define DN_ISA_NAME "generic"
#include "backend/cpu/kernels.inc.c"
