"""A daemon on several emulated GPUs: one queue, a worker on each card, and whatever becomes of one of them. The bytes of a picture are those that
one card makes undisturbed. build/VARIANT/emulated holds the library over the emulator."""
import shutil

from harness import *  # noqa: F403

EMULATED = os.path.join(os.path.dirname(os.path.realpath(PROGRAM)), "emulated")
LIBRARY = "libdenoised_cuda.so"
LONG = {"class_label": 3, "seed": 21, "steps": 30, "n": 2, "guidance_scale": 1.0, "sampler": "ddpm"}


def cards(count, **more):
    """An environment with so many emulated cards. Its library may be taken away from under a running daemon."""
    if not os.path.exists(os.path.join(EMULATED, LIBRARY)):
        raise Skip(f"{EMULATED}/{LIBRARY} is not built")
    folder = scratch("library")
    shutil.copy(os.path.join(EMULATED, LIBRARY), folder)
    settings = ",".join([f"devices={count}", *(f"{name}={value}" for name, value in more.items())])
    return {"DENOISED_BACKEND_DIR": folder, "DENOISED_EMULATOR": settings}


def daemon_on(count, *options, device="all", **more):
    return Daemon("--device", device, "--rows-max", "8", "--snapshot-every", "0.05", *options, environment=cards(count, **more))


def workers(daemon):
    return daemon.get("/stats").json["workers"]


def all_ready(daemon):
    eventually(lambda: all(one["state"] == "ready" for one in workers(daemon)), what="every worker is ready")


def hashes(job):
    return [image["pixels_sha256"] for image in job["images"]]


def under_way(daemon, spec):
    """The id of a new job, a few steps of which are done."""
    job = daemon.post(spec).json["id"]
    eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 2, what="first steps")
    return job


def succeeded(job):
    same(job["state"], "succeeded", f"the job, {job['error']}")
    return job


def is_as_undisturbed(daemon, job, spec):
    same(hashes(succeeded(job)), hashes(succeeded(daemon.make(**spec))), "pictures of the same job, undisturbed")


def lose(daemon, index):
    """Kills the process of a worker, and waits until the daemon knows."""
    pid = workers(daemon)[index]["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: workers(daemon)[index]["pid"] != pid, what=f"the end of worker {index}")


def move_library(daemon, away):
    path = os.path.join(daemon.environment["DENOISED_BACKEND_DIR"], LIBRARY)
    os.rename(path + ("" if away else ".away"), path + (".away" if away else ""))


@test
def two_cards_make_what_one_makes():
    specs = [{"class_label": i, "seed": 7 * i, "steps": 2 + i % 3, "n": 1 + i % 2, "guidance_scale": 1 + i % 2, "sampler": ["ddim", "euler", "dpmpp_2m"][i % 3],
              "priority": i % 3 - 1} for i in range(9)]
    made = []
    for count in (1, 2):
        with daemon_on(count) as daemon:
            all_ready(daemon)
            same([one["device"] for one in workers(daemon)], [f"cuda:{i}" for i in range(count)], "devices")
            posted = [daemon.post(spec).json["id"] for spec in specs]
            made.append([hashes(succeeded(daemon.wait(job))) for job in posted])
            page = daemon.get("/metrics").body.decode()
            for i in range(count):
                check(f'denoised_worker_up{{worker="{i}",device="cuda:{i}"}} 1' in page, page)
            check(f"denoised_workers {count}\n" in page, "denoised_workers")
            same(daemon.stop(), 0, "its end")
    same(made[0], made[1], "pictures")


@test
def one_of_two_is_killed():
    with daemon_on(2) as daemon:
        all_ready(daemon)
        job = under_way(daemon, LONG)
        kept = workers(daemon)[1]["pid"]
        lose(daemon, 0)
        is_as_undisturbed(daemon, daemon.wait(job), LONG)
        same(([one["restarts"] for one in workers(daemon)], workers(daemon)[1]["pid"]), ([1, 0], kept), "restarts")
        check("on cuda:0 is gone (signal 9)" in daemon.log_text(), "the log names the device")


@test
def a_card_that_cannot_be_opened_is_done_without():
    with daemon_on(2) as daemon:
        all_ready(daemon)
        move_library(daemon, away=True)
        lose(daemon, 0)
        eventually(lambda: workers(daemon)[0]["restarts"] > 1, what="another try")
        same(daemon.get("/readyz").status, 200, "/readyz with one card")
        succeeded(daemon.make(**{**LONG, "steps": 2}))
        lose(daemon, 1)
        refused = eventually(lambda: (lambda answer: answer if answer.status == 503 else None)(daemon.get("/readyz")), what="/readyz without a card")
        check("on cuda:0 is gone (status 75): " in refused.json["detail"], refused.body)
        waiting = daemon.post({**LONG, "steps": 2}).json["id"]
        move_library(daemon, away=False)
        succeeded(daemon.wait(waiting))
        all_ready(daemon)


@test
def the_cpu_steps_in_where_that_was_asked_for():
    with daemon_on(1, "--device-fallback", "cpu", device="cuda") as daemon:
        first = succeeded(daemon.make(**{**LONG, "steps": 2}))
        check(first["images"][0]["device"].startswith("cuda "), first["images"][0]["device"])
        same([one["device"] for one in workers(daemon)], ["cuda:0"], "workers, before it is needed")
        move_library(daemon, away=True)
        lose(daemon, 0)
        second = succeeded(daemon.make(**{**LONG, "steps": 2}))
        check(second["images"][0]["device"].startswith("cpu "), second["images"][0]["device"])
        check(second["images"][0]["build"] != first["images"][0]["build"], "builds of two devices")
        same(json.loads(png_texts(daemon.image(second["id"]))["denoised"])["device"], second["images"][0]["device"], "what the picture says")
        check(daemon.get("/models/tiny").json["device"].startswith("cpu "), "/models")
        check("a worker on the CPU works off the queue" in daemon.log_text(), "the log")
        same([one["device"] for one in workers(daemon)], ["cuda:0", "cpu"], "workers")
        move_library(daemon, away=False)
        eventually(lambda: [one["state"] for one in workers(daemon)] == ["ready", "gone"], what="the card is back, and the CPU gone")
        third = succeeded(daemon.make(**{**LONG, "steps": 2}))
        same(hashes(third), hashes(first), "pictures of the card, before and after")
        check(daemon.get("/models/tiny").json["device"].startswith("cuda "), "/models")


@test
def what_two_had_goes_on_after_a_drain_and_a_kill():
    with daemon_on(2) as daemon:
        all_ready(daemon)
        spec = {**LONG, "n": 4}
        job = under_way(daemon, spec)
        daemon.terminate_at_once()
        same(daemon.process.wait(PATIENCE), 0, "its end")
        daemon.start()
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 20, what="it goes on")
        daemon.kill()
        daemon.start()
        is_as_undisturbed(daemon, daemon.wait(job), spec)


