/* A small convolutional classifier as a plan: what judges generated pictures in evaluate/, and, where its configuration says
 * "noise_aware", what guides by its gradient. Pure; any thread. */
#ifndef DN_MODEL_CLASSIFIER_H
#define DN_MODEL_CLASSIFIER_H

#include <cjson/cJSON.h>

#include "model/model.h"

#define DN_CLASSIFIER_CLASS "DenoisedClassifier"

/* The architecture table's entry. Answers are a vector of num_classes logits. */
dn_status dn_classifier_build(dn_model *out, const dn_build_input *input, dn_error *error);

/* The penultimate vector of a classifier's plan, or DN_NONE when it is no classifier. */
dn_value dn_classifier_features(const dn_plan *plan);

/* Whether a classifier's plan reads a time: "noise_aware". */
bool dn_classifier_knows_noise(const dn_plan *plan);

/* A configuration for pictures of this shape; the caller owns it (cJSON_Delete), NULL when out of memory. */
cJSON *dn_classifier_config(uint32_t height, uint32_t width, uint32_t channels, uint32_t class_count);

#endif
