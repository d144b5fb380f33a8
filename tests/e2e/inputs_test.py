"""Pictures that come with requests: stored before the job is accepted, read by the worker, gone with the job."""
from harness import *  # noqa: F403
import hashlib
from png import pixels_of, png


def base(data):
    return base64.b64encode(data).decode()


PICTURE = png(8, 8, lambda x, y, c: 7 * (24 * y + 3 * x + c))
MASK = png(8, 8, lambda x, y, c: 255 if x < 4 else 0, colour=0)  # the left half is painted anew
SPEC = {"class_label": 2, "steps": 10, "seed": 5, "sampler": "ddim", "init_image": base(PICTURE), "strength": 0.6}


def inputs_of(daemon):
    return sorted(os.listdir(os.path.join(daemon.data, "inputs")))


@test
def image_to_image_keeps_the_picture_as_its_strength_says():
    with Daemon() as daemon:
        job = daemon.make(**SPEC)
        same(job["state"], "succeeded", f"{job['error']}")
        same(job["request"]["init_image"]["sha256"], hashlib.sha256(PICTURE).hexdigest(), "what the job says of its picture")
        check(set(inputs_of(daemon)) <= {f"{job['id']}-init.png"}, "files")
        plain = {k: v for k, v in SPEC.items() if k not in ("init_image", "strength")}
        check(daemon.make(**plain)["images"][0]["pixels_sha256"] != job["images"][0]["pixels_sha256"], "the picture matters")
        same(daemon.make(**SPEC)["images"][0]["pixels_sha256"], job["images"][0]["pixels_sha256"], "the same again")
        original = pixels_of(PICTURE)[1]

        def distance(strength):
            made = pixels_of(daemon.image(daemon.make(**{**SPEC, "strength": strength, "steps": 50})["id"]))[1]
            return sum(abs(a - b) for x, y in zip(made, original) for a, b in zip(x, y))
        little, much = distance(0.04), distance(0.9)
        check(little < much, f"distances {little} and {much}")


@test
def a_mask_keeps_what_it_does_not_paint():
    with Daemon() as daemon:
        job = daemon.make(**{**SPEC, "mask_image": base(MASK), "strength": 1.0})
        same(job["state"], "succeeded", f"{job['error']}")
        check(set(inputs_of(daemon)) <= {f"{job['id']}-init.png", f"{job['id']}-mask.png"}, "files")
        made, original = pixels_of(daemon.image(job["id"]))[1], pixels_of(PICTURE)[1]
        same([row[12:] for row in made], [row[12:] for row in original], "the right half")
        check([row[:12] for row in made] != [row[:12] for row in original], "the left half is new")


@test
def what_was_accepted_survives_a_restart():
    with Daemon("--snapshot-every", "0.05") as daemon:
        blocker = daemon.post({"steps": 1000, "n": 64}).json["id"]
        spec = {**SPEC, "steps": 1000, "n": 4, "mask_image": base(MASK)}
        job_id = daemon.post(spec).json["id"]
        daemon.kill()
        same(len(inputs_of(daemon)), 2, "files")
        daemon.start()
        daemon.call("DELETE", f"/jobs/{blocker}")
        eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 2000, 60, "it computes")
        daemon.kill()
        daemon.start()
        job = daemon.wait(job_id, 120)
        same(job["state"], "succeeded", f"{job['error']}")
        again = daemon.make(**spec, seconds=120)
        same([i["pixels_sha256"] for i in job["images"]], [i["pixels_sha256"] for i in again["images"]], "pictures")


@test
def files_go_with_their_job_and_strays_at_the_next_start():
    with Daemon() as daemon:
        job = daemon.make(**SPEC)
        daemon.call("DELETE", f"/jobs/{job['id']}?purge=1")
        eventually(lambda: inputs_of(daemon) == [], what="no files")
        for _ in range(3):
            daemon.post({"steps": 1000, "n": 64})
        kept = daemon.post(SPEC).json
        ended = daemon.post(SPEC).json["id"]
        daemon.call("DELETE", f"/jobs/{ended}")
        folder = os.path.join(daemon.data, "inputs")
        for name in ("a" * 26 + "-init.png", "b" * 26 + "-mask.png", kept["id"] + "-init.png.tmp"):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(PICTURE)
        daemon.kill()
        daemon.start()
        same(inputs_of(daemon), [f"{kept['id']}-init.png"], "files after a start: of the job that waits, not of the one that has ended")


@test
def a_replayed_request_leaves_no_files():
    with Daemon() as daemon:
        first = daemon.post(SPEC, Idempotency_Key="k1").json["id"]
        second = daemon.post(SPEC, Idempotency_Key="k1")
        same((second.json["id"], second.headers["idempotency-replayed"]), (first, "true"), "replay")
        eventually(lambda: inputs_of(daemon) == [f"{first}-init.png"], what="one file")


