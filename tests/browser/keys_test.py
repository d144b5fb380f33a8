#!/usr/bin/env python3
"""Keys on the page: asked for, refused, kept for a tab, taken back; what one may see; and what a key must not leave behind."""
import re
import subprocess

from page import *  # noqa: F403
from webdriver import ENTER, ESCAPE

UNAUTHORIZED = [r"\b401 \(Unauthorized"]


def key_command(data, *words):
    done = subprocess.run([PROGRAM, "key", *words, "--data", data], capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.strip()


class Keyed:
    """A daemon with a key for everything and one for a client."""

    def __enter__(self):
        browser()
        self.data = scratch("data")
        self.admin = key_command(self.data, "add", "operator", "--scopes", "submit,read,read-all,admin")
        self.alice = key_command(self.data, "add", "alice")
        self.daemon = Daemon(data=self.data)
        return self

    def __exit__(self, *unused):
        self.daemon.kill()

    def get(self, path, key):
        return self.daemon.get(path, Authorization="Bearer " + key)


def give_key(page, key):
    page.find("key")
    page.write("key", key)
    page.chromium.keys(ENTER)


@test
def a_key_is_asked_for_and_kept_for_the_tab():
    with Keyed() as keyed, Page(keyed.daemon.address, allow=UNAUTHORIZED) as page:
        page.find("key-dialog")
        same(page.js("return document.activeElement.dataset.testid"), "key", "what has the focus")
        same(page.js("return document.activeElement.type"), "password", "how a key is shown")
        check(not page.shown("key-error"), "an error before any key")
        page.chromium.keys(ESCAPE, ESCAPE, ESCAPE)  # it cannot be sent away: there is nothing behind it
        give_key(page, "dn_aaaaaaaa_" + "a" * 43)
        page.says("key-error", "not known")
        for wrong in ("ключ", "two words", "dn_…"):  # what no header can carry
            give_key(page, wrong)
            page.says("key-error", "no spaces")
            check(page.shown("key-dialog"), f"{wrong} is taken")
            same(page.js("return sessionStorage.length"), 1, "keys that are kept: the unknown one")
        give_key(page, keyed.alice)
        page.ready()
        page.gone("key-dialog")
        fill_form(page, steps="2")
        page.click("generate")
        job_id = stage_job(page)
        page.find("picture")
        same(keyed.get(f"/jobs/{job_id}", keyed.alice).status, 200, "the client's job")
        page.chromium.reload()
        page.ready()
        check(not page.shown("key-dialog"), "the key is forgotten at a reload")
        page.until("const image = document.querySelector('[data-testid=thumb]'); return image && image.naturalWidth === 8", what="the gallery with the key")
        kept = page.js("return [JSON.stringify(localStorage), document.cookie, location.href, document.documentElement.outerHTML]")
        check(all(keyed.alice not in text for text in kept), "the key stands in local storage, a cookie, the address or the page")
        first = page.chromium.window()
        page.chromium.new_window()
        page.chromium.open(keyed.daemon.address)
        page.find("key-dialog")
        page.chromium.close_window()
        page.chromium.switch(first)
        page.click("sign-out")
        page.find("key-dialog")
        same(page.js("return JSON.stringify(sessionStorage)"), "{}", "what is left after signing out")
        with open(keyed.daemon.log_path, encoding="utf8") as log:
            check(keyed.alice not in log.read(), "the key stands in the log")


@test
def a_revoked_key_is_asked_for_again():
    with Keyed() as keyed, Page(keyed.daemon.address, allow=UNAUTHORIZED) as page:
        give_key(page, keyed.alice)
        page.ready()
        key_command(keyed.data, "revoke", keyed.alice.split("_")[1])
        eventually(lambda: keyed.get("/jobs", keyed.alice).status == 401, what="the key's end")
        fill_form(page, steps="2")
        page.click("generate")
        page.says("key-error", "revoked")
        give_key(page, keyed.admin)
        stage_job(page)
        page.find("picture")


@test
def clients_see_their_own_and_the_machine_is_the_operators():
    with Keyed() as keyed, Page(keyed.daemon.address, allow=[*UNAUTHORIZED, r"\b403 \(Forbidden"]) as page:
        others = keyed.daemon.post({"class_label": 1, "steps": 1}, Authorization="Bearer " + keyed.admin).json["id"]
        eventually(lambda: keyed.get(f"/jobs/{others}", keyed.admin).json["state"] == "succeeded", what="the operator's job")
        give_key(page, keyed.alice)
        page.ready()
        page.says("gallery-note", "Nothing yet")
        check(not page.shown("tile"), "somebody else's picture")
        page.click("nav-machine")
        page.says("machine-note", "scope admin")
        page.click("sign-out")
        give_key(page, keyed.admin)
        page.says("machine-note", "Live")
        page.click("nav-studio")
        page.find("tile")


@test
def a_command_is_copied_without_the_key():
    with Keyed() as keyed, Page(keyed.daemon.address, allow=UNAUTHORIZED) as page:
        give_key(page, keyed.alice)
        page.ready()
        page.chromium.allow(keyed.daemon.address, "clipboardReadWrite", "clipboardSanitizedWrite")
        fill_form(page, steps="2")
        page.click("generate")
        job_id = stage_job(page)
        page.click("stage-recipe")
        page.click("copy-curl")
        page.says("live", "Copied")
        command = page.js("return navigator.clipboard.readText()")
        check(keyed.alice not in command and "$DENOISED_KEY" in command, "the command has the key in it")
        folder = scratch("curl")
        subprocess.run(["bash", "-c", command], cwd=folder, check=True, timeout=600, env=dict(os.environ, DENOISED_KEY=keyed.alice))
        with open(os.path.join(folder, os.listdir(folder)[0]), "rb") as file:
            same(file.read(), keyed.get(f"/jobs/{job_id}/images/0.png", keyed.alice).body, "what the command makes")


@test
def a_client_beyond_its_rate_is_told_when_to_come_again():
    with Keyed() as keyed:
        slow_key = key_command(keyed.data, "add", "slow", "--pending-jobs", "1", "--scopes", "submit,read")
        keyed.daemon.kill()
        keyed.daemon = Daemon(data=keyed.data, **slow(50))
        with Page(keyed.daemon.address, allow=[*UNAUTHORIZED, r"\b429 \(Too Many"]) as page:
            give_key(page, slow_key)
            page.ready()
            fill_form(page, steps="1000")
            page.choose("sampler", "ddim")
            page.click("generate")
            first = stage_job(page, "running")
            page.click("generate")
            page.says("form-error", r"(?i)pending|wait")
            page.says("generate", r"Again in \d+ s")
            check(page.js("return document.querySelector('[data-testid=generate]').disabled"), "it can be pressed")
            same(page.js("return document.querySelector('[data-testid=stage]').dataset.job"), first, "the stage after a refusal")
            page.click("cancel")
            stage_job(page, "canceled")
            page.says("generate", "^Generate$")
            page.click("generate")
            stage_job(page, "running", other_than=first)
            check(not page.shown("form-error"), "the error stays")


run(__name__)
