/* exp, log, sine, cosine and arc cosine in double by our own polynomials, without fused multiply-add: the C library's differ between CPUs
 * in the last bit. Pure functions; accurate to about 1e-16 relative (sine, cosine: absolute, |x| < 1e8). */
#ifndef DN_BASE_MATH64_H
#define DN_BASE_MATH64_H

double dn_exp(double x);
double dn_log(double x);  /* x positive and normal */
double dn_acos(double x); /* x in [-1, 1] */
void dn_sine_cosine(double x, double *sine, double *cosine);

#endif
