"""Disks that fail under a real daemon: commits that fail, full disks, files that may not grow, damage that is found late. What a client was
told holds, what cannot be done is refused, and the daemon goes on or ends so that its restart is clean."""
from harness import *  # noqa: F403
import contextlib
import errno
import http.client
import resource
import shutil

SLOW_JOB = {"steps": 1000, "n": 16}
GATE_BYTES = 32 << 20  # free space below which new jobs are refused (SPACE_MIN_BYTES)


def preload():
    """The library that makes a disk fail, compiled once."""
    library = os.path.join(os.path.dirname(scratch("shim")), "disk_faults.so")
    if not os.path.exists(library):
        if TEST_VARIANT != "release":
            raise Skip("the sanitizer's own library must come first")
        source = os.path.join(ROOT, "tests/e2e/disk_faults.c")
        subprocess.run([os.environ.get("CC", "gcc").split()[-1], "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", library, source], check=True)
    return library


TEST_VARIANT = os.environ.get("TEST_VARIANT", "release")


class Disk:
    """A control file: faults(*lines) arms, sound() ends it."""

    def __init__(self):
        self.path = os.path.join(scratch("faults"), "faults")
        self.environment = {"LD_PRELOAD": preload(), "DISK_FAULTS": self.path}

    def faults(self, *lines):
        with open(self.path + ".new", "w", encoding="utf8") as out:
            out.write("".join(line + "\n" for line in lines))
        os.replace(self.path + ".new", self.path)

    def sound(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def rows(daemon, question):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data}/denoised.db?mode=ro", uri=True)) as db:
        return db.execute(question).fetchall()


def sound_data(daemon):
    out = subprocess.run([PROGRAM, "check", "--data", daemon.data, "--json"], capture_output=True, check=False)
    check(json.loads(out.stdout)["sound"], out.stdout[:500])


def a_commit_that_fails(fault):
    disk = Disk()
    with Daemon(environment=disk.environment) as daemon:
        kept = daemon.make(steps=2, seed=3)
        picture = daemon.image(kept["id"])
        disk.faults(fault)
        answer = daemon.post({"steps": 2, "seed": 9}, Idempotency_Key="doubtful")
        same((answer.status, answer.json["code"]), (503, "outcome-unknown"), "answer")
        check("Idempotency-Key" in answer.json["detail"] or "retry" in answer.json["detail"], answer.json["detail"])
        same(daemon.process.wait(PATIENCE), 75, "status")
        disk.sound()
        daemon.start()
        again = daemon.post({"steps": 2, "seed": 9}, Idempotency_Key="doubtful")
        check(again.status in (200, 202), f"the retry: {again.status}")  # 200: it was there, and has ended since the start
        once_more = daemon.post({"steps": 2, "seed": 9}, Idempotency_Key="doubtful")
        same((once_more.json["id"], once_more.headers.get("idempotency-replayed")), (again.json["id"], "true"), "and once more")
        same(daemon.wait(again.json["id"])["state"], "succeeded", "its job")
        check(daemon.image(kept["id"]) == picture, "the picture of before")
        same(rows(daemon, "SELECT count(*) FROM idempotency")[0][0], 1, "keys")
        same(rows(daemon, "SELECT count(*) FROM job")[0][0], 2, "jobs")
        same(daemon.stop(), 0, "status")
        sound_data(daemon)


@test
def a_failed_sync_of_a_commit_is_told_as_unknown_and_ends_the_daemon():
    a_commit_that_fails(f"sync denoised.db-wal {errno.EIO}")


@test
def a_failed_write_of_a_commit_is_told_as_unknown_and_ends_the_daemon():
    a_commit_that_fails(f"write denoised.db-wal {errno.EIO}")


@test
def a_picture_whose_commit_fails_is_made_again_after_the_restart():
    disk = Disk()
    with Daemon("--snapshot-every", "0.05", environment=disk.environment) as daemon:
        alone = daemon.image(daemon.make(120, **dict(SLOW_JOB, seed=6, n=1))["id"])
        worker = daemon.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)  # so that no picture comes before the disk is broken
        job = daemon.post(dict(SLOW_JOB, seed=6)).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["state"] == "running", what="it runs")
        disk.faults(f"sync denoised.db-wal {errno.EIO}")
        os.kill(worker, signal.SIGCONT)
        same(daemon.process.wait(PATIENCE), 75, "status")
        disk.sound()
        daemon.start()
        ended = daemon.wait(job, 120)
        same((ended["state"], ended["attempt"], len(ended["images"])), ("succeeded", 1, SLOW_JOB["n"]), "the job")
        check(daemon.image(job) == alone, "its picture")
        same(daemon.stop(), 0, "status")
        sound_data(daemon)


