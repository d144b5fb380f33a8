"""OpenAI's Images API over the same queue: pictures, streams, refusals in its shape, waiting, keys. The real client is in tests/clients."""
import contextlib
import http.client

from harness import BASE_PATH
from harness import *  # noqa: F403

IMAGES = "/v1/images/generations"
daemon = Daemon()


def post(body, at=None, **headers):
    return (at or daemon).post(body, IMAGES, **headers)


def error_of(answer):
    """(status, type, code, param) of a refusal, whose whole shape is looked at."""
    same(answer.headers["content-type"], "application/json", "Content-Type of a refusal")
    check("x-request-id" in answer.headers, "X-Request-Id")
    same(list(answer.json), ["error"], "the refusal")
    error = answer.json["error"]
    same(sorted(error), ["code", "message", "param", "type"], "the error's fields")
    check(error["message"], "a message")
    return answer.status, error["type"], error["code"], error["param"]


def refused(answer, status, kind, code, param=None):
    same(error_of(answer), (status, kind, code, param), f"refusal: {answer.body[:200]}")
    return answer


def job_of(answer):
    return answer.headers["location"].rsplit("/", 1)[1]


def add(data, name, *options):
    """A key, as an Authorization header."""
    done = subprocess.run([PROGRAM, "key", "add", name, *options, "--data", data], capture_output=True, text=True, timeout=PATIENCE, check=True)
    return f"Bearer {done.stdout.strip()}"


class Busy(Daemon):
    """Makes one picture at a time, each step of it in 20 ms at least."""

    def __init__(self, *options, **more):
        super().__init__("--batching", "single", *options, program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}, **more)

    @contextlib.contextmanager
    def held(self, **headers):
        """An urgent job of twenty minutes is before all others: none of them begins meanwhile."""
        posted = self.post({"steps": 1000, "n": 64, "priority": 10}, **headers)
        same(posted.status, 202, "the job that is before all others")
        at = posted.headers["location"]
        eventually(lambda: self.get(at, **headers).json["state"] == "running", what="it runs")
        yield
        self.call("DELETE", at, **headers)


def in_background(call):
    """A function that gives what the call gave; None if the connection ended without an answer."""
    answers = []

    def calls():
        try:
            answers.append(call())
        except (ConnectionError, http.client.HTTPException):
            answers.append(None)
    thread = threading.Thread(target=calls, daemon=True)
    thread.start()

    def answer():
        thread.join(PATIENCE)
        check(answers, "neither an answer nor an end")
        return answers[0]
    return answer


@test
def a_prompt_becomes_pictures():
    answer = post({"prompt": "a photo of a sneaker", "n": 2, "seed": 7, "num_inference_steps": 3, "guidance_scale": 1.5, "model": "tiny",
                   "size": "8x8", "response_format": "b64_json", "output_format": "png", "user": "somebody", "quality": "hd",
                   "style": "vivid", "background": "opaque", "moderation": "low", "output_compression": 100, "complexity": "low",
                   "safety_identifier": "x", "stream": False, "partial_images": 0})
    same(answer.status, 200, f"status: {answer.body[:200]}")
    body = answer.json
    same(sorted(body), ["background", "created", "data", "output_format", "size", "usage"], "fields")
    same((body["background"], body["output_format"], body["size"], body["usage"]["total_tokens"]), ("opaque", "png", "8x8", 0), "what is said")
    job = daemon.get(answer.headers["location"]).json
    same((job["state"], job["request"]["class_label"], job["request"]["steps"], job["request"]["guidance_scale"], job["request"]["seed"]),
         ("succeeded", 7, 3, 1.5, "7"), "the job")
    same([(image["seed"], image["revised_prompt"]) for image in body["data"]], [("7", "Sneaker"), ("8", "Sneaker")], "what was drawn")
    check(abs(body["created"] - time.time()) < 86400, "created is a time in seconds")
    for index, image in enumerate(body["data"]):
        same(base64.b64decode(image["b64_json"], validate=True), daemon.image(job["id"], index), f"picture {index}")
    native = daemon.post({"class_label": 7, "steps": 3, "guidance_scale": 1.5, "seed": 7}, Accept="image/png", Prefer="wait=60")
    same(base64.b64decode(body["data"][0]["b64_json"]), native.body, "the same request of the native API")


