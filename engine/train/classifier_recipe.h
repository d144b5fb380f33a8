/* Training of a classifier from a recipe that has a "classifier" instead of a "unet": what dn_train does with it. */
#ifndef DN_TRAIN_CLASSIFIER_RECIPE_H
#define DN_TRAIN_CLASSIFIER_RECIPE_H

#include "train/train.h"

/* As dn_train; images become whole epochs, at least one. Keys that only a diffusion network has a use for are passed over. */
dn_status dn_train_classifier_recipe(const dn_train_options *options, dn_error *error);

#endif
