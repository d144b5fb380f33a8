/* The instruction sets whose kernels are compiled into this program, and which of them this CPU runs. */
#ifndef DN_BACKEND_CPU_ISA_H
#define DN_BACKEND_CPU_ISA_H

#include <stdbool.h>

#include "backend/cpu/kernels.h"
#include "base/error.h"

typedef struct dn_cpu_isa {
    const dn_cpu_kernels *kernels;
    const char *needs; /* the features asked for, as Linux names them: "avx2 fma" */
    bool (*runs)(void); /* asks the CPU, and whether the system saves the registers */
} dn_cpu_isa;

/* Best first; the last one runs on every CPU that this program is compiled for. */
const dn_cpu_isa *dn_cpu_isas(size_t *count);

/* The set called `name`; NULL or "": the one DENOISED_ISA names, else the best that this CPU runs. */
dn_status dn_cpu_choose(const dn_cpu_kernels **out, const char *name, dn_error *error);

#endif
