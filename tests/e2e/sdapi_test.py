"""AUTOMATIC1111's API: calls are jobs like others, refusals have webui's shapes, progress and interrupt know one client's calls from another's."""
import re

from harness import *  # noqa: F403
from keys import add_key, basic
from png import png

TXT, IMG, TASK = "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/internal/progress"
SLOW_STEPS = {"DENOISED_FAULT": "step_k:1:slow200"}  # with the program FAULTS: a thousand steps take longer than any test
LISTS = ["script-info", "sd-vae", "upscalers", "latent-upscale-modes", "prompt-styles", "loras", "hypernetworks", "face-restorers", "realesrgan-models", "extensions"]

daemon = Daemon()
MODEL = daemon.get("/models/tiny").json
TITLE = f"tiny [{MODEL['weights_sha256'][:10]}]"


def text(data):
    return base64.b64encode(data).decode()


PICTURE = text(png(8, 8, lambda x, y, c: 30 * x + 5 * y + c))
MASK = text(png(8, 8, lambda x, y, c: 255 if x > 3 else 0, colour=0))


def made(path=TXT, to=None, headers=None, **body):
    """A call that succeeds: the answer with its info read."""
    answer = (to or daemon).post({"prompt": "a bag", "steps": 2, "cfg_scale": 2, **body}, path, **(headers or {}))
    same(answer.status, 200, f"status of {sorted(body)}: {answer.body[:300]}")
    answer.info = json.loads(answer.json["info"])
    return answer


def job_of(answer, of=None, **headers):
    check(re.fullmatch(r"/jobs/[a-z2-7]{26}", answer.headers["location"].removeprefix(os.environ.get("DENOISED_BASE_PATH", ""))), "Location")
    same(answer.info["job_id"], answer.headers["location"].rsplit("/", 1)[1], "job_id")
    return (of or daemon).get(f"/jobs/{answer.info['job_id']}", **headers).json


def refused(body, loc, kind="value_error", path=TXT, says=""):
    answer = daemon.post(body, path)
    same(answer.status, 422, f"status of {str(body)[:80]}: {answer.body[:300]}")
    same(list(answer.json), ["detail"], "members")
    same([sorted(one) for one in answer.json["detail"]], [["loc", "msg", "type"]], "the detail's members")
    detail = answer.json["detail"][0]
    same((detail["loc"], detail["type"], answer.headers["content-type"]), (["body", *loc], kind, "application/json"), f"{str(body)[:80]}: {detail['msg']}")
    check(says in detail["msg"], f"{says!r} in {detail['msg']!r}")
    check("x-request-id" in answer.headers, "X-Request-Id")


def plain(answer, status, error):
    same(answer.status, status, f"status: {answer.body[:300]}")
    same((list(answer.json), answer.json["error"], answer.json["body"]), (["error", "detail", "body", "errors"], error, ""), "the refusal")
    check(answer.json["detail"] and answer.json["detail"] == answer.json["errors"], "what it says")


# ---- Calls


@test
def a_call_is_a_job_and_its_pictures_are_the_jobs():
    answer = made(prompt="a photo of a sneaker, please", seed=42, sampler_name="DPM++ 2M", batch_size=2, n_iter=2, steps=3)
    job = job_of(answer)
    same([text(daemon.image(job["id"], i)) for i in range(4)], answer.json["images"], "pictures")
    shown = {k: job["request"][k] for k in ("model", "class_name", "guidance_scale", "steps", "sampler", "seed", "n")}
    same(shown, {"model": "tiny", "class_name": "Sneaker", "guidance_scale": 2.0, "steps": 3, "sampler": "dpmpp_2m", "seed": "42", "n": 4}, "the request")
    native = daemon.make(class_label="Sneaker", guidance_scale=2, steps=3, sampler="dpmpp_2m", seed=42, n=4)
    same([text(daemon.image(native["id"], i)) for i in range(4)], answer.json["images"], "the same job, posted natively")
    same(png_size(base64.b64decode(answer.json["images"][0])), (8, 8), "size")


@test
def info_is_what_webui_says():
    answer = made(prompt="dress", negative_prompt="Coat", seed=2 ** 53 + 1, n_iter=2, sampler_name="Euler a", scheduler="Karras", steps=3)
    info = answer.info
    same({k: info[k] for k in ("prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed_strength", "width", "height")},
         {"prompt": "dress", "all_prompts": ["dress"] * 2, "negative_prompt": "Coat", "all_negative_prompts": ["Coat"] * 2, "seed": 2 ** 53 + 1,
          "all_seeds": [2 ** 53 + 1, 2 ** 53 + 2], "subseed_strength": 0, "width": 8, "height": 8}, "info")
    same({k: info[k] for k in ("sampler_name", "cfg_scale", "steps", "batch_size", "sd_model_name", "sd_model_hash", "index_of_first_image", "styles", "interrupted")},
         {"sampler_name": "Euler a", "cfg_scale": 2.0, "steps": 3, "batch_size": 1, "sd_model_name": "tiny", "sd_model_hash": MODEL["weights_sha256"][:10],
          "index_of_first_image": 0, "styles": [], "interrupted": False}, "info")
    same(info["infotexts"], [png_texts(base64.b64decode(image))["parameters"] for image in answer.json["images"]], "infotexts are the pictures'")
    check(all("Schedule type: Karras" in one and "Negative prompt: Coat" in one for one in info["infotexts"]), info["infotexts"])
    created = re.sub("[^0-9]", "", job_of(answer)["created_at"])[:14]
    same(info["job_timestamp"], created, "job_timestamp")


