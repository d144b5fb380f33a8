"""Allocations of the daemon that fail, one by one, once and from then on: every answer is true, no accepted job is lost, no picture is wrong.

A job's life is a POST with an Idempotency-Key, its event stream, its picture and the list of jobs. A call that fails may cost the client
an answer, a 500 or a 503; it asks again with the same key. The daemon may end (75) and is started again; it may not crash.
`--torture SEED COUNT` tries COUNT calls from the SEEDth on; the sweep is over when SEED is beyond the last.
"""
from harness import *  # noqa: F403
import ctypes
import http.client
import mmap
import struct

SHIM = os.path.join(os.path.dirname(PROGRAM), "tests/shims/failing_malloc.so")
SPEC = {"steps": 3, "n": 2, "class_label": 2, "guidance_scale": 2.0}
FOR_EVER = (1 << 62) - 1
ONCE = 160 if SLOW == 1 else 10  # calls tried of a life in each way
STICKY = 60 if SLOW == 1 else 5


class Control:
    """The page that the library shares."""

    def __init__(self):
        self.path = os.path.join(scratch("control"), "page")
        with open(self.path, "wb") as file:
            file.write(bytes(4096))
        with open(self.path, "r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)

    def set(self, armed, first=FOR_EVER, last=FOR_EVER):
        self.page[:8] = struct.pack("<q", 0)
        if armed:
            self.page[8:48] = struct.pack("<qqqqQ", first, last, 0, 0, 0)
            self.page[:8] = struct.pack("<q", 1)

    @property
    def calls(self):
        return struct.unpack("<q", self.page[24:32])[0]

    @property
    def failed(self):
        return struct.unpack("<q", self.page[32:40])[0]

    @property
    def who(self):
        address = struct.unpack("<Q", self.page[40:48])[0]
        done = subprocess.run(["addr2line", "-f", "-p", "-s", "-e", PROGRAM, hex(address)], capture_output=True, text=True, check=False)
        return done.stdout.strip()


class Faulty:
    def __init__(self):
        if SLOW > 1:
            raise Skip("a sanitizer has its own allocator")
        self.control = Control()
        self.daemon = Daemon(environment={"LD_PRELOAD": SHIM, "FAILING_MALLOC": self.control.path})  # noqa: F405
        self.exits, self.posts, self.asked_again = 0, 0, 0
        self.expected = None
        self.wanted = [image["sha256"] for image in self.daemon.make(**SPEC, seed="5")["images"]]

    def attempt(self, function):
        """What it returns; None where the connection broke."""
        try:
            return function()
        except (OSError, http.client.HTTPException, ValueError, AssertionError, KeyError):
            return None

    def revive(self):
        """Starts the daemon again if it has ended; it may only have ended by itself, and cleanly."""
        status = self.daemon.process.poll()
        if status is None:
            return
        check(status == 75, f"the daemon ended with {status}: {self.daemon.tail()[-600:]}")
        self.exits += 1
        self.daemon.start()

    def post(self, key):
        with contextlib_closing(self.daemon.connect(5)) as connection:
            connection.request("POST", "/generate", json.dumps({**SPEC, "seed": "5"}), {"Content-Type": "application/json", "Idempotency-Key": key})
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())

    def live(self, key):
        """One try of a whole life; the job's id, or None where something went wrong."""
        posted = self.attempt(lambda: self.post(key))
        if posted is None or posted.status not in (200, 202):
            check(posted is None or posted.status in (500, 503, 507), f"{posted and (posted.status, posted.body[:300])}")
            return None
        job = posted.json["id"]
        self.attempt(lambda: self.daemon.events(f"/jobs/{job}/events", seconds=3))
        self.attempt(lambda: self.daemon.get(f"/jobs/{job}/images/1.png"))
        self.attempt(lambda: self.daemon.get("/jobs"))
        return job

    def case(self, first, last):
        """The first call that fails, and the last. Returns whether any did."""
        self.posts += 1
        key = f"case-{first}-{last == first}-{self.posts}"
        self.control.set(True, first, last)
        early = self.live(key)
        failed, who = self.control.failed, None
        self.control.set(False)
        try:
            self.settle(key, early)
        except AssertionError as error:
            who = self.control.who
            print(f"call {first}{'' if last == first else ' and all after it'} failed, asked for by {who}: {error}")
            with open(self.daemon.log_path, encoding="utf8", errors="replace") as log:
                lines = [line for line in log if " GET /" not in line and " POST /" not in line]
            print("".join(lines[-30:]))
            print([(job["id"], job["state"], job["progress"], job["attempt"]) for job in self.daemon.get("/jobs?limit=3").json["jobs"]], self.daemon.get("/readyz").body)
            raise
        return failed > 0

    def settle(self, key, early):
        def accepted():
            self.revive()
            answer = self.attempt(lambda: self.post(key))
            self.asked_again += 1
            return answer if answer and answer.status in (200, 202) else None
        answer = eventually(accepted, 20, "acceptance once there is memory")
        check(early is None or answer.json["id"] == early, f"one key, two jobs: {early} and {answer.json['id']}")

        def ended():
            self.revive()
            got = self.attempt(lambda: self.daemon.get(f"/jobs/{answer.json['id']}"))
            return got.json if got and got.status == 200 and got.json["state"] in ("succeeded", "failed", "canceled") else None
        job = eventually(ended, 30, f"the end of {answer.json['id']}")
        same(job["state"], "succeeded", f"{job['error']}")
        same([image["sha256"] for image in job["images"]], self.wanted, "pictures")
        same(self.daemon.get(f"/jobs/{job['id']}/images/1.png").status, 200, "the picture")

    def calls_of_a_life(self):
        self.control.set(True)
        check(self.live("counted"), "a life that nobody disturbs")
        calls = self.control.calls
        self.control.set(False)
        return calls


