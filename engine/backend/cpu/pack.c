/* Packing a matrix into panels of columns, as the matrix product reads it.
 *
 * Invariant: packing moves values and changes none. Any thread. */
#include <string.h>

#include "backend/cpu/kernels.h"

void dn_cpu_pack(float *dst, const dn_cpu_kernels *kernels, const dn_pack *pack)
{
    size_t panels = dn_cpu_panels(kernels, pack->n);
    for (size_t panel = 0; panel < panels; panel++) {
        size_t column = panel * kernels->panel, width = dn_cpu_panel_width(kernels, pack->n, panel);
        size_t used = pack->n - column < width ? pack->n - column : width;
        float *to = dst + column * pack->depth + pack->first * width;
        const float *from = pack->src + column * pack->column_stride;
        for (size_t d = 0; d < pack->count; d++, to += width, from += pack->depth_stride) {
            if (pack->column_stride == 1)
                memcpy(to, from, used * sizeof *to);
            for (size_t j = 0; j < used && pack->column_stride != 1; j++)
                to[j] = from[j * pack->column_stride];
            if (used < width)
                memset(to + used, 0, (width - used) * sizeof *to);
        }
    }
}
