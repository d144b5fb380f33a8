/* The gradient of log p(class | sample, time) by the sample: what classifier guidance adds to a denoiser's answer (Dhariwal and
 * Nichol 2021, section 4.1). A classifier folder in, a dn_gradient for dn_engine_set_classifier out. */
#ifndef DN_TRAIN_CLASSIFIER_GRADIENT_H
#define DN_TRAIN_CLASSIFIER_GRADIENT_H

#include "batch/loaded_engine.h"

/* folder: a noise-aware DenoisedClassifier of the engine's samples, trained with the engine's noise schedule. options: as the
 * engine's; described only, it is looked at and not loaded. The engine's device is borrowed until the gradient is closed. */
dn_status dn_classifier_gradient_open(dn_gradient *out, const char *folder, const dn_engine *engine, const dn_engine_options *options,
                                      dn_error *error);

#endif
