/* Pictures drawn from an unfinished model while it trains. Pure but for the file written; any thread. */
#ifndef DN_SERVER_TRAINING_SAMPLES_H
#define DN_SERVER_TRAINING_SAMPLES_H

#include <stdint.h>

#include "base/error.h"

/* Opens the model in FOLDER and writes FOLDER/samples/IMAGES.png: one column a class (at most 16), four rows, the model's
 * own sampler, steps and guidance, the same seeds every time. */
dn_status dn_training_samples(const char *folder, uint64_t images, unsigned threads, dn_error *error);

#endif
