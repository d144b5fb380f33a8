#!/usr/bin/env python3
"""What can be made of a picture: its recipe, the same again, variations, comparisons, painting, files, commands; on the page."""
import hashlib
import re
import subprocess

from page import *  # noqa: F403
from webdriver import LEFT, SHIFT, SPACE


def picture(page, number="1", **fields):
    """Makes a picture on the page and waits for it: its job."""
    before = page.js("return document.querySelector('[data-testid=stage]').dataset.job || ''")
    fill_form(page, steps="3", number=number, **fields)
    page.click("generate")
    job_id = stage_job(page, other_than=before)
    page.until("return document.querySelectorAll('[data-testid=picture]').length === arguments[0]", int(number), what="pictures on the stage")
    return daemon().get(f"/jobs/{job_id}").json


def open_recipe(page, job, index=0):
    page.click(f'[data-testid="cell"][data-job="{job["id"]}"][data-index="{index}"]')
    page.until("const box = document.querySelector('[data-testid=dialog]'); return box.open && box.dataset.name === 'recipe'", what="the recipe")


def jobs_since(count):
    """Jobs that were made after the first `count`, oldest first."""
    return daemon().get("/jobs?limit=100").json["jobs"][::-1][count:]


def job_count():
    return len(daemon().get("/jobs?limit=100").json["jobs"])


def stage_jobs(page, count):
    """Waits until so many jobs are on the stage and have all succeeded; their ids in its order."""
    page.until("const s = document.querySelector('[data-testid=stage]').dataset; return s.jobs === String(arguments[0]) && s.state === 'succeeded'", count,
               what=f"{count} jobs on the stage")
    return page.js("return [...document.querySelectorAll('[data-testid=cell]')].map((one) => one.dataset.job)")


@test
def a_recipe_is_shown_and_the_same_again_is_the_same():
    with Page(daemon().address) as page:
        page.ready()
        page.click('[data-testid="class"][data-index="7"]')
        job = picture(page, "2", seed="11", guidance="3")
        open_recipe(page, job, 1)
        words = page.text("recipe")
        for pattern in (r"Guidance\s+3\b", r"Steps\s+3\b", r"Seed\s+12\b", r"Model\s+fashion-mnist", job["images"][1]["sha256"], job["id"]):
            check(re.search(pattern, words), f"the recipe has no {pattern}: {words!r}")
        same(page.text("dialog-title"), "Sneaker", "its title")
        page.click("again")
        again = stage_job(page, other_than=job["id"])
        page.says("stage-facts", r"As before\s+every pixel")
        same(daemon().get(f"/jobs/{again}").json["images"][0]["sha256"], job["images"][1]["sha256"], "the same again")


@test
def a_picture_is_varied():
    with Page(daemon().address) as page:
        page.ready()
        job = picture(page, seed="21")
        before = job_count()
        open_recipe(page, job)
        page.click("vary")
        for wrong in ("0", "65", "2.5", "many"):
            page.write("vary-count", wrong)
            page.click("vary-go")
            page.says("vary-error", "from 1 to 64")
        same(job_count(), before, "jobs of refused numbers")
        page.write("vary-count", "3")
        page.click("vary-go")
        ids = stage_jobs(page, 3)
        made = jobs_since(before)
        same(sorted(ids), sorted(one["id"] for one in made), "jobs on the stage")
        requests = [one["request"] for one in made]
        same({(one["seed"], one["variation_strength"], one["steps"]) for one in requests}, {("21", 0.2, 3)}, "what they share")
        same(len({one["variation_seed"] for one in requests}), 3, "seeds that they go towards")
        page.click(f'[data-testid="tile"][data-job="{job["id"]}"] button')
        page.click("vary")
        page.click("vary-seeds")
        page.write("vary-count", "2")
        page.click("vary-go")
        one = daemon().get(f"/jobs/{stage_job(page, other_than=ids[0])}").json
        same((one["request"]["seed"], one["request"]["n"]), ("22", 2), "the seeds that follow")