@test
def parameters_are_the_request_with_webuis_defaults():
    sent = {"prompt": "bag", "steps": 2, "cfg_scale": 1.5, "seed": 18446744073709551615, "override_settings": {"CLIP_stop_at_last_layers": 2}, "hr_upscaler": "Latent"}
    parameters = daemon.post(sent, TXT).json["parameters"]
    same({k: parameters[k] for k in sent}, sent, "what was sent")
    same({k: parameters[k] for k in ("negative_prompt", "subseed", "batch_size", "n_iter", "width", "height", "sampler_name", "sampler_index", "enable_hr", "send_images", "script_args")},
         {"negative_prompt": "", "subseed": -1, "batch_size": 1, "n_iter": 1, "width": 8, "height": 8, "sampler_name": None, "sampler_index": "Euler", "enable_hr": False,
          "send_images": True, "script_args": []}, "what was not")
    check("init_images" not in parameters, "a field of img2img")
    there = made(IMG, init_images=[PICTURE], mask=MASK).json["parameters"]
    same((there["init_images"], there["mask"], there["denoising_strength"]), (None, None, 0.75), "pictures are not sent back")
    there = made(IMG, init_images=[PICTURE], mask=MASK, include_init_images=True).json["parameters"]
    same((there["init_images"], there["mask"]), ([PICTURE], MASK), "unless asked for")


@test
def what_is_left_out_is_webuis_default():
    request = job_of(made(steps=None, cfg_scale=None))["request"]
    same((request["steps"], request["guidance_scale"], request["sampler"], request["n"]), (50, 7.0, "euler", 1), "defaults")
    seeds = {made(seed=seed).info["seed"] for seed in (-1, None, -1)}
    check(len(seeds) == 3 and max(seeds) < 2 ** 32, f"drawn seeds {seeds}")
    blank = made(prompt=" ", cfg_scale=7)
    same((job_of(blank)["request"]["class_label"], job_of(blank)["request"]["guidance_scale"]), (None, 1.0), "without a prompt nothing guides")
    same(made(send_images=False).json["images"], [], "send_images false")


@test
def subseeds_eta_and_churn_reach_the_sampler():
    request = job_of(made(subseed=7, subseed_strength=0.25, sampler_name="Euler", s_churn=2, s_tmin=0.1, s_noise=1.01))["request"]
    same({k: request[k] for k in ("variation_seed", "variation_strength", "s_churn", "s_tmin", "s_noise")},
         {"variation_seed": "7", "variation_strength": 0.25, "s_churn": 2, "s_tmin": 0.1, "s_noise": 1.01}, "options")
    same(job_of(made(sampler_name="DDIM", eta=0.5))["request"]["eta"], 0.5, "eta")
    drawn = made(subseed_strength=0.5, sampler_name="DDIM", eta=1.0, s_churn=0, s_tmax=0, s_tmin=0, s_noise=1)
    same((drawn.info["all_subseeds"], drawn.info["subseed_strength"]), ([drawn.info["subseed"]], 0.5), "a drawn subseed")
    check("eta" not in job_of(made(sampler_name="DPM++ 2M", eta=1.0, subseed=7))["request"], "eta where it means nothing")


@test
def every_sampler_and_scheduler_that_is_listed_can_be_asked_for():
    listed = daemon.get("/sdapi/v1/samplers").json
    names = {one["name"]: one for one in listed}
    check({"Euler a", "Euler", "Heun", "LMS", "DPM2", "DPM2 a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DDIM", "PLMS", "UniPC", "LCM"} <= set(names), sorted(names))
    titles = {row["name"]: row["title"] for row in daemon.get("/samplers").json["samplers"]}
    for one in listed:
        native = one["aliases"][0]
        check(native in titles and one["options"] == {}, one)
        for name in {one["name"], one["name"].upper(), titles[native], *one["aliases"]}:
            same(job_of(made(sampler_name=name, steps=4))["request"]["sampler"], native, name)
    options = {"automatic": {}, "uniform": {"timestep_spacing": "linspace"}, "karras": {"sigma_schedule": "karras"}, "exponential": {"sigma_schedule": "exponential"},
               "sgm_uniform": {"timestep_spacing": "trailing"}, "beta": {"sigma_schedule": "beta"}, "lu": {"sigma_schedule": "lu"}}
    schedulers = daemon.get("/sdapi/v1/schedulers").json
    same([one["name"] for one in schedulers], list(options), "schedulers")
    for one in schedulers:
        same(sorted(one), ["aliases", "default_rho", "label", "name", "need_inner_model"], "a scheduler")
        for body in ({"scheduler": one["label"]}, {"scheduler": one["name"]}, {"sampler_name": f"DPM++ 2M {one['label']}"}):
            request = job_of(made(**{"sampler_name": "DPM++ 2M", **body}))["request"]
            same({k: request[k] for k in ("timestep_spacing", "sigma_schedule") if k in request}, options[one["name"]], f"{body}")


