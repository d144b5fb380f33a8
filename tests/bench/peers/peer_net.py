"""A diffusers network with the weights of a folder, under the newest diffusers and under one as old as Debian's PyTorch."""
import json
import os
import sys

import diffusers
import torch
from safetensors.torch import load_file


def open_model(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf8") as file:
        config = json.load(file)
    name = config["_class_name"]
    if not hasattr(diffusers, name):  # DiT was Transformer2DModel's once
        name = "Transformer2DModel"
        config["norm_type"] = "ada_norm_zero"
    net = getattr(diffusers, name).from_config(config)
    weights = load_file(os.path.join(folder, "diffusion_pytorch_model.safetensors"))
    assign = {"assign": True} if hasattr(torch, "compile") else {}  # where it can: one copy, and not two for a while
    missing, unknown = net.load_state_dict(weights, strict=False, **assign)
    if missing or unknown:
        sys.exit(f"{folder}: the weights do not fit: missing {missing[:4]}, unknown {unknown[:4]}")
    return net.eval()
