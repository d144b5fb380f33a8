"""Mixtures, pictures, masks and variations through the daemon and the command line, with the same bytes from both."""
import re

from harness import *  # noqa: F403
from png import pixels_of, png

daemon = Daemon()


def base64_of(data):
    return base64.b64encode(data).decode()


INIT = png(8, 8, lambda x, y, c: x * 30 + y * 3 + c * 40)
MASK = png(8, 8, lambda x, y, c: 255 if x >= 4 else 0, colour=0)  # the right half is painted anew


def refused(code, field, **body):
    answer = daemon.post(body)
    same((answer.status, answer.json["code"], answer.json["field"]), (422, code, field), f"{str(body)[:200]}: {answer.json.get('detail')}")


def picture(**body):
    job = daemon.make(**{"class_label": 7, "seed": 3, "steps": 6, **body})
    same(job["state"], "succeeded", f"{str(body)[:200]}: {job['error']}")
    return daemon.image(job["id"])


def command(*arguments, model=None):
    path = os.path.join(scratch("command"), "out.png")
    answer = subprocess.run([PROGRAM, "generate", "--model", model or tiny_model(), "--class", "7", "--seed", "3", "--steps", "6", "--output", path,
                             *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    same(answer.returncode, 0, answer.stderr)
    with open(path, "rb") as stream:
        return stream.read()


def file_of(data, name):
    path = os.path.join(scratch("file"), name)
    with open(path, "wb") as stream:
        stream.write(data)
    return path


def distance(a, b):
    return sum(abs(x - y) for one, other in zip(pixels_of(a)[1], pixels_of(b)[1]) for x, y in zip(one, other))


def set_aside(other):
    return int(re.search(r"^denoised_lanes_set_aside_total (\d+)", other.get("/metrics").body.decode(), re.M)[1])


@test
def a_mixture_of_one_class_is_that_class():
    same(pixels_of(picture(class_label=None, class_mixture=[{"class_label": "Sneaker", "weight": 1}])), pixels_of(picture()), "the pixels")


@test
def a_mixture_is_neither_of_its_classes():
    halves = picture(class_label=None, class_mixture=[{"class_label": 7, "weight": 0.5}, {"class_label": 2, "weight": 0.5}])
    other = picture(class_label=None, class_mixture=[{"class_label": 7, "weight": 0.9}, {"class_label": 2, "weight": 0.1}])
    same(len({str(pixels_of(one)) for one in (halves, other, picture(), picture(class_label=2))}), 4, "different pictures")
    request = json.loads(png_texts(halves)["denoised"])["request"]
    same([(c["class_label"], c["weight"]) for c in request["class_mixture"]], [(7, 0.5), (2, 0.5)], "the recipe")
    check(png_texts(halves)["parameters"].startswith("Sneaker:0.5, Pullover:0.5\n"), png_texts(halves)["parameters"])


@test
def a_variation_goes_from_seed_to_seed():
    one, other = picture(seed=3), picture(seed=4)
    same(pixels_of(picture(seed=3, variation_seed=4, variation_strength=0)), pixels_of(one), "strength 0")
    same(pixels_of(picture(seed=3, variation_seed=4, variation_strength=1)), pixels_of(other), "strength 1")
    near = picture(seed=3, variation_seed="4", variation_strength=0.05)
    check(0 < distance(near, one) < distance(near, other), (distance(near, one), distance(near, other)))


@test
def strength_says_how_far_a_picture_is_left():
    data = base64_of(INIT)
    made = [picture(init_image=data, strength=strength) for strength in (0, 0.34, 1)]
    same(pixels_of(made[0]), pixels_of(INIT), "strength 0 is the picture itself")
    check(0 < distance(made[1], INIT) < distance(made[2], INIT), [distance(one, INIT) for one in made])


@test
def a_mask_keeps_what_is_black():
    for extra in ({}, {"strength": 0.5}, {"resample": 3, "sampler": "ddim"}, {"sampler": "euler_ancestral"}):
        made = picture(init_image=base64_of(INIT), mask_image=base64_of(MASK), **extra)
        kept, new = pixels_of(INIT)[1], pixels_of(made)[1]
        same([row[:12] for row in new], [row[:12] for row in kept], f"the kept half with {extra}")
        check([row[12:] for row in new] != [row[12:] for row in kept], "nothing was painted")


@test
def samplers_that_invert_take_a_picture():
    rows = [row["name"] for row in daemon.get("/samplers").json["samplers"] if row["needs_init_image"]]
    check(rows, "none")
    for name in rows:
        refused("invalid-field", "/sampler", sampler=name, class_label=7)
        picture(sampler=name, init_image=base64_of(INIT), guidance_scale=1)
        refused("unsupported-option", "/strength", sampler=name, init_image=base64_of(INIT), strength=0.5)


@test
def command_and_service_make_the_same_bytes():
    init, mask = file_of(INIT, "init.png"), file_of(MASK, "mask.png")
    cases = [
        (dict(class_label=None, class_mixture=[{"class_label": 7, "weight": 0.5}, {"class_label": 2, "weight": 0.5}]), None),
        (dict(negative_class=5, guidance_scale=3), ("--negative-class", 5, "--guidance-scale", 3)),
        (dict(variation_seed=9, variation_strength=0.3), ("--variation-seed", 9, "--variation-strength", 0.3)),
        (dict(init_image=base64_of(INIT), strength=0.5), ("--init-image", init, "--strength", 0.5)),
        (dict(init_image=base64_of(INIT), mask_image=base64_of(MASK), resample=2, sampler="ddim"),
         ("--init-image", init, "--mask-image", mask, "--resample", 2, "--sampler", "ddim")),
        (dict(sampler="ddim", clip_sample=False, eta=0.5), ("--sampler", "ddim", "--clip-sample", "false", "--eta", 0.5)),
        (dict(sampler="euler", sigma_schedule="karras"), ("--sampler", "euler", "--sigma-schedule=karras")),
        (dict(guidance_method="apg", apg_eta=0.5), ("--guidance-method", "apg", "--apg-eta", 0.5)),
    ]
    folder = os.path.join(scratch("named"), "tiny")  # the recipe names the model by its folder
    os.symlink(tiny_model(), folder)
    for body, arguments in cases:
        if arguments is None:
            path = os.path.join(scratch("command"), "out.png")
            subprocess.run([PROGRAM, "generate", "--model", folder, "--mixture", "Sneaker:0.5,2:0.5", "--seed", "3", "--steps", "6", "--output", path],
                           check=True, capture_output=True, timeout=PATIENCE)
            with open(path, "rb") as stream:
                ours = stream.read()
        else:
            ours = command(*arguments, model=folder)
        same(picture(**body) == ours, True, f"{sorted(body)}: the files are equal")


@test
def a_recipe_names_its_pictures_by_hash():
    import hashlib
    request = json.loads(png_texts(picture(init_image=base64_of(INIT), mask_image=base64_of(MASK)))["denoised"])["request"]
    same(request["init_image"], {"sha256": hashlib.sha256(INIT).hexdigest(), "bytes": len(INIT)}, "init_image")
    same(request["mask_image"], {"sha256": hashlib.sha256(MASK).hexdigest(), "bytes": len(MASK)}, "mask_image")


@test
def pictures_that_cannot_be_are_refused():
    small, alpha = (png(side, side, lambda x, y, c: 0, colour) for side, colour in ((4, 2), (8, 6)))
    for data in ("", "x", "!!!!", "/etc/passwd", "http://127.0.0.1/x.png", "data:image/png;base64," + base64_of(INIT), base64_of(b"GIF89a" * 20),
                 base64_of(INIT)[:-1], base64_of(INIT[:20]), base64_of(small), base64_of(alpha), 7, None, [base64_of(INIT)]):
        refused("invalid-field", "/init_image", init_image=data)
        refused("invalid-field", "/mask_image", init_image=base64_of(INIT), mask_image=data)
    refused("invalid-field", "/mask_image", mask_image=base64_of(MASK))
    refused("invalid-field", "/strength", strength=0.5)
    refused("invalid-field", "/resample", init_image=base64_of(INIT), resample=2)
    refused("unsupported-option", "/resample", init_image=base64_of(INIT), mask_image=base64_of(MASK), resample=2, sampler="dpmpp_2m")
    refused("invalid-field", "/variation_seed", variation_seed=1)
    refused("invalid-field", "/variation_strength", variation_strength=0.5)
    refused("invalid-field", "/class_mixture/1", class_mixture=[{"class_label": 1, "weight": 1}, {"class_label": 1, "weight": 1}])


@test
def a_picture_that_was_set_aside_goes_on_with_the_same_bytes():
    painted = {"class_label": 7, "steps": 1000, "n": 2, "guidance_scale": 2, "seed": 3, "sampler": "ddim", "init_image": base64_of(INIT)}
    with Daemon("--rows-max", "4") as other:
        for extra in ({"strength": 0.9}, {"strength": 0.9, "mask_image": base64_of(MASK), "resample": 2}, {"mask_image": base64_of(MASK)}):
            alone = other.make(**painted, **extra)
            same(alone["state"], "succeeded", f"{alone['error']}")
            for attempt in range(20):  # it may have ended before the urgent one came
                job_id = other.post({**painted, **extra, "priority": -2}).json["id"]
                eventually(lambda: other.get(f"/jobs/{job_id}").json["progress"]["done"] > 0, what="a first step")
                before = set_aside(other)
                same(other.make(steps=3, n=2, guidance_scale=2, priority=2)["state"], "succeeded", "the urgent job")
                job = other.wait(job_id)
                same(job["state"], "succeeded", f"{job['error']}")
                same([image["sha256"] for image in job["images"]], [image["sha256"] for image in alone["images"]], "files")
                if set_aside(other) > before:
                    break
            else:
                raise AssertionError("nobody made way")


@test
def a_deadline_counts_the_steps_that_are_made():
    small = png(32, 32, lambda x, y, c: 8 * x, colour=0)
    with Daemon("--model", f"slow={os.path.join(ROOT, 'models/fashion-mnist')}") as other:
        same(other.make(model="slow", class_label=1, steps=20)["state"], "succeeded", "loads")
        spec = {"model": "slow", "class_label": 1, "steps": 1000, "n": 64, "init_image": base64_of(small), "deadline_ms": int(40000 * SLOW)}
        job = other.make(strength=0.001, **spec)
        same(job["state"], "succeeded", f"one of a thousand steps: {job['error']}")
        same(other.make(strength=1, **spec)["error"]["code"], "deadline", "all of them")


@test
def a_body_with_a_picture_may_be_larger_than_others():
    room = 2 << 20
    body = json.dumps({"class_label": 7, "steps": 2, "init_image": base64_of(INIT)})
    answer = daemon.post(body + " " * (room - len(body)))
    same(answer.status, 202, f"2 MiB: {answer.body[:200]}")
    same(daemon.wait(answer.json["id"])["state"], "succeeded", "its job")
    answer = daemon.post('{"class_label": 7}' + " " * (64 << 10))
    same((answer.status, answer.json["code"]), (413, "too-large"), "64 KiB and more without a picture")


@test
def a_picture_whose_data_is_broken_fails_its_job_by_name():
    at = INIT.index(b"IDAT") + 8
    broken = INIT[:at] + bytes([INIT[at] ^ 0xFF]) + INIT[at + 1:]
    job = daemon.make(class_label=7, init_image=base64_of(broken), steps=2)
    same((job["state"], job["error"] and job["error"]["code"]), ("failed", "bad-input-image"), str(job["error"]))


run(__name__)
