"""Holds denoised against PyTorch and OpenVINO, side by side in one run. Standard library only; run.sh prepares what it needs.

    peers.py --out build/release --folder build/peers [--only unet-1/1,train/2] [--peers eager,openvino] [--rounds 7] [--seconds 0.4]
             [--clock wall|cpu] [--json FILE] [--lock FILE] [--list]

Every contender is a process that has loaded its network and warmed up. They take turns, round by round, while the others sleep; the
multiply-add peak of as many threads is probed before and after every turn. A turn whose probes are below 90 % of the row's best, or
that had the processor for less than 90 % of its one thread's time, is rejected and repeated, in a bounded number of rounds. A
contender's figure is the median of its kept turns; the ratio is the fastest peer's figure over ours. Where a work has an answer, each
contender's is held against the first peer's: the largest difference over the largest element.
"""
import argparse
import atexit
import contextlib
import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from array import array

from works import WORKS

HERE = os.path.dirname(os.path.abspath(__file__))
GOOD = 0.9  # of the best peak, and of one thread's time
ATTEMPTS = 3  # rounds for each that is wanted
SETTLE_SECONDS = 0.02  # threads that spin for a while after their work have gone to sleep
PROBE_MILLISECONDS = 60
START_SECONDS = 900
TORCH = ("torch eager", "torch channels_last", "torch compiled", "torch frozen")
DEBIAN = ("debian eager", "debian channels_last")
UNET = (*TORCH, *DEBIAN, "openvino f32")
DIT = ("torch eager", "torch compiled", "torch frozen", "debian eager", "openvino f32")
DIT_HALF = (*DIT, "torch bf16", "torch frozen_bf16", "torch autocast", "openvino bf16")
F32, HALF = "denoised", "denoised bf16"
PYTORCH = (*TORCH, *DEBIAN)  # the forms in F32


class Goal(typing.NamedTuple):
    """`ours` shall be so many times as fast as the fastest of `peers`; or, without peers, reach that share of the peak."""
    least: float
    peers: tuple
    ours: str = F32


class Row(typing.NamedTuple):
    work: str
    threads: int
    peers: tuple
    goals: tuple
    ours: tuple = (F32,)
    one_by_one: bool = False  # each starts when the one before is ready: what loading takes for a while would not fit for all at once


ROWS = [
    Row("unet-1", 1, UNET, (Goal(1.75, PYTORCH), Goal(1.2, ("openvino f32",)))),
    Row("unet-16", 1, UNET, (Goal(2.2, PYTORCH), Goal(1.2, ("openvino f32",)))),
    Row("unet-1", 2, UNET, (Goal(1.75, PYTORCH), Goal(1.2, ("openvino f32",)))),
    Row("unet-16", 2, UNET, (Goal(2.0, PYTORCH), Goal(1.2, ("openvino f32",)))),
    Row("dit-s", 1, DIT_HALF, (Goal(1.6, PYTORCH), Goal(2.5, PYTORCH, HALF), Goal(1.0, ("openvino f32",))), (F32, HALF)),
    Row("dit-s", 2, DIT, (Goal(1.6, PYTORCH), Goal(2.5, PYTORCH, HALF), Goal(1.0, ("openvino f32",))), (F32, HALF)),
    Row("dit-xl", 1, ("torch compiled", "debian eager", "openvino f32"),
        (Goal(1.0, PYTORCH), Goal(0.85, ()), Goal(2.2, PYTORCH, HALF), Goal(1.0, ("openvino f32",))), (F32, HALF), one_by_one=True),
    Row("vae", 1, UNET, (Goal(2.2, PYTORCH),)),
    # Of attention's two goals either is enough.
    Row("attention", 1, ("torch eager", "torch compiled", "debian eager", "openvino f32"), (Goal(2.0, TORCH), Goal(0.7, ()))),
    Row("builtin", 1, (), (Goal(0.9, ()),)),
    Row("builtin", 2, (), (Goal(0.9, ()),)),
    Row("train", 1, (*TORCH[:3], *DEBIAN), (Goal(1.5, PYTORCH),)),
    Row("train", 2, (*TORCH[:3], *DEBIAN), (Goal(1.5, PYTORCH),)),
]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="build/release", help="where the engine's contender was built")
    parser.add_argument("--folder", default="build/peers", help="virtual environments, models, inputs")
    parser.add_argument("--only", default="", help="rows, as WORK/THREADS or WORK, with commas")
    parser.add_argument("--peers", default="", help="words: contenders whose name has none of them are left out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a turn")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: where neighbours cannot be held off, of one-thread rows")
    parser.add_argument("--json", default="")
    parser.add_argument("--lock", default="", help="a file to hold locked while rounds are timed")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


