#!/usr/bin/env python3
"""The house rules, as a test: includes point one way, files and functions stay small, nothing is promised unfinished.

Prints PASS/FAIL lines like every test of this project. Run from the repository root.
"""
import os
import re
import subprocess
import sys

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = 160

# A room may include itself and every room to its left. train and evaluate are siblings in rank but for evaluate's use of
# the trainer's classifier entry.
ROOMS = ["engine/base", "engine/format", "engine/plan", "engine/backend", "engine/model", "engine/diffusion", "engine/batch",
         "engine/train", "engine/evaluate", "engine", "api", "server"]
BANNED = {"strcpy": "snprintf", "strcat": "snprintf", "sprintf": "snprintf", "gets": "getline", "strtok": "strtok_r",
          "system": "posix_spawn", "popen": "posix_spawn", "alloca": "an arena"}
ENGINE_FORBIDS = ["microhttpd", "sqlite3"]
CUDA_ROOM, NVIDIA_ROOM = "engine/backend/cuda/", "engine/backend/cuda/nvidia/"


def files():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h", "*.cu", "*.cuh"],
                            capture_output=True, text=True, check=True)
    return sorted(name for name in listed.stdout.split() if os.path.exists(name))


def room_of(path):
    parts = path.split("/")
    if parts[0] == "engine":
        return "engine" if len(parts) == 2 else "/".join(parts[:2])
    return parts[0]


def resolve(include, includer):
    for candidate in (os.path.join(os.path.dirname(includer), include), os.path.join("engine", include), include,
                      os.path.join("tests/cuda/emulator", include)):
        if os.path.exists(candidate):
            return os.path.normpath(candidate)
    return None


def upward_includes(sources):
    problems = []
    for path in sources:
        room = room_of(path)
        if room not in ROOMS:
            continue
        text = open(path, encoding="utf8").read()
        for include in re.findall(r'^#include "([^"]+)"', text, re.M):
            target = resolve(include, path)
            if target is None:
                problems.append(f"{path}: cannot find {include}")
            elif room_of(target) in ROOMS and ROOMS.index(room_of(target)) > ROOMS.index(room):
                problems.append(f"{path} includes {target}: upward")
        if room.startswith("engine"):
            for word in ENGINE_FORBIDS:
                if re.search(rf'^#include <[^>]*{word}', text, re.M):
                    problems.append(f"{path}: the engine knows no {word}")
    return problems


def cuda_includes(sources):
    """CUDA's headers belong to its back end, those of cuDNN and cuBLASLt to one folder of it; and nobody outside includes its headers."""
    problems = []
    for path in sources:
        for line in re.findall(r"^#include .*", open(path, encoding="utf8").read(), re.M):
            if re.search(r'<(cudnn|cublas|nvrtc|nvml)', line) and not path.startswith(NVIDIA_ROOM):
                problems.append(f"{path}: {line}: for {NVIDIA_ROOM} alone")
            if re.search(r'<cuda|"backend/cuda/', line) and not path.startswith(CUDA_ROOM):
                problems.append(f"{path}: {line}: for {CUDA_ROOM} alone")
    return problems


def functions(path):
    """Yields (name line, length) of every function body: a brace in column 0 closes what an opening one began."""
    start = None
    lines = open(path, encoding="utf8").read().split("\n")
    for number, line in enumerate(lines):
        if line.startswith("{"):
            start = number
        elif start is None and re.match(r"^[A-Za-z_].*\)\s*\{\s*$", line) and not re.match(r"^(struct|enum|union|typedef|extern)", line):
            start = number
        elif line.startswith("}") and start is not None:
            yield start + 1, number - start + 1
            start = None


def long_functions(sources):
    return [f"{path}:{line}: {length} lines" for path in sources for line, length in functions(path) if length > FUNCTION_LINES_MAX]


def long_files(sources):
    counted = ((path, open(path, encoding="utf8").read().count("\n")) for path in sources)
    return [f"{path}: {count} lines" for path, count in counted if count > FILE_LINES_MAX]


def matching(sources, pattern, why):
    problems = []
    for path in sources:
        for number, line in enumerate(open(path, encoding="utf8").read().split("\n"), 1):
            if re.search(pattern, line):
                problems.append(f"{path}:{number}: {why}")
    return problems


def banned_calls(sources):
    problems = []
    for name, instead in BANNED.items():
        problems += matching(sources, rf"(?<![\w.>]){name}\(", f"{name} is banned: use {instead}")
    return problems


def long_lines(sources):
    return matching(sources, rf"^.{{{LINE_COLUMNS_MAX + 1},}}$", f"over {LINE_COLUMNS_MAX} columns")


def unfinished(sources):
    return matching(sources, r"\b(TODO|FIXME|XXX|HACK)\b", "promises something unfinished")


def lone_externs(sources):
    return matching([p for p in sources if p.endswith(".c")], r"^extern (?!const unsigned char|const char)", "declare it in a header")


def main():
    everything = files()
    house = [path for path in everything if path.split("/")[0] in ("engine", "api", "server", "examples")]
    rules = {
        "includes_point_one_way": upward_includes(house),
        "cuda_stays_in_its_room": cuda_includes(house),
        "functions_are_short": long_functions(house),
        "files_are_one_concept": long_files(everything),
        "banned_calls": banned_calls(house),
        "lines_fit": long_lines(everything),
        "nothing_unfinished": unfinished(everything),
        "no_lone_externs": lone_externs(house),
    }
    failed = False
    for name, problems in rules.items():
        if problems:
            failed = True
            print(f"FAIL tidy_{name}: {len(problems)}: " + "; ".join(problems[:12]))
        else:
            print(f"PASS tidy_{name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
