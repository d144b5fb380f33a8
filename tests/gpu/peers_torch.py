"""PyTorch on the same card: DiT-XL/2 and the U-Net of tests/bench/models in plain modules, in bfloat16, eager and compiled (max-autotune, CUDA graphs).

    peers_torch.py [--seconds 100] [--runs 30]

Weights are random: what is measured is time. Prints JSON, one figure a line ({"figure", "value" in ms, "unit", "model", "rows", "form"}), or a skip.
Attention is torch's scaled_dot_product_attention; convolutions run with channels last.
"""
import argparse
import json
import math
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    print(json.dumps({"skip": "PyTorch cannot be imported"}))
    sys.exit(0)

CASES = [("dit_xl_2", (2, 64)), ("unet_15m", (1, 32))]


def sinusoid(time_, dim, period=10000.0):
    half = dim // 2
    angles = time_[:, None].float() * torch.exp(-math.log(period) * torch.arange(half, device=time_.device) / half)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class DiTBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, condition):
        rows, tokens, width = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        y = F.layer_norm(x, (width,), eps=1e-6) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).view(rows, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, tokens, width)
        x = x + gate1 * self.out(y)
        y = F.layer_norm(x, (width,), eps=1e-6) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.gelu(self.up(y), approximate="tanh"))


class DiT(nn.Module):
    shape, classes = (4, 32, 32), 1001

    def __init__(self, width=1152, depth=28, heads=16, patch=2):
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(4, width, patch, patch)
        self.register_buffer("positions", torch.randn(1, (32 // patch) ** 2, width))
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(self.classes, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.modulation, self.last = nn.Linear(width, 2 * width), nn.Linear(width, patch * patch * 8)

    def forward(self, x, time_, label):
        rows, side, p = x.shape[0], x.shape[2] // self.patch, self.patch
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        condition = self.time(sinusoid(time_, 256).to(x.dtype)) + self.label(label)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(F.silu(condition))[:, None].chunk(2, dim=-1)
        x = self.last(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        return x.view(rows, side, side, p, p, 8).permute(0, 5, 1, 3, 2, 4).reshape(rows, 8, side * p, side * p)


class Residual(nn.Module):
    def __init__(self, into, out, condition, groups=32):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, into), nn.Conv2d(into, out, 3, padding=1)
        self.time = nn.Linear(condition, out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x, condition):
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(condition))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    def __init__(self, channels, head=64, groups=32):
        super().__init__()
        self.head, self.norm = head, nn.GroupNorm(groups, channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        rows, channels, h, w = x.shape
        y = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(y).view(rows, h * w, 3, channels // self.head, self.head).permute(2, 0, 3, 1, 4)
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, h * w, channels))
        return x + y.transpose(1, 2).reshape(rows, channels, h, w)


class UNet(nn.Module):
    """Three levels of 64, 128 and 256 channels, two blocks each, attention in the last and in the middle."""
    shape, classes = (3, 32, 32), 11

    def __init__(self, widths=(64, 128, 256), layers=2):
        super().__init__()
        condition = 4 * widths[0]
        self.first = widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], condition), nn.SiLU(), nn.Linear(condition, condition))
        self.label = nn.Embedding(self.classes, condition)
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down, self.up, self.smaller, self.larger = nn.ModuleList(), nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        skips, now = [widths[0]], widths[0]
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            for _ in range(layers):
                self.down.append(nn.ModuleList([Residual(now, width, condition), Attention(width) if last else nn.Identity()]))
                now = width
                skips.append(now)
            if not last:
                self.smaller.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.middle = nn.ModuleList([Residual(now, now, condition), Attention(now), Residual(now, now, condition)])
        for level, width in enumerate(reversed(widths)):
            for _ in range(layers + 1):
                self.up.append(nn.ModuleList([Residual(now + skips.pop(), width, condition), Attention(width) if level == 0 else nn.Identity()]))
                now = width
            if level < len(widths) - 1:
                self.larger.append(nn.Conv2d(now, now, 3, padding=1))
        self.norm, self.last, self.layers = nn.GroupNorm(32, now), nn.Conv2d(now, 3, 3, padding=1), layers

    def forward(self, x, time_, label):
        condition = self.time(sinusoid(time_, self.first).to(x.dtype)) + self.label(label)
        x = self.stem(x)
        skips = [x]
        for number, (block, attention) in enumerate(self.down):
            x = attention(block(x, condition))
            skips.append(x)
            if (number + 1) % self.layers == 0 and number // self.layers < len(self.smaller):
                x = self.smaller[number // self.layers](x)
                skips.append(x)
        x = self.middle[2](self.middle[1](self.middle[0](x, condition)), condition)
        for number, (block, attention) in enumerate(self.up):
            x = attention(block(torch.cat([x, skips.pop()], dim=1), condition))
            if (number + 1) % (self.layers + 1) == 0 and number // (self.layers + 1) < len(self.larger):
                x = self.larger[number // (self.layers + 1)](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(x)))


def inputs(net, rows):
    device = next(net.parameters()).device
    x = torch.randn(rows, *net.shape, device=device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=torch.channels_last) if isinstance(net, UNet) else x
    return x, torch.linspace(1, 900, rows, device=device), torch.arange(rows, device=device) % net.classes


def median_ms(call, given, runs):
    took = []
    for number in range(runs + 5):
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begun.record()
        call(*given)
        ended.record()
        ended.synchronize()
        if number >= 5:
            took.append(begun.elapsed_time(ended))
    return statistics.median(took)


def measure(name, rows, form, net, runs):
    began = time.monotonic()
    call = net if form == "eager" else torch.compile(net, mode="max-autotune", dynamic=False)
    ms = median_ms(call, inputs(net, rows), runs)
    print(json.dumps({"figure": f"PyTorch {form}, {name} rows {rows}", "value": ms, "unit": "ms", "model": name, "rows": rows, "form": form,
                      "seconds": time.monotonic() - began}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(json.dumps({"skip": "PyTorch sees no CUDA device"}))
        return
    end = time.monotonic() + options.seconds
    nets = {"dit_xl_2": DiT, "unet_15m": UNet}
    with torch.inference_mode():
        for form in ("eager", "compiled"):
            for name, batches in CASES:
                net = nets[name]().to("cuda", torch.bfloat16).eval()
                net = net.to(memory_format=torch.channels_last) if name.startswith("unet") else net
                for rows in batches:
                    if time.monotonic() > end:
                        print(json.dumps({"note": f"the time was over before PyTorch {form}, {name} rows {rows}"}), flush=True)
                        continue
                    measure(name, rows, form, net, options.runs)
                torch._dynamo.reset()
                del net


main()
