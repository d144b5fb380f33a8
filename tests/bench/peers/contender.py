"""What every contender does with its work: warms up, says so, then answers one line of stdin with one line of JSON. Standard library only.

    go N        N passes; {"wall": seconds, "cpu": the process's seconds}
    save FILE   one pass; its answer as raw 32-bit floats in FILE; {}

A contender that waits sleeps in read(), so that whose turn it is has the machine to itself; the end of stdin ends it.
"""
import json
import os
import sys
import time

WARM_SECONDS = 1.0
WARM_PASSES = 3


def answer(**what):
    channel.write(json.dumps(what) + "\n")
    channel.flush()


def passes(run, count):
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        run()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def serve(run, save, **about):
    """run(): one pass. save(path): one pass, its answer into a file. about: what is told of the contender."""
    began = time.perf_counter()
    passes(run, WARM_PASSES)
    while time.perf_counter() - began < WARM_SECONDS:
        run()
    answer(**about)
    for line in sys.stdin:
        word, value = line.split()
        if word == "go":
            answer(**passes(run, int(value)))
        else:
            save(value)
            answer()


# Libraries print what they like to stdout; the orchestrator reads the descriptor that was there first.
channel = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
