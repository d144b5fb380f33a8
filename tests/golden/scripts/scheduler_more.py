#!/usr/bin/env python3
"""Makes tests/golden/schedulers_more: scheduler classes and cases beyond tests/golden/schedulers, in the same form.

    scheduler_more.py TARGET      (with diffusers 0.31.0, torch, safetensors and scipy; torchsde is not needed)

For each case and number of steps: timesteps, sigmas, the start (x[0]), model_in, model_out and x of every call, the normals that were
drawn in it, and the final image of the same run in float64. The json has the largest distance of the two runs at the end (gap) and
anywhere (steps_gap). The denoiser is the closed form of the tests: a mixture of three Gaussians
per element. DPMSolverSDEScheduler's Brownian tree is replaced by two normals a step, put together by the lengths of the path's parts."""
import importlib, json, math, os, sys, types

import numpy as np
import torch

import diffusers

sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers import scheduling_dpmsolver_sde
from safetensors.torch import save_file

diffusers.DPMSolverSDEScheduler = scheduling_dpmsolver_sde.DPMSolverSDEScheduler
TARGET = sys.argv[1]
SHAPE = (1, 2, 4, 4)
WEIGHT, MEAN, SPREAD = np.array([0.3, 0.5, 0.2]), np.array([-0.8, 0.35, 0.9]), np.array([0.15, 0.3, 0.1])
LINEAR = dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
SCALED = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
torch.set_num_threads(1)


def bar_at(time, bars):
    low = min(max(int(np.floor(time)), 0), len(bars) - 1)
    part = time - low
    if part == 0:
        return bars[low]
    sigma = np.sqrt((1 - bars) / bars)
    return 1.0 / (1.0 + ((1 - part) * sigma[low] + part * sigma[min(low + 1, len(bars) - 1)]) ** 2)


def denoise(x, bar, prediction, learned):
    x64 = x.double().numpy()
    v = bar * SPREAD * SPREAD + 1 - bar
    d = x64[..., None] - np.sqrt(bar) * MEAN
    log_p = np.log(WEIGHT) - 0.5 * np.log(v) - 0.5 * d * d / v
    r = np.exp(log_p - log_p.max(-1, keepdims=True))
    r = r / r.sum(-1, keepdims=True)
    eps = np.sqrt(1 - bar) * (r * d / v).sum(-1)
    x0 = (r * (MEAN + np.sqrt(bar) * SPREAD * SPREAD * d / v)).sum(-1)
    out = {"epsilon": eps, "sample": x0, "v_prediction": np.sqrt(bar) * eps - np.sqrt(1 - bar) * x0}[prediction]
    if learned:
        out = np.concatenate([out, 0.5 * eps / (1 + np.abs(eps))], 1)
    return torch.from_numpy(out).to(x.dtype)


class Feed:
    """Normals, each kept."""

    def __init__(self, seed):
        self.rng, self.used = np.random.default_rng(seed), []

    def __call__(self, shape, generator=None, device=None, dtype=None, layout=None):
        normals = torch.from_numpy(self.rng.standard_normal(tuple(shape)).astype(np.float32))
        self.used.append(normals)
        return normals.to(dtype or torch.float32)


class Path:
    """The Brownian path of one step: first from sigma to the middle, then from sigma to the next level."""

    def __init__(self, feed):
        self.feed, self.first = feed, None

    def __call__(self, sigma, sigma_next):
        normals = self.feed(SHAPE, dtype=torch.float64)
        if self.first is None:
            self.first = (normals, float(sigma_next))
            return normals.to(self.dtype)
        first, middle = self.first
        self.first = None
        sigma, to = float(sigma), float(sigma_next)
        return ((math.sqrt(sigma - middle) * first + math.sqrt(middle - to) * normals) / math.sqrt(sigma - to)).to(self.dtype)


