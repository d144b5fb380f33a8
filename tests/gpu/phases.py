"""The phases of run.py. Each is a function of a Run: it asks it for programs and tells it what came of them. Standard library only.

`PHASES` has their order and how many seconds each may take. With run.emulated everything is small.
"""
import array
import glob
import math
import os
import re
import shutil
import subprocess
import sys
import time

import figures

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PIPELINES = ["tests/golden/pipe_unet_ddim10_cfg3", "tests/golden/pipe_dit_ddpm10_cfg4"]
# Bounds of the root mean square after a few guided steps. Each step's rounding goes into the next: in bf16 the pictures are others of the same kind.
PICTURES = {"fp32": 1e-3, "bf16": 0.4}


class Skip(Exception):
    """Why a phase, or the rest of it, is left out."""


# ---- What the machine is

NVIDIA_SMI = ("name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit",
              "temperature.gpu", "utilization.gpu", "memory.used", "memory.total", "mig.mode.current", "ecc.mode.current")


def nvidia_smi():
    """What it says of the first card, or None."""
    program = shutil.which("nvidia-smi")
    if not program:
        return None
    try:
        done = subprocess.run([program, "--query-gpu=" + ",".join(NVIDIA_SMI), "--format=csv,noheader", "--id=0"], capture_output=True, text=True,
                              timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.strip().split(", ")
    return dict(zip(NVIDIA_SMI, words)) if done.returncode == 0 and len(words) == len(NVIDIA_SMI) else None


def processor():
    try:
        with open("/proc/cpuinfo", encoding="utf8") as info:
            found = re.search(r"model name\s*: (.*)", info.read())
    except OSError:
        found = None
    return found.group(1) if found else "unknown"


def machine(run):
    known = run.result["machine"]
    known.update(processors=os.cpu_count(), processor=processor(), python=sys.version.split()[0], load=os.getloadavg()[0])
    program = run.built("denoised")
    known["denoised"] = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout.strip()
    torch = subprocess.run([sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"],
                           capture_output=True, text=True, check=False)
    known["torch"] = torch.stdout.strip() if torch.returncode == 0 else None
    known["nvidia_smi"] = nvidia_smi()
    if known["nvidia_smi"] is None and not run.emulated:
        run.note("nvidia-smi says nothing of a card")
    able(run)


def able(run):
    """Skips where the device cannot be opened, and says why; asked once."""
    if "able" not in run.__dict__:
        try:
            run.program("gpu_speed", "--device", run.device, seconds=60)
            run.able = ""
        except Skip as reason:
            run.able = str(reason)
    if run.able:
        raise Skip(run.able)


# ---- Ceilings

def ceilings(run):
    able(run)
    more = ["--side", 64, "--megabytes", 1, "--runs", 2, "--rows", "1,2"] if run.emulated else []
    path = run.built("tests/gpu/gpu_card" if run.emulated else "gpu/gpu_card")
    run.results_of(path, *more, held=figures.ceiling)


# ---- Kernels

def test_lines(run, path, **more):
    """A test program's PASS, FAIL and SKIP lines as checks and notes."""
    name = os.path.basename(path)
    status, lines = run.tool(path, **more)
    words = [line.split(" ", 1) for line in lines if re.match(r"(PASS|FAIL|SKIP) ", line)]
    for word, rest in words:
        if word == "SKIP":
            run.note(f"{name}: {rest}")
        else:
            run.check(f"{name}: {rest.split(':')[0]}", word == "PASS", rest if word == "FAIL" else "")
    if status is None:
        run.skip(f"the rest of {name}: its time was over")
    elif status == 127:  # the loader's
        raise Skip(f"{name} cannot be started: {run.said.strip()[-300:]}")
    elif status != 0 and not any(word == "FAIL" for word, _ in words):
        run.check(f"{name} ends well", False, f"status {status}: {run.said[-600:]}")


def kernels(run):
    able(run)
    folder = "tests/cuda" if run.emulated else "gpu"
    programs = sorted(path for path in glob.glob(os.path.join(run.out, folder, "test_kernels*")) if os.access(path, os.X_OK) and "." not in
                      os.path.basename(path))
    if not programs:
        raise Skip(f"no test_kernels in {os.path.join(run.out, folder)}")
    few = {"TEST_ROUNDS": "1"}
    if run.emulated:  # they are tests of their own
        test_lines(run, programs[0], environment=few)
        return
    for path in programs:
        test_lines(run, path)
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(sanitizer):
        raise Skip("memcheck and racecheck: compute-sanitizer is not installed")
    for tool in ("memcheck", "racecheck"):
        for path in programs:
            status, lines = run.tool(sanitizer, "--tool", tool, "--error-exitcode", 9, path, environment=few)
            if any("Device not supported" in line for line in [*lines, run.said]):
                raise Skip(f"{tool}: compute-sanitizer does not support this device here")
            last = next((line for line in reversed(lines) if "SUMMARY" in line), "no summary")
            if status is None:
                run.skip(f"the rest of {tool}: its time was over")
                return
            run.check(f"{tool} of {os.path.basename(path)}", status == 0, f"status {status}: {last}")


# ---- Bits

def plans(run):
    """A folder of plans that the phases share, but for the one that starts without any."""
    return os.path.join(run.folder, "plans-shared")


def bitwise(run):
    able(run)
    if run.emulated:
        run.program("gpu_bitwise", "--rows", 5, f"{figures.GOLDEN}/dit_default/config.json", f"{figures.GOLDEN}/unet_default/config.json")
        return
    shared = ["--device", run.device, "--cache", plans(run)]
    run.program("gpu_bitwise", *shared, "--rows", 128, figures.DIT, figures.UNET)
    run.program("gpu_bitwise", *shared, "--rows", 33, *figures.SOME)
    run.program("gpu_bitwise", *shared, "--rows", 17, "--precision", "fp32", figures.UNET, *figures.SOME)
    run.program("gpu_bitwise", *shared, "--rows", 8, figures.VAE)


# ---- Beside the CPU

def floats_of(path):
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values


def distance(got, want):
    if len(got) != len(want) or not all(map(math.isfinite, got)):
        return math.inf
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(got, want)) / max(sum(b * b for b in want), 1e-30))


