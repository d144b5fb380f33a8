#!/usr/bin/env python3
"""Makes tests/golden/unet_{adm,learned_time,relu,ncsnpp}: UNet2DModel of diffusers 0.31, torch on one CPU thread, random weights.

    PYTHONPATH=... python3 tests/golden/scripts/make_unets.py tests/golden

As the older unet_* folders: case.safetensors holds inputs, output (float32), output_f64 (the same weights in float64) and
act/MODULE. unet_ncsnpp stores no weights but the list of its tensors: they are made by made_weights.py.
"""
import json
import os
import sys

import numpy as np
import torch
from diffusers import UNet2DModel
from diffusers.models import downsampling, upsampling
from safetensors.torch import save_file

import made_weights

torch.set_num_threads(1)
OUT = sys.argv[1]
BASE = dict(sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4)
CASES = {
    "unet_adm": (200, dict(BASE, num_class_embeds=10, out_channels=6, down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
                           up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), downsample_type="resnet", upsample_type="resnet",
                           resnet_time_scale_shift="scale_shift", attn_norm_num_groups=4, attention_head_dim=8)),
    "unet_learned_time": (210, dict(BASE, time_embedding_type="learned", num_train_timesteps=100, act_fn="mish",
                                    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))),
    "unet_relu": (220, dict(BASE, act_fn="relu", num_class_embeds=5, downsample_padding=0, norm_eps=1e-6, add_attention=False,
                            center_input_sample=True, down_block_types=("UNetResDownBlock2D", "UNetResAttnDownBlock2D"),
                            up_block_types=("UNetResAttnUpBlock2D", "UNetResUpBlock2D"), downsample_type="resnet")),
    "unet_ncsnpp": (230, dict(BASE, sample_size=(16, 8), block_out_channels=(32, 32, 32), norm_num_groups=None, norm_eps=1e-6,
                              time_embedding_type="fourier", mid_block_scale_factor=1.41421356237,
                              attention_head_dim=None, down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
                              up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"))),
}
MODULES = ["time_proj", "time_embedding", "class_embedding", "conv_in", "mid_block.resnets.0", "mid_block.attentions.0", "mid_block",
           "down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1", "down_blocks.0.resnets.0", "down_blocks.1.attentions.0",
           "up_blocks.0.resnets.0", "down_blocks.0.downsamplers.0", "up_blocks.0.upsamplers.0", "down_blocks.0.resnet_down",
           "up_blocks.1.upsampler", "up_blocks.1.attentions.0", "up_blocks.0.resnet_up"]


# diffusers keeps the filter in float32, which the run in float64 cannot take.
filtered = upsampling.upfirdn2d_native
for module in (downsampling, upsampling):
    module.upfirdn2d_native = lambda tensor, kernel, **options: filtered(tensor, kernel.to(tensor.dtype), **options)


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def make(name, seed, config):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(seed)
    model = UNet2DModel(**config).eval()
    if name == "unet_ncsnpp":
        made_weights.write_list(os.path.join(folder, "tensors.json"), made_weights.fill(model))
        model.save_config(folder)
    else:
        generator = torch.Generator().manual_seed(seed + 1)
        for _, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder, safe_serialization=True)

    size = config["sample_size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    sample = random(seed + 2, 3, 3, height, width)
    times = {"learned": torch.tensor([0, 37, 99]), "fourier": torch.tensor([0.5, 3.7, 12.0])}.get(
        config.get("time_embedding_type"), torch.tensor([0, 37, 999]))
    labels = {"class_labels": torch.tensor([0, 3, 4])} if config.get("num_class_embeds") else {}
    acts, hooks, modules = {}, [], dict(model.named_modules())
    for module in MODULES:
        if module in modules:
            def keep(_, __, output, key="act/" + module):
                output = output[0] if isinstance(output, tuple) else output
                acts.setdefault(key, output.detach().clone().contiguous())
            hooks.append(modules[module].register_forward_hook(keep))
    with torch.no_grad():
        output = model(sample, times, **labels).sample
        for hook in hooks:
            hook.remove()
        # GaussianFourierProjection answers in the type of its time.
        exact = model.double()(sample.double(), times.double() if times.is_floating_point() else times, **labels).sample
    case = dict(sample=sample, timestep=times, output=output, output_f64=exact, **labels, **acts)
    save_file({key: value.contiguous() for key, value in case.items()}, os.path.join(folder, "case.safetensors"))
    print(name, sum(p.numel() for p in model.parameters()), float(output.std()), float((output - exact).abs().max()))


for case, (first, settings) in CASES.items():
    make(case, first, settings)
