"""A small W3C WebDriver client for headless Chromium. Standard library only.

`Chromium` starts chromedriver on a port that the kernel chooses and one session in it, with a profile, a home and a download folder of its
own. `close` ends every process of both and deletes the folder; it is called at the exit of the program, however that comes about.
"""
import atexit
import base64
import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SLOW = {"release": 1.0, "address": 4.0, "undefined": 4.0, "thread": 12.0}.get(os.environ.get("TEST_VARIANT", "release"), 1.0)
PATIENCE = 120.0 * SLOW
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, ENTER, ESCAPE, SHIFT, SPACE = "\ue004", "\ue007", "\ue00c", "\ue008", " "
LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"
ARGUMENTS = [
    "--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-breakpad", "--mute-audio", "--password-store=basic", "--force-color-profile=srgb", "--no-proxy-server",
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider,AutofillServerCommunication",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


class Missing(Exception):
    """There is no browser here, or it does not start."""


class Refused(Exception):
    """WebDriver's own error: its word for it and the text."""

    def __init__(self, error, message):
        super().__init__(f"{error}: {message.splitlines()[0] if message else ''}")
        self.error = error


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a test that is killed leaves nothing behind


def _leave(number, _frame):
    sys.exit(128 + number)  # so that atexit runs


class Chromium:
    """One browser with one session. Not for several threads at once."""

    def __init__(self, width=1280, height=900, arguments=()):
        self.driver, self.session, self.folder = None, None, None
        browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not browser or not driver:
            raise Missing("chromium or chromedriver is not installed (Debian: chromium, chromium-driver)")
        self.folder = tempfile.mkdtemp(prefix="denoised-browser-")
        self.downloads = os.path.join(self.folder, "downloads")
        atexit.register(self.close)
        signal.signal(signal.SIGTERM, _leave)
        try:
            self._start_driver(driver)
            self._start_session(browser, width, height, list(arguments))
        except (OSError, Refused, http.client.HTTPException, Missing) as error:
            log = self._log()
            self.close()
            raise Missing(f"chromium does not start: {error}; {log}") from error

    # ---- starting and ending

    def _start_driver(self, driver):
        home = dict(os.environ, HOME=self.folder, XDG_CONFIG_HOME=self.folder, XDG_CACHE_HOME=self.folder, TMPDIR=self.folder, LC_ALL="C.UTF-8", TZ="UTC",
                    no_proxy="127.0.0.1,localhost")
        with open(os.path.join(self.folder, "driver.log"), "wb") as log:
            self.driver = subprocess.Popen([driver, "--port=0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=home,
                                           start_new_session=True, preexec_fn=_die_with_parent)
        found, done = [], threading.Event()

        def read():
            for line in self.driver.stdout:  # to its end: a full pipe would stop the driver
                match = re.search(rb"started successfully on port (\d+)", line)
                if match:
                    found.append(int(match.group(1)))
                    done.set()
            done.set()
        threading.Thread(target=read, daemon=True).start()
        done.wait(PATIENCE)
        if not found:
            raise Missing("chromedriver names no port")
        self.port = found[0]

    def _start_session(self, browser, width, height, arguments):
        profile = os.path.join(self.folder, "profile")
        arguments = [*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *arguments]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        wanted = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "unhandledPromptBehavior": "accept",
                  "timeouts": {"script": int(PATIENCE * 1000), "pageLoad": int(PATIENCE * 1000), "implicit": 0},
                  "goog:chromeOptions": {"binary": browser, "args": arguments}}
        self.session = "/session/" + self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        os.mkdir(self.downloads)
        self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.downloads)

    def _log(self):
        with contextlib.suppress(OSError), open(os.path.join(self.folder, "driver.log"), encoding="utf8", errors="replace") as log:
            return " ".join(log.read()[-400:].split())
        return ""

    def close(self):
        """Ends both programs and deletes their folder; may be called again."""
        folder, self.folder = self.folder, None
        if not folder:
            return
        atexit.unregister(self.close)
        if self.driver:
            with contextlib.suppress(Exception):
                if self.session and self.driver.poll() is None:
                    self._call("DELETE", self.session, patience=10 * SLOW)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.driver.pid, signal.SIGKILL)  # the driver began a session of its own: its browser is in its group
            self.driver.wait()
        end = time.monotonic() + 10
        while os.path.exists(folder) and time.monotonic() < end:  # a renderer may still write while it dies
            shutil.rmtree(folder, ignore_errors=True)

    def processes(self):
        """Ids of all processes of the driver's group."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{int(name)}/stat", encoding="utf8", errors="replace") as stat:
                if int(stat.read().rsplit(")", 1)[1].split()[2]) == self.driver.pid:
                    found.append(int(name))
        return found

    # ---- the protocol

    def _call(self, method, path, body=None, patience=PATIENCE + 30):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        with contextlib.closing(connection):
            text = json.dumps(body if body is not None else {}) if method == "POST" else None
            connection.request(method, path, text, {"Content-Type": "application/json; charset=utf-8"})
            value = json.loads(connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise Refused(value["error"], value.get("message", ""))
        return value

    def get(self, path):
        return self._call("GET", self.session + path)

    def post(self, path, **body):
        return self._call("POST", self.session + path, body)

    def delete(self, path):
        return self._call("DELETE", self.session + path)

    def cdp(self, command, **parameters):
        """A command of the DevTools protocol to the page in front."""
        return self.post("/goog/cdp/execute", cmd=command, params=parameters)

    def js(self, script, *arguments):
        """The value of `script`, the body of a function whose arguments are `arguments`; a promise is awaited."""
        return self.post("/execute/sync", script=script, args=list(arguments))

    def open(self, url):
        self.post("/url", url=url)

    def url(self):
        return self.get("/url")

    def reload(self):
        self.post("/refresh")

    def windows(self):
        return self.get("/window/handles")

    def new_window(self):
        """A new tab, and it is in front."""
        handle = self.post("/window/new", type="tab")["handle"]
        self.switch(handle)
        return handle

    def window(self):
        return self.get("/window")

    def switch(self, handle):
        self.post("/window", handle=handle)

    def close_window(self):
        return self.delete("/window")

    def find(self, css):
        """Elements that the selector matches, as references for WebDriver."""
        return self.post("/elements", using="css selector", value=css)

    def click(self, element):
        self.post(f"/element/{element[ELEMENT]}/click")

    def clear(self, element):
        self.post(f"/element/{element[ELEMENT]}/clear")

    def type(self, element, text):
        self.post(f"/element/{element[ELEMENT]}/value", text=text)

    def keys(self, *keys, held=""):
        """Presses keys one after the other at what has the focus, while `held` is down."""
        steps = [{"type": "keyDown", "value": held}] if held else []
        for key in keys:
            steps += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        steps += [{"type": "keyUp", "value": held}] if held else []
        self.post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": steps}])

    def drag(self, element, points):
        """Presses the mouse at the first of points (from the element's middle, in CSS pixels), moves over the others, lets go."""
        steps = [{"type": "pointerMove", "duration": 0, "origin": element, "x": int(points[0][0]), "y": int(points[0][1])}, {"type": "pointerDown", "button": 0}]
        steps += [{"type": "pointerMove", "duration": 20, "origin": element, "x": int(x), "y": int(y)} for x, y in points[1:]]
        steps.append({"type": "pointerUp", "button": 0})
        self.post("/actions", actions=[{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}])

    def console(self):
        """What the console said since the last call: a list of {level, message, source}."""
        return self.post("/se/log", type="browser")

    def screenshot(self):
        """PNG bytes of what the window shows."""
        return base64.b64decode(self.get("/screenshot"))

    # ---- the machine around the page

    def size(self, width, height, phone=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)

    def media(self, **features):
        """prefers_color_scheme="dark", prefers_reduced_motion="reduce"; none named: as the system is."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": k.replace("_", "-"), "value": v} for k, v in features.items()])

    def throttle(self, times):
        """The page's CPU is as many times slower."""
        self.cdp("Emulation.setCPUThrottlingRate", rate=times)

    def offline(self, off=True):
        self.cdp("Network.enable")
        self.cdp("Network.emulateNetworkConditions", offline=off, latency=0, downloadThroughput=-1, uploadThroughput=-1)

    def allow(self, origin, *permissions):
        self.cdp("Browser.grantPermissions", origin=origin, permissions=list(permissions))
