/* The coefficients of Dormand and Prince 1980, RK5(4)7M, in the order of its slopes k1 to k7. The fifth-order solution is the last
 * row, so that the last slope of a step is the first of the next. Immutable, any thread. */
#ifndef DN_DIFFUSION_DORMAND_PRINCE_H
#define DN_DIFFUSION_DORMAND_PRINCE_H

#define DN_RK45_STAGES 7

extern const double dn_rk45_node[DN_RK45_STAGES]; /* where slope i is taken, in parts of the step */
extern const double dn_rk45_weight[DN_RK45_STAGES][DN_RK45_STAGES - 1]; /* of slope j in the image where slope i is taken */
extern const double dn_rk45_error[DN_RK45_STAGES]; /* fifth less fourth order */

/* How many times longer the next step may be after one whose error was `norm` tolerances: 0.9 norm^(-1/5) within 0.2 to 10, never
 * longer after a refusal (Hairer, Norsett and Wanner 1993, II.4). */
double dn_rk45_factor(double norm, int refused);

#endif
