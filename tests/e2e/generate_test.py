"""POST /generate in its three representations, waiting, idempotency, arrays; jobs, lists, images, cancel."""
from harness import *  # noqa: F403
import hashlib
import shutil

daemon = Daemon()


@test
def the_ready_line_has_a_curl_line():
    check("model tiny" in daemon.ready_line, daemon.ready_line)
    eventually(lambda: len(daemon.said) >= 2, what="the curl line")
    line = b"".join(daemon.said).decode()
    check('"class_label": "Sneaker"' in line, line)
    if not shutil.which("curl"):
        raise Skip("curl is not installed")
    folder = scratch("pasted")
    same(subprocess.run(line, shell=True, cwd=folder, check=False).returncode, 0, "status of the pasted line")
    same(png_size(open(os.path.join(folder, "image.png"), "rb").read()), (8, 8), "the picture")


@test
def json_is_accepted_then_polled():
    answer = daemon.post({"class_label": "Sneaker", "guidance_scale": 2, "seed": 42, "steps": 4})
    same(answer.status, 202, "status")
    job = answer.json
    same(answer.headers["location"], job["urls"]["self"], "Location")
    check(int(answer.headers["retry-after"]) >= 1, "Retry-After")
    check(job["state"] in ("queued", "running"), job["state"])
    job = daemon.wait(job["id"])
    same(job["state"], "succeeded", "state")
    wanted = {"model": "tiny", "class_label": 7, "class_name": "Sneaker", "guidance_scale": 2.0, "steps": 4, "sampler": "dpmpp_2m", "seed": "42", "n": 1}
    for key, value in wanted.items():
        same(job["request"][key], value, key)
    same((job["progress"]["done"], job["progress"]["total"], job["progress"]["images_done"]), (4, 4, 1), "progress")
    image = job["images"][0]
    data = daemon.image(job["id"])
    same(hashlib.sha256(data).hexdigest(), image["sha256"], "sha256")
    same(len(data), image["bytes"], "bytes")
    same(png_size(data), (8, 8), "size")
    same((image["width"], image["height"], image["seed"]), (8, 8, "42"), "image")


@test
def png_is_the_picture_itself():
    answer = daemon.post({"class_label": 7, "seed": 42, "steps": 4, "guidance_scale": 2}, Accept="image/png")
    same((answer.status, answer.headers["content-type"]), (200, "image/png"), "answer")
    texts = png_texts(answer.body)
    check("Steps: 4" in texts["parameters"] and "Seed: 42" in texts["parameters"] and "Sneaker" in texts["parameters"], texts["parameters"])
    recipe = json.loads(texts["denoised"])
    check("weights_sha256" in json.dumps(recipe), recipe)
    job = daemon.get(answer.headers["location"]).json
    same(answer.headers["etag"], f'"{job["images"][0]["sha256"]}"', "ETag")
    check(job["id"] not in str(texts), "the picture names its job")


@test
def same_request_same_bytes():
    pictures = {daemon.post({"class_label": 3, "seed": 5, "steps": 6}, Accept="image/png").body for _ in range(3)}
    same(len(pictures), 1, "different pictures")
    other = daemon.post({"class_label": 3, "seed": 6, "steps": 6}, Accept="image/png").body
    check(other not in pictures, "another seed made the same picture")


@test
def a_batch_changes_no_byte():
    bodies = [{"class_label": i % 10, "seed": 100 + i, "steps": 3 + i % 5, "guidance_scale": [1, 2, 0, 3.5][i % 4],
               "sampler": ["ddim", "euler", "heun", "dpmpp_2m", "ddpm", "euler_ancestral"][i % 6]} for i in range(24)]
    alone = [daemon.post(body, Accept="image/png").body for body in bodies]
    ids = [daemon.post(body).json["id"] for body in reversed(bodies)]
    for job_id, picture in zip(ids, reversed(alone)):
        daemon.wait(job_id)
        check(daemon.image(job_id) == picture, "a picture changed in company")


@test
def n_images_have_consecutive_seeds():
    job = daemon.make(class_label=1, seed=2**64 - 2, n=4, steps=3)
    same([image["seed"] for image in job["images"]], [str(2**64 - 2), str(2**64 - 1), "0", "1"], "seeds")
    alone = daemon.post({"class_label": 1, "seed": 0, "steps": 3}, Accept="image/png").body
    check(daemon.image(job["id"], 2) == alone, "image 2 differs from the same seed alone")


@test
def events_answer_a_post():
    connection = daemon.connect()
    connection.request("POST", "/generate", json.dumps({"class_label": 0, "steps": 3, "seed": 1}),
                       {"Content-Type": "application/json", "Accept": "text/event-stream"})
    events = read_events(connection)
    names = [event["event"] for event in events if "id" in event]
    same(names, ["queued", "started", "image", "succeeded"], "milestones")
    same([int(event["id"]) for event in events if "id" in event], [1, 2, 3, 4], "ids")


