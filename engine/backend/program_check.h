/* What a register program may say, for every back end: it is checked before anything of it runs. Pure; any thread. */
#ifndef DN_BACKEND_PROGRAM_CHECK_H
#define DN_BACKEND_PROGRAM_CHECK_H

#include "backend/backend.h"

/* count: floats of its buffer. DN_INTERNAL: it names registers that are not there, or wants to hand back scalars to nobody. *scalars: how many
 * it gives. */
dn_status dn_program_check(const dn_program *program, size_t count, uint32_t *scalars, dn_error *error);

#endif
