"""Event streams that break: a client that comes back hears every milestone once and in order, whatever was killed meanwhile; storms of clients leave
nothing behind; a silent stream is kept alive by pings."""
from harness import *  # noqa: F403
import contextlib
import http.client
import re
import struct

PING_SECONDS = 15


def milestones(events):
    return [(event["id"], event["event"], event["data"]) for event in events if "id" in event]


class Follower(threading.Thread):
    """An EventSource: comes back with the last id it has heard, until the daemon says that there is no more."""

    def __init__(self, daemon, job):
        super().__init__(daemon=True)
        self.target, self.job, self.heard, self.tries, self.fault = daemon, job, [], 0, None

    def run(self):
        try:
            while not self.over():
                self.tries += 1
                try:
                    self.listen()
                except (OSError, http.client.HTTPException):
                    time.sleep(0.02)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.fault = error

    def over(self):
        return bool(self.heard) and self.heard[-1][1] in ("succeeded", "failed", "canceled")

    def listen(self):
        headers = {"Last-Event-ID": self.heard[-1][0]} if self.heard else {}
        with contextlib.closing(self.target.connect()) as connection:
            connection.request("GET", f"/jobs/{self.job}/events?previews=0", headers=headers)
            answer = connection.getresponse()
            check(answer.status == 200, f"status {answer.status} with {headers}")
            event = {}
            for line in answer:
                if not line.endswith(b"\n"):
                    raise http.client.IncompleteRead(line)
                text = line.decode().rstrip("\n")
                field, _, value = text.partition(": ")
                if text == "":
                    if "id" in event:
                        self.heard.append((event["id"], event["event"], event["data"]))
                    event = {}
                else:
                    event[field.rstrip(":")] = value


@test
def whoever_comes_back_hears_everything_once_and_in_order_under_kills():
    with Daemon("--snapshot-every", "0.2", **paced(2)) as daemon:
        jobs = [daemon.post({"steps": 600, "n": 12, "seed": seed}).json["id"] for seed in range(4)]
        followers = [Follower(daemon, job) for job in jobs * 4]
        for follower in followers:
            follower.start()
        kills = 0
        for number in range(6):
            heard = sum(len(follower.heard) for follower in followers)
            eventually(lambda heard=heard: sum(len(follower.heard) for follower in followers) > heard or all(follower.over() for follower in followers),
                       60, "something new")
            if all(follower.over() for follower in followers):
                break
            if number % 3 == 2:
                for pid in daemon.worker_pids():
                    os.kill(pid, signal.SIGKILL)
            else:
                daemon.kill()
                daemon.start()
            kills += 1
        for follower in followers:
            follower.join(PATIENCE)
            check(not follower.is_alive(), "a follower never heard the end")
            check(follower.fault is None, f"{follower.fault}")
        for job in jobs:
            stored = milestones(daemon.events(f"/jobs/{job}/events?previews=0"))
            same(stored[-1][1], "succeeded", "the last event")
            same([int(one[0]) for one in stored], list(range(1, len(stored) + 1)), "ids")
            images = [json.loads(data)["image"]["index"] for _, name, data in stored if name == "image"]
            same(sorted(images), list(range(12)), "images that were told")
            for follower in followers:
                if follower.job == job:
                    same(follower.heard, stored, "what a follower heard")
        check(kills >= 2, f"only {kills} kills before all was over")
        print(f"     16 followers heard 4 jobs' events once and in order over {kills} kills, in {sum(follower.tries for follower in followers)} streams")


@test
def a_storm_of_streams_leaves_nothing_behind():
    with Daemon() as daemon:
        jobs = [job["id"] for job in daemon.post([{"steps": 1000, "n": 64, "seed": seed} for seed in range(32)]).json["jobs"]]
        before, statuses, lock = len(os.listdir(f"/proc/{daemon.process.pid}/fd")), [], threading.Lock()

        def storm():
            for number in range(50):
                with contextlib.closing(socket.create_connection(("127.0.0.1", daemon.port))) as connection:
                    connection.settimeout(PATIENCE)
                    connection.sendall(f"GET /jobs/{jobs[number % 32]}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    with lock:
                        statuses.append(int(connection.recv(20).split(b" ")[1]))
                    if number % 2:  # half of them end with a reset
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        threads = [threading.Thread(target=storm) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same(len(statuses), 1000, "streams that were answered")
        check(set(statuses) <= {200, 429}, f"statuses {sorted(set(statuses))}")
        eventually(lambda: re.search(rb"^denoised_event_streams 0$", daemon.get("/metrics").body, re.M), 30, "no stream that is counted")
        eventually(lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd")) <= before + 12, 30, "their descriptors")
        for job in jobs[::-1]:
            daemon.call("DELETE", f"/jobs/{job}")
        same(daemon.events(f"/jobs/{jobs[-1]}/events")[-1]["event"], "canceled", "a stream after the storm")
        print(f"     1,000 streams came and went: {statuses.count(200)} were served, {statuses.count(429)} refused")


@test
def a_silent_stream_gets_pings():
    with Daemon() as daemon:
        # The last of so many that it cannot be reached meanwhile; a worker that is held moves nobody's place, and is not missed for 30 s.
        jobs = [job["id"] for job in daemon.post([{"steps": 1000, "n": 64, "seed": seed} for seed in range(64)]).json["jobs"]]
        eventually(lambda: daemon.get(f"/jobs/{jobs[0]}").json["state"] != "queued", what="the first runs")
        worker = daemon.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            with contextlib.closing(daemon.connect()) as connection:
                connection.request("GET", f"/jobs/{jobs[-1]}/events?previews=0")
                answer, last, gaps = connection.getresponse(), time.monotonic(), []
                for line in answer:
                    if line != b"\n":
                        gaps.append(time.monotonic() - last)
                        last = time.monotonic()
                    if line == b": ping\n":
                        break
                same(line, b": ping\n", "the last line")
                check(max(gaps) < 4 * PING_SECONDS * SLOW, f"{max(gaps):.1f} s without a word")
        finally:
            with contextlib.suppress(ProcessLookupError):  # on a machine so slow that it was taken for frozen
                os.kill(worker, signal.SIGCONT)


run(__name__)