@test
def accept_is_weighed():
    for accept, wanted in (("*/*", "application/json"), ("image/*", "image/png"), ("image/png;q=0.5, application/json;q=0.4", "image/png"),
                           ("image/png, application/json", "application/json"), ("text/event-stream", "text/event-stream")):
        answer = daemon.post({"steps": 1, "seed": 1}, Accept=accept, Prefer="wait=300")
        same(answer.headers["content-type"], wanted, accept)
        same(answer.headers["vary"], "Accept, Prefer", "Vary")


@test
def prefer_wait():
    answer = daemon.post({"steps": 2, "seed": 1}, Prefer="wait=300")
    same((answer.status, answer.json["state"], answer.headers["preference-applied"]), (200, "succeeded", "wait=300"), "answer")
    ended = daemon.make(steps=1)["id"]
    same(daemon.get(f"/jobs/{ended}", Prefer="wait=5").headers.get("preference-applied"), "wait=5", "of a job that has ended")
    with Daemon(**paced()) as other:
        slow = other.post({"steps": 1000, "n": 64, "seed": 1}, Prefer="wait=0")
        same(slow.status, 202, "status after no time")
        began = time.monotonic()
        answer = other.get(slow.headers["location"], Prefer="wait=1")
        check(time.monotonic() - began > 0.8, "waited for one second")
        check(answer.json["state"] in ("queued", "running"), "state")
        other.call("DELETE", slow.headers["location"])
        same(other.wait(slow.json["id"])["state"], "canceled", "state after cancel")


@test
def a_key_makes_one_job():
    body = {"class_label": 2, "steps": 2}
    first = daemon.call("POST", "/generate", body, Idempotency_Key="order-1")
    again = daemon.call("POST", "/generate", '{"steps":2,   "class_label":2}', Idempotency_Key="order-1")
    same(again.json["id"], first.json["id"], "id")
    same((first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]), (None, "true"), "replayed")
    same(again.json["request"]["seed"], first.json["request"]["seed"], "the seed that was drawn once")
    other = daemon.call("POST", "/generate", {"class_label": 3, "steps": 2}, Idempotency_Key="order-1")
    same((other.status, other.json["code"]), (422, "idempotency-mismatch"), "another body")
    daemon.wait(first.json["id"])
    png = daemon.call("POST", "/generate", body, Idempotency_Key="order-1", Accept="image/png")
    same((png.status, png.headers["content-type"]), (200, "image/png"), "the same key as PNG")


