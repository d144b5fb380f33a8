/* Gaussian fits and the distance between them: products and eigenvalues by OpenBLAS. Owns nothing beyond a call; any thread. */
#include "evaluate/frechet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/blas.h"

/* Centres the vectors: out [count][dim] in double, mean [dim]. */
static void centre(double *out, double *mean, const float *features, uint32_t count, uint32_t dim)
{
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t i = 0; i < dim; i++)
            mean[i] += (double)features[(size_t)n * dim + i] / count;
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t i = 0; i < dim; i++)
            out[(size_t)n * dim + i] = (double)features[(size_t)n * dim + i] - mean[i];
}

dn_status dn_gaussian_fit(dn_gaussian **out, const float *features, uint32_t count, uint32_t dim, dn_error *error)
{
    if (count < 2 || dim < 1)
        return dn_fail(error, DN_INVALID, "a Gaussian fit needs at least two vectors");
    dn_status status = dn_blas_open(error);
    if (status != DN_OK)
        return status;
    dn_gaussian *g = calloc(1, sizeof *g);
    double *storage = calloc((size_t)dim * (dim + 1), sizeof *storage);
    double *centred = calloc((size_t)count * dim, sizeof *centred);
    if (g == NULL || storage == NULL || centred == NULL) {
        free(g);
        free(storage);
        free(centred);
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    g->dim = dim;
    g->mean = storage;
    g->covariance = storage + dim;
    centre(centred, g->mean, features, count, dim);
    dn_blas_multiply(g->covariance, dim, dim, count, 1.0 / (count - 1), centred, true, centred, false);
    free(centred);
    *out = g;
    return DN_OK;
}

void dn_gaussian_free(dn_gaussian *gaussian)
{
    if (gaussian != NULL)
        free(gaussian->mean);
    free(gaussian);
}

/* root = V sqrt(max(L, 0)) V^T; matrix is destroyed. values: scratch [n], scaled: scratch [n][n]. */
static dn_status square_root(double *root, double *matrix, double *values, double *scaled, uint32_t n, dn_error *error)
{
    dn_status status = dn_blas_symmetric_eigen(values, matrix, n, error);
    if (status != DN_OK)
        return status;
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < n; i++)
            scaled[k * n + i] = sqrt(fmax(values[k], 0.0)) * matrix[k * n + i];
    dn_blas_multiply(root, n, n, n, 1.0, matrix, true, scaled, false);
    return DN_OK;
}

static dn_status all_finite(const dn_gaussian *g, dn_error *error)
{
    size_t square = (size_t)g->dim * g->dim;
    for (size_t i = 0; i < square; i++)
        if (!isfinite(g->covariance[i]) || !isfinite(g->mean[i % g->dim]))
            return dn_fail(error, DN_NUMERIC, "a Gaussian with NaN or infinity has no distance");
    return DN_OK;
}

dn_status dn_frechet_distance(double *out, const dn_gaussian *a, const dn_gaussian *b, dn_error *error)
{
    if (a->dim != b->dim)
        return dn_fail(error, DN_INVALID, "Gaussians of %u and %u dimensions have no distance", a->dim, b->dim);
    dn_status status = all_finite(a, error);
    if (status == DN_OK)
        status = all_finite(b, error);
    if (status == DN_OK)
        status = dn_blas_open(error);
    if (status != DN_OK)
        return status;
    uint32_t n = a->dim;
    size_t square = (size_t)n * n;
    double *scratch = calloc(4 * square + n, sizeof *scratch);
    if (scratch == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    double *root = scratch, *work = scratch + square, *product = work + square, *scaled = product + square, *values = scaled + square;
    memcpy(work, a->covariance, square * sizeof *work);
    status = square_root(root, work, values, scaled, n, error);
    if (status == DN_OK) {
        dn_blas_multiply(work, n, n, n, 1.0, root, false, b->covariance, false);
        dn_blas_multiply(product, n, n, n, 1.0, work, false, root, false);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < i; j++)
                product[i * n + j] = product[j * n + i] = 0.5 * (product[i * n + j] + product[j * n + i]);
        status = dn_blas_symmetric_eigen(values, product, n, error);
    }
    if (status == DN_OK) {
        double distance = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            double difference = a->mean[i] - b->mean[i];
            distance += difference * difference + a->covariance[i * n + i] + b->covariance[i * n + i] - 2.0 * sqrt(fmax(values[i], 0.0));
        }
        *out = fmax(distance, 0.0);
    }
    free(scratch);
    return status;
}
