/* IDX files (MNIST's format), plain or gzip: unsigned bytes of any rank up to 4, and a labelled data set made of two. */
#ifndef DN_FORMAT_IDX_H
#define DN_FORMAT_IDX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dn_dataset {
    uint32_t count, width, height, channels;
    uint32_t class_count;       /* largest label + 1 */
    uint8_t *pixels;            /* [count][height][width][channels] */
    uint8_t *labels;            /* [count] */
} dn_dataset;

typedef enum dn_split { DN_SPLIT_TRAIN, DN_SPLIT_TEST } dn_split;

/* Reads {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] from a folder; pads every picture to pad_to x pad_to with
 * zeros, centred (0: as stored). */
dn_status dn_dataset_open(dn_dataset **out, const char *folder, dn_split split, uint32_t pad_to, dn_error *error);
void dn_dataset_free(dn_dataset *dataset);

#endif
