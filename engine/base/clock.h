/* Two clocks: monotonic for durations and deadlines, wall for what people read. */
#ifndef DN_BASE_CLOCK_H
#define DN_BASE_CLOCK_H

#include <stdint.h>

double dn_now_seconds(void);      /* CLOCK_MONOTONIC */
int64_t dn_wall_ms(void);         /* milliseconds since 1970-01-01 UTC */

#endif
