#!/usr/bin/env python3
"""Making pictures on the page: the form, refusals beside their fields, previews, progress, the queue, cancel; and what survives a reload."""
import contextlib
import hashlib
import math

from page import *  # noqa: F403
from webdriver import DOWN, ENTER

LONG = 1000  # steps; at 50 ms each a job outlives every test that looks at it
@test
def a_picture_is_made_and_is_the_one_of_the_api():
    with Page(daemon().address) as page:
        page.ready()
        page.click('[data-testid="class"][data-index="7"]')
        fill_form(page, seed="42", steps="6", number="2")
        page.click("generate")
        job_id = stage_job(page)
        page.until("return document.querySelectorAll('[data-testid=picture]').length === 2", what="two pictures")
        job = daemon().get(f"/jobs/{job_id}").json
        same((job["request"]["class_label"], job["request"]["seed"], job["request"]["steps"], job["request"]["n"]), (7, "42", 6, 2), "the request")
        for index in range(2):
            data = daemon().image(job_id, index)
            selector = f'[data-testid="cell"][data-index="{index}"] [data-testid="picture"]'
            same(page.js("return document.querySelector(arguments[0]).dataset.sha256", selector), hashlib.sha256(data).hexdigest(), "its hash")
            same(pixels_on_page(page, selector), [list(row) for row in png.pixels_of(data)[1]], "its pixels")
        api = daemon().make(class_label=7, seed="42", steps=6, n=2, guidance_scale=2)
        same(api["images"][1]["sha256"], job["images"][1]["sha256"], "the same request by the API")
        page.says("stage-title", "Sneaker")
        page.says("stage-state", "Made in")


def philox(block, seed):
    """The four words of Philox 4x32-10 that engine/base/philox.h names."""
    c, k = [block, 0, 0, 0], [seed & 0xffffffff, seed >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & 0xffffffff, (p >> 32) ^ c[3] ^ k[1], p & 0xffffffff]
        k = [(k[0] + 0x9E3779B9) & 0xffffffff, (k[1] + 0xBB67AE85) & 0xffffffff]
    return c


@test
def the_noise_before_is_the_beginning():
    """What the stage shows before anything is made is what the engine starts from."""
    same(philox(0, 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8], "the published answer")
    seeds = (0, 42, 2**32, 2**64 - 1)
    with Page(daemon().address) as page:
        page.ready()
        got = page.js("const {normals} = await import('/page/noise.js'); return arguments[0].map((seed) => Array.from(normals(seed, 7)))", [str(one) for one in seeds])
        for seed, values in zip(seeds, got, strict=True):
            words = philox(0, seed) + philox(1, seed)
            wanted = []
            for one, two in zip(words[::2], words[1::2], strict=True):
                radius, angle = math.sqrt(-2 * math.log((one + 0.5) / 2**32)), 2 * math.pi * two / 2**32
                wanted += [radius * math.cos(angle), radius * math.sin(angle)]
            check(len(values) == 7 and all(abs(a - b) < 1e-5 for a, b in zip(values, wanted[:7], strict=True)), f"seed {seed}: {values} instead of {wanted}")
        page.write("seed", "42")
        drawn = page.until("const c = document.querySelector('#noise'); return c && c.width === 32 && Array.from(c.getContext('2d').getImageData(0, 0, 2, 1).data)")
        check(all(abs(drawn[4 * i] - (127.5 + 64 * got[1][i])) <= 1 for i in range(2)), f"{drawn} of {got[1][:2]}")


@test
def a_seed_is_kept_when_it_is_locked():
    with Page(daemon().address) as page:
        page.ready()
        fill_form(page, seed="7", steps="2")
        page.click("lock")
        page.click("generate")
        first = stage_job(page)
        same(page.value("seed"), "7", "a locked seed after a picture")
        page.click("generate")
        second = stage_job(page, other_than=first)
        same(*(daemon().get(f"/jobs/{one}").json["images"][0]["sha256"] for one in (first, second)), "the same again")
        page.click("lock")
        page.click("generate")
        stage_job(page, other_than=second)
        page.until("return document.querySelector('[data-testid=seed]').value !== '7'", what="another seed")
        before = page.value("seed")
        page.click("dice")
        check(page.value("seed") != before, "the dice")


