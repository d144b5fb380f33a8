"""The counts file of the torture: one line for each round, only ever added to, so that many runs add up and an interrupted one costs a round.

Columns, separated by tabs: date (UTC), commit, key, seed, done, failed.

    counts.py FOLDER COMMIT <LOG

adds the TORTURE lines of a part that was run by hand.
"""
import fcntl
import os
import re
import sys
import time

LINE = re.compile(r"^TORTURE key=(\S+) seed=(\d+) done=(\d+) failed=(\d+)\s*$")
COLUMNS = ("date", "commit", "key", "seed", "done", "failed")


class Sum:
    def __init__(self):
        self.done = self.failed = self.rounds = self.next_seed = 0
        self.first = self.last = self.commit = ""


def path_in(folder):
    return os.path.join(folder, "counts.tsv")


def rows(folder):
    """Every whole line; a line cut by a power cut or the header is left out."""
    if not os.path.exists(path_in(folder)):
        return
    with open(path_in(folder), encoding="utf8", errors="replace") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t")
            if line.endswith("\n") and len(cells) == len(COLUMNS) and all(cell.isdigit() for cell in cells[3:]):
                yield (*cells[:3], *map(int, cells[3:]))


def sums(folder):
    """key -> Sum. next_seed lies beyond every seed that was tried."""
    found = {}
    for date, commit, key, seed, done, failed in rows(folder):
        total = found.setdefault(key, Sum())
        total.done += done
        total.failed += failed
        total.rounds += 1
        total.next_seed = max(total.next_seed, seed + max(done, 1))
        total.first, total.last, total.commit = total.first or date, date, commit
    return found


def add(folder, commit, key, seed, done, failed):
    os.makedirs(folder, exist_ok=True)
    with open(path_in(folder), "a+b") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        end = out.seek(0, os.SEEK_END)
        text = "" if end else "\t".join(COLUMNS) + "\n"
        if end:
            out.seek(end - 1)
            text = "" if out.read(1) == b"\n" else "\n"  # the line before was cut
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        out.write((text + "\t".join((date, commit, key, str(seed), str(done), str(failed))) + "\n").encode())
        out.flush()
        os.fsync(out.fileno())


if __name__ == "__main__":
    for match in filter(None, map(LINE.match, sys.stdin)):
        add(sys.argv[1], sys.argv[2], match.group(1), *map(int, match.group(2, 3, 4)))
