"""Many clients at once: every stream hears everything once and in order, every poller is told its own job, and nothing is left open."""
import json
import os

from harness import Daemon, PATIENCE, check, eventually, metrics_key, paced, run, same, scratch, socket, test
from many import Streams

CLIENTS = 8
SPARE = 20  # descriptors: of readers of the store that open their files when they are first used
SECRETS = [f"secret-of-client-{i:04}" for i in range(CLIENTS)]


def serve(*options, **more):
    keys = os.path.join(scratch("keys"), "keys")
    with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf8") as out:
        out.writelines(f"client{i} {secret}\n" for i, secret in enumerate(SECRETS))
    return Daemon("--api-key-file", keys, *options, **more)


def post(daemon, client, body):
    answer = daemon.post(body, Authorization=f"Bearer {SECRETS[client]}")
    same(answer.status, 202, "status of a post")
    return answer.json


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def check_stream(stream, stored):
    """stored: the milestones of its job, read afterwards."""
    told = list(stream.told())
    milestones = [(one["id"], one["event"], one["data"]) for one in told if one["id"] is not None]
    same(milestones, stored, f"milestones of stream {stream.name}")
    check(stream.ended, f"stream {stream.name} was cut")
    same(told[-1]["event"], "succeeded", f"last event of stream {stream.name}")
    # Of progress and positions the latest is told; a step back would be a lie.
    done = [one["data"]["done"] for one in told if one["event"] == "progress"]
    same(done, sorted(done), f"progress of stream {stream.name}")


def stored_milestones(daemon, client, job_id):
    found = daemon.events(f"/jobs/{job_id}/events?previews=0", {"Authorization": f"Bearer {SECRETS[client]}"})
    return [(int(one["id"]), one["event"], one["json"]) for one in found if "id" in one]


@test
def two_hundred_and_fifty_six_streams_hear_every_event_once_and_in_order():
    with serve() as daemon:
        jobs = [(client, post(daemon, client, {"class_label": client, "guidance_scale": 1, "steps": 150, "n": 4, "seed": client})["id"])
                for client in list(range(CLIENTS)) * 2]
        before = descriptors(daemon.process.pid)
        streams = Streams(daemon.port)
        for number in range(256):
            client, job_id = jobs[number % len(jobs)]
            check(streams.add(number, job_id, SECRETS[client]), f"stream {number} was refused")
        check(streams.run(PATIENCE), f"{streams.open} streams have no end")
        stored = [stored_milestones(daemon, client, job_id) for client, job_id in jobs]
        for events in stored:
            same([one[0] for one in events], list(range(1, len(events) + 1)), "ids of the stored milestones")
            same([one[1] for one in events].count("image"), 4, "images told")
        for stream in streams.streams:
            check_stream(stream, stored[stream.name % len(jobs)])
        streams.stop()
        eventually(lambda: descriptors(daemon.process.pid) <= before + SPARE, 30, "descriptors as before")


@test
def a_stream_that_comes_back_hears_the_rest_once():
    """Each stream leaves after some events and returns with the last id that it has."""
    with serve() as daemon:
        job_id = post(daemon, 0, {"class_label": 1, "guidance_scale": 1, "steps": 100, "n": 16})["id"]
        heard = [[] for _ in range(32)]
        for visit in range(16):
            streams = Streams(daemon.port)
            for number, events in enumerate(heard):
                if not events or events[-1][1] != "succeeded":  # those that have just left are counted for a moment yet
                    last = events[-1][0] if events else 0
                    eventually(lambda n=number, a=last: streams.add(n, job_id, SECRETS[0], after=a), 60, f"visit {visit} of stream {number}")
            if visit == 15:
                check(streams.run(PATIENCE), "the last visit has no end")
            streams.turn(0.2)
            for stream in streams.streams:
                heard[stream.name] += [(one["id"], one["event"]) for one in stream.told() if one["id"] is not None]
            streams.stop()
        stored = [one[:2] for one in stored_milestones(daemon, 0, job_id)]
        for number, events in enumerate(heard):
            same(events, stored, f"milestones of stream {number}")