@test
def pictures_that_cannot_be_written_wait_for_room():
    disk = Disk()
    with Daemon(environment=disk.environment) as daemon:
        alone = daemon.image(daemon.make(steps=4, seed=5)["id"])
        for fault in (f"write .png.tmp {errno.ENOSPC}", f"create .png.tmp {errno.ENOSPC}", f"rename .png {errno.ENOSPC}"):
            disk.faults(fault)
            job = daemon.post({"steps": 4, "seed": 5}).json["id"]
            eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] == 4, what="its last step")
            time.sleep(0.5)
            same(rows(daemon, f"SELECT count(*) FROM image i JOIN job j ON j.row=i.job WHERE j.id='{job}'")[0][0], 0, "rows without a file")
            same(daemon.get(f"/jobs/{job}/images/0.png").status, 404, "not yet")
            disk.sound()
            same(daemon.wait(job)["state"], "succeeded", fault)
            check(daemon.image(job) == alone, "its picture")
        same(daemon.stop(), 0, "status")
        sound_data(daemon)


@test
def a_folder_of_pictures_that_does_not_sync_fails_no_row():
    disk = Disk()
    with Daemon(environment=disk.environment) as daemon:
        disk.faults(f"sync /images {errno.EIO}")
        job = daemon.post({"steps": 4, "seed": 5}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] == 4, what="its last step")
        time.sleep(0.5)
        same(rows(daemon, "SELECT count(*) FROM image")[0][0], 0, "rows whose file may be gone")
        disk.sound()
        same(daemon.wait(job)["state"], "succeeded", "its end")
        sound_data(daemon)


@test
def snapshots_that_cannot_be_written_cost_nothing():
    disk = Disk()
    with Daemon("--snapshot-every", "0.05", environment=disk.environment) as daemon:
        disk.faults(f"create .snap.tmp {errno.ENOSPC}")
        same(daemon.make(120, **dict(SLOW_JOB, seed=1))["state"], "succeeded", "a job of many snapshots")
        same(os.listdir(os.path.join(daemon.data, "snapshots")), [], "snapshots")


@test
def an_input_picture_that_cannot_be_kept_is_refused():
    disk = Disk()
    with Daemon(environment=disk.environment) as daemon:
        picture = daemon.image(daemon.make(steps=2)["id"])
        body = {"steps": 10, "sampler": "ddim", "init_image": base64.b64encode(picture).decode(), "strength": 0.5}
        disk.faults(f"write -init.png.tmp {errno.ENOSPC}")
        answer = daemon.post(body, Idempotency_Key="with picture")
        same((answer.status, answer.json["code"]), (507, "storage-full"), "no room")
        same(daemon.make(steps=2)["state"], "succeeded", "one without a picture")
        same(daemon.jobs_in_store(), 2, "jobs")
        disk.sound()
        answer = daemon.post(body, Idempotency_Key="with picture")
        same(answer.status, 202, f"{answer.body[:300]}")
        same(daemon.wait(answer.json["id"])["state"], "succeeded", "with room")


@test
def files_that_may_not_grow_end_the_daemon_clean():
    with Daemon() as daemon:
        acked = [daemon.make(steps=1, seed=1)["id"]]
        size = os.path.getsize(os.path.join(daemon.data, "denoised.db-wal"))
        subprocess.run(["prlimit", "--pid", str(daemon.process.pid), f"--fsize={size + 400000}:"], check=True)
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may be a picture's commit that fails, and the daemon gone
            for seed in range(2000):
                answer = daemon.post({"steps": 1, "seed": seed})
                if answer.status != 202:
                    same((answer.status, answer.json["code"]), (503, "outcome-unknown"), "answer")
                    break
                acked.append(answer.json["id"])
        same(daemon.process.wait(PATIENCE), 75, "status")
        daemon.start()
        for job in acked:
            same(daemon.wait(job)["state"], "succeeded", "an acknowledged job")
        check(len(acked) > 1, f"{len(acked)} acknowledged")


