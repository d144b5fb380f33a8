"""The parts of the torture: which program runs each, what is to be reached over many runs, and with how much a first round begins.

Every part takes `--torture SEED COUNT`, tries COUNT cases from that seed on, and ends with one line
    TORTURE key=KEY seed=SEED done=N failed=M
done counts what the goal counts: kills, rounds, seeds, operations, executions. A failure has printed its seed and the command that repeats it.
"""
import glob
import os
import re


class Part:
    """command: the words before `SEED COUNT`. goal: done over all runs, None where there is no figure. first: COUNT of the first round."""

    def __init__(self, key, command, goal, first):
        self.key, self.command, self.goal, self.first = key, command, goal, first


# key, where the program may lie (OUT is the variant's build folder), goal, COUNT of the first round
TABLE = [
    ("kills", ["tests/e2e/kills_test.py"], 10000, 20),
    ("power_cuts", ["OUT/tests/store/test_power_cut*", "OUT/tests/server/test_power_cut*", "tests/e2e/power_cut*_test.py"], 5000, 20),
    ("io_faults", ["OUT/tests/store/test_io_fault*", "OUT/tests/server/test_io_fault*", "tests/e2e/io_faults_test.py"], 10000, 20),
    ("simulator", ["OUT/tests/sim/test_sim*"], 5000000, 1000),
    ("resumes", ["tests/e2e/resume_test.py"], 2000, 5),
    ("store_model", ["OUT/tests/store/test_store_model", "OUT/tests/store/test_model"], 50000000, 20000),
    ("hostile", ["tests/e2e/hostile_test.py", "tests/http/hostile_test.py"], None, 100),
]
FUZZ_GOAL, FUZZ_FIRST = 200000000, 200000
FUZZ_RUNNER = "tests/fuzz/torture.sh"


def source_of(program, out):
    """The file that says whether a program knows --torture: the script itself, or the C file that a test was built from."""
    inside = os.path.relpath(program, out)
    return program if inside.startswith("..") else inside + ".c"


def knows_torture(program, out):
    """A program says so itself, or by the header that it takes the words from."""
    source = source_of(program, out)
    if not os.path.exists(source):
        return False
    with open(source, encoding="utf8") as text:
        return re.search(r'--torture|torture\.h"', text.read()) is not None


def found(patterns, out):
    for pattern in patterns:
        for path in sorted(glob.glob(pattern.replace("OUT", out, 1))):
            if os.access(path, os.X_OK) or path.endswith(".py"):
                if knows_torture(path, out):
                    return path
    return None


def fuzz_targets():
    if not os.path.exists(FUZZ_RUNNER):
        return []
    names = (re.fullmatch(r"fuzz_(\w+)\.c", os.path.basename(path)) for path in sorted(glob.glob("tests/fuzz/fuzz_*.c")))
    return [name.group(1) for name in names if name]


def all_parts(out):
    """(parts that can run, keys of those that cannot with the reason)."""
    parts, missing = [], []
    for key, patterns, goal, first in TABLE:
        path = found(patterns, out)
        if path is None:
            missing.append((key, f"no program among {', '.join(patterns)}".replace("OUT", out)))
        else:
            start = ["python3", path] if path.endswith(".py") else [path]
            parts.append(Part(key, [*start, "--torture"], goal, first))
    targets = fuzz_targets()
    if not targets:
        missing.append(("fuzz", f"no {FUZZ_RUNNER}"))
    parts += [Part(f"fuzz_{name}", [FUZZ_RUNNER, name], FUZZ_GOAL, FUZZ_FIRST) for name in targets]
    return parts, missing