@test
def defaults_nulls_and_native_fields():
    everything_null = {name: None for name in ("model", "n", "size", "response_format", "output_format", "stream", "partial_images", "user",
                                               "quality", "style", "background", "moderation", "output_compression", "complexity",
                                               "safety_identifier", "seed", "num_inference_steps", "guidance_scale", "negative_prompt")}
    answer = post(dict(everything_null, prompt="class:3"))
    same((answer.status, len(answer.json["data"]), answer.json["data"][0]["revised_prompt"]), (200, 1, "Dress"), "all left out")
    answer = post({"prompt": "a bag", "size": "auto", "negative_prompt": "shirts", "sampler": "ddim", "eta": 0.5, "seed": "18446744073709551615",
                   "steps": 2, "priority": 1})
    request = daemon.get(answer.headers["location"]).json["request"]
    same([request[name] for name in ("class_label", "negative_class", "sampler", "eta", "seed", "steps", "priority")],
         [8, 6, "ddim", 0.5, "18446744073709551615", 2, 1], "extensions")
    same(answer.json["data"][0]["seed"], "18446744073709551615", "the seed, exact")
    answer = post({"prompt": "whatever", "class_label": None, "steps": 2})
    same((answer.status, "revised_prompt" in answer.json["data"][0]), (200, False), "class_label counts for more: of no class")
    answer = post({"class_mixture": [{"class_label": 1, "weight": 0.5}, {"class_label": 2, "weight": 0.5}], "steps": 2, "negative_prompt": " "})
    same((answer.status, "revised_prompt" in answer.json["data"][0]), (200, False), "a mixture needs no prompt")


@test
def urls_are_where_the_pictures_are():
    answer = post({"prompt": "a coat", "n": 2, "response_format": "url", "seed": 1, "steps": 2})
    same(answer.status, 200, "status")
    job = job_of(answer)
    at = f"127.0.0.1:{daemon.port}"
    same([image["url"] for image in answer.json["data"]], [f"http://{at}{BASE_PATH}/jobs/{job}/images/{i}.png" for i in range(2)], "the urls")
    check("b64_json" not in answer.json["data"][0], "only the url")
    same(png_size(daemon.get(f"{BASE_PATH}/jobs/{job}/images/1.png").body), (8, 8), "what is there")
    answer = post({"prompt": "a coat", "response_format": "url", "steps": 2}, X_Forwarded_Proto="https")
    check(answer.json["data"][0]["url"].startswith(f"https://{at}/"), "behind a proxy")
    with Daemon("--public-url", "https://pictures.example:8443", "--base-path", "/x") as other:
        if not BASE_PATH:
            answer = other.post({"prompt": "a coat", "response_format": "url", "steps": 2}, "/x" + IMAGES)
            same((answer.status, answer.json["data"][0]["url"]),
                 (200, f"https://pictures.example:8443/x/jobs/{job_of(answer)}/images/0.png"), "the public url")
            same(answer.headers["location"], f"/x/jobs/{job_of(answer)}", "Location")
            same([m["id"] for m in other.get("/x/v1/models").json["data"]], ["tiny"], "models under a base path")
            refused(other.get("/x/v1/nothing"), 404, "invalid_request_error", "not_found")
            same(other.get("/v1/nothing").headers["content-type"], "application/problem+json", "outside of the base path nothing is OpenAI's")


