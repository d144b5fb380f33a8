"""Starts real daemons on small models and talks to them. Standard library only.

A test file registers functions with @test and ends with `run(__name__)`; it prints PASS/FAIL/SKIP lines as every test here does.
"""
import atexit
import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("DENOISED", os.path.join(ROOT, "build", "denoised"))
# The same sources with fault points (server/fault.h); build/denoised is a link into build/release.
FAULTS = os.path.join(os.path.dirname(PROGRAM), "denoised-faults")
if not os.path.exists(FAULTS):
    FAULTS = os.path.join(ROOT, "build", "release", "denoised-faults")
# Sanitizers slow everything down; waits are stretched alike.
SLOW = {"release": 1.0, "address": 4.0, "undefined": 4.0, "thread": 12.0}.get(os.environ.get("TEST_VARIANT", "release"), 1.0)
PATIENCE = 240 * min(SLOW, 4)  # seconds, for what must come sooner or later on a machine of any speed
CLASSES = ["T-shirt, top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker, trainer", "Bag", "Ankle boot, trainer"]

_tests = []


class Skip(Exception):
    pass


def test(function):
    _tests.append(function)
    return function


def run(name):
    if name != "__main__":
        return
    failed = False
    named = sys.argv[1:]  # only these, if any are named
    for function in [one for one in _tests if not named or one.__name__ in named]:
        try:
            function()
            print(f"PASS {function.__name__}", flush=True)
        except Skip as reason:
            print(f"SKIP {function.__name__}: {reason}", flush=True)
        except Exception as error:  # noqa: BLE001 - a test reports whatever went wrong
            failed = True
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " | ".join(str(error).splitlines())  # in one line, which is what is reported
            print(f"FAIL {function.__name__}: {os.path.basename(where.filename)}:{where.lineno}: {type(error).__name__}: {text}", flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)


def check(condition, message="does not hold"):
    if not condition:
        raise AssertionError(message)


def same(got, wanted, what="value"):
    """what may end in "; log: ..." and what the log says: that comes last, since reports are cut."""
    if got != wanted:
        what, log, said = what.partition("; log:")
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}{log}{said}")


def last_words(path, size=2000):
    """The end of a daemon's log without its lines of requests, which are many and say nothing of why something failed."""
    with open(path, encoding="utf8", errors="replace") as log:
        lines = [line for line in log if not re.search(r" (GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) /", line)]
    return "".join(lines)[-size:]


def eventually(probe, seconds=0.0, what="condition"):
    """Polls until probe() is truthy; returns its value. Patience costs nothing where it is not needed: no test depends on how fast a machine is,
    and none waits for less than PATIENCE."""
    patience = max(seconds * SLOW, PATIENCE)
    end = time.monotonic() + patience
    while True:
        over = time.monotonic() > end  # before the probe: a machine that stood still in between has not been asked yet
        value = probe()
        if value:
            return value
        if over:
            raise AssertionError(f"{what}: not within {patience:.0f} s")
        time.sleep(0.02)


_scratch = tempfile.mkdtemp(prefix="denoised-e2e-")
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)


def scratch(name):
    return tempfile.mkdtemp(prefix=name + "-", dir=_scratch)


def tiny_model():
    """A pipeline folder of 8x8 pictures with ten class names (one synonym stands twice) and a null row."""
    folder = os.path.join(_scratch, "tiny-model")
    if not os.path.exists(folder):
        shutil.copytree(os.path.join(ROOT, "tests/golden/pipe_unet_ddim10_cfg3"), folder, ignore=shutil.ignore_patterns("case.safetensors"))
        index = {"_class_name": "DDPMPipeline", "_diffusers_version": "0.31.0", "unet": ["diffusers", "UNet2DModel"],
                 "scheduler": ["diffusers", "DDIMScheduler"], "id2label": {str(i): name for i, name in enumerate(CLASSES)},
                 "denoised": {"sampler": "dpmpp_2m", "steps": 20, "guidance_scale": 2.0}}
        with open(os.path.join(folder, "model_index.json"), "w", encoding="utf8") as out:
            json.dump(index, out)
    return folder


