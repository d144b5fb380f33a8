/* exp, log, sine, cosine and arc cosine in double, compiled without fused multiply-add: the same bits on every CPU.
 *
 * Invariant: pure functions of their argument, accurate to about 1e-16 relative (sine, cosine: absolute, |x| < 1e8), which is
 * far below the float that their results are rounded to. Any thread. */
#include "base/math64.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 1.5 * 2^52: adding and subtracting it rounds a double to the nearest integer. */
static const double rounder = 6755399441055744.0;

/* x * 2^n for -1022 <= n <= 1023. */
static double scale_by_power(double x, int n)
{
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return x * power;
}

double dn_exp(double x)
{
    if (!(x > -708.0))
        return isnan(x) ? x : 0.0;
    if (x > 709.0)
        return INFINITY;
    double n = (x * 1.4426950408889634 + rounder) - rounder;
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double sum = 1.0;
    for (int k = 14; k > 0; k--) /* Taylor by Horner: |r| <= 0.35, the next term is under 1e-18 */
        sum = 1.0 + sum * r / k;
    return scale_by_power(sum, (int)n);
}

/* x = m 2^n with m near 1; log m = 2 (s + s^3 / 3 + ...), s = (m - 1) / (m + 1). */
double dn_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int n = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        n++;
    }
    double s = (m - 1.0) / (m + 1.0), square = s * s, sum = 0.0;
    for (int k = 25; k > 0; k -= 2)
        sum = sum * square + 1.0 / k;
    return 2.0 * s * sum + n * 6.93147180559945309417e-01;
}

void dn_sine_cosine(double x, double *sine, double *cosine)
{
    /* Cody and Waite: pi / 2 in three pieces; the first two have 33 bits each, so their products with n are exact. */
    double n = (x * 0.63661977236758134308 + rounder) - rounder;
    double r = ((x - n * 1.57079632673412561417e+00) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21;
    double square = r * r, s = 1.0, c = 1.0;
    for (int k = 18; k > 0; k -= 2) {
        s = 1.0 - s * square / (k * (k + 1));
        c = 1.0 - c * square / (k * (k - 1));
    }
    s *= r;
    switch ((int64_t)n & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
        break;
    }
}

/* Abramowitz and Stegun 4.4.45 (absolute error 7e-5), then twice angle += sin(true - angle), which cubes the error. */
double dn_acos(double x)
{
    double magnitude = x < 0.0 ? -x : x, true_sine = sqrt((1.0 - x) * (1.0 + x));
    double angle = 1.5707288 + magnitude * (-0.2121144 + magnitude * (0.0742610 - 0.0187293 * magnitude));
    angle *= sqrt(1.0 - magnitude);
    if (x < 0.0)
        angle = 3.14159265358979323846 - angle;
    for (int i = 0; i < 2; i++) {
        double sine, cosine;
        dn_sine_cosine(angle, &sine, &cosine);
        angle += true_sine * cosine - x * sine;
    }
    return angle;
}
