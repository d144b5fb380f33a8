/* A small picture as a larger one, for clients that expect every picture of a stream to have one size. Pure; any thread. */
#ifndef API_ENLARGE_H
#define API_ENLARGE_H

#include <stddef.h>
#include <stdint.h>

/* The PNG's pixels, each repeated until the picture is width x height: no smoothing, which would cost more than the network's own step.
 * malloc'd, *out_bytes long; NULL: it is no PNG of at most that size, or there is no memory. */
unsigned char *api_enlarge_png(size_t *out_bytes, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height);

#endif
