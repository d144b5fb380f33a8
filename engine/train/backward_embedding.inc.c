/* Backward of what looks at a row's time, its classes, or a pixel's place: tables learn, the rest passes through. */

static void backward_class_embedding(step *s)
{
    const dn_condition *condition = s->run->condition;
    for (uint32_t i = 0; s->d_weight && condition && i < condition->count; i++) {
        real *line = s->d_weight + (size_t)condition->classes[i] * s->to.c;
        for (uint32_t c = 0; c < s->to.c; c++) {
            line[c] += (real)condition->weights[i] * s->d_out[c];
        }
    }
}

static void backward_time_table(step *s)
{
    if (s->d_weight) {
        add_to(s->d_weight + (size_t)s->run->time * s->to.c, s->d_out, s->to.c);
    }
}

/* d sin(2 pi f w) / dw = 2 pi f cos(2 pi f w), f the time or its logarithm. */
static void backward_fourier_embedding(step *s)
{
    uint32_t half = s->to.c / 2;
    double f = 2.0 * 3.14159265358979323846 * (s->node->log_time ? log(s->run->time) : s->run->time);
    const real *d_sine = s->d_out + (s->node->flip_sin_to_cos ? half : 0), *d_cosine = s->d_out + (s->node->flip_sin_to_cos ? 0 : half);
    for (uint32_t i = 0; s->d_weight && i < half; i++) {
        double angle = f * (double)s->weight[i];
        s->d_weight[i] += (real)(f * (cos(angle) * (double)d_sine[i] - sin(angle) * (double)d_cosine[i]));
    }
}

static void backward_position(step *s)
{
    if (s->d_in[0]) {
        add_to(s->d_in[0], s->d_out, dn_shape_count(s->to));
    }
}

static void backward_divide_by_time(step *s)
{
    size_t count = dn_shape_count(s->to);
    for (size_t i = 0; i < count && s->d_in[0]; i++) {
        s->d_in[0][i] += s->d_out[i] / (real)s->run->time;
    }
}
