/* The plain reference of the nodes that look at a row's time, its condition, or a pixel's place. Included by reference.inc.c. */

/* sin and cos of position * e^(-ln(max_period) i / (dim/2 - freq_shift)), added with a weight to a vector of zeros. */
static void add_sinusoid(const work *w, double position, double weight)
{
    uint32_t half = w->to.c / 2;
    for (uint32_t i = 0; i < half; i++) {
        double exponent = -log((double)w->node->max_period) * i / ((double)half - (double)w->node->freq_shift);
        double angle = position * exp(exponent);
        w->out[i] += (real)(weight * (w->node->flip_sin_to_cos ? cos(angle) : sin(angle)));
        w->out[half + i] += (real)(weight * (w->node->flip_sin_to_cos ? sin(angle) : cos(angle)));
    }
}

static void run_time_embedding(const work *w)
{
    memset(w->out, 0, w->to.c * sizeof *w->out);
    add_sinusoid(w, w->row->time, 1.0);
}

static void run_class_sinusoid(const work *w)
{
    memset(w->out, 0, w->to.c * sizeof *w->out);
    for (uint32_t i = 0; i < w->row->condition.count; i++) {
        add_sinusoid(w, (double)w->row->condition.classes[i], (double)w->row->condition.weights[i]);
    }
}

static void run_fourier_embedding(const work *w)
{
    uint32_t half = w->to.c / 2;
    double f = w->node->log_time ? log(w->row->time) : w->row->time;
    for (uint32_t i = 0; i < half; i++) {
        double angle = 2.0 * 3.14159265358979323846 * f * (double)w->weight[i];
        w->out[i] = (real)(w->node->flip_sin_to_cos ? cos(angle) : sin(angle));
        w->out[half + i] = (real)(w->node->flip_sin_to_cos ? sin(angle) : cos(angle));
    }
}

static void run_time_table(const work *w)
{
    memcpy(w->out, w->weight + (size_t)w->row->time * w->to.c, w->to.c * sizeof *w->out);
}

static void run_class_embedding(const work *w)
{
    memset(w->out, 0, w->to.c * sizeof *w->out);
    for (uint32_t i = 0; i < w->row->condition.count; i++) {
        const real *line = w->weight + (size_t)w->row->condition.classes[i] * w->to.c;
        for (uint32_t c = 0; c < w->to.c; c++) {
            w->out[c] += (real)w->row->condition.weights[i] * line[c];
        }
    }
}

/* Channel c of the position embedding at (y, x): columns first, then rows; sines, then cosines. */
static real position(const work *w, uint32_t y, uint32_t x, uint32_t c)
{
    uint32_t quarter = w->to.c / 4;
    double place = (c < 2 * quarter ? x : y) / (double)w->node->position_scale;
    double angle = place * pow(10000.0, -(double)(c % quarter) / (double)quarter);
    return (real)(c / quarter % 2 == 0 ? sin(angle) : cos(angle));
}

static void run_position(const work *w)
{
    for (uint32_t y = 0; y < w->to.h; y++) {
        for (uint32_t x = 0; x < w->to.w; x++) {
            size_t pixel = ((size_t)y * w->to.w + x) * w->to.c;
            for (uint32_t c = 0; c < w->to.c; c++) {
                w->out[pixel + c] = w->in[0][pixel + c] + position(w, y, x, c);
            }
        }
    }
}

static void run_divide_by_time(const work *w)
{
    for (size_t i = 0; i < dn_shape_count(w->to); i++) {
        w->out[i] = w->in[0][i] / (real)w->row->time;
    }
}