@test
def a_picture_is_made_from_a_picture():
    mine = made(IMG, init_images=["data:image/png;base64," + PICTURE], denoising_strength=0.5, seed=3, steps=4, sampler_name="DDIM")
    native = daemon.make(class_label="Bag", guidance_scale=2, steps=4, sampler="ddim", seed=3, init_image=PICTURE, strength=0.5)
    same(mine.json["images"], [text(daemon.image(native["id"]))], "the same as the native job")
    same(mine.info["denoising_strength"], 0.5, "info")
    masked = made(IMG, init_images=[PICTURE], mask=MASK, mask_blur=4, inpainting_fill=1, inpaint_full_res=True, seed=3, steps=4, sampler_name="DDIM")
    native = daemon.make(class_label="Bag", guidance_scale=2, steps=4, sampler="ddim", seed=3, init_image=PICTURE, mask_image=MASK, strength=0.75)
    same(masked.json["images"], [text(daemon.image(native["id"]))], "inpainting")


@test
def a_call_may_be_repeated():
    body = {"prompt": "coat", "steps": 2}
    first, again = (daemon.post(body, TXT, Idempotency_Key="one") for _ in range(2))
    same(("idempotency-replayed" in first.headers, again.headers.get("idempotency-replayed")), (False, "true"), "Idempotency-Replayed")
    same(first.json["images"], again.json["images"], "pictures")
    same(first.headers["location"], again.headers["location"], "the job")
    plain(daemon.post({**body, "steps": 3}, TXT, Idempotency_Key="one"), 422, "idempotency-mismatch")


# ---- Refusals


@test
def a_body_that_says_what_cannot_be_is_refused_at_its_field():
    rows = [
        ({"steps": 0}, ["steps"], "value_error", "1 to 1000"), ({"steps": 1001}, ["steps"], "value_error", ""),
        ({"steps": 2.5}, ["steps"], "type_error.integer", ""), ({"steps": "20"}, ["steps"], "type_error.integer", ""),
        ({"cfg_scale": "7"}, ["cfg_scale"], "type_error.float", ""), ({"cfg_scale": 101}, ["cfg_scale"], "value_error", "cfg_scale must be"),
        ({"prompt": 7}, ["prompt"], "type_error.str", ""), ({"prompt": "7"}, ["prompt"], "value_error", "prompt names no class"),
        ({"prompt": "trainer"}, ["prompt"], "value_error", "class:9"), ({"negative_prompt": "ugly"}, ["negative_prompt"], "value_error", "negative_prompt names no class"),
        ({"negative_prompt": "Bag", "cfg_scale": 1}, ["negative_prompt"], "value_error", "cfg_scale"),
        ({"prompt": "", "negative_prompt": "Bag"}, ["negative_prompt"], "value_error", "must be empty"),
        ({"width": 512}, ["width"], "value_error", "must be 8: the pictures of tiny are 8x8"), ({"height": 9}, ["height"], "value_error", "must be 8"),
        ({"batch_size": 65}, ["batch_size"], "value_error", "1 to 64"), ({"n_iter": 0}, ["n_iter"], "value_error", ""),
        ({"batch_size": 13, "n_iter": 5}, ["batch_size"], "value_error", "64 at most"), ({"seed": -2}, ["seed"], "value_error", "-1"),
        ({"seed": 2 ** 64}, ["seed"], "value_error", ""), ({"subseed": -2, "subseed_strength": 0.5}, ["subseed"], "value_error", ""),
        ({"subseed_strength": 1.5}, ["subseed_strength"], "value_error", "subseed_strength must be"),
        ({"sampler_name": "DPM++ 2S a"}, ["sampler_name"], "value_error", "GET /sdapi/v1/samplers"), ({"sampler_index": "x"}, ["sampler_name"], "value_error", ""),
        ({"scheduler": "align_your_steps"}, ["scheduler"], "value_error", "GET /sdapi/v1/schedulers"),
        ({"sampler_name": "DDIM", "scheduler": "karras"}, ["scheduler"], "value_error", "scheduler"),
        ({"sampler_name": "Euler", "scheduler": "lu"}, ["scheduler"], "value_error", "scheduler must be automatic, karras, exponential or beta"),
        ({"sampler_name": "DPM++ 2M", "eta": 0.5}, ["eta"], "value_error", "no use"), ({"sampler_name": "DDIM", "s_churn": 3}, ["s_churn"], "value_error", "s_churn"),
        ({"enable_hr": True}, ["enable_hr"], "value_error", "does not do it"), ({"restore_faces": True}, ["restore_faces"], "value_error", ""),
        ({"tiling": 1}, ["tiling"], "value_error", ""), ({"tiling": "no"}, ["tiling"], "value_error.strictbool", ""),
        ({"styles": ["x"]}, ["styles"], "value_error", ""), ({"styles": "x"}, ["styles"], "type_error.list", ""), ({"script_name": "x"}, ["script_name"], "value_error", ""),
        ({"alwayson_scripts": {"x": {}}}, ["alwayson_scripts"], "value_error", ""), ({"infotext": "x"}, ["infotext"], "value_error", ""),
        ({"seed_resize_from_w": 8}, ["seed_resize_from_w"], "value_error", ""), ({"refiner_checkpoint": "x"}, ["refiner_checkpoint"], "value_error", ""),
        ({"s_min_uncond": 0.1}, ["s_min_uncond"], "value_error", ""), ({"override_settings": []}, ["override_settings"], "type_error.dict", ""),
        ({"override_settings": {"sd_model_checkpoint": "none such"}}, ["override_settings", "sd_model_checkpoint"], "value_error", "GET /sdapi/v1/sd-models"),
        ({"override_settings": {"sd_model_checkpoint": 1}}, ["override_settings", "sd_model_checkpoint"], "type_error.str", ""),
        ({"override_settings": {"sd_vae": "x.pt"}}, ["override_settings", "sd_vae"], "value_error", ""),
        ({"override_settings": {"no_such": 1}}, ["override_settings", "no_such"], "value_error", "is not an option"),
        ({"force_task_id": "a\nb"}, ["force_task_id"], "value_error", ""), ({"force_task_id": "x" * 128}, ["force_task_id"], "value_error", "127"),
        ({"init_images": [PICTURE]}, ["init_images"], "value_error", "img2img"), ({"mask": MASK}, ["mask"], "value_error", "img2img"),
        ({"no_such_field": 1}, ["no_such_field"], "value_error.extra", ""), ({"no such": 1}, [], "value_error.extra", ""),
    ]
    before = daemon.jobs_in_store()
    for body, loc, kind, says in rows:
        refused({"prompt": "bag", "steps": 2, **body}, loc, kind, TXT, says)
    refused([], [], "type_error.dict")
    refused("{\"prompt\": ", [11], "value_error.jsondecode")
    refused("", [0], "value_error.jsondecode")
    same(daemon.jobs_in_store(), before, "jobs")