def pictures(run):
    """Whole pictures, by the network's own numbers, on the CPU and on the device."""
    for folder in PIPELINES:
        name, made = os.path.basename(folder), {}
        for device, precision in (("cpu", "fp32"), (run.device, "fp32"), (run.device, "bf16")):
            made[device, precision] = os.path.join(run.folder, f"floats-{precision}-{'cpu' if device == 'cpu' else 'gpu'}")
            run.program("gpu_generate", "--device", device, "--precision", precision, "--model", folder, "--images", 3, "--steps", 8, "--guidance", 2,
                        "--floats", made[device, precision], held=lambda one: None)
        want = floats_of(made["cpu", "fp32"])
        for precision, bound in PICTURES.items():
            far = distance(floats_of(made[run.device, precision]), want)
            run.check(f"pictures of {name}, {precision}", far <= bound, f"{far:.2e} of the root mean square; bound {bound:g}")


def parity(run):
    able(run)
    if run.emulated:
        run.program("gpu_parity", *[f"{figures.GOLDEN}/{name}/config.json" for name in ("dit_default", "unet_default", "vae_default")], held=figures.parity)
    else:
        shared = ["--device", run.device, "--cache", plans(run)]
        run.program("gpu_parity", *shared, figures.DIT, figures.UNET, figures.VAE, figures.DIT512, held=figures.parity)
        run.program("gpu_parity", *shared, *figures.SMALL, held=figures.parity)
    pictures(run)


# ---- How long a start takes

