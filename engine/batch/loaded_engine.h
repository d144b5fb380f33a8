/* An engine: a model on a device. Any number of threads may read one; it outlives every batch on it. */
#ifndef DN_BATCH_LOADED_ENGINE_H
#define DN_BATCH_LOADED_ENGINE_H

#include "diffusion/guidance.h"
#include "diffusion/sampler.h"
#include "format/model_folder.h"
#include "model/model.h"

#define DN_NUMERICS_VERSION 1 /* raised whenever the same spec would give other bytes */

typedef struct dn_engine_options {
    unsigned threads; /* 0: all available */
    const char *isa; /* NULL: best */
} dn_engine_options;

typedef struct dn_engine {
    const dn_backend *backend;
    dn_device *device;
    dn_network *network;
    dn_model *model;
    dn_model_folder *folder;
    dn_training_schedule *training;
    dn_scheduler_config scheduler; /* the folder's */
    uint32_t class_count; /* classes a request may name */
    uint32_t null_class; /* row of the null class, DN_NONE: none */
    char default_sampler[32];
    uint32_t default_steps;
    double default_guidance;
    char device_text[64]; /* "cpu avx512": stands in pictures, so never the number of threads */
    char build[65]; /* hex sha256 over the sources' hash, numerics version, backend, instruction set, libpng and zlib versions */
} dn_engine;

dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error);
void dn_engine_close(dn_engine *engine); /* accepts NULL */

/* A class by name: an exact name or one of its comma-separated synonyms, case-insensitive. DN_INVALID lists the indices when
 * several match; the nearest names when none does. */
dn_status dn_engine_find_class(const dn_engine *engine, const char *name, uint32_t *out, dn_error *error);
size_t dn_engine_lane_bytes(const dn_engine *engine); /* registers of one lane */
size_t dn_engine_elements(const dn_engine *engine); /* C*H*W of one image */

#endif
