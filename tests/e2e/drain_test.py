"""SIGTERM: nothing new is taken, what runs ends or goes back with its snapshots, no attempt is spent, and everybody who waits hears of it."""
from harness import *  # noqa: F403
import re
import socket as sockets

DRAINS = 30 if SLOW == 1 else 5
LONG = {"steps": 1000, "guidance_scale": 1}
HELD = "step_k:1:slow20"  # such a job takes twenty seconds at least


class Slow(Daemon):  # noqa: F405
    """The program with fault points; by default its ticks take 5 ms more, so that jobs stay under way on any machine."""

    def __init__(self, *options, fault="step_k:1:slow5", **more):
        super().__init__("--snapshot-every", "0.05", *options, environment={"DENOISED_FAULT": fault}, program=FAULTS, **more)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def unended(self):
        return sum(len(self.get(f"/jobs?state={state}&limit=100").json["jobs"]) for state in ("queued", "running"))

    def running(self):
        return [job for job in self.get("/jobs?state=running&limit=100").json["jobs"] if job["progress"]["done"] > 0]


@test
def many_drains_spend_no_attempt():
    jobs, longest = {}, 0.0
    with Slow("--drain-seconds", "0.1", "--rows-max", "16") as daemon:
        def eight_run():
            if daemon.unended() < 10:
                jobs[daemon.post({**LONG, "seed": len(jobs)}).json["id"]] = len(jobs)
            return len(daemon.running()) >= 8

        for number in range(DRAINS):
            eventually(eight_run, 60, f"eight running jobs before drain {number}")
            began = time.monotonic()
            daemon.terminate()
            same(daemon.process.wait(PATIENCE), 0, "status")
            longest = max(longest, time.monotonic() - began)
            daemon.start()
        made = {job_id: daemon.wait(job_id, 200) for job_id in jobs}
        same({(job["state"], job["attempt"]) for job in made.values()}, {("succeeded", 1)}, "states and attempts")
        requeued = [event["json"]["reason"] for job_id in jobs for event in daemon.events(f"/jobs/{job_id}/events") if event["event"] == "requeued"]
        check(len(requeued) >= 7 * DRAINS and set(requeued) == {"shutdown"}, f"{len(requeued)} jobs went back: {set(requeued)}")
    with Daemon() as undisturbed:  # noqa: F405
        for job_id in list(jobs)[:3]:
            again = undisturbed.make(**LONG, seed=jobs[job_id])
            same([i["sha256"] for i in made[job_id]["images"]], [i["sha256"] for i in again["images"]], "pictures across drains")
    print(f"{DRAINS} drains, {len(requeued)} times a running job went back, 0 attempts spent; the longest took {longest:.2f} s with a grace of 0.1 s")


@test
def who_waits_is_told():
    """A stream gets its last milestone and ends whole; a call that waits for its job is answered with where to look."""
    with Slow(fault=HELD) as daemon:
        job = daemon.post({**LONG, "n": 4}).json["id"]
        eventually(lambda: daemon.running(), 60, "it runs")
        heard, answers = [], []
        stream = threading.Thread(target=lambda: heard.extend(daemon.events(f"/jobs/{job}/events")), daemon=True)
        poll = threading.Thread(target=lambda: answers.append(daemon.get(f"/jobs/{job}", Prefer="wait=200")), daemon=True)
        post = threading.Thread(target=lambda: answers.append(daemon.post(LONG, Prefer="wait=200")), daemon=True)
        for thread in (stream, poll, post):
            thread.start()
        eventually(lambda: any(event["event"] == "started" for event in heard) or "denoised_event_streams 1" in daemon.get("/metrics").body.decode(),
                   what="a stream")
        eventually(lambda: len(daemon.get("/jobs").json["jobs"]) == 2, what="the second job")
        daemon.terminate()
        refusal = eventually(lambda: (lambda a: a if a.status == 503 else None)(daemon.post(LONG)), 30, "the refusal")
        same((refusal.json["code"], "retry-after" in refusal.headers), ("draining", True), "the refusal")
        ready = daemon.get("/readyz")
        same((ready.status, ready.json["code"]), (503, "draining"), "readiness")
        same((daemon.get("/healthz").status, daemon.get(f"/jobs/{job}").status), (200, 200), "health and reading go on")
        daemon.terminate()
        for thread in (stream, poll, post):
            thread.join(PATIENCE)
            check(not thread.is_alive(), "somebody is left waiting")
        same(daemon.process.wait(PATIENCE), 0, "status")
        milestones = [(event["event"], event["json"]) for event in heard if "id" in event]
        same(milestones[-1], ("requeued", {"reason": "shutdown", "attempt": 1}), "the last milestone")
        same(sorted(answer.status for answer in answers), [202, 202], "the calls that waited")


