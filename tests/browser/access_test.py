#!/usr/bin/env python3
"""Who cannot see, point or wait: axe-core on every view in both themes, the keyboard alone, a phone's width; pictures of the page are kept."""
import importlib.util

from page import *  # noqa: F403
from webdriver import ENTER, ESCAPE, SHIFT, TAB

AXE = """return axe.run(document, {resultTypes: ['violations', 'incomplete'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then((found) =>
  found.violations.map((one) => `${one.id} (${one.impact}): ${one.nodes.slice(0, 3).map((node) => node.target.join(' ') + ' ' + node.failureSummary.slice(0, 200)).join('; ')}`))"""


def axe_source():
    """The script of the Python package that has it, whichever it is."""
    for package in ("axe_playwright_python", "axe_core_python"):
        found = importlib.util.find_spec(package)
        if found:
            with open(os.path.join(os.path.dirname(found.origin), "axe.min.js"), encoding="utf8") as file:
                return file.read()
    raise Skip("axe-core is not installed (build/venv)")


def judge(page, where):
    """No violation in what is shown; what is under way in style sheets ends first."""
    page.until("return document.getAnimations().every((one) => one.playState !== 'running' || one.effect.getComputedTiming().iterations === Infinity)")
    if not page.js("return typeof axe !== 'undefined'"):
        page.js(axe_source())
    same(page.js(AXE), [], f"violations in {where}")
    wide = page.js("return [document.documentElement.scrollWidth, innerWidth]")
    check(wide[0] <= wide[1], f"{where} is {wide[0]} wide in a window of {wide[1]}")
    page.screenshot(where)


def views(page, theme):
    """Every view and dialog, one after the other."""
    page.ready()
    page.click('[data-testid="class"][data-index="7"]')
    judge(page, f"studio-empty-{theme}" if theme == "dark" else f"studio-{theme}")
    fill_form(page, steps="6", number="4", seed="42")
    page.click("generate")
    stage_job(page)
    page.until("return document.querySelectorAll('[data-testid=picture]').length === 4", what="the pictures")
    judge(page, f"pictures-{theme}")
    page.click('[data-testid="cell"][data-index="1"]')
    page.until("const image = document.querySelector('[data-testid=recipe-picture]'); return image && image.naturalWidth === 32")
    judge(page, f"recipe-{theme}")
    page.click("vary")
    page.find("vary-go")
    judge(page, f"vary-{theme}")
    page.click("dialog-close")
    page.click("compare")
    page.find("sheet-go")
    judge(page, f"compare-{theme}")
    page.click("dialog-close")
    page.click('[data-testid="cell"][data-index="0"]')
    page.click("paint")
    page.find("paint-canvas")
    judge(page, f"paint-{theme}")
    page.click("dialog-close")
    page.click("help")
    judge(page, f"keys-{theme}")
    page.click("dialog-close")
    page.write("steps", "0")
    page.click("generate")
    page.find('[data-error="/steps"]')
    judge(page, f"refusal-{theme}")
    page.write("steps", "6")
    page.click("nav-machine")
    page.says("machine-note", "Live")
    judge(page, f"machine-{theme}")
    page.click("nav-studio")
    page.find("generate")


def viewed(theme, **size):
    axe_source()
    chromium = browser()
    chromium.media(prefers_color_scheme="dark" if theme == "dark" else "light", prefers_reduced_motion="reduce")
    if size:
        chromium.size(**size)
    chromium.cdp("Page.enable")
    chromium.cdp("Page.setBypassCSP", enabled=True)  # for axe-core alone, which is no part of the page
    try:
        with Page(daemon().address, allow=[r"422 \(Unprocessable"]) as page:
            views(page, f"{theme}-phone" if size else theme)
    finally:
        chromium.cdp("Page.setBypassCSP", enabled=False)
        chromium.media()
        chromium.cdp("Emulation.clearDeviceMetricsOverride")


@test
def every_view_is_accessible_in_light():
    viewed("light")


@test
def every_view_is_accessible_in_dark():
    viewed("dark")


@test
def every_view_is_accessible_on_a_phone():
    viewed("light", width=390, height=844, phone=True)


@test
def the_theme_is_kept():
    with Page(daemon().address) as page:
        page.ready()
        paper = "return getComputedStyle(document.body).backgroundColor"
        page.click("theme")
        light = page.js(paper)
        page.click("theme")
        page.until("return getComputedStyle(document.body).backgroundColor !== arguments[0]", light, what="dark")
        dark = page.js(paper)
        page.chromium.reload()
        page.ready()
        same(page.js(paper), dark, "the theme after a reload")
        page.click("theme")
        page.chromium.media(prefers_color_scheme="dark")
        page.until("return getComputedStyle(document.body).backgroundColor === arguments[0]", dark, what="the system's dark")
        page.chromium.media(prefers_color_scheme="light")
        page.until("return getComputedStyle(document.body).backgroundColor === arguments[0]", light, what="the system's light")
        page.chromium.media()


FOCUS = """const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
return {name: one.dataset.testid || one.id || one.className || one.tagName, seen: box.width > 0 && box.height > 0, ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1}"""


@test
def a_picture_is_made_by_the_keyboard_alone():
    with Page(daemon().address) as page:
        page.ready()
        page.write("steps", "2")
        page.js("document.querySelector('.skip').focus()")
        order = []
        while len(order) < 80 and (not order or order[-1] != "generate"):
            page.chromium.keys(TAB)
            at = page.js(FOCUS)
            check(at["seen"] and at["ring"], f"the focus is not seen at {at}")
            order.append(at["name"])
        wanted = ["nav-studio", "nav-machine", "model", "class-search", "class", "guidance", "steps", "sampler", "seed", "dice", "lock", "number", "generate"]
        check(set(wanted) <= set(order), f"reached by Tab: {order}")
        places = [order.index(name) for name in wanted]
        same(places, sorted(places), f"order of {order}")
        page.chromium.keys(ENTER)
        stage_job(page)
        page.find("picture")
        page.js("document.querySelector('[data-testid=cell]').focus()")
        page.chromium.keys(ENTER)
        page.until("return document.querySelector('[data-testid=dialog]').open", what="the recipe, by Enter")
        for _ in range(30):  # the focus stays in it
            page.chromium.keys(TAB)
            check(page.js("return document.activeElement === document.body || document.querySelector('[data-testid=dialog]').contains(document.activeElement)"), "the focus leaves the dialog")
        page.chromium.keys(TAB, held=SHIFT)
        page.chromium.keys(ESCAPE)
        page.until("return !document.querySelector('[data-testid=dialog]').open", what="Escape closes it")
        page.until("return document.activeElement.dataset.testid === 'cell'", what="the focus is where it was")
        page.chromium.keys("?")
        page.until("return document.querySelector('[data-testid=dialog]').dataset.name === 'keys' && document.querySelector('[data-testid=dialog]').open", what="the keys")
        page.chromium.keys(ESCAPE)
        page.until("return !document.querySelector('[data-testid=dialog]').open")
        page.chromium.keys("m")
        page.says("machine-note", "Live")
        page.chromium.keys("s")
        page.find("form")


run(__name__)