class Double(types.ModuleType):
    """A module whose float32 is float64."""

    def __init__(self, module):
        super().__init__(module.__name__)
        self.__dict__["module"] = module

    def __getattr__(self, name):
        return self.module.float64 if name == "float32" else getattr(self.module, name)


def trajectory(cls, config, kwargs, steps, seed, double):
    module = importlib.import_module(getattr(diffusers, cls).__module__)
    kept = {name: module.__dict__[name] for name in ("torch", "np", "randn_tensor") if name in module.__dict__}
    feed, dtype = Feed(seed + 7919), torch.float64 if double else torch.float32
    try:
        if "randn_tensor" in kept:
            module.randn_tensor = feed
        if double:
            module.torch, module.np = Double(torch), Double(np)
        scheduler = getattr(diffusers, cls)(**config)
        scheduler.set_timesteps(steps)
        if cls == "DPMSolverSDEScheduler":
            path = Path(feed)
            path.dtype = dtype
            scheduler.noise_sampler = path
        bars = scheduler.alphas_cumprod.double().numpy() if hasattr(scheduler, "alphas_cumprod") else None
        scale = torch.as_tensor(getattr(scheduler, "init_noise_sigma", 1.0), dtype=dtype)
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)).to(dtype) * scale
        prediction = scheduler.config.get("prediction_type", "v_prediction")
        learned = scheduler.config.get("variance_type") in ("learned", "learned_range") and cls == "DDPMScheduler"
        xs, inputs, answers, noises, drawn = [x], [], [], [], []
        for i, time in enumerate(scheduler.timesteps):
            before = len(feed.used)
            given = scheduler.scale_model_input(x, time)
            bar = float(scheduler.alphas[i].double()) ** 2 if bars is None else bar_at(float(time), bars)
            answer = denoise(given, bar, prediction, learned)
            x = scheduler.step(answer, time, x, **kwargs).prev_sample
            used = feed.used[before:]
            assert len(used) <= 1 and x.dtype == dtype, (len(used), x.dtype)
            drawn.append(len(used)), noises.append(used[0] if used else torch.zeros(SHAPE))
            xs.append(x), inputs.append(given), answers.append(answer)
        out = dict(timesteps=torch.tensor([float(t) for t in scheduler.timesteps]), init_noise_sigma=scale.float().reshape(1),
                   x=torch.stack(xs), model_in=torch.stack(inputs), model_out=torch.stack(answers))
        if any(drawn):
            out["noise"] = torch.stack(noises)
        if cls == "IPNDMScheduler":
            out["alphas"], out["sigmas"] = scheduler.alphas.double(), scheduler.betas.double()
        elif hasattr(scheduler, "sigmas"):
            out["sigmas"] = scheduler.sigmas
        return out, scheduler
    finally:
        module.__dict__.update(kept)


CASES = []


def case(cls, name, config=None, base=LINEAR, kwargs=None, steps=(10, 20)):
    CASES.append((cls, name, {**base, **(config or {})}, kwargs or {}, steps))