@test
def pictures_that_do_not_fit_are_refused_at_theirs():
    small, clear = text(png(4, 4, lambda x, y, c: 1)), text(png(8, 8, lambda x, y, c: 1, colour=6))
    rows = [
        ({}, ["init_images"], "one picture"), ({"init_images": []}, ["init_images"], "one picture"), ({"init_images": [PICTURE] * 2}, ["init_images"], "one picture"),
        ({"init_images": [1]}, ["init_images"], "one picture"), ({"init_images": ["x"]}, ["init_images", 0], "init_images must be a PNG in base64"),
        ({"init_images": [small]}, ["init_images", 0], "8 pixels wide"), ({"init_images": [clear]}, ["init_images", 0], "without transparency"),
        ({"init_images": [PICTURE], "mask": small}, ["mask"], "mask must be 8 pixels"), ({"init_images": [PICTURE], "mask": MASK, "mask_blur": 2}, ["mask_blur"], "0"),
        ({"init_images": [PICTURE], "mask": MASK, "mask_blur_x": 1}, ["mask_blur_x"], "0"), ({"init_images": [PICTURE], "mask": MASK, "inpainting_fill": 2}, ["inpainting_fill"], "0 or 1"),
        ({"init_images": [PICTURE], "mask": MASK, "inpainting_mask_invert": 1}, ["inpainting_mask_invert"], "inverted"),
        ({"init_images": [PICTURE], "resize_mode": 3}, ["resize_mode"], ""), ({"init_images": [PICTURE], "initial_noise_multiplier": 0.9}, ["initial_noise_multiplier"], ""),
        ({"init_images": [PICTURE], "latent_mask": MASK}, ["latent_mask"], ""), ({"init_images": [PICTURE], "denoising_strength": 1.5}, ["denoising_strength"], "denoising_strength must be"),
        ({"init_images": [PICTURE], "sampler_name": "rk45"}, ["init_images", 0], "no place"),
    ]
    for body, loc, says in rows:
        refused({"prompt": "bag", "steps": 2, **body}, loc, "value_error", IMG, says)


@test
def other_refusals_have_webuis_shapes_too():
    for path in ("/sdapi/v1/nothing", "/internal/nothing", "/sdapi/v1/extra-single-image"):
        answer = daemon.get(path)
        same((answer.status, answer.json), (404, {"detail": "Not Found"}), path)
    answer = daemon.get(TXT)
    same((answer.status, answer.json, answer.headers["allow"]), (405, {"detail": "Method Not Allowed"}, "POST"), "GET txt2img")
    same(daemon.call("DELETE", "/sdapi/v1/options").headers["allow"], "GET, HEAD, POST", "Allow")
    plain(daemon.post("{}", TXT, Content_Type="text/plain"), 415, "unsupported-media-type")
    plain(daemon.post("{}", TXT, Content_Encoding="gzip"), 415, "unsupported-media-type")
    for path, size in ((TXT, 65537), (IMG, 2097153), (TASK, 65537), ("/sdapi/v1/png-info", 2097153), ("/sdapi/v1/interrupt", 65537)):
        heads = f"POST {os.environ.get('DENOISED_BASE_PATH', '')}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        out, _ = daemon.raw(heads.encode(), 60)  # answered before any of it is sent, and closed
        head, _, body = out.partition(b"\r\n\r\n")
        same((head.split()[1], json.loads(body)["error"]), (b"413", "too-large"), path)
    plain(daemon.get("/sdapi/v1/options", Host="evil.example"), 421, "wrong-host")
    same(daemon.get("/nothing").json["code"], "not-found", "the native shape elsewhere")


# ---- What a client asks for when it starts


