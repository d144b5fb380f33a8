"""What the machine may do to a daemon: no descriptors, no processes, no memory, a clock that jumps, a log that nobody reads, a pause.

Every accepted job ends with the right picture, every refusal is one of the documented ones, and all is well again once the fault is over.
"""
from harness import *  # noqa: F403
import contextlib
import fcntl
import http.client
import re
import resource

SPEC = {"steps": 4, "n": 2, "seed": 12, "class_label": 1, "guidance_scale": 2.0}
FAKETIME = next((path for path in ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1")
                 if os.path.exists(path)), None)
_known = []


def expected():
    """The pictures of SPEC, undisturbed."""
    if not _known:
        with Daemon() as daemon:  # noqa: F405
            _known.append([image["sha256"] for image in daemon.make(**SPEC)["images"]])
    return _known[0]


def attempt(function):
    """What it returns, or None where the connection broke or was not taken."""
    try:
        return function()
    except (OSError, http.client.HTTPException):
        return None


def post(daemon, key, seconds=5):
    with contextlib.closing(daemon.connect(seconds)) as connection:
        connection.request("POST", "/generate", json.dumps(SPEC), {"Content-Type": "application/json", "Idempotency-Key": key})
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())


def revive(daemon):
    """A daemon that cannot know whether its commit holds ends, to be started again."""
    if daemon.process.poll() is not None:
        same(daemon.process.returncode, 75, "status of a daemon that ended by itself")
        daemon.start()


def accepted(daemon, key):
    """The job of this key, asked for until it is taken."""
    def probe():
        revive(daemon)
        answer = attempt(lambda: post(daemon, key))
        check(answer is None or answer.status in (200, 202, 500, 503, 507), f"{answer and (answer.status, answer.body[:200])}")
        return answer.json["id"] if answer and answer.status in (200, 202) else None
    return eventually(probe, 60, "acceptance")


def right(daemon, job_id):
    job = daemon.wait(job_id, 120)
    same((job["state"], job["error"]), ("succeeded", None), "the job")
    same([image["sha256"] for image in job["images"]], expected(), "pictures")
    same(daemon.get(f"/jobs/{job_id}/images/1.png").status, 200, "a picture")
    return job


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@test
def without_descriptors():
    """New connections wait, what runs goes on; and then everything comes back by itself. Who accepts sleeps meanwhile: whoever waits
    busily uses as much of a core as it is given."""
    with Daemon() as daemon:  # noqa: F405
        before = descriptors(daemon)
        running = daemon.post({**SPEC, "steps": 1000, "n": 8}).json["id"]
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        for spare in (4, 1, 0):
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (descriptors(daemon) + spare, hard))
            held = [attempt(lambda: sockets_to(daemon)) for _ in range(12)]
            began, used = time.monotonic(), cpu_seconds(daemon.process.pid)
            key = f"spare-{spare}"
            early = attempt(lambda: post(daemon, key, 2))
            check(early is None or early.status in (202, 500, 503, 507), f"{early and early.status}")
            time.sleep(1)
            share = (cpu_seconds(daemon.process.pid) - used) / (time.monotonic() - began)
            print(f"with {spare} spare descriptors the daemon used {share:.0%} of a core")
            check(share < 0.6 or SLOW > 1, f"with {spare} spare descriptors the daemon uses {share:.0%} of a core")
            for connection in held:
                if connection:
                    connection.close()
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            same(eventually(lambda: attempt(lambda: daemon.get("/healthz").status), 30, "an answer"), 200, "health")
            right(daemon, accepted(daemon, key))
        pauses = re.search(r"^denoised_accept_pauses_total (\d+)", daemon.get("/metrics").body.decode(), re.M)
        check(int(pauses[1]) > 0, "nobody ever paused in accepting")
        check("cannot accept connections (Too many open files)" in open(daemon.log_path, encoding="utf8").read(), "the log does not say why")
        same(daemon.wait(running, 120)["state"], "succeeded", "what ran")
        began, used = time.monotonic(), cpu_seconds(daemon.process.pid)
        time.sleep(1)
        share = (cpu_seconds(daemon.process.pid) - used) / (time.monotonic() - began)
        check(share < 0.5 or SLOW > 1, f"with descriptors again the daemon uses {share:.0%} of a core")
        eventually(lambda: descriptors(daemon) <= before + 3, 30, f"descriptors as before ({before})")


def sockets_to(daemon):
    return socket.create_connection(("127.0.0.1", daemon.port), timeout=2)