@test
def guidance_and_steps_are_compared_on_a_sheet():
    with Page(daemon().address, allow=[r"422 \(Unprocessable"]) as page:
        page.ready()
        page.write("seed", "5")
        before = job_count()
        page.click("compare")
        page.write("sheet-guidance", ", ".join("123456789"))
        page.write("sheet-steps", "1 2 3 4 5 6 7 8")
        page.says("sheet-count", "9 . 8 = 72")
        page.click("sheet-go")
        page.says("sheet-error", "1 to 64")
        page.write("sheet-guidance", "1, x")
        page.write("sheet-steps", "2")
        page.click("sheet-go")
        page.says("sheet-error", "(?i)guidance.scale must")
        same([page.value("sheet-guidance"), page.js("return document.activeElement.dataset.testid")], ["1, x", "sheet-guidance"], "what was typed, and the focus")
        page.write("sheet-guidance", "1")
        page.write("sheet-steps", "2, 0")
        page.click("sheet-go")
        page.says("sheet-error", "(?i)steps must")
        same(job_count(), before, "jobs of refused sheets")
        page.write("sheet-guidance", "1, 2")
        page.write("sheet-steps", "2, 3, 4")
        page.says("sheet-count", "2 . 3 = 6 pictures")
        page.click("sheet-go")
        ids = stage_jobs(page, 6)
        requests = {one["id"]: one["request"] for one in jobs_since(before)}
        same([(requests[one]["guidance_scale"], requests[one]["steps"]) for one in ids], [(g, s) for g in (1, 2) for s in (2, 3, 4)], "cells in their order")
        same({one["seed"] for one in requests.values()}, {"5"}, "seeds")
        same(page.js("return [...document.querySelectorAll('.sheet > span')].slice(1).map((one) => one.textContent)"), ["2", "3", "4", "1", "2"], "labels")
        page.chromium.reload()
        page.ready()
        page.until("return [...document.querySelectorAll('[data-testid=tile]')].filter((one) => !one.hidden && arguments[0].includes(one.dataset.job)).length === 1",
                   ids, what="the sheet is one tile")
        page.click(page.js("const one = [...document.querySelectorAll('[data-testid=tile]')].find((one) => !one.hidden && arguments[0].includes(one.dataset.job));"
                           "return `[data-testid=tile][data-job='${one.dataset.job}'] button`", ids))
        same(stage_jobs(page, 6), ids, "the sheet after a reload")


@test
def a_picture_is_painted_over():
    with Page(daemon().address) as page:
        page.ready()
        page.click('[data-testid="class"][data-index="7"]')
        job = picture(page, seed="31")
        open_recipe(page, job)
        page.click("paint")
        canvas = page.find("paint-canvas")
        painted = "return Number(document.querySelector('[data-testid=paint-canvas]').dataset.painted)"
        same(page.js(painted), 0, "painted at first")
        wide = page.js("return document.querySelector('[data-testid=paint-canvas]').getBoundingClientRect().width")
        page.chromium.drag(canvas, [(-wide / 4, -wide / 4), (0, 0), (wide / 4, wide / 4)])
        some = page.until(painted, what="paint of the mouse")
        check(30 < some < 512, f"{some} pixels are painted")
        page.click("mask-invert")
        same(page.until(painted), 1024 - some, "inverted")
        page.click("mask-clear")
        page.until("return document.querySelector('[data-testid=paint-canvas]').dataset.painted === '0'", what="cleared")
        page.js("document.querySelector('[data-testid=paint-canvas]').focus()")
        page.chromium.keys(SPACE, LEFT, LEFT, SPACE)
        by_keys = page.until(painted, what="paint of the keys")
        page.chromium.keys(SPACE, held=SHIFT)
        page.until("return Number(document.querySelector('[data-testid=paint-canvas]').dataset.painted) < arguments[0]", by_keys, what="wiped by keys")
        page.click("mask-clear")
        page.chromium.drag(canvas, [(0, -wide / 2 + 2), (0, wide / 2 - 2)])
        page.until(painted)
        page.click("paint-go")
        done = daemon().get(f"/jobs/{stage_job(page, other_than=job['id'])}").json
        check(done["request"]["init_image"] and done["request"]["mask_image"], "its request has no pictures")
        same(done["request"]["strength"], 0.8, "its strength")
        before, after = (png.pixels_of(daemon().image(one["id"]))[1] for one in (job, done))
        side = [abs(a[x] - b[x]) for a, b in zip(before, after, strict=True) for x in (*range(8), *range(24, 32))]
        same(max(side), 0, "what was not painted stays")
        middle = [abs(a[x] - b[x]) for a, b in zip(before, after, strict=True) for x in range(14, 18)]
        check(max(middle) > 0, "what was painted is not new")
        page.click("init-remove")
        page.gone("init-picture")


DROP = """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
transfer.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
for (const kind of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));"""