@test
def a_job_is_cancelled_on_both():
    with daemon_on(2) as daemon:
        all_ready(daemon)
        job = under_way(daemon, {**LONG, "steps": 200})
        check(daemon.call("DELETE", f"/jobs/{job}").status in (200, 202), "the answer")
        same(daemon.wait(job)["state"], "canceled", "state")
        late = daemon.make(**{**LONG, "steps": 500, "deadline_ms": 300})
        same((late["state"], late["error"]["code"]), ("failed", "deadline"), "a job that is late")
        succeeded(daemon.make(**{**LONG, "steps": 2}))
        same([one["restarts"] for one in workers(daemon)], [0, 0], "restarts")


@test
def a_card_lost_in_the_middle_costs_no_job():
    """Every worker loses its card at the 400th launch. A load has 160 to 260 of them, by the time that it has to measure; a step one: so the job
    needs two or three lives."""
    spec = {**LONG, "n": 1, "steps": 250}
    with Daemon("--device", "cuda", "--rows-max", "2", "--snapshot-every", "0.01", environment=cards(1, fault="launch:400:lost")) as daemon:
        job = daemon.make(**spec)
        succeeded(job)
        check(job["attempt"] in (2, 3), f"attempt {job['attempt']}")
        events = [event for event in daemon.events(job["urls"]["events"]) if event["event"] == "requeued"]
        check(events and all(json.loads(event["data"])["reason"] == "device-lost" for event in events), events)
        check("is lost: unknown error" in daemon.log_text(), "the log says what CUDA said")
    with Daemon("--device", "cuda", "--rows-max", "2", environment=cards(1)) as daemon:
        same(hashes(succeeded(daemon.make(**spec))), hashes(job), "pictures of the same job, undisturbed")


@test
def a_card_with_too_little_memory_is_named():
    with Daemon("--device", "cuda", environment=cards(1, memory="1M"), ready=False) as daemon:
        check(daemon.process.wait(PATIENCE) != 0, "it starts")
        check("out of memory" in daemon.log_text() and "cuda:0" in daemon.log_text(), daemon.log_text())


run(__name__)