@test
def every_refusal_has_openais_shape():
    rows = daemon.jobs_in_store()
    bad = "invalid_request_error"
    for body, code, param in (
            ({}, "invalid_field", "prompt"), ({"prompt": 7}, "invalid_field", "prompt"), ({"prompt": ""}, "invalid_field", "prompt"),
            ({"prompt": "a zebra"}, "invalid_field", "prompt"), ({"prompt": "a bag and a coat"}, "invalid_field", "prompt"),
            ({"prompt": "7"}, "invalid_field", "prompt"), ({"prompt": "class:10"}, "invalid_field", "prompt"),
            ({"prompt": "a trainer"}, "invalid_field", "prompt"), ({"prompt": "bag", "negative_prompt": "zebras"}, "invalid_field", "negative_prompt"),
            ({"prompt": "bag", "negative_prompt": 3}, "invalid_field", "negative_prompt"), ({"prompt": "bag", "n": 0}, "invalid_field", "n"),
            ({"prompt": "bag", "n": 65}, "invalid_field", "n"), ({"prompt": "bag", "n": "2"}, "invalid_field", "n"),
            ({"prompt": "bag", "size": "1024x1024"}, "invalid_field", "size"), ({"prompt": "bag", "size": 8}, "invalid_field", "size"),
            ({"prompt": "bag", "response_format": "png"}, "invalid_field", "response_format"),
            ({"prompt": "bag", "stream": 1}, "invalid_field", "stream"), ({"prompt": "bag", "partial_images": 4}, "invalid_field", "partial_images"),
            ({"prompt": "bag", "partial_images": 1.0}, None, None), ({"prompt": "bag", "partial_images": -1}, "invalid_field", "partial_images"),
            ({"prompt": "bag", "stream": True, "response_format": "url"}, "invalid_field", "response_format"),
            ({"prompt": "bag", "output_format": "webp"}, "unsupported_option", "output_format"),
            ({"prompt": "bag", "output_compression": 101}, "invalid_field", "output_compression"),
            ({"prompt": "bag", "background": "transparent"}, "unsupported_option", "background"),
            ({"prompt": "bag", "background": "blue"}, "invalid_field", "background"), ({"prompt": "bag", "quality": "best"}, "invalid_field", "quality"),
            ({"prompt": "bag", "quality": ""}, "invalid_field", "quality"), ({"prompt": "bag", "quality": "low medium"}, "invalid_field", "quality"),
            ({"prompt": "bag", "style": "hd"}, "invalid_field", "style"), ({"prompt": "bag", "moderation": "high"}, "invalid_field", "moderation"),
            ({"prompt": "bag", "user": 3}, "invalid_field", "user"), ({"prompt": "bag", "model": 3}, "invalid_field", "model"),
            ({"prompt": "bag", "num_inference_steps": 0}, "invalid_field", "num_inference_steps"),
            ({"prompt": "bag", "num_inference_steps": 5, "steps": 5}, "invalid_field", "num_inference_steps"),
            ({"prompt": "bag", "steps": 0}, "invalid_field", "steps"), ({"prompt": "bag", "seed": -1}, "invalid_field", "seed"),
            ({"prompt": "bag", "guidance_scale": 101}, "invalid_field", "guidance_scale"), ({"prompt": "bag", "frame_count": 2}, "invalid_field", "frame_count"),
            ({"prompt": "bag", "sampler": "warp"}, "invalid_field", "sampler"), ([{"prompt": "bag"}], "invalid_field", None),
            ({"class_mixture": [{"class_label": 1, "weight": 11}]}, "invalid_field", "class_mixture/0/weight"),
            ({"prompt": "bag", "webhook": "https://example.org/x"}, "unsupported_option", "webhook")):
        if code is None:  # json.dumps writes 1.0, which is no integer here
            refused(post(body), 400, bad, "invalid_field", "partial_images")
        else:
            refused(post(body), 400, bad, code, param)
    refused(post({"prompt": "bag", "model": "gpt-image-1"}), 404, bad, "model_not_found", "model")
    refused(post("{"), 400, bad, "malformed_json")
    refused(post({"prompt": "bag"}, Content_Type="text/plain"), 415, bad, "unsupported_media_type")
    refused(post({"prompt": "bag"}, Content_Encoding="gzip"), 415, bad, "unsupported_media_type")
    refused(post({"prompt": "bag"}, Idempotency_Key="k" * 256), 400, bad, "invalid_field")
    refused(post(b'{"prompt":"bag","user":"' + b"x" * 70000 + b'"}'), 413, bad, "too_large")
    announced = daemon.raw(f"POST {BASE_PATH}{IMAGES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n".encode(),
                           seconds=60)[0]
    check(announced.startswith(b"HTTP/1.1 413 ") and b'"code":"too_large"}}' in announced, announced[:300])
    refused(daemon.get(IMAGES), 405, bad, "method_not_allowed")
    refused(daemon.call("DELETE", "/v1/models"), 405, bad, "method_not_allowed")
    refused(post({"prompt": "bag"}, Host="evil.example"), 421, bad, "wrong_host")
    refused(daemon.call("POST", "/v1/images/edits", {"prompt": "bag"}), 404, bad, "not_found")
    same(daemon.get("/v2/models").headers["content-type"], "application/problem+json", "elsewhere nothing is OpenAI's")
    message = post({"prompt": "a sneeker secretword"}).json["error"]["message"]
    check('"Sneaker" (class:7)' in message and "secretword" not in message, message)
    same(daemon.jobs_in_store(), rows, "rows after the refusals")


