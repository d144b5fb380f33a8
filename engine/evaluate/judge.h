/* The judge: a classifier trained on real pictures, which labels generated ones and gives their feature vectors.
 *
 * Everything it sees is 8-bit pixels [N][H][W][C], real and generated alike. One thread owns a judge. */
#ifndef DN_EVALUATE_JUDGE_H
#define DN_EVALUATE_JUDGE_H

#include <stdbool.h>

#include "base/error.h"
#include "format/idx.h"
#include "model/model.h"

typedef struct dn_judge dn_judge;

/* What the judge says of a set of pictures. Owned by the caller: dn_verdict_free. */
typedef struct dn_verdict {
    uint32_t count, dim, class_count;
    uint8_t *labels; /* [count] the class of the largest logit */
    float *features; /* [count][dim] penultimate */
} dn_verdict;

/* Opens a folder that holds a trained classifier; its shape must be that of the pictures. */
dn_status dn_judge_open(dn_judge **out, const char *folder, unsigned threads, dn_error *error);
/* Takes over a trained model, which it frees in the end (not on failure). */
dn_status dn_judge_from_model(dn_judge **out, dn_model *model, unsigned threads, dn_error *error);
void dn_judge_free(dn_judge *judge); /* accepts NULL */
const dn_model *dn_judge_model(const dn_judge *judge);

dn_status dn_judge_look(dn_verdict **out, dn_judge *judge, const uint8_t *pixels, uint32_t count, dn_error *error);
void dn_verdict_free(dn_verdict *verdict); /* accepts NULL */

/* How many of a set's labels are those wanted, in all and per class: shares from 0 to 1. */
typedef struct dn_agreement {
    double overall;
    uint32_t class_count, worst; /* worst: the class with the lowest share */
    double per_class[256]; /* NAN for a class that was never wanted */
} dn_agreement;
void dn_agreement_of(dn_agreement *out, const dn_verdict *verdict, const uint8_t *wanted);

#endif
