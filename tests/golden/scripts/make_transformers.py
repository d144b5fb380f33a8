#!/usr/bin/env python3
"""Makes tests/golden/{dit_variant,dit_original,sit_original,vae_variant,vae_4lvl_tiled}: DiTTransformer2DModel and AutoencoderKL of
diffusers 0.31 away from their defaults, facebookresearch/DiT and willisma/SiT by their own code, and a tiled decode; in float64.

    python3 tests/golden/scripts/make_transformers.py DIT/models.py SIT/models.py tests/golden

The originals import three layers of timm; they are given here, as their papers describe them. Weights are made (made_weights.py),
but for the tiled decode, which is vae_4lvl's.
"""
import importlib.util
import json
import os
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

import made_weights

torch.set_num_threads(1)
DIT, SIT, OUT = sys.argv[1:4]


class PatchEmbed(torch.nn.Module):
    def __init__(self, side, patch, channels, width, bias=True):
        super().__init__()
        self.patch_size = (patch, patch)
        self.num_patches = (side // patch) ** 2
        self.proj = torch.nn.Conv2d(channels, width, patch, patch, bias=bias)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(torch.nn.Module):
    def __init__(self, width, num_heads, qkv_bias=False):
        super().__init__()
        self.heads = num_heads
        self.qkv = torch.nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = torch.nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5, dim=-1)
        return self.proj((scores @ v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(torch.nn.Module):
    def __init__(self, in_features, hidden_features, act_layer, drop):
        super().__init__()
        self.fc1 = torch.nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = torch.nn.Linear(hidden_features, in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class TanhGelu(torch.nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def original(path):
    for name in ("timm", "timm.models", "timm.models.vision_transformer"):
        sys.modules[name] = types.ModuleType(name)
    for layer in (PatchEmbed, Attention, Mlp):
        setattr(sys.modules["timm.models.vision_transformer"], layer.__name__, layer)
    spec = importlib.util.spec_from_file_location("models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TimestepEmbedder.timestep_embedding = staticmethod(exact_embedding)
    return module


def exact_embedding(t, dim, max_period=10000):
    half = dim // 2
    angle = t[:, None].double() * torch.exp(-np.log(max_period) * torch.arange(half, dtype=torch.float64) / half)[None]
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


def randoms(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def write(name, config, model, case, skip=()):
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    with torch.no_grad():
        listed = made_weights.fill(model, skip) if model is not None else None
        answers = case(model.double() if model is not None else None)
    if listed:
        made_weights.write_list(os.path.join(folder, "tensors.json"), listed)
    if config:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file, indent=2, sort_keys=True)
            file.write("\n")
    save_file({key: value.contiguous() for key, value in answers.items()}, os.path.join(folder, "case.safetensors"))
    print(name, {key: (tuple(value.shape), round(float(value.double().std()), 4)) for key, value in answers.items()})


def make_original(name, path, class_name, times):
    module = original(path)
    module.nn.GELU = lambda approximate: TanhGelu()  # torch 1.12 and later agree with it
    shape = dict(input_size=8, patch_size=2, in_channels=4, hidden_size=48, depth=2, num_heads=4, num_classes=5)
    model = getattr(module, class_name)(**shape).eval()

    def case(net):
        sample, labels = randoms(410, 3, 4, 8, 8), torch.tensor([0, 4, 5])
        output = net(sample.double(), torch.tensor(times, dtype=torch.float64), labels)
        return dict(sample=sample, timestep=torch.tensor(times), class_labels=labels, output=output)

    write(name, dict(shape, _class_name=class_name), model, case, skip=("pos_embed",))


def make_dit_variant():
    from diffusers import DiTTransformer2DModel
    from diffusers.models import embeddings

    config = dict(num_attention_heads=4, attention_head_dim=12, in_channels=3, out_channels=6, num_layers=3, attention_bias=False,
                  sample_size=16, patch_size=4, activation_fn="gelu", num_embeds_ada_norm=7, norm_elementwise_affine=True, norm_eps=1e-3)
    model = DiTTransformer2DModel(**config).eval()

    def exact(timesteps, dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
        half = dim // 2
        angle = timesteps[:, None].double() * torch.exp(
            -np.log(max_period) * torch.arange(half, dtype=torch.float64) / (half - downscale_freq_shift))[None] * scale
        parts = [torch.sin(angle), torch.cos(angle)]
        return torch.cat(parts[::-1] if flip_sin_to_cos else parts, dim=-1)

    embeddings.get_timestep_embedding = exact

    def case(net):
        sample, large, labels = randoms(420, 2, 3, 16, 16), randoms(421, 2, 3, 32, 32), torch.tensor([6, 7])
        times = torch.tensor([37.0, 801.5])
        run = lambda x: net(x.double(), timestep=times.double(), class_labels=labels).sample  # noqa: E731
        return dict(sample=sample, sample_large=large, timestep=times, class_labels=labels, output=run(sample), output_large=run(large))

    write("dit_variant", dict(config, _class_name="DiTTransformer2DModel"), model, case, skip=("pos_embed.pos_embed",))


def make_vaes():
    from diffusers import AutoencoderKL

    config = dict(block_out_channels=[8, 16, 24], down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3,
                  layers_per_block=1, norm_num_groups=8, latent_channels=6, act_fn="mish", scaling_factor=0.3611, shift_factor=0.1159,
                  use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, sample_size=16)

    def case(net):
        latent, image = randoms(430, 1, 6, 3, 5), randoms(431, 1, 3, 12, 20)
        moments = net.encode(image.double()).latent_dist
        return dict(latent=latent, image=image, decoded=net.decode(latent.double()).sample, enc_mean=moments.mean, enc_logvar=moments.logvar)

    write("vae_variant", dict(config, _class_name="AutoencoderKL"), AutoencoderKL(**config).eval(), case)

    whole = AutoencoderKL.from_pretrained(os.path.join(OUT, "vae_4lvl")).eval().double()
    whole.enable_tiling()

    def tiled(_):
        latent = randoms(440, 1, 4, 7, 6)
        return dict(latent=latent, decoded=whole.decode(latent.double()).sample.float())

    write("vae_4lvl_tiled", None, None, tiled)


make_dit_variant()
make_vaes()
make_original("dit_original", DIT, "DiT", [0.0, 37.0, 999.0])
make_original("sit_original", SIT, "SiT", [0.0, 0.37, 1.0])
