/* Plans by chance: any node over any values that fit it, read again and again, so that every rule about what shares a step or memory
 * meets what it forbids. Drawn from the harness's generator. Single-threaded. */
#ifndef DN_TESTS_CUDA_RANDOM_PLAN_H
#define DN_TESTS_CUDA_RANDOM_PLAN_H

#include "tests/engine/cpu_harness.h"

#define RANDOM_VALUES_MAX 64

typedef struct random_plan {
    dn_plan_builder builder;
    dn_value values[RANDOM_VALUES_MAX];
    uint32_t count, names;
    char name[8][16]; /* the last ones, in a ring */
} random_plan;

static inline dn_shape random_shape(const random_plan *p, dn_value value)
{
    return dn_plan_shape(&p->builder, value);
}

static inline const char *next_name(random_plan *p)
{
    char *name = p->name[p->names % 8];
    snprintf(name, sizeof p->name[0], "n%u", p->names++);
    return name;
}

/* One of the values, the newest more often; DN_NONE: none is a vector (or is a picture) of so many channels (0: any). */
static inline dn_value pick(const random_plan *p, bool vector, uint32_t channels)
{
    for (uint32_t tries = 0; tries < 12; tries++) {
        uint32_t back = draw(0, 1) ? draw(0, p->count < 4 ? p->count - 1 : 3) : draw(0, p->count - 1);
        dn_value value = p->values[p->count - 1 - back];
        dn_shape s = random_shape(p, value);
        if ((s.h == 1 && s.w == 1) == vector && (!channels || s.c == channels))
            return value;
    }
    return DN_NONE;
}

/* Another value of the same shape, or none. */
static inline dn_value pick_like(const random_plan *p, dn_shape shape)
{
    for (uint32_t tries = 0; tries < 8; tries++) {
        dn_value value = p->values[draw(0, p->count - 1)];
        dn_shape s = random_shape(p, value);
        if (s.h == shape.h && s.w == shape.w && s.c == shape.c)
            return value;
    }
    return DN_NONE;
}

/* A vector of so many channels: one that there is, or a new linear node over one of the first two. */
static inline dn_value vector_of(random_plan *p, uint32_t channels)
{
    dn_value found = draw(0, 3) ? DN_NONE : pick(p, true, channels);
    if (found != DN_NONE)
        return found;
    dn_linear_options o = DN_LINEAR_INIT;
    const char *modules[] = {next_name(p)};
    o.modules = modules;
    o.out_channels = channels;
    o.activation = draw(0, 4) ? DN_ACT_NONE : DN_ACT_SILU;
    o.no_bias = draw(0, 5) == 0;
    found = dn_plan_linear(&p->builder, p->values[draw(1, 2)], &o);
    if (p->count < RANDOM_VALUES_MAX && draw(0, 1))
        p->values[p->count++] = found;
    return found;
}

static inline dn_activation pick_activation(void)
{
    return draw(0, 1) ? DN_ACT_NONE : (dn_activation)draw(DN_ACT_NONE, DN_ACT_MISH);
}

static inline uint32_t pick_channels(void)
{
    static const uint32_t channels[] = {4, 8, 12, 16, 24, 6};
    return channels[draw(0, 5)];
}

static inline dn_value add_conv(random_plan *p, dn_value in)
{
    dn_shape s = random_shape(p, in);
    dn_conv_options o = DN_CONV_INIT;
    o.module = next_name(p);
    o.out_channels = draw(0, 1) ? s.c : pick_channels();
    bool whole = draw(0, 3) != 0;
    if (draw(0, 2) == 0) {
        o.kernel = 1;
        o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = whole ? 0 : draw(0, 1);
    }
    if (!whole) {
        o.stride = draw(1, 2);
        o.pad_bottom = draw(0, 2);
        o.pad_left = draw(0, 2);
    }
    o.no_bias = draw(0, 4) == 0;
    if (draw(0, 1))
        o.row_bias = vector_of(p, o.out_channels);
    if (whole && draw(0, 2) == 0)
        o.residual = pick_like(p, (dn_shape){s.h, s.w, o.out_channels});
    o.scale = draw(0, 3) ? 1.0f : 0.75f;
    return dn_plan_conv(&p->builder, in, &o);
}

static inline dn_value add_linear(random_plan *p, dn_value in)
{
    dn_shape s = random_shape(p, in);
    dn_linear_options o = DN_LINEAR_INIT;
    const char *modules[] = {next_name(p)};
    o.modules = modules;
    o.out_channels = draw(0, 1) ? s.c : pick_channels();
    o.no_bias = draw(0, 4) == 0;
    o.activation = pick_activation();
    if (draw(0, 1))
        o.residual = pick_like(p, (dn_shape){s.h, s.w, o.out_channels});
    if (o.residual != DN_NONE && draw(0, 1)) {
        uint32_t before = draw(0, 1) ? 0 : pick_channels();
        o.gate = vector_of(p, before + o.out_channels);
        o.gate_offset = before;
    } else {
        o.scale = draw(0, 3) ? 1.0f : 1.25f;
    }
    return dn_plan_linear(&p->builder, in, &o);
}

