"""The real `openai` client against a running daemon: what it makes, streams, lists and raises, and that its retries make no second job."""
import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
os.environ["NO_PROXY"] = "*"
try:
    import openai
except ImportError:
    print("SKIP clients/openai: no build/venv (tests/clients/venv.sh says why)")
    sys.exit(0)

from harness import FAULTS, PROGRAM, SLOW, Daemon, base64, check, eventually, png_size, run, same, scratch, test  # noqa: E402

daemon = Daemon()


def client_of(at=daemon, kind=openai.OpenAI, **more):
    return kind(base_url=f"http://127.0.0.1:{at.port}/v1", api_key=more.pop("api_key", "none is needed"), **more)


client = client_of()


def png_of(image):
    return base64.b64decode(image.b64_json, validate=True)


def raises(kind, call, **wanted):
    try:
        call()
    except openai.APIError as error:
        same(type(error), kind, f"the exception for {error}")
        same({name: getattr(error, name) for name in wanted}, wanted, str(error))
        return error
    raise AssertionError(f"no {kind.__name__}")


@test
def pictures_in_the_answer():
    answer = client.images.generate(prompt="a photo of an ankle boot", model="tiny", n=2, size="8x8", quality="high", background="opaque",
                                    output_format="png", moderation="low", user="somebody",
                                    extra_body={"seed": 7, "num_inference_steps": 3, "guidance_scale": 1.5, "negative_prompt": "a shirt"})
    same((answer.size, answer.output_format, answer.background, answer.usage.total_tokens, len(answer.data)), ("8x8", "png", "opaque", 0, 2), "the answer")
    same([(image.revised_prompt, image.seed, image.url) for image in answer.data], [("Ankle boot", "7", None), ("Ankle boot", "8", None)], "the pictures")
    same([png_size(png_of(image)) for image in answer.data], [(8, 8)] * 2, "sizes")
    native = daemon.post({"class_label": 9, "steps": 3, "guidance_scale": 1.5, "negative_class": 6, "seed": 7}, Accept="image/png", Prefer="wait=60")
    same(png_of(answer.data[0]), native.body, "the native API's picture")
    raw = client.images.with_raw_response.generate(prompt="class:2", extra_body={"steps": 2})
    check(re.fullmatch("/jobs/[a-z2-7]{26}", raw.headers["location"]), "Location")
    same(raw.parse().data[0].revised_prompt, "Pullover", "by number")


@test
def pictures_by_url_need_the_key():
    data = scratch("data")
    made = subprocess.run([PROGRAM, "key", "add", "alice", "--data", data], capture_output=True, text=True, timeout=60 * SLOW, check=True)
    secret = made.stdout.strip()
    with Daemon(data=data) as keyed:
        alice = client_of(keyed, api_key=secret)
        answer = alice.images.generate(prompt="a bag", response_format="url", extra_body={"steps": 2, "seed": 3})
        same((answer.data[0].b64_json, answer.data[0].seed), (None, "3"), "the picture")
        asked = urllib.request.Request(answer.data[0].url, headers={"Authorization": f"Bearer {secret}"})
        with urllib.request.urlopen(asked, timeout=60 * SLOW) as got:
            same(png_size(got.read()), (8, 8), "what is there")
        try:
            urllib.request.urlopen(answer.data[0].url, timeout=60 * SLOW)
            raise AssertionError("the url answered without the key")
        except urllib.error.HTTPError as error:
            same(error.code, 401, "without the key")
        raises(openai.AuthenticationError, lambda: client_of(keyed, api_key="sk-nothing").models.list(), code="invalid_api_key", type="authentication_error")
        reader = subprocess.run([PROGRAM, "key", "add", "bob", "--scopes", "read", "--data", data], capture_output=True, text=True,
                                timeout=60 * SLOW, check=True).stdout.strip()
        eventually(lambda: keyed.get("/v1/models", Authorization=f"Bearer {reader}").status == 200, what="the new key is known")
        raises(openai.PermissionDeniedError, lambda: client_of(keyed, api_key=reader).images.generate(prompt="a bag"), code="forbidden")
        poor = subprocess.run([PROGRAM, "key", "add", "carol", "--budget", "0.001", "--data", data], capture_output=True, text=True,
                              timeout=60 * SLOW, check=True).stdout.strip()
        eventually(lambda: keyed.get("/v1/models", Authorization=f"Bearer {poor}").status == 200, what="the new key is known")
        raises(openai.RateLimitError, lambda: client_of(keyed, api_key=poor, max_retries=0).images.generate(prompt="a bag", extra_body={"steps": 1000}),
               code="rate_limit_exceeded", type="rate_limit_error")


@test
def models_are_listed():
    same([(model.id, model.object, model.owned_by) for model in client.models.list()], [("tiny", "model", "denoised")], "the list")
    same(client.models.retrieve("tiny").id, "tiny", "one")
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-image-1"), code="model_not_found", param="model")