@test
def lists_and_options_are_true():
    same(daemon.get("/sdapi/v1/sd-models").json, [{"title": TITLE, "model_name": "tiny", "hash": MODEL["weights_sha256"][:10], "sha256": MODEL["weights_sha256"],
                                                   "filename": "tiny", "config": None}], "models")
    for name in LISTS:
        answer = daemon.get(f"/sdapi/v1/{name}")
        same((answer.status, answer.json, answer.headers["content-type"]), (200, [], "application/json"), name)
        head = daemon.call("HEAD", f"/sdapi/v1/{name}")
        same((head.status, head.body, head.headers["content-length"]), (200, b"", "2"), f"HEAD {name}")
    same(daemon.get("/sdapi/v1/scripts").json, {"txt2img": [], "img2img": []}, "scripts")
    same(daemon.get("/sdapi/v1/embeddings").json, {"loaded": {}, "skipped": {}}, "embeddings")
    ram = daemon.get("/sdapi/v1/memory").json["ram"]
    check(ram["total"] == ram["free"] + ram["used"] and ram["total"] > 0, ram)
    same((daemon.get("/sdapi/v1/cmd-flags").json["api"], daemon.get("/sdapi/v1/cmd-flags").json["ckpt"]), (True, "tiny"), "flags")
    for name in ("refresh-checkpoints", "refresh-vae", "refresh-loras"):
        same((daemon.post("", f"/sdapi/v1/{name}").status, daemon.post("", f"/sdapi/v1/{name}").json), (200, None), name)
    options = daemon.get("/sdapi/v1/options").json
    same((options["sd_model_checkpoint"], options["sd_checkpoint_hash"], options["samples_format"]), (TITLE, MODEL["weights_sha256"], "png"), "options")
    answer = daemon.post(options, "/sdapi/v1/options")
    same((answer.status, answer.json), (200, None), "options may be sent back whole")
    for body, loc in (({"samples_format": "jpg"}, ["samples_format"]), ({"no_such": 1}, ["no_such"]), ({"sd_model_checkpoint": "x"}, ["sd_model_checkpoint"]),
                      ({"eta_ddim": 0.5}, ["eta_ddim"]), ({"return_grid": True}, ["return_grid"])):
        refused(body, loc, "value_error", "/sdapi/v1/options")
    refused({"sd_model_checkpoint": 1}, ["sd_model_checkpoint"], "type_error.str", "/sdapi/v1/options")
    refused([], [], "value_error", "/sdapi/v1/options")
    plain(daemon.post("{}", "/sdapi/v1/options", Content_Type="text/plain"), 415, "unsupported-media-type")


@test
def each_client_chooses_its_model():
    keys = os.path.join(scratch("keys"), "keys")
    alice, bob = (add_key(keys, name) for name in ("alice", "bob"))
    with Daemon("--api-key-file", keys, "--model", f"other={tiny_model()}") as two:
        def model(headers, **body):
            return job_of(made(to=two, headers=headers, **body), two, **headers)["request"]["model"]

        def title(headers):
            return two.get("/sdapi/v1/options", **headers).json["sd_model_checkpoint"]
        same((title(alice), title(bob)), (TITLE, TITLE), "the default")
        made(to=two, headers=bob, override_settings={"sd_model_checkpoint": "other"})  # its weights' hash is known once it has been loaded
        for named in ("other", TITLE.replace("tiny", "other"), MODEL["weights_sha256"], MODEL["weights_sha256"][:10]):
            same(two.post({"sd_model_checkpoint": "tiny"}, "/sdapi/v1/options", **alice).status, 200, "back")
            same(two.post({"sd_model_checkpoint": named}, "/sdapi/v1/options", **alice).status, 200, named)
            known = named[:5] == "other"  # both have the same weights: of a hash, the first
            same((title(alice), title(bob)), (TITLE.replace("tiny", "other") if known else TITLE, TITLE), "alice's alone")
        same(two.post({"sd_model_checkpoint": "other"}, "/sdapi/v1/options", **alice).json, None, "other")
        same((model(alice), model(bob)), ("other", "tiny"), "their pictures")
        same(model(bob, override_settings={"sd_model_checkpoint": "other"}), "other", "for one call")
        same(model(bob), "tiny", "and no longer")
        same(model(bob, override_settings={"sd_model_checkpoint": "other"}, override_settings_restore_afterwards=False), "other", "for good")
        same((model(bob), title(bob)), ("other", TITLE.replace("tiny", "other")), "it stays")


@test
def png_info_reads_what_pictures_say():
    answer = made(prompt="ankle boot", seed=5)
    picture = base64.b64decode(answer.json["images"][0])
    info = daemon.post({"image": "data:image/png;base64," + text(picture)}, "/sdapi/v1/png-info").json
    texts = png_texts(picture)
    same((info["info"], info["items"]), (texts["parameters"], {"denoised": texts["denoised"]}), "texts")
    same({k: info["parameters"][k] for k in ("Prompt", "Steps", "Seed", "Size-1", "Size-2", "Model")},
         {"Prompt": "Ankle boot", "Steps": "2", "Seed": "5", "Size-1": "8", "Size-2": "8", "Model": "tiny"}, "fields")
    sampler = info["parameters"]["Sampler"]
    again = made(prompt=info["parameters"]["Prompt"], seed=int(info["parameters"]["Seed"]), steps=int(info["parameters"]["Steps"]), sampler_name=sampler)
    same(again.json["images"], answer.json["images"], "the recipe makes it again")
    at = picture.index(b"tEXtparameters") - 4
    bare = picture[:at] + picture[at + 12 + int.from_bytes(picture[at:at + 4], "big"):]
    derived = daemon.post({"image": text(bare)}, "/sdapi/v1/png-info").json
    same((derived["info"], derived["parameters"]), (info["info"], info["parameters"]), "without its infotext, from the recipe")
    same(daemon.post({"image": "\n" + PICTURE + "\n"}, "/sdapi/v1/png-info").json, {"info": "", "items": {}, "parameters": {}}, "a picture that says nothing")
    refused({}, ["image"], "value_error.missing", "/sdapi/v1/png-info")
    for wrong in ("", "x", text(b"no picture"), 7):
        refused({"image": wrong}, ["image"], "value_error", "/sdapi/v1/png-info")


