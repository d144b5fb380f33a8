"""A daemon to be killed: the program with fault points, on a Unix socket that keeps its path, with its times of starting written down."""
import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

from harness import FAULTS, PATIENCE, UnixConnection, check, eventually, json, last_words, scratch, tiny_model


def is_stopped(pid):
    """By SIGSTOP; not by a tracer."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "T"
    except FileNotFoundError:
        return False


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Victim:
    def __init__(self, *options, data=None, listen=None):
        self.folder = scratch("victim")
        self.data = data or os.path.join(self.folder, "data")
        self.socket = os.path.join(self.folder, "s")
        self.listen = listen or f"unix:{self.socket}"
        self.fired_path = os.path.join(self.folder, "fired")
        self.log_path = os.path.join(self.folder, "log")
        self.options = list(options)
        self.process = None
        self.ready_seconds = []  # from the start of the program to its ready line
        self.ready_cpu = []  # seconds that it computed for until then
        self.starts = 0

    def command(self):
        return [FAULTS, "serve", "--listen", self.listen, "--data", self.data, "--model", f"tiny={tiny_model()}", "--threads", "1",
                "--snapshot-every", "0.01", *self.options]

    def environment(self, faults):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.fired_path)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DENOISED_FAULT")}
        return dict(inherited, DENOISED_FAULT_FIRED=self.fired_path, **({"DENOISED_FAULT": faults} if faults else {}))

    def start(self, faults=""):
        """Does not wait. faults: as in DENOISED_FAULT."""
        began = time.monotonic()
        self.ready = threading.Event()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, env=self.environment(faults))
        self.starts += 1
        threading.Thread(target=self._hear, args=(self.process, self.ready, began), daemon=True).start()

    def _hear(self, process, ready, began):
        out = process.stdout
        with contextlib.suppress(ValueError), out:
            for line in out:
                if line.startswith(b"denoised ready on "):
                    self.address = line.split()[3].decode()
                    self.ready_seconds.append(time.monotonic() - began)
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # killed already
                        self.ready_cpu.append(cpu_seconds(process.pid))
                    ready.set()

    def wait_ready(self):
        eventually(lambda: self.ready.is_set() or self.dead(), 60, "ready")
        check(self.ready.is_set(), f"it ended with {self.process.returncode}; log: {self.tail()}")

    def dead(self):
        return self.process is None or self.process.poll() is not None

    def fired(self):
        """Names of the points that have fired since the start."""
        if not os.path.exists(self.fired_path):
            return []
        with open(self.fired_path, encoding="utf8") as lines:
            return lines.read().split()

    def kill(self):
        if not self.dead():
            self.process.send_signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def terminate(self):
        """SIGTERM; the exit status."""
        if not self.dead():
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def tail(self):
        return last_words(self.log_path)

    def call(self, method, path, body=None, **headers):
        with contextlib.closing(UnixConnection(self.socket, PATIENCE)) as connection:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                headers["Content-Type"] = "application/json"
                body = json.dumps(body)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def get(self, path):
        status, body = self.call("GET", path)
        check(status == 200, f"{path}: {status}")
        return json.loads(body)

    def database(self):
        """A connection for reading, whether the daemon lives or not."""
        return contextlib.closing(sqlite3.connect(f"file:{self.data}/denoised.db?mode=ro", uri=True))

    def ask(self, question, *values):
        with self.database() as db:
            return db.execute(question, values).fetchall()

    def unended(self):
        return self.ask("SELECT count(*) FROM job WHERE state<2")[0][0]

    def all_ended(self, seconds=120):
        """Waits until no job waits or runs."""
        eventually(lambda: self.dead() or self.unended() == 0, seconds, "every job's end")
        check(not self.dead(), f"it ended by itself; log: {self.tail()}")

    def strays(self):
        """Files that no row knows, when everything has ended."""
        named = {row[0] for row in self.ask("SELECT file FROM image")}
        found = [f"images/{name}" for name in os.listdir(f"{self.data}/images") if name not in named]
        return found + [f"{inside}/{name}" for inside in ("inputs", "snapshots") for name in os.listdir(f"{self.data}/{inside}")]

    def is_stopped(self):
        return is_stopped(self.process.pid)

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
