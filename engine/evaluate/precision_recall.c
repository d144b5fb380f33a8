/* Precision and recall of a generated set by k-nearest-neighbour balls. Quadratic in the number of vectors, which are a few
 * thousand short ones. Owns nothing beyond a call; any thread. */
#include <math.h>
#include <stdlib.h>

#include "evaluate/frechet.h"

#define NEIGHBOURS_MAX 16u

static double squared_distance(const float *a, const float *b, uint32_t dim)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < dim; i++) {
        double difference = (double)a[i] - (double)b[i];
        sum += difference * difference;
    }
    return sum;
}

/* radius[i]: squared distance from vector i to its k-th nearest neighbour in the same set, itself not counted. */
static void ball_radii(double *radius, const float *set, uint32_t count, uint32_t dim, uint32_t k)
{
    for (uint32_t i = 0; i < count; i++) {
        double nearest[NEIGHBOURS_MAX];
        for (uint32_t j = 0; j < k; j++)
            nearest[j] = INFINITY;
        for (uint32_t j = 0; j < count; j++) {
            if (j == i)
                continue;
            double distance = squared_distance(set + (size_t)i * dim, set + (size_t)j * dim, dim);
            for (uint32_t place = 0; place < k; place++) {
                if (distance < nearest[place]) {
                    double pushed = nearest[place];
                    nearest[place] = distance;
                    distance = pushed;
                }
            }
        }
        radius[i] = nearest[k - 1];
    }
}

static double share_inside(const float *points, uint32_t point_count, const float *set, const double *radius, uint32_t count, uint32_t dim)
{
    uint32_t inside = 0;
    for (uint32_t p = 0; p < point_count; p++)
        for (uint32_t i = 0; i < count; i++)
            if (squared_distance(points + (size_t)p * dim, set + (size_t)i * dim, dim) <= radius[i]) {
                inside++;
                break;
            }
    return (double)inside / point_count;
}

dn_status dn_precision_recall_of(dn_precision_recall *out, const float *real, uint32_t real_count, const float *generated,
                                 uint32_t generated_count, uint32_t dim, uint32_t k, dn_error *error)
{
    if (k < 1 || k > NEIGHBOURS_MAX || real_count <= k || generated_count <= k)
        return dn_fail(error, DN_INVALID, "precision and recall need more vectors than neighbours, of which 1 to %u", NEIGHBOURS_MAX);
    double *radius = calloc(real_count > generated_count ? real_count : generated_count, sizeof *radius);
    if (radius == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    ball_radii(radius, real, real_count, dim, k);
    out->precision = share_inside(generated, generated_count, real, radius, real_count, dim);
    ball_radii(radius, generated, generated_count, dim, k);
    out->recall = share_inside(real, real_count, generated, radius, generated_count, dim);
    free(radius);
    return DN_OK;
}
