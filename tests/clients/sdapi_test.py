"""AUTOMATIC1111's API with the client that its users have, webuiapi, as it comes from PyPI: every call that it makes by itself and in common use."""
import asyncio
import io
import os
import sys
import contextlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
try:
    import aiohttp  # noqa: F401 - of use_async
    import webuiapi
    from PIL import Image
except ImportError:
    print("SKIP clients/sdapi: no build/venv (tests/clients/venv.sh says why)")
    sys.exit(0)

from harness import *  # noqa: F403,E402
from keys import add_key  # noqa: E402

daemon = Daemon("--model", f"other={tiny_model()}")
SIZE = {"width": 8, "height": 8, "steps": 2, "cfg_scale": 2}


def client(to=daemon, **more):
    return webuiapi.WebUIApi(host="127.0.0.1", port=to.port, **more)


def quietly(function, *arguments):
    with contextlib.redirect_stdout(io.StringIO()):
        return function(*arguments)


@test
def txt2img_makes_pictures():
    result = client().txt2img(prompt="a photo of a sneaker", seed=7, batch_size=2, **SIZE)
    same([(image.size, image.format) for image in result.images], [((8, 8), "PNG")] * 2, "pictures")
    same((result.info["all_seeds"], result.info["sampler_name"], result.parameters["prompt"]), ([7, 8], "Euler a", "a photo of a sneaker"), "info and parameters")
    same([image.info["parameters"] for image in result.images], result.info["infotexts"], "infotexts")
    again = client().txt2img(prompt="a photo of a sneaker", seed=7, batch_size=2, **SIZE)
    same(again.json["images"], result.json["images"], "the same again")
    native = daemon.make(class_label=7, seed=7, n=2, steps=2, guidance_scale=2, sampler="euler_ancestral", eta=1)
    same([base64.b64encode(daemon.image(native["id"], i)).decode() for i in range(2)], result.json["images"], "as the native job")


@test
def img2img_and_inpainting_take_pictures_of_pil():
    picture = client().txt2img(prompt="bag", seed=1, **SIZE).image
    mask = Image.new("L", (8, 8), 0)
    mask.paste(255, (4, 0, 8, 8))
    for more in ({}, {"mask_image": mask}, {"mask_image": mask, "inpainting_fill": 1, "mask_blur": 0}):
        result = client().img2img(images=[picture], prompt="coat", seed=2, denoising_strength=0.6, sampler_name="DDIM", **more, **SIZE)
        same((result.image.size, result.info["denoising_strength"], result.info["sampler_name"]), ((8, 8), 0.6, "DDIM"), f"{sorted(more)}")
    request = daemon.get(f"/jobs/{result.info['job_id']}").json["request"]
    same(sorted(k for k in request if "image" in k or k == "strength"), ["init_image", "mask_image", "strength"], "the job")


@test
def calls_may_be_asynchronous():
    async def both():
        api = client()
        return await asyncio.gather(*(api.txt2img(prompt="dress", seed=seed, use_async=True, **SIZE) for seed in (3, 4)))
    same([result.info["seed"] for result in asyncio.run(both())], [3, 4], "seeds")


@test
def utilities_find_models_samplers_and_schedulers():
    api = client()
    names = api.util_get_model_names()
    same([name.split(" ")[0] for name in names], ["other", "tiny"], "models")
    check({"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names()), "samplers")
    check({"automatic", "karras"} <= set(api.util_get_scheduler_names()), "schedulers")
    same(api.util_get_current_model().split(" ")[0], "tiny", "the default")
    quietly(api.util_set_model, "othe")
    same(api.util_get_current_model().split(" ")[0], "other", "the nearest name")
    result = api.txt2img(prompt="bag", **SIZE)
    same(result.info["sd_model_name"], "other", "its pictures")
    quietly(api.util_set_model, "tiny", False)
    quietly(api.util_set_model, next(name for name in names if name.startswith("tiny")), False)
    same(api.util_get_current_model().split(" ")[0], "tiny", "back")
    quietly(api.util_wait_for_ready)


@test
def what_it_asks_for_is_answered():
    api = client()
    same((api.get_scripts(), api.has_controlnet, api.has_adetailer), ({"txt2img": [], "img2img": []}, False, False), "scripts")
    for name in ("sd_vae", "upscalers", "latent_upscale_modes", "loras", "hypernetworks", "face_restorers", "realesrgan_models", "prompt_styles"):
        same(getattr(api, f"get_{name}")(), [], name)
    same(api.get_embeddings(), {"loaded": {}, "skipped": {}}, "embeddings")
    check(api.get_cmd_flags()["api"] is True and api.get_memory()["ram"]["total"] > 0, "flags and memory")
    same((api.refresh_checkpoints(), api.set_options({}), api.skip(), api.interrupt()), (None, None, None, {}), "nothing to say")
    check("sd_model_checkpoint" in api.get_options(), "options")
    info = api.png_info(api.txt2img(prompt="bag", seed=5, **SIZE).image)
    check("Seed: 5," in info.info and info.json["parameters"]["Seed"] == "5" and info.parameters["Prompt"] == "Bag", "png_info")


@test
def refusals_reach_its_caller():
    for more, said in (({"width": 512, "height": 512}, "must be 8"), ({"prompt": "zebra"}, "prompt names no class"), ({"enable_hr": True}, "enable_hr"),
                       ({"sampler_name": "none"}, "sampler_name"), ({"restore_faces": True}, "restore_faces")):
        try:
            client().txt2img(**{"prompt": "bag", **SIZE, **more})
            raise AssertionError(f"{more} was taken")
        except RuntimeError as refusal:
            status, text = refusal.args
            same(status, 422, f"status of {more}")
            check(said in text, f"{said!r} in {text}")


@test
def its_user_and_password_are_a_key():
    path = os.path.join(scratch("keys"), "keys")
    secret = add_key(path, "alice")["Authorization"].split()[1]
    with Daemon("--api-key-file", path) as keyed:
        api = client(keyed, username="anybody", password=secret)
        same(api.txt2img(prompt="bag", **SIZE).image.size, (8, 8), "with the key")

        async def one():
            return await api.txt2img(prompt="bag", use_async=True, **SIZE)
        same(asyncio.run(one()).image.size, (8, 8), "asynchronously")
        try:
            client(keyed, username="anybody", password="wrong").txt2img(prompt="bag", **SIZE)
            raise AssertionError("a wrong password was taken")
        except RuntimeError as refusal:
            same(refusal.args[0], 401, "status")


@test
def a_call_is_followed_and_interrupted():
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow200"}) as slow:
        api, done = client(slow), []
        thread = threading.Thread(target=lambda: done.append(client(slow).txt2img(prompt="bag", **{**SIZE, "steps": 1000})), daemon=True)
        thread.start()
        now = eventually(lambda: (lambda p: p if p["current_image"] else None)(api.get_progress()), what="a preview")
        check(0 < now["progress"] < 1 and now["state"]["job_count"] == 1, now["state"])
        same(Image.open(io.BytesIO(base64.b64decode(now["current_image"]))).size, (8, 8), "the preview")
        same(api.interrupt(), {}, "interrupt")
        thread.join(240 * SLOW)
        same([(one.images, one.info["interrupted"]) for one in done], [([], True)], "the call")
        same(api.get_progress()["state"]["job_count"], 0, "nothing runs")


run(__name__)