@test
def refusals_are_the_clients_exceptions():
    rows = daemon.jobs_in_store()
    error = raises(openai.BadRequestError, lambda: client.images.generate(prompt="a sneeker"), param="prompt", type="invalid_request_error", code="invalid_field")
    check('"Sneaker" (class:7)' in error.message and error.request_id, error.message)
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", size="1024x1024"), param="size")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", n=65), param="n")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", output_format="webp"), param="output_format", code="unsupported_option")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", background="transparent"), param="background")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", extra_body={"nonsense": 1}), param="nonsense")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a bag", extra_body={"num_inference_steps": 0}), param="num_inference_steps")
    raises(openai.BadRequestError, lambda: client.images.generate(prompt="a zebra", stream=True), param="prompt")
    raises(openai.NotFoundError, lambda: client.images.generate(prompt="a bag", model="gpt-image-1"), code="model_not_found", param="model")
    raises(openai.NotFoundError, lambda: client.embeddings.create(model="tiny", input="a bag"), code="not_found")
    same(daemon.jobs_in_store(), rows, "rows")


@test
def what_is_one_job_is_not_made_twice():
    rows = daemon.jobs_in_store()
    error = raises(openai.InternalServerError, lambda: client.images.generate(prompt="a bag", n=64, extra_body={"steps": 1000, "deadline_ms": 1}),
                   status_code=500, code="job_failed", type="server_error")
    same((daemon.jobs_in_store(), daemon.get(error.response.headers["location"]).json["state"]), (rows + 1, "failed"), "a job that failed")
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as slow:
        call = {"prompt": "a bag", "extra_body": {"steps": 1000, "n": 64}, "extra_headers": {"Prefer": "wait=0"}}
        error = raises(openai.InternalServerError, lambda: client_of(slow).images.generate(**call), status_code=504, code="timeout")
        same(slow.jobs_in_store(), 1, "jobs where one takes its time")
        at = error.response.headers["location"]
        check(slow.get(at).json["state"] in ("queued", "running"), "it goes on")
        slow.call("DELETE", at)


class Cutting:
    """A door to the daemon that takes the first request in and then closes the connection instead of answering."""

    def __init__(self, at, arrived):
        self.at, self.arrived, self.cut = at, arrived, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.at.port))
            threading.Thread(target=self.copy, args=(near, far), daemon=True).start()
            if self.cut == 0:
                self.cut += 1
                threading.Thread(target=self.close_late, args=(near, far), daemon=True).start()
            else:
                threading.Thread(target=self.copy, args=(far, near), daemon=True).start()

    def close_late(self, near, far):
        eventually(self.arrived, what="the first request's job")
        for one in (near, far):
            with contextlib.suppress(OSError):  # the other side may have been first
                one.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def copy(source, target):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


@test
def a_retry_with_a_key_waits_for_the_same_job():
    rows = daemon.jobs_in_store()
    door = Cutting(daemon, lambda: daemon.jobs_in_store() == rows + 1)
    through = client_of(door, max_retries=2)
    raw = through.images.with_raw_response.generate(prompt="a coat", extra_body={"steps": 2}, extra_headers={"Idempotency-Key": "clients-1"})
    same((door.cut, raw.headers.get("idempotency-replayed"), raw.retries_taken), (1, "true", 1), "the second try")
    same(daemon.jobs_in_store(), rows + 1, "jobs")
    same(raw.parse().data[0].revised_prompt, "Coat", "the picture")
    door.listener.close()


@test
def streams_have_partial_pictures_and_the_last():
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as slow:
        for seed in range(10):  # a busy machine may hear of a preview too late: the rule is that there are no more, and in order
            events = list(client_of(slow).images.generate(prompt="a dress", stream=True, partial_images=3, extra_body={"seed": seed, "steps": 150}))
            *partial, last = events
            same((type(last).__name__, last.type, last.seed), ("ImageGenCompletedEvent", "image_generation.completed", str(seed)), "the last")
            same({type(event).__name__ for event in partial} - {"ImageGenPartialImageEvent"}, set(), "before it")
            same([event.partial_image_index for event in partial], list(range(len(partial))), "their numbers")
            pictures = [png_of(event) for event in events]
            if len(partial) == 3 and len(set(pictures)) > 1:  # at 8x8, two of them may be equal
                break
        same([png_size(picture) for picture in pictures], [(8, 8)] * 4, "pictures")
        check(len(set(pictures)) > 1, "the partial pictures are the last one")
        same((last.size, last.output_format, last.usage.total_tokens), ("8x8", "png", 0), "the last one's fields")
    same([event.type for event in client.images.generate(prompt="a dress", stream=True, n=2)], ["image_generation.completed"] * 2, "without partial pictures")
    raises(openai.APIError, lambda: list(client.images.generate(prompt="a bag", n=64, stream=True, extra_body={"steps": 1000, "deadline_ms": 1})),
           code="job_failed", type="server_error")


@test
def sixteen_at_once():
    names = ["Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"] * 2

    async def all_of_them():
        async with client_of(kind=openai.AsyncOpenAI) as many:
            return await asyncio.gather(*(many.images.generate(prompt=f"one {name}, please", extra_body={"seed": number, "steps": 5})
                                          for number, name in enumerate(names)))
    rows = daemon.jobs_in_store()
    answers = asyncio.run(all_of_them())
    same([(answer.data[0].revised_prompt, answer.data[0].seed) for answer in answers], [(name, str(i)) for i, name in enumerate(names)], "answers")
    same(daemon.jobs_in_store(), rows + 16, "jobs")
    alone = client.images.generate(prompt="a bag", extra_body={"seed": 15, "steps": 5})
    same(png_of(answers[15].data[0]), png_of(alone.data[0]), "the same bytes in any company")


run(__name__)
