/* Products in binary16 for CPUs with AVX512-FP16. Any thread. */
#define DN_LANES 16
#define DN_TILE_ROWS 12
#define DN_GEMM_NAME dn_cpu_gemm_fp16
#define DN_HALF_NAME dn_cpu_half_fp16
#include "backend/cpu/half_fp16.inc.c"
