/* AUTOMATIC1111's options (GET and POST /sdapi/v1/options, and override_settings): those that clients are known to read and send. One can
 * be set, sd_model_checkpoint; of the others some change nothing here, and some must have the value that GET shows. Pure; any thread. */
#ifndef API_SDAPI_OPTIONS_H
#define API_SDAPI_OPTIONS_H

#include "api/model_description.h"
#include "api/sdapi_fields.h"

/* Whether an option may be set to this value; sd_model_checkpoint is judged by whoever knows the models. Refuses at PREFIX/NAME. */
bool api_sdapi_option_accepted(const cJSON *item, const char *prefix, api_sdapi_refusal *refusal);

/* A model's title is "fashion-mnist [0123456789]", its name alone before it has been loaded for the first time (model NULL: nothing is known
 * of it); until then the hash in a title is not looked at. Whether text is its title, its name, or its weights' hash, whole or the first ten
 * digits. */
bool api_sdapi_model_is(const char *name, const api_model *model, const char *text);

/* The body of GET /sdapi/v1/options for a client whose model this is. malloc'd. */
char *api_sdapi_options_body(const char *name, const api_model *model);
/* One element of GET /sdapi/v1/sd-models. */
void api_sdapi_add_model(api_text *text, const char *name, const api_model *model);

#endif
