"""Other ways to be cut off: SIGTERM at every fault point, kills in migrations, in backups, right after a start, and a proxy that drops answers."""
import contextlib
import http.client
import random
import shutil
import socket
import struct
import threading
import time

from harness import Daemon, FAULTS, PATIENCE, ROOT, check, eventually, json, os, run, same, signal, sqlite3, subprocess, test
from kills_chapter import Chapter, Totals
from kills_points import POINTS
from kills_victim import Victim, is_stopped
from kills_workload import SHORT, VERY_LONG, undisturbed

APPLICATION_ID = 0x646e7364
_pictures = {}


def pictures():
    if not _pictures:
        with Daemon(program=FAULTS) as daemon:
            _pictures.update(undisturbed(daemon))
    return _pictures


class Scene(Chapter):
    """A chapter's folder, clients and end, for a test that brings its own middle."""

    def __init__(self, name):
        super().__init__(0, pictures(), Totals())
        self.rng = random.Random(name)

    def play(self, middle):
        try:
            self.victim.start()
            self.victim.wait_ready()
            middle(self)
            self._end()
            return self.totals
        finally:
            self.victim.remove()


# ---- SIGTERM

def resume(victim):
    """Lets go on what is stopped, and that alone: a sanitizer at its end stops the threads with signals of its own, which a SIGCONT takes away."""
    workers = subprocess.run(["pgrep", "-P", str(victim.process.pid)], capture_output=True, text=True, check=False).stdout.split()
    for pid in [victim.process.pid, *map(int, workers)]:
        with contextlib.suppress(ProcessLookupError):
            if is_stopped(pid):
                os.kill(pid, signal.SIGCONT)


def terminated_at(scene, point):
    """Stops the process at the point, sends the daemon SIGTERM, lets the process go on: it drains and ends by itself."""
    victim, finished = scene.victim, threading.Event()
    if point.startswith("gc_"):
        scene._leave_purge()
    scene._leave_litter()
    victim.start(scene._faults(point).replace(",", ":stop,", 1) if "," in scene._faults(point) else f"{point}:1:stop")
    clients = threading.Thread(target=scene.work.run, args=(lambda: finished.is_set() or victim.dead(), point), daemon=True)
    if POINTS[point] in ("drain", "worker_drain"):
        scene._until_running()  # before there is anybody who may cancel it
    clients.start()
    try:
        if POINTS[point] in ("drain", "worker_drain"):
            victim.process.terminate()
        again = time.monotonic() + 0.5
        end = time.monotonic() + PATIENCE
        while point not in victim.fired() and not victim.dead():
            check(time.monotonic() < end, f"{point} was not reached; log: {victim.tail()}")
            if POINTS[point] in ("drain", "worker_drain") and time.monotonic() > again:
                victim.process.terminate()  # a second one hurries
            time.sleep(0.005)
        victim.process.terminate()
        end = time.monotonic() + PATIENCE
        while not victim.dead():
            check(time.monotonic() < end, f"it does not end after SIGTERM at {point}; log: {victim.tail()}")
            resume(victim)  # again and again: the name is written before the process stops
            time.sleep(0.01)
        status = victim.process.returncode
    finally:
        finished.set()
        if not victim.dead():
            victim.kill()
        clients.join()
    same(status, 0, f"status after SIGTERM at {point}; log: {victim.tail()}")
    same(scene.work.troubles, [], f"what clients heard around SIGTERM at {point}")
    return point in victim.fired()


@test
def terminated_at_every_point_it_drains():
    scene, reached = Scene("terminated"), {}

    def middle(scene):
        scene.victim.terminate()
        for point, phase in POINTS.items():
            if phase in ("load", "worker", "boot", "drain", "worker_drain"):
                reached[point] = terminated_at(scene, point)
        scene.victim.start()
        scene.victim.all_ended()
        spent = scene.victim.ask("SELECT count(*) FROM job WHERE state=2 AND (attempt!=1 OR crashes!=0)")[0][0]
        same(spent, 0, "jobs that a drain cost an attempt")
        scene.victim.terminate()

    totals = scene.play(middle)
    missed = [point for point, was in reached.items() if not was]
    print(f"SIGTERM at {len(reached) - len(missed)} of {len(reached)} points (not at {missed}): {totals.ledger()}")
    check(len(missed) < 0.2 * len(reached), f"not reached: {missed}")


