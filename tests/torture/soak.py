"""A soak: half the service's capacity for a time, with a random fault every half minute, and what that does to its memory and files.

    soak.py --out build/release [--dir torture] [--minutes 60] [--every 30] [--seed N] [--faults a,b,c] [--warm-up 120] [--short]

Samples go to DIR/soak-DATE.tsv every second. At the end, when all jobs have ended: the ledger must be clean, the write-ahead log must have
stayed below 64 MB, descriptors and threads must not grow, and resident memory must not grow by 20 MB in 24 hours behind the warm-up. That is
a slope with an error: it is judged only where it is surer than two errors, and a short run says that it is too short. --short: a run of a
minute; faults come in the order given, and growth behind the warm-up must be below 5 MB. Exit status 1: something did not hold.
"""
import argparse
import atexit
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]

MB = 1 << 20
GROWTH_DAY_MB, GROWTH_SHORT_MB, WAL_MB = 20, 5, 64
SPARE = 20  # descriptors that clients, readers of the store and files in the making may take
DISK_MB = 256
SHORT_JOBS = 10  # a second: the store's caches are still being filled then
END_SECONDS = 180


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="build/release")
    parser.add_argument("--dir", default="torture")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", default="")
    parser.add_argument("--warm-up", type=float, default=120)
    parser.add_argument("--load", type=float, default=0.5, help="of the capacity")
    parser.add_argument("--fill", type=int, default=10000, help="jobs made before the run, so that caches are full")
    parser.add_argument("--short", action="store_true")
    return parser.parse_args()


options = arguments()
os.environ.setdefault("DENOISED", os.path.abspath(os.path.join(options.out, "denoised")))
import harness  # noqa: E402
from soak_faults import FAULTS, weights  # noqa: E402
from soak_load import Load  # noqa: E402
import soak_series as series  # noqa: E402