@test
def models_are_listed():
    same(daemon.get("/v1/models").json,
         {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "denoised"}]}, "the list")
    same(daemon.get("/v1/models/tiny").json, {"id": "tiny", "object": "model", "created": 0, "owned_by": "denoised"}, "one")
    refused(daemon.get("/v1/models/other"), 404, "invalid_request_error", "model_not_found", "model")
    for path in ("/v1/models", "/v1/models/tiny"):
        head, got = daemon.call("HEAD", path), daemon.get(path)
        same((head.status, head.body, head.headers["content-length"]), (200, b"", str(len(got.body))), f"HEAD {path}")


@test
def a_key_makes_one_job():
    rows = daemon.jobs_in_store()
    first, again = [post({"prompt": "a shirt", "steps": 2}, Idempotency_Key="openai-1") for _ in range(2)]
    same((again.headers.get("idempotency-replayed"), again.headers["location"], again.json), ("true", first.headers["location"], first.json), "again")
    refused(post({"prompt": "a bag", "steps": 2}, Idempotency_Key="openai-1"), 400, "invalid_request_error", "idempotency_mismatch")
    same(post({"class_label": 6, "steps": 2}, Idempotency_Key="openai-2").status, 200, "a body that both routes take")
    answer = daemon.post({"class_label": 6, "steps": 2}, Idempotency_Key="openai-2")
    same((answer.status, answer.json["code"]), (422, "idempotency-mismatch"), "another route is another request")
    same(daemon.jobs_in_store(), rows + 2, "rows")


@test
def who_waits_too_long_is_told_where_the_job_is():
    slow = {"prompt": "a dress", "steps": 2, "seed": 3}
    with Busy() as busy:
        with busy.held():
            told = refused(post(slow, busy, X_Stainless_Read_Timeout="0.5"), 504, "server_error", "timeout")
            same(post(slow, busy, X_Stainless_Timeout="0.5").status, 504, "as another client of theirs says it")
            check(f"/jobs/{job_of(told)}" in told.json["error"]["message"] and int(told.headers["retry-after"]) >= 1, "where to look")
            same(told.headers["x-should-retry"], "false", "another try would be another job")
            check(busy.get(told.headers["location"]).json["state"] in ("queued", "running"), "it goes on")
            keyed = refused(post(slow, busy, Prefer="wait=0", Idempotency_Key="patience"), 504, "server_error", "timeout")
            same((keyed.headers["x-should-retry"], keyed.headers["preference-applied"]), ("true", "wait=0"), "another try waits for the same job")
            waiting = in_background(lambda: post(slow, busy, Idempotency_Key="patience"))
            gone = busy.connect()
            rows = busy.jobs_in_store()
            gone.request("POST", IMAGES, json.dumps(dict(slow, seed=4)), {"Content-Type": "application/json"})
            eventually(lambda: busy.jobs_in_store() == rows + 1, what="the job of who leaves")
            gone.close()
        answer = waiting()
        same((answer.status, answer.headers.get("idempotency-replayed"), job_of(answer)), (200, "true", job_of(keyed)), "waiting on with the key")
        for job in busy.get("/jobs?limit=4").json["jobs"]:
            same(busy.wait(job["id"])["state"], "succeeded", "a job nobody waits for any more")


