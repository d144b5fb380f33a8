/* Distances between Gaussians with a closed form, and precision and recall of sets with a known answer. */
#include "tests/test.h"

#include "base/philox.h"
#include "evaluate/frechet.h"

#define DIM 6
#define COUNT 4000

static float *normals(uint64_t seed, uint32_t count, uint32_t dim)
{
    float *out = malloc((size_t)count * dim * sizeof *out);
    dn_noise_normal(out, (size_t)count * dim, 0, seed, DN_STREAM_PROBE, 0);
    return out;
}

/* Commuting covariances: |m1 - m2|^2 + sum (sqrt(a_i) - sqrt(b_i))^2. */
static void diagonal_gaussians(void)
{
    double ma[DIM], mb[DIM], ca[DIM * DIM] = {0}, cb[DIM * DIM] = {0}, expected = 0.0, distance = 0.0;
    for (int i = 0; i < DIM; i++) {
        double a = 0.5 + i, b = 3.0 / (1 + i);
        ma[i] = i;
        mb[i] = 1.5 * i - 2.0;
        ca[i * DIM + i] = a;
        cb[i * DIM + i] = b;
        expected += pow(ma[i] - mb[i], 2) + pow(sqrt(a) - sqrt(b), 2);
    }
    dn_gaussian a = {DIM, ma, ca}, b = {DIM, mb, cb};
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_frechet_distance(&distance, &a, &b, &error), error);
    CHECK_MSG(fabs(distance - expected) < 1e-10 * expected, "%.15g is not %.15g", distance, expected);
}

/* In two dimensions tr((S1 S2)^1/2) = sqrt(tr(S1 S2) + 2 sqrt(det S1 det S2)), commuting or not. */
static void gaussians_that_do_not_commute(void)
{
    double m[2] = {0.0, 0.0}, sa[4] = {2.0, 0.7, 0.7, 1.0}, sb[4] = {1.0, -0.4, -0.4, 3.0}, distance = 0.0;
    double product = sa[0] * sb[0] + sa[1] * sb[2] + sa[2] * sb[1] + sa[3] * sb[3];
    double determinants = (sa[0] * sa[3] - sa[1] * sa[2]) * (sb[0] * sb[3] - sb[1] * sb[2]);
    double expected = sa[0] + sa[3] + sb[0] + sb[3] - 2.0 * sqrt(product + 2.0 * sqrt(determinants));
    dn_gaussian a = {2, m, sa}, b = {2, m, sb};
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_frechet_distance(&distance, &a, &b, &error), error);
    CHECK_MSG(fabs(distance - expected) < 1e-12, "%.15g is not %.15g", distance, expected);
}

static void a_set_and_itself(void)
{
    dn_gaussian *g = NULL;
    dn_error error = {DN_OK, ""};
    float *x = normals(7, COUNT, DIM);
    CHECK_OK(dn_gaussian_fit(&g, x, COUNT, DIM, &error), error);
    double distance = 1.0;
    CHECK_OK(dn_frechet_distance(&distance, g, g, &error), error);
    dn_gaussian_free(g);
    free(x);
    CHECK_MSG(distance < 1e-9, "%g", distance);
}

/* Moving a set by d adds |d|^2; scaling a standard normal by s gives about DIM (s - 1)^2. */
static void moved_and_scaled_samples(void)
{
    dn_gaussian *a = NULL, *b = NULL, *c = NULL;
    dn_error error = {DN_OK, ""};
    float *x = normals(11, COUNT, DIM), *y = malloc(COUNT * DIM * sizeof *y), *z = malloc(COUNT * DIM * sizeof *z);
    for (int i = 0; i < COUNT * DIM; i++) {
        y[i] = x[i] + 0.5f;
        z[i] = x[i] * 3.0f;
    }
    double moved = 0.0, scaled = 0.0;
    dn_status status = dn_gaussian_fit(&a, x, COUNT, DIM, &error);
    if (status == DN_OK)
        status = dn_gaussian_fit(&b, y, COUNT, DIM, &error);
    if (status == DN_OK)
        status = dn_gaussian_fit(&c, z, COUNT, DIM, &error);
    if (status == DN_OK)
        status = dn_frechet_distance(&moved, a, b, &error);
    if (status == DN_OK)
        status = dn_frechet_distance(&scaled, a, c, &error);
    dn_gaussian_free(a);
    dn_gaussian_free(b);
    dn_gaussian_free(c);
    free(x);
    free(y);
    free(z);
    CHECK_OK(status, error);
    CHECK_MSG(fabs(moved - DIM * 0.25) < 1e-5, "%g", moved);
    CHECK_MSG(fabs(scaled - DIM * 4.0) < 0.05 * DIM * 4.0, "%g", scaled);
}

static void precision_and_recall(void)
{
    dn_precision_recall same = {0.0, 0.0}, apart = {1.0, 1.0}, narrow = {0.0, 0.0};
    dn_error error = {DN_OK, ""};
    float *x = normals(13, 600, 2), *y = normals(14, 600, 2), *far = malloc(1200 * sizeof *far), *few = malloc(1200 * sizeof *few);
    for (int i = 0; i < 1200; i++) {
        far[i] = y[i] + 100.0f;
        few[i] = y[i] * 0.1f;
    }
    dn_status status = dn_precision_recall_of(&same, x, 600, y, 600, 2, 3, &error);
    if (status == DN_OK)
        status = dn_precision_recall_of(&apart, x, 600, far, 600, 2, 3, &error);
    if (status == DN_OK)
        status = dn_precision_recall_of(&narrow, x, 600, few, 600, 2, 3, &error);
    free(x);
    free(y);
    free(far);
    free(few);
    CHECK_OK(status, error);
    CHECK_MSG(same.precision > 0.85 && same.recall > 0.85, "%g %g", same.precision, same.recall);
    CHECK(apart.precision == 0.0 && apart.recall == 0.0);
    CHECK_MSG(narrow.precision > 0.9 && narrow.recall < 0.1, "%g %g", narrow.precision, narrow.recall);
}

static void what_has_no_distance(void)
{
    float x[4] = {0};
    double m[3] = {0}, c[9] = {0}, distance;
    dn_gaussian a = {2, m, c}, b = {3, m, c};
    dn_gaussian *g = NULL;
    dn_error error = {DN_OK, ""};
    CHECK(dn_gaussian_fit(&g, x, 1, 4, &error) == DN_INVALID);
    CHECK(dn_frechet_distance(&distance, &a, &b, &error) == DN_INVALID);
    c[0] = NAN;
    CHECK(dn_frechet_distance(&distance, &a, &a, &error) == DN_NUMERIC);
}

int main(void)
{
    RUN(diagonal_gaussians);
    RUN(gaussians_that_do_not_commute);
    RUN(a_set_and_itself);
    RUN(moved_and_scaled_samples);
    RUN(precision_and_recall);
    RUN(what_has_no_distance);
    return test_end();
}