# ---- migrations

def migrations():
    folder = os.path.join(ROOT, "migrations", "sqlite")
    return [open(os.path.join(folder, name), encoding="utf8").read() for name in sorted(os.listdir(folder)) if name.endswith(".sql")]


def schema_of(path):
    db = sqlite3.connect(path)
    try:
        shape = db.execute("SELECT type,name,sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY 1,2").fetchall()
        return db.execute("PRAGMA user_version").fetchone()[0], shape
    finally:
        db.close()


def make_old(path, version, rows):
    """A database as the daemon of that schema left it, with jobs waiting."""
    db = sqlite3.connect(path)
    for text in migrations()[:version]:
        db.executescript(text)
    db.executescript(f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={version};")
    for job_id, request in rows:
        n = json.loads(request)["n"]
        db.execute("INSERT INTO job(id,client,model,request,n,cost,priority,turn,created_ms) VALUES(?,'local','tiny',?,?,?,0,0,?)",
                   (job_id, request, n, n * json.loads(request)["steps"], int(time.time() * 1000)))
        db.execute("INSERT INTO event(job,seq,name,data) SELECT row,1,'queued',? FROM job WHERE id=?",
                   (json.dumps({"id": job_id, "queue_position": 0}), job_id))
    db.commit()
    db.close()


def stored_requests():
    """Requests as the daemon writes them."""
    with Daemon() as daemon:
        ids = [daemon.make(**spec)["id"] for spec in SHORT[:4]]
        db = sqlite3.connect(f"file:{daemon.data}/denoised.db?mode=ro", uri=True)
        rows = [(job_id[::-1], db.execute("SELECT request FROM job WHERE id=?", (job_id,)).fetchone()[0]) for job_id in ids]
        db.close()
        return rows


def migrated_under_kills(version, rows):
    """Killed at every point of every step from that schema on; returns the kills."""
    newest, kills, victim = len(migrations()), 0, Victim()
    os.makedirs(victim.data)
    database = os.path.join(victim.data, "denoised.db")
    make_old(database, version, rows)
    try:
        for step in range(version, newest):
            for point in ("database_copy_unnamed", "migrate_copy_kept", "migrate_step", "migrate_after_commit"):
                victim.start(f"{point}:1")
                eventually(victim.dead, 60, point)
                check(victim.process.returncode == -9 and point in victim.fired(), f"{point} from {step}: {victim.process.returncode}; log: {victim.tail()}")
                kills += 1
                plain = os.path.join(victim.folder, "plain.db")
                make_old(plain, step + (point == "migrate_after_commit"), [])
                same(schema_of(database), schema_of(plain), f"the schema after a kill at {point} from {step}")
                os.unlink(plain)
        victim.start()
        victim.wait_ready()
        victim.all_ended()
        for job_id, request in rows:
            job = victim.get(f"/jobs/{job_id}")
            same((job["state"], len(job["images"])), ("succeeded", json.loads(request)["n"]), f"a job of schema {version}")
        same(sorted(os.listdir(os.path.join(victim.data, "backup"))), [f"denoised-schema-{i}.db" for i in range(version, newest)], "copies")
        same(schema_of(os.path.join(victim.data, "backup", f"denoised-schema-{version}.db"))[0], version, "the copy's schema")
        same(victim.terminate(), 0, "status")
    finally:
        victim.remove()
    return kills


@test
def killed_in_every_step_of_a_migration():
    rows, kills = stored_requests(), 0
    for version in range(1, len(migrations())):
        kills += migrated_under_kills(version, rows)
    print(f"{kills} kills in migrations from {len(migrations()) - 1} older schemas")


# ---- backups

def whole(folder, purged):
    """Every image that the database of a backup names is there, with its bytes, but for those of jobs that a client purged while their files were
    copied; jobs that had not ended go on from it."""
    import hashlib
    victim = Victim(data=folder)
    try:
        victim.start()
        victim.wait_ready()
        victim.all_ended()
        images = victim.ask("SELECT file,sha256 FROM image")
        for name, digest in images:
            if name[:26] in purged and not os.path.exists(os.path.join(folder, "images", name)):
                continue
            with open(os.path.join(folder, "images", name), "rb") as file:
                same(hashlib.sha256(file.read()).hexdigest(), digest, name)
        missing = victim.ask("SELECT count(*) FROM job WHERE state=2 AND expired=0 AND n!=(SELECT count(*) FROM image WHERE image.job=job.row)")[0][0]
        same(missing, 0, "jobs without all their images")
        same(victim.ask("PRAGMA integrity_check"), [("ok",)], "the database")
        same(victim.terminate(), 0, "status")
        return len(images)
    finally:
        victim.remove()


@test
def a_backup_is_whole_although_its_daemon_is_killed():
    counts = []

    def middle(scene):
        victim, point = scene.victim, "done_after_commit"
        for number in range(5):
            target = os.path.join(victim.folder, f"backup-{number}")
            victim.kill()
            victim.start(f"{point}:{5 + 5 * number}")
            scene.work.run(lambda: victim.dead() or victim.ready.is_set(), "post")
            slowed = dict(victim.environment(""), DENOISED_FAULT="backup_mid:1:slow3,backup_database_copied:1:slow30")
            victim.fired_path += str(number)  # the daemon keeps the one it has
            backup = subprocess.Popen([FAULTS, "backup", "--data", victim.data, target], env=slowed, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            scene.work.run(lambda: victim.dead(), point)
            same(backup.wait(PATIENCE), 0, f"the backup: {backup.stderr.read()}")
            counts.append(whole(target, {job_id for job_id, job in scene.work.jobs.items() if job["gone"]}))

    totals = Scene("backup").play(middle)
    print(f"5 backups with {counts} images, each beside a kill: {totals.ledger()}")


# ---- right after a start

@test
def killed_fifty_times_within_100_ms_of_a_start():
    def middle(scene):
        scene.work.run(lambda: len(scene.work.jobs) >= 12, "snapshot_renamed")
        scene.victim.kill()
        for _ in range(50):
            scene.victim.start()
            time.sleep(scene.rng.random() * 0.1)
            scene.victim.kill()
            scene._give_peace()

    print(f"50 kills within 100 ms of a start: {Scene('starts').play(middle).ledger()}")


# ---- answers that never arrive

class CuttingProxy(threading.Thread):
    """Passes requests on to a daemon, and cuts the connection as soon as the daemon begins to answer."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.listener = port, socket.create_server(("127.0.0.1", 0))
        self.cut = 0
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self.port)) as daemon:
                client.settimeout(0.2)
                daemon.settimeout(0.01)
                self.serve(client, daemon)

    def serve(self, client, daemon):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                piece = client.recv(65536)
                if not piece:
                    return
                daemon.sendall(piece)
            except socket.timeout:
                pass
            try:
                if daemon.recv(65536):
                    self.cut += 1
                    return
            except socket.timeout:
                pass


@test
def an_answer_that_a_proxy_cuts_is_had_by_asking_again():
    with Daemon() as daemon:
        proxy = CuttingProxy(daemon.port)
        for number, body in enumerate((SHORT[0], [SHORT[1], SHORT[2]])):
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", proxy.listener.getsockname()[1])) as link:
                    text = json.dumps(body)
                    link.sendall(f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: cut-{number}\r\n"
                                 f"Content-Length: {len(text)}\r\n\r\n{text}".encode())
                    link.settimeout(PATIENCE)
                    same(link.recv(1), b"", "what comes through")
            again = daemon.post(body, Idempotency_Key=f"cut-{number}")
            same((again.status in (200, 202), again.headers.get("idempotency-replayed")), (True, "true"), "the answer to the same key")
            told = again.json if isinstance(again.json, list) else again.json.get("jobs", [again.json])
            with sqlite3.connect(f"file:{daemon.data}/denoised.db?mode=ro", uri=True) as db:
                kept = db.execute("SELECT jobs FROM idempotency WHERE key=?", (f"cut-{number}",)).fetchone()[0]
            db.close()
            same("".join(job["id"] for job in told), kept, "the jobs of the key")
        same((proxy.cut, daemon.jobs_in_store()), (4, 3), "answers cut, and jobs")
        proxy.listener.close()


@test
def killed_between_commit_and_answer_the_key_has_its_job():
    victim = Victim()
    try:
        for number, point in enumerate(("after_commit_before_reply", "before_commit", "after_insert", "http_body_read")):
            victim.start(f"{point}:1")
            victim.wait_ready()
            same(try_post(victim, f"key-{number}"), None, f"the answer that {point} cuts off")
            eventually(victim.dead, 60, point)
            same(victim.fired(), [point], "what fired")
            victim.start()
            victim.wait_ready()
            eventually(lambda: try_post(victim, f"key-{number}"), 60, "an answer")
            rows = victim.ask("SELECT jobs FROM idempotency WHERE key=?", f"key-{number}")
            same([try_post(victim, f"key-{number}")], [rows[0][0]], "the job of the key")
            same(victim.ask("SELECT count(*) FROM job")[0][0], number + 1, "jobs")
            victim.all_ended()
            victim.kill()
    finally:
        victim.remove()


@test
def what_a_client_that_vanished_asked_for_is_done_and_the_drain_ends():
    """Connections that are reset while their request waits for the commit: it takes its course, and nothing waits for them afterwards."""
    victim = Victim(listen="127.0.0.1:0")
    try:
        victim.start("before_commit:1:slow300,cancel_before_commit:1:slow300,step_k:1:slow20")
        victim.wait_ready()
        port = int(victim.address.rsplit(":", 1)[1])

        def vanish(request):
            with socket.create_connection(("127.0.0.1", port)) as link:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                link.sendall(request)
                time.sleep(0.1)

        def vanish_until(request, came):
            """Again where the reset overtook the request, which a loaded machine may let happen."""
            end = time.monotonic() + PATIENCE
            while not came():
                check(time.monotonic() < end, "a request is never heard")
                vanish(request)
                again = time.monotonic() + 2
                while not came() and time.monotonic() < again:
                    time.sleep(0.02)

        def post(spec):
            text, before = json.dumps(spec).encode(), victim.ask("SELECT count(*) FROM job")[0][0]
            vanish_until(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text),
                         lambda: victim.ask("SELECT count(*) FROM job")[0][0] > before)

        def state(job_id):
            return victim.ask("SELECT state FROM job WHERE id=?", job_id)[0][0]

        post(VERY_LONG)
        job_id = victim.ask("SELECT id FROM job")[0][0]
        eventually(lambda: state(job_id) == 1, 60, "its start")
        vanish_until(f"DELETE /jobs/{job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), lambda: state(job_id) == 4)
        same(victim.ask("SELECT images_done FROM job WHERE id=?", job_id)[0][0], 0, "pictures of the job whose cancel nobody waited for")
        for _ in range(4):
            post(SHORT[0])
        victim.all_ended()
        same(victim.terminate(), 0, "status")
    finally:
        victim.remove()


def try_post(victim, key):
    """The id of the job; "" where it was refused for now, None where nothing answered."""
    try:
        status, body = victim.call("POST", "/generate", SHORT[0], Idempotency_Key=key)
    except (OSError, http.client.HTTPException):
        return None
    return json.loads(body)["id"] if status in (200, 202) else ""


check(shutil.which("pgrep"), "pgrep (procps) is needed")
run(__name__)
