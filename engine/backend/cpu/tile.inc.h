/* The rows of a register tile, written out once for all microkernels: DN_TILE_ROWS x 2 vectors of sums.
 *
 * Included after vector.inc.h by files that define DN_LANES and DN_TILE_ROWS (4, 6, 8 or 14). */
#define PANEL (2 * DN_LANES)

/* X(row, pointer, offset). Rows are reached from every third row's pointer, as base, base + stride and base + 2 * stride:
 * x86 addresses these directly, so 14 rows need 5 pointers. */
#define EACH_ROW_4(X) X(0, p0, 0) X(1, p0, 1) X(2, p0, 2) X(3, p3, 0)
#define EACH_ROW_6(X) EACH_ROW_4(X) X(4, p3, 1) X(5, p3, 2)
#define EACH_ROW_8(X) EACH_ROW_6(X) X(6, p6, 0) X(7, p6, 1)
#define EACH_ROW_14(X)                                                                                                                     \
    EACH_ROW_8(X)                                                                                                                          \
    X(8, p6, 2) X(9, p9, 0) X(10, p9, 1) X(11, p9, 2) X(12, p12, 0) X(13, p12, 1)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EACH_ROW JOIN(EACH_ROW_, DN_TILE_ROWS)

/* A tile of mr rows and nv vectors, both constants where inlined; sums and sums_row: where it goes. */
#define DECLARE_SUMS(i, p, o) vec low##i = {0}, high##i = {0};
#define STORE_SUMS(i, p, o)                                                                                                                \
    if (mr > i) {                                                                                                                          \
        store(sums + (i)*sums_row, low##i);                                                                                                \
        if (nv > 1)                                                                                                                        \
            store(sums + (i)*sums_row + DN_LANES, high##i);                                                                                \
    }
