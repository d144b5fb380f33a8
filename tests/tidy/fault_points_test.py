"""Fault points (server/fault.h): the table in server/README.md, the sources and the kill test name the same ones, and the program has none."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("DENOISED", os.path.join(ROOT, "build", "denoised"))
FAULTS = os.path.join(os.path.dirname(PROGRAM), "denoised-faults")
failed = False


def say(name, problem):
    global failed
    failed |= bool(problem)
    print(f"FAIL {name}: {problem}" if problem else f"PASS {name}")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf8") as file:
        return file.read()


def in_sources():
    """{name: files}"""
    points = {}
    for folder, _, names in os.walk(os.path.join(ROOT, "server")):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), ROOT)
            if name.endswith(".c") and path != "server/fault.c":
                for point in re.findall(r'\bfault_point\("([a-z0-9_]+)"\)', read(path)):
                    points.setdefault(point, []).append(path)
    return points


def words(path):
    """Every zero-ended word of a program's bytes: what a constant string of one word looks like there, also as the end of a longer one."""
    with open(path, "rb") as file:
        return {word.decode() for word in re.findall(rb"(?<![A-Za-z0-9_/% .-])([A-Za-z0-9_]{4,})\0", file.read())}


def differences(a, b, what_a, what_b):
    lines = [f"{name} is in {what_a}, not in {what_b}" for name in sorted(a - b)]
    return "; ".join(lines + [f"{name} is in {what_b}, not in {what_a}" for name in sorted(b - a)])


def test_agreement(points):
    table = set(re.findall(r"^\| `([a-z0-9_]+)` \|", read("server", "README.md"), re.M))
    say("fault_points_are_in_the_table", differences(set(points), table, "the sources", "server/README.md"))
    kills = os.path.join("tests", "e2e", "kills_points.py")
    named = set(re.findall(r'^    "([a-z0-9_]+)":', read(kills), re.M))
    say("fault_points_are_killed_at", differences(set(points), named, "the sources", kills))


def test_programs(points):
    plain = words(PROGRAM)
    found = sorted(set(points) & plain) + sorted(word for word in plain if word.startswith("DENOISED_FAULT"))
    symbols = subprocess.run(["nm", PROGRAM], capture_output=True, text=True, check=False).stdout
    found += re.findall(r"\bfault_point\b", symbols)
    say("the_program_has_no_fault_points", ", ".join(found))
    with open(FAULTS, "rb") as file:
        faulty = file.read()
    missing = sorted(name for name in [*points, "DENOISED_FAULT"] if name.encode() + b"\0" not in faulty)
    say("denoised_faults_has_them_all", ", ".join(missing))


test_agreement(in_sources())
test_programs(in_sources())
sys.exit(1 if failed else 0)
