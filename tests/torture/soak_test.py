"""A soak of a minute: one of each fault, and what may be said after so short a time. And what a slope is, on series that are known."""
import math
import os
import random
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
from harness import SLOW, Skip, check, run, same, scratch, test  # noqa: E402
import soak_series as series  # noqa: E402

# The daemon's kill comes first: what is looked at is the one that lives from then to the end. Clients that leave come before and after the
# warm-up, since the most connections that there ever were stay in the heap.
FAULTS = "daemon_kill,client_cuts,slow_readers,disk_full,client_cuts,worker_kill,model_swap"


@test
def a_minute_with_a_fault_of_each_kind():
    if SLOW > 1:
        raise Skip("a sanitizer's memory says nothing of growth")
    ended = subprocess.run(["python3", os.path.join(HERE, "soak.py"), "--dir", scratch("soak"), "--minutes", "1", "--every", "5", "--warm-up", "25",
                            "--short", "--load", "0.25", "--seed", "1", "--faults", FAULTS], capture_output=True, text=True, check=False)
    print("\n".join(ended.stdout.splitlines()[-20:]))
    check(ended.returncode == 0, f"status {ended.returncode}: {ended.stdout[-1500:]} {ended.stderr[-1500:]}")
    check("ledger: jobs" in ended.stdout and "lost 0 unexpected 0" in ended.stdout, "no ledger was judged")


def samples(lives, pace, noise, dice):
    """A process after another, each a minute of warm-up and then `pace` a second from a level of its own."""
    made, at = [], 0.0
    for number, seconds in enumerate(lives):
        level = dice.uniform(1000, 5000)
        for second in range(seconds):
            warm = 3000 * min(second, 60) / 60
            made.append({"seconds": at, "daemon": number, "daemon_kb": level + warm + pace * second + dice.gauss(0, noise)})
            at += 1
    return made


@test
def a_slope_is_found_across_restarts_and_its_error_is_honest():
    dice = random.Random(5)
    within = 0
    for _ in range(200):
        pace = dice.uniform(-1, 1)
        found, error, count = series.slope(series.blocks(samples((300, 90, 240, 70, 400), pace, 200, dice), "daemon", "daemon_kb", 62))
        check(count >= 30, f"{count} blocks")
        within += abs(found - pace) < 2 * error
    check(180 <= within <= 200, f"{within} of 200 slopes lie within two errors; 190 would be expected")


@test
def what_is_too_short_says_so():
    dice = random.Random(6)
    _, error, count = series.slope(series.blocks(samples((100,), 1, 0, dice), "daemon", "daemon_kb", 62))
    same(count, 3, "blocks")
    check(error < 1e-6, f"error {error} of a straight line")
    _, error, count = series.slope(series.blocks(samples((92,), 1, 0, dice), "daemon", "daemon_kb", 62))
    same((error, count), (math.inf, 2), "error and blocks of two blocks, whose line has no rest")
    same(series.slope(series.blocks(samples((50, 60), 1, 0, dice), "daemon", "daemon_kb", 62)), (0.0, math.inf, 0), "of no block")


run(__name__)
