"""Runs the parts of the torture in rounds for a number of minutes and adds up what they did. Standard library only.

    torture.py --out build/release [--dir torture] [--minutes 60] [--only kills,simulator] [--jobs 1] [--round 60]

Resumable: seeds go on where the last run ended (counts.py). The part that has had the least time is next; a round is sized to take --round
seconds by what the rounds before it took. A part that fails stops, with its replay command; the others go on; the exit status is 1 then. One that did
nothing is left out.
--parts: a JSON list of [key, [words], goal or null, first count] instead of the project's own parts.
"""
import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import counts  # noqa: E402
import parts as project  # noqa: E402

COUNT_MAX = 10 ** 9  # of one round
GROWTH = 4  # a round is at most so many times the one before
PATIENCE = 20  # times the round's length, and then it hangs
PATIENCE_LEAST_SECONDS = 900
TAIL_LINES = 40


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="build/release")
    parser.add_argument("--dir", default="torture")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--round", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=0, help="of each part; 0: as the time allows")
    parser.add_argument("--patience", type=float, default=None, help="seconds after which a round hangs")
    parser.add_argument("--parts", default=None)
    return parser.parse_args()


def commit_name():
    name = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False).stdout.strip()
    return name + ("+" if changed else "")


class Runner:
    """lock guards everything but the options; a part is run by one thread at a time."""

    def __init__(self, options, todo):
        self.options, self.commit = options, commit_name()
        self.lock = threading.Lock()
        self.until = time.monotonic() + 60 * options.minutes
        self.free = list(todo)
        self.spent = {part.key: 0.0 for part in todo}
        self.count = {part.key: part.first for part in todo}
        self.this_run = {part.key: 0 for part in todo}
        self.rounds = {part.key: 0 for part in todo}
        self.failures = []
        self.children = set()
        self.stopping = False

    def say(self, text):
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def take(self):
        with self.lock:
            if self.stopping or not self.free or time.monotonic() >= self.until:
                return None
            part = min(self.free, key=lambda one: self.spent[one.key])
            self.free.remove(part)
            return part

    def execute(self, command):
        """(exit status or None for one that hung, its output)."""
        with tempfile.TemporaryFile("w+", encoding="utf8", errors="replace") as output:
            environment = dict(os.environ, DENOISED=os.path.abspath(os.path.join(self.options.out, "denoised")))
            child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                                     start_new_session=True)
            with self.lock:
                self.children.add(child)
            status = wait_and_end(child, self.options.patience or max(PATIENCE_LEAST_SECONDS, PATIENCE * self.options.round))
            with self.lock:
                self.children.discard(child)
            output.seek(0)
            return status, output.read()

    def one_round(self, part):
        with self.lock:
            before = counts.sums(self.options.dir).get(part.key, counts.Sum())
            seed, count = before.next_seed or 1, self.count[part.key]
        command = [*part.command, str(seed), str(count)]
        began = time.monotonic()
        status, output = self.execute(command)
        took = time.monotonic() - began
        if self.stopping:
            return False
        lines = [line for line in map(counts.LINE.match, output.splitlines()) if line and line.group(1) == part.key]
        done, failed = (int(lines[-1].group(3)), int(lines[-1].group(4))) if lines else (0, 0)
        why = None if status == 0 and lines and not failed else \
            "hung" if status is None else f"exit status {status}" if not failed and lines else f"{failed} failed" if lines else \
            f"no TORTURE line, exit status {status}"
        if done or why:
            counts.add(self.options.dir, self.commit, part.key, seed, done, max(failed, 1) if why else 0)
        with self.lock:
            self.spent[part.key] += took
            self.this_run[part.key] += done
            left = max(self.until - time.monotonic(), 1)
            pace = max(done, 1) / max(took, 0.01)
            self.count[part.key] = max(1, min(COUNT_MAX, count * GROWTH, int(pace * min(self.options.round, left))))
            self.rounds[part.key] += 1
            self.report(part, seed, done, took)
            if not why and not done:
                self.say(f"SKIP {part.key}: {' '.join(output.split())[:200]}")
            if why:
                self.fail(part, seed, count, why, output)
        return not why and done > 0

    def report(self, part, seed, done, took):
        total = counts.sums(self.options.dir).get(part.key, counts.Sum())
        goal = f" of {part.goal:,}" if part.goal else ""
        self.say(f"{part.key:24} seed {seed}: {done:,} in {took:.0f} s; {total.done:,}{goal} so far, {total.failed} failed")

    def fail(self, part, seed, count, why, output):
        """Where the part has named a seed of its own, that one is repeated."""
        named = [number for line in output.splitlines() if not counts.LINE.match(line) for number in re.findall(r"\bseed=(\d+)", line)]
        replay = shlex.join([*part.command, named[-1] if named else str(seed), "1" if named else str(count)])
        logs = os.path.join(self.options.dir, "failures")
        os.makedirs(logs, exist_ok=True)
        path = os.path.join(logs, f"{part.key}-{seed}.log")
        with open(path, "w", encoding="utf8") as log:
            log.write(output)
        print("\n".join(output.splitlines()[-TAIL_LINES:]))
        self.say(f"FAILED {part.key}: {why}; seed={seed} commit={self.commit}; output: {path}")
        self.say(f"replay: DENOISED={os.path.abspath(self.options.out)}/denoised {replay}")
        self.failures.append((part.key, why, replay))

    def work(self):
        while True:
            part = self.take()
            if part is None:
                return
            if self.one_round(part) and self.rounds[part.key] != self.options.rounds:
                with self.lock:
                    self.free.append(part)

    def stop(self, *_unused):
        self.stopping = True
        for child in list(self.children):
            end_group(child)


