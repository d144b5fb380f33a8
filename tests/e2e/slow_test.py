"""Slow clients: heads and bodies that drip, readers that take nothing or nearly nothing, streams that stop, sockets that only hold room, peers that
vanish. All of them are cut by deadlines of their whole, nobody else is locked out, and memory stays bounded.

`--patience 0.1` makes the deadlines a tenth: a head has 1 s, a body 3 s, a reader 3 s and its bytes.
"""
from harness import *  # noqa: F403
import http.client
import re
import resource
import select

HURRIED = ("--patience", "0.1")
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def metric(daemon, name):
    return float(re.search(rf"^{name} (\S+)$", patiently(daemon, "/metrics").body.decode(), re.M).group(1))


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) / 1024


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def patiently(daemon, path, body=None):
    """A request of our own, again when a daemon in a hurry has cut it while this machine was busy."""
    for attempt in range(200):
        try:
            return daemon.post(body, path) if body is not None else daemon.get(path)
        except (OSError, http.client.HTTPException):
            if attempt == 199 or daemon.process.poll() is not None:
                raise


def connect(daemon, first=b"", receive=None):
    connection = socket.socket()
    if receive:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", daemon.port))
    connection.sendall(first)
    connection.setblocking(False)
    return connection


class Slow:
    """Connections that are kept open; each gives and takes `more` and `take` bytes at a time, until the daemon ends it."""

    def __init__(self, daemon, number, first, more=b"", take=0, receive=None):
        self.more, self.take = more, take
        self.open = [connect(daemon, first, receive) for _ in range(number)]
        self.ended = []

    def turn(self):
        for connection in list(self.open):
            try:
                if self.more:
                    connection.send(self.more)
                if self.take and connection.recv(self.take) == b"":
                    raise ConnectionError
                # A reader that takes nothing learns of the end by the error that the daemon's close leaves.
                if not self.take and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                self.end(connection)

    def end(self, connection):
        self.open.remove(connection)
        self.ended.append(time.monotonic())
        connection.close()


@test
def a_thousand_slow_sockets_are_cut_and_cost_little():
    with Daemon(*HURRIED) as daemon:
        jobs = [patiently(daemon, "/generate", {"steps": 1, "n": 64}).json["id"] for _ in range(20)]
        for job in jobs:
            eventually(lambda job=job: patiently(daemon, f"/jobs/{job}").json["state"] == "succeeded", 60, "a job with 64 images")
        size = len(patiently(daemon, "/jobs?limit=20").body)
        check(size > 200000, f"a list of {size} bytes is not large")
        before, fds = resident_mib(daemon.process.pid), descriptors(daemon.process.pid)
        many = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, many[1]), many[1]))
        list_of_jobs = b"GET /jobs?limit=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stream = b"GET /jobs/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % jobs[0].encode()
        kinds = {"heads": Slow(daemon, 300, b"GET /healthz HTTP/1.1\r\nHost: local", more=b"a"),
                 "bodies": Slow(daemon, 300, POST + b"Content-Length: 60000\r\n\r\n{", more=b" "),
                 "large answers, byte by byte": Slow(daemon, 100, list_of_jobs, take=1, receive=1024),
                 "large answers, not at all": Slow(daemon, 100, list_of_jobs, receive=1024),
                 "streams that stop": Slow(daemon, 90, stream, receive=1024),
                 "idle": Slow(daemon, 110, b"", take=1)}
        peak, slowest = 0.0, 0.0

        def turn():
            nonlocal peak, slowest
            for slow in kinds.values():
                slow.turn()
            began = time.monotonic()
            same(patiently(daemon, "/healthz").status, 200, "health meanwhile")
            slowest = max(slowest, time.monotonic() - began)
            peak = max(peak, resident_mib(daemon.process.pid))
            # A connection that is not read tells nothing of its end: the daemon's descriptors do.
            return descriptors(daemon.process.pid) <= fds + 4
        eventually(turn, 90, "the end of a thousand slow sockets")
        print(f"     1,000 slow sockets: all cut; {before:.0f} MiB before, {peak:.0f} at most; health within {1000 * slowest:.0f} ms")
        if SLOW == 1:
            check(peak < before + 160, f"{peak:.0f} MiB, {before:.0f} before")
        eventually(lambda: metric(daemon, "denoised_event_streams") == 0, 60, "no stream that is counted")


