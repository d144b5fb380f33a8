#!/usr/bin/env python3
"""Pictures of the page as it is, made by the page itself: `make screenshots` puts them into build/screenshots; server/page.png, which the README
shows, is the first of them. No test: it prints what it made.
"""
import harness_path  # noqa: F401
from page import BUILT_IN, Daemon, Page, Skip, browser, os

CLASSES = [9, 8, 0, 5, 3, 4]


def ready(page):
    page.until("return document.querySelector('#status').dataset.state === 'ready' && document.querySelectorAll('.class').length > 5")


def make(page, index, seed, count=1):
    """One job, until all of its pictures are on the stage."""
    page.js("document.querySelector(`[data-testid=class][data-index='${arguments[0]}']`).click()", str(index))
    page.write("seed", seed)
    page.write("number", count)
    before = page.js("return document.querySelector('#stage').dataset.job || ''")
    page.click("generate")
    page.until("return document.querySelector('#stage').dataset.job !== arguments[0] && "
               "[...document.querySelectorAll('[data-testid=picture]')].filter((one) => one.complete).length === arguments[1]", before, count)


def still(page):
    """From the top of the page, with every picture that can be seen there, and the mouse away."""
    page.chromium.post("/actions", actions=[{"type": "pointer", "id": "mouse", "actions": [{"type": "pointerMove", "duration": 0, "x": 1, "y": 1}]}])
    page.js("document.activeElement.blur(); document.querySelector('.form-body').scrollTop = 0; scrollTo(0, 0)")
    page.until("return [...document.querySelectorAll('.tile')].filter((one) => one.checkVisibility() && one.getBoundingClientRect().top < innerHeight)"
               ".every((one) => !one.querySelector('p') && [...one.querySelectorAll('img')].every((image) => image.src && image.complete))")


def main():
    chromium = browser()
    with Daemon("--model", f"fashion-mnist={BUILT_IN}", name="tiny") as daemon, Page(daemon.address) as page:
        chromium.size(1440, 1000)
        chromium.media(prefers_color_scheme="light")
        ready(page)
        page.choose("model", "fashion-mnist")
        page.until("return document.querySelectorAll('.class').length > 10 && document.querySelector('#model-note').innerText.includes('32')")
        page.click("make-samples")
        page.until("return document.querySelectorAll('#classes img').length >= 11")
        for index in CLASSES:
            make(page, index, 11, 4 if index in (9, 3) else 1)
        make(page, 7, 21, 9)
        still(page)
        page.screenshot("studio-light")
        chromium.media(prefers_color_scheme="dark")
        page.screenshot("studio-dark")
        chromium.size(390, 844, phone=True)
        page.screenshot("studio-phone")
        chromium.size(1440, 1000)
        page.click("compare")
        page.click("sheet-go")
        page.until("return document.querySelectorAll('[data-testid=picture]').length === 16")
        still(page)
        page.screenshot("sheet-dark")
        page.click("nav-machine")
        for index in range(10):
            daemon.post({"model": "fashion-mnist", "class_label": index, "n": 16, "steps": 60})
        page.until("return document.querySelectorAll('.chart')[0]?.getAttribute('aria-label')?.match(/last (1[4-9]|[2-9]\\d) seconds/)")
        page.screenshot("machine-dark")
    for name in ("studio-light", "studio-dark", "studio-phone", "sheet-dark", "machine-dark"):
        print(os.path.join("build/screenshots", name + ".png"))


try:
    main()
except Skip as reason:
    print(f"SKIP screenshots: {reason}")
