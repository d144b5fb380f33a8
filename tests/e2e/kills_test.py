"""kill -9 at named points (server/fault.h) under a load of clients: nothing acknowledged is lost, nothing comes twice, every picture is right.

`--torture SEED COUNT` kills COUNT times, in chapters seeded SEED, SEED+1, ...; `--torture SEED 1` repeats chapter SEED.
"""
import subprocess
import sys
import traceback

from harness import Daemon, ROOT, SLOW, check, run, test
from kills_chapter import Chapter, Totals
from kills_workload import undisturbed

KILLS = 200 if SLOW == 1 else 50 if SLOW < 10 else 25  # a sanitizer's build is slow
_pictures = {}


def pictures():
    if not _pictures:
        with Daemon() as daemon:
            _pictures.update(undisturbed(daemon))
    return _pictures


def commit():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def chapters(seed, kills):
    """(totals, chapters that failed). A failure says how to repeat it."""
    totals, failed = Totals(), 0
    right = pictures()
    while totals.kills < kills:
        try:
            Chapter(seed, right, totals).run()
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the finding
            failed += 1
            totals.kills += 1  # so that it ends
            print(f"seed={seed} commit={commit()} {type(error).__name__}: {error}\n  again: python3 tests/e2e/kills_test.py --torture {seed} 1", flush=True)
            traceback.print_exc()
            if failed == 3:
                break
        seed += 1
    return totals, failed


@test
def killed_at_named_points_nothing_is_lost():
    totals, failed = chapters(1, KILLS)
    print(totals)
    check(not failed, f"{failed} chapters failed")
    used = sorted(totals.ready_cpu)
    check(used[len(used) // 2] < 5 * SLOW, f"a start usually computes for {used[len(used) // 2]:.1f} s, whatever was killed before")


def torture(seed, count):
    totals, failed = chapters(seed, count)
    print(totals)
    print(f"TORTURE key=kills seed={seed} done={totals.kills} failed={failed}")
    return 1 if failed else 0


if len(sys.argv) == 4 and sys.argv[1] == "--torture":
    sys.exit(torture(int(sys.argv[2]), int(sys.argv[3])))
run(__name__)
