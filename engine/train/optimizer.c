/* AdamW and the running average, tensor by tensor over the pool; see optimizer.h. */
#include "train/optimizer.h"

#include <math.h>
#include <stdlib.h>

typedef struct update {
    dn_adamw *optimizer;
    dn_weights *weights, *gradient;
    double *squares; /* per tensor */
    double factor; /* of the gradient, from clipping */
    double rate;
    double correction1, correction2;
} update;

dn_status dn_adamw_create(dn_adamw **out, const dn_plan *plan, const dn_adamw_options *options, dn_error *error)
{
    dn_adamw *o = calloc(1, sizeof *o);
    if (!o) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the optimizer");
    }
    o->plan = plan;
    o->options = *options;
    dn_status status = dn_weights_create(&o->first, plan, error);
    if (status == DN_OK) {
        status = dn_weights_create(&o->second, plan, error);
    }
    if (status != DN_OK) {
        dn_adamw_free(o);
        return status;
    }
    *out = o;
    return DN_OK;
}

void dn_adamw_free(dn_adamw *optimizer)
{
    if (optimizer) {
        dn_weights_free(optimizer->first);
        dn_weights_free(optimizer->second);
        free(optimizer);
    }
}

double dn_adamw_rate(const dn_adamw_options *options, double position)
{
    double rate = options->learning_rate;
    if (position < options->warmup) {
        return rate * (position + 1) / (options->warmup + 1);
    }
    if (options->cosine && options->total > options->warmup) {
        double done = (position - options->warmup) / (options->total - options->warmup);
        rate *= 0.5 * (1 + cos(3.14159265358979323846 * (done > 1 ? 1 : done)));
    }
    return rate;
}

static void square(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    update *u = payload;
    const float *g = u->gradient->data[index];
    double sum = 0;
    for (uint64_t i = 0; i < u->optimizer->plan->weights[index].count; i++) {
        sum += (double)g[i] * (double)g[i];
    }
    u->squares[index] = sum;
}

static void step_tensor(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const update *u = payload;
    const dn_adamw_options *o = &u->optimizer->options;
    const dn_weight_info *info = &u->optimizer->plan->weights[index];
    float *restrict w = u->weights->data[index], *restrict g = u->gradient->data[index];
    float *restrict first = u->optimizer->first->data[index], *restrict second = u->optimizer->second->data[index];
    float b1 = (float)o->beta1, b2 = (float)o->beta2, epsilon = (float)o->epsilon, factor = (float)u->factor;
    float keep = (float)(1 - (info->rank > 1 ? u->rate * o->weight_decay : 0));
    float rate = (float)(u->rate / u->correction1), inverse2 = (float)(1 / u->correction2);
    for (uint64_t i = 0; i < info->count; i++) {
        g[i] *= factor;
        first[i] = b1 * first[i] + (1 - b1) * g[i];
        second[i] = b2 * second[i] + (1 - b2) * g[i] * g[i];
        w[i] = keep * w[i] - rate * first[i] / (sqrtf(second[i] * inverse2) + epsilon);
    }
}

dn_status dn_adamw_step(dn_adamw *optimizer, dn_pool *pool, dn_weights *weights, dn_weights *gradient, uint64_t step, double position,
                        double *norm, dn_error *error)
{
    const dn_adamw_options *o = &optimizer->options;
    uint32_t count = optimizer->plan->weight_count;
    update u = {.optimizer = optimizer, .weights = weights, .gradient = gradient, .factor = 1};
    u.squares = calloc(count ? count : 1, sizeof *u.squares);
    if (!u.squares) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the gradient's norms");
    }
    dn_pool_run(pool, count, square, &u);
    double total = 0;
    for (uint32_t w = 0; w < count; w++) {
        total += u.squares[w];
    }
    free(u.squares);
    total = sqrt(total);
    if (!isfinite(total)) {
        return dn_fail(error, DN_NUMERIC, "the gradient of step %llu is not finite", (unsigned long long)step);
    }
    if (norm) {
        *norm = total;
    }
    if (o->clip > 0 && total > o->clip) {
        u.factor = o->clip / total;
    }
    u.rate = dn_adamw_rate(o, position);
    u.correction1 = 1 - pow(o->beta1, (double)step);
    u.correction2 = 1 - pow(o->beta2, (double)step);
    dn_pool_run(pool, count, step_tensor, &u);
    return DN_OK;
}

typedef struct averaging {
    const dn_plan *plan;
    dn_weights *average;
    const dn_weights *weights;
    float share;
} averaging;

static void average_tensor(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const averaging *a = payload;
    float *restrict average = a->average->data[index];
    const float *restrict w = a->weights->data[index];
    for (uint64_t i = 0; i < a->plan->weights[index].count; i++) {
        average[i] += a->share * (w[i] - average[i]);
    }
}

void dn_average_step(dn_pool *pool, const dn_plan *plan, dn_weights *average, const dn_weights *weights, double decay, uint64_t step)
{
    double early = (1.0 + (double)step) / (10.0 + (double)step);
    averaging a = {plan, average, weights, (float)(1 - (decay < early ? decay : early))};
    dn_pool_run(pool, plan->weight_count, average_tensor, &a);
}
