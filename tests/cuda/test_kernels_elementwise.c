/* finish, affine, activation, position and division by time, against their formulas in double. */
#include "tests/cuda/kernels_check.h"

#include "backend/cpu/reference.h"

#define ROUNDS 24
#define ROWS 3

typedef struct elementwise {
    tensor x, row_bias, residual, gate, out;
    dn_cuda_finish_options options;
    float a, b, *table;
    unsigned char *block; /* of ROWS rows */
} elementwise;

static void release(elementwise *e)
{
    tensor_free(&e->x);
    tensor_free(&e->row_bias);
    tensor_free(&e->residual);
    tensor_free(&e->gate);
    tensor_free(&e->out);
    free((void *)(uintptr_t)e->options.bias);
    free(e->table);
    free(e->block);
    *e = (elementwise){0};
}

/* x and out of some shape; every sixth round neither aligned nor of an even pitch. */
static elementwise open_case(int round)
{
    uint32_t h, w, c;
    elementwise e = {.a = draw_float(), .b = draw_float()};
    draw_shape(&h, &w, &c);
    if (round == 1)
        c = 1152;
    dn_cuda_type type = round % 2 ? DN_CUDA_BF16 : DN_CUDA_F32;
    e.x = tensor_input(type, ROWS, h, w, c, round % 6 == 5);
    e.out = tensor_make(type, ROWS, h, w, c, round % 6 == 4);
    return e;
}

static trial trial_of(elementwise *e, run_function *run)
{
    return (trial){.type = e->x.type, .rows = ROWS, .run = run, .what = e, .out = {&e->out}, .tolerance = tolerance_of(e->x.type)};
}

/* The same with out where `in` lies: same bytes. */
static const char *check_in_place(elementwise *e, tensor *in, run_function *run)
{
    tensor kept = e->out, copy = tensor_like(in);
    size_t pixels = (size_t)in->view.h * in->view.w;
    memcpy(copy.memory, in->memory, in->bytes);
    e->out = *in;
    trial t = trial_of(e, run);
    const char *why = trial_launch(&t, 0, ROWS) == DN_CUDA_LAUNCH_OK ? NULL : "in place it was refused";
    for (uint32_t r = 0; r < ROWS; r++) {
        for (size_t p = 0; p < pixels && !why; p++) {
            if (memcmp(in->memory + tensor_at(in, r, p, 0), kept.memory + tensor_at(&kept, r, p, 0), in->view.c * size_of(in->type)) != 0)
                why = "in place it gives other bytes";
        }
    }
    memcpy(in->memory, copy.memory, in->bytes);
    e->out = kept;
    tensor_free(&copy);
    return why;
}

/* ---- finish */
static int run_finish(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    elementwise *e = what;
    dn_cuda_finish_options o = e->options;
    o.x = view_from(&e->x, first);
    o.row_bias = view_from(&e->row_bias, first);
    o.residual = view_from(&e->residual, first);
    o.gate = view_from(&e->gate, first);
    o.out = view_from(&e->out, first);
    return dn_cuda_finish(launch, &o);
}

static float bias_at(const elementwise *e, uint32_t c)
{
    if (!e->options.bias)
        return 0.0f;
    return e->x.type == DN_CUDA_F32 ? ((const float *)e->options.bias)[c] : dn_bf16_to_f32(((const uint16_t *)e->options.bias)[c]);
}

static void *draw_bias(dn_cuda_type type, uint32_t c)
{
    void *bias = malloc(c * size_of(type));
    for (uint32_t i = 0; bias && i < c; i++) {
        if (type == DN_CUDA_F32)
            ((float *)bias)[i] = draw_float();
        else
            ((uint16_t *)bias)[i] = dn_f32_to_bf16(draw_float());
    }
    return bias;
}

static void finish_reference(elementwise *e)
{
    const dn_cuda_finish_options *o = &e->options;
    for (uint32_t r = 0; r < ROWS; r++) {
        for (size_t p = 0; p < (size_t)e->x.view.h * e->x.view.w; p++) {
            for (uint32_t c = 0; c < e->x.view.c; c++) {
                double y = exact_at(&e->x, r, p)[c] + (double)bias_at(e, c),
                       residual = e->residual.exact ? exact_at(&e->residual, r, p)[c] : 0.0;
                y += e->row_bias.exact ? exact_at(&e->row_bias, r, 0)[c] : 0.0;
                y = (y + (o->residual_last ? 0.0 : residual)) * (double)o->scale;
                y = dn_reference_activation((dn_activation)o->activation, y);
                y *= e->gate.exact ? exact_at(&e->gate, r, 0)[c] : 1.0;
                exact_at(&e->out, r, p)[c] = y + (o->residual_last ? residual : 0.0);
            }
        }
    }
}

