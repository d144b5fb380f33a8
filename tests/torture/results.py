"""Writes what the torture has reached into tests/RESULTS.md, between its two marks: results.py [--dir torture]."""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import counts  # noqa: E402
import parts as project  # noqa: E402

BEGIN, END = "<!-- counts: written by tests/torture/results.py -->", "<!-- end of counts -->"


def table(folder):
    goals = {key: goal for key, _, goal, _ in project.TABLE}
    found = counts.sums(folder)
    keys = [*goals, *sorted(key for key in found if key not in goals)]
    lines = ["| part | done | failed | goal | reached | from | to | last commit |", "| --- | --: | --: | --: | --: | --- | --- | --- |"]
    for key in keys:
        total = found.get(key, counts.Sum())
        goal = goals.get(key, project.FUZZ_GOAL if key.startswith("fuzz_") else None)
        share = f"{100 * min(total.done / goal, 1):.1f} %" if goal else ""
        lines.append(f"| {key} | {total.done:,} | {total.failed} | {f'{goal:,}' if goal else ''} | {share} | {total.first} | {total.last} | "
                     f"{total.commit} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", default="torture")
    parser.add_argument("--file", default="tests/RESULTS.md")
    options = parser.parse_args()
    with open(options.file, encoding="utf8") as text:
        head, _, rest = text.read().partition(BEGIN)
    tail = rest.partition(END)[2]
    with open(options.file, "w", encoding="utf8") as out:
        out.write(f"{head}{BEGIN}\n{table(options.dir)}\n{END}{tail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