def paced(milliseconds=20):
    """Options of a Daemon whose every tick takes so much longer, on any machine: what must go on while a test looks goes on."""
    return {"program": FAULTS, "environment": {"DENOISED_FAULT": f"step_k:1:slow{milliseconds}"}}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, {k.lower(): v for k, v in headers}, body

    @property
    def json(self):
        return json.loads(self.body)


# DENOISED_BASE_PATH=/v1: every daemon of a test has this base path, which is put in front of what a test asks for.
BASE_PATH = os.environ.get("DENOISED_BASE_PATH", "")


class Connection(http.client.HTTPConnection):
    def putrequest(self, method, url, *more, **rest):
        super().putrequest(method, url if url.startswith(BASE_PATH + "/") else BASE_PATH + url, *more, **rest)


class UnixConnection(Connection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.socket_path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.socket_path)


class Daemon:
    """A running `denoised serve`. address: what it printed; data: its folder, kept over restarts."""

    def __init__(self, *options, model=None, data=None, listen="127.0.0.1:0", ready=True, environment=None, program=PROGRAM, name="tiny"):
        self.program, self.name = program, name
        self.options, self.model, self.listen = list(options), model or tiny_model(), listen
        self.data = data or scratch("data")
        self.environment = environment
        self.log_path = os.path.join(scratch("log"), "log")
        self.process = None
        self.start(ready)

    def command(self):
        return [self.program, "serve", "--listen", self.listen, "--data", self.data, "--model", f"{self.name}={self.model}", "--threads", "1", *(["--base-path", BASE_PATH] if BASE_PATH else []), *self.options]

    def start(self, ready=True):
        self.log = open(self.log_path, "ab")
        environment = dict(os.environ, **(self.environment or {}))
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=self.log, env=environment)
        atexit.register(self.kill)
        if ready:
            self.ready_line = self.read_line()
            match = re.match(r'denoised ready on (\S+) |\{.*"message":"ready","url":"([^"]+)"', self.ready_line)
            check(match, f"no ready line but {self.ready_line!r}; log: {self.tail()}")
            self.address = match.group(1) or match.group(2)
            self.said = []  # what it prints after that
            threading.Thread(target=lambda out, said: said.extend(out), args=(self.process.stdout, self.said), daemon=True).start()

    def read_line(self):
        line = []
        reader = threading.Thread(target=lambda: line.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(PATIENCE)
        return line[0].decode() if line else ""

    def tail(self):
        return last_words(self.log_path)

    def log_text(self):
        with open(self.log_path, encoding="utf8", errors="replace") as log:
            return log.read()

    def kill(self, sig=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            if sig == signal.SIGKILL:
                self.process.wait()

    def stop(self):
        """SIGTERM and wait; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def terminate_at_once(self):
        """SIGTERM, and a second one when the first has been heard: two that wait together are one."""
        before = os.path.getsize(self.log_path)
        self.process.send_signal(signal.SIGTERM)
        eventually(lambda: b"a second signal hurries" in self.log_since(before), what="the first signal is heard")
        self.process.send_signal(signal.SIGTERM)

    def log_since(self, size):
        with open(self.log_path, "rb") as log:
            log.seek(size)
            return log.read()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.kill()

    # ---- talking

    @property
    def port(self):
        return int(self.address.rsplit(":", 1)[1])

    def connect(self, timeout=None):
        timeout = timeout * SLOW if timeout else PATIENCE
        if self.address.startswith("unix:"):
            return UnixConnection(self.address[5:], timeout)
        return Connection("127.0.0.1", self.port, timeout=timeout)

    def call(self, method, path, body=None, **headers):
        headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if body is not None and "Content-Type" not in headers:
            headers["Content-Type"] = "application/json"
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())

    def get(self, path, **headers):
        return self.call("GET", path, **headers)

    def post(self, body, path="/generate", **headers):
        return self.call("POST", path, body, **headers)

    def raw(self, data, seconds=5.0, half_close=False):
        """Sends bytes as they are; returns what came back until the other side closed or the time was up."""
        if self.address.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.address[5:])
        else:
            connection = socket.create_connection(("127.0.0.1", self.port))
        with contextlib.closing(connection):
            connection.settimeout(seconds * SLOW)
            out = b""
            try:
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
                while True:
                    piece = connection.recv(65536)
                    if not piece:
                        return out, True
                    out += piece
            except socket.timeout:
                return out, False
            except ConnectionError:
                return out, True

    def vanish(self, method, path, body=b"", wait=0.2, **headers):
        """Sends a request and resets the connection a little later."""
        lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in {"Host": "localhost", "Content_Length": len(body), **headers}.items())
        with socket.create_connection(("127.0.0.1", self.port)) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(f"{method} {BASE_PATH}{path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
            time.sleep(wait)

    def make(self, seconds=0, **body):
        """Posts, waits for the end, returns the job."""
        posted = self.post(body)
        check(posted.status == 202, f"status {posted.status}: {posted.body[:300]}")
        return self.wait(posted.json["id"], seconds)

    def wait(self, job_id, seconds=0):
        def ended():
            job = self.get(f"/jobs/{job_id}").json
            return job if job["state"] in ("succeeded", "failed", "canceled") else None
        return eventually(ended, seconds, f"end of job {job_id}")

    def image(self, job_id, index=0):
        answer = self.get(f"/jobs/{job_id}/images/{index}.png")
        same(answer.status, 200, "status of the image")
        return answer.body

    def jobs_in_store(self):
        """Rows of the job table, read beside the daemon."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data}/denoised.db?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM job").fetchone()[0]

    def worker_pids(self):
        out = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(p) for p in out.stdout.split()]

    def events(self, path, headers=None, until=None, seconds=None):
        """Reads an event stream to its end (or until(event) is true): a list of {id, event, data, at}."""
        connection = self.connect(seconds)
        connection.request("GET", path, headers=headers or {})
        return read_events(connection, until)


