"""Continuous batching beside request batches and one image at a time, in one run and in turn. Standard library only.

    bench_batching.py --out build/release [--model models/fashion-mnist] [--arrivals 60] [--repeats 1] [--loads 0.5,0.8,1.0,1.5]
    bench_batching.py --out build/release --long      (2,000 arrivals at the loads that goals are set for, 600 at others: about half an hour)

First every policy's capacity: rows a second of a queue that never runs dry, beside the bare engine's. Then Poisson arrivals at shares of the
capacity of one image at a time, the same arrivals for each policy, 5 to 50 steps of eight samplers, all guided: images a second, latency from
the moment that a request was due, rows a tick, and how far the ETA was off. At a load of 1.0 and above the queue of one at a time has no steady
state, it grows for as long as the run is: the number of arrivals belongs to the figure. Then cancels under load, and a newcomer beside a
client with 1,000 jobs waiting. Runs with the peak below 90 % of the best before or after them, or in which others took more than a tenth of
the machine, are rejected. Prints tables in Markdown; OUT/bench_batching.json has it all. Other files: tests/bench/serving/.
"""
import argparse
import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "serving"), os.path.join(HERE, "..", "e2e")]
parser = argparse.ArgumentParser()
parser.add_argument("--out", default="build/release")
parser.add_argument("--model", default="models/fashion-mnist")
parser.add_argument("--arrivals", type=int, default=60)
parser.add_argument("--repeats", type=int, default=1)
parser.add_argument("--loads", default="0.5,0.8,1.0,1.5")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--long", action="store_true")
parser.add_argument("--only", default="poisson,cancel,newcomer")
options = parser.parse_args()
if options.long:
    options.arrivals = max(options.arrivals, 2000)
os.environ["DENOISED"] = os.path.join(os.path.abspath(options.out), "denoised")
import harness  # noqa: E402
import predict  # noqa: E402
import runs  # noqa: E402
import traffic  # noqa: E402
from machine import Machine, Usage, quantile  # noqa: E402

POLICIES = ("single", "request", "continuous")
GOOD, OTHERS = 0.9, 0.1  # of the best peak; of the machine
ENOUGH = 1000  # arrivals, for a percentile to be judged
GOALS = {0.8: 0.65, 1.0: 0.25}  # load: p95 of continuous batching beside that of one at a time
CLASSES = 10
machine = Machine(options.out, options.model)
judged, result = [], {"runs": []}


class BenchDaemon(harness.Daemon):
    """All cores, no test's options. In build/, since /tmp may be memory: a durable queue belongs on a disk."""

    def command(self):
        return [harness.PROGRAM, "serve", "--listen", self.listen, "--data", self.data, "--model", f"bench={self.model}", *self.options]


