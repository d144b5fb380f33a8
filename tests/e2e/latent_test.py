"""A latent model through the service: a tiny DiTPipeline whose lanes denoise latents, and whose pictures an autoencoder decodes beside the ticks."""
from harness import *  # noqa: F403

DIT = os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4")
SPEC = {"class_label": 3, "seed": 21, "steps": 12, "guidance_scale": 3.0}


def daemon_of(*options):
    return Daemon(*options, model=DIT)


def alone(**spec):
    """The picture that the command line makes."""
    path = os.path.join(scratch("cli"), "x.png")
    done = subprocess.run([PROGRAM, "generate", "--model", DIT, "--class", str(spec["class_label"]), "--seed", str(spec["seed"]), "--steps", str(spec["steps"]),
                           "--guidance-scale", str(spec["guidance_scale"]), "--threads", "1", "--output", path], capture_output=True, text=True, check=False)
    same(done.returncode, 0, done.stderr)
    with open(path, "rb") as file:
        return pixels_of(file.read())


def pixels_of(picture):
    return json.loads(png_texts(picture)["denoised"])["pixels_sha256"]


@test
def the_service_and_the_command_line_make_the_same_picture():
    with daemon_of() as daemon:
        model = daemon.get("/models/tiny").json
        same((model["width"], model["height"], model["channels"], model["class_count"]), (64, 64, 3, 1000), "description")
        job = daemon.make(**SPEC)
        same(job["state"], "succeeded", f"state, {job['error']}")
        picture = daemon.image(job["id"])
        same(png_size(picture), (64, 64), "size")
        same(pixels_of(picture), alone(**SPEC), "pixels")
        answer = daemon.post(SPEC, Accept="image/png")
        check(answer.status == 200 and answer.body == picture, f"the same again, as a PNG: {answer.status}")


@test
def company_changes_no_byte():
    with daemon_of() as daemon:
        jobs = [daemon.post({**SPEC, "seed": seed, "n": 3, "steps": 5 + seed}).json["id"] for seed in range(6)]
        job_id = daemon.post(SPEC).json["id"]
        for one in jobs:
            same(daemon.wait(one)["state"], "succeeded", "state")
        daemon.wait(job_id)
        same(pixels_of(daemon.image(job_id)), alone(**SPEC), "pixels among nineteen others")


@test
def previews_are_small_looks_at_the_latents():
    with daemon_of() as daemon:
        job_id = daemon.post({**SPEC, "steps": 1000, "n": 16}).json["id"]
        seen = daemon.events(f"/jobs/{job_id}/events", until=lambda event: event["event"] == "preview")
        preview = seen[-1]["json"]
        same(png_size(base64.b64decode(preview["png"])), (8, 8), "size of a preview")
        daemon.call("DELETE", f"/jobs/{job_id}")


@test
def a_killed_worker_costs_no_byte():
    spec = {**SPEC, "steps": 1000, "n": 8}
    with daemon_of("--snapshot-every", "0.01") as daemon:
        whole = daemon.make(**spec)
        pixels = [image["pixels_sha256"] for image in whole["images"]]
        for round_number in range(3):
            job_id = daemon.post(spec).json["id"]
            eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 1500 * (round_number + 1), what="some steps")
            for pid in daemon.worker_pids():
                os.kill(pid, signal.SIGKILL)
            job = daemon.wait(job_id, 120)
            same(job["state"], "succeeded", "state")
            same([image["pixels_sha256"] for image in job["images"]], pixels, f"pictures after kill {round_number}")


@test
def pictures_of_several_models_share_a_queue():
    with daemon_of("--model", f"pixels={tiny_model()}") as daemon:
        jobs = [daemon.post({"model": name, "class_label": 1, "steps": 9, "seed": seed}).json["id"] for seed in range(4) for name in ("tiny", "pixels")]
        sizes = {daemon.wait(job)["images"][0]["width"] for job in jobs}
        same(sizes, {64, 8}, "widths")


run(__name__)
