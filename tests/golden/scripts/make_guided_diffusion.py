#!/usr/bin/env python3
"""Makes tests/golden/guided_diffusion_*: the U-Net of openai/guided-diffusion by its own code, in float64, with made weights.

    python3 tests/golden/scripts/make_guided_diffusion.py CHECKOUT tests/golden

case.safetensors holds sample, timestep, class_labels and output; tensors.json lists the tensors under the original's names.
With classes also one picture of the original's sampling loop, ten respaced steps, learned variance, clipped: its start, the noises
of its steps, its class (3), and its end on the linear and on the cosine schedule.
"""
import json
import math
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

import made_weights

torch.set_num_threads(1)
CHECKOUT, OUT = sys.argv[1:3]
sys.path.insert(0, CHECKOUT)
from guided_diffusion import gaussian_diffusion, nn, script_util, unet  # noqa: E402

nn.GroupNorm32.forward = torch.nn.GroupNorm.forward  # without its detour over float32


def exact_embedding(timesteps, dim, max_period=10000):
    half = dim // 2
    angle = timesteps[:, None].double() * torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float64) / half)[None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


unet.timestep_embedding = exact_embedding
BASE = dict(image_size=16, num_channels=32, num_res_blocks=1, in_channels=3)
CASES = {
    "guided_diffusion_legacy": dict(BASE, channel_mult="1,2", attention_resolutions="8", num_head_channels=16, learn_sigma=True,
                                    class_cond=True, num_classes=5, resblock_updown=True, use_scale_shift_norm=True),
    "guided_diffusion_new": dict(BASE, channel_mult="2,1,1", attention_resolutions="16,4", num_heads=2, num_heads_upsample=4,
                                 num_res_blocks=2, use_scale_shift_norm=False, use_new_attention_order=True),
}


def sample_loop(model, start, noises, schedule):
    diffusion = script_util.create_gaussian_diffusion(steps=1000, learn_sigma=True, noise_schedule=schedule, timestep_respacing="10")
    left = list(noises)
    gaussian_diffusion.th.randn_like = lambda x: left.pop(0)[None].to(x.dtype)
    return diffusion.p_sample_loop(model, tuple(start.shape), noise=start.double(), clip_denoised=True, model_kwargs=dict(y=torch.tensor([3])),
                                   device="cpu")


def make(name, config):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    classes = config.get("num_classes")
    channels = config["in_channels"]
    model = unet.UNetModel(
        image_size=config["image_size"], in_channels=channels, model_channels=config["num_channels"],
        out_channels=channels * (2 if config.get("learn_sigma") else 1), num_res_blocks=config["num_res_blocks"],
        attention_resolutions=tuple(config["image_size"] // int(side) for side in config["attention_resolutions"].split(",")),
        channel_mult=tuple(int(m) for m in config["channel_mult"].split(",")), num_classes=classes,
        num_heads=config.get("num_heads", 4), num_head_channels=config.get("num_head_channels", -1),
        num_heads_upsample=config.get("num_heads_upsample", -1), use_scale_shift_norm=config["use_scale_shift_norm"],
        resblock_updown=config.get("resblock_updown", False),
        use_new_attention_order=config.get("use_new_attention_order", False)).eval()
    made_weights.write_list(os.path.join(folder, "tensors.json"), made_weights.fill(model))
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(dict(config, _class_name="GuidedDiffusionUNet"), file, indent=2, sort_keys=True)
        file.write("\n")
    side = config["image_size"]
    sample = torch.from_numpy(np.random.default_rng(310).standard_normal((3, channels, side, side)).astype(np.float32))
    times, labels = torch.tensor([0, 37, 999]), torch.tensor([0, 2, 4])
    model.dtype = torch.float64
    with torch.no_grad():
        output = model.double()(sample.double(), times, labels if classes else None)
    case = dict(sample=sample, timestep=times, output=output)
    if classes:
        case["class_labels"] = labels
        rng = np.random.default_rng(320)
        case["pipe_start"] = torch.from_numpy(rng.standard_normal((1, channels, side, side)).astype(np.float32))
        case["pipe_noise"] = torch.from_numpy(rng.standard_normal((10, channels, side, side)).astype(np.float32))
        for schedule in ("linear", "cosine"):
            case["pipe_end_" + schedule] = sample_loop(model, case["pipe_start"], case["pipe_noise"], schedule)
    save_file({key: value.contiguous() for key, value in case.items()}, os.path.join(folder, "case.safetensors"))
    print(name, sum(p.numel() for p in model.parameters()), float(output.std()), [round(float(o.abs().max()), 3) for o in output])


for case_name, settings in CASES.items():
    make(case_name, settings)
