#!/usr/bin/env python3
"""The client of chromedriver itself: what it starts it ends, what it makes it deletes, and a page's faults do not go by unseen."""
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from page import browser, check, eventually, run, same, test
from webdriver import TAB, Chromium, Missing

PAGE = b"""<!doctype html><title>one</title><button id=b>press</button><input id=i><canvas id=c width=100 height=100 style="background:#ddd"></canvas>
<script nonce=n>b.onclick = () => { document.title = 'two'; console.error('a fault'); };
window.drawn = []; for (const kind of ['pointerdown', 'pointermove', 'pointerup']) c.addEventListener(kind, (e) => drawn.push([kind, e.offsetX, e.offsetY]));</script>
<script>document.title = 'the policy does not hold'</script>"""


class Served(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802 - the library's name
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Security-Policy", "default-src 'none'; script-src 'nonce-n'; style-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *unused):
        pass


def small_site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"


@test
def a_page_is_driven():
    chromium = browser()
    server, url = small_site()
    chromium.console()
    chromium.open(url)
    same(chromium.js("return document.title"), "one", "title")
    chromium.click(chromium.find("#b")[0])
    same(chromium.js("return document.title"), "two", "title after the click")
    chromium.keys(TAB, "x", "y")
    same(chromium.js("return document.querySelector('#i').value"), "xy", "typed")
    chromium.drag(chromium.find("#c")[0], [(-20, -20), (0, 0), (20, 20)])
    drawn = chromium.js("return drawn")
    kinds = [kind for kind, _, _ in drawn]
    check("pointerdown" in kinds and kinds[-1] == "pointerup", drawn)
    check(any(kind == "pointermove" and abs(x - 50) < 1 and abs(y - 50) < 1 for kind, x, y in drawn), drawn)
    same(chromium.js("return new Promise((done) => setTimeout(() => done([arguments[0], arguments[0] + 1]), 1))", 7), [7, 8], "a promise")
    said = chromium.console()
    check(any(line["source"] == "console-api" and "a fault" in line["message"] for line in said), said)
    check(any(line["source"] == "security" and "script-src" in line["message"] for line in said), said)
    server.shutdown()
    server.server_close()


@test
def nothing_outside_is_reached():
    chromium = browser()
    chromium.open("data:text/html,x")
    same(chromium.js("return fetch('http://example.org/').then(() => 'reached', () => 'not reached')"), "not reached", "another host")


@test
def what_it_starts_it_ends():
    browser()  # SKIP where there is none
    one = Chromium()
    folder, pids = one.folder, one.processes()
    check(len(pids) >= 3 and os.path.isdir(folder), (pids, folder))
    one.close()
    one.close()
    check(not os.path.exists(folder), f"{folder} is still there")
    eventually(lambda: not one.processes(), what="the end of its processes")


LEFT = "import sys, time; sys.path.insert(0, sys.argv[1]); import webdriver; one = webdriver.Chromium(); print(one.driver.pid, one.folder, flush=True); time.sleep(600)"


@test
def a_test_that_is_ended_leaves_nothing():
    browser()
    here = os.path.dirname(os.path.abspath(__file__))
    for number in (signal.SIGTERM, signal.SIGKILL):
        child = subprocess.Popen([sys.executable, "-c", LEFT, here], stdout=subprocess.PIPE)
        group, folder = child.stdout.readline().decode().split()
        child.send_signal(number)
        child.wait()
        eventually(lambda g=group: subprocess.run(["pgrep", "-g", g], stdout=subprocess.DEVNULL, check=False).returncode == 1, what=f"the end of all of group {group}")
        if number == signal.SIGTERM:
            check(not os.path.exists(folder), f"{folder} is still there")
        else:
            subprocess.run(["rm", "-rf", folder], check=True)


@test
def a_missing_browser_is_told_as_such():
    path, os.environ["PATH"] = os.environ["PATH"], "/nowhere"
    try:
        Chromium()
        raise AssertionError("it started without a program")
    except Missing as reason:
        check("not installed" in str(reason), reason)
    finally:
        os.environ["PATH"] = path


run(__name__)