def daemon_of(policy, *more):
    folder = os.path.join(options.out, f"bench-{policy}-{os.getpid()}-{len(more)}")
    os.makedirs(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    daemon = BenchDaemon("--batching", policy, *more, model=options.model, data=folder)
    harness.eventually(lambda: daemon.get("/readyz").status == 200, 60, "readiness")
    daemon.pids = [daemon.process.pid, *daemon.worker_pids()]
    return daemon


def judge(what, value, text, met, kept):
    """kept: it was measured while the machine was ours, or why it judges nothing."""
    word = kept if isinstance(kept, str) else "not judged, the machine was busy" if not kept else "met" if met else "MISSED"
    judged.append((what, value, text, word))
    print(f"  {what}: {value:.4g} ({text}) {word}", flush=True)


def quiet(before, after, shares):
    return min(before, after) >= GOOD * machine.best and shares["others"] <= OTHERS


def guarded(pids, function, *arguments):
    """What the function returns, and whether the machine was ours meanwhile."""
    before, usage = machine.peak(), Usage(pids)
    found = function(*arguments)
    shares = usage.shares()
    return found, quiet(before, machine.peak(), shares)


def capacities(daemons):
    """Rows a second of each policy with a full queue, in turn; and the bare engine's before and after."""
    count = 192 if options.long else 48
    engines, found = [machine.engine(count, 20, traffic.GUIDANCE)], {policy: [] for policy in POLICIES}
    others = []
    for number in range(max(options.repeats, 2) if options.long else 1):
        for policy in POLICIES:
            requests = traffic.drawn(options.seed + 77 + number, count // 3 if policy == "single" else count, CLASSES)
            usage = Usage(daemons[policy].pids)
            found[policy].append(runs.full_queue(daemons[policy], requests))
            others.append(usage.shares()["others"])
        engines.append(machine.engine(count, 20, traffic.GUIDANCE))
    engine = quantile([one["images_per_second"] * one["evaluations"] for one in engines], 0.5)
    rows = {policy: quantile(values, 0.5) for policy, values in found.items()}
    result["capacity"] = {"engine_rows_per_second": engine, "rows_per_second": found, "engines": engines}
    print(f"rows a second with a full queue: bare engine {engine:.0f}, " + ", ".join(f"{policy} {value:.0f}" for policy, value in rows.items()), flush=True)
    kept = max(others) <= OTHERS and min(min(one["peak_before_gflops"], one["peak_after_gflops"]) for one in engines) >= GOOD * machine.best
    judge("continuous, full queue, beside the bare engine", rows["continuous"] / engine, ">= 0.97", rows["continuous"] >= 0.97 * engine, kept)
    return rows


def arrivals_at(load):
    return options.arrivals if load in GOALS else int((0.3 if options.long else 0.5) * options.arrivals)


def batch_of(daemon):
    """Its table of tick durations and the rows that it fills a tick with."""
    batch = daemon.get("/models/bench").json.get("batch") or {}
    return batch.get("tick_ms") or [[1, 1.0]], batch.get("rows_max") or 16


def poisson(daemons, capacity):
    batches = {policy: batch_of(daemons[policy]) for policy in POLICIES}
    result["batches"] = batches
    print("tick durations: " + "; ".join(f"{policy} up to {rows} rows, " + ", ".join(f"{r}: {ms:.1f} ms" for r, ms in table)
                                         for policy, (table, rows) in batches.items()), flush=True)
    for repeat in range(options.repeats):
        for place, load in enumerate(float(x) for x in options.loads.split(",")):
            seed = options.seed + 1000 * repeat
            requests = traffic.drawn(seed, arrivals_at(load), CLASSES)
            gap = sum(map(traffic.rows_of, requests)) / len(requests) / (load * capacity)
            times = [t * gap for t in traffic.arrivals(seed, len(requests))]
            before = machine.peak()
            for turn in range(len(POLICIES)):
                policy = POLICIES[(turn + place + repeat) % len(POLICIES)]
                run = runs.Poisson(daemons[policy], daemons[policy].pids, requests, times, seed).measure()
                after = machine.peak()
                expected = predict.predicted(policy, predict.scaled(batches["continuous"][0], capacity), batches[policy][1], requests, times)
                run.update(expected=expected, policy=policy, load=load, repeat=repeat, kept=quiet(before, after, run["shares"]), peaks=[before, after])
                result["runs"].append(run)
                show(run)
                before = after


def show(run):
    eta = run["eta"]["accepted"]["errors"]
    print(f"  {run['policy']:10} {run['load']:.1f}: {run['images_per_second']:6.2f} images/s, latency {run['latency']['p50']:.2f} "
          f"{run['latency']['p95']:.2f} {run['latency']['p99']:.2f} s, admitted after {run['admission_seconds']:.3f} s, {run['rows_per_tick']:.1f} rows a tick, "
          f"ETA off by {quantile(eta, .5):.0%} at acceptance; client {run['shares']['client']:.1%}, daemon {run['shares']['daemon']:.1%}, "
          f"worker {run['shares']['worker']:.1%}, others {run['shares']['others']:.1%}{'' if run['kept'] else '; rejected'}", flush=True)


def pooled(policy, load):
    """The medians over a policy's kept runs at a load, and all their ETA errors. None were kept: all count, and judge nothing."""
    all_runs = [run for run in result["runs"] if run["policy"] == policy and run["load"] == load]
    chosen = [run for run in all_runs if run["kept"]] or all_runs
    row = {name: quantile([run[name] for run in chosen], 0.5) for name in ("images_per_second", "rows_per_tick", "tick_ms", "admission_seconds")}
    for group in ("latency", "expected"):
        for name in chosen[0][group]:
            row[f"{group}_{name}"] = quantile([run[group][name] for run in chosen], 0.5)
    row["eta"] = {when: sum((run["eta"][when]["errors"] for run in chosen), []) for when in ("accepted", "queued", "running")}
    return row, any(run["kept"] for run in all_runs)


def p95_ratio(load):
    """Of the rounds in which both were kept, else of all."""
    pairs = {}
    for run in result["runs"]:
        if run["load"] == load:
            pairs.setdefault(run["repeat"], {})[run["policy"]] = run
    kept = [p for p in pairs.values() if p["single"]["kept"] and p["continuous"]["kept"]]
    return quantile([p["continuous"]["latency"]["p95"] / p["single"]["latency"]["p95"] for p in kept or pairs.values()], 0.5), bool(kept)


def poisson_table():
    loads = [float(x) for x in options.loads.split(",")]
    print("\n" + ", ".join(f"{arrivals_at(load)} arrivals at load {load}" for load in loads) + f", {options.repeats} times; a load of 1 is what one at a "
          "time can do\n")
    print("| load | policy | images/s | latency p50, p95, p99 (s) | foretold from the tick table | until admitted, mean (s) | rows a tick | ETA off at acceptance, queued, running: median / p90 | |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    every, quiet_eta = [], True
    for load in loads:
        for policy in POLICIES:
            row, kept = pooled(policy, load)
            errors = [row["eta"][when] for when in ("accepted", "queued", "running")]
            if policy == "continuous":
                every += [e for part in errors for e in part]
                quiet_eta = quiet_eta and kept
            told = ", ".join(f"{quantile(e, .5):.0%} / {quantile(e, .9):.0%} of {len(e)}" if e else "none" for e in errors)
            print(f"| {load} | {policy} | {row['images_per_second']:.2f} | {row['latency_p50']:.2f}, {row['latency_p95']:.2f}, {row['latency_p99']:.2f} | "
                  f"{row['expected_p50']:.2f}, {row['expected_p95']:.2f}, {row['expected_p99']:.2f} | "
                  f"{row['admission_seconds']:.3f} | {row['rows_per_tick']:.1f} | {told} | {'' if kept else 'no quiet run'} |")
    print()
    for load, goal in GOALS.items():
        if load in loads:
            ratio, kept = p95_ratio(load)
            kept = kept if arrivals_at(load) >= ENOUGH else "not judged, few arrivals"
            judge(f"p95 of continuous beside one at a time, load {load}", ratio, f"<= {goal}", ratio <= goal, kept)
    judge(f"ETA of continuous, {len(every)} looks: median error", quantile(every, .5), "<= 0.20", quantile(every, .5) <= 0.2, quiet_eta)
    judge("ETA of continuous: 90th percentile of the error", quantile(every, .9), "<= 0.50", quantile(every, .9) <= 0.5, quiet_eta)


def cancel(daemon):
    request = {"sampler": "dpmpp_2m", "steps": 50, "guidance_scale": traffic.GUIDANCE, "class_label": 1}
    (found, tick), kept = guarded(daemon.pids, runs.cancels, daemon, request, 40 if options.long else 15)
    took = [one[0] for one in found]
    result["cancel"] = {"seconds": took, "ticks": [one[1] for one in found], "tick_seconds": tick}
    print(f"cancel under load, {len(took)} times: {1000 * quantile(took, .5):.0f} ms in the median, {1000 * max(took):.0f} ms at most, a tick of "
          f"{1000 * tick:.0f} ms; at most {max(one[1] for one in found):.0f} ticks between the two looks", flush=True)
    judge("cancel: ms beyond one tick, at most", 1000 * (max(took) - tick), "<= 50", max(took) - tick <= 0.05, kept)


def newcomer():
    keys = os.path.join(options.out, f"bench-keys-{os.getpid()}")
    secrets = ["bench-secret-of-the-crowd", "bench-secret-of-the-newcomer"]
    with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf8") as out:
        out.write(f"crowd {secrets[0]}\nnewcomer {secrets[1]}\n")
    atexit.register(os.unlink, keys)
    request = {"sampler": "dpmpp_2m", "steps": 20, "guidance_scale": traffic.GUIDANCE, "class_label": 1}
    with daemon_of("continuous", "--api-key-file", keys) as daemon:
        daemon.call("POST", "/generate", request, Prefer="wait=30", Authorization=f"Bearer {secrets[1]}")
        (alone, beside, own, depths), kept = guarded(daemon.pids, runs.newcomer, daemon, secrets, request, request,
                                                     20 if options.long else 8)
    delay, job = quantile([one[0] for one in beside], .5) - quantile(alone, .5), quantile(own, .5)
    result["newcomer"] = {"alone": alone, "beside": beside, "own": own, "depths": depths}
    print(f"a newcomer's picture: {quantile(alone, .5):.3f} s alone, {quantile([b[0] for b in beside], .5):.3f} s beside {quantile(depths, .5):.0f} waiting "
          f"jobs of another client, started after {quantile([b[1] for b in beside], .5):.3f} s ({max(b[1] for b in beside):.3f} s at most); a job of "
          f"the other's takes {job:.3f} s", flush=True)
    judge("newcomer: delay beside the other's own job", delay / job, "<= 1", delay <= job, kept)


def describe():
    with open("/proc/cpuinfo", encoding="utf8") as info:
        cpu = re.search(r"model name\s*: (.*)", info.read())
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}, {cpu.group(1) if cpu else 'unknown CPU'}, {os.cpu_count()} CPUs, commit {commit or 'unknown'}"


def main():
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # so that the daemons end, too
    began, wanted = time.monotonic(), options.only.split(",")
    print(f"bench_batching: {describe()}; model {options.model}")
    daemons = {policy: daemon_of(policy) for policy in POLICIES}
    for daemon in daemons.values():  # the first pictures load pages and caches
        runs.full_queue(daemon, traffic.drawn(5, 8, CLASSES))
    if "poisson" in wanted:
        poisson(daemons, capacities(daemons)["single"])
        poisson_table()
    if "cancel" in wanted:
        cancel(daemons["continuous"])
    for daemon in daemons.values():
        daemon.kill()
    if "newcomer" in wanted:
        newcomer()
    print(f"\n### {describe()}; {time.monotonic() - began:.0f} s\n\n| what | measured | goal | |\n| --- | --- | --- | --- |")
    for what, value, text, word in judged:
        print(f"| {what} | {value:.4g} | {text} | {word} |")
    with open(os.path.join(options.out, "bench_batching.json"), "w", encoding="utf8") as out:
        json.dump(dict(result, judged=judged, machine=describe()), out, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
