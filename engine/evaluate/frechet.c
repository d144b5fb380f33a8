/* Gaussian fits and the distance between them. Feature vectors are short (64 numbers), so Jacobi's eigenvalue method is both
 * quick enough and as exact as any. Owns nothing beyond a call; any thread. */
#include "evaluate/frechet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JACOBI_SWEEPS_MAX 60

dn_status dn_gaussian_fit(dn_gaussian **out, const float *features, uint32_t count, uint32_t dim, dn_error *error)
{
    if (count < 2 || dim < 1)
        return dn_fail(error, DN_INVALID, "a Gaussian fit needs at least two vectors");
    dn_gaussian *g = calloc(1, sizeof *g);
    double *storage = calloc((size_t)dim * (dim + 1), sizeof *storage);
    if (g == NULL || storage == NULL) {
        free(g);
        free(storage);
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    g->dim = dim;
    g->mean = storage;
    g->covariance = storage + dim;
    for (uint32_t n = 0; n < count; n++)
        for (uint32_t i = 0; i < dim; i++)
            g->mean[i] += (double)features[(size_t)n * dim + i] / count;
    for (uint32_t n = 0; n < count; n++) {
        const float *row = features + (size_t)n * dim;
        for (uint32_t i = 0; i < dim; i++)
            for (uint32_t j = 0; j <= i; j++)
                g->covariance[(size_t)i * dim + j] += ((double)row[i] - g->mean[i]) * ((double)row[j] - g->mean[j]) / (count - 1);
    }
    for (uint32_t i = 0; i < dim; i++)
        for (uint32_t j = 0; j < i; j++)
            g->covariance[(size_t)j * dim + i] = g->covariance[(size_t)i * dim + j];
    *out = g;
    return DN_OK;
}

void dn_gaussian_free(dn_gaussian *gaussian)
{
    if (gaussian != NULL)
        free(gaussian->mean);
    free(gaussian);
}

/* One rotation that zeroes a[p][q] (Golub and Van Loan, 8.5). */
static void rotate(double *a, double *v, uint32_t n, uint32_t p, uint32_t q)
{
    double apq = a[p * n + q];
    if (apq == 0.0)
        return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    double t = (theta >= 0.0 ? 1.0 : -1.0) / (fabs(theta) + sqrt(theta * theta + 1.0));
    double c = 1.0 / sqrt(t * t + 1.0), s = t * c;
    for (uint32_t i = 0; i < n; i++) {
        double x = a[i * n + p], y = a[i * n + q];
        a[i * n + p] = c * x - s * y;
        a[i * n + q] = s * x + c * y;
    }
    for (uint32_t i = 0; i < n; i++) {
        double x = a[p * n + i], y = a[q * n + i];
        a[p * n + i] = c * x - s * y;
        a[q * n + i] = s * x + c * y;
    }
    for (uint32_t i = 0; i < n; i++) {
        double x = v[i * n + p], y = v[i * n + q];
        v[i * n + p] = c * x - s * y;
        v[i * n + q] = s * x + c * y;
    }
}

dn_status dn_symmetric_eigen(double *values, double *vectors, double *matrix, uint32_t n, dn_error *error)
{
    double total = 0.0;
    memset(vectors, 0, (size_t)n * n * sizeof *vectors);
    for (uint32_t i = 0; i < n; i++)
        vectors[i * n + i] = 1.0;
    for (size_t i = 0; i < (size_t)n * n; i++)
        total += matrix[i] * matrix[i];
    if (!isfinite(total))
        return dn_fail(error, DN_NUMERIC, "a matrix with NaN or infinity has no eigenvalues");
    for (int sweep = 0; sweep < JACOBI_SWEEPS_MAX; sweep++) {
        double off = 0.0;
        for (uint32_t p = 0; p < n; p++)
            for (uint32_t q = p + 1; q < n; q++)
                off += matrix[p * n + q] * matrix[p * n + q];
        if (off <= 1e-30 * total) {
            for (uint32_t i = 0; i < n; i++)
                values[i] = matrix[i * n + i];
            return DN_OK;
        }
        for (uint32_t p = 0; p < n; p++)
            for (uint32_t q = p + 1; q < n; q++)
                rotate(matrix, vectors, n, p, q);
    }
    return dn_fail(error, DN_NUMERIC, "the eigenvalues did not converge in %d sweeps", JACOBI_SWEEPS_MAX);
}

/* root = V sqrt(max(L, 0)) V^T; matrix is destroyed. values: scratch [n], vectors: scratch [n][n]. */
static dn_status square_root(double *root, double *matrix, double *values, double *vectors, uint32_t n, dn_error *error)
{
    dn_status status = dn_symmetric_eigen(values, vectors, matrix, n, error);
    for (uint32_t i = 0; i < n && status == DN_OK; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (uint32_t k = 0; k < n; k++)
                sum += vectors[i * n + k] * sqrt(fmax(values[k], 0.0)) * vectors[j * n + k];
            root[i * n + j] = sum;
        }
    return status;
}

static void multiply(double *out, const double *a, const double *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (uint32_t k = 0; k < n; k++)
                sum += a[i * n + k] * b[k * n + j];
            out[i * n + j] = sum;
        }
}

dn_status dn_frechet_distance(double *out, const dn_gaussian *a, const dn_gaussian *b, dn_error *error)
{
    if (a->dim != b->dim)
        return dn_fail(error, DN_INVALID, "Gaussians of %u and %u dimensions have no distance", a->dim, b->dim);
    uint32_t n = a->dim;
    size_t square = (size_t)n * n;
    double *scratch = calloc(4 * square + n, sizeof *scratch);
    if (scratch == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    double *root = scratch, *work = scratch + square, *product = work + square, *vectors = product + square, *values = vectors + square;
    memcpy(work, a->covariance, square * sizeof *work);
    dn_status status = square_root(root, work, values, vectors, n, error);
    if (status == DN_OK) {
        multiply(work, root, b->covariance, n);
        multiply(product, work, root, n);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < i; j++)
                product[i * n + j] = product[j * n + i] = 0.5 * (product[i * n + j] + product[j * n + i]);
        status = dn_symmetric_eigen(values, vectors, product, n, error);
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
