#!/usr/bin/env python3
"""How quickly the daemon answers while its engine has all it can do: GET /jobs/{id} and POST /generate, idle and saturated.

    python3 tests/bench/bench_saturated.py [--seconds 20] [--threads 0] [--model models/fashion-mnist] [--worker-nice N]

The goals are p99 < 10 ms for a GET and <= 50 ms for a POST. Beside each figure stands how long the daemon's threads waited for a
processor during the calls (from /proc): that part is the machine's, not the daemon's. --worker-nice gives the worker's threads another
priority than its own, to compare. A figure counts on a machine that does nothing else.
"""
import argparse
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
from harness import Daemon, eventually, json, time  # noqa: E402


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def waited(pid):
    """Seconds that the threads of a process have waited for a processor."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
            total += int(stat.read().split()[1])
    return total / 1e9


def timed(daemon, seconds, ask):
    """Seconds of each call for so long, a pause of 5 ms between two; and what the daemon's threads waited meanwhile."""
    connection, took = daemon.connect(), []
    before, until = waited(daemon.process.pid), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        ask(connection)
        took.append(time.perf_counter() - began)
        time.sleep(0.005)
    connection.close()
    return took, waited(daemon.process.pid) - before


def get(job):
    def ask(connection):
        connection.request("GET", f"/jobs/{job}")
        connection.getresponse().read()
    return ask


def post(connection):
    connection.request("POST", "/generate", json.dumps({"steps": 1, "priority": -10}), {"Content-Type": "application/json"})
    connection.getresponse().read()


def show(what, measured):
    took, delay = measured
    print(f"{what:24} {len(took):6} calls   p50 {1e3 * percentile(took, .5):7.2f} ms   p99 {1e3 * percentile(took, .99):7.2f} ms   "
          f"max {1e3 * max(took):8.2f} ms   waited for a processor {1e3 * delay / len(took):6.3f} ms a call", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--model", default=os.path.join(harness.ROOT, "models/fashion-mnist"))
    parser.add_argument("--worker-nice", type=int)
    options = parser.parse_args()
    print(f"# load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, worker's threads {options.threads}", flush=True)
    with Daemon("--threads", options.threads, model=options.model) as daemon:
        job = daemon.make(steps=2)["id"]
        if options.worker_nice is not None:
            for thread in os.listdir(f"/proc/{daemon.worker_pids()[0]}/task"):
                os.setpriority(os.PRIO_PROCESS, int(thread), os.getpriority(os.PRIO_PROCESS, 0) + options.worker_nice)
        show("GET, idle", timed(daemon, options.seconds / 2, get(job)))
        show("POST, idle", timed(daemon, options.seconds / 4, post))
        loads = [daemon.post({"steps": 1000, "n": 64, "priority": 5}).json["id"] for _ in range(4)]
        eventually(lambda: daemon.get(f"/jobs/{loads[0]}").json["progress"]["done"] > 0, what="a full batch")
        before, began = daemon.get("/metrics").body.decode(), time.monotonic()
        show("GET, saturated", timed(daemon, options.seconds, get(job)))
        show("POST, saturated", timed(daemon, options.seconds, post))
        rows = [float(re.search(r"^denoised_network_rows_total (\S+)", text, re.M)[1]) for text in (before, daemon.get("/metrics").body.decode())]
        print(f"# meanwhile {(rows[1] - rows[0]) / (time.monotonic() - began):.0f} network rows a second", flush=True)


main()
