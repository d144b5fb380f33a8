#!/usr/bin/env python3
"""What a thousand slow sockets cost everybody else: the 99th percentile of GET /jobs/{id}, without and beside them, in pairs of rounds.

    python3 tests/bench/bench_slow_sockets.py [--calls 100000] [--sockets 1000] [--rounds 3]

A third of the sockets each drips a head, drips a body, or reads an event stream a byte at a time; those that are cut come back. A figure
counts on a machine that does nothing else.
"""
import argparse
import os
import resource
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import Daemon, socket, threading, time  # noqa: E402

HEAD = b"GET /healthz HTTP/1.1\r\nHost: local"
BODY = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def calls(daemon, job, count):
    """Seconds of each call, on one connection."""
    connection, took = daemon.connect(), []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", f"/jobs/{job}")
        connection.getresponse().read()
        took.append(time.perf_counter() - began)
    connection.close()
    return took


class Drips(threading.Thread):
    """Slow sockets; each gets its byte once a second."""

    def __init__(self, daemon, job, number):
        super().__init__(daemon=True)
        stream = f"GET /jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.port, self.over, self.again = daemon.port, False, 0
        kinds = [(HEAD, b"a", 0), (BODY, b" ", 0), (stream, b"", 1)]
        self.sockets = [(self.connect(first), first, more, take) for first, more, take in (kinds[i % 3] if i < 270 else kinds[i % 2] for i in range(number))]

    def connect(self, first):
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        connection.sendall(first)
        connection.setblocking(False)
        return connection

    def run(self):
        while not self.over:
            for i, (connection, first, more, take) in enumerate(self.sockets):
                try:
                    if more:
                        connection.send(more)
                    if take and connection.recv(take) == b"":
                        raise ConnectionError
                except BlockingIOError:
                    pass
                except OSError:
                    connection.close()
                    self.sockets[i] = (self.connect(first), first, more, take)
                    self.again += 1
                time.sleep(1 / len(self.sockets))
        for connection, *_ in self.sockets:
            connection.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100000)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    high = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(high, 8192), high))
    ratios = []
    with Daemon() as daemon:
        job = daemon.make(steps=1, seed=1)["id"]
        calls(daemon, job, o.calls)
        for number in range(o.rounds):
            alone = calls(daemon, job, o.calls)
            drips = Drips(daemon, job, o.sockets)
            drips.start()
            time.sleep(2)
            beside = calls(daemon, job, o.calls)
            drips.over = True
            drips.join()
            time.sleep(3)
            ratios.append(percentile(beside, 0.99) / percentile(alone, 0.99))
            print(f"round {number + 1}: p50 {1e3 * statistics.median(alone):.2f} ms, p99 {1e3 * percentile(alone, 0.99):.2f} ms alone; p50 "
                  f"{1e3 * statistics.median(beside):.2f} ms, p99 {1e3 * percentile(beside, 0.99):.2f} ms beside {o.sockets} slow sockets; "
                  f"{drips.again} came back")
    print(f"p99 beside {o.sockets} slow sockets: {statistics.median(ratios):.2f} times that alone (median of {o.rounds}); goal 2.00")


main()
