/* Which file of a component folder holds its weights. */
#ifndef DN_FORMAT_WEIGHT_FILES_H
#define DN_FORMAT_WEIGHT_FILES_H

#include "base/error.h"

/* path: a component folder, or the file itself. In a folder, the first that is there of diffusion_pytorch_model.safetensors,
 * diffusion_pytorch_model.fp16.safetensors, diffusion_pytorch_model.safetensors.index.json (or .index.fp16.json),
 * diffusion_pytorch_model.bin, diffusion_pytorch_model.bin.index.json and model.safetensors; else the only file that ends in
 * .safetensors, .pt, .pth, .bin or .ckpt: several are refused by name. *out is malloc'd. */
dn_status dn_weight_file_find(char **out, const char *path, dn_error *error);

#endif
