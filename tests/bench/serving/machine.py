"""What is measured beside the service: the multiply-add peak, processor time of everybody, and the daemon's own counters."""
import json
import os
import re
import subprocess
import time


class Machine:
    """out: the build folder. Peaks of all cores, probed between runs, and the best of them."""

    def __init__(self, out, model):
        self.out, self.model, self.best = out, model, 0.0

    def engine(self, images, steps, guidance):
        """The bare engine's own run, as bench_engine_generate prints it."""
        command = [os.path.join(self.out, "tests/bench/bench_engine_generate"), self.model, str(images), str(steps), str(guidance)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        self.best = max(self.best, found["peak_before_gflops"], found["peak_after_gflops"])
        return found

    def peak(self):
        found = self.engine(1, 1, 1)
        return max(found["peak_before_gflops"], found["peak_after_gflops"])


TICK = os.sysconf("SC_CLK_TCK")


def process_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine_seconds():
    """Of all processors since boot: busy, taken by the hypervisor, all."""
    with open("/proc/stat", encoding="utf8") as stat:
        fields = [int(x) / TICK for x in stat.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], fields[7], sum(fields)


class Usage:
    """Shares of the machine while something ran: the daemon and its worker, this program, and whoever else wanted it."""

    def __init__(self, pids):
        self.pids, self.began = pids, time.monotonic()
        self.before = [process_seconds(pid) for pid in pids], sum(os.times()[:2]), machine_seconds()

    def shares(self):
        """Of all processors' time: {daemon, worker, client, others}."""
        took = time.monotonic() - self.began
        capacity = took * os.cpu_count()
        served = [process_seconds(pid) - before for pid, before in zip(self.pids, self.before[0])]
        client = sum(os.times()[:2]) - self.before[1]
        others = machine_seconds()[0] - self.before[2][0] - sum(served) - client
        return {"daemon": served[0] / capacity, "worker": sum(served[1:]) / capacity, "client": client / capacity,
                "others": max(0.0, others) / capacity, "seconds": took}


def counters(text):
    """The numbers of /metrics that have no labels, the parts of histograms included."""
    return {name: float(value) for name, value in re.findall(r"^(denoised_[a-z_]+) ([0-9.e+-]+)$", text, re.M)}


def quantile(values, share):
    """Between the two values that it lies between; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