def list_cases():
    for predictor, corrector in ((1, 1), (2, 2), (3, 2), (3, 4), (1, 3)):
        case("SASolverScheduler", f"p{predictor}_c{corrector}", dict(predictor_order=predictor, corrector_order=corrector))
    case("SASolverScheduler", "noise", dict(algorithm_type="noise_prediction"))
    case("SASolverScheduler", "nolof", dict(lower_order_final=False, predictor_order=3, corrector_order=3))
    case("SASolverScheduler", "karras_sd", dict(use_karras_sigmas=True), SCALED)
    case("SASolverScheduler", "leading_vpred", dict(timestep_spacing="leading", steps_offset=1, prediction_type="v_prediction"), SCALED)
    case("LCMScheduler", "default", base=SCALED, steps=(1, 4, 8))
    case("LCMScheduler", "teacher20_clip", dict(original_inference_steps=20, clip_sample=True, timestep_scaling=1.0), SCALED, steps=(4, 7))
    case("LCMScheduler", "vpred_threshold", dict(prediction_type="v_prediction", thresholding=True, sample_max_value=1.5), SCALED, steps=(4,))
    case("TCDScheduler", "default", base=SCALED, steps=(4, 8))
    case("TCDScheduler", "eta0", base=SCALED, kwargs=dict(eta=0.0), steps=(4,))
    case("TCDScheduler", "eta1_vpred", dict(prediction_type="v_prediction"), SCALED, kwargs=dict(eta=1.0), steps=(4,))
    case("KDPM2DiscreteScheduler", "lin"), case("KDPM2DiscreteScheduler", "sd_karras", dict(use_karras_sigmas=True), SCALED)
    case("KDPM2DiscreteScheduler", "sd_trailing_vpred", dict(timestep_spacing="trailing", prediction_type="v_prediction"), SCALED)
    case("KDPM2AncestralDiscreteScheduler", "sd", base=SCALED)
    case("KDPM2AncestralDiscreteScheduler", "lin_karras", dict(use_karras_sigmas=True))
    case("KDPM2AncestralDiscreteScheduler", "sd_leading", dict(timestep_spacing="leading", steps_offset=1), SCALED)
    case("DPMSolverSDEScheduler", "sd", base=SCALED), case("DPMSolverSDEScheduler", "lin_karras", dict(use_karras_sigmas=True))
    case("DPMSolverSDEScheduler", "snoise_vpred", dict(prediction_type="v_prediction"), SCALED, kwargs=dict(s_noise=0.9))
    case("IPNDMScheduler", "default", base={})
    for solver in ("bh1", "bh2"):
        for order in (2, 3):
            case("UniPCMultistepScheduler", f"o{order}_{solver}_noise_min",
                 dict(solver_order=order, solver_type=solver, predict_x0=False, final_sigmas_type="sigma_min"))
            case("UniPCMultistepScheduler", f"o{order}_{solver}_min_nolof",
                 dict(solver_order=order, solver_type=solver, lower_order_final=False, final_sigmas_type="sigma_min"))
    case("UniPCMultistepScheduler", "threshold", dict(thresholding=True, sample_max_value=1.5))
    single = "DPMSolverSinglestepScheduler"
    for order in (2, 3):
        case(single, f"o{order}_heun_min", dict(solver_order=order, solver_type="heun", final_sigmas_type="sigma_min"), steps=(6, 12))
        case(single, f"o{order}_noise_min", dict(solver_order=order, algorithm_type="dpmsolver", final_sigmas_type="sigma_min"), steps=(6, 12))
        case(single, f"o{order}_noise_heun_min", dict(solver_order=order, solver_type="heun", algorithm_type="dpmsolver",
                                                      final_sigmas_type="sigma_min"), steps=(6,))
        case(single, f"o{order}_lof", dict(solver_order=order, lower_order_final=True), steps=(7, 9))
    case(single, "sde_o1", dict(solver_order=1, algorithm_type="sde-dpmsolver++")), case(single, "sde_o2", dict(algorithm_type="sde-dpmsolver++"))
    case(single, "sde_o2_heun", dict(algorithm_type="sde-dpmsolver++", solver_type="heun"))
    multi = "DPMSolverMultistepScheduler"
    case(multi, "sde_heun", dict(algorithm_type="sde-dpmsolver++", solver_type="heun"))
    case(multi, "sde_noise_min", dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min"))
    case(multi, "noise_heun_threshold_min", dict(algorithm_type="dpmsolver", solver_type="heun", final_sigmas_type="sigma_min"))
    case("DEISMultistepScheduler", "o1", dict(solver_order=1)), case("DEISMultistepScheduler", "o3_nolof", dict(solver_order=3, lower_order_final=False))
    case("DEISMultistepScheduler", "o2_karras_sd", dict(use_karras_sigmas=True), SCALED)
    case("DEISMultistepScheduler", "o3_vpred_threshold", dict(solver_order=3, prediction_type="v_prediction", thresholding=True), SCALED)
    case("LMSDiscreteScheduler", "sd_beta", dict(use_beta_sigmas=True), SCALED), case("LMSDiscreteScheduler", "sd_exponential", dict(use_exponential_sigmas=True), SCALED)
    case("LMSDiscreteScheduler", "sample", dict(prediction_type="sample"))
    case("PNDMScheduler", "prk_odd", steps=(9, 12)), case("PNDMScheduler", "prk_vpred_trailing", dict(prediction_type="v_prediction", timestep_spacing="trailing"), SCALED)
    case("HeunDiscreteScheduler", "clip_exponential", dict(clip_sample=True, use_exponential_sigmas=True), SCALED)
    case("DDPMScheduler", "sigmoid", dict(beta_schedule="sigmoid", clip_sample=False))
    case("DDPMScheduler", "fixed_large_log", dict(variance_type="fixed_large_log", clip_sample=False))
    case("DDIMScheduler", "clip2", dict(clip_sample_range=2.0))
    case("LCMScheduler", "small_scaling", dict(timestep_scaling=0.01), SCALED, steps=(4,))
    case("SASolverScheduler", "of_500_times", dict(num_train_timesteps=500), steps=(10,))
    case("EulerDiscreteScheduler", "zero_snr_karras_vpred",
         dict(rescale_betas_zero_snr=True, use_karras_sigmas=True, prediction_type="v_prediction"), steps=(10,))
    case("EulerDiscreteScheduler", "log_linear_churn_sample", dict(interpolation_type="log_linear", prediction_type="sample"),
         kwargs=dict(s_churn=2.0), steps=(10,))
    case(multi, "noise_karras_min", dict(algorithm_type="dpmsolver", use_karras_sigmas=True, final_sigmas_type="sigma_min"), steps=(1, 5))


def clean(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else None


def main():
    list_cases()
    tensors, cases = {}, {}
    for index, (cls, name, config, kwargs, counts) in enumerate(CASES):
        for steps in counts:
            seed, key = 50000 + index * 10 + steps, f"{name}/{steps}"
            try:
                single, scheduler = trajectory(cls, config, kwargs, steps, seed, False)
                double = trajectory(cls, config, kwargs, steps, seed, True)[0]["x"]
                final = double[-1]
            except Exception as problem:
                print("LEFT OUT", cls, key, repr(problem)[:160])
                continue
            finite = bool(torch.isfinite(single["x"]).all())
            gap = float((final - single["x"][-1].double()).abs().max())
            steps_gap = float((double - single["x"].double()).abs().max())
            mine = tensors.setdefault(cls, {})
            for what, value in single.items():
                if finite or what in ("timesteps", "sigmas"):
                    mine[f"{key}/{what}"] = value if what in ("alphas",) or (cls == "IPNDMScheduler" and what == "sigmas") else value.float()
            if finite:
                mine[f"{key}/x_final_f64"] = final
            if hasattr(scheduler, "alphas_cumprod"):
                mine[f"{name}/alphas_cumprod"] = scheduler.alphas_cumprod.float()
            entry = cases.setdefault(cls, {}).setdefault(name, dict(
                config={k: clean(v) for k, v in dict(scheduler.config).items() if not k.startswith("_")}, step_kwargs=kwargs, runs={}))
            entry["config"]["_class_name"] = cls
            entry["runs"][str(steps)] = dict(finite=finite, n_model_calls=int(single["timesteps"].numel()), gap=clean(gap), steps_gap=clean(steps_gap))
            print(cls, key, "finite" if finite else "NaN", f"{gap:.1e}")
    os.makedirs(TARGET, exist_ok=True)
    for cls in cases:
        save_file({k: v.contiguous() for k, v in tensors[cls].items()}, f"{TARGET}/{cls}.safetensors", {"diffusers": diffusers.__version__})
        with open(f"{TARGET}/{cls}.json", "w") as out:
            json.dump(cases[cls], out, separators=(",", ":"))


main()
