/* The coefficients of RK5(4)7M, and its step control; see dormand_prince.h. Immutable, any thread. */
#include "diffusion/dormand_prince.h"

#include <math.h>

const double dn_rk45_node[DN_RK45_STAGES] = {0.0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1.0, 1.0};

const double dn_rk45_weight[DN_RK45_STAGES][DN_RK45_STAGES - 1] = {
    {0.0},
    {1.0 / 5},
    {3.0 / 40, 9.0 / 40},
    {44.0 / 45, -56.0 / 15, 32.0 / 9},
    {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
    {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
    {35.0 / 384, 0.0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
};

const double dn_rk45_error[DN_RK45_STAGES] = {71.0 / 57600, 0.0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525, -1.0 / 40};

double dn_rk45_factor(double norm, int refused)
{
    double factor = isfinite(norm) ? fmin(fmax(0.9 * pow(fmax(norm, 1e-30), -0.2), 0.2), 10.0) : 0.2;
    return refused ? fmin(factor, 1.0) : factor;
}
