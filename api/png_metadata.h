/* What a PNG says of itself: `parameters` (AUTOMATIC1111's infotext layout) and `denoised` (JSON with all that is needed to
 * make it again: request of this one image, weights hash, numerics version, build). No job id, no time: equal specs give equal files. */
#ifndef API_PNG_METADATA_H
#define API_PNG_METADATA_H

#include "api/generate_request.h"

/* seed: of this image (request seed + index). width/height of the picture. malloc'd. */
char *api_infotext(const api_request *request, const api_model *model, uint64_t seed);
char *api_recipe_json(const api_request *request, const api_model *model, uint64_t seed, const char *pixels_sha256);

#endif
