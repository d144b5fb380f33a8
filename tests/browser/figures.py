#!/usr/bin/env python3
"""Figures of the page, printed and never asserted: what watching costs the daemon, and how fast the page paints and answers.

    python3 tests/browser/figures.py [watchers|paint]...        DENOISED names the program. The machine should have nothing else to do.
"""
import contextlib
import os
import selectors
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from harness import FAULTS, ROOT, Daemon, check, eventually  # noqa: E402
from webdriver import Chromium  # noqa: E402

BUILT_IN = os.path.join(ROOT, "models/fashion-mnist")
WATCHERS = 64
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """CPU time of these processes so far."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf8") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


class Streams:
    """Event streams of the daemon, all read by one thread as they come."""

    def __init__(self, daemon, paths):
        self.poll, self.bytes, self.previews, self.open = selectors.DefaultSelector(), 0, 0, 0
        for path in paths:
            connection = socket.create_connection(("127.0.0.1", daemon.port))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
            connection.setblocking(False)
            self.poll.register(connection, selectors.EVENT_READ)
            self.open += 1

    def read(self, seconds):
        """Reads for so long, or until every stream has ended; whether one is open."""
        end = time.monotonic() + seconds
        while self.open and (left := end - time.monotonic()) > 0:
            for key, _ in self.poll.select(left):
                with contextlib.suppress(ConnectionError):
                    data = key.fileobj.recv(1 << 18)
                    self.bytes += len(data)
                    self.previews += data.count(b"event: preview") + data.count(b"event:preview")
                    if data and not data.endswith(b"0\r\n\r\n"):
                        continue
                self.poll.unregister(key.fileobj)
                key.fileobj.close()
                self.open -= 1
        return self.open > 0


def one_run(daemon, bodies, watched):
    """CPU and wall seconds that these jobs took; watched: the number of streams on them, spread evenly."""
    pids = [daemon.process.pid, *daemon.worker_pids()]
    cpu, began = cpu_seconds(pids), time.monotonic()
    posted = daemon.post(bodies)
    check(posted.status == 202, posted.body[:300])
    ids = [job["id"] for job in posted.json["jobs"]]
    streams = Streams(daemon, [f"/jobs/{ids[i % len(ids)]}/events" for i in range(watched)])
    while streams.read(600):
        pass
    daemon.wait(ids[-1], 600)
    for job_id in ids:
        daemon.wait(job_id, 600)
    return cpu_seconds(pids) - cpu, time.monotonic() - began, streams


def watchers():
    """A worker that sleeps after each step: as many steps a second watched or not, and little of the engine's own noise in the difference."""
    paced = {"DENOISED_FAULT": "step_k:1:slow25"}
    with Daemon("--snapshot-every", "600", model=BUILT_IN, program=FAULTS, environment=paced) as daemon:
        cases = {"one job, all watch it": (1, {"steps": 600, "n": 4, "sampler": "ddim"}), "64 jobs, each watches its own": (WATCHERS, {"steps": 60, "n": 1, "sampler": "ddim"})}
        for name, (jobs, shape) in cases.items():
            bodies = [{"class_label": i % 10, "seed": str(i), **shape} for i in range(jobs)]
            one_run(daemon, bodies, 0)  # the pages of the model, the table of ticks
            for turn in range(3):
                quiet, wall, _ = one_run(daemon, bodies, 0)
                busy, watched_wall, streams = one_run(daemon, bodies, WATCHERS)
                extra = (busy - quiet) / watched_wall
                print(f"{name}, run {turn + 1}: {quiet:.2f} s of CPU in {wall:.2f} s unwatched, {busy:.2f} s in {watched_wall:.2f} s with {WATCHERS} streams "
                      f"({streams.previews / watched_wall:.0f} previews/s, {streams.bytes / watched_wall / 1024:.0f} KiB/s): {100 * extra:.1f} % of a core", flush=True)


