"""The page in a browser: real daemons, one Chromium for a test's file, and ways to look for what a page says by its data-testid names.

Everything waits for what the page shows, with the patience of the harness; nothing waits for time.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
from harness import CLASSES, FAULTS, PROGRAM, ROOT, SLOW, Daemon, Skip, base64, check, eventually, json, run, same, scratch, test, tiny_model  # noqa: E402
import png  # noqa: E402
from webdriver import PATIENCE, Chromium, Missing  # noqa: E402

BUILT_IN = os.path.join(ROOT, "models/fashion-mnist")
# Where `make screenshots` and the tests put their pictures.
SHOTS = os.environ.get("SCREENSHOTS", os.path.join(ROOT, "build/screenshots"))
_browser = []


def browser():
    """The browser of this program; SKIP where there is none."""
    if not _browser:
        try:
            _browser.append(Chromium())
        except Missing as reason:
            _browser.append(str(reason))
    if isinstance(_browser[0], str):
        raise Skip(_browser[0])
    return _browser[0]


def slow(milliseconds):
    """Options of a daemon whose every tick takes so much longer: what is under way stays under way."""
    return {"program": FAULTS, "environment": {"DENOISED_FAULT": f"step_k:1:slow{milliseconds}"}}


class Page:
    """The page of `address` in the browser's tab that is in front. Its console may say nothing but what `allow` expects (patterns)."""

    def __init__(self, address, path="/", allow=()):
        self.chromium, self.address, self.allowed = browser(), address, list(allow)
        self.chromium.console()
        self.chromium.open(address + path)

    def ready(self):
        """Waits until the daemon is ready and the form is built."""
        self.until("return document.querySelector('[data-testid=status]').dataset.state === 'ready'"
                   " && document.querySelectorAll('[data-testid=class]').length > 0", what="a page that is ready")
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, *unused):
        """What the console said is judged, unless the test has failed already."""
        try:
            if kind is None:
                self.judge_console()
        finally:
            self.chromium.open("about:blank")  # its streams end here, and not with the daemon

    def judge_console(self):
        for line in self.chromium.console():
            if not any(re.search(pattern, line["message"]) for pattern in self.allowed):
                raise AssertionError(f"the console says ({line['source']}, {line['level']}) {line['message'][:400]}")

    def js(self, script, *arguments):
        return self.chromium.js(script, *arguments)

    def until(self, script, *arguments, what=None):
        """Waits until the script's value is true in JavaScript's sense; that value. It may run many times."""
        return eventually(lambda: self.chromium.js(script, *arguments), PATIENCE / SLOW, what or script)

    @staticmethod
    def css(name):
        """The selector of a data-testid name; what has other characters than a name is a selector already."""
        return f'[data-testid="{name}"]' if re.fullmatch(r"[\w-]+", name) else name

    def find(self, name):
        """The first visible element of this name, when there is one."""
        script = "return [...document.querySelectorAll(arguments[0])].find((one) => one.checkVisibility({visibilityProperty: true})) || null"
        return self.until(script, self.css(name), what=f"{name} is visible")

    def shown(self, name):
        script = "return [...document.querySelectorAll(arguments[0])].some((one) => one.checkVisibility({visibilityProperty: true}))"
        return self.js(script, self.css(name))

    def gone(self, name):
        eventually(lambda: not self.shown(name), PATIENCE / SLOW, f"{name} is gone")

    def text(self, name):
        return self.js("return (document.querySelector(arguments[0]) || {innerText: ''}).innerText", self.css(name))

    def says(self, name, pattern):
        """Waits until the element's text matches; the match."""
        return eventually(lambda: re.search(pattern, self.text(name)), PATIENCE / SLOW, f"{name} says {pattern}, not {self.text(name)!r}")

    def click(self, name):
        """A press of the mouse where the element is, once it can be pressed."""
        element = self.find(name)
        self.until("return !arguments[0].disabled", element, what=f"{name} can be pressed")
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        self.chromium.click(element)

    def value(self, name):
        self.until("return document.querySelector(arguments[0])", self.css(name), what=name)
        return self.js("return document.querySelector(arguments[0]).value", self.css(name))

    def write(self, name, text):
        """Puts text in place of what a field holds, by its keys."""
        element = self.find(name)
        self.chromium.clear(element)
        if text == "":
            self.js("arguments[0].dispatchEvent(new Event('input', {bubbles: true}))", element)  # clearing by WebDriver is no input
        self.chromium.type(element, str(text))

    def choose(self, name, value):
        """Chooses the option of a select."""
        script = """const select = arguments[0]; if (![...select.options].some((o) => o.value === arguments[1])) return false;
            select.value = arguments[1]; select.dispatchEvent(new Event('input', {bubbles: true})); select.dispatchEvent(new Event('change', {bubbles: true}));
            return true"""
        element = self.find(name)
        self.until(script, element, value, what=f"{name} offers {value}")

    def screenshot(self, name):
        os.makedirs(SHOTS, exist_ok=True)
        with open(os.path.join(SHOTS, name + ".png"), "wb") as out:
            out.write(self.chromium.screenshot())



_shared = []


def daemon():
    """One for all tests of a file that only make pictures; it serves fashion-mnist and tiny."""
    if not _shared:
        browser()  # SKIP before anything is started
        _shared.append(Daemon("--model", f"tiny={tiny_model()}", model=BUILT_IN, name="fashion-mnist"))
    return _shared[0]


def pixels_on_page(page, selector):
    """Grey values of a picture as the browser decoded it, in rows."""
    return page.js("""const image = document.querySelector(arguments[0]), canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data, rows = [];
        for (let y = 0; y < canvas.height; y++) rows.push(Array.from({length: canvas.width}, (_, x) => data[4 * (y * canvas.width + x)]));
        return rows""", selector)


def fill_form(page, **fields):
    for name, value in fields.items():
        page.write(name, value)


def stage_job(page, state="succeeded", other_than=None):
    """Waits until the stage shows a job in this state; its id."""
    return page.until("const s = document.querySelector('[data-testid=stage]').dataset; return s.state === arguments[0] && s.job !== arguments[1] && s.job",
                      state, other_than, what=f"a job that {state} on the stage")


__all__ = ["BUILT_IN", "CLASSES", "Daemon", "FAULTS", "PATIENCE", "PROGRAM", "Page", "ROOT", "SHOTS", "Skip", "base64", "browser", "check", "daemon", "eventually",
           "fill_form", "json", "os", "pixels_on_page", "png", "run", "same", "scratch", "slow", "stage_job", "sys", "test", "tiny_model"]
