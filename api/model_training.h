/* What a description says of a model's training. Inside api/ only. */
#ifndef API_MODEL_TRAINING_H
#define API_MODEL_TRAINING_H

#include "api/model_description.h"
#include "api/text.h"

/* ,"training":{...}, or nothing where it is not known. */
void api_add_training(api_text *text, const api_model *model);
/* False: it is not what api_add_training wrote. Without one it stays unknown. */
bool api_read_training(api_model *model, const cJSON *root);
void api_free_training(api_model *model);

#endif