class Soak:
    def __init__(self):
        self.options, self.dice, self.stopping = options, random.Random(options.seed), False
        self.mount = self.small_disk()
        self.data = os.path.join(self.mount or harness.scratch("soak"), "data")
        other = os.path.join(harness.scratch("model"), "other")
        shutil.copytree(harness.tiny_model(), other)
        self.daemon = harness.Daemon("--model", f"other={other}", "--memory-limit", "1M", "--rows-max", "8", "--keep-bytes", "4M", "--snapshot-every", "1",
                                     "--drain-seconds", "5", data=self.data)
        self.load = Load(self.daemon, options.seed)
        self.samples, self.fault, self.counts, self.broken = [], "", {}, []
        self.began = time.monotonic()

    @staticmethod
    def small_disk():
        """A file system of its own, so that it can be full; None where this may not be mounted."""
        folder = tempfile.mkdtemp(prefix="denoised-soak-")
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "denoised-soak", folder], capture_output=True, check=False)
        if mounted.returncode != 0:
            os.rmdir(folder)
            print("SKIP disk_full: a file system cannot be mounted here")
            return None

        def remove():
            subprocess.run(["umount", "-l", folder], capture_output=True, check=False)
            os.rmdir(folder)
        atexit.register(remove)
        return folder

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.0f} s  {text}", flush=True)

    def pause(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stopping:
            time.sleep(0.2)

    def restart(self, number):
        """What a supervisor does: the daemon ends, and is started again. An end that says 75 is one to start again after."""
        self.daemon.kill(number)
        status = self.daemon.process.wait(120 * harness.SLOW)
        if number == signal.SIGTERM and status != 0:
            self.broken.append(f"a drain ended with status {status}: {self.daemon.tail()[-300:]}")
        self.daemon.start()
        self.warm()

    def warm(self):
        """What a daemon fills once and keeps: its readers' caches, and the heap of the most connections."""
        if not options.short:
            self.load.read_all(100)
            FAULTS["client_cuts"](self)

    def watch_daemon(self):
        """A daemon that ended by itself is started again; only status 75 (start me again) is allowed."""
        status = self.daemon.process.poll()
        if status is None:
            return
        self.say(f"the daemon ended by itself with status {status}")
        self.counts["ended by itself"] = self.counts.get("ended by itself", 0) + 1
        if status != 75:
            self.broken.append(f"the daemon ended with status {status}: {self.daemon.tail()[-500:]}")
        self.daemon.start()
        self.warm()

    # ---- Samples

    def sample(self):
        pid = self.daemon.process.pid
        workers = self.daemon.worker_pids()
        worker = workers[0] if workers else None
        try:
            wal = os.stat(os.path.join(self.data, "denoised.db-wal")).st_size
        except OSError:
            wal = 0
        self.samples.append({"seconds": time.monotonic() - self.began, "daemon": pid, "daemon_kb": series.resident_kb(pid),
                             "daemon_fds": series.entries(pid, "fd"), "daemon_threads": series.entries(pid, "task"), "worker": worker,
                             "worker_kb": worker and series.resident_kb(worker), "worker_fds": worker and series.entries(worker, "fd"),
                             "wal_bytes": wal, "data_bytes": series.folder_bytes(self.data), "accepted": self.load.accepted, "fault": self.fault})
        self.fault = ""

    def sampler(self):
        while not self.stopping:
            self.sample()
            time.sleep(1)

    def write_samples(self):
        os.makedirs(options.dir, exist_ok=True)
        path = os.path.join(options.dir, time.strftime("soak-%Y%m%d-%H%M%S.tsv", time.gmtime()))
        with open(path, "w", encoding="utf8") as out:
            out.write("\t".join(series.COLUMNS) + "\n")
            for one in self.samples:
                out.write("\t".join("" if one[name] is None else f"{one[name]:.1f}" if isinstance(one[name], float) else str(one[name])
                                    for name in series.COLUMNS) + "\n")
        return path

    # ---- The run

    def faults(self):
        names = [name for name in options.faults.split(",") if name] or sorted(FAULTS)
        names = [name for name in names if self.mount or name != "disk_full"]
        number = 0
        until = self.began + 60 * options.minutes
        while time.monotonic() + options.every < until:
            self.pause(options.every)
            if options.short and number == len(names):
                continue
            name = names[number] if options.short else self.dice.choices(names, weights(names))[0]
            number += 1
            self.watch_daemon()
            self.fault = name
            self.counts[name] = self.counts.get(name, 0) + 1
            self.say(f"{name}; {self.load.accepted} posts accepted")
            FAULTS[name](self)
        self.pause(until - time.monotonic())

    def run(self):
        if not options.short:
            self.load.fill(options.fill)
            self.warm()
        rate = self.load.capacity(2 if options.short else 10)
        self.began = time.monotonic()
        share = min(options.load * rate, SHORT_JOBS) if options.short else options.load * rate
        self.say(f"seed {options.seed}; capacity {rate:.1f} jobs/s; load {share:.1f} jobs/s, for {options.minutes:g} minutes")
        self.load.start(share / 1.4)  # an arrival brings 1.4 jobs
        threading.Thread(target=self.sampler, daemon=True).start()
        self.faults()
        self.settle()
        return self.judge()

    def settle(self):
        """All faults are over: everything must come to its end, whatever was in doubt become known, and every client leave."""
        self.load.stopping = True
        self.watch_daemon()
        self.load.stop()
        until = time.monotonic() + END_SECONDS * harness.SLOW
        while time.monotonic() < until:
            self.watch_daemon()
            answer = self.load.call("GET", "/metrics")
            left = [line for line in answer.body.decode().splitlines() if line.startswith('denoised_jobs{state="') and
                    ('"queued"' in line or '"running"' in line)] if answer else ["?"]
            if left and all(line.endswith(" 0") for line in left):
                break
            time.sleep(0.2)
        else:
            self.broken.append(f"jobs have not ended: {left}")
        until = time.monotonic() + harness.PATIENCE  # clients have left; how soon their connections are closed is the machine's pace
        self.sample()
        while time.monotonic() < until and self.descriptors()[0] > self.descriptors()[1] + SPARE:
            time.sleep(0.5)
            self.sample()
        self.stopping = True

    # ---- The verdict

    def growth(self, process, value, unit, limit_day):
        found = series.blocks(self.samples, process, value, options.warm_up)
        pace, error, count = series.slope(found)
        day, sure = pace * series.DAY / unit, error * series.DAY / unit
        verdict = "grows" if day - 2 * sure > limit_day else "holds" if day + 2 * sure < limit_day else "too short a run to tell"
        print(f"{process} {value}: {day:+.1f} in 24 h, standard error {sure:.1f} ({count} blocks of {len(found)} processes); bound {limit_day}: {verdict}")
        if verdict == "grows" and not options.short:
            self.broken.append(f"{value} grows by {day:.1f} in 24 h")

    def growth_short(self, process, value):
        """Of the process that lived last, from the end of its warm-up to the end."""
        last = [one for one in self.samples if one[process] == self.samples[-1][process] and one[value] is not None]
        warm = [one[value] for one in last if one["seconds"] >= last[0]["seconds"] + options.warm_up]
        if len(warm) < 10:
            print(f"{process} {value}: the last process lived too short a time to tell")
            return
        part = max(3, len(warm) // 4)
        grown = (statistics.median(warm[-part:]) - statistics.median(warm[:part])) / 1024
        print(f"{process} {value}: {grown:+.2f} MB in {len(warm)} s behind the warm-up; bound {GROWTH_SHORT_MB}")
        if grown >= GROWTH_SHORT_MB:
            self.broken.append(f"{value} grew by {grown:.1f} MB")

    def judge(self):
        print(f"samples: {self.write_samples()}")
        print(f"posts accepted {self.load.accepted}, refused {self.load.refused}, streams cut {self.load.cut_streams}; faults: {json.dumps(self.counts)}")
        for process in ("daemon", "worker"):
            if options.short:
                self.growth_short(process, f"{process}_kb")
            else:
                self.growth(process, f"{process}_kb", 1024, GROWTH_DAY_MB)
                self.growth(process, f"{process}_fds", 1, SPARE)
        wal = max(one["wal_bytes"] for one in self.samples)
        print(f"write-ahead log: at most {wal / MB:.1f} MB; bound {WAL_MB}")
        if wal >= WAL_MB * MB:
            self.broken.append(f"the write-ahead log had {wal / MB:.1f} MB")
        self.judge_descriptors()
        print(f"data folder: {self.samples[0]['data_bytes'] / MB:.1f} MB at the start, {self.samples[-1]['data_bytes'] / MB:.1f} MB at the end")
        self.purge()
        verdict = self.load.ledger.judge(self.data, retention=True)
        print(f"ledger: {verdict}")
        if not verdict.valid:
            self.broken.append(f"ledger: {verdict}")
        self.broken += self.load.faults[:10]
        for one in self.broken:
            print(f"BROKEN {one}")
        print("soak: " + ("all of it held" if not self.broken else f"{len(self.broken)} things did not hold; seed {options.seed}"))
        return 1 if self.broken else 0

    def purge(self):
        """What was to be purged while it ran is deleted within a minute, and by a start at once."""
        self.daemon.stop()
        self.daemon.start()
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/denoised.db?mode=ro", uri=True)) as rows:
            harness.eventually(lambda: not rows.execute("SELECT count(*) FROM job WHERE purge=1 AND expired=0").fetchone()[0], 60, "purges")
        self.daemon.stop()

    def descriptors(self):
        """Of the daemon that lives: now, and the least that it ever held."""
        last = self.samples[-1]
        return last["daemon_fds"], min(one["daemon_fds"] for one in self.samples if one["daemon"] == last["daemon"] and one["daemon_fds"])

    def judge_descriptors(self):
        """When every client has left, a daemon holds what one that has just started holds."""
        last, calm = self.descriptors()
        print(f"descriptors: {last} at the end, {calm} at least; threads {self.samples[-1]['daemon_threads']}")
        if last > calm + SPARE:
            self.broken.append(f"{last} descriptors at the end, {calm} before")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with the file system unmounted and the daemon ended
    sys.exit(Soak().run())
