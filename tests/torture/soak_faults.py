"""The soak's faults, by name. Each is a function of (soak) that brings its fault about and leaves the service to get over it."""
import errno
import os
import signal
import socket
import time

FAULTS = {}
# How often each is drawn, beside the others. A new daemon begins a new series of its memory, so these are rare.
WEIGHTS = {"daemon_kill": 1, "daemon_term": 1, "worker_freeze": 1}
USUAL_WEIGHT = 3
SOCKETS = 40


def fault(function):
    FAULTS[function.__name__] = function
    return function


def signal_worker(soak, number):
    for pid in soak.daemon.worker_pids():
        try:
            os.kill(pid, number)
            return pid
        except ProcessLookupError:
            pass
    return None


@fault
def worker_kill(soak):
    signal_worker(soak, signal.SIGKILL)


@fault
def worker_stop(soak):
    """Silent for a while, and then it goes on."""
    pid = signal_worker(soak, signal.SIGSTOP)
    soak.pause(min(5, soak.options.every / 2))
    if pid:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


@fault
def worker_freeze(soak):
    """Stopped for good: the daemon has to notice, kill it and start another."""
    signal_worker(soak, signal.SIGSTOP)


@fault
def daemon_kill(soak):
    soak.restart(signal.SIGKILL)


@fault
def daemon_term(soak):
    soak.restart(signal.SIGTERM)


def connections(soak, text):
    made = []
    for _ in range(SOCKETS):
        try:
            connection = socket.create_connection(("127.0.0.1", soak.daemon.port), 5)
            connection.sendall(text)
            made.append(connection)
        except OSError:
            break
    return made


@fault
def client_cuts(soak):
    """Clients that leave within a head, within a body, and while they wait for an answer or an event."""
    asks = soak.load.ledger.asks
    job = asks[-1].ids if asks else None
    path = f"/jobs/{job[0]}" if job else "/jobs"
    host = "Host: localhost\r\n"
    for text in ("GET /jobs HTTP/1.1\r\nHost: local",
                 f"POST /generate HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{{",
                 f"GET {path} HTTP/1.1\r\n{host}Prefer: wait=300\r\n\r\n", f"GET {path}/events HTTP/1.1\r\n{host}\r\n"):
        for connection in connections(soak, text.encode()):
            connection.close()


@fault
def slow_readers(soak):
    """They ask for much and take a few bytes a second, and others send their head as slowly."""
    asked = connections(soak, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 8)
    heads = connections(soak, b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    until = time.monotonic() + min(20, soak.options.every * 2 / 3)
    while time.monotonic() < until and not soak.stopping:
        for connection in asked + heads:
            try:
                connection.setblocking(False)
                if connection in heads:
                    connection.send(b"x")
                else:
                    connection.recv(16)
            except OSError:
                pass
        time.sleep(1)
    for connection in asked + heads:
        connection.close()


@fault
def disk_full(soak):
    """The file system of the data folder has no byte left for some seconds."""
    path = os.path.join(soak.mount, "filler")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    until = time.monotonic() + min(8, soak.options.every / 2)
    block = bytes(1 << 20)
    while time.monotonic() < until:  # what is freed meanwhile is taken as well
        try:
            os.write(descriptor, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            block = block[:max(512, len(block) // 2)]
            time.sleep(0.05)
    os.close(descriptor)
    os.unlink(path)


@fault
def model_swap(soak):
    """Jobs of the other model, which the first has to make room for."""
    soak.load.model = "other" if soak.load.model == "tiny" else "tiny"


def weights(names):
    return [WEIGHTS.get(name, USUAL_WEIGHT) for name in names]