# ---- Progress and interrupt


class Call(threading.Thread):
    """A call that takes long; `answer` when it is over."""

    def __init__(self, to, path=TXT, headers=None, **body):
        super().__init__(daemon=True)
        self.to, self.path, self.headers, self.body, self.answer = to, path, headers or {}, {"prompt": "bag", "steps": 1000, "cfg_scale": 1, **body}, None
        self.start()

    def run(self):
        self.answer = self.to.post(self.body, self.path, **self.headers)

    def over(self):
        self.join(PATIENCE)
        check(not self.is_alive(), "the call is not over")
        return self.answer


def task(to, name, **headers):
    return to.post({"id_task": name}, TASK, **headers).json


@test
def a_call_can_be_followed_and_interrupted():
    idle = daemon.get("/sdapi/v1/progress").json
    same((idle["progress"], idle["state"]["job_count"], idle["current_image"]), (0.0, 0, None), "nothing runs")
    same(task(daemon, "no such"), {"active": False, "queued": False, "paused": False, "completed": False, "progress": None, "eta": None, "live_preview": None,
                                   "id_live_preview": -1, "textinfo": "Waiting..."}, "a task that is not known")
    with Daemon(program=FAULTS, environment=SLOW_STEPS) as slow:
        call = Call(slow, force_task_id="task(mine)", n_iter=2)
        seen = eventually(lambda: (lambda a: a if a["live_preview"] else None)(task(slow, "task(mine)")), what="a preview")
        same((seen["active"], seen["queued"], seen["completed"]), (True, False, False), "states")
        check(0 <= seen["progress"] < 1 and png_size(base64.b64decode(seen["live_preview"].removeprefix("data:image/png;base64,"))) == (8, 8), "the preview")
        again = slow.post({"id_task": "task(mine)", "id_live_preview": seen["id_live_preview"], "live_preview": False}, TASK).json
        same((again["live_preview"], again["id_live_preview"]), (None, -1), "without a preview")
        now = eventually(lambda: (lambda a: a if a["state"]["sampling_step"] > 0 else None)(slow.get("/sdapi/v1/progress").json), what="steps")
        same((now["state"]["job_count"], now["state"]["sampling_steps"], now["state"]["job"]), (2, 1000, "scripts_txt2img"), "state")
        check(0 < now["progress"] < 1 and now["current_image"] is not None, "the current picture")
        same(slow.get("/sdapi/v1/progress?skip_current_image=true").json["current_image"], None, "skip_current_image")
        named = slow.get("/sdapi/v1/progress?id_task=task(mine)").json
        check(named["progress"] >= now["progress"] and named["state"]["job_count"] == 2, "by its task")
        same(slow.get("/sdapi/v1/progress?id_task=other").json["state"]["job_count"], 0, "another task")
        job = slow.get("/jobs").json["jobs"][0]["id"]
        same(task(slow, job)["active"], True, "by its job's id")
        same((slow.post("", "/sdapi/v1/interrupt").json, call.over().status), ({}, 200), "interrupt")
        same((call.answer.json["images"], json.loads(call.answer.json["info"])["interrupted"]), ([], True), "nothing was finished")
        same(slow.get(f"/jobs/{job}").json["state"], "canceled", "the job")
        done = task(slow, "task(mine)")
        same((done["active"], done["queued"], done["completed"]), (False, False, True), "the task is over")
        same(slow.get("/sdapi/v1/progress").json["state"]["job_count"], 0, "nothing runs")
        same((slow.post("", "/sdapi/v1/interrupt").json, slow.post("", "/sdapi/v1/skip").json), ({}, None), "nothing to interrupt")
        refused_flag = slow.get("/sdapi/v1/progress?skip_current_image=maybe")
        same((refused_flag.status, refused_flag.json["detail"][0]["type"], refused_flag.json["detail"][0]["loc"]), (422, "type_error.bool", ["query", "skip_current_image"]), "a flag")
        for answer in (slow.get("/sdapi/v1/progress?id_task=a%C3%A9"), slow.post("", "/sdapi/v1/interrupt?id_task=" + "x" * 128), slow.post("", "/sdapi/v1/skip?id_task=%01a")):
            same(answer.status in (400, 422) and answer.json.get("detail") is not None, True, f"id_task: {answer.status}")
        for body in ({"id_task": 1}, {"id_task": "x", "id_live_preview": 1.5e300}, {"id_task": "x", "more": 1}):
            same(slow.post(body, TASK).status, 422, f"{body}")
        same(slow.post({}, TASK).json["detail"][0], {"loc": ["body", "id_task"], "msg": "id_task is required", "type": "value_error.missing"}, "without id_task")


