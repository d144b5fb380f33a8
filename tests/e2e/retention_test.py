"""What is kept, for how long, and where else: results that expire by age and by bytes (410, then 404), and directories that were copied
with `denoised backup`."""
from harness import *  # noqa: F403
import contextlib
import hashlib

DAY_MS = 24 * 3600 * 1000
SAME = {"steps": 2, "n": 2, "seed": 11, "class_label": 3}


def edit(daemon, statement):
    """Changes the database of a stopped daemon, as time would have done."""
    with contextlib.closing(sqlite3.connect(os.path.join(daemon.data, "denoised.db"))) as db, db:
        db.execute(statement)


def images_on_disk(daemon):
    return sorted(os.listdir(os.path.join(daemon.data, "images")))


def is_expired(daemon, job):
    for path in ("", "/events", "/images/0.png", "/images/1.png"):
        answer = daemon.get(f"/jobs/{job}{path}")
        same((answer.status, answer.json["code"]), (410, "expired"), f"answer of {path or 'the job'}")


@test
def results_expire_by_age_are_told_of_for_a_month_and_then_forgotten():
    with Daemon("--keep-days", "7") as daemon:
        old = daemon.post(SAME, Idempotency_Key="month").json["id"]
        daemon.wait(old)
        young = daemon.make(**SAME)["id"]  # the same pictures: each job has its own
        same(daemon.stop(), 0, "status")
        edit(daemon, f"UPDATE job SET finished_ms=finished_ms-{8 * DAY_MS},created_ms=created_ms-{8 * DAY_MS} WHERE id='{old}'")
        daemon.start()  # retention looks at once after a start
        eventually(lambda: daemon.get(f"/jobs/{old}").status == 410, what="the end of its time")
        is_expired(daemon, old)
        same(daemon.get(f"/jobs/{young}").json["state"], "succeeded", "the other one")
        eventually(lambda: len(images_on_disk(daemon)) == 2, what="its files are gone, and no others")
        for index in range(2):
            same(daemon.get(f"/jobs/{young}/images/{index}.png").status, 200, "a picture of the other one")
        same([job["id"] for job in daemon.get("/jobs").json["jobs"]], [young], "the list")
        again = daemon.post(SAME, Idempotency_Key="month")
        same((again.status, again.json["code"]), (410, "expired"), "its key, while it is told of")
        same(daemon.stop(), 0, "status")
        edit(daemon, f"UPDATE job SET expires_ms=expires_ms-{31 * DAY_MS} WHERE id='{old}'")
        daemon.start()
        eventually(lambda: daemon.get(f"/jobs/{old}").status == 404, what="the end of its tombstone")
        for path in ("", "/events", "/images/0.png"):
            same(daemon.get(f"/jobs/{old}{path}").json["code"], "not-found", f"code of {path}")
        new = daemon.post(SAME, Idempotency_Key="month")
        same(new.status, 202, "the key is free again")
        check(new.json["id"] not in (old, young), "a new job")
        same(daemon.wait(new.json["id"])["state"], "succeeded", "its end")


@test
def the_oldest_results_make_room_when_there_are_too_many_bytes():
    with Daemon() as daemon:
        jobs = [daemon.make(steps=2, n=2, seed=seed) for seed in range(4)]
        sizes = [sum(image["bytes"] for image in job["images"]) for job in jobs]
        same(daemon.stop(), 0, "status")
        daemon.options += ["--keep-bytes", str(sizes[2] + sizes[3])]
        daemon.start()
        eventually(lambda: daemon.get(f"/jobs/{jobs[1]['id']}").status == 410, what="room")
        for job in jobs[:2]:
            is_expired(daemon, job["id"])
        for job in jobs[2:]:
            same(daemon.get(f"/jobs/{job['id']}/images/1.png").status, 200, "the younger ones")
        eventually(lambda: len(images_on_disk(daemon)) == 4, what="their files alone")


@test
def a_backup_of_a_busy_daemon_serves_all_that_it_had():
    with Daemon() as daemon:
        done = {}
        for seed in range(3):
            posted = daemon.post({"steps": 2, "n": 2, "seed": seed}, Idempotency_Key=f"key {seed}").json["id"]
            daemon.wait(posted)
            done[posted] = [daemon.image(posted, index) for index in range(2)]
        stop = threading.Event()

        def write():
            seed = 100
            while not stop.is_set():
                daemon.post({"steps": 3, "n": 2, "seed": seed})
                seed += 1
                time.sleep(0.01)

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            copies = []
            for _ in range(5):
                copy = os.path.join(scratch("copy"), "d")
                said = subprocess.run([PROGRAM, "backup", "--data", daemon.data, copy], capture_output=True, check=False)
                same(said.returncode, 0, f"backup: {said.stderr}")
                copies.append(copy)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
    for copy in copies:
        verdict = subprocess.run([PROGRAM, "check", "--data", copy, "--json"], capture_output=True, check=False)
        same((verdict.returncode, json.loads(verdict.stdout)["damage"]), (0, []), "a copy is whole")
    with Daemon(data=copies[-1]) as restored:
        for job, pictures in done.items():
            same(restored.get(f"/jobs/{job}").json["state"], "succeeded", "a job")
            for index, picture in enumerate(pictures):
                same(hashlib.sha256(restored.image(job, index)).hexdigest(), hashlib.sha256(picture).hexdigest(), "a picture")
        for seed, job in enumerate(done):
            again = restored.post({"steps": 2, "n": 2, "seed": seed}, Idempotency_Key=f"key {seed}")
            same((again.json["id"], again.headers.get("idempotency-replayed")), (job, "true"), "a key")
        for job in restored.get("/jobs?limit=100").json["jobs"]:
            same(restored.wait(job["id"], 120)["state"], "succeeded", "a job that waited or ran when the copy was made")


run(__name__)