@contextlib.contextmanager
def small_disk(size):
    folder = scratch("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False).returncode != 0:
        raise Skip("mounting a small file system needs the superuser")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(folder):
    """Takes all the room there is."""
    path = os.path.join(folder, "filler")
    with open(path, "wb", buffering=0) as out, contextlib.suppress(OSError):
        for block in (1 << 20, 4096, 512):
            with contextlib.suppress(OSError):
                while out.write(b"x" * block) == block:
                    pass
    return path


@test
def on_a_full_disk_running_jobs_end_reading_goes_on_and_room_cures_it():
    with small_disk("112m") as folder, Daemon(data=os.path.join(folder, "data")) as daemon:
        done = daemon.make(steps=2, n=2, seed=1)
        picture = daemon.image(done["id"])
        waiting = [daemon.post({"steps": 50, "n": 4, "seed": i}).json["id"] for i in range(12)]
        filler = fill(folder)
        refusal = eventually(lambda: (lambda a: a if a.status != 202 else None)(daemon.post({"steps": 1})), what="the refusal")
        same((refusal.status, refusal.json["code"]), (507, "storage-full"), "a new job")
        check("retry-after" in refusal.headers, "Retry-After")
        for job in waiting:  # the ballast is for them
            same(daemon.wait(job, 120)["state"], "succeeded", "a job of before")
            same(len(daemon.get(f"/jobs/{job}").json["images"]), 4, "its pictures")
        check(daemon.image(done["id"]) == picture, "downloads")
        names = [e["event"] for e in daemon.events(f"/jobs/{waiting[0]}/events") if "id" in e]
        same(names[-1], "succeeded", "the event stream")
        same(daemon.get("/jobs?limit=100").status, 200, "lists")
        same(daemon.get("/readyz").status, 200, "readiness")
        same(daemon.post({"steps": 1}).status, 507, "still")
        os.unlink(filler)
        eventually(lambda: daemon.post({"steps": 1}).status == 202, what="acceptance without a restart")
        eventually(lambda: os.path.exists(os.path.join(daemon.data, "ballast")), what="the ballast is back")
        same(daemon.stop(), 0, "status")
        sound_data(daemon)


@test
def pictures_on_a_full_disk_of_their_own_wait():
    with small_disk("64k") as folder:
        data = scratch("data")
        os.symlink(folder, os.path.join(data, "images"))
        with Daemon(data=data) as daemon:
            same(daemon.make(steps=2, seed=1)["state"], "succeeded", "while there is room")
            filler = fill(folder)
            job = daemon.post({"steps": 2, "n": 2, "seed": 2}).json["id"]
            eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] == 4, what="its last step")
            time.sleep(0.3)
            state = daemon.get(f"/jobs/{job}").json
            same(state["state"], "running", "it waits")
            for image in state["images"]:
                same(daemon.get(image["url"]).status, 200, "a row has its file")
            os.unlink(filler)
            same(daemon.wait(job)["state"], "succeeded", "with room")
            same(daemon.stop(), 0, "status")
            sound_data(daemon)


@test
def damage_that_is_found_beside_the_work_ends_the_daemon():
    disk = Disk()
    with Daemon(environment=disk.environment) as daemon:
        for i in range(3):
            daemon.post([{"steps": 1, "seed": i * 10 + j} for j in range(8)])
        eventually(lambda: daemon.get("/jobs?state=succeeded&limit=100").json["jobs"].__len__() == 24, what="the jobs")
        same(daemon.stop(), 0, "status")
        with contextlib.closing(sqlite3.connect(os.path.join(daemon.data, "denoised.db"))) as db, db:
            db.execute("PRAGMA ignore_check_constraints=ON")
            db.execute("UPDATE job SET attempt=-5 WHERE row=7")
            for number in range(60):  # more than is looked through before the start
                db.execute("INSERT INTO model VALUES(?,?,1)", (f"large {number}", "x" * 200000))
        disk.faults("read denoised.db 2")  # so slow that the start does not wait for the end of the check
        worked = False
        for _ in range(10):  # but a machine may be slower still
            daemon.start(ready=False)
            worked |= daemon.read_line().startswith("denoised ready")
            same(daemon.process.wait(PATIENCE), 78, "status")
            if worked:
                break
        check(worked, "it never worked meanwhile")
        check("damaged" in daemon.log_text() and "backup" in daemon.log_text(), daemon.tail())
        disk.sound()
        same(subprocess.run(daemon.command(), capture_output=True, timeout=PATIENCE, check=False).returncode, 78, "the next start")


@test
def a_network_file_system_is_refused():
    disk = Disk()
    disk.faults(f"statfs / {0x6969}")
    with Daemon(environment=disk.environment, ready=False) as daemon:
        same(daemon.process.wait(PATIENCE), 78, "status")
        check("network file system (NFS)" in daemon.log_text(), daemon.tail())
        check(not os.path.exists(os.path.join(daemon.data, "denoised.db")), "nothing was made there")


run(__name__)
