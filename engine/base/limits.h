/* Every limit of the engine, named, with its unit. Limits of the service live in api/limits.h. */
#ifndef DN_BASE_LIMITS_H
#define DN_BASE_LIMITS_H

#define DN_JSON_DEPTH_MAX 16                           /* nested arrays and objects in any JSON this program reads */
#define DN_CONFIG_BYTES_MAX (4u << 20)                 /* config.json, model_index.json, scheduler_config.json */
#define DN_SAFETENSORS_HEADER_BYTES_MAX (16u << 20)
#define DN_SAFETENSORS_TENSORS_MAX 65536u
#define DN_TENSOR_NAME_BYTES_MAX 512u
#define DN_TENSOR_RANK_MAX 8u
#define DN_WEIGHT_BYTES_MAX (64ull << 30)              /* one weight file */
#define DN_CLASSES_MAX 100000u
#define DN_CLASS_NAME_BYTES_MAX 1024u
#define DN_CHANNELS_MAX 16384u
#define DN_IMAGE_SIDE_MAX 4096u                        /* pixels */
#define DN_PLAN_NODES_MAX 8192u
#define DN_BLOCKS_MAX 16u                              /* down or up blocks of a U-Net */
#define DN_LAYERS_MAX 16u                              /* resnets in one block */
#define DN_STEPS_MAX 1000u                             /* sampler steps of one image */
#define DN_TRAIN_TIMESTEPS_MAX 10000u
#define DN_GUIDANCE_SCALE_MAX 100.0                    /* |s| */
#define DN_CONDITION_CLASSES_MAX 8u                    /* (class, weight) pairs in one condition */
#define DN_CLASS_WEIGHT_MAX 10.0f                     /* of one class of a mixture, either sign */
#define DN_BATCH_ROWS_MAX 128u                         /* rows in one forward pass */
#define DN_LANES_MAX 256u                              /* lanes in one batch */
#define DN_CODEC_WORKSPACE_BYTES_MAX (2ull << 30)      /* activations of a decode; what needs more is decoded in tiles */
#define DN_THREADS_MAX 256u

#endif