def read_events(connection, until=None):
    answer = connection.getresponse()
    if answer.status != 200:
        body = answer.read()
        connection.close()
        return Answer(answer.status, answer.getheaders(), body)
    events, event = [], {}
    for line in answer:
        line = line.decode().rstrip("\n")
        if line == "":
            if "event" in event:
                event["at"] = time.monotonic()
                event["json"] = json.loads(event.get("data", "null"))
                events.append(event)
                if until and until(event):
                    break
            elif event:
                events.append(dict(event, event=None))
            event = {}
        elif line.startswith(":"):
            event["comment"] = line
        else:
            field, _, value = line.partition(":")
            event[field] = value[1:] if value.startswith(" ") else value
    connection.close()
    return events


def metrics_key(data):
    """A key that may read /metrics and nothing else, as an Authorization header; a running daemon knows it within a second."""
    done = subprocess.run([PROGRAM, "key", "add", "prometheus", "--scopes", "metrics", "--data", data], capture_output=True, text=True, check=True)
    return "Bearer " + done.stdout.strip()


def png_size(data):
    check(data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def png_texts(data):
    """Keyword to text of the tEXt and (uncompressed) iTXt chunks."""
    texts, at = {}, 8
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        body = data[at + 8:at + 8 + length]
        if kind == b"tEXt":
            key, _, text = body.partition(b"\0")
            texts[key.decode()] = text.decode("latin1")
        elif kind == b"iTXt":
            key, _, rest = body.partition(b"\0")
            texts[key.decode()] = rest[2:].split(b"\0", 2)[2].decode()
        at += 12 + length
    return texts


__all__ = ["Answer", "CLASSES", "Daemon", "FAULTS", "PATIENCE", "PROGRAM", "ROOT", "SLOW", "Skip", "base64", "check", "eventually", "json", "last_words", "metrics_key", "os", "paced", "png_size", "png_texts",
           "PROXIED", "read_events", "run", "same", "scratch", "signal", "socket", "sqlite3", "subprocess", "sys", "test", "threading", "time", "tiny_model"]

# DENOISED_PROXY=1: every daemon of a test stands behind nginx and is spoken to through it (proxy_test.py runs the API's tests so).
PROXIED = os.environ.get("DENOISED_PROXY") == "1"
if PROXIED:
    from proxy import ProxiedDaemon as Daemon  # noqa: E402,F811,F401
