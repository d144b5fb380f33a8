"""Debian's nginx with deploy/nginx.conf in front of a daemon on a Unix socket.

The file is used as it is, but for its port, the socket's path and its /tmp paths. Where the tests run as root, nginx runs as compose runs it:
as another user, in the group of the daemon's socket, without any privilege.
"""
import atexit
import contextlib
import http.client
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time

from harness import PATIENCE, ROOT, Daemon, Skip, UnixConnection, check

NOBODY = 65534


def have_nginx():
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def free_port():
    """Below the ports that the system hands out by itself: no connection takes it before nginx does."""
    for port in random.sample(range(12000, 32000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def rewritten(changes, name="nginx.conf"):
    """deploy/nginx.conf, or another file, with (old, new) texts replaced; every old text must be there."""
    with open(os.path.join(ROOT, "deploy", name), encoding="utf8") as conf:
        text = conf.read()
    for old, new in changes:
        check(old in text, f"deploy/{name} has no {old!r}")
        text = text.replace(old, new)
    return text


class Nginx:
    """nginx before socket_path (default: denoised.sock in its own folder). changes: further (old, new) texts of its configuration, which is
    the file of deploy/ that is named, and listens where that says."""

    def __init__(self, socket_path=None, changes=(), name="nginx.conf", listen="listen 8080;"):
        program = have_nginx()
        if not program:
            raise Skip("nginx is not installed")
        self.folder = tempfile.mkdtemp(prefix="denoised-proxy-")
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o770)
        self.socket_path = socket_path or os.path.join(self.folder, "denoised.sock")
        self.port = free_port()
        conf = os.path.join(self.folder, "nginx.conf")
        with open(conf, "w", encoding="utf8") as out:
            out.write(rewritten([(" /tmp/", f" {self.folder}/"), (listen, f"listen 127.0.0.1:{self.port};"),
                                 ("unix:/run/denoised/denoised.sock", f"unix:{self.socket_path}"), *changes], name))
        os.chmod(conf, 0o644)
        self.log_path = os.path.join(self.folder, "log")
        who = {"user": NOBODY, "group": os.getegid(), "extra_groups": []} if os.geteuid() == 0 else {}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([program, "-e", "stderr", "-p", self.folder, "-c", conf, "-g", "daemon off;"],
                                            stdout=log, stderr=log, **who)
        atexit.register(self.stop)
        self._await_port()

    def _await_port(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            check(self.process.poll() is None, f"nginx ended: {self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"nginx does not listen: {self.log()}")

    def log(self):
        with open(self.log_path, encoding="utf8", errors="replace") as log:
            return log.read()[-2000:]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)

    def connect(self, timeout=PATIENCE, source=None):
        """source: the loopback address the connection comes from."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout, source_address=(source, 0) if source else None)


# The rates of nginx have a test of their own; where those of the API go through it, every request must come through.
UNLIMITED = [("rate=50r/s", "rate=100000r/s"), ("burst=100", "burst=100000")]


class ProxiedDaemon(Daemon):
    """A daemon on a Unix socket; call, raw and events go through nginx. direct: the daemon's own address."""

    def __init__(self, *options, listen=None, proxy_changes=None, **rest):
        del listen
        self.nginx = Nginx(changes=(UNLIMITED if os.environ.get("DENOISED_PROXY") == "1" else ()) if proxy_changes is None else proxy_changes)
        # Compose names the hosts that are served; loopback names always are.
        super().__init__("--allowed-host", "localhost", *options, listen=f"unix:{self.nginx.socket_path}", **rest)

    def start(self, ready=True):
        super().start(ready)
        if ready:
            self.direct = self.address
            self.ready_line = re.sub(r" on \S+ ", f" on http://127.0.0.1:{self.nginx.port} ", self.ready_line)
        self.address = f"http://127.0.0.1:{self.nginx.port}"

    def connect_directly(self):
        return UnixConnection(self.direct[len("unix:"):], PATIENCE)

    def __exit__(self, *unused):
        super().__exit__(*unused)
        self.nginx.stop()
