/* The matrix product for SSE2 (every x86-64): gemm.inc.c compiled with that set's flags. Any thread. */
#define DN_LANES 4
#define DN_TILE_ROWS 4
#define DN_GEMM_NAME dn_cpu_gemm_sse2
#include "backend/cpu/gemm.inc.c"
