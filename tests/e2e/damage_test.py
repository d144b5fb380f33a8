"""Damage: `denoised check` finds it, no damaged picture is served, no damaged or foreign database is started on, and none is ever replaced
by an empty one."""
from harness import *  # noqa: F403
import contextlib
import hashlib
import random
import shutil

FLIPS = 120  # of image files; those of the database are many more, in tests/store/test_store_damage.c


def look(data):
    """`denoised check --json`: its exit status and what it says."""
    out = subprocess.run([PROGRAM, "check", "--data", data, "--json"], capture_output=True, check=False)
    return out.returncode, json.loads(out.stdout)


def made(daemon, count=3, **more):
    return [daemon.make(steps=2, n=2, seed=i, class_label=i % 10, **more) for i in range(count)]


def image_files(data):
    return sorted(os.path.join(data, "images", name) for name in os.listdir(os.path.join(data, "images")))


def start_refused(data):
    """Exit status and the last line of a start on a folder that must be refused."""
    command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data", data, "--model", f"tiny={tiny_model()}", "--threads", "1"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as late:
        return -1, f"it started: {late.stdout} {late.stderr}"
    lines = done.stderr.decode().strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


@test
def check_finds_nothing_where_nothing_is_wrong():
    with Daemon() as daemon:
        jobs = made(daemon)
        status, said = look(daemon.data)  # beside the daemon
        same((status, said["sound"], said["damage"]), (0, True, []), "beside a running daemon")
        same((said["jobs"], said["images"]), (len(jobs), 2 * len(jobs)), "counts")
        same(daemon.stop(), 0, "status")
        before = {name: hashlib.sha256(open(os.path.join(daemon.data, name), "rb").read()).hexdigest() for name in ("denoised.db", "ballast")}
        status, said = look(daemon.data)
        same((status, said["sound"], said["damage"], said["notes"]), (0, True, [], []), "without it")
        after = {name: hashlib.sha256(open(os.path.join(daemon.data, name), "rb").read()).hexdigest() for name in before}
        same(after, before, "nothing was changed")
        words = subprocess.run([PROGRAM, "check", "--data", daemon.data], capture_output=True, check=True).stdout.decode()
        check("sound" in words and "6 images" in words, words)


@test
def check_names_each_damage():
    with Daemon() as daemon:
        made(daemon)
        daemon.stop()
        data, files = daemon.data, image_files(daemon.data)
        with open(files[0], "r+b") as out:
            out.seek(20)
            byte = out.read(1)
            out.seek(20)
            out.write(bytes([byte[0] ^ 1]))
        os.truncate(files[1], 10)
        os.unlink(files[2])
        open(os.path.join(data, "images", "stray.png.tmp"), "wb").close()
        open(os.path.join(data, "snapshots", "a" * 26 + "-0.snap"), "wb").close()
        os.unlink(os.path.join(data, "ballast"))
        status, said = look(data)
        same((status, said["sound"]), (78, False), "verdict")
        details = sorted(item["detail"] for item in said["damage"])
        wanted = sorted(f"images/{os.path.basename(name)} {what}" for name, what in zip(files, ("has other bytes than its row says", "", "is missing")) if what)
        check(set(wanted) < set(details) and len(details) == 3, f"{details}")
        check(any("has 10 bytes, not" in line for line in details), details)
        same(sorted(item["what"] for item in said["notes"]), ["ballast", "snapshot", "stray"], "notes")
        with contextlib.closing(sqlite3.connect(os.path.join(data, "denoised.db"))) as db, db:
            db.execute("UPDATE total SET jobs=jobs+1 WHERE state=2 AND priority=0")
        status, said = look(data)
        check(status == 78 and any(item["what"] == "count" for item in said["damage"]), said["damage"])
        same(look(os.path.join(data, "images"))[0], 78, "a folder without a database")


@test
def check_misses_the_input_of_a_job_to_come():
    with Daemon() as daemon:
        picture = daemon.image(daemon.make(steps=2)["id"])
        for seed in range(8):  # keep the next one waiting
            same(daemon.post({"steps": 1000, "n": 64, "seed": seed}).status, 202, "a long job")
        waiting = daemon.post({"steps": 10, "sampler": "ddim", "priority": -10, "init_image": base64.b64encode(picture).decode(), "strength": 0.5})
        same(waiting.status, 202, f"{waiting.body}")
        daemon.kill()
        name = f"{waiting.json['id']}-init.png"
        with contextlib.closing(sqlite3.connect(os.path.join(daemon.data, "denoised.db"))) as db, db:
            db.execute("UPDATE job SET state=0,owner=NULL WHERE state<2")
        same(look(daemon.data)[0], 0, "whole")
        os.unlink(os.path.join(daemon.data, "inputs", name))
        status, said = look(daemon.data)
        same((status, [item["what"] for item in said["damage"]]), (78, ["input"]), "without it")


