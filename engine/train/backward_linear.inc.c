/* Backward of linear layers: a 1x1 convolution over one row of h * w pixels, with a residual, an activation and a gate.
 *
 * With a gate g and z = x W^T + b: out = residual + g act(z), so d_residual = d_out, d_g = sum over pixels of d_out act(z),
 * d_z = d_out g act'(z). Without: out = act((z + residual) scale). */

/* The sums that the activation saw. They were not kept: they are made again. */
static real *linear_sums(step *s, const real *x, size_t pixels)
{
    const real *residual = s->in[2] ? NULL : s->in[1];
    real *sum = take(s, pixels * s->to.c);
    for (size_t p = 0; p < pixels; p++) {
        for (size_t o = 0; o < s->to.c; o++) {
            vec dot = {0};
            for (size_t c = 0; c < s->stride; c += (size_t)LANES) {
                dot += *(const vec *)(x + p * s->stride + c) * *(const vec *)(s->weight + o * s->stride + c);
            }
            real total = 0;
            for (int i = 0; i < LANES; i++) {
                total += dot[i];
            }
            total += s->bias ? s->bias[o] : 0;
            total += residual ? residual[p * s->to.c + o] : 0;
            sum[p * s->to.c + o] = total * (real)s->node->scale;
        }
    }
    return sum;
}

/* The gradient of z of a gated layer; adds the gate's and the residual's. */
static const real *through_gate(step *s, const real *x, size_t pixels)
{
    const real *gate = s->in[2] + s->node->gate_offset;
    real *d_gate = s->d_in[2] ? s->d_in[2] + s->node->gate_offset : NULL;
    real *sum = linear_sums(s, x, pixels), *d = take(s, pixels * s->to.c);
    for (size_t p = 0; p < pixels; p++) {
        for (size_t o = 0; o < s->to.c; o++) {
            size_t i = p * s->to.c + o;
            if (d_gate) {
                d_gate[o] += s->d_out[i] * (real)dn_activation_value(s->node->activation, (double)sum[i]);
            }
            d[i] = s->d_out[i] * gate[o];
        }
    }
    if (s->d_in[1]) {
        add_to(s->d_in[1], s->d_out, pixels * s->to.c);
    }
    activation_backward(s->node->activation, sum, d, pixels * s->to.c);
    return sum;
}

/* The gradient of z of a layer without a gate; adds the residual's. */
static const real *through_activation(step *s, const real *x, size_t pixels)
{
    const real *d = s->d_out;
    if (s->node->activation != DN_ACT_NONE) {
        real *sum = linear_sums(s, x, pixels);
        activation_backward(s->node->activation, sum, s->d_out, pixels * s->to.c);
        d = sum;
    }
    d = scaled(s, d);
    if (s->d_in[1]) {
        add_to(s->d_in[1], d, dn_shape_count(s->to));
    }
    return d;
}

static void linear_values(step *s, const real *d, size_t pixels)
{
    real *out = s->stride == s->from.c ? s->d_in[0] : take(s, pixels * s->stride);
    if (out != s->d_in[0]) {
        memset(out, 0, pixels * s->stride * sizeof *out);
    }
    run_product(&(product){.a = d,
                           .b = s->weight,
                           .out = out,
                           .rows = 1,
                           .columns = pixels,
                           .a_column = s->to.c,
                           .b_k = s->stride,
                           .out_pixel = s->stride,
                           .kernel = 1,
                           .depth = s->to.c,
                           .width = s->stride});
    for (size_t p = 0; p < pixels && out != s->d_in[0]; p++) {
        add_to(s->d_in[0] + p * s->from.c, out + p * s->stride, s->from.c);
    }
}

/* in: pixels, residual, gate. */
static void backward_linear(step *s)
{
    size_t pixels = (size_t)s->to.h * s->to.w;
    dn_shape line = {1, (uint32_t)pixels, s->from.c};
    const real *x = s->in[0];
    if (s->stride != s->from.c) {
        real *padded = take(s, pixels * s->stride);
        memset(padded, 0, pixels * s->stride * sizeof *padded);
        embed(padded, pixels, s->stride, 0, 0, 1, x, line);
        x = padded;
    }
    const real *d = s->in[2] ? through_gate(s, x, pixels) : through_activation(s, x, pixels);
    if (s->d_bias) {
        add_pixels(s->d_bias, d, pixels, s->to.c);
    }
    if (s->d_weight) {
        run_outer(&(outer){.d = d,
                           .x = x,
                           .w = s->d_weight,
                           .rows = 1,
                           .columns = pixels,
                           .outputs = s->to.c,
                           .x_column = s->stride,
                           .kernel = 1,
                           .width = s->stride});
    }
    if (s->d_in[0]) {
        linear_values(s, d, pixels);
    }
}
