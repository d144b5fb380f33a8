/* The one face of every architecture: a diffusers component folder in, a plan and its weights out.
 *
 * Adding an architecture is one file in this folder (a function that builds a plan from config.json) and one row in
 * the table of model.c. */
#ifndef DN_MODEL_MODEL_H
#define DN_MODEL_MODEL_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "format/tensors.h"
#include "plan/plan.h"

/* How the rows of a plan's weight lie in a checkpoint tensor of another layout. Index i of n: q, k, v = 0, 1, 2 of 3. */
typedef enum dn_layout {
    DN_LAYOUT_PLAIN, /* as they are */
    DN_LAYOUT_ROWS, /* rows [i*R, (i+1)*R) of [n*R,...] (DiT's qkv; guided-diffusion's new attention order) */
    DN_LAYOUT_HEADS_ROWS, /* [heads][n][d]: guided-diffusion's legacy attention order */
    DN_LAYOUT_HEADS_INNER, /* [heads][d][n]: EDM's */
    DN_LAYOUT_TRANSPOSED /* a linear layer over one-hot classes [D,K] as a table [K,D]; rows beyond K are zeros (EDM's null class) */
} dn_layout;

typedef struct dn_source {
    char name[DN_TENSOR_NAME_BYTES_MAX];
    dn_layout layout;
    uint32_t index, count, heads;
    float scale; /* factor; 0 counts as 1 */
    /* DN_LAYOUT_TRANSPOSED: a tensor [D] that is added to every row of the table, the zero ones too, unscaled ("": none). */
    char bias[DN_TENSOR_NAME_BYTES_MAX];
} dn_source;

struct dn_model;
/* Where a part of a plan's weight (named as diffusers would) lies in this model's checkpoint. False: nowhere. */
typedef bool dn_naming(const struct dn_model *model, const char *part, dn_source *out);
/* Whether a checkpoint tensor that no part asks for is known and not needed: stored duplicates, the other half of an autoencoder,
 * what only training needs. */
typedef bool dn_leftover(const struct dn_model *model, const char *tensor);

/* Further names under which diffusers wants a part stored: out is the index-th of them. False: there are no more. */
typedef bool dn_copies(const struct dn_model *model, const char *part, uint32_t index, char out[DN_TENSOR_NAME_BYTES_MAX]);

/* What a network's times and answers mean when no scheduler of the folder says it: formats from before diffusers. */
typedef enum dn_convention {
    DN_CONVENTION_DIFFUSERS, /* the scheduler's configuration says it */
    DN_CONVENTION_GUIDED_DIFFUSION, /* DiT's and ADM's own: discrete VP times, epsilon, learned range where out = 2 in */
    DN_CONVENTION_SIT, /* x_t = t x0 + (1 - t) n, t in [0, 1] unscaled, answer x0 - n */
    DN_CONVENTION_REPA, /* x_t = (1 - t) x0 + t n, t unscaled, answer n - x0 */
    DN_CONVENTION_EDM /* c_skip, c_out, c_in; time = log(sigma) / 4 */
} dn_convention;

#define DN_NULL_ROWS_NONE UINT32_MAX /* null_rows: the format has no null class */

typedef struct dn_model {
    const char *architecture; /* "UNet2DModel" */
    uint32_t width, height, channels; /* of the sample; out_channels of the network's answer (learned variance doubles it) */
    uint32_t out_channels;
    uint32_t class_rows; /* embedding rows, 0: unconditional network */
    dn_plan *plan;
    dn_weights *weights;
    char weights_sha256[65]; /* of the weight files' bytes */
    char config_sha256[65]; /* of the configuration it was opened with, as text without blanks; "" where it was not opened */
    dn_naming *naming; /* NULL: diffusers' names */
    dn_leftover *leftover; /* NULL: none but those that every format may hold */
    dn_copies *copies; /* NULL: every part is stored once */
    dn_convention convention;
    uint32_t guided_channels; /* channels that classifier-free guidance works on by this format's own convention; 0: all */
    uint32_t null_rows; /* the format says which embedding row is the null class: 1 the last one; 0: by count (see DESIGN) */
    bool cosine_schedule; /* guided-diffusion: its times are of the cosine schedule (noise_schedule), not of the linear one */
    bool clips_sample; /* the format's own sampling clips the clean picture it sees to [-1, 1] (guided-diffusion; not DiT's latents) */
    double sigma_data; /* EDM */
    /* AutoencoderKL: latents = (encoded - shift) * scaling */
    double scaling_factor, shift_factor;
    void *private_config; /* of the architecture's file, for its naming; freed by dn_model_free with free() */
} dn_model;

/* What an architecture builds from. */
typedef struct dn_build_input {
    const cJSON *config;
    const char *config_path; /* for messages */
    uint32_t height, width; /* 0: the configuration's sample_size */
    const dn_tensors *tensors; /* the checkpoint, for what only it can tell (shared embedders); NULL: none */
    const char *part; /* of a component that holds several networks (AutoencoderKL: "decoder", "encoder"); NULL: its first */
} dn_build_input;

typedef struct dn_architecture {
    const char *class_name; /* _class_name in config.json */
    /* Fills everything but the weights. height, width: 0 for the configuration's sample_size. Refusals name file and key. */
    dn_status (*build)(dn_model *out, const dn_build_input *input, dn_error *error);
    /* A checkpoint without config.json: a configuration for it (with _class_name), or NULL when it is none of this architecture's.
     * NULL: never without config.json. */
    cJSON *(*recognise)(const dn_tensors *tensors);
} dn_architecture;

const dn_architecture *dn_architecture_find(const char *class_name); /* NULL: unknown */

/* Reads FOLDER/config.json and its weight file (format/weight_files.h says which), strictly: every tensor the plan names must be
 * there with its shape; a tensor the plan does not know is refused too, but for a short list of known leftovers. `folder`
 * may itself be a file of weights, with its config.json beside it. Without a config.json the architectures are asked whether they
 * recognise the tensors; of a training checkpoint "ema." is taken before "model.", "module.", "state_dict." and the like. */
dn_status dn_model_open(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error);
/* One network of a component that holds several (dn_build_input.part: AutoencoderKL's "decoder" or "encoder"). */
dn_status dn_model_open_part(dn_model **out, const char *folder, const char *part, uint32_t height, uint32_t width, dn_error *error);
/* The same as dn_model_open without reading weights: configuration and headers alone, every tensor's name, type and shape checked.
 * weights stays NULL, weights_sha256 empty, and the checksums of a torch file are not looked at. */
dn_status dn_model_describe(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error);
/* What dn_model_open of FOLDER would give as weights_sha256. */
dn_status dn_model_hash_weights(char out[65], const char *folder, dn_error *error);
/* The plan alone, for training from scratch and for inspect. */
dn_status dn_model_from_config(dn_model **out, const cJSON *config, const char *config_path, dn_error *error);
void dn_model_free(dn_model *model);

/* Saves config and weights (F32, F16 or BF16) as a diffusers component folder; each file is written atomically. A model whose format
 * has names of its own is refused: under diffusers' names its configuration would not open. */
dn_status dn_model_save(const dn_model *model, const cJSON *config, const char *folder, int dtype, dn_error *error);

#endif
