/* The register operations that need a sum over whole registers: norms, angles, standard deviations, projections.
 *
 * Invariant: sums run in double in the order of the elements, results are computed in double and rounded once, without fused
 * multiply-add and without the C library's functions but the square root, so that every CPU gives the same bytes. Any thread. */
#include <math.h>

#include "backend/cpu/program.h"

static double dot(const float *a, const float *b, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double length(const float *x, size_t count)
{
    return sqrt(dot(x, x, count));
}

/* dst = a x + b y. */
static void combine(float *dst, const float *x, const float *y, size_t count, double a, double b)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)(a * (double)x[i] + b * (double)y[i]);
}

double dn_cpu_op_norm(const dn_program *program, const dn_op *op)
{
    const float *src = dn_cpu_register(program, op->src[0]);
    return sqrt(dot(src, src, program->elements) / (double)program->elements);
}

double dn_cpu_op_error_norm(const dn_program *program, const dn_op *op)
{
    const float *difference = dn_cpu_register(program, op->src[0]);
    const float *a = dn_cpu_register(program, op->src[1]), *b = dn_cpu_register(program, op->src[2]);
    double sum = 0.0;
    for (size_t i = 0; i < program->elements; i++) {
        double size_a = fabs((double)a[i]), size_b = fabs((double)b[i]);
        double e = (double)difference[i] / ((double)op->low + (double)op->ratio * (size_b < size_a ? size_a : size_b));
        sum += e * e;
    }
    return sqrt(sum / (double)program->elements);
}

/* Spherical interpolation (Shoemake 1985); nearly parallel or opposite registers, and zeros, are interpolated linearly. */
void dn_cpu_op_slerp(const dn_program *program, const dn_op *op)
{
    size_t count = program->elements;
    const float *x = dn_cpu_register(program, op->src[0]), *y = dn_cpu_register(program, op->src[1]);
    double t = (double)op->ratio, lengths = length(x, count) * length(y, count);
    double cosine = lengths > 0.0 ? dot(x, y, count) / lengths : 1.0;
    cosine = cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine;
    double sine = sqrt((1.0 - cosine) * (1.0 + cosine)), a = 1.0 - t, b = t, unused;
    if (sine >= 1e-4) {
        double angle = dn_acos(cosine);
        dn_sine_cosine((1.0 - t) * angle, &a, &unused);
        dn_sine_cosine(t * angle, &b, &unused);
        a /= sine;
        b /= sine;
    }
    combine(dn_cpu_register(program, op->dst), x, y, count, a, b);
}

/* Unbiased, around the mean. */
static double standard_deviation(const float *x, size_t count)
{
    double mean = 0.0, sum = 0.0;
    for (size_t i = 0; i < count; i++)
        mean += (double)x[i];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++)
        sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    return count > 1 ? sqrt(sum / (double)(count - 1)) : 0.0;
}

/* Guidance rescale (Lin et al. 2023, section 3.4). A constant register has no deviation to match and stays. */
void dn_cpu_op_match_std(const dn_program *program, const dn_op *op)
{
    size_t count = program->elements;
    float *dst = dn_cpu_register(program, op->dst);
    const float *src = dn_cpu_register(program, op->src[0]);
    double wanted = standard_deviation(dn_cpu_register(program, op->src[1]), count), have = standard_deviation(src, count);
    double ratio = (double)op->ratio, factor = have == 0.0 ? 1.0 : ratio * (wanted / have) + (1.0 - ratio);
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)(factor * (double)src[i]);
}

/* Sadat et al. 2024, "Eliminating Oversaturation", algorithm 1: the part along src[1] weighs `ratio`. */
void dn_cpu_op_project(const dn_program *program, const dn_op *op)
{
    size_t count = program->elements;
    const float *x = dn_cpu_register(program, op->src[0]), *y = dn_cpu_register(program, op->src[1]);
    double bound = (double)op->low, size = length(x, count), square = dot(y, y, count);
    double scale = bound > 0.0 && size > bound ? bound / size : 1.0;
    double along = square > 0.0 ? scale * dot(x, y, count) / square : 0.0;
    combine(dn_cpu_register(program, op->dst), x, y, count, scale, ((double)op->ratio - 1.0) * along);
}

/* A score of zero points nowhere: no step. */
void dn_cpu_op_langevin(const dn_program *program, const dn_op *op)
{
    size_t count = program->elements;
    float *dst = dn_cpu_register(program, op->dst);
    const float *x = dn_cpu_register(program, op->src[0]), *score = dn_cpu_register(program, op->src[1]);
    const float *noise = dn_cpu_register(program, op->src[2]);
    double size = length(score, count), ratio = size > 0.0 ? (double)op->ratio * length(noise, count) / size : 0.0;
    double step = 2.0 * (double)op->low * ratio * ratio, spread = sqrt(2.0 * step);
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)((double)x[i] + step * (double)score[i] + spread * (double)noise[i]);
}
