#!/usr/bin/env python3
"""`make gpu-test`: what one GPU can show of denoised in ten minutes. Standard library only; README.md says what it needs and writes.

    run.py [--out build/release] [--json FILE] [--seconds 600] [--only machine,parity,...] [--device cuda:0] [--emulated] [--folder DIR]

Phases run one after another, each within its own time and within what is left of the whole; what a machine lacks is said and left out. The
results are written after every phase, so that a run that is cut off leaves what it had. The exit status is 1 when a check failed; targets that
were missed are in the table and fail nothing. --emulated: the same over the emulated GPU, with small models, to try this script itself.
"""
import argparse
import glob
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
import figures  # noqa: E402
from phases import PHASES, Skip  # noqa: E402

FORMAT = 1  # of the results
WHOLE = 600.0  # seconds that the phases' own times are meant for
GRACE = 3  # seconds that a program has to end after it was told to


def nvidia_folders():
    """Where Python packages keep NVIDIA's libraries (cuDNN, cuBLASLt, NVRTC), which PyTorch brings along."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return sorted(folder for root in roots for folder in glob.glob(os.path.join(root, "*", "lib")))


class Run:
    """Options, time, and what was found. A phase asks it for programs and tells it results."""

    def __init__(self, options):
        self.out, self.emulated, self.device = os.path.abspath(options.out), options.emulated, options.device
        self.only = [word for word in options.only.split(",") if word]
        self.json_path = os.path.abspath(options.json or os.path.join(self.out, "gpu-test.json"))
        self.began, self.whole = time.monotonic(), options.seconds
        self.end = self.began + self.whole
        self.kept = options.folder
        self.folder = options.folder or tempfile.mkdtemp(prefix="denoised-gpu-")
        os.makedirs(self.folder, exist_ok=True)
        self.phase = None
        self.result = {"format": FORMAT, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "emulated": self.emulated, "machine": {},
                       "phases": [], "checks": [], "figures": [], "notes": [], "skips": []}
        library = os.path.join(self.out, "emulated") if self.emulated else self.out
        folders = [os.path.join(self.out, "lib"), *nvidia_folders(), *filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))]
        self.environment = dict(os.environ, DENOISED_BACKEND_DIR=library, PYTHONUNBUFFERED="1", LD_LIBRARY_PATH=":".join(folders))

    # ---- what phases tell

    def check(self, name, ok, detail=""):
        self.result["checks"].append({"phase": self.phase, "name": name, "ok": bool(ok), "detail": str(detail)})

    def figure(self, one):
        self.result["figures"].append({"phase": self.phase, **one})
        return self.result["figures"][-1]

    def note(self, text):
        self.result["notes"].append({"phase": self.phase, "text": str(text)})

    def skip(self, reason):
        if {"phase": self.phase, "reason": reason} not in self.result["skips"]:
            self.result["skips"].append({"phase": self.phase, "reason": reason})

    # ---- what phases ask for

    def left(self):
        """Seconds of this phase."""
        return max(0.0, self.phase_end - time.monotonic())

    def built(self, *names):
        """The first of these paths in the build folder that is there."""
        for name in names:
            path = os.path.join(self.out, name)
            if os.path.exists(path):
                return path
        raise Skip(f"{os.path.join(self.out, names[0])} was not built")

    def tool(self, path, *words, seconds=None, environment=None, heard=None):
        """Runs a program for as long as the phase has, or less; its status (None: it was cut off) and lines. heard(line): at once."""
        limit = min(self.left(), seconds or 1e9)
        if limit < 0.5:
            raise Skip("its time was over")
        lines = []
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            process = subprocess.Popen([path, *map(str, words)], cwd=ROOT, env={**self.environment, **(environment or {})}, stdout=subprocess.PIPE,
                                       stderr=errors, text=True, errors="replace", start_new_session=True)

            def read():
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if heard:
                        heard(lines[-1])
            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
                end_group(process)
            reader.join(GRACE)
            errors.seek(0)
            self.said = errors.read()[-2000:]
        return status, lines

    def program(self, name, *words, seconds=None, heard=None, **more):
        """A program of ours: its lines of JSON become checks, figures, notes and skips. Returns the figures."""
        path = self.built(os.path.join("tests/gpu", name))
        return self.results_of(path, *words, seconds=seconds, heard=heard, **more)

    def results_of(self, path, *words, seconds=None, heard=None, held=lambda one: one):
        """held(figure): puts its floor beside it; None: it is not told."""
        name, found, skipped = os.path.basename(path), [], []

        def take(line):
            try:
                one = json.loads(line)
            except ValueError:
                one = None
            if not isinstance(one, dict):
                self.note(f"{name}: {line[:300]}")
            elif "check" in one:
                self.check(one["check"], one["ok"], one.get("detail", ""))
            elif "figure" in one:
                figure = held(one)
                if figure is not None:
                    found.append(self.figure(figure))
            elif "skip" in one:
                skipped.append(one["skip"])
            elif "note" in one:
                self.note(one["note"])
            if heard and isinstance(one, dict):
                heard(one)
        status, _ = self.tool(path, *words, seconds=seconds, heard=take)
        if status is None:
            self.skip(f"the rest of {name}: its time was over")
        elif status == 127:  # the loader's
            raise Skip(f"{name} cannot be started: {self.said.strip()[-300:]}")
        elif status not in (0, 1):
            self.check(f"{name} ends well", False, f"status {status}: {self.said[-600:]}")
        if skipped:
            raise Skip(skipped[0])
        return found

    # ---- the whole

    def write(self):
        with open(self.json_path + ".tmp", "w", encoding="utf8") as out:
            json.dump(self.result, out, indent=1)
        os.replace(self.json_path + ".tmp", self.json_path)

    def run_phase(self, name, seconds, function):
        self.phase, began = name, time.monotonic()
        self.phase_end = min(began + seconds * self.whole / WHOLE, self.end)
        try:
            if self.left() < 1:
                raise Skip("the time of the whole was over")
            function(self)
        except Skip as reason:
            self.skip(str(reason))
        except Exception as error:  # noqa: BLE001 - a phase that breaks is a finding, and the others go on
            self.check(f"{name} goes through", False, f"{type(error).__name__}: {error}")
        self.result["phases"].append({"name": name, "seconds": round(time.monotonic() - began, 1)})
        self.write()
        print(f"# {name}: {time.monotonic() - began:.1f} s", flush=True)

    def everything(self):
        os.makedirs(os.path.dirname(self.json_path), exist_ok=True)
        try:
            for name, seconds, function in PHASES:
                if not self.only or name in self.only:
                    self.run_phase(name, seconds, function)
        finally:
            self.result["seconds"] = round(time.monotonic() - self.began, 1)
            self.write()
            if not self.kept:
                shutil.rmtree(self.folder, ignore_errors=True)
        for line in figures.table(self.result):
            print(line)
        print(f"results: {self.json_path}")
        return 1 if any(not one["ok"] for one in self.result["checks"]) else 0


def end_group(process):
    """A program that we started, and what it started: asked, then killed."""
    for sig in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sig)
            process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/release", help="where everything was built")
    parser.add_argument("--json", default="", help="results (OUT/gpu-test.json)")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="of the whole; the phases' own times change alike")
    parser.add_argument("--only", default="", help="phases, with commas: " + ", ".join(name for name, _, _ in PHASES))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--folder", default="", help="for models and caches; kept (a temporary one)")
    options = parser.parse_args()
    unknown = set(filter(None, options.only.split(","))) - {name for name, _, _ in PHASES}
    if unknown:
        parser.error(f"there is no phase {sorted(unknown)[0]}")
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # so that what was started ends, too
    return Run(options).everything()


if __name__ == "__main__":
    sys.exit(main())
