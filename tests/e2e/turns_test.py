"""Whose turn it is: batching policies, priorities, deadlines, fair shares between clients. What is counted is rows and order, never time."""
from harness import *  # noqa: F403
import contextlib


def metric(daemon, name):
    return next(float(line.split()[1]) for line in daemon.get("/metrics").body.decode().splitlines() if line.startswith(name + " "))


def hashes(job):
    return [image["sha256"] for image in job["images"]]


def under_way(daemon, job_id):
    eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 0, what="a first step")


def failed_late(job):
    same((job["state"], (job["error"] or {}).get("code")), ("failed", "deadline"), "end of a job that is too late")


@test
def policies_give_the_same_files():
    wanted = [{"class_label": i, "seed": i, "steps": 7 + 5 * i, "sampler": sampler, "guidance_scale": 1 + i % 2, "n": 1 + i % 3}
              for i, sampler in enumerate(["ddim", "heun", "dpmpp_2m", "ddpm", "euler", "dpmpp_2m"])]
    seen = {}
    for policy in ("continuous", "request", "single"):
        with Daemon("--batching", policy) as daemon:
            ids = [job["id"] for job in daemon.post(wanted).json["jobs"]]
            seen[policy] = [hashes(daemon.wait(job_id)) for job_id in ids]
            check(all(len(files) == job["n"] for files, job in zip(seen[policy], wanted)), f"images under {policy}")
    same(seen["request"], seen["continuous"], "request batches")
    same(seen["single"], seen["continuous"], "one at a time")
    refused = subprocess.run([PROGRAM, "serve", "--batching", "sometimes"], capture_output=True, text=True, check=False)
    same(refused.returncode, 78, "status of an unknown policy")
    check("--batching must be" in refused.stderr, refused.stderr)


@test
def deadlines_are_kept():
    with Daemon("--rows-max", "4") as daemon:
        for wrong in (0, -1, 604800001, 1.5, "5", True, []):
            answer = daemon.post({"deadline_ms": wrong})
            same((answer.status, answer.json["code"], answer.json["field"]), (422, "invalid-field", "/deadline_ms"), f"deadline_ms {wrong}")
        endless = {"steps": 1000, "n": 64, "guidance_scale": 2}
        running = daemon.post({**endless, "deadline_ms": 1500}).json
        same(running["request"]["deadline_ms"], 1500, "the accepted request")
        waiting = daemon.post({**endless, "deadline_ms": 400}).json
        events = daemon.events(f"/jobs/{waiting['id']}/events")
        same(events[-1]["event"], "failed", "the last event")
        failed_late(daemon.wait(waiting["id"]))
        failed_late(daemon.wait(running["id"]))
        # A deadline is no part of a picture.
        free, bound = daemon.make(seed=3, steps=9), daemon.make(seed=3, steps=9, deadline_ms=600000)
        same(hashes(bound), hashes(free), "files")
        same(daemon.image(bound["id"]), daemon.image(free["id"]), "bytes")


@test
def deadlines_outlive_a_crash():
    with Daemon("--rows-max", "4", **paced(5)) as daemon:
        running = daemon.post({"steps": 1000, "n": 64, "guidance_scale": 2}).json
        under_way(daemon, running["id"])
        waiting = daemon.post({"steps": 20, "deadline_ms": 1000}).json
        daemon.kill()
        time.sleep(1.1)
        daemon.start()
        failed_late(daemon.wait(waiting["id"]))
        check(daemon.get(f"/jobs/{running['id']}").json["state"] in ("queued", "running"), "the job without a deadline goes on")


def ended(daemon):
    return ask(daemon, "SELECT count(*) FROM job WHERE state=2")[0]


def overtaking(daemon, job_id):
    """By the daemon's own books: how many jobs were claimed before this one was, and how many ended before it did."""
    return ask(daemon, "SELECT sum(x.started_ms<one.started_ms), sum(x.finished_ms<one.finished_ms) FROM job AS x, job AS one WHERE one.id=?", job_id)


def ask(daemon, question, *values):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data}/denoised.db?mode=ro", uri=True)) as db:
        return db.execute(question, values).fetchone()


@test
def urgent_jobs_go_at_once():
    slow = {"steps": 100, "n": 8, "guidance_scale": 2, "seed": 5, "sampler": "ddpm", "priority": -2}
    # A tick takes 20 ms at least, on any machine: the crowd is still there when the urgent job has ended.
    with Daemon("--rows-max", "8", **paced()) as daemon:
        alone = daemon.make(**slow)
        crowd = [daemon.post(slow).json["id"] for _ in range(2)]
        under_way(daemon, crowd[0])
        urgent = daemon.make(steps=10, n=4, guidance_scale=2, priority=2)
        same(urgent["state"], "succeeded", "the urgent job")
        check(metric(daemon, "denoised_lanes_set_aside_total") >= 1, "somebody made way")
        for job_id in crowd:
            same(hashes(daemon.wait(job_id)), hashes(alone), "files of those that made way")
        ends = [ask(daemon, "SELECT finished_ms FROM job WHERE id=?", job_id)[0] for job_id in (urgent["id"], *crowd)]
        check(ends[0] < min(ends[1:]), f"the urgent job ended at {ends[0]}, the crowd at {ends[1:]}")


@test
def one_clients_flood_delays_another_by_one_job():
    keys = os.path.join(scratch("keys"), "keys")
    with open(keys, "w", encoding="utf8") as out:
        out.write("flood the-secret-of-flood\nother the-secret-of-other\n")
    os.chmod(keys, 0o600)
    flood, other = {"Authorization": "Bearer the-secret-of-flood"}, {"Authorization": "Bearer the-secret-of-other"}
    job = {"steps": 60, "guidance_scale": 2, "sampler": "ddim"}
    # Four jobs at a time of two rows each, and a tick takes 5 ms at least: 256 of them are there for long on any machine.
    with Daemon("--rows-max", "8", "--api-key-file", keys, **paced(5)) as daemon:
        for batch in range(4):
            same(daemon.post([{**job, "seed": 64 * batch + i} for i in range(64)], **flood).status, 202, "status")
        eventually(lambda: ended(daemon) > 4, 60, "the flood is under way")
        posted = daemon.post({**job, "seed": 1}, **other).json
        # What the books say now it came behind; while it was being stored the flood went on, and a slow machine takes its time over that.
        before = ask(daemon, "SELECT count(started_ms), count(finished_ms) FROM job")
        check(posted["queue_position"] is None or posted["queue_position"] <= 1, f"position {posted['queue_position']}")
        eventually(lambda: daemon.get(posted["urls"]["self"], **other).json["state"] == "succeeded", 60, "the other's picture")
        claimed, finished = overtaking(daemon, posted["id"])
        # One is ahead of its turn, and as many as run at a time may be claimed at once.
        check(claimed - before[0] <= 1 + 4, f"{claimed - before[0]} of the flood's jobs were claimed before it")
        check(finished - before[1] <= 24, f"{finished - before[1]} of the flood's jobs ended before it: only those claimed already and those beside it may")


run(__name__)