def contextlib_closing(connection):
    import contextlib
    return contextlib.closing(connection)


def sweep(sticky, count):
    faulty, tried, hit = Faulty(), 0, 0
    calls = faulty.calls_of_a_life()
    for index in range(count):
        first = 1 + index * calls // count
        hit += faulty.case(first, FOR_EVER if sticky else first)
        tried += 1
    check(hit > tried * 0.8, f"only {hit} of {tried} were ever reached")
    with Daemon(data=faulty.daemon.data) if faulty.daemon.kill() else Daemon(data=faulty.daemon.data) as after:  # noqa: F405
        jobs, cursor = [], ""
        while cursor is not None:
            page = after.get(f"/jobs?limit=100{'&cursor=' + cursor if cursor else ''}").json
            jobs, cursor = jobs + page["jobs"], page["next_cursor"]
        same(len(jobs), tried + 2, "jobs, one for each key and two of the beginning")
    print(f"{tried} of {calls} allocations of a job's life failed ({'with all after them' if sticky else 'once'}): nothing lost, the daemon ended cleanly "
          f"{faulty.exits} times")


@test
def each_once():
    sweep(False, ONCE)


@test
def each_and_all_after_it():
    sweep(True, STICKY)


def torture(seed, count):
    faulty, failed, done = Faulty(), 0, 0
    for first in range(seed, seed + count):
        for last in (first, FOR_EVER):
            done += 1
            try:
                faulty.case(first, last)
            except AssertionError as error:
                failed += 1
                print(f"seed={first}: {error}; again: DENOISED={PROGRAM} python3 tests/e2e/memory_faults_test.py --torture {first} 1")
                faulty.control.set(False)
                faulty.daemon.kill()
                faulty.daemon.start()
    print(f"TORTURE key=memory seed={seed} done={done} failed={failed}", flush=True)
    sys.exit(1 if failed else 0)


if len(sys.argv) == 4 and sys.argv[1] == "--torture":
    torture(int(sys.argv[2]), int(sys.argv[3]))
run(__name__)