def big_model(run):
    """A pipeline folder for serving, made once: DiT-XL/2 with its autoencoder; a small one over the emulated GPU."""
    if run.emulated:
        return os.path.join(ROOT, PIPELINES[1])
    folder = os.path.join(run.folder, "dit_xl_2")
    if not os.path.exists(os.path.join(folder, "model_index.json")):
        scheduler = os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4/scheduler/scheduler_config.json")
        status, _ = run.tool(run.built("tests/gpu/gpu_make_model"), folder, scheduler, figures.DIT, figures.VAE)
        if status != 0:
            raise Skip(f"the model was not made: {run.said[-300:]}")
    return folder


def start(run):
    """From the program's start to its first picture: without plans of before, and with them. The files are in memory both times."""
    able(run)
    model, cache = big_model(run), os.path.join(run.folder, "plans")
    shutil.rmtree(cache, ignore_errors=True)
    for word in ("cold", "warm"):
        began, told = time.monotonic(), []

        def heard(one, began=began, told=told):
            if one.get("figure") == "first image":
                told.append(time.monotonic() - began)
        run.program("gpu_generate", "--device", run.device, "--model", model, "--images", 0, "--steps", 4 if run.emulated else 20, "--cache", cache,
                    heard=heard, held=lambda one, word=word: dict(one, figure=f"{one['figure']}, inside the program, {word} plans"))
        if told:
            one = run.figure({"figure": f"first image, {word} plan cache", "value": told[0], "unit": "s"})
            if word == "warm":
                figures.hold(one, target=figures.FIRST_IMAGE_SECONDS, least=False)


# ---- Forward passes

def speed(run):
    able(run)
    if run.emulated:
        cases = [(f"{figures.GOLDEN}/dit_default/config.json", "1,2", 2), (f"{figures.GOLDEN}/unet_default/config.json", "1,2", 2)]
    else:
        cases = [(figures.DIT, "1,2,4,8,16,32,64,128", 30), (figures.UNET, "1,2,4,8,16,32,64,128", 15), (figures.VAE, "1,2,4,8", 15),
                 (figures.DIT512, "2,8,32,64", 20)]
    for config, rows, seconds in cases:
        found = run.program("gpu_speed", "--device", run.device, "--cache", plans(run), "--rows", rows, "--seconds", seconds, "--runs", 3 if run.emulated else 50, config,
                            held=lambda one: figures.speed(one) if "flops" in one else one)
        if config == figures.DIT:
            for one in found:
                if one.get("rows", 1) > 1:
                    images = one["rows"] // 2
                    ms = figures.STEPS * one["value"] / images + 1000 * figures.VAE_FLOPS / figures.TFLOPS / 1e12
                    least = figures.STEPS * one["floor"] / images + 1000 * figures.VAE_FLOPS / figures.TFLOPS / 1e12
                    run.figure(figures.hold({"figure": f"a picture in {figures.STEPS} guided steps, {images} together (decoding at its floor)", "value": ms,
                                             "unit": "ms"}, floor=least, of=least / ms))


# ---- PyTorch

def peers(run):
    able(run)
    if run.emulated:
        raise Skip("PyTorch has no emulated GPU")
    if not run.result["machine"].get("torch", None):
        raise Skip("PyTorch cannot be imported")
    run.results_of(sys.executable, os.path.join(HERE, "peers_torch.py"), "--seconds", int(run.left()) - 5)
    ours = {(one["model"], one["rows"]): one["value"] for one in run.result["figures"] if "flops" in one and one["phase"] == "speed"}
    theirs = [one for one in run.result["figures"] if one["phase"] == "peers" and "form" in one]
    for one in theirs:
        mine = ours.get((one["model"], one["rows"]))
        if mine:
            target = figures.PEER_EAGER if one["form"] == "eager" else figures.UNET_COMPILED if one["model"].startswith("unet") else figures.PEER_COMPILED
            figures.hold(one, target=target, of=one["value"] / mine)


# ---- Served

def served(run):
    able(run)
    from served import Served
    Served(run, big_model(run)).everything()


PHASES = [("machine", 40, machine), ("ceilings", 30, ceilings), ("kernels", 90, kernels), ("bitwise", 75, bitwise), ("parity", 110, parity),
          ("start", 50, start), ("speed", 85, speed), ("served", 90, served), ("peers", 150, peers)]