@test
def a_dropped_picture_restores_its_recipe():
    made = daemon().make(class_label=9, seed="18446744073709551615", steps=4, guidance_scale=1.5, sampler="ddim", eta=0.25, n=1)
    data = daemon().image(made["id"])
    with Page(daemon().address) as page:
        page.ready()
        page.js(DROP, base64.b64encode(data).decode())
        page.until("return document.querySelector('[data-testid=seed]').value === '18446744073709551615'", what="its seed in the form")
        same([page.value(name) for name in ("steps", "guidance", "sampler", "#option-eta")], ["4", "1.5", "ddim", "0.25"], "its recipe")
        same(page.js("return document.querySelector('[data-testid=class][aria-selected=true]').dataset.index"), "9", "its class")
        check(not page.shown("#drop"), "the drop area is still there")
        page.click("generate")
        again = daemon().get(f"/jobs/{stage_job(page)}").json
        same(again["images"][0]["sha256"], made["images"][0]["sha256"], "the picture made from the picture")
        plain = os.path.join(scratch("pictures"), "plain.png")
        with open(plain, "wb") as out:
            out.write(png.png(48, 32, lambda x, y, c: 5 * x + 3 * y + c))
        page.chromium.type(page.chromium.find('[data-testid="file"]')[0], plain)
        page.find("init-picture")
        page.says("banner", "no recipe")
        page.js(DROP, base64.b64encode(b"not a picture").decode())
        page.says("banner", "no picture that can be read")


@test
def a_picture_is_downloaded_and_copied_as_a_command():
    with Page(daemon().address) as page:
        page.ready()
        page.chromium.allow(daemon().address, "clipboardReadWrite", "clipboardSanitizedWrite")
        job = picture(page, seed="41")
        data = daemon().image(job["id"])
        open_recipe(page, job)
        page.until("return document.querySelector('[data-testid=download]').href.startsWith('blob:')")
        page.click("download")
        name = os.path.join(page.chromium.downloads, page.js("return document.querySelector('[data-testid=download]').download"))
        eventually(lambda: os.path.exists(name) and os.path.getsize(name) == len(data), what="the file")
        with open(name, "rb") as file:
            same(hashlib.sha256(file.read()).hexdigest(), hashlib.sha256(data).hexdigest(), "its bytes")
        page.click("copy-curl")
        page.says("live", "Copied")
        command = page.js("return navigator.clipboard.readText()")
        same(command, page.value("curl"), "the clipboard")
        folder = scratch("curl")
        subprocess.run(["bash", "-c", command], cwd=folder, check=True, timeout=600)
        files = os.listdir(folder)
        same(len(files), 1, "files of the command")
        with open(os.path.join(folder, files[0]), "rb") as file:
            same(hashlib.sha256(file.read()).hexdigest(), hashlib.sha256(data).hexdigest(), "what the command makes")


@test
def a_picture_is_deleted_for_good():
    with Page(daemon().address) as page:
        page.ready()
        job = picture(page, seed="51")
        open_recipe(page, job)
        page.click("delete")
        page.says("delete", "for good")
        same(daemon().get(f"/jobs/{job['id']}").status, 200, "after the first press")
        page.click("delete")
        page.until("return !document.querySelector(`[data-testid=tile][data-job='${arguments[0]}']`)", job["id"], what="the tile is gone")
        check(daemon().get(f"/jobs/{job['id']}/images/0.png").status in (404, 410), "the picture is still there")


@test
def samples_of_classes_are_made_once_and_kept():
    with Page(daemon().address) as page:
        page.ready()
        page.choose("model", "tiny")
        page.until("return document.querySelector('[data-testid=class]').title.includes('T-shirt')")
        before = job_count()
        page.click("make-samples")
        pictures = "return [...document.querySelectorAll('[data-testid=class]')].every((one) => one.querySelector('img') && one.querySelector('img').naturalWidth === 8)"
        page.until(pictures, what="a picture for each class")
        page.gone("make-samples")
        eventually(lambda: job_count() == before, what="samples are no part of the gallery")
        page.chromium.reload()
        page.ready()
        page.until(pictures, what="a picture for each class after a reload")
        same(job_count(), before, "jobs after the reload")


@test
def older_pictures_come_when_they_are_asked_for():
    with Daemon() as one, Page(one.address) as page:
        ids = [job["id"] for job in one.post([{"class_label": i % 10, "steps": 1} for i in range(30)]).json["jobs"]]
        one.wait(ids[-1])
        page.chromium.reload()
        page.ready()
        page.until("return document.querySelectorAll('[data-testid=tile]').length === 24", what="a page of the gallery")
        page.click("gallery-more")
        page.until("return document.querySelectorAll('[data-testid=tile]').length === 30", what="all of it")
        page.gone("gallery-more")
        times = page.js("return [...document.querySelectorAll('[data-testid=tile]')].map((one) => one.dataset.job)")
        same(sorted(times), sorted(ids), "its jobs")


run(__name__)