def gone(daemon):
    return daemon.process.wait(PATIENCE)


@test
def at_any_moment_of_the_start():
    """Before signals are taken the process just ends; after that it drains. Nothing is left behind that would stop the next start."""
    data, statuses = scratch("data"), set()
    for milliseconds in (0, 2, 5, 10, 20, 35, 50, 70, 90, 120):
        daemon = Slow(data=data, ready=False, fault="none:1")
        time.sleep(milliseconds / 1000)
        daemon.terminate()
        statuses.add(gone(daemon))
    check(statuses <= {0, -signal.SIGTERM}, statuses)
    with Daemon(data=data) as daemon:  # noqa: F405
        same(daemon.make(steps=1)["state"], "succeeded", "the next start")


@test
def while_a_model_is_loaded():
    with Slow(fault="worker_model_loaded:1:slow3600000", ready=False) as daemon:
        eventually(daemon.worker_pids, what="a worker")
        daemon.terminate()
        same(gone(daemon), 0, "status of a drain that waits for no load")


@test
def while_a_client_uploads():
    """An upload that is under way is refused when it is whole, and holds nothing up when it never is."""
    body = json.dumps(LONG).encode()
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Slow(fault=HELD) as daemon:
        job = daemon.post({**LONG, "n": 2}).json["id"]
        eventually(daemon.running, 60, "it runs")
        whole, half = (sockets.create_connection(("127.0.0.1", daemon.port)) for _ in range(2))
        for connection in (whole, half):
            connection.settimeout(PATIENCE)
            connection.sendall(head + body[:9])
        daemon.terminate()
        eventually(lambda: daemon.get("/readyz").json.get("code") == "draining", what="the drain")
        whole.sendall(body[9:])
        answer = whole.recv(65536)
        check(re.match(rb"HTTP/1.1 503 .*Retry-After", answer, re.S | re.I) and b"draining" in answer, answer[:300])
        daemon.terminate()
        same(gone(daemon), 0, "status")
        same(half.recv(10), b"", "the other is closed")
        whole.close()
        half.close()
        daemon.start()
        same([one["id"] for one in daemon.get("/jobs").json["jobs"]], [job], "jobs")
        daemon.call("DELETE", f"/jobs/{job}")


@test
def while_the_worker_is_frozen():
    """It cannot let go of anything: it is ended, and its jobs go back as they stood, at no cost."""
    with Slow(fault=HELD) as daemon:
        job = daemon.post({**LONG, "n": 2}).json["id"]
        eventually(lambda: any(name.endswith(".snap") for name in os.listdir(os.path.join(daemon.data, "snapshots"))), 60, "a snapshot")
        worker = daemon.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        daemon.terminate_at_once()
        same(gone(daemon), 0, "status")
        check("did not let go in time" in daemon.log_text(), f"it was ended for another reason: {daemon.tail()}")
        check(not os.path.exists(f"/proc/{worker}"), "the worker is left")
        daemon.start()
        events = daemon.events(f"/jobs/{job}/events", until=lambda e: e["event"] == "started" and e["json"]["resumed_done"] > 0)
        same((events[-1]["json"]["attempt"], [e["event"] for e in events if "id" in e]), (1, ["queued", "started", "requeued", "started"]), "its course")
        daemon.call("DELETE", f"/jobs/{job}")


run(__name__)