@test
def jobs_that_end_badly_say_so():
    failed = refused(post({"prompt": "a bag", "steps": 1000, "n": 64, "deadline_ms": 1}), 500, "server_error", "job_failed")
    same((failed.headers["x-should-retry"], daemon.get(failed.headers["location"]).json["state"]), ("false", "failed"), "not to be tried again")
    with Busy() as busy, busy.held():
        waiting = in_background(lambda: post({"prompt": "a bag", "steps": 3, "seed": 991}, busy))
        job = eventually(lambda: [j["id"] for j in busy.get("/jobs?limit=1").json["jobs"] if j["request"]["seed"] == "991"], what="its job")[0]
        busy.call("DELETE", f"/jobs/{job}")
        canceled = refused(waiting(), 409, "invalid_request_error", "canceled")
    same((canceled.headers["x-should-retry"], job_of(canceled)), ("false", job), "of OpenAI's clients a 409 would be tried again")


def stream(body, at=None, status=200, headers=None):
    """The events of a stream to its end."""
    connection = (at or daemon).connect()
    connection.request("POST", IMAGES, json.dumps(dict(body, stream=True)), {"Content-Type": "application/json", **(headers or {})})
    events = read_events(connection)
    if status == 200:
        check(isinstance(events, list), f"no stream but {getattr(events, 'body', b'')[:200]}")
        return [e for e in events if e["event"]]
    return events


@test
def a_stream_ends_with_the_pictures():
    events = stream({"prompt": "a sandal", "n": 3, "seed": 5, "steps": 2})
    same([e["event"] for e in events], ["image_generation.completed"] * 3, "events")
    whole = post({"prompt": "a sandal", "n": 3, "seed": 5, "steps": 2}).json["data"]
    by_index = {e["json"]["index"]: e["json"] for e in events}
    same(sorted(by_index), [0, 1, 2], "indices")
    for index, image in enumerate(whole):
        told = by_index[index]
        same(sorted(told), ["b64_json", "background", "created_at", "index", "output_format", "quality", "revised_prompt", "seed", "size", "type", "usage"],
             "fields")
        same((told["type"], told["b64_json"], told["seed"], told["revised_prompt"], told["size"], told["usage"]["total_tokens"]),
             ("image_generation.completed", image["b64_json"], image["seed"], "Sandal", "8x8", 0), f"picture {index}")
    key = {"Idempotency-Key": "streamed"}
    first, again = [stream({"prompt": "a sandal", "steps": 2}, headers=key) for _ in range(2)]
    same(again[0]["json"]["b64_json"], first[0]["json"]["b64_json"], "a job that has ended is told again")
    refused(stream({"prompt": "a zebra"}, status=400), 400, "invalid_request_error", "invalid_field", "prompt")


@test
def partial_pictures_come_from_the_denoising_loop():
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as slow:
        for seed in range(10):  # a busy machine may hear of a preview too late: the rule is that there are no more, and in order
            events = stream({"prompt": "an ankle boot", "steps": 150, "seed": seed, "partial_images": 3}, at=slow)
            partial = [e["json"] for e in events[:-1]]
            same(events[-1]["event"], "image_generation.completed", "the last")
            same([e["event"] for e in events[:-1]], ["image_generation.partial_image"] * len(partial), "before it")
            same([p["partial_image_index"] for p in partial], list(range(len(partial))), "their numbers")
            check(len(partial) <= 3, "too many")
            pictures = [base64.b64decode(e["json"]["b64_json"]) for e in events]
            if len(partial) == 3 and len(set(pictures)) > 1:  # at 8x8, two of them may be equal
                break
        same([png_size(p) for p in pictures], [(8, 8)] * 4, "three partial pictures and the last")
        check(len(set(pictures)) > 1, "the partial pictures are the last one")
        same(sorted(partial[0]), ["b64_json", "background", "created_at", "index", "output_format", "partial_image_index", "quality", "size", "type"], "fields")
        none = stream({"prompt": "an ankle boot", "steps": 100, "seed": 1}, at=slow)
        same([e["event"] for e in none], ["image_generation.completed"], "without partial_images")


