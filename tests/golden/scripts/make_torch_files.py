#!/usr/bin/env python3
"""Makes tests/golden/torch: files as torch.save writes them, and the values they hold as one safetensors file.

Run with any torch from 1.13 on (the stored ones are from 1.13.1): make_torch_files.py FOLDER
"""
import argparse
import json
import os
import struct
import sys
from collections import OrderedDict

import torch

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def raw(tensor):
    tensor = tensor.detach().contiguous()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        return tensor.view(torch.int16).numpy().tobytes()
    return tensor.numpy().tobytes()


def save_safetensors(tensors, path):
    header, data = {}, b""
    for name, tensor in tensors.items():
        payload = raw(tensor)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(payload)]}
        data += payload
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def every_kind():
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8 - 1
    whole = torch.tensor([[-3, 0, 7], [100, -100, 1]])
    tensors = OrderedDict((NAMES[t].lower(), (base[:2, :3] if t.is_floating_point else whole).to(t)) for t in NAMES if t != torch.bool)
    tensors["bool"] = whole > 0
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["base"] = base
    tensors["transposed"] = base.t()
    tensors["columns"] = base[:, 1:5:2]
    tensors["rows"] = base[1:3]
    tensors["tied"] = base
    tensors["permuted"] = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5).permute(2, 0, 1)
    tensors["parameter"] = torch.nn.Parameter(torch.tensor([0.5, -0.5]))
    return tensors


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.last = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def training_checkpoint(path):
    """As DiT's train.py stores it: model, ema, opt, args."""
    model, ema = Small(), Small()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.randn(5, 3)).sum().backward()
    opt.step()
    args = argparse.Namespace(model="DiT-XL/2", image_size=256, lr=1e-4, seed=2**63 + 5, flags=[True, None, (1, 2.5)], dtype=torch.float16)
    torch.save({"model": model.state_dict(), "ema": ema.state_dict(), "opt": opt.state_dict(), "args": args}, path)
    return {"ema." + name: value for name, value in ema.state_dict().items()}


def main(folder):
    torch.manual_seed(20)
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)
    tensors = every_kind()
    torch.save(tensors, at("kinds.bin"))
    torch.save(dict(tensors), at("protocol4.pt"), pickle_protocol=4)
    torch.save({"state_dict": tensors}, at("protocol5.ckpt"), pickle_protocol=5)
    save_safetensors(tensors, at("kinds.safetensors"))
    save_safetensors(training_checkpoint(at("training.pt")), at("training_ema.safetensors"))
    torch.save(tensors, at("legacy.pt"), _use_new_zipfile_serialization=False)
    torch.save(Small(), at("module.pt"))
    torch.save([torch.zeros(2)], at("list.pt"))
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), at("script.pt"))


main(sys.argv[1])
