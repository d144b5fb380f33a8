/* A GPU orders its threads itself: what tests of kernels ask of the emulated one changes nothing there, but runs everything several times. */
#include "tests/cuda/emulator/schedule.h"

void cuemu_schedule(cuemu_order order)
{
    (void)order;
}
