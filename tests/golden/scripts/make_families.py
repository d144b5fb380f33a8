#!/usr/bin/env python3
"""Goldens of the schedulers of EDM, consistency models, variance-exploding training, flow matching and DDIM inversion.

Run with diffusers 0.31, torch and safetensors: OUT=tests/golden/families python3 tests/golden/scripts/make_families.py
The denoiser is exact for data of a mixture of three Gaussians per element, wrapped as each family's network."""
import json
import os

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

OUT = os.environ.get("OUT", "tests/golden/families")
SHAPE = (1, 2, 4, 4)
W = np.array([0.3, 0.5, 0.2])
MU = np.array([-0.8, 0.35, 0.9])
S = np.array([0.15, 0.3, 0.1])


def posterior(y, alpha, sigma):
    """E[x0 | alpha x0 + sigma n = y]."""
    v = alpha * alpha * S * S + sigma * sigma
    d = y[..., None] - alpha * MU
    lp = np.log(W) - 0.5 * np.log(v) - 0.5 * d * d / v
    lp = lp - lp.max(-1, keepdims=True)
    r = np.exp(lp)
    r = r / r.sum(-1, keepdims=True)
    return (r * (MU + alpha * S * S * d / v)).sum(-1)


def answer(s, x, t):
    """The network's answer to (x, t) in float64."""
    c = s.config
    if isinstance(s, diffusers.DDIMInverseScheduler):
        a = float(s.alphas_cumprod[int(t)])
        x0 = posterior(x, np.sqrt(a), np.sqrt(1 - a))
        eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        return eps if c.prediction_type == "epsilon" else np.sqrt(a) * eps - np.sqrt(1 - a) * x0
    if isinstance(s, diffusers.ScoreSdeVeScheduler):
        return (posterior(x, 1.0, t) - x) / (t * t)
    if "FlowMatch" in type(s).__name__:
        b = t / 1000.0
        x0 = posterior(x, 1 - b, b)
        return (x - x0) / b
    sd, consistency = c.sigma_data, isinstance(s, diffusers.CMStochasticIterativeScheduler)
    sigma = np.exp(t / 250.0) if consistency else np.exp(4 * t)
    y = x * np.sqrt(sigma**2 + sd**2)
    part = sigma - c.sigma_min if consistency else sigma
    skip, out = sd**2 / (part**2 + sd**2), part * sd / np.sqrt(sigma**2 + sd**2)
    if not consistency and c.prediction_type == "v_prediction":
        out = -out
    return np.zeros_like(x) if abs(out) < 1e-7 else (posterior(y, 1.0, sigma) - skip * y) / out


class Feed:
    def __init__(self, seed):
        self.rng, self.drawn = np.random.default_rng(seed), []

    def __call__(self, shape, generator=None, device=None, dtype=None, layout=None):
        self.drawn.append(torch.from_numpy(self.rng.standard_normal(tuple(shape)).astype(np.float32)))
        return self.drawn[-1]


def run(cls, config, step, count, seed):
    module = __import__(cls.__module__, fromlist=["x"])
    feed = Feed(seed + 7919)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = feed
    s = cls(**config)
    s.set_timesteps(count)
    if cls is diffusers.ScoreSdeVeScheduler:
        s.set_sigmas(count)
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32))
    x = 0.5 * x if cls is diffusers.DDIMInverseScheduler else x * float(getattr(s, "init_noise_sigma", 1.0))
    r = {k: [] for k in ("timesteps", "x", "model_in", "model_out", "noise", "noise_used")}
    r["x"].append(x)

    def call(t, told, advance):
        nonlocal x
        drawn = len(feed.drawn)
        given = s.scale_model_input(x, t) if hasattr(s, "scale_model_input") else x
        out = torch.from_numpy(answer(s, given.double().numpy(), float(told))).float()
        x = advance(out)
        used = feed.drawn[drawn:]
        for key, value in zip(r, (torch.tensor(float(told)), x, given, out, used[0] if used else torch.zeros(SHAPE), torch.tensor(len(used)))):
            r[key].append(value)

    for i, t in enumerate(s.timesteps):
        if cls is diffusers.ScoreSdeVeScheduler:
            for _ in range(s.config.correct_steps):
                call(t, s.sigmas[i], lambda out: s.step_correct(out, x).prev_sample)
            last = i + 1 == count
            call(t, s.sigmas[i], lambda out: getattr(s.step_pred(out, t, x), "prev_sample_mean" if last else "prev_sample"))
        else:
            call(t, t, lambda out: s.step(out, t, x, **step).prev_sample)
    result = {k: torch.stack(v).float() for k, v in r.items()}
    if hasattr(s, "sigmas"):
        result["sigmas"] = torch.as_tensor(s.discrete_sigmas.flip(0) if cls is diffusers.ScoreSdeVeScheduler else s.sigmas).float()
    assert torch.isfinite(result["x"]).all()
    return result, s