@test
def clients_that_leave_are_let_go():
    """Streams, waiting answers and requests cut in the middle: their connections are closed long before any wait is over."""
    with serve("--batching", "single", "--patience", "10") as daemon:  # no deadline of a head or body is in our way
        first = [post(daemon, 0, {"class_label": 1, "guidance_scale": 1, "steps": 1000, "n": 64})["id"] for _ in range(10)]
        eventually(lambda: daemon.get(f"/jobs/{first[0]}", Authorization=f"Bearer {SECRETS[0]}").json["state"] == "running", 60, "a job that runs")
        # This one waits behind them, so that nothing that it does wakes anybody.
        job_id = post(daemon, 0, {"class_label": 1, "guidance_scale": 1, "steps": 1000, "n": 64, "priority": -10})["id"]
        daemon.get("/healthz")
        before = descriptors(daemon.process.pid)
        streams = Streams(daemon.port)
        check(all(streams.add(number, job_id, SECRETS[0]) for number in range(50)), "a stream was refused")
        head = f"Host: localhost\r\nAuthorization: Bearer {SECRETS[0]}\r\n"
        sockets = []
        for text in (f"GET /jobs/{job_id} HTTP/1.1\r\n{head}Prefer: wait=300\r\n\r\n", f"GET /jobs/{job_id} HTTP/1.1\r\n{head}",
                     f"POST /generate HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"):
            for _ in range(50):
                sockets.append(socket.create_connection(("127.0.0.1", daemon.port)))
                sockets[-1].sendall(text.encode())
        eventually(lambda: descriptors(daemon.process.pid) >= before + 200 - SPARE, 30, "two hundred connections")
        streams.stop()
        for connection in sockets:
            connection.close()
        eventually(lambda: descriptors(daemon.process.pid) <= before + SPARE, 60, "descriptors as before")
        reader = metrics_key(daemon.data)
        eventually(lambda: b"denoised_event_streams 0\n" in daemon.get("/metrics", Authorization=reader).body, 60, "no stream counted")
        same(daemon.get(f"/jobs/{job_id}", Authorization=f"Bearer {SECRETS[0]}").json["state"], "queued", "the job that waits")
        for one in (job_id, *first[::-1]):
            daemon.call("DELETE", f"/jobs/{one}", Authorization=f"Bearer {SECRETS[0]}")


@test
def a_thousand_pollers_are_told_the_truth():
    """Each polls a job of its own until it has ended: never somebody else's, never a step back, and its own request's values."""
    with serve() as daemon:
        clean = descriptors(daemon.process.pid), threads(daemon.process.pid)
        mine = {}
        for first in range(0, 1000, 50):
            client = first // 50 % CLIENTS
            made = post(daemon, client, [{"class_label": i % 10, "guidance_scale": 1, "steps": 1 + i % 3, "seed": first + i} for i in range(50)])["jobs"]
            for i, one in enumerate(made):
                mine[one["id"]] = (client, str(first + i), 1 + i % 3)
        same(len(mine), 1000, "ids, each its own")
        connections = [daemon.connect(120) for _ in range(64)]  # requests of other jobs follow on each
        ranks = {"queued": 0, "running": 1, "succeeded": 2}
        at = dict.fromkeys(mine, 0)
        waiting = list(mine)
        while waiting:
            for number, job_id in enumerate(waiting):
                client, seed, steps = mine[job_id]
                connection = connections[number % len(connections)]
                connection.request("GET", f"/jobs/{job_id}", headers={"Authorization": f"Bearer {SECRETS[client]}"})
                answer = connection.getresponse()
                told = json.loads(answer.read())
                same((answer.status, told["id"], told["request"]["seed"], told["request"]["steps"]), (200, job_id, seed, steps), "what a poller is told")
                rank = ranks[told["state"]]
                check(rank >= at[job_id], f"a job went back to {told['state']}")
                same(len(told["images"]), 1 if rank == 2 else len(told["images"]), "images of a job that is done")
                at[job_id] = rank
            waiting = [one for one in waiting if at[one] < 2]
        other = daemon.get(f"/jobs/{next(iter(mine))}", Authorization=f"Bearer {SECRETS[1]}")
        same(other.status, 404, "status of another client's job")
        for connection in connections:
            connection.close()
        eventually(lambda: descriptors(daemon.process.pid) <= clean[0] + SPARE, 30, "descriptors as before")
        same(threads(daemon.process.pid), clean[1], "threads")


@test
def as_many_streams_as_the_daemon_is_told():
    with serve("--streams-max", "3", **paced()) as daemon:
        same(daemon.get("/capabilities", Authorization=f"Bearer {SECRETS[0]}").json["limits"]["streams_max"], 3, "limit told")
        job_id = post(daemon, 0, {"class_label": 1, "guidance_scale": 1, "steps": 1000, "n": 64})["id"]
        streams = Streams(daemon.port)
        same([streams.add(number, job_id, SECRETS[0]) for number in range(5)], [True, True, True, False, False], "streams taken")
        streams.stop()
        again = Streams(daemon.port)
        eventually(lambda: again.add(0, job_id, SECRETS[0]), 30, "a place for a stream after others left")
        again.stop()
        daemon.call("DELETE", f"/jobs/{job_id}", Authorization=f"Bearer {SECRETS[0]}")


run(__name__)
