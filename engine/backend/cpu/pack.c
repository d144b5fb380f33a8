/* Packing a matrix into panels of columns, as the matrix product reads it.
 *
 * Invariant: packing moves values and changes none. Any thread. */
#include <string.h>

#include "backend/cpu/kernels.h"

#define RUN_DEPTH 128u /* rows of a panel that stay in the first cache while columns are laid across them */

/* Rows first .. end - 1 of one panel, read down the columns, whose elements lie together in the source. */
static void pack_columns(float *to, const float *from, const dn_pack *pack, size_t width, size_t used, size_t first, size_t end)
{
    for (size_t j = 0; j < used; j++) {
        const float *column = from + j * pack->column_stride;
        for (size_t d = first; d < end; d++)
            to[d * width + j] = column[d];
    }
}

/* Rows first .. end - 1 of one panel, read across. */
static void pack_rows(float *to, const float *from, const dn_pack *pack, size_t width, size_t used, size_t first, size_t end)
{
    for (size_t d = first; d < end; d++) {
        const float *row = from + d * pack->depth_stride;
        if (pack->column_stride == 1)
            memcpy(to + d * width, row, used * sizeof *to);
        for (size_t j = 0; j < used && pack->column_stride != 1; j++)
            to[d * width + j] = row[j * pack->column_stride];
    }
}

void dn_cpu_pack(float *dst, const dn_cpu_kernels *kernels, const dn_pack *pack)
{
    size_t panels = dn_cpu_panels(kernels, pack->n);
    for (size_t panel = 0; panel < panels; panel++) {
        size_t column = panel * kernels->panel, width = dn_cpu_panel_width(kernels, pack->n, panel);
        size_t used = pack->n - column < width ? pack->n - column : width;
        float *to = dst + column * pack->depth + pack->first * width;
        const float *from = pack->src + column * pack->column_stride;
        for (size_t d = 0; d < pack->count; d += RUN_DEPTH) {
            size_t end = pack->count - d < RUN_DEPTH ? pack->count : d + RUN_DEPTH;
            if (pack->depth_stride == 1)
                pack_columns(to, from, pack, width, used, d, end);
            else
                pack_rows(to, from, pack, width, used, d, end);
        }
        for (size_t d = 0; d < pack->count && used < width; d++)
            memset(to + d * width + used, 0, (width - used) * sizeof *to);
    }
}