CHURN = dict(s_churn=5.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003)
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
CASES = [
    ("EDMEulerScheduler", "default", {}, {}, (5, 18)),
    ("EDMEulerScheduler", "vpred", dict(prediction_type="v_prediction"), {}, (10,)),
    ("EDMEulerScheduler", "exponential_data1", dict(sigma_schedule="exponential", sigma_data=1.0, sigma_min=0.01, sigma_max=40.0), {}, (10,)),
    ("EDMEulerScheduler", "churn", {}, CHURN, (10,)),
    ("EDMDPMSolverMultistepScheduler", "o1", dict(solver_order=1), {}, (10,)),
    ("EDMDPMSolverMultistepScheduler", "o2", {}, {}, (5, 20)),
    ("EDMDPMSolverMultistepScheduler", "o2_heun", dict(solver_type="heun"), {}, (10,)),
    ("EDMDPMSolverMultistepScheduler", "o3", dict(solver_order=3), {}, (20,)),
    ("EDMDPMSolverMultistepScheduler", "o2_vpred_exponential", dict(prediction_type="v_prediction", sigma_schedule="exponential"), {}, (10,)),
    ("EDMDPMSolverMultistepScheduler", "o2_sde", dict(algorithm_type="sde-dpmsolver++"), {}, (10,)),
    ("DDIMInverseScheduler", "leading", dict(clip_sample=False), {}, (10, 50)),
    ("DDIMInverseScheduler", "sd_offset1", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1, **SD), {}, (20,)),
    ("DDIMInverseScheduler", "trailing_vpred", dict(clip_sample=False, timestep_spacing="trailing", prediction_type="v_prediction"), {}, (15,)),
    ("DDIMInverseScheduler", "clip", {}, {}, (10,)),
    ("CMStochasticIterativeScheduler", "default", {}, {}, (1, 2, 5)),
    ("CMStochasticIterativeScheduler", "noclip", dict(clip_denoised=False, s_noise=0.9), {}, (3, 40)),
    ("ScoreSdeVeScheduler", "default", {}, {}, (10, 25)),
    ("ScoreSdeVeScheduler", "correct2", dict(correct_steps=2, snr=0.1, sigma_max=50.0), {}, (10,)),
    ("FlowMatchHeunDiscreteScheduler", "shift3", dict(shift=3.0), {}, (10,)),
    ("FlowMatchEulerDiscreteScheduler", "shift0.5", dict(shift=0.5), {}, (10,)),
]

files, meta = {}, {}
for index, (name, case, config, step, counts) in enumerate(CASES):
    for count in counts:
        result, s = run(getattr(diffusers, name), config, step, count, 5000 + 10 * index + count)
        for key, value in result.items():
            files.setdefault(name, {})[f"{case}/{count}/{key}"] = value.contiguous()
        kept = {k: v for k, v in dict(s.config).items() if not k.startswith("_")}
        entry = meta.setdefault(name, {}).setdefault(case, {"config": {"_class_name": name, **kept}, "step_kwargs": step, "runs": {}})
        entry["runs"][str(count)] = {"init_noise_sigma": 1.0 if name == "DDIMInverseScheduler" else float(getattr(s, "init_noise_sigma", 1.0))}
os.makedirs(OUT, exist_ok=True)
for name, tensors in files.items():
    save_file(tensors, f"{OUT}/{name}.safetensors", {"diffusers": diffusers.__version__, "format": "pt"})
    with open(f"{OUT}/{name}.json", "w") as out:
        json.dump(meta[name], out, indent=1)
    print(name, os.path.getsize(f"{OUT}/{name}.safetensors"))
