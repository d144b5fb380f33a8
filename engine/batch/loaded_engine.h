/* An engine: a model on a device. Any number of threads may read one; it outlives every batch on it. */
#ifndef DN_BATCH_LOADED_ENGINE_H
#define DN_BATCH_LOADED_ENGINE_H

#include "diffusion/guidance.h"
#include "diffusion/sampler.h"
#include "format/model_folder.h"
#include "model/model.h"

#define DN_NUMERICS_VERSION 2 /* raised whenever the same spec would give other bytes */

typedef struct dn_engine_options {
    unsigned threads; /* 0: all available */
    const char *isa; /* NULL: best */
    const char *device; /* a name of backend/devices.h: "cpu", "cuda:1", "auto"; NULL: "cpu" */
    const dn_backend *backend; /* instead: the first device of this one */
    dn_precision precision; /* of the denoiser and its guide; on a CPU autoencoder and classifier are always in fp32 */
    bool fast; /* GPUs: see dn_device_options */
    const char *plan_cache; /* GPUs: folder of plans that were found; NULL: none */
    bool vae_tiling; /* pictures larger than the autoencoder's tile are decoded in tiles: less memory, slightly other pictures */
    bool describe_only; /* no weights are read: everything but the networks (NULL) and the hashes of weights and build (""); no batch on it */
} dn_engine_options;

/* Something that answers rows with the gradient, by the sample, of log p(class | sample, time): classifier guidance. The room that
 * can run plans backward fills it in (dn_engine_set_classifier); an engine has at most one. */
typedef struct dn_gradient {
    void *self;
    uint32_t class_count; /* the classes it knows */
    char weights_sha256[65]; /* as a model's */
    /* For every row: out = d log p(condition.classes[0] | in * in_scale, time) / d (in * in_scale), as floats like the sample's. */
    dn_status (*run)(void *self, dn_row *rows, uint32_t row_count, dn_error *error);
    void (*close)(void *self);
} dn_gradient;

typedef struct dn_engine {
    const dn_backend *backend;
    dn_device *device;
    dn_network *network;
    dn_model *model;
    dn_model_folder *folder;
    dn_training_schedule *training;
    dn_scheduler_config scheduler; /* the folder's */
    dn_model *guide_model; /* autoguidance's second, weaker network; NULL: none */
    dn_network *guide;
    dn_gradient classifier; /* run NULL: none */
    bool vae_tiling; /* as the options said */
    dn_precision precision; /* likewise; auto is settled */
    dn_precision codec_precision; /* of the autoencoder: the engine's on a GPU, fp32 on a CPU */
    bool fast; /* as the options said, on a GPU */
    char *codec_path; /* folder of the autoencoder whose latents the network denoises; NULL: it denoises pixels */
    char codec_sha256[65], codec_config_sha256[65]; /* of the autoencoder's weights and of its configuration; "": none, or not read */
    uint32_t image_width, image_height, image_channels; /* of the pictures */
    uint32_t guidance_methods; /* bit dn_guidance_method: those this engine can follow */
    uint32_t class_count; /* classes a request may name */
    uint32_t null_class; /* row of the null class, DN_NONE: none */
    char default_sampler[32];
    uint32_t default_steps;
    double default_guidance;
    dn_option_field fields[DN_OPT_COUNT]; /* see dn_engine_field_at */
    uint32_t field_count;
    /* "cpu avx512", "cpu avx512 bf16", "cuda sm_90 bf16": stands in pictures, so never the number of threads, nor which of several cards. */
    char device_text[64];
    char gpu[192]; /* card and libraries: "NVIDIA H200, sm_90, cuDNN 9.19.0, cuBLASLt 13.1.0"; "" on a CPU */
    char plan[65]; /* hash of the configurations that a GPU's products were pinned to; "": none, or only described */
    /* Hex sha256 over the sources' hash, numerics version, backend, instruction set, card, libraries and plans, precision, libpng and zlib
     * versions, the configurations of network and scheduler, and the weights of all that helps it: autoencoder, guide, classifier. */
    char build[65];
} dn_engine;

/* All but the classifier: dn_engine_open in engine.h is the whole. FOLDER/guide, where it is, holds autoguidance's network. */
dn_status dn_engine_load(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error);
void dn_engine_close(dn_engine *engine); /* accepts NULL */

/* A class by name: an exact name or one of its comma-separated synonyms, case-insensitive. DN_INVALID lists the indices when
 * several match; the nearest names when none does. */
dn_status dn_engine_find_class(const dn_engine *engine, const char *name, uint32_t *out, dn_error *error);
/* Takes the classifier; before the first batch. One without `run` only says that there is one (an engine that is described). */
void dn_engine_set_classifier(dn_engine *engine, dn_gradient classifier);
/* The options this engine's guidance and conditioning take, in the table's order; NULL past the end. */
const dn_option_field *dn_engine_field_at(const dn_engine *engine, uint32_t index);
/* Whether a sampler can serve this engine's network; a refusal says why not. */
dn_status dn_engine_serves(const dn_engine *engine, const dn_sampler *sampler, dn_error *error);
/* Memory that the engine's networks take, packed; of one opened by describe_only, would take. Workspaces are not in it. */
size_t dn_engine_weight_bytes(const dn_engine *engine);
size_t dn_engine_workspace_bytes(const dn_engine *engine, uint32_t rows); /* of a batch of so many rows, all networks */
size_t dn_engine_condition_bytes(const dn_engine *engine, uint32_t rows); /* of these: vectors kept of times and conditions, at most */
/* Registers of one lane, all touched: at most. Memory of those that its sampler and guidance leave alone is never asked for. */
size_t dn_engine_lane_bytes(const dn_engine *engine);
size_t dn_engine_elements(const dn_engine *engine); /* C*H*W of one image */

#endif
