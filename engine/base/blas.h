/* OpenBLAS for linear algebra in double (evaluation), opened at first use; inference and training run on kernels of our own.
 *
 * Debian's OpenBLAS 0.3.21 takes CPUs younger than itself for old ones (an SSE3 or AVX2 core where AVX-512 is there: two to
 * four times slower), and reads OPENBLAS_CORETYPE only while it is being loaded. So the core type is corrected first, unless
 * the variable is set already, and the library is opened afterwards, with one thread of its own. */
#ifndef DN_BASE_BLAS_H
#define DN_BASE_BLAS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Opens the library once for the process; any thread. DN_UNSUPPORTED with what to install when it is not there. */
dn_status dn_blas_open(dn_error *error);
/* "OpenBLAS 0.3.21, core SkylakeX"; "" before dn_blas_open. For the caller's log. */
const char *dn_blas_describe(void);

/* The functions below need an open library. Matrices are row-major [rows][columns], contiguous. */

/* out[m][n] = alpha * a[m][k] * b[k][n]; transposed: a is stored [k][m], b is stored [n][k]. */
void dn_blas_multiply(double *out, uint32_t m, uint32_t n, uint32_t k, double alpha, const double *a, bool a_transposed, const double *b,
                      bool b_transposed);
/* Eigenvalues ascending; matrix [n][n] (symmetric) is replaced by the orthonormal eigenvectors as rows (LAPACK's dsyev). */
dn_status dn_blas_symmetric_eigen(double *values, double *matrix, uint32_t n, dn_error *error);

#endif
