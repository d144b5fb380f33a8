/* Chooses the kernels of an instruction set at run time. Which ones there are to choose from is the Makefile's choice, by the
 * machine that the compiler makes programs for: it compiles their files and defines DN_CPU_X86_64 or DN_CPU_AARCH64.
 *
 * Owns nothing. Any thread. */
#include "backend/cpu/isa.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_BYTES 128

#if defined(DN_CPU_X86_64)

/* __builtin_cpu_supports asks CPUID, and whether the system saves the registers. */
static bool runs_avx512(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

static bool runs_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_everywhere(void)
{
    return true;
}

static const dn_cpu_isa isas[] = {
    {&dn_cpu_kernels_avx512, "avx512f avx512dq avx512bw avx512vl fma", runs_avx512},
    {&dn_cpu_kernels_avx2, "avx2 fma", runs_avx2},
    {&dn_cpu_kernels_sse2, "sse2", runs_everywhere},
};

#else

static bool runs_everywhere(void)
{
    return true;
}

static const dn_cpu_isa isas[] = {
#if defined(DN_CPU_AARCH64)
    {&dn_cpu_kernels_neon, "asimd", runs_everywhere},
#else
    {&dn_cpu_kernels_generic, "", runs_everywhere},
#endif
};

#endif

#define ISA_COUNT (sizeof isas / sizeof isas[0])

const dn_cpu_isa *dn_cpu_isas(size_t *count)
{
    *count = ISA_COUNT;
    return isas;
}

static dn_status refuse(const char *name, dn_error *error)
{
    char names[NAMES_BYTES] = "";
    for (size_t i = 0; i < ISA_COUNT; i++) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", isas[ISA_COUNT - 1 - i].kernels->isa);
    }
    return dn_fail(error, DN_INVALID, "instruction set \"%s\" is none of %s", name, names);
}

dn_status dn_cpu_choose(const dn_cpu_kernels **out, const char *name, dn_error *error)
{
    if (!name || !name[0])
        name = getenv("DENOISED_ISA");
    const bool any = !name || !name[0];
    for (size_t i = 0; i < ISA_COUNT; i++) {
        if (!any && strcmp(name, isas[i].kernels->isa) != 0)
            continue;
        if (isas[i].runs()) {
            *out = isas[i].kernels;
            return DN_OK;
        }
        if (!any)
            return dn_fail(error, DN_UNSUPPORTED, "this CPU cannot run %s, which needs %s", name, isas[i].needs);
    }
    return refuse(any ? "" : name, error);
}
