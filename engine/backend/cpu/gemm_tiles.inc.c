/* What follows the sums of a matrix product, and the way through lines, panels and tiles: the same for every microkernel.
 *
 * The including file defines DN_LANES, DN_TILE_ROWS, DN_GEMM_NAME; PANEL, the columns of a panel; PANEL_FLOATS, what one step of the
 * sum takes of it; PANEL_EXTRA, floats behind its last step; and the tables multiply_wide and multiply_narrow. Any thread. */

/* Where one tile's outputs go: columns `column` .. `column + width - 1`. */
typedef struct tile_target {
    float *out;
    const float *residual;
    size_t column, width;
} tile_target;

/* Bias, per-row bias, residual, scale and activation, in this order, from the tile to the output. */
static void finish(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t j = 0; j < target->width; j += DN_LANES) {
        const size_t lanes = target->width - j, column = target->column + j;
        const vec bias = g->bias ? load_some(g->bias + column, lanes) : splat(0.0f);
        const vec row_bias = g->row_bias ? load_some(g->row_bias + column, lanes) : splat(0.0f);
        for (size_t i = 0; i < rows; i++) {
            vec y = load(tile + i * PANEL + j) + bias;
            y += row_bias;
            if (g->residual)
                y += load_some(target->residual + i * g->residual_row + column, lanes);
            y *= g->scale;
            store_some(target->out + i * g->out_row + column, activate(y, g->activation), lanes);
        }
    }
}

/* Bias and activation, then the gate, then the residual. */
static void finish_gated(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t j = 0; j < target->width; j += DN_LANES) {
        const size_t lanes = target->width - j, column = target->column + j;
        const vec bias = g->bias ? load_some(g->bias + column, lanes) : splat(0.0f);
        const vec gate = load_some(g->gate + column, lanes);
        for (size_t i = 0; i < rows; i++) {
            const vec y = activate(load(tile + i * PANEL + j) + bias, g->activation);
            const vec residual = load_some(target->residual + i * g->residual_row + column, lanes);
            store_some(target->out + i * g->out_row + column, residual + gate * y, lanes);
        }
    }
}

/* Both of them where a panel has all its columns: row by row, the activation known when it is compiled. The same operations. */
INLINE void finish_whole_as(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target, const dn_activation activation)
{
    static const float zeros[PANEL];
    const float *bias = g->bias ? g->bias + target->column : zeros, *row_bias = g->row_bias ? g->row_bias + target->column : zeros;
    const float *gate = g->gate ? g->gate + target->column : NULL;
    for (size_t i = 0; i < rows; i++, tile += PANEL) {
        const float *residual = g->residual ? target->residual + i * g->residual_row + target->column : NULL;
        float *out = target->out + i * g->out_row + target->column;
        for (size_t j = 0; j < PANEL; j += DN_LANES) {
            vec y = load(tile + j) + load(bias + j);
            if (gate) {
                y = activate(y, activation);
                store(out + j, load(residual + j) + load(gate + j) * y);
                continue;
            }
            y += load(row_bias + j);
            if (residual)
                y += load(residual + j);
            y *= g->scale;
            store(out + j, activate(y, activation));
        }
    }
}

static void finish_whole(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    if (g->activation == DN_ACT_NONE)
        finish_whole_as(g, tile, rows, target, DN_ACT_NONE);
    else if (g->activation == DN_ACT_GELU_TANH)
        finish_whole_as(g, tile, rows, target, DN_ACT_GELU_TANH);
    else if (g->activation == DN_ACT_SILU)
        finish_whole_as(g, tile, rows, target, DN_ACT_SILU);
    else
        finish_whole_as(g, tile, rows, target, g->activation);
}

/* Whole vectors, scaled and nothing else: attention's scores. Zero is added as finish adds it. */
static void finish_scaled(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t i = 0; i < rows; i++, tile += PANEL) {
        float *out = target->out + i * g->out_row + target->column;
        for (size_t j = 0; j < target->width; j += DN_LANES)
            store(out + j, (load(tile + j) + 0.0f) * g->scale);
    }
}

/* Nothing to add and whole vectors to write. With a scale of 1 sums go straight to the output. */
static bool is_plain(const dn_gemm *g, size_t width)
{
    return !g->bias && !g->row_bias && !g->residual && !g->gate && g->activation == DN_ACT_NONE && width % DN_LANES == 0;
}

/* One line's rows, cut into tiles as even as possible, against one panel; the first tiles fetch the panel at `next`. A single
 * tile waits for memory as it is, and fetches nothing more. */
static void multiply_line(const dn_gemm *g, size_t line, const float *b, const float *next, size_t column, size_t width)
{
    float tile[DN_TILE_ROWS * PANEL] __attribute__((aligned(64)));
    const size_t tiles = (g->rows + DN_TILE_ROWS - 1) / DN_TILE_ROWS;
    multiply_function *const *table = width <= DN_LANES ? multiply_narrow : multiply_wide;
    const bool plain = is_plain(g, width);
    const size_t depth = g->segments * g->k;
    for (size_t t = 0; t < tiles; t++) {
        const size_t first = t * g->rows / tiles, count = (t + 1) * g->rows / tiles - first;
        const float *a = g->a + line * g->a_line + first * g->a_row;
        const bool fetches = tiles > 1 && t * LINE_FLOATS < PANEL_FLOATS;
        const fetch ahead = {fetches ? next + t * LINE_FLOATS * depth : b, fetches ? LINE_FLOATS : 0};
        const tile_target target = {
            .out = g->out + line * g->out_line + first * g->out_row,
            .residual = g->residual ? g->residual + line * g->residual_line + first * g->residual_row : NULL,
            .column = column,
            .width = width,
        };
        if (plain && g->scale == 1.0f) {
            table[count - 1](target.out + column, g->out_row, g, a, b, ahead);
        } else {
            table[count - 1](tile, PANEL, g, a, b, ahead);
            if (plain)
                finish_scaled(g, tile, count, &target);
            else if (width == PANEL)
                finish_whole(g, tile, count, &target);
            else if (g->gate)
                finish_gated(g, tile, count, &target);
            else
                finish(g, tile, count, &target);
        }
    }
}

void DN_GEMM_NAME(const dn_gemm *g, size_t panel_first, size_t panel_end)
{
    for (size_t panel = panel_first; panel < panel_end; panel++) {
        const size_t column = panel * PANEL;
        const size_t width = g->n - column < PANEL ? g->n - column : PANEL;
        const size_t panel_floats = PANEL_FLOATS * g->segments * g->k + PANEL_EXTRA;
        const float *b = g->b + panel * panel_floats;
        const float *next = panel + 1 < panel_end ? b + panel_floats : g->after ? g->after : b;
        for (size_t line = 0; line < g->lines; line++)
            multiply_line(g, line, b, line == 0 ? next : b, column, width);
    }
}