def cut_after(daemon, first, more):
    """Seconds until the daemon ends a connection that sends a byte now and then."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(first)
        connection.settimeout(0.2)
        while time.monotonic() - began < 120 * SLOW:
            try:
                connection.sendall(more)
                if connection.recv(4096) == b"":
                    break
            except socket.timeout:
                continue
            except ConnectionError:
                break
    return time.monotonic() - began


@test
def heads_and_bodies_have_a_time_as_a_whole():
    # Bytes that come in time do not lengthen it; a second request on a connection has its own.
    with Daemon(*HURRIED) as daemon:
        head = cut_after(daemon, b"GET /healthz HTTP/1.1\r\nHost: local", b"a")
        body = cut_after(daemon, POST + b"Content-Length: 60000\r\n\r\n{", b" ")
        chunk = cut_after(daemon, POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{", b" ")
        second = cut_after(daemon, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea", b"a")
        check(head >= 0.9 and body >= 2.9 and chunk >= 2.9 and second >= 2.9, f"cut too early: {head:.1f}, {body:.1f}, {chunk:.1f}, {second:.1f} s")
        print(f"     cut after {head:.1f} s (head), {body:.1f} (body), {chunk:.1f} (chunk without end), {second:.1f} (second request)")


@test
def idle_connections_do_not_lock_others_out():
    # Far more than there may be, of a daemon that would wait 100 s for each: those that came first make room.
    number = 2600
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    if high < number + 200:
        raise Skip(f"only {high} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(low, number + 200), high))
    with Daemon("--patience", "10") as daemon:
        idle = []
        for i in range(number):
            connection = socket.create_connection(("127.0.0.1", daemon.port), PATIENCE)
            connection.sendall(b"GET /" if i % 2 else b"")
            idle.append(connection)
            if i % 200 == 199:
                same(daemon.get("/healthz").status, 200, f"health beside {i + 1} idle connections")
        same(daemon.make(steps=1, seed=1)["state"], "succeeded", "a job beside them")
        gone = eventually(lambda: (lambda ready: ready if idle[0] in ready else None)(select_readable(idle)), what="the end of the first one")
        check(idle[-1] not in gone, "the last one was closed")
        for connection in idle:
            connection.close()


def select_readable(connections):
    poll = select.poll()
    by_fd = {connection.fileno(): connection for connection in connections}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(0)]


@test
def waits_beyond_a_number_are_answered_at_once():
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    if high < 1400:
        raise Skip(f"only {high} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(low, 1400), high))
    with Daemon() as daemon:
        # The last of so many that it cannot be reached meanwhile.
        jobs = [job["id"] for job in daemon.post([{"steps": 1000, "n": 64, "seed": seed} for seed in range(64)]).json["jobs"]]
        later = jobs[-1]
        wait = f"GET /jobs/{later} HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=300\r\n\r\n".encode()
        held = [connect(daemon, wait) for _ in range(1100)]
        answered = eventually(lambda: (lambda ready: ready if len(ready) >= 76 else None)(select_readable(held)), 60, "answers to 76 of 1,100 that wait")
        same(len(answered), 76, "answered at once")
        answer = answered[0].recv(4096)
        check(b" 200 " in answer[:20] and b"Preference-Applied" not in answer, answer[:300])
        same(daemon.get("/healthz").status, 200, "health beside them")
        for one in jobs[::-1]:
            daemon.call("DELETE", f"/jobs/{one}")
        eventually(lambda: len(select_readable(held)) == 1100, 60, "everybody's answer at the job's end")
        for connection in held:
            connection.close()
        # What was counted is let go: there is room for a wait again.
        same(daemon.post({"steps": 1}, Prefer="wait=60").headers.get("preference-applied"), "wait=60", "a wait after them")


class Wire:
    """A network of its own with one cable to ours, which can be cut without a word to either side."""

    def __init__(self):
        self.name = f"dn{os.getpid() % 100000}"
        self.run("ip", "netns", "add", self.name)
        try:
            self.run("ip", "link", "add", self.name + "a", "type", "veth", "peer", "name", self.name + "b", "netns", self.name)
            self.run("ip", "address", "add", "169.254.77.1/30", "dev", self.name + "a")
            self.run("ip", "link", "set", self.name + "a", "up")
            self.inside("ip", "address", "add", "169.254.77.2/30", "dev", self.name + "b")
            self.inside("ip", "link", "set", self.name + "b", "up")
        except Skip:
            self.remove()
            raise

    def run(self, *words):
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except FileNotFoundError as missing:
            raise Skip("there is no ip command") from missing
        if done.returncode != 0:
            raise Skip(f"{' '.join(words[:3])}: {done.stderr.strip()[:80]}")

    def inside(self, *words):
        self.run("ip", "netns", "exec", self.name, *words)

    def remove(self):
        subprocess.run(["ip", "link", "delete", self.name + "a"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)


CLIENT = """
import socket, sys, time
held = []
while len(held) < 20:
    connection = socket.create_connection(("169.254.77.1", int(sys.argv[1])))
    try:
        connection.sendall(f"GET /jobs/{sys.argv[2]}/events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
        first = connection.recv(20)
    except ConnectionError:
        continue
    if first:  # else it was cut by a daemon in a hurry, on a busy machine
        assert b" 200 " in first
        held.append(connection)
print("held", flush=True)
time.sleep(600)
"""


@test
def peers_that_vanish_without_a_word_are_let_go():
    wire = Wire()
    try:
        with Daemon(*HURRIED, "--insecure", listen="0.0.0.0:0") as daemon:
            daemon.address = f"http://127.0.0.1:{daemon.port}"
            # The last of so many that it cannot be reached meanwhile; its streams are told of its place, and get pings.
            bodies = [{"steps": 1000, "n": 64, "seed": seed} for seed in range(64)]
            jobs = [job["id"] for job in patiently(daemon, "/generate", bodies).json["jobs"]]
            client = subprocess.Popen(["ip", "netns", "exec", wire.name, sys.executable, "-c", CLIENT, str(daemon.port), jobs[-1]], stdout=subprocess.PIPE)
            try:
                same(client.stdout.readline(), b"held\n", "the client")
                same(metric(daemon, "denoised_event_streams"), 20.0, "streams")
                began = time.monotonic()
                wire.run("ip", "link", "set", wire.name + "a", "down")
                eventually(lambda: b"denoised_event_streams 0" in patiently(daemon, "/metrics").body, 60, "the end of twenty streams")
                print(f"     twenty streams whose cable was cut ended after {time.monotonic() - began:.1f} s at a tenth of the patience")
            finally:
                client.kill()
                client.wait()
    finally:
        wire.remove()


run(__name__)
