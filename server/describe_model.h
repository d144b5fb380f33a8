/* What a loaded engine is, as a value that outlives it. */
#ifndef DN_SERVER_DESCRIBE_MODEL_H
#define DN_SERVER_DESCRIBE_MODEL_H

#include "api/model_description.h"
#include "batch/loaded_engine.h"

/* name: what requests call the model. *out is the caller's (api_model_free). */
dn_status dn_describe_model(api_model **out, const char *name, const dn_engine *engine, dn_error *error);

#endif
