#!/usr/bin/env python3
"""Hostile words on the page, and what it may reach: class names and errors of a model are text of strangers."""
import re
import shutil
import subprocess

from page import *  # noqa: F403
import proxy

CANARIES = ["<img src=x onerror=\"window.owned='img'\">", "<script>window.owned='script'</script>", "\"><svg onload=\"window.owned='svg'\">", "'-window.owned='quote'-'",
            "javascript:window.owned='url'", "</textarea><script>window.owned='area'</script>", "<iframe srcdoc=\"<script>parent.owned='frame'</script>\">",
            "&lt;b&gt;", "\u202e\u0000".replace("\u0000", "") + "right to left", "$(touch owned) `touch owned` '; touch owned; '"]


def hostile_model():
    """The tiny model with class names that would be scripts, and commands, if anybody took them for more than names."""
    folder = os.path.join(scratch("hostile"), "model")
    shutil.copytree(tiny_model(), folder)
    path = os.path.join(folder, "model_index.json")
    with open(path, encoding="utf8") as file:
        index = json.load(file)
    index["id2label"] = {str(i): name for i, name in enumerate(CANARIES)}
    with open(path, "w", encoding="utf8") as file:
        json.dump(index, file)
    return folder


@test
def names_of_classes_are_only_text():
    browser()
    with Daemon(model=hostile_model()) as one, Page(one.address) as page:
        page.ready()
        page.until("return document.querySelectorAll('[data-testid=class]').length === 11")
        served = [entry["names"][0] for entry in one.get("/models/tiny").json["classes"]]
        page.chromium.allow(one.address, "clipboardReadWrite", "clipboardSanitizedWrite")
        for index in range(len(CANARIES)):
            page.click(f'[data-testid="class"][data-index="{index}"]')
            page.write("class-search", served[index][:20])
            page.write("class-search", "")
            fill_form(page, steps="1", seed=str(index))
            page.click("generate")
            page.until("const s = document.querySelector('[data-testid=stage]').dataset; return s.state === 'succeeded' && document.querySelector('[data-testid=stage-title]').textContent === arguments[0]",
                       served[index], what=f"the title {served[index]!r}")
            page.click("stage-recipe")
            page.until("return (document.querySelector('[data-testid=dialog-title]') || {}).textContent === arguments[0]", served[index], what="the dialog's title")
            command = page.value("curl")
            folder = scratch("curl")
            subprocess.run(["bash", "-c", command], cwd=folder, check=True, timeout=600)
            names = os.listdir(folder)
            check(len(names) == 1 and re.fullmatch(r"[a-z0-9-]+\.png", names[0]), f"files of the command: {names}")
            page.click("dialog-close")
        same(page.js("return window.owned || null"), None, "a script that ran")
        same(page.js("return document.querySelectorAll('main script, main iframe, main svg[onload], main img[onerror], dialog script').length"), 0, "markup of names")
        page.chromium.reload()
        page.ready()
        page.until("return document.querySelectorAll('[data-testid=tile]').length >= arguments[0]", len(CANARIES))
        same(page.js("return window.owned || null"), None, "a script that ran after a reload")


ANSWER = """const before = window.fetch;
window.fetch = (url, options) => (options && options.method === 'POST' && String(url).endsWith('/generate')) ? Promise.resolve(new Response(JSON.stringify(
  {code: 'invalid-field', detail: arguments_[0], field: arguments_[1], status: 422}), {status: 422, headers: {'Content-Type': 'application/problem+json'}})) : before(url, options);"""


@test
def words_of_errors_are_only_text():
    """A proxy, or a model's own error, may say anything: answers are put in place of the daemon's."""
    with Page(daemon().address) as page:
        page.ready()
        for words in CANARIES:
            for field in ("/steps", "/" + words, words, None, 7, "/__proto__", "/constructor/x"):
                page.js("const arguments_ = arguments;" + ANSWER, words, field)
                page.click("generate")
                page.until("return [...document.querySelectorAll('#form .error, [data-testid=banner]')].some((one) => !one.hidden && one.textContent.includes(arguments[0].slice(1, -1)))",
                           words, what=f"{words!r} at {field!r}")
                same(page.js("return window.owned || null"), None, "a script that ran")
        same(page.js("return document.querySelectorAll('main script, main iframe').length"), 0, "markup of errors")


@test
def recipes_of_strangers_are_only_text():
    """Pictures that are dropped have texts that anybody may have written."""
    drop = """const transfer = new DataTransfer(); transfer.items.add(new File([Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0))], arguments[1], {type: 'image/png'}));
        document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}))"""
    plain = png.png(8, 8, lambda x, y, c: x + y)
    with Page(daemon().address) as page:
        page.ready()
        for words in CANARIES:
            for request in ({"model": words}, {"steps": words, "seed": words, "sampler": words, "guidance_scale": words, "n": words, words: words}, {"class_label": words},
                            {"class_mixture": [{"class_label": words, "weight": words}]}, {"__proto__": {"owned": 1}}, {"seed": {"toString": 1}}, {"steps": [[]]}):
                text = b"denoised\0" + json.dumps({"request": request}).encode("latin1", "replace")
                data = plain[:33] + png.chunk(b"tEXt", text) + plain[33:]
                page.js("document.querySelector('[data-testid=seed]').value = 'untouched'; document.activeElement.blur()")
                page.js(drop, base64.b64encode(data).decode(), words)
                page.until("return document.activeElement.dataset.testid === 'generate' || !document.querySelector('[data-testid=banner]').hidden", what=f"something is said of {request}")
                page.js("document.querySelector('#banner-close').click()")
                same(page.js("return [window.owned || null, ({}).owned || null]"), [None, None], "a script that ran")


@test
def nothing_else_is_asked_for():
    with Page(daemon().address) as page:
        page.ready()
        fill_form(page, steps="2")
        page.click("generate")
        stage_job(page)
        page.click("stage-recipe")
        page.click("paint")
        page.find("paint-canvas")
        page.click("dialog-close")
        page.click("nav-machine")
        page.says("machine-note", "Live")
        names = page.js("return performance.getEntries().filter((one) => ['resource', 'navigation'].includes(one.entryType)).map((one) => one.name)")
        check(len(names) > 15, names)
        same([name for name in names if not name.startswith((daemon().address + "/", "blob:" + daemon().address + "/"))], [], "requests elsewhere")
        same(page.js("return document.cookie"), "", "cookies")
        same(page.js("return fetch('http://127.0.0.2:1/').then(() => 'reached', (error) => error.name)"), "TypeError", "another host, from a script of the page")
        page.allowed.append("Content Security Policy|127.0.0.2")


@test
def it_works_behind_the_proxy_and_under_a_base_path():
    browser()
    if not proxy.have_nginx():
        raise Skip("nginx is not installed")
    with proxy.ProxiedDaemon("--base-path", "/pictures", proxy_changes=proxy.UNLIMITED) as one, Page(one.address, "/pictures/") as page:
        page.ready()
        fill_form(page, steps="2")
        page.click("generate")
        job_id = stage_job(page)
        page.find("picture")
        same(one.get(f"/pictures/jobs/{job_id}").json["state"], "succeeded", "the job under the base path")
        check("/pictures/generate" in page.js("const {base} = await import('/pictures/page/api.js'); return base + '/generate'"), "the base path in commands")
        page.click("stage-recipe")
        check(f"{one.address}/pictures/generate" in page.value("curl"), "the command's address")
        page.click("dialog-close")
        page.click("nav-machine")
        page.says("machine-note", "Live")
        page.chromium.reload()
        page.says("machine-note", "Live")


run(__name__)
