"""Weights that need not be stored: each is a function of its tensor's name and of its place. tests/engine/made_weights.h makes the same."""
import json

import numpy as np


def made(name, shape):
    """Float32 values, the same bits wherever they are made: integer arithmetic, then one rounding of a double."""
    h = 2166136261
    for byte in name.encode():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    count = int(np.prod(shape))
    z = (np.uint64(h) + np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    z ^= z >> np.uint64(16)
    z = (z * np.uint64(0x85EBCA6B)) & np.uint64(0xFFFFFFFF)
    z ^= z >> np.uint64(13)
    z = (z * np.uint64(0xC2B2AE35)) & np.uint64(0xFFFFFFFF)
    z ^= z >> np.uint64(16)
    u = z.astype(np.float64) / 4294967296.0 - 0.5
    if "freqs" in name or name == "time_proj.weight":
        value = u * 8.0
    elif len(shape) == 1:
        value = u * 0.5 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    else:
        value = u * np.sqrt(12.0 / (count // shape[0]))
    return value.astype(np.float32).reshape(shape)


def fill(model, skip=()):
    """Gives a torch model its made weights; answers the list of (name, shape) for tensors.json."""
    import torch

    listed = []
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in skip:
                continue
            listed.append([name, list(tensor.shape)])
            tensor.copy_(torch.from_numpy(made(name, tuple(tensor.shape))))
    return listed


def write_list(path, listed):
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry) for entry in listed) + "\n]\n")