@test
def sixty_four_at_once_with_one_key_make_one_job():
    ids, threads = [], []
    for _ in range(64):
        threads.append(threading.Thread(target=lambda: ids.append(daemon.call("POST", "/generate", {"steps": 1}, Idempotency_Key="crowd").json["id"])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same((len(ids), len(set(ids))), (64, 1), "ids")


@test
def an_array_is_all_or_nothing():
    before = daemon.jobs_in_store()
    same(daemon.post([{"steps": 2}, {"steps": 0}]).status, 422, "status")
    same(daemon.jobs_in_store(), before, "rows")
    answer = daemon.post([{"steps": 2, "seed": 1}, {"steps": 3, "seed": 2, "class_label": 4}])
    same((answer.status, len(answer.json["jobs"])), (202, 2), "answer")
    answer = daemon.post([{"steps": 2}, {"steps": 2}], Prefer="wait=300")
    same([job["state"] for job in answer.json["jobs"]], ["succeeded", "succeeded"], "states")


@test
def lists_page_through_all_jobs():
    made = [daemon.post({"steps": 1, "seed": i}).json["id"] for i in range(7)]
    for job_id in made:
        daemon.wait(job_id)
    seen, cursor = [], ""
    while True:
        page = daemon.get(f"/jobs?limit=3{cursor}").json
        seen += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = "&cursor=" + page["next_cursor"]
    same(len(seen), len(set(seen)), "jobs seen twice")
    same(seen[:7], made[::-1], "newest first")
    same(len(seen), daemon.jobs_in_store(), "all jobs")
    same({job["state"] for job in daemon.get("/jobs?state=succeeded&limit=100").json["jobs"]}, {"succeeded"}, "states of a filtered list")


@test
def images_are_cached_and_checked():
    job = daemon.make(steps=1, seed=9, n=2)
    url = job["images"][0]["url"]
    tag = daemon.get(url).headers["etag"]
    answer = daemon.get(url, If_None_Match=tag)
    same((answer.status, answer.body), (304, b""), "If-None-Match")
    check("immutable" in daemon.get(url).headers["cache-control"], "Cache-Control")
    same(daemon.call("HEAD", url).headers["content-length"], str(job["images"][0]["bytes"]), "HEAD")
    for index in ("2", "-1", "00", "x", "999999"):
        same(daemon.get(f"/jobs/{job['id']}/images/{index}.png").json["code"], "not-found", f"image {index}")


@test
def an_image_not_yet_made_is_not_ready():
    with Daemon(**paced()) as other:
        job = other.post({"steps": 1000, "n": 64}).json
        answer = other.get(f"/jobs/{job['id']}/images/63.png")
        same((answer.status, answer.json["code"]), (404, "not-ready"), "answer")
        check(int(answer.headers["retry-after"]) >= 1, "Retry-After")
        same(other.call("DELETE", f"/jobs/{job['id']}").status in (200, 202), True, "cancel")
        same(other.wait(job["id"])["state"], "canceled", "state")
        same(other.get(f"/jobs/{job['id']}/images/63.png").json["code"], "not-found", "after the end")


@test
def cancel_in_every_state():
    with Daemon(**paced()) as other:
        canceled_in_every_state(other)


def canceled_in_every_state(daemon):
    running = daemon.post({"steps": 1000, "n": 64}).json["id"]
    eventually(lambda: daemon.get(f"/jobs/{running}").json["state"] == "running", what="the first runs")
    queued = [daemon.post({"steps": 1000, "n": 64}).json["id"] for _ in range(6)][-1]
    job = daemon.get(f"/jobs/{queued}").json
    same(job["state"], "queued", "the last of them")
    check(job["queue_position"] is not None, "queue position")
    answer = daemon.call("DELETE", f"/jobs/{queued}")
    same((answer.status, answer.json["state"]), (200, "canceled"), "queued")
    same(daemon.call("DELETE", f"/jobs/{queued}").status, 200, "again")
    answer = daemon.call("DELETE", f"/jobs/{running}")
    ended = answer.json["state"] == "canceled"  # its few ticks may be over before the answer is written
    same((answer.status, answer.json["cancel_requested"]), (200 if ended else 202, True), "running")
    same(daemon.wait(running)["state"], "canceled", "state")
    for job in daemon.get("/jobs?limit=100").json["jobs"]:
        if job["state"] in ("queued", "running"):
            daemon.call("DELETE", f"/jobs/{job['id']}")
    done = daemon.make(steps=1)["id"]
    answer = daemon.call("DELETE", f"/jobs/{done}")
    same((answer.status, answer.json["state"]), (200, "succeeded"), "ended")
    answer = daemon.call("DELETE", f"/jobs/{done}?purge=1")
    same((answer.status, answer.json["state"]), (200, "succeeded"), "purge")
    same(daemon.get(f"/jobs/{done}").status, 410, "after purge")
    same(daemon.call("DELETE", "/jobs/" + "a" * 26).status, 404, "unknown")


@test
def a_running_job_is_purged_once_it_has_ended():
    with Daemon("--rows-max", "4", **paced()) as other:  # so that its images end one after another
        job = other.post({"steps": 100, "n": 64, "seed": 5}).json["id"]
        eventually(lambda: other.get(f"/jobs/{job}").json["progress"]["images_done"] > 0, seconds=60, what="its first image")
        answer = other.call("DELETE", f"/jobs/{job}?purge=1")
        ended = answer.json["state"] == "canceled"  # its few ticks may be over before the answer is written
        same((answer.status, answer.json["cancel_requested"], answer.json["state"]), (200, True, "canceled") if ended else (202, True, "running"), "answer")
        eventually(lambda: other.get(f"/jobs/{job}").status == 410 or other.get(f"/jobs/{job}").json["state"] == "canceled", what="its end")
        other.stop()
        other.start()  # retention looks at once after a start, then once a minute
        eventually(lambda: other.get(f"/jobs/{job}").status == 410, what="the purge")
        eventually(lambda: not [file for file in os.listdir(os.path.join(other.data, "images")) if file.startswith(job)], what="its files")


@test
def the_service_describes_itself():
    models = daemon.get("/models").json
    same((models["default"], models["models"][0]["state"], "classes" in models["models"][0]), ("tiny", "ready", False), "models")
    model = daemon.get("/models/tiny").json
    same(model["classes"][7], {"index": 7, "names": ["Sneaker", "trainer"]}, "class 7")
    same((model["architecture"], model["width"], model["guidance"], model["class_count"]), ("UNet2DModel", 8, True, 10), "model")
    names = {sampler["name"] for sampler in daemon.get("/samplers").json["samplers"]}
    check({"ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m"} <= names, names)
    check(set(model["samplers"]) <= names | {"model"}, model["samplers"])
    check(daemon.get("/capabilities").json, "capabilities")
    paths = daemon.get("/openapi.json").json["paths"]
    for path in ("/generate", "/jobs", "/jobs/{id}", "/jobs/{id}/events", "/models", "/samplers", "/capabilities", "/healthz", "/readyz", "/metrics"):
        check(path in paths, f"openapi has no {path}")
    metrics = daemon.get("/metrics").body.decode()
    for name in ("denoised_jobs{state=\"succeeded\"}", "denoised_queue_depth", "denoised_tick"):
        check(name in metrics, f"metrics have no {name}")


@test
def every_sampler_of_the_table_makes_a_picture():
    needy = {row["name"] for row in daemon.get("/samplers").json["samplers"] if row["needs_init_image"]}
    for name in daemon.get("/models/tiny").json["samplers"]:
        if name in needy:  # conditioning_test.py gives them one
            continue
        same(daemon.make(sampler=name, steps=4, seed=1, class_label=1, guidance_scale=1.5)["state"], "succeeded", name)


run(__name__)
