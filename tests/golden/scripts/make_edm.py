#!/usr/bin/env python3
"""Makes tests/golden/edm_*: the networks of EDM by NVlabs' own code, in float64, with made weights.

    python3 tests/golden/scripts/make_edm.py NETWORKS.PY tests/golden

NETWORKS.PY is training/networks.py of NVlabs/edm (its licence keeps it out of this repository). case.safetensors holds the
sample, the noise level as the network takes it (log(sigma) / 4), the class (label_dim: none, that is a vector of zeros) and the
network's answer; tensors.json lists the tensors, whose values made_weights.py makes. Beside it one picture by Algorithm 2 of the
paper as generate.py of the same repository runs it without churn: its start (standard normal), its class (2) and its end.
"""
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

import made_weights

torch.set_num_threads(1)
NETWORKS, OUT = sys.argv[1:3]
# The networks only want their pickles to carry their source.
persistence = types.ModuleType("torch_utils.persistence")
persistence.persistent_class = lambda cls: cls
package = types.ModuleType("torch_utils")
package.persistence = persistence
sys.modules["torch_utils"], sys.modules["torch_utils.persistence"] = package, persistence
networks = types.ModuleType("networks")
exec(compile(open(NETWORKS).read(), NETWORKS, "exec"), networks.__dict__)

SONG = dict(img_resolution=16, in_channels=3, out_channels=3, model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[8])
CASES = {
    "edm_ddpmpp": ("SongUNet", dict(SONG, label_dim=10, augment_dim=9), "model."),
    "edm_ncsnpp": ("SongUNet", dict(SONG, label_dim=0, embedding_type="fourier", encoder_type="residual", channel_mult_noise=2,
                                    resample_filter=[1, 3, 3, 1], channel_mult=[1, 2, 2]), ""),
    "edm_skip": ("SongUNet", dict(SONG, label_dim=4, encoder_type="skip", decoder_type="skip", channel_mult=[2, 1, 1],
                                  attn_resolutions=[16, 4]), "model."),
    "edm_residual_box": ("SongUNet", dict(SONG, encoder_type="residual", decoder_type="skip", resample_filter=[1, 1]), ""),
    "edm_adm": ("DhariwalUNet", dict(img_resolution=8, in_channels=3, out_channels=3, label_dim=7, model_channels=32, channel_mult=[1, 4],
                                     channel_mult_emb=2, num_blocks=1, attn_resolutions=[8, 4]), "model."),
}


class Wrapped(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


def make(name, kind, settings, prefix):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    model = getattr(networks, kind)(**settings).eval()
    filters = [key for key in model.state_dict() if key.endswith("resample_filter")]
    whole = Wrapped(model) if prefix else model
    # The names decide the values, so they are made under the names that the file will have.
    listed = made_weights.fill(whole, skip=[prefix + key for key in filters])
    # The filters stand in real files too; nobody reads their values.
    listed += [[prefix + key, list(model.state_dict()[key].shape)] for key in filters]
    made_weights.write_list(os.path.join(folder, "tensors.json"), listed)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(dict(settings, _class_name=kind, sigma_data=0.5), file, indent=2, sort_keys=True)
        file.write("\n")

    rng = np.random.default_rng(300)
    side, classes = settings["img_resolution"], settings.get("label_dim", 0)
    sample = torch.from_numpy(rng.standard_normal((3, 3, side, side)).astype(np.float32))
    noise = torch.tensor([np.log(0.002) / 4, np.log(0.7) / 4, np.log(80.0) / 4], dtype=torch.float32)
    labels = torch.tensor([0, classes - 1, classes])
    one_hot = torch.cat([torch.eye(classes), torch.zeros(1, classes)])[labels].double() if classes else None

    # Frequencies and filters stay what they are; attention's softmax runs in float32 in the original.
    class Exact(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k):
            return torch.einsum("ncq,nck->nqk", q, k / np.sqrt(k.shape[1])).softmax(dim=2)

    networks.AttentionOp = Exact
    with torch.no_grad():
        output = model.double()(sample.double(), exact_noise(model, noise), one_hot)
    case = dict(sample=sample, timestep=noise, output=output)
    if classes:
        case["class_labels"] = labels
    case["pipe_start"] = torch.from_numpy(rng.standard_normal((1, 3, side, side)).astype(np.float32))
    with torch.no_grad():
        case["pipe_end"] = heun(model, case["pipe_start"], torch.eye(classes).double()[2:3] if classes else None)
    save_file({key: value.contiguous() for key, value in case.items()}, os.path.join(folder, "case.safetensors"))
    print(name, sum(p.numel() for p in model.parameters()), float(output.std()), [round(float(o.abs().max()), 3) for o in output])


def heun(model, start, label, steps=18, low=0.002, high=80.0, rho=7.0, data=0.5):
    """Deterministic second-order sampling of EDM, in float64, through EDM's preconditioning."""
    def denoise(x, sigma):
        skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2).sqrt()
        scaled, noise = x / (data**2 + sigma**2).sqrt(), (sigma.log() / 4).reshape(1)
        return skip * x + out * model(scaled, noise, label)

    index = torch.arange(steps, dtype=torch.float64)
    levels = (high ** (1 / rho) + index / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    levels = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
    x = start.double() * levels[0]
    for i in range(steps):
        here, there = levels[i], levels[i + 1]
        slope = (x - denoise(x, here)) / here
        ahead = x + (there - here) * slope
        if there > 0:
            slope = (slope + (ahead - denoise(ahead, there)) / there) / 2
        x = x + (there - here) * slope
    return x


def exact_noise(model, noise):
    """The positional embedding takes its frequencies in float32 whatever its input: replaced by the same formula in float64."""
    def embed(x):
        own = model.map_noise
        half = own.num_channels // 2
        freqs = (1.0 / own.max_positions) ** (torch.arange(half, dtype=torch.float64) / (half - (1 if own.endpoint else 0)))
        angle = x.ger(freqs)
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    if isinstance(model.map_noise, networks.PositionalEmbedding):
        model.map_noise.forward = embed
    return noise.double()


for case_name, (cls, arguments, before) in CASES.items():
    make(case_name, cls, arguments, before)