@test
def partial_pictures_have_the_size_of_the_last():
    """Those of a latent model come from its latents, an eighth as wide."""
    with Daemon(model=os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4"), program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as latent:
        for seed in range(10):
            events = stream({"prompt": "class:3", "steps": 100, "seed": seed, "partial_images": 1}, at=latent)
            if len(events) == 2:
                break
        partial, last = [e["json"] for e in events]
        same((partial["size"], last["size"]), ("64x64", "64x64"), "what is said")
        same([png_size(base64.b64decode(p["b64_json"])) for p in (partial, last)], [(64, 64)] * 2, "what there is")


@test
def a_stream_says_how_its_job_ended():
    with Busy() as busy, busy.held():
        connection = busy.connect()
        connection.request("POST", IMAGES, json.dumps({"prompt": "a bag", "seed": 992, "steps": 3, "stream": True}), {"Content-Type": "application/json"})
        job = eventually(lambda: [j["id"] for j in busy.get("/jobs?limit=1").json["jobs"] if j["request"]["seed"] == "992"], what="its job")[0]
        busy.call("DELETE", f"/jobs/{job}")
        events = [e for e in read_events(connection) if e["event"]]
    same([(e["event"], e["json"]["type"], e["json"]["error"]["code"]) for e in events], [("error", "error", "canceled")], "the events")
    events = stream({"prompt": "a bag", "steps": 1000, "n": 64, "deadline_ms": 1, "partial_images": 1})
    same([(e["event"], e["json"]["error"]["type"], e["json"]["error"]["code"]) for e in events[-1:]], [("error", "server_error", "job_failed")], "the last")


@test
def streams_have_their_limit():
    with Busy("--streams-max", "1") as other:
        with other.held():
            open_one = other.connect()
            open_one.request("POST", IMAGES, json.dumps({"prompt": "a bag", "steps": 2, "stream": True}), {"Content-Type": "application/json"})
            same(open_one.getresponse().status, 200, "the first")
            rows = other.jobs_in_store()
            full = stream({"prompt": "a bag", "steps": 2}, at=other, status=503)
            refused(full, 503, "server_error", "queue_full")
            check("retry-after" in full.headers, "Retry-After")
            same(other.jobs_in_store(), rows, "no job without a stream")
        open_one.close()


@test
def keys_scopes_rates_and_budgets_hold():
    data = scratch("data")
    alice, bob, reader = add(data, "alice"), add(data, "bob"), add(data, "carol", "--scopes", "read")
    rated, poor, few = add(data, "rated", "--rate", "0.2"), add(data, "poor", "--budget", "0.001"), add(data, "few", "--pending-jobs", "1")
    enough = add(data, "enough", "--budget", "0.014")  # 8x8 pictures: 100 steps are 0.0064 megapixel-steps, and there are two of them
    with Busy(data=data) as other:
        body = {"prompt": "a bag", "steps": 2}
        answer = refused(post(body, other), 401, "authentication_error", "invalid_api_key")
        same(answer.headers["www-authenticate"], 'Bearer realm="denoised"', "WWW-Authenticate")
        refused(other.get("/v1/models", Authorization="Bearer sk-nothing"), 401, "authentication_error", "invalid_api_key")
        refused(post(body, other, Authorization=reader), 403, "permission_error", "forbidden")
        same(other.get("/v1/models", Authorization=reader).status, 200, "any key lists models")
        made = [post(body, other, Authorization=key, Idempotency_Key="mine") for key in (alice, bob)]
        same([a.status for a in made], [200, 200], "pictures")
        check(job_of(made[0]) != job_of(made[1]), "another client's Idempotency-Key is another's")
        same(other.get(made[0].headers["location"], Authorization=bob).status, 404, "another client's job")
        url = post(dict(body, response_format="url"), other, Authorization=alice).json["data"][0]["url"]
        path = url[url.index("/jobs/"):]
        same([other.get(path).status, other.get(path, Authorization=bob).status, other.get(path, Authorization=alice).status], [401, 404, 200], "a url")
        answers = [other.get("/v1/models", Authorization=rated) for _ in range(20)]
        late = refused(next(a for a in answers if a.status != 200), 429, "rate_limit_error", "rate_limit_exceeded")
        check(int(late.headers["retry-after"]) >= 1, "Retry-After")
        never = refused(post(dict(body, steps=1000), other, Authorization=poor), 429, "rate_limit_error", "rate_limit_exceeded")
        check("megapixel-steps" in never.json["error"]["message"], "why")
        hundred = {"prompt": "a bag", "steps": 100, "guidance_scale": 1, "sampler": "ddim"}
        same([post(hundred, other, Authorization=enough, Idempotency_Key=key).status for key in "aaaab"], [200] * 5, "what is known already costs nothing")
        with other.held(Authorization=alice):
            refused(post(body, other, Authorization=few, Prefer="wait=0"), 504, "server_error", "timeout")
            full = refused(post(body, other, Authorization=few), 429, "rate_limit_error", "rate_limit_exceeded")
            check(int(full.headers["retry-after"]) >= 1, "Retry-After")


def last_of_stream(connection):
    """What a stream says to its end; None where it is cut."""
    try:
        return connection.getresponse().read().decode()
    except (http.client.HTTPException, ConnectionError):
        return None


@test
def a_stream_says_that_the_daemon_stops():
    with Daemon("--drain-seconds", "1", program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow200"}) as slow:
        connection = slow.connect()
        connection.request("POST", IMAGES, json.dumps({"prompt": "a bag", "steps": 1000, "stream": True}), {"Content-Type": "application/json"})
        job = eventually(lambda: [j["id"] for j in slow.get("/jobs?state=running").json["jobs"]], what="it runs")[0]
        slow.process.send_signal(signal.SIGTERM)
        said = last_of_stream(connection)
        if said is not None:  # a daemon that ends gives its last answers a second, which a machine may not have
            lines = said.strip().split("\n")
            same(lines[-2:-1], ["event: error"], f"the last event of {said!r}")
            error = json.loads(lines[-1].removeprefix("data: "))["error"]
            same((error["type"], error["code"]), ("server_error", "draining"), "the error")
            check(f"/jobs/{job}" in error["message"], error["message"])
        same(slow.process.wait(PATIENCE), 0, "exit status")


@test
def a_drain_is_told():
    with Daemon("--drain-seconds", "1", program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as slow:
        waiting = in_background(lambda: post({"prompt": "a bag", "steps": 1000}, slow))
        job = eventually(lambda: [j["id"] for j in slow.get("/jobs?state=running").json["jobs"]], what="it runs")[0]
        slow.process.send_signal(signal.SIGTERM)
        told = waiting()
        if told is not None:  # a daemon that ends gives its last answers a second, which a machine may not have
            refused(told, 503, "server_error", "draining")
            same((told.headers["x-should-retry"], job_of(told)), ("false", job), "the job is kept")
        same(slow.process.wait(PATIENCE), 0, "exit status")
        slow.environment = None
        slow.program = PROGRAM
        slow.start()
        same(slow.wait(job)["state"], "succeeded", "the job, after the next start")
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow200"}) as slow:
        slow.post({"steps": 1000, "n": 2})
        eventually(lambda: slow.get("/jobs?state=running").json["jobs"], what="it runs")
        slow.process.send_signal(signal.SIGTERM)
        answer = eventually(lambda: (lambda a: a if a.status == 503 else None)(post({"prompt": "a bag", "steps": 1}, slow)), what="the refusal")
        refused(answer, 503, "server_error", "draining")
        check("retry-after" in answer.headers, "Retry-After")


run(__name__)
