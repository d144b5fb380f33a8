"""What the soak samples, and what may be said of a series: how fast it grows, and how sure that is."""
import math
import os
import re

COLUMNS = ("seconds", "daemon", "daemon_kb", "daemon_fds", "daemon_threads", "worker", "worker_kb", "worker_fds", "wal_bytes", "data_bytes",
           "accepted", "fault")
BLOCK_SECONDS = 15  # samples within it are not independent: their mean counts as one
DAY = 86400.0


def resident_kb(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="utf8") as status:
            found = re.search(r"VmRSS:\s+(\d+)", status.read())
        return int(found.group(1)) if found else None
    except OSError:
        return None


def entries(pid, folder):
    try:
        return len(os.listdir(f"/proc/{pid}/{folder}"))
    except OSError:
        return None


def folder_bytes(path):
    total = 0
    for where, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_blocks * 512
            except OSError:
                pass
    return total


def blocks(samples, process, value, warm_up):
    """{process: [(seconds, mean of value)]} of every block that lies whole behind the warm-up of its process."""
    found = {}
    first = {}
    for one in samples:
        if one[process] is None or one[value] is None:
            continue
        start = first.setdefault(one[process], one["seconds"])
        age = one["seconds"] - start - warm_up
        if age >= 0:
            found.setdefault(one[process], {}).setdefault(int(age // BLOCK_SECONDS), []).append((one["seconds"], one[value]))
    series = {}
    for name, parts in found.items():
        whole = [points for points in parts.values() if len(points) >= BLOCK_SECONDS / 2]
        series[name] = [(sum(t for t, _ in points) / len(points), sum(v for _, v in points) / len(points)) for points in whole]
    return {name: points for name, points in series.items() if len(points) >= 2}


def slope(series):
    """(growth a second, its standard error, blocks): least squares with a level of its own for each process and one slope for all.
    The error is infinite where there are too few blocks to tell."""
    sxx = sxy = 0.0
    centred = []
    for points in series.values():
        mean_t = sum(t for t, _ in points) / len(points)
        mean_v = sum(v for _, v in points) / len(points)
        for t, v in points:
            centred.append((t - mean_t, v - mean_v))
            sxx += (t - mean_t) ** 2
            sxy += (t - mean_t) * (v - mean_v)
    free = len(centred) - len(series) - 1
    if sxx == 0:
        return 0.0, math.inf, len(centred)
    found = sxy / sxx
    if free < 1:
        return found, math.inf, len(centred)
    rest = sum((v - found * t) ** 2 for t, v in centred)
    return found, math.sqrt(rest / free / sxx), len(centred)