static inline dn_value add_norm(random_plan *p, dn_value in)
{
    dn_shape s = random_shape(p, in);
    const char *name = next_name(p);
    if (draw(0, 1)) {
        uint32_t groups = s.c % 4 == 0 ? 4 : s.c % 2 == 0 ? 2 : 1;
        return dn_plan_group_norm(&p->builder, in, name, NULL, groups, 1e-2f, draw(0, 1) ? vector_of(p, 2 * s.c) : DN_NONE,
                                  pick_activation());
    }
    uint32_t more = draw(0, 1) ? s.c : draw(0, 5);
    dn_value modulation = draw(0, 2) ? vector_of(p, s.c + more) : DN_NONE;
    if (modulation == DN_NONE)
        more = 0;
    return dn_plan_layer_norm(&p->builder, in, draw(0, 1) ? name : NULL, name, 1e-2f, modulation, draw(0, more), draw(0, more));
}

static inline dn_value add_small(random_plan *p, dn_value in)
{
    dn_plan_builder *b = &p->builder;
    dn_shape s = random_shape(p, in);
    const char *name = next_name(p);
    dn_value other;
    switch (draw(0, 7)) {
    case 0:
        return dn_plan_affine(b, in, name, 0.5f, 0.25f);
    case 1:
        return dn_plan_activation(b, in, name, (dn_activation)draw(DN_ACT_SILU, DN_ACT_MISH));
    case 2:
        return dn_plan_divide_by_time(b, in, name);
    case 3:
        return s.c % 4 == 0 ? dn_plan_position(b, in, name, 1.5f) : in;
    case 4:
        return s.c % 6 == 0 ? dn_plan_attention(b, in, name, 2) : in;
    case 5:
        if (s.h < 2 || s.w < 2)
            return in;
        return s.h < 4 && s.w < 4 ? dn_plan_upsample_nearest2(b, in, name) : dn_plan_average_pool2(b, in, name);
    case 6:
        return s.h > 2 && s.w > 2 ? dn_plan_fir2(b, in, name, false, draw(0, 2), draw(1, 2)) : dn_plan_global_pool(b, in, name, DN_ACT_SILU);
    default:
        other = pick_like(p, s);
        return s.c <= 16 && other != DN_NONE ? dn_plan_concat(b, in, other, name) : in;
    }
}

/* A vector to begin with. */
static inline dn_value add_vector(random_plan *p)
{
    dn_plan_builder *b = &p->builder;
    const char *name = next_name(p);
    switch (draw(0, 3)) {
    case 0:
        return dn_plan_time_embedding(b, name, 8, 0.0f, draw(0, 1), draw(0, 1) ? 10000.0f : 100.0f);
    case 1:
        return dn_plan_class_embedding(b, name, 9, 16);
    case 2:
        return dn_plan_class_sinusoid(b, name, 9, 8, 0.0f, draw(0, 1), 10000.0f);
    default:
        return dn_plan_fourier_embedding(b, "frequencies", name, 24, draw(0, 1), draw(0, 1));
    }
}

static inline dn_value add_node(random_plan *p, dn_value in)
{
    uint32_t kind = draw(0, 9);
    dn_shape s = random_shape(p, in);
    if (kind < 3 && s.h > 1 && s.w > 1)
        return add_conv(p, in);
    return kind < 6 ? add_linear(p, in) : kind < 8 ? add_norm(p, in) : add_small(p, in);
}

/* NULL: the builder refused, which is a failure of whoever drew it. */
static inline dn_plan *draw_plan(uint32_t nodes, dn_error *error)
{
    random_plan p = {0};
    dn_plan *plan = NULL;
    if (dn_plan_begin(&p.builder, (dn_shape){draw(2, 5), draw(2, 5), draw(1, 4) * 3}, error) != DN_OK)
        return NULL;
    p.values[p.count++] = p.builder.plan->input;
    p.values[p.count++] = add_vector(&p);
    p.values[p.count++] = add_vector(&p);
    for (uint32_t n = 0; n < nodes; n++) {
        dn_value in = pick(&p, draw(0, 2) == 0, 0);
        in = in == DN_NONE ? p.values[p.count - 1] : in;
        dn_value out = add_node(&p, in);
        if (out == in || p.count >= RANDOM_VALUES_MAX)
            continue;
        if (draw(0, 2) == 0)
            out = add_norm(&p, out);
        p.values[p.count < RANDOM_VALUES_MAX ? p.count++ : p.count - 1] = out;
    }
    dn_value output = p.values[draw(0, 2) ? p.count - 1 : draw(1, p.count - 1)];
    return dn_plan_end(&plan, &p.builder, output, error) == DN_OK ? plan : NULL;
}

#endif