@test
def classes_are_found_and_chosen_by_keys():
    with Page(daemon().address) as page:
        page.ready()
        page.until("return document.querySelectorAll('[data-testid=class]').length === 11", what="ten classes and none")
        page.write("class-search", "boot")
        page.until("return [...document.querySelectorAll('[data-testid=class]')].map((one) => one.dataset.index).join() === '9'", what="the one class with boots")
        page.chromium.keys(ENTER)
        page.until("return document.querySelector('[data-testid=class][aria-selected=true]').dataset.index === '9'", what="it is chosen")
        page.write("class-search", "no such thing")
        page.until("return document.querySelectorAll('[data-testid=class]').length === 0")
        check("No class" in page.js("return document.querySelector('#classes-note').textContent"), "it does not say that there is none")
        page.write("class-search", "s")
        page.chromium.keys(DOWN)
        page.until("return document.activeElement.dataset.testid === 'class'", what="the list has the focus")


@test
def refusals_stand_beside_their_fields():
    cases = [("steps", "0", "/steps"), ("steps", "many", "/steps"), ("guidance", "1000", "/guidance_scale"), ("seed", "-1", "/seed"), ("number", "65", "/n"),
             ("seed", "18446744073709551616", "/seed"), ("steps", "1,000", "/steps"), ("guidance", "2,500", "/guidance_scale")]
    with Page(daemon().address, allow=[r"422 \(Unprocessable"]) as page:
        page.ready()
        good = {name: page.value(name) for name in ("steps", "guidance", "seed", "number")}
        jobs = len(daemon().get("/jobs?limit=100").json["jobs"])
        for name, value, field in cases:
            page.write(name, value)
            page.click("generate")
            words = page.says(f'[data-error="{field}"]', r"\w{3}").string
            check(value not in words or value.isdigit(), f"{field} echoes {value}")
            same(page.js("return [document.activeElement.dataset.testid, document.activeElement.getAttribute('aria-invalid')]"), [name, "true"], f"focus after {name}={value}")
            page.write(name, good[name])
            page.gone(f'[data-error="{field}"]')
        same(len(daemon().get("/jobs?limit=100").json["jobs"]), jobs, "jobs that came of it")
        page.choose("sampler", "ddim")
        page.click('[data-testid="sampler-options"] summary')
        page.write("#option-eta", "7")
        page.click('[data-testid="sampler-options"] summary')
        page.click("generate")
        page.says('[data-error="/eta"]', "(?i)eta must")
        check(page.shown("#option-eta"), "the option is in a folder that is closed")
        page.write("#option-eta", "0.5")
        page.write("steps", "2")
        page.click("generate")
        job_id = stage_job(page)
        same(daemon().get(f"/jobs/{job_id}").json["request"]["eta"], 0.5, "the option")


@test
def another_model_makes_another_form():
    with Page(daemon().address) as page:
        page.ready()
        page.choose("model", "tiny")
        page.until("return document.querySelector('[data-testid=class]').title.includes('T-shirt')", what="the other model's classes")
        page.says("#model-note", r"8 . 8")
        page.write("steps", "2")
        page.click("generate")
        same(daemon().get(f"/jobs/{stage_job(page)}").json["request"]["model"], "tiny", "the model")
        page.chromium.reload()
        page.ready()
        same(page.value("model"), "tiny", "the model after a reload")
        page.choose("model", "fashion-mnist")
        page.says("#model-note", r"32 . 32")