def end_group(child):
    """What a part has started goes with it: daemons, proxies. It was started as a group of its own; it is not reaped yet, so that its
    number is nobody else's."""
    if child.returncode is None:
        os.killpg(child.pid, signal.SIGKILL)


def wait_and_end(child, seconds):
    """The exit status; None: it hung."""
    until = time.monotonic() + seconds
    over = None
    while over is None and time.monotonic() < until:
        over = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if over is None:
            time.sleep(0.05)
    end_group(child)
    status = child.wait()
    return status if over else None


def ended(options, all_parts, runner):
    found = counts.sums(options.dir)
    print(f"\n{'part':24} {'this run':>14} {'all runs':>16} {'goal':>14} {'reached':>8} {'failed':>7}")
    for part in all_parts:
        total = found.get(part.key, counts.Sum())
        goal = f"{part.goal:,}" if part.goal else "-"
        share = f"{100 * min(total.done / part.goal, 1):.1f} %" if part.goal else "-"
        print(f"{part.key:24} {runner.this_run.get(part.key, 0):>14,} {total.done:>16,} {goal:>14} {share:>8} {total.failed:>7}")
    for key, why, replay in runner.failures:
        print(f"FAILED {key}: {why}; replay: {replay}")


def main():
    options = arguments()
    if options.parts:
        with open(options.parts, encoding="utf8") as table:
            found, missing = [project.Part(*row) for row in json.load(table)], []
    else:
        found, missing = project.all_parts(options.out)
    only = [key for key in options.only.split(",") if key]
    unknown = [key for key in only if key not in [part.key for part in found] and not any(part.key.startswith(key + "_") for part in found)]
    todo = [part for part in found if not only or part.key in only or any(part.key.startswith(key + "_") for key in only)]
    for key, why in missing:
        print(f"SKIP {key}: {why}")
    if unknown or not todo:
        print(f"torture: nothing to run{' for ' + ', '.join(unknown) if unknown else ''}; parts: {', '.join(part.key for part in found)}")
        return 64
    runner = Runner(options, todo)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runner.stop)
    runner.say(f"{len(todo)} parts, {options.minutes:g} minutes, commit {runner.commit}, counts in {counts.path_in(options.dir)}")
    threads = [threading.Thread(target=runner.work) for _ in range(max(1, options.jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)
    ended(options, found, runner)
    return 1 if runner.failures else 0


if __name__ == "__main__":
    sys.exit(main())