PAINTS = "return Object.fromEntries(performance.getEntriesByType('paint').map((one) => [one.name, one.startTime]))"
LISTEN = """window.answers = []; new PerformanceObserver((list) => { for (const one of list.getEntries()) answers.push([one.name, one.duration, one.processingStart - one.startTime]); })
  .observe({type: 'event', durationThreshold: 16});"""
FRAME = """const began = performance.now(); return new Promise((done) => { document.querySelector(arguments[0]).click();
  requestAnimationFrame(() => { const channel = new MessageChannel(); channel.port1.onmessage = () => done(performance.now() - began); channel.port2.postMessage(0); }); })"""


def spread(values):
    values = sorted(values)
    return f"{values[len(values) // 2]:.0f} ms (from {values[0]:.0f} to {values[-1]:.0f}, {len(values)} times)" if values else "none"


def first_paints(chromium, address, slower, times):
    """A load of the page with nothing in the browser's cache, and one with all of it; before them what one line of text takes: the browser's own part."""
    chromium.throttle(slower)
    floor = []
    for _ in range(times):
        chromium.open(address + "/healthz")
        floor.append(eventually(lambda: chromium.js(PAINTS).get("first-paint"), what="a paint"))
    print(f"CPU {slower}x slower, one line of text in place of the page: first paint {spread(floor)}", flush=True)
    for cached in (False, True):
        found = {"first-paint": [], "first-contentful-paint": []}
        for _ in range(times):
            chromium.open("about:blank")
            if not cached:
                chromium.cdp("Network.clearBrowserCache")
            chromium.open(address)
            paints = eventually(lambda: (got := chromium.js(PAINTS)) if "first-contentful-paint" in chromium.js(PAINTS) else None, what="a paint")
            for name in found:
                found[name].append(paints[name])
        print(f"CPU {slower}x slower, {'cached' if cached else 'nothing cached'}: first paint {spread(found['first-paint'])}, with contents {spread(found['first-contentful-paint'])}", flush=True)
    chromium.throttle(1)


def answers(chromium, address, slower):
    """From a press to the next frame; and what the browser's own Event Timing has of presses and keys (from 16 ms on, in steps of 8)."""
    chromium.open(address)
    eventually(lambda: chromium.js("return document.querySelectorAll('[data-testid=class]').length > 1"), what="the form")
    chromium.throttle(slower)
    chromium.js(LISTEN)
    frames = [chromium.js(FRAME, selector) for _ in range(5) for selector in ('[data-testid="class"]:nth-child(3)', '[data-testid="dice"]', '[data-testid="lock"]', '[data-testid="smooth"]')]
    for index in (2, 5, 7, 1):
        chromium.click(chromium.find(f'[data-testid="class"][data-index="{index}"]')[0])
    chromium.type(chromium.find('[data-testid="class-search"]')[0], "sneak")
    chromium.click(chromium.find('[data-testid="generate"]')[0])
    chromium.click(chromium.find('[data-testid="theme"]')[0])
    eventually(lambda: chromium.js("return document.querySelectorAll('[data-testid=picture]').length > 0"), what="a picture")
    told = chromium.js("return answers")
    chromium.throttle(1)
    print(f"CPU {slower}x slower: a press to the next frame {spread(frames)}; Event Timing, until painted {spread([one[1] for one in told])}, until heard {spread([one[2] for one in told])}", flush=True)


def paint():
    chromium = Chromium()
    preferred(chromium.driver.pid)
    with Daemon(model=BUILT_IN) as daemon:
        chromium.open(daemon.address)
        for slower in (1, 4):
            first_paints(chromium, daemon.address, slower, 7)
        for slower in (1, 4):
            answers(chromium, daemon.address, slower)
    chromium.close()


def preferred(pid):
    """FIGURES_PREFERRED=1: on a machine that others use, the scheduler prefers the session of this process."""
    if os.environ.get("FIGURES_PREFERRED") == "1":
        with open(f"/proc/{pid}/autogroup", "w", encoding="utf8") as group:
            group.write("-20")


def main():
    parts = {"watchers": watchers, "paint": paint}
    preferred(os.getpid())
    for name in sys.argv[1:] or parts:
        parts[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