class Contender:
    """One process, started at once and ready when wait() returned True."""

    def __init__(self, name, command, folder, environment=()):
        self.name, self.turns, self.passes, self.about = name, [], 1, {}
        self.errors = tempfile.TemporaryFile("w+", dir=folder)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        env={**os.environ, **dict(environment)})
        atexit.register(self.stop)

    def wait(self):
        line = self.process.stdout.readline()
        if line:
            self.about = json.loads(line)
        return bool(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        text = self.process.stdout.readline()
        if not text:
            raise RuntimeError(f"{self.name} ended: {self.last_words()}")
        return json.loads(text)

    def last_words(self):
        self.process.wait()
        self.errors.seek(0)
        return " | ".join(self.errors.read().strip().splitlines()[-3:])[-500:]

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        atexit.unregister(self.stop)


def engine_command(options, work, threads, precision):
    command = [os.path.join(options.out, "tests/bench/bench_engine_contender"), options.folder, work, str(threads), precision]
    model, batch, _ = WORKS.get(work, (None, 0, ()))
    return command + ([model, "decoder" if work == "vae" else "", str(batch)] if model else [])


def start(options, name, work, threads):
    """A contender by its name; None when its environment was not installed."""
    kind, _, form = name.partition(" ")
    if kind == "denoised":
        return Contender(name, engine_command(options, work, threads, form or "fp32"), options.folder)
    python = os.path.join(options.folder, "debian" if kind == "debian" else "newest", "bin", "python")
    if not os.path.exists(python):
        return None
    script = os.path.join(HERE, "contender_openvino.py" if kind == "openvino" else "contender_torch.py")
    environment = {"TORCHINDUCTOR_CACHE_DIR": os.path.abspath(os.path.join(options.folder, "inductor")), "HF_HUB_OFFLINE": "1",
                   "OMP_NUM_THREADS": str(threads)}
    if kind == "debian":  # its OpenBLAS knows no newer processor than these and takes SSE3 kernels for them
        environment["OPENBLAS_CORETYPE"] = "SkylakeX"
    return Contender(name, [python, script, options.folder, work, str(threads), form], options.folder, environment)


def start_all(options, row):
    """Those contenders of a row that run here; the others are named."""
    wanted = [word for word in options.peers.split(",") if word]
    peers = [name for name in row.peers if not wanted or any(word in name for word in wanted)]
    started = ((name, start(options, name, row.work, row.threads)) for name in (*peers, *row.ours))
    ready = []
    for name, contender in started if row.one_by_one else list(started):
        if contender is None:
            print(f"  {name}: not installed", flush=True)
        elif contender.wait():
            ready.append(contender)
        else:
            print(f"  {name}: could not start: {contender.last_words()}", flush=True)
    return ready


@contextlib.contextmanager
def held(path):
    if not path:
        yield
        return
    with open(path, "a", encoding="utf8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take_turn(contender, probe, threads, clock):
    before = probe.ask(f"go {PROBE_MILLISECONDS}")[clock]
    turn = contender.ask(f"go {contender.passes}")
    time.sleep(SETTLE_SECONDS)
    turn["peak"] = min(before, probe.ask(f"go {PROBE_MILLISECONDS}")[clock])
    turn["share"] = turn["cpu"] / turn["wall"] if threads == 1 else 1.0
    contender.turns.append(turn)


def kept(contender, best, clock):
    return [t for t in contender.turns if t["peak"] >= GOOD * best and (clock == "cpu" or t["share"] >= GOOD)]


def play(options, contenders, probe, threads, clock):
    """Rounds until every contender has as many kept turns as are wanted; the best peak."""
    with held(options.lock):
        for contender in contenders:
            contender.passes = max(1, round(options.seconds / contender.ask("go 1")["wall"]))
    best = 0.0
    for _ in range(ATTEMPTS * options.rounds):
        lacking = [c for c in contenders if len(kept(c, best, clock)) < options.rounds]
        if not lacking:
            break
        with held(options.lock):
            for contender in lacking:
                take_turn(contender, probe, threads, clock)
        best = max(turn["peak"] for c in contenders for turn in c.turns)
    return best


def read_floats(path):
    values = array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values


def difference(ours, theirs):
    """Largest difference over the largest element; infinite for answers of other sizes."""
    if len(ours) != len(theirs):
        return float("inf")
    return max(abs(a - b) for a, b in zip(ours, theirs)) / max(abs(b) for b in theirs)


def compare(contenders, row, folder):
    if row.work == "train":
        return
    reference = None
    for contender in contenders:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            contender.ask(f"save {file.name}")
            answer = read_floats(file.name)
        reference = answer if reference is None else reference
        contender.about["error"] = difference(answer, reference)


def judge(contender, best, clock):
    turns = kept(contender, best, clock)
    contender.about.update(kept=len(turns), turns=len(contender.turns), samples=[t[clock] / contender.passes for t in turns])
    turns = turns or contender.turns
    contender.about["ms"] = 1e3 * statistics.median(t[clock] for t in turns) / contender.passes
    contender.about["cpu_ms"] = 1e3 * statistics.median(t["cpu"] for t in turns) / contender.passes


def print_row(contenders, best, clock):
    ours = next(c.about["ms"] for c in contenders if c.name == F32)
    gflop = next(c.about["gflop"] for c in contenders if c.name == F32)
    print(f"  peak {best:.0f} GF/s; {clock} time of a pass" + (f" of {gflop:.3g} GFLOP" if gflop else ""))
    for c in contenders:
        a = c.about
        share = f"{100 * gflop / a['ms'] * 1e3 / best:5.1f} % of peak" if gflop else ""
        error = f"difference {a['error']:.1e}" if "error" in a else ""
        print(f"  {c.name:20} {a['ms']:10.3f} ms {a['ms'] / ours:6.2f}x {share:16} cpu {a['cpu_ms']:10.3f} ms  kept {a['kept']:2} of "
              f"{a['turns']:2}  "
              f"{error:20} {a['version'].split('-')[0].strip()}{'' if a['kept'] else '  NEVER QUIET'}", flush=True)


def verdict_of(goal, contenders, best):
    """A goal beside what came out; None where a side of it did not run."""
    ours = next((c for c in contenders if c.name == goal.ours), None)
    peers = [c for c in contenders if c.name in goal.peers]
    if ours is None or (goal.peers and not peers):
        return None
    verdict = {"peer": f"peak, {best:.0f} GF/s", "ours": goal.ours, "least": goal.least, "peer_ms": 1e3 * ours.about["gflop"] / best}
    if goal.peers:
        fastest = min(peers, key=lambda c: c.about["ms"])
        verdict.update(peer=fastest.name, peer_ms=fastest.about["ms"])
    return {**verdict, "ours_ms": ours.about["ms"], "ratio": verdict["peer_ms"] / ours.about["ms"]}


def run_row(options, row):
    """What each contender took, and each goal's ratio."""
    clock = options.clock if row.threads == 1 else "wall"
    print(f"{row.work}, {row.threads} thread{'s' if row.threads > 1 else ''}", flush=True)
    probe = Contender("probe", engine_command(options, "probe", row.threads, "fp32"), options.folder)
    contenders = start_all(options, row) if probe.wait() else []
    if F32 not in [c.name for c in contenders]:
        sys.exit("the engine's contender does not run")
    compare(contenders, row, options.folder)
    best = play(options, contenders, probe, row.threads, clock)
    for contender in contenders:
        judge(contender, best, clock)
        contender.stop()
    probe.stop()
    print_row(contenders, best, clock)
    verdicts = [v for v in (verdict_of(goal, contenders, best) for goal in row.goals) if v]
    return {"work": row.work, "threads": row.threads, "clock": clock, "peak_gflops": best, "verdicts": verdicts,
            "contenders": {c.name: c.about for c in contenders}}


def print_summary(results):
    print("\n| work | threads | ours | ms | fastest peer | ms | ratio | at least | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in results:
        for v in r["verdicts"]:
            print(f"| {r['work']} | {r['threads']} | {v['ours']} | {v['ours_ms']:.4g} | {v['peer']} | {v['peer_ms']:.4g} | "
                  f"{v['ratio']:.2f} | {v['least']} | {'met' if v['ratio'] >= v['least'] else 'MISSED'} |")


def main():
    options = arguments()
    chosen = [word for word in options.only.split(",") if word]
    rows = [row for row in ROWS if not chosen or row.work in chosen or f"{row.work}/{row.threads}" in chosen]
    if options.list:
        return print("\n".join(f"{row.work}/{row.threads}" for row in rows))
    results = [run_row(options, row) for row in rows]
    print_summary(results)
    if options.json:
        with open(options.json, "w", encoding="utf8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
