"""The torture's runner keeps its counts: over runs, over failures, over a cut line; on parts made for the purpose."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import ROOT, check, run, same, scratch, test  # noqa: E402
import counts  # noqa: E402

# Arguments: KEY N --torture SEED COUNT. Fails at seed N as a part does: says so with the seed and goes on to its last line.
PART = """
import sys
at, seed, count = int(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5])
print("TORTURE key=other seed=1 done=99999 failed=0")
failed = seed <= at < seed + count
if failed:
    print(f"seed={at} commit=x broke")
print(f"TORTURE key={sys.argv[1]} seed={seed} done={count} failed={int(failed)}")
sys.exit(failed)
"""


def part(key, fails_at=0, goal=1000, first=5):
    path = os.path.join(scratch("part"), "part.py")
    with open(path, "w", encoding="utf8") as out:
        out.write(PART)
    return [key, ["python3", path, key, str(fails_at), "--torture"], goal, first]


def torture(folder, parts, *more):
    table = os.path.join(folder, "parts.json")
    with open(table, "w", encoding="utf8") as out:
        json.dump(parts, out)
    words = ["python3", os.path.join(ROOT, "tests/torture/torture.py"), "--dir", os.path.join(folder, "torture"), "--parts", table, "--rounds", "4"]
    return subprocess.run([*words, *more], capture_output=True, text=True, cwd=ROOT, check=False)


def rows(folder):
    return list(counts.rows(os.path.join(folder, "torture")))


def in_order(found, key):
    """Seeds of one part: each round begins where the one before ended."""
    mine = [row for row in found if row[2] == key]
    check(mine, f"no round of {key}")
    for before, after in zip(mine, mine[1:]):
        same(after[3], before[3] + before[4], f"first seed of a round of {key}")
    return sum(row[4] for row in mine)


@test
def runs_add_up():
    folder = scratch("torture")
    for number in range(2):
        ended = torture(folder, [part("one"), part("two")])
        same(ended.returncode, 0, f"exit status of run {number}: {ended.stdout}{ended.stderr}")
    found = rows(folder)
    same(found[0][3], 1, "the first seed")
    for key in ("one", "two"):
        total = in_order(found, key)
        check(f"{total:,}" in ended.stdout.split("all runs")[1], f"the sum {total} of {key} is not told:\n{ended.stdout}")
    check("other" not in {row[2] for row in found}, "a line with another key was counted")


@test
def a_failed_part_stops_and_the_others_go_on():
    folder = scratch("torture")
    ended = torture(folder, [part("good"), part("bad", fails_at=7)])
    same(ended.returncode, 1, "exit status")
    found = rows(folder)
    bad = [row for row in found if row[2] == "bad"]
    same(sum(row[5] for row in bad), 1, "failures counted")
    check(bad[-1][5] == 1, "a round followed the failed one")
    check(any("replay: " in line and line.endswith("--torture 7 1") for line in ended.stdout.splitlines()), f"no replay command:\n{ended.stdout}")
    check(len([row for row in found if row[2] == "good"]) > 1, "the good part did not go on")
    torture(folder, [part("bad", fails_at=7)])
    in_order(rows(folder), "bad")
    check(len([row for row in rows(folder) if row[2] == "bad"]) > len(bad), "the failed part does not go on in the next run")


@test
def a_part_without_a_line_or_an_end_has_failed():
    folder = scratch("torture")
    quiet = ["quiet", ["python3", "-c", "print('all is well')"], None, 1]
    hangs = ["hangs", ["python3", "-c", "import time; time.sleep(1000)"], None, 1]
    ended = torture(folder, [quiet])
    same(ended.returncode, 1, "exit status")
    check("no TORTURE line" in ended.stdout, ended.stdout)
    ended = torture(folder, [hangs], "--patience", "1")
    same(ended.returncode, 1, "exit status")
    check("hung" in ended.stdout, ended.stdout)
    same([row[2:] for row in rows(folder)], [("quiet", 1, 0, 1), ("hangs", 1, 0, 1)], "rounds")


@test
def a_part_that_cannot_run_here_is_left_out():
    folder = scratch("torture")
    idle = ["idle", ["python3", "-c", "print('SKIP idle: no compiler'); print('TORTURE key=idle seed=1 done=0 failed=0')"], None, 1]
    ended = torture(folder, [idle, part("one")])
    same(ended.returncode, 0, "exit status")
    check("SKIP idle: SKIP idle: no compiler" in ended.stdout, ended.stdout)
    same({row[2] for row in rows(folder)}, {"one"}, "parts counted")


@test
def a_cut_line_is_left_out():
    folder = scratch("torture")
    where = os.path.join(folder, "torture")
    counts.add(where, "abc", "one", 1, 10, 0)
    with open(counts.path_in(where), "a", encoding="utf8") as out:
        out.write("2026-01-01T00:00:00Z\tabc\tone\t11\t9")
    counts.add(where, "abc", "one", 11, 10, 2)
    by_hand = ["python3", os.path.join(ROOT, "tests/torture/counts.py"), where, "abc"]
    subprocess.run(by_hand, input="some line\nTORTURE key=two seed=7 done=3 failed=1\n", text=True, check=True)
    other = counts.sums(where)["two"]
    same((other.done, other.failed, other.next_seed), (3, 1, 10), "a line of a part run by hand")
    total = counts.sums(where)["one"]
    same((total.done, total.failed, total.next_seed, total.rounds), (20, 2, 21, 2), "sums")


@test
def the_results_are_written_between_their_marks():
    folder = scratch("torture")
    page = os.path.join(folder, "RESULTS.md")
    counts.add(folder, "abc", "kills", 1, 2500, 0)
    with open(os.path.join(ROOT, "tests/RESULTS.md"), encoding="utf8") as text, open(page, "w", encoding="utf8") as out:
        out.write(text.read() + "after\n")
    for _ in range(2):
        subprocess.run(["python3", os.path.join(ROOT, "tests/torture/results.py"), "--dir", folder, "--file", page], check=True)
    with open(page, encoding="utf8") as text:
        lines = text.read().splitlines()
    same([line.count("| 2,500 | 0 | 10,000 | 25.0 % |") for line in lines if line.startswith("| kills ")], [1], "rows of kills")
    same(lines[-1], "after", "what stands after the counts")


run(__name__)
