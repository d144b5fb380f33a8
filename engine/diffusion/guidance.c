/* Classifier-free guidance. Pure functions, any thread.
 *
 * The seed documents call w = 0 unconditional; with their own formula (1+w) c - w u it is conditional and w = -1 is
 * unconditional. Here s = 1 + w: 1 conditional, 0 unconditional. */
#include "diffusion/guidance.h"

bool dn_guidance_needs_cond(const dn_guidance *guidance)
{
    return !guidance->has_null || guidance->scale != 0.0;
}

bool dn_guidance_needs_null(const dn_guidance *guidance)
{
    return guidance->has_null && guidance->scale != 1.0;
}

void dn_guidance_fold(const dn_guidance *guidance, dn_ops *out)
{
    static const uint32_t both[2] = {DN_REG_COND, DN_REG_UNCOND};
    if (!dn_guidance_needs_null(guidance))
        return;
    if (!dn_guidance_needs_cond(guidance)) {
        dn_ops_linear(out, DN_REG_COND, 1, &both[1], (const double[]){1.0});
        return;
    }
    /* The difference first: c and u are close, and s c + (1 - s) u would round both at s times their size. */
    dn_ops_linear(out, DN_REG_COND, 2, both, (const double[]){1.0, -1.0});
    dn_ops_linear(out, DN_REG_COND, 2, both, (const double[]){guidance->scale, 1.0});
}