@test
def an_interrupted_call_answers_with_what_is_finished():
    # A few rows at a time: the first pictures are made in the first 20 ticks, and from the 25th on each takes three seconds.
    with Daemon("--rows-max", "1", program=FAULTS, environment={"DENOISED_FAULT": "step_k:25:slow3000"}) as slow:
        call = Call(slow, steps=20, n_iter=16, seed=9, sampler_name="Euler", force_task_id="sixteen")
        now = eventually(lambda: (lambda a: a if a["state"]["job_no"] >= 1 else None)(slow.get("/sdapi/v1/progress").json), what="the first picture")
        same(now["state"]["job_count"], 16, "job_count")
        same(slow.post("", "/sdapi/v1/interrupt?id_task=five").json, {}, "another task")
        same(slow.post("", "/sdapi/v1/skip?id_task=sixteen").json, None, "skip")
        answer = call.over()
        info = json.loads(answer.json["info"])
        same((answer.status, info["interrupted"], info["all_seeds"]), (200, True, list(range(9, 25))), "the answer")
        images = slow.get(f"/jobs/{info['job_id']}").json["images"]
        check(1 <= len(images) < 16, f"{len(images)} of 16 pictures")
        same([int(re.search("Seed: ([0-9]+),", one).group(1)) for one in info["infotexts"]], [int(image["seed"]) for image in images], "infotexts")
        same(answer.json["images"], [text(slow.image(info["job_id"], image["index"])) for image in images], "pictures")


@test
def clients_do_not_see_or_end_each_others_calls():
    keys = os.path.join(scratch("keys"), "keys")
    alice, bob = (add_key(keys, name) for name in ("alice", "bob"))
    data = scratch("data")
    carol = {"Authorization": "Bearer " + subprocess.run([PROGRAM, "key", "add", "carol", "--scopes", "submit,read-all", "--data", data], capture_output=True,
                                                         text=True, check=True).stdout.strip()}
    with Daemon("--api-key-file", keys, data=data, program=FAULTS, environment=SLOW_STEPS) as slow:
        own = slow.post({"prompt": "bag", "steps": 1000, "n_iter": 3, "force_task_id": "hers"}, TXT, Prefer="wait=0", **carol)
        call = Call(slow, headers=alice, force_task_id="hers")
        eventually(lambda: task(slow, "hers", **alice)["active"], what="it runs")
        shown = [slow.get(f"/sdapi/v1/progress?id_task={name}", **carol).json["state"]["job_count"] for name in ("hers", slow.get("/jobs", **alice).json["jobs"][0]["id"])]
        same((own.status, shown), (504, [3, 1]), "who may see all calls sees its own of a name before another's")
        same(slow.post("", "/sdapi/v1/interrupt", **carol).json, {}, "carol's interrupt")
        job = slow.get("/jobs", **alice).json["jobs"][0]["id"]
        for name in ("hers", job):
            same((task(slow, name, **bob)["textinfo"], slow.get(f"/sdapi/v1/progress?id_task={name}", **bob).json["state"]["job_count"]), ("Waiting...", 0), "bob's view")
            same(slow.post("", f"/sdapi/v1/interrupt?id_task={name}", **bob).json, {}, "bob's interrupt")
        same((slow.get("/sdapi/v1/progress", **bob).json["state"]["job_count"], slow.post("", "/sdapi/v1/interrupt", **bob).json), (0, {}), "all of bob's")
        hers = slow.get(f"/jobs/{job}", **alice).json
        same((call.is_alive(), task(slow, "hers", **alice)["active"], hers["state"], hers["cancel_requested"]), (True, True, "running", False), "alice's call goes on")
        same(slow.post("", "/sdapi/v1/interrupt", **alice).json, {}, "alice's interrupt")
        answer = call.over()
        same((answer.status, json.loads(answer.json["info"])["interrupted"]), (200, True), "her call")


@test
def an_interrupt_ends_all_calls_though_its_client_leaves():
    """The connection is reset while the first of the cancels is being committed."""
    faults = {"DENOISED_FAULT": "step_k:1:slow200,cancel_before_commit:1:slow1000"}
    with Daemon(program=FAULTS, environment=faults) as slow:
        calls = [slow.post({"prompt": "bag", "steps": 1000}, TXT, Prefer="wait=0") for _ in range(4)]
        jobs = [call.headers["location"].removeprefix(os.environ.get("DENOISED_BASE_PATH", "")) for call in calls]
        same([call.status for call in calls], [504] * 4, "calls that go on")

        def interrupted():
            """Once more where the reset overtook the request, which a loaded machine may let happen."""
            slow.vanish("POST", "/sdapi/v1/interrupt")
            return any(slow.get(job).json["cancel_requested"] or slow.get(job).json["state"] == "canceled" for job in jobs)
        eventually(interrupted, what="an interrupt is heard")
        eventually(lambda: all(slow.get(job).json["state"] == "canceled" for job in jobs), what="the ends of all four")
        same((slow.get("/sdapi/v1/progress").json["state"]["job_count"], slow.stop()), (0, 0), "calls that are left; the daemon's exit status")


@test
def a_client_that_leaves_has_not_cancelled_and_one_that_waits_too_long_is_told():
    with Daemon(program=FAULTS, environment=SLOW_STEPS) as slow:
        body = {"prompt": "bag", "steps": 1000, "cfg_scale": 1, "force_task_id": "left"}
        connection = slow.connect()
        connection.request("POST", TXT, json.dumps(body), {"Content-Type": "application/json"})
        eventually(lambda: task(slow, "left")["active"], what="it runs")
        connection.close()
        answer = slow.post({**body, "force_task_id": "late"}, TXT, Prefer="wait=0")
        plain(answer, 504, "timeout")
        check(answer.headers["location"] in answer.json["detail"] and int(answer.headers["retry-after"]) >= 1, "where it goes on")
        late = answer.headers["location"].rsplit("/", 1)[1]
        same([slow.get(f"/jobs/{late}").json["state"] in ("queued", "running"), task(slow, "left")["active"]], [True, True], "both go on")
        call = Call(slow, force_task_id="third")
        eventually(lambda: task(slow, "third")["textinfo"] != "Waiting...", what="the third call")
        same(slow.post("", "/sdapi/v1/interrupt").json, {}, "interrupt ends all of them")
        answer = call.over()
        same((answer.status, json.loads(answer.json["info"])["interrupted"]), (200, True), "the one that waits")
        for name in ("left", "late", "third"):
            eventually(lambda name=name: task(slow, name)["completed"], what=name)


