/* The finished (or unfinished) model as an ordinary diffusers folder: model_index.json, unet/, scheduler/, recipe.json. */
#ifndef DN_TRAIN_EXPORT_H
#define DN_TRAIN_EXPORT_H

#include "model/model.h"
#include "train/recipe.h"

/* Each file is written whole or not at all; the weights first, the index last. */
dn_status dn_export_model(const dn_model *model, const dn_weights *weights, const dn_recipe *recipe, const char *folder, dn_error *error);

#endif