@test
def what_was_typed_for_a_model_stays_when_it_is_loaded():
    typed = {"steps": "7", "guidance": "3.5", "number": "2"}
    with Daemon("--model", f"tiny={tiny_model()}", model=BUILT_IN, name="fashion-mnist") as fresh, Page(fresh.address) as page:
        page.ready()
        page.choose("model", "tiny")
        page.says("#model-note", "Loaded when first wanted")
        page.choose("sampler", "euler")
        fill_form(page, **typed)
        page.click("generate")
        stage_job(page)
        page.until("return !document.querySelector('#model-note').textContent.includes('Loaded when')", what="the model is loaded")
        same({name: page.value(name) for name in (*typed, "sampler")}, {**typed, "sampler": "euler"}, "the form")


@test
def previews_and_progress_are_seen_and_cancel_stops_it():
    with contextlib.ExitStack() as stack:
        browser()
        slow_one = stack.enter_context(Daemon("--rows-max", "1", **slow(50)))
        page = stack.enter_context(Page(slow_one.address))
        page.ready()
        fill_form(page, steps=str(LONG), number="1")
        page.choose("sampler", "ddim")
        page.click("generate")
        first = stage_job(page, "running")
        page.until("return document.querySelector('[data-testid=cell]').dataset.previews >= 2", what="two previews")
        same(page.js("const c = document.querySelector('[data-testid=cell] canvas'); return [c.width, c.height]"), [8, 8], "size of the preview")
        page.js("document.querySelector('[data-testid=cancel]').focus()")
        before = page.js("return document.querySelector('[data-testid=progress]').value")
        page.until("return document.querySelector('[data-testid=progress]').value > arguments[0]", before, what="progress")
        same(page.js("return document.activeElement.dataset.testid"), "cancel", "what has the focus while progress comes")
        page.says("stage-state", rf"step \d+ of {LONG}, about .* left")
        others = [job["id"] for job in slow_one.post([{"steps": LONG, "class_label": 1, "sampler": "ddim"}] * 3).json["jobs"]]  # one goes to the worker
        page.click("generate")
        last = stage_job(page, "queued", other_than=first)
        page.says("stage-state", "Queued, 2 jobs before it, ready in about")
        slow_one.call("DELETE", f"/jobs/{others[2]}")
        page.says("stage-state", "Queued, 1 job before it")
        slow_one.call("DELETE", f"/jobs/{others[1]}")
        page.says("stage-state", "Queued, next")
        page.click("cancel")
        same(stage_job(page, "canceled"), last, "the cancelled job")
        same(slow_one.get(f"/jobs/{last}").json["state"], "canceled", "its state in the API")
        slow_one.call("DELETE", f"/jobs/{others[0]}")
        page.chromium.reload()
        page.ready()
        page.until("return document.querySelectorAll('[data-testid=tile]').length === 5", what="the gallery after a reload")
        same(stage_job(page, "running"), first, "the job on the stage after a reload")
        page.until("return document.querySelector('[data-testid=cell]').dataset.previews >= 1", what="previews after a reload")
        page.click("cancel")
        same(stage_job(page, "canceled"), first, "the running job")
        eventually(lambda: slow_one.get(f"/jobs/{first}").json["state"] == "canceled", what="its end in the API")
        tile = "return document.querySelector(`[data-job='${arguments[0]}'][data-testid=tile]`).dataset.state === arguments[1]"
        page.until(tile, first, "canceled", what="the gallery knows")


@test
def the_gallery_survives_a_reload():
    with Page(daemon().address) as page:
        page.ready()
        page.write("steps", "2")
        page.click("generate")
        job_id = stage_job(page)
        tile = f'[data-testid="tile"][data-job="{job_id}"]'
        page.find(tile + ' [data-testid="thumb"]')
        page.chromium.reload()
        page.ready()
        page.until("const image = document.querySelector(arguments[0]); return image && image.complete && image.naturalWidth === 32",
                   tile + ' [data-testid="thumb"]', what="the picture after a reload")


run(__name__)