@test
def a_stopping_daemon_says_where_calls_go_on():
    with Daemon(program=FAULTS, environment=SLOW_STEPS) as slow:
        call = Call(slow, force_task_id="mine")
        eventually(lambda: task(slow, "mine")["active"], what="it runs")
        slow.process.send_signal(signal.SIGTERM)
        answer = eventually(lambda: (lambda a: a if a.status == 503 else None)(slow.post({"prompt": "bag", "force_task_id": "x"}, TXT, Prefer="wait=0")), what="draining")
        plain(answer, 503, "draining")
        check("retry-after" in answer.headers, "Retry-After")
        slow.process.send_signal(signal.SIGTERM)
        plain(call.over(), 503, "draining")
        check(call.answer.headers["location"] in call.answer.json["detail"], "where it goes on")


@test
def a_base_path_comes_before_all():
    if os.environ.get("DENOISED_BASE_PATH"):
        raise Skip("there is one already")
    with Daemon("--base-path", "/pictures") as below:
        answer = below.post({"prompt": "bag", "steps": 2}, "/pictures" + TXT)
        same((answer.status, answer.headers["location"]), (200, f"/pictures/jobs/{json.loads(answer.json['info'])['job_id']}"), "Location")
        same(below.post({"id_task": "x"}, TASK).json["code"], "not-found", "without it")
        same((below.get("/pictures/sdapi/v1/none").json, below.get("/pictures/sdapi/v1/cmd-flags").json["subpath"]), ({"detail": "Not Found"}, "pictures"), "below it")


# ---- Keys


@test
def keys_are_bearer_tokens_or_basic_passwords():
    keys = os.path.join(scratch("keys"), "keys")
    alice = add_key(keys, "alice")
    secret = alice["Authorization"].split()[1]
    with Daemon("--api-key-file", keys) as keyed:
        for path in ("/sdapi/v1/options", "/sdapi/v1/samplers", "/sdapi/v1/progress", *(f"/sdapi/v1/{name}" for name in LISTS)):
            answer = keyed.get(path)
            plain(answer, 401, "unauthorized")
            same(answer.headers["www-authenticate"], 'Basic realm="denoised", Bearer realm="denoised"', "WWW-Authenticate")
        for user in ("alice", "anybody", "", "x" * 300):
            same(keyed.get("/sdapi/v1/options", Authorization=basic(user, secret)).status, 200, f"as {user[:9]}")
        same(keyed.get("/sdapi/v1/options", Authorization="basic" + basic("u", secret)[5:]).status, 200, "the scheme's case")
        for wrong in (basic("alice", ""), basic("alice", secret[:-1]), basic("alice", secret + "a"), basic(secret, ""), "Basic " + secret, "Basic ", "Basic ====",
                      "Basic " + text(secret.encode()), basic("a" * 1100, secret), f"Digest {secret}"):
            same(keyed.get("/sdapi/v1/options", Authorization=wrong).status, 401, f"{wrong[:20]}...")
        same(keyed.get("/jobs", Authorization=basic("alice", secret)).status, 401, "Basic is for webui's clients alone")
        same(keyed.get("/jobs", **alice).headers.get("www-authenticate"), None, "none where there is a key")
        mine = made(to=keyed, headers={"Authorization": basic("u", secret)})
        same(keyed.get(f"/jobs/{mine.info['job_id']}", **alice).status, 200, "the job is the key's")
        with open(keyed.log_path, encoding="utf8") as log:
            check(secret not in log.read(), "a key stands in the log")


@test
def scopes_hold():
    data = scratch("data")

    def key(scopes):
        made_key = subprocess.run([PROGRAM, "key", "add", scopes, "--scopes", scopes, "--data", data], capture_output=True, text=True, check=True)
        return {"Authorization": f"Bearer {made_key.stdout.strip()}"}
    writer, reader, auditor, boss = (key(scopes) for scopes in ("submit", "read", "read-all", "admin"))
    body = {"prompt": "bag", "steps": 2}
    with Daemon(data=data) as keyed:
        calls = [("POST", TXT, body), ("GET", "/sdapi/v1/progress", None), ("POST", TASK, {"id_task": "x"}), ("POST", "/sdapi/v1/interrupt", ""), ("POST", "/sdapi/v1/skip", ""),
                 ("POST", "/sdapi/v1/options", {}), ("POST", "/sdapi/v1/refresh-vae", ""), ("GET", "/sdapi/v1/options", None), ("GET", "/sdapi/v1/samplers", None)]
        expected = [(writer, [200, 403, 403, 200, 200, 200, 200, 200, 200]), (reader, [403, 200, 200, 403, 403, 403, 403, 200, 200]),
                    (auditor, [403, 200, 200, 403, 403, 403, 403, 200, 200]), (boss, [403, 200, 200, 200, 200, 403, 403, 200, 200])]
        for who, wanted in expected:
            same([keyed.call(method, path, sent, **who).status for method, path, sent in calls], wanted, "statuses")
        plain(keyed.post(body, TXT, **reader), 403, "forbidden")


run(__name__)
