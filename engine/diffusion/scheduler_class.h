/* The scheduler classes of diffusers 0.31 that describe variance-preserving training, with the defaults of their
 * constructors where these differ. Private to this folder. Immutable, any thread. */
#ifndef DN_DIFFUSION_SCHEDULER_CLASS_H
#define DN_DIFFUSION_SCHEDULER_CLASS_H

#include "diffusion/schedule.h"
#include "model/config_reader.h"

typedef struct dn_scheduler_class {
    const char *name;
    double beta_start, beta_end;
    const char *beta_schedule;
    dn_spacing spacing;
    bool clips; /* has clip_sample; others never clip, whatever their file says */
    bool clip_default;
    bool thresholds; /* has thresholding */
    bool set_alpha_to_one;
} dn_scheduler_class;

/* The row of the configuration's _class_name (DDPMScheduler when there is none). Classes of other kinds of training are
 * refused through the reader. */
dn_status dn_scheduler_class_of(const dn_scheduler_class **out, dn_config_reader *reader);

#endif
