/* See picture_file.h. */
#include "server/picture_file.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/png_metadata.h"
#include "base/sha256.h"
#include "format/png_image.h"

dn_status picture_file_make(picture_file *out, const api_request *request, const api_model *model, uint64_t seed, const uint8_t *pixels,
                            dn_error *error)
{
    char hex[DN_SHA256_HEX_BYTES];
    dn_sha256_of(out->pixels_sha256, pixels, (size_t)model->width * model->height * model->channels);
    dn_sha256_hex(hex, out->pixels_sha256);
    char *infotext = api_infotext(request, model, seed);
    char *recipe = api_recipe_json(request, model, seed, hex);
    const dn_png_text texts[] = {{"parameters", infotext}, {"denoised", recipe}};
    dn_status status = infotext && recipe ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for the picture's text");
    if (status == DN_OK)
        status = dn_png_encode(&out->png, &out->png_bytes, pixels, model->width, model->height, model->channels, texts, 2, error);
    free(infotext);
    free(recipe);
    if (status == DN_OK)
        dn_sha256_of(out->sha256, out->png, out->png_bytes);
    return status;
}

dn_lane_spec picture_spec(const api_request *request, uint64_t seed, const float *init, const float *mask)
{
    dn_lane_spec spec = {.seed = seed,
                         .has_class = request->has_class,
                         .class_index = request->class_index,
                         .has_negative = request->has_negative,
                         .negative_class = request->negative.index,
                         .guidance_scale = request->guidance_scale,
                         .steps = request->steps,
                         .options = request->options,
                         .has_variation = request->has_variation,
                         .variation_seed = request->variation_seed,
                         .init = init,
                         .mask = mask};
    spec.mixture.count = request->mixture_count;
    for (uint32_t i = 0; i < request->mixture_count; i++) {
        spec.mixture.classes[i] = request->mixture[i].label.index;
        spec.mixture.weights[i] = (float)request->mixture[i].weight;
    }
    snprintf(spec.sampler, sizeof spec.sampler, "%s", request->sampler);
    return spec;
}
