/* Training a class-conditional diffusion network from a recipe and a folder of labelled pictures.
 *
 * Everything is a pure function of (recipe, step): the order of pictures, flips, times, noise and dropped labels come from
 * counter-based random numbers, and gradients are added in a fixed order. So a run that was stopped and resumed ends in the
 * same bytes as one that was not, with any number of threads. One thread calls; the run owns a pool while it lasts. */
#ifndef DN_TRAIN_TRAIN_H
#define DN_TRAIN_TRAIN_H

#include <signal.h>

#include "diffusion/schedule.h"
#include "format/idx.h"
#include "train/input_gradient.h" /* the gradient by a network's input: classifier guidance, likelihoods */
#include "train/recipe.h"

typedef struct dn_train_progress {
    uint64_t step, images, images_total;
    double loss; /* the last batch's */
    double smooth_loss; /* running mean over about 100 batches of this process */
    double learning_rate, gradient_norm;
    double images_per_second; /* of this process */
    double seconds_left;
    bool saved; /* the model folder was written after this step */
    bool samples_due; /* sample_every_images has come round: the folder is fresh, draw from it */
} dn_train_progress;

typedef struct dn_train_options {
    const dn_recipe *recipe;
    const dn_dataset *dataset; /* borrowed; width and height as the network wants them */
    const char *output; /* folder: receives the model, recipe.json and checkpoint/ */
    unsigned threads; /* 0: all available */
    const char *isa; /* NULL: best */
    bool resume; /* go on from OUTPUT/checkpoint; DN_INVALID when it is not this recipe's */
    uint64_t steps_max; /* stop as if cancelled after this many steps of this process; 0: no limit */
    const volatile sig_atomic_t *cancel; /* may be NULL; when not 0 the run ends after its step, with a checkpoint */
    void (*progress)(void *payload, const dn_train_progress *progress); /* after every step; may be NULL */
    void *payload;
} dn_train_options;

/* Leaves a diffusers folder with the averaged weights in OUTPUT. DN_CANCELLED: stopped early, checkpoint written. A recipe of a
 * classifier leaves a component folder with the last weights, and is not resumed. */
dn_status dn_train(const dn_train_options *options, dn_error *error);

/* A classifier by the same machinery: softmax cross-entropy, AdamW, no average. The plan's output is a vector of logits,
 * its input the pictures in [-1, 1], or those noised to a random time that it is told; weights hold the start and receive the
 * result. Without noise the plan's time is 0; it takes no class. progress: images seen, of how many; may be NULL. */
typedef struct dn_classifier_options {
    const dn_plan *plan;
    dn_weights *weights;
    const dn_dataset *dataset;
    const dn_training_schedule *noise; /* sqrt(a) x + sqrt(1 - a) n at uniform times of this table; NULL: clean pictures */
    dn_adamw_options optimizer; /* position and warm-up in images; total is set from epochs */
    uint32_t batch, epochs;
    bool flip;
    uint64_t seed;
    unsigned threads;
    const char *isa;
    const volatile sig_atomic_t *cancel;
    void (*progress)(void *payload, const dn_train_progress *progress);
    void *payload;
} dn_classifier_options;

dn_status dn_train_classifier(const dn_classifier_options *options, dn_error *error);

/* Starting weights, a pure function of the plan and the seed: uniform within 1/sqrt(fan in) as torch's layers, unit norms,
 * standard normal class rows; the output layer and every layer that adds onto a residual start at zero when zero_branches. */
void dn_initialise(const dn_plan *plan, dn_weights *weights, uint64_t seed, bool zero_branches);

#endif