@test
def no_damaged_picture_is_ever_served():
    chance = random.Random(5)
    with Daemon() as daemon:
        jobs = made(daemon)
        sound = {}
        for job in jobs:
            for image in job["images"]:
                sound[image["url"]] = daemon.get(image["url"]).body
        paths = {url: next(f for f in image_files(daemon.data) if f"{url.split('/')[2]}-{url.split('/')[4][0]}-" in f) for url in sound}
        wrong = refused = 0
        for _ in range(FLIPS):
            url = chance.choice(sorted(sound))
            with open(paths[url], "wb") as out:
                bad = bytearray(sound[url])
                kind = chance.randrange(4)
                if kind == 0:
                    bad = bad[:chance.randrange(len(bad))]
                elif kind == 1:
                    bad += b"x"
                else:
                    bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
                out.write(bad)
            answer = daemon.get(url)
            refused += answer.status == 500 and answer.json["code"] == "internal" and "etag" not in answer.headers and "immutable" not in str(answer.headers)
            wrong += answer.status == 200
            with open(paths[url], "wb") as out:
                out.write(sound[url])
            check(daemon.get(url).body == sound[url], "the sound file is served again")
        same((wrong, refused), (0, FLIPS), "wrong pictures, refusals")
        os.unlink(paths[sorted(sound)[0]])
        same(daemon.get(sorted(sound)[0]).status, 500, "a missing file")
        same(daemon.get("/healthz").status, 200, "health")


@test
def what_is_no_sound_database_is_refused_and_left_alone():
    with Daemon() as daemon:
        made(daemon, 40)
        daemon.kill()
    source = daemon.data
    os.makedirs(os.path.join(source, "..", "cases"), exist_ok=True)
    chance, outcomes = random.Random(7), []

    def case(what, change, statuses):
        data = os.path.join(scratch("case"), "d")
        shutil.copytree(source, data)
        path = os.path.join(data, "denoised.db")
        change(data, path)
        kept = open(path, "rb").read() if os.path.isfile(path) else None
        status, line = start_refused(data)
        check(status in statuses, f"{what}: exit {status}: {line}")
        check("denoised.db" in line and any(word in line for word in ("restore a backup", "not made by", "newer", "another folder")), f"{what}: {line}")
        check(kept is None or open(path, "rb").read()[100:] == kept[100:], f"{what}: the file was changed")
        outcomes.append(what)

    def write(path, at, data):
        with open(path, "r+b") as out:
            out.seek(at)
            out.write(data)

    def without_log(data):
        with contextlib.closing(sqlite3.connect(os.path.join(data, "denoised.db"))) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def newer(data, path):
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA user_version=77")

    def folder(data, path):
        os.unlink(path)
        os.mkdir(path)

    def gone(data, path):
        for name in (path, path + "-wal", path + "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(name)

    def truncated(data, path):
        without_log(data)
        os.truncate(path, os.path.getsize(path) * chance.randrange(20, 80) // 100 // 4096 * 4096)

    def zeroed(data, path):
        without_log(data)
        with contextlib.closing(sqlite3.connect(path)) as db:
            page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name='job'").fetchone()[0]
        write(path, 4096 * (page - 1), bytes(4096))

    def emptied(data, path):
        without_log(data)
        os.truncate(path, 0)

    def foreign(data, path):
        gone(data, path)
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE mine(x)")

    case("no database file", gone, [78])
    case("an empty file", emptied, [78])
    case("a folder in its place", folder, [78])
    case("garbage", lambda data, path: (gone(data, path), open(path, "wb").write(os.urandom(9000))), [78])
    case("a header that is wrong", lambda data, path: (without_log(data), write(path, 0, b"garbage!")), [78])
    case("another program's", foreign, [78])
    case("a newer schema", newer, [78])
    case("a zeroed page", zeroed, [78])
    for i in range(4):
        case(f"truncated, {i}", truncated, [78])
    same(len(outcomes), 12, "cases")


@test
def a_log_that_is_gone_or_anothers_loses_at_most_what_it_held():
    with Daemon() as daemon:
        first = made(daemon, 2)
        daemon.kill()
        with contextlib.closing(sqlite3.connect(os.path.join(daemon.data, "denoised.db"))) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        daemon.start()
        second = made(daemon, 2)
        daemon.kill()
        log = os.path.join(daemon.data, "denoised.db-wal")
        shutil.copy(log, log + ".kept")
        os.unlink(log)
        os.unlink(os.path.join(daemon.data, "denoised.db-shm"))
        daemon.start()
        for job in first:
            same(daemon.get(f"/jobs/{job['id']}").json["state"], "succeeded", "what was in the database")
        for job in second:
            same(daemon.get(f"/jobs/{job['id']}").status, 404, "what was in the log alone")
        third = made(daemon, 1)
        daemon.kill()
        shutil.copy(log + ".kept", log)  # a log of another time
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(daemon.data, "denoised.db-shm"))
        status, said = look(daemon.data)
        daemon.start()
        for job in first:
            answer = daemon.get(f"/jobs/{job['id']}")
            check(answer.status == 200 and daemon.image(job["id"]) is not None, "still there")
        same(daemon.make(steps=2)["state"], "succeeded", "it works")
        check(len(third) == 1 and status in (0, 78) and said, "looked at")


run(__name__)