@test
def a_worker_that_cannot_be_started():
    """Without descriptors there is no socket pair for it: the queue waits, and the reason is told."""
    with Daemon() as daemon:  # noqa: F405
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        with contextlib.closing(daemon.connect()) as connection:
            connection.request("GET", "/healthz")
            connection.getresponse().read()  # kept open: later there may be no descriptor for another
            worker = daemon.worker_pids()[0]
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (5, hard))
            os.kill(worker, signal.SIGKILL)

            def reason():
                connection.request("GET", "/readyz")
                return connection.getresponse().read().decode()
            told = eventually(lambda: (lambda text: text if "cannot start a worker" in text else None)(reason()), 20, "the reason")
            check("open files" in told, told)
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        began = time.monotonic()
        eventually(lambda: attempt(lambda: daemon.get("/readyz").status) == 200, 30, "a worker")
        right(daemon, accepted(daemon, "after"))
        print(f"a worker was there {time.monotonic() - began:.1f} s after it could be started again")


@test
def without_processes():
    """As another user, with fewer and fewer threads and processes: it starts, or says in one line why it does not; it never hangs."""
    if os.geteuid() != 0:
        raise Skip("another user is needed, and so the superuser")
    data, model = scratch("data"), tiny_model()
    os.chown(data, 64321, 64321)
    os.chmod(os.path.dirname(data), 0o755)
    user = ["setpriv", "--reuid", "64321", "--regid", "64321", "--clear-groups"]
    if subprocess.run([*user, PROGRAM, "version"], capture_output=True, check=False).returncode != 0:
        raise Skip("the program cannot be run as another user here")
    outcomes = {}
    for limit in (1, 2, 3, 5, 7, 9, 10, 11, 12, 14, 24):
        process = subprocess.Popen(["prlimit", f"--nproc={limit}", *user, PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data", data, "--model", f"tiny={model}",
                                    "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = []
        reader = threading.Thread(target=lambda: line.append(process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(1.5 * SLOW if limit < 24 else PATIENCE)
        if process.poll() is None:
            outcomes[limit] = "ready" if line and line[0].startswith("denoised ready") else "waiting for its worker"
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE)
            # One that had not come so far yet as to hear signals just ends.
            check(status == 0 or (limit < 24 and status in (75, -signal.SIGTERM)), f"status {status} of a drain with {limit} processes")
        else:
            said = process.stderr.read().strip().splitlines()
            check(process.returncode == 75 and said, f"with {limit} processes: status {process.returncode}, {said}")
            outcomes[limit] = f"{process.returncode}: {said[-1]}"
        process.stdout.close()
        process.stderr.close()
    check(outcomes[24] == "ready" and outcomes[1] != "ready", outcomes)


@test
def without_memory():
    """An address space that cannot grow: refusals and answers, no abort; and afterwards all is as before."""
    if SLOW > 1:
        raise Skip("a sanitizer needs its address space")
    with Daemon() as daemon:  # noqa: F405
        pid = daemon.process.pid
        with open(f"/proc/{pid}/statm", encoding="utf8") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        statuses = []
        for spare in (1 << 20, 64 << 10, 0):
            resource.prlimit(pid, resource.RLIMIT_AS, (size + spare, resource.RLIM_INFINITY))
            body = json.dumps({**SPEC, "init_image": "A" * (1 << 20)})
            for number in range(6):
                answer = attempt(lambda: daemon.call("POST", "/generate", body))
                statuses.append(answer and answer.status)
                early = attempt(lambda: post(daemon, f"memory-{spare}-{number}"))
                check(early is None or early.status in (202, 500, 503), f"{early and early.status}")
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for number in range(6):
                right(daemon, accepted(daemon, f"memory-{spare}-{number}"))
        check(daemon.process.poll() is None, "the daemon lives")
        check(set(statuses) <= {None, 400, 413, 422, 500, 503}, statuses)


def with_clock(offset, exclude_monotonic, drive):
    if not FAKETIME:
        raise Skip("faketime is not installed")
    if SLOW > 1:
        raise Skip("faketime and sanitizers do not go together")
    clock = os.path.join(scratch("clock"), "time")
    with open(clock, "w", encoding="utf8") as file:
        file.write("+0")
    environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_RESET": "1",
                   **({"FAKETIME_DONT_FAKE_MONOTONIC": "1"} if exclude_monotonic else {})}
    with Daemon("--snapshot-every", "0.05", environment=environment) as daemon:  # noqa: F405
        def jump(to=offset):
            with open(clock + ".new", "w", encoding="utf8") as file:
                file.write(to)
            os.replace(clock + ".new", clock)
        drive(daemon, jump)


def through_a_jump(daemon, jump):
    """Jobs accepted before, running during and accepted after the jump all end well, and so does a restart in the new time."""
    keys = ["same"]
    first = accepted(daemon, keys[0])
    running = daemon.post({**SPEC, "steps": 1000, "n": 16}).json["id"]
    queued = [daemon.post(SPEC).json["id"] for _ in range(3)]
    jump()
    same(accepted(daemon, keys[0]), first, "the key is still known")
    after = [accepted(daemon, f"after-{number}") for number in range(3)]
    for job_id in (first, *queued, *after):
        right(daemon, job_id)
    ended = daemon.wait(running, 120)
    same((ended["state"], ended["attempt"]), ("succeeded", 1), "what ran")
    same(len({first, running, *queued, *after}), 8, "ids")
    events = [event["event"] for event in daemon.events(f"/jobs/{after[0]}/events", {"Last-Event-ID": "0"}) if "id" in event]
    same((events[0], events[-1]), ("queued", "succeeded"), "events")
    check("denoised_worker_restarts_total 0" in daemon.get("/metrics").body.decode(), "no worker was taken for frozen")
    same(daemon.stop(), 0, "a drain")
    daemon.start()
    right(daemon, accepted(daemon, "restarted"))


@test
def the_wall_clock_jumps_ahead():
    with_clock("+1d", True, through_a_jump)


@test
def the_wall_clock_jumps_back():
    with_clock("-1d", True, through_a_jump)


@test
def the_wall_clock_stands_still():
    with_clock("2026-01-01 00:00:00", True, through_a_jump)


@test
def a_log_that_nobody_reads():
    """Standard error is a pipe that is full, or a socket: requests and the worker go on, and what cannot be said is left out."""
    for kind in ("pipe", "socket"):
        if kind == "pipe":
            reading, writing = os.pipe()
            fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ
            ends = (reading, writing)
        else:
            pair = socket.socketpair()
            ends = tuple(end.detach() for end in pair)
        daemon = Logged(ends[1])
        with daemon:
            os.close(ends[1])
            for number in range(500):  # each makes a line of the log
                same(daemon.get("/healthz").status, 200, "health")
            job = daemon.post({**SPEC, "steps": 1000}).json["id"]
            eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 0, 60, "it runs")
            os.kill(daemon.worker_pids()[0], signal.SIGKILL)  # which is said, and the next worker says what it has loaded
            same(daemon.wait(job, 60)["state"], "succeeded", "the job")
            right(daemon, accepted(daemon, "blocked"))
            os.set_blocking(ends[0], False)
            kept = b""
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(ends[0], 1 << 16):
                    kept += piece
            check(kept.count(b"\n") > 5, "nothing was said at all")
            daemon.get("/healthz")
            eventually(lambda: b"/healthz" in (attempt(lambda: os.read(ends[0], 1 << 16)) or b""), 10, "later lines come again")
            same(daemon.stop(), 0, "status")
        os.close(ends[0])


class Logged(Daemon):  # noqa: F405
    """Its standard error goes where it is told."""

    def __init__(self, errors):
        self.errors = errors
        super().__init__()

    def start(self, ready=True):
        opened, self.log_path = subprocess.Popen, self.log_path
        errors = self.errors

        def instead(*arguments, **named):
            return opened(*arguments, **{**named, "stderr": errors})
        subprocess.Popen = instead
        try:
            super().start(ready)
        finally:
            subprocess.Popen = opened


@test
def a_daemon_that_is_paused():
    with Daemon("--snapshot-every", "0.05") as daemon:  # noqa: F405
        job = daemon.post({**SPEC, "steps": 1000, "n": 16}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 0, 60, "it runs")
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        daemon.process.send_signal(signal.SIGCONT)
        ended = daemon.wait(job, 120)
        same((ended["state"], ended["attempt"]), ("succeeded", 1), "the job")
        right(daemon, accepted(daemon, "afterwards"))


@test
def signals_that_mean_nothing_to_it():
    """A broken pipe, a file that is too large, a closed terminal."""
    with Daemon() as daemon:  # noqa: F405
        for sig in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP):
            daemon.process.send_signal(sig)
            time.sleep(0.05)
        right(daemon, accepted(daemon, "signals"))
        pid = daemon.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))  # what is written from now on ends in SIGXFSZ, which is ignored, and an error
        early = attempt(lambda: post(daemon, "size"))
        check(early is None or early.status in (202, 500, 503, 507), f"{early and early.status}")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        job = accepted(daemon, "size")
        eventually(lambda: revive(daemon) or attempt(lambda: daemon.get(f"/jobs/{job}").json["state"]) == "succeeded", 60, "the job")
        right(daemon, job)


@test
def without_tmp():
    """Nothing outside the data folder is needed: temporary folders that are not there."""
    with Daemon(environment={"TMPDIR": "/nonexistent", "SQLITE_TMPDIR": "/nonexistent", "HOME": "/nonexistent"}) as daemon:  # noqa: F405
        right(daemon, accepted(daemon, "tmp"))


run(__name__)
