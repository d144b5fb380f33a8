"""What latencies to expect: the policies played through with a table of tick durations, without a machine. All requests are guided, two rows each."""
import sys
from bisect import bisect_left

from machine import quantile
from traffic import arrivals, drawn, rows_of


def tick_seconds(table, rows):
    """table: [[rows, milliseconds], ...] by rising rows; between two entries in proportion, beyond the last at its pace."""
    at = bisect_left([entry[0] for entry in table], rows)
    if at == 0:
        return table[0][1] / 1000
    if at == len(table):
        return table[-1][1] / table[-1][0] * rows / 1000
    (few, low), (many, high) = table[at - 1], table[at]
    return (low + (high - low) * (rows - few) / (many - few)) / 1000


def latencies(policy, table, rows_max, requests, times):
    """Seconds from arrival to the last step of each."""
    cap = 1 if policy == "single" else max(1, rows_max // 2)
    left = [rows_of(request) // 2 for request in requests]
    now, arrived, waiting, running, found = 0.0, 0, [], [], []
    while arrived < len(times) or waiting or running:
        if not waiting and not running:
            now = max(now, times[arrived])
        while arrived < len(times) and times[arrived] <= now:
            waiting.append(arrived)
            arrived += 1
        if policy != "request" or not running:
            room = cap - len(running)
            running, waiting = running + waiting[:room], waiting[room:]
        now += tick_seconds(table, 2 * len(running))
        for i in running:
            left[i] -= 1
        found += [now - times[i] for i in running if left[i] == 0]
        running = [i for i in running if left[i] > 0]
    return found


def predicted(policy, table, rows_max, requests, times):
    found = latencies(policy, table, rows_max, requests, times)
    return {name: quantile(found, share) for name, share in (("p50", .5), ("p95", .95), ("p99", .99))}


def scaled(table, rows_per_second):
    """The same table at the pace that one at a time was measured to have: two rows a tick."""
    factor = 2 / rows_per_second / tick_seconds(table, 2)
    return [[rows, milliseconds * factor] for rows, milliseconds in table]


def main():
    """predict.py 1:1.7,2:2.9,8:11.2,16:20.8 [ARRIVALS]: rows and milliseconds of a tick; medians over nine draws of arrivals."""
    table = [[int(rows), float(ms)] for rows, ms in (entry.split(":") for entry in sys.argv[1].split(","))]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    kinds = [("single", 2), ("request", 16)] + [("continuous", rows) for rows in (4, 8, 16, 32)]
    print(f"latency p50, p95 of {count} arrivals in seconds, and p95 beside one at a time")
    for load in (0.5, 0.8, 1.0, 1.5):
        found = {kind: [] for kind in kinds}
        for seed in range(9):
            requests = drawn(seed, count, 10)
            gap = sum(map(rows_of, requests)) / count / 2 * tick_seconds(table, 2) / load
            for policy, rows_max in kinds:
                found[policy, rows_max].append(predicted(policy, table, rows_max, requests, [t * gap for t in arrivals(seed, count)]))
        p50, p95 = ({kind: quantile([one[name] for one in found[kind]], 0.5) for kind in kinds} for name in ("p50", "p95"))
        for kind in kinds:
            print(f"  load {load} {kind[0]:10} {kind[1]:2} rows: {p50[kind]:6.2f} {p95[kind]:6.2f}   {p95[kind] / p95['single', 2]:.2f}")


if __name__ == "__main__":
    main()