static void finish_adds_scales_activates_and_gates(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        elementwise e = open_case(round);
        dn_cuda_view s = e.x.view;
        e.options = (dn_cuda_finish_options){.scale = draw(0, 1) ? 1.0f : 0.7f, .activation = (dn_cuda_activation)(round % 6)};
        e.options.residual_last = draw(0, 1);
        if (draw(0, 1))
            e.options.bias = draw_bias(e.x.type, s.c);
        if (draw(0, 1))
            e.row_bias = tensor_input(e.x.type, ROWS, 1, 1, s.c, draw(0, 3) == 0);
        if (draw(0, 1))
            e.residual = tensor_input(e.x.type, ROWS, s.h, s.w, s.c, false);
        if (draw(0, 1))
            e.gate = tensor_input(e.x.type, ROWS, 1, 1, s.c, false);
        finish_reference(&e);
        trial t = trial_of(&e, run_finish);
        const char *why = check_trial(&t);
        why = why ? why : check_in_place(&e, &e.x, run_finish);
        why = why || !e.residual.exact ? why : check_in_place(&e, &e.residual, run_finish);
        release(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

/* ---- affine, activation */
static int run_affine(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    elementwise *e = what;
    return dn_cuda_affine(launch, view_from(&e->x, first), e->a, e->b, view_from(&e->out, first));
}

static void affine_scales_and_shifts(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        elementwise e = open_case(round);
        for (size_t i = 0; i < tensor_count(&e.x); i++)
            e.out.exact[i] = (double)e.a * e.x.exact[i] + (double)e.b;
        trial t = trial_of(&e, run_affine);
        const char *why = check_trial(&t);
        why = why ? why : check_in_place(&e, &e.x, run_affine);
        release(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

static int run_activate(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    elementwise *e = what;
    return dn_cuda_activate(launch, view_from(&e->x, first), e->options.activation, view_from(&e->out, first));
}

static void activations_are_the_references(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        elementwise e = open_case(round);
        e.options.activation = (dn_cuda_activation)(round / 2 % 6);
        tensor_fill(&e.x, 0.0f, round % 4 < 2 ? 3.0f : 90.0f); /* tails too: exponentials that overflow */
        for (size_t i = 0; i < tensor_count(&e.x); i++)
            e.out.exact[i] = dn_reference_activation((dn_activation)e.options.activation, e.x.exact[i]);
        trial t = trial_of(&e, run_activate);
        const char *why = check_trial(&t);
        why = why ? why : check_in_place(&e, &e.x, run_activate);
        release(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

/* ---- position, division by time */
static int run_position(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    elementwise *e = what;
    return dn_cuda_position(launch, view_from(&e->x, first), e->table, view_from(&e->out, first));
}

static void positions_are_added(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        elementwise e = open_case(round);
        size_t per_row = tensor_count(&e.x) / ROWS;
        e.table = malloc(per_row * sizeof *e.table);
        for (size_t i = 0; e.table && i < per_row; i++)
            e.table[i] = draw_float();
        for (size_t i = 0; e.table && i < tensor_count(&e.x); i++)
            e.out.exact[i] = e.x.exact[i] + (double)e.table[i % per_row];
        trial t = trial_of(&e, run_position);
        const char *why = e.table ? check_trial(&t) : "no memory";
        why = why ? why : check_in_place(&e, &e.x, run_position);
        release(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

static const float times[ROWS] = {0.5f, 3.0f, 981.0f};

/* A block whose rows begin with `first`, of which `count` are wanted. */
static const dn_cuda_block *write_block(elementwise *e, uint32_t first, uint32_t count)
{
    free(e->block);
    e->block = need(sizeof(dn_cuda_block) + 16 + ROWS * sizeof(dn_cuda_row));
    dn_cuda_block *block = (dn_cuda_block *)(void *)e->block;
    *block = (dn_cuda_block){.row_count = count, .rows_max = ROWS, .rows_at = (sizeof(dn_cuda_block) + 15) / 16 * 16};
    for (uint32_t r = first; r < ROWS; r++)
        DN_CUDA_BLOCK_PART(dn_cuda_row, block, block->rows_at)[r - first] = (dn_cuda_row){.time = times[r]};
    return block;
}

static int run_divide(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    elementwise *e = what;
    return dn_cuda_divide_by_time(launch, write_block(e, first, ROWS - first), view_from(&e->x, first), view_from(&e->out, first));
}

static void rows_are_divided_by_their_times(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        elementwise e = open_case(round);
        size_t per_row = tensor_count(&e.x) / ROWS;
        for (size_t i = 0; i < tensor_count(&e.x); i++)
            e.out.exact[i] = e.x.exact[i] / (double)times[i / per_row];
        trial t = trial_of(&e, run_divide);
        const char *why = check_trial(&t);
        why = why ? why : check_in_place(&e, &e.x, run_divide);
        release(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

static void what_no_grid_takes_is_refused(void)
{
    dn_cuda_launch launch = {.type = DN_CUDA_F32, .rows = 1};
    dn_cuda_view huge = {.data = &launch, .h = 65536, .w = 65536, .c = 8, .pitch = 8, .row_pitch = 1ull << 35};
    CHECK(dn_cuda_affine(&launch, huge, 1.0f, 0.0f, huge) != DN_CUDA_LAUNCH_OK);
    launch.rows = 0;
    CHECK(dn_cuda_affine(&launch, (dn_cuda_view){.data = &launch, .h = 1, .w = 1, .c = 1, .pitch = 8}, 1.0f, 0.0f,
                         (dn_cuda_view){.data = &launch, .h = 1, .w = 1, .c = 1, .pitch = 8}) != DN_CUDA_LAUNCH_OK);
}

int main(void)
{
    RUN(finish_adds_scales_activates_and_gates);
    RUN(affine_scales_and_shifts);
    RUN(activations_are_the_references);
    RUN(positions_are_added);
    RUN(rows_are_divided_by_their_times);
    RUN(what_no_grid_takes_is_refused);
    return test_end();
}
