/* Infotext, the text that AUTOMATIC1111 puts into pictures (and this program beside its own): read back, or made of a recipe. Pure; any
 * thread. api/png_metadata.h writes it. */
#ifndef API_INFOTEXT_H
#define API_INFOTEXT_H

/* Its fields as a JSON object of strings, as webui's parse_generation_parameters names them: Prompt, Negative prompt, then the last line's
 * ("Steps", "Sampler", ...), a size in two parts ("Size-1", "Size-2"), "Schedule type" Automatic when it is not told. "{}" for an empty
 * text. Whatever the text is; bytes that are no UTF-8 become U+FFFD. malloc'd; NULL: out of memory. */
char *api_infotext_fields(const char *infotext);

/* The infotext of a picture that has lost it but kept its recipe (the `denoised` text); NULL: that is no recipe. malloc'd. */
char *api_infotext_of_recipe(const char *recipe);

#endif
