/* Two sets of feature vectors compared: the distance between their Gaussian fits, and precision and recall by nearest
 * neighbours. In double, on OpenBLAS (base/blas.h); any thread. */
#ifndef DN_EVALUATE_FRECHET_H
#define DN_EVALUATE_FRECHET_H

#include <stdint.h>

#include "base/error.h"

typedef struct dn_gaussian {
    uint32_t dim;
    double *mean; /* [dim] */
    double *covariance; /* [dim][dim], divided by count - 1 */
} dn_gaussian;

/* features: [count][dim], count >= 2. The caller owns *out. */
dn_status dn_gaussian_fit(dn_gaussian **out, const float *features, uint32_t count, uint32_t dim, dn_error *error);
void dn_gaussian_free(dn_gaussian *gaussian); /* accepts NULL */

/* Squared Frechet (2-Wasserstein) distance of two Gaussians, as Heusel et al. 2017 (eq. 6) use it:
 * |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2). */
dn_status dn_frechet_distance(double *out, const dn_gaussian *a, const dn_gaussian *b, dn_error *error);

/* Improved precision and recall (Kynkaanniemi et al. 2019): the share of generated vectors inside the union of balls around
 * real ones, each reaching to its k-th nearest real neighbour, and the other way round. */
typedef struct dn_precision_recall {
    double precision, recall;
} dn_precision_recall;
dn_status dn_precision_recall_of(dn_precision_recall *out, const float *real, uint32_t real_count, const float *generated,
                                 uint32_t generated_count, uint32_t dim, uint32_t k, dn_error *error);

#endif