@test
def a_picture_that_cannot_be_decoded_fails_its_job_and_no_other():
    broken = {"cut short": PICTURE[:-30], "bad checksum": PICTURE[:60] + bytes([PICTURE[60] ^ 1]) + PICTURE[61:],
              "rows missing": PICTURE[:33] + png(8, 4, lambda x, y, c: 0)[33:]}
    with Daemon() as daemon:
        for what, data in broken.items():
            answer = daemon.post({**SPEC, "init_image": base(data)})
            if answer.status == 422:
                same(answer.json["field"], "/init_image", f"{what}: field")
                continue
            same(answer.status, 202, f"{what}: {answer.body[:200]}")
            job = daemon.wait(answer.json["id"])
            same((job["state"], job["error"]["code"]), ("failed", "bad-input-image"), what)
            check(job["error"]["detail"].startswith("init_image"), job["error"]["detail"])
        same(daemon.make(**SPEC)["state"], "succeeded", "a good one")
        same(len(daemon.worker_pids()), 1, "workers")


@test
def a_damaged_file_is_noticed():
    with Daemon() as daemon:
        blocker = daemon.post({"steps": 1000, "n": 64}).json["id"]
        job_id = daemon.post(SPEC).json["id"]
        with open(os.path.join(daemon.data, "inputs", f"{job_id}-init.png"), "r+b") as file:
            file.seek(50)
            file.write(b"\0\0\0")
        daemon.call("DELETE", f"/jobs/{blocker}")
        job = daemon.wait(job_id)
        if job["state"] == "failed":
            check("checksum" in job["error"]["detail"], job["error"]["detail"])
        else:
            raise Skip("the worker had read the file before it was damaged")


@test
def a_file_that_is_gone_is_not_told_by_its_path():
    with Daemon("--rows-max", "2") as daemon:
        blocker = daemon.post({"steps": 1000, "n": 64}).json["id"]
        job_id = daemon.post(SPEC).json["id"]
        os.unlink(os.path.join(daemon.data, "inputs", f"{job_id}-init.png"))
        daemon.call("DELETE", f"/jobs/{blocker}")
        job = daemon.wait(job_id)
        same((job["state"], job["error"]), ("failed", {"code": "engine", "detail": "the stored init_image cannot be read"}), "end")
        check("cannot open" in daemon.log_text(), "the log tells the path")


@test
def a_backup_takes_them_along():
    with Daemon() as daemon:
        for _ in range(3):
            daemon.post({"steps": 1000, "n": 64})
        job = daemon.post(SPEC).json
        target = os.path.join(scratch("backup"), "copy")
        same(subprocess.run([PROGRAM, "backup", "--data", daemon.data, target], capture_output=True, check=False).returncode, 0, "status")
        same(os.listdir(os.path.join(target, "inputs")), [f"{job['id']}-init.png"], "files of the copy")


@test
def a_picture_is_no_reason_to_wait():
    with Daemon() as daemon:
        daemon.make(**SPEC)
        def took(body):
            started = time.monotonic()
            same(daemon.post({**body, "steps": 2}, Prefer="wait=60").status, 200, "status")
            return time.monotonic() - started

        with_one, without = [], []
        for seed in range(60):  # until it is as quick as one without: what others do on the machine only adds
            without.append(took({"seed": seed}))
            with_one.append(took({**SPEC, "seed": seed}))
            if min(with_one) < 0.6 * SLOW or with_one[-1] < 2 * without[-1]:
                break
        else:
            raise AssertionError(f"two steps of an idle worker took {with_one} s with a picture and {without} s without")


@test
def a_jobs_pictures_are_prepared_once_for_all_its_images():
    with Daemon("--rows-max", "2") as daemon:
        job_id = daemon.post({**SPEC, "mask_image": base(MASK), "steps": 300, "n": 12}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 0, what="the first of them computes")
        for name in inputs_of(daemon):
            os.unlink(os.path.join(daemon.data, "inputs", name))
        job = daemon.wait(job_id, 120)
        same(job["state"], "succeeded", f"its files are read for the first image alone: {job['error']}")


@test
def bodies_have_their_limit():
    with Daemon() as daemon:
        head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {3 << 20}\r\n\r\n"
        out, _ = daemon.raw(head.encode() + b'{"init_image":"' + b"A" * 1000)
        check(b" 413 " in out.split(b"\r\n")[0], out[:100])
        answer = daemon.post(json.dumps({"class_label": "x" * 70000}))
        check(answer.status in (413, 422), f"a large body without a picture: {answer.status}")
        same(inputs_of(daemon), [], "files")


run(__name__)
