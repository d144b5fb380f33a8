/* OpenBLAS as this program opens it: the right core for this CPU, products in every layout, eigenvalues that rebuild their matrix. */
#include "tests/test.h"

#include "base/blas.h"
#include "base/philox.h"

enum { N = 24, M = 5, K = 7 };

static void normals(double *out, size_t count, uint64_t seed)
{
    float values[N * N];
    dn_noise_normal(values, count, 0, seed, DN_STREAM_PROBE, 0);
    for (size_t i = 0; i < count; i++)
        out[i] = (double)values[i];
}

static void it_opens_and_says_what_it_is(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_blas_open(&error), error);
    CHECK_OK(dn_blas_open(&error), error);
    CHECK_MSG(strncmp(dn_blas_describe(), "OpenBLAS 0.", 11) == 0 && strstr(dn_blas_describe(), ", core ") != NULL, "%s",
              dn_blas_describe());
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
        CHECK_MSG(strstr(dn_blas_describe(), "SkylakeX") != NULL || strstr(dn_blas_describe(), "Cooperlake") != NULL, "%s",
                  dn_blas_describe());
#endif
}

static void products_in_every_layout(void)
{
    double a[M * K], b[K * N], at[K * M], bt[N * K], out[M * N];
    normals(a, M * K, 1);
    normals(b, K * N, 2);
    for (int i = 0; i < M * K; i++)
        at[i % K * M + i / K] = a[i];
    for (int i = 0; i < K * N; i++)
        bt[i % N * K + i / N] = b[i];
    for (int layout = 0; layout < 4; layout++) {
        memset(out, 0xff, sizeof out);
        dn_blas_multiply(out, M, N, K, 2.0, layout & 1 ? at : a, layout & 1, layout & 2 ? bt : b, (layout & 2) != 0);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0.0;
                for (int k = 0; k < K; k++)
                    sum += 2.0 * a[i * K + k] * b[k * N + j];
                CHECK_MSG(fabs(out[i * N + j] - sum) < 1e-13, "layout %d at %d,%d: %g not %g", layout, i, j, out[i * N + j], sum);
            }
    }
}

static void eigenvalues_rebuild_the_matrix(void)
{
    double matrix[N * N], kept[N * N], values[N], x[N * N];
    dn_error error = {DN_OK, ""};
    normals(x, N * N, 3);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            kept[i * N + j] = matrix[i * N + j] = x[i * N + j] + x[j * N + i];
    CHECK_OK(dn_blas_symmetric_eigen(values, matrix, N, &error), error);
    for (int i = 0; i < N; i++) {
        CHECK(i == 0 || values[i - 1] <= values[i]);
        for (int j = 0; j < N; j++) {
            double sum = 0.0, dot = 0.0;
            for (int k = 0; k < N; k++) {
                sum += matrix[k * N + i] * values[k] * matrix[k * N + j];
                dot += matrix[i * N + k] * matrix[j * N + k];
            }
            CHECK(fabs(sum - kept[i * N + j]) < 1e-11 && fabs(dot - (i == j)) < 1e-12);
        }
    }
}

int main(void)
{
    /* A core chosen by the environment is left alone; here the choice itself is tested. */
    unsetenv("OPENBLAS_CORETYPE");
    RUN(it_opens_and_says_what_it_is);
    RUN(products_in_every_layout);
    RUN(eigenvalues_rebuild_the_matrix);
    return test_end();
}
