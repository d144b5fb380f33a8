/* OpenBLAS, opened late (blas.h). The table of functions is written once under pthread_once and read-only afterwards. */
#include "base/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CBLAS_ROW_MAJOR 101
#define CBLAS_AS_IS 111
#define CBLAS_TRANSPOSED 112

typedef void gemm_function(int order, int transpose_a, int transpose_b, int m, int n, int k, double alpha, const double *a, int lda,
                           const double *b, int ldb, double beta, double *c, int ldc);
typedef void syev_function(const char *job, const char *triangle, const int *n, double *a, const int *lda, double *values, double *work,
                           const int *work_count, int *info, size_t job_length, size_t triangle_length);

static struct {
    gemm_function *gemm;
    syev_function *syev;
    char description[128];
    char failure[256];
} blas;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The core whose kernels suit this CPU, or NULL to leave the library to itself. */
static const char *core_type(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        return "SkylakeX";
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return "Haswell";
    }
#endif
    return NULL;
}

/* dlsym gives an object pointer; POSIX lets it hold a function's address. */
static void find(void *library, const char *name, void *function, size_t size)
{
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, size);
}

static void open_library(void)
{
    void (*set_threads)(int) = NULL;
    char *(*core_name)(void) = NULL;
    char *(*config)(void) = NULL;
    if (core_type() != NULL) {
        setenv("OPENBLAS_CORETYPE", core_type(), 0);
    }
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(blas.failure, sizeof blas.failure, "libopenblas.so.0 cannot be opened; install Debian's libopenblas0-pthread");
        return;
    }
    find(library, "cblas_dgemm", &blas.gemm, sizeof blas.gemm);
    find(library, "dsyev_", &blas.syev, sizeof blas.syev);
    find(library, "openblas_set_num_threads", &set_threads, sizeof set_threads);
    find(library, "openblas_get_corename", &core_name, sizeof core_name);
    find(library, "openblas_get_config", &config, sizeof config);
    if (blas.gemm == NULL || blas.syev == NULL || set_threads == NULL || core_name == NULL || config == NULL) {
        snprintf(blas.failure, sizeof blas.failure, "libopenblas.so.0 lacks cblas_dgemm or dsyev: another build of it is needed");
        return;
    }
    set_threads(1);
    /* The configuration begins "OpenBLAS 0.3.21 ...". */
    const char *text = config();
    size_t words = strcspn(text, " ");
    words += text[words] == ' ' ? 1 + strcspn(text + words + 1, " ") : 0;
    snprintf(blas.description, sizeof blas.description, "%.*s, core %s", (int)words, text, core_name());
}

dn_status dn_blas_open(dn_error *error)
{
    pthread_once(&once, open_library);
    return blas.failure[0] == '\0' ? DN_OK : dn_fail(error, DN_UNSUPPORTED, "%s", blas.failure);
}

const char *dn_blas_describe(void)
{
    return blas.description;
}

void dn_blas_multiply(double *out, uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, bool a_transposed, const double *b,
                      bool b_transposed)
{
    blas.gemm(CBLAS_ROW_MAJOR, a_transposed ? CBLAS_TRANSPOSED : CBLAS_AS_IS, b_transposed ? CBLAS_TRANSPOSED : CBLAS_AS_IS, (int)m, (int)n,
              (int)k, alpha, a, (int)(a_transposed ? m : k), b, (int)(b_transposed ? k : n), 0.0, out, (int)n);
}

dn_status dn_blas_symmetric_eigen(double *values, double *matrix, uint32_t n, dn_error *error)
{
    int size = (int)n, info = 0, work_count = -1;
    double best = 0.0;
    blas.syev("V", "U", &size, matrix, &size, values, &best, &work_count, &info, 1, 1);
    work_count = (int)best;
    double *work = info == 0 && work_count > 0 ? malloc((size_t)work_count * sizeof *work) : NULL;
    if (work == NULL) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    blas.syev("V", "U", &size, matrix, &size, values, work, &work_count, &info, 1, 1);
    free(work);
    return info == 0 ? DN_OK : dn_fail(error, DN_NUMERIC, "the eigenvalues did not converge (dsyev: %d)", info);
}
