#!/usr/bin/env python3
"""An open page while the daemon dies, comes back, drains or cannot be reached; and pictures that have expired."""
import contextlib
import sqlite3

from page import *  # noqa: F403

# A server that is gone is told by the browser in so many words.
GONE = [r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_SOCKET_NOT_CONNECTED|ERR_INTERNET_DISCONNECTED",
        r"\b503 \(Service Unavailable"]
STATE = "return document.querySelector('[data-testid=status]').dataset.state === arguments[0]"


def fixed_port(**options):
    """A daemon whose address outlives it."""
    browser()
    one = Daemon(**options)
    one.listen = f"127.0.0.1:{one.port}"
    return one


@test
def a_daemon_that_is_killed_is_found_again_and_the_picture_goes_on():
    with fixed_port(**slow(50)) as one, Page(one.address, allow=GONE) as page:
        page.ready()
        fill_form(page, steps="1000")
        page.choose("sampler", "ddim")
        page.click("generate")
        job_id = stage_job(page, "running")
        page.until("return document.querySelector('[data-testid=cell]').dataset.previews >= 1", what="a preview")
        one.kill()
        page.until(STATE, "offline", what="the page knows that nobody is there")
        page.says("status", "Not reachable")
        seen = int(page.js("return document.querySelector('[data-testid=cell]').dataset.previews"))
        one.start()
        page.until(STATE, "ready", what="the page knows that it is back")
        page.until("return document.querySelector('[data-testid=cell]').dataset.previews > arguments[0]", seen, what="previews of the same job")
        same(stage_job(page, "running"), job_id, "the job on the stage")
        page.click("cancel")
        stage_job(page, "canceled")


@test
def what_is_asked_while_nobody_is_there_is_asked_once_when_it_is_back():
    with fixed_port() as one, Page(one.address, allow=GONE) as page:
        page.ready()
        fill_form(page, steps="2")
        one.kill()
        page.click("generate")
        page.says("banner", "sent again")
        one.start()
        job_id = stage_job(page)
        page.gone("banner")
        same([job["id"] for job in one.get("/jobs").json["jobs"]], [job_id], "jobs")


@test
def an_answer_that_was_cut_off_makes_no_second_job():
    """The daemon dies when the job is on disk and nobody has been told: the page asks again with the same Idempotency-Key."""
    fired = os.path.join(scratch("fired"), "fired")
    with fixed_port(program=FAULTS, environment={"DENOISED_FAULT": "after_commit_before_reply:1", "DENOISED_FAULT_FIRED": fired}) as one, \
            Page(one.address, allow=GONE) as page:
        page.ready()
        fill_form(page, steps="2")
        page.click("generate")
        one.process.wait(PATIENCE)
        page.says("banner", "sent again")
        one.start()
        job_id = stage_job(page)
        same([job["id"] for job in one.get("/jobs").json["jobs"]], [job_id], "jobs")


@test
def without_a_network_the_page_stays_and_says_so():
    with Daemon() as one, Page(one.address, allow=GONE) as page:
        page.ready()
        page.chromium.offline()
        try:
            fill_form(page, steps="2")
            page.click("generate")
            page.says("banner", "sent again")
        finally:
            page.chromium.offline(False)
        stage_job(page)
        page.find("picture")
        same(len(one.get("/jobs").json["jobs"]), 1, "jobs")


@test
def a_daemon_that_drains_says_so():
    with Daemon("--drain-seconds", "600", **slow(50)) as one, Page(one.address, allow=GONE) as page:
        page.ready()
        fill_form(page, steps="1000")
        page.choose("sampler", "ddim")
        page.click("generate")
        job_id = stage_job(page, "running")
        one.process.terminate()
        eventually(lambda: one.get("/readyz").status == 503, what="the drain")
        page.until(STATE, "draining", what="the page says that it drains")
        page.says("status", "Draining")
        page.click("generate")
        page.says("banner", "(?i)drain|restart")
        page.until("return document.querySelector('[data-testid=stage]').dataset.job === arguments[0]", job_id, what="the running job on the stage")
        page.click("cancel")
        same(one.process.wait(PATIENCE), 0, "exit status")


@test
def what_has_expired_goes_without_a_fuss():
    with fixed_port() as one, Page(one.address, allow=[*GONE, r"\b410 \(Gone"]) as page:
        page.ready()
        fill_form(page, steps="2")
        page.click("generate")
        job_id = stage_job(page)
        page.find("picture")
        one.stop()
        with contextlib.closing(sqlite3.connect(os.path.join(one.data, "denoised.db"))) as db, db:
            db.execute("UPDATE job SET finished_ms = finished_ms - 864000000, created_ms = created_ms - 864000000")
        one.start()
        eventually(lambda: one.get(f"/jobs/{job_id}").status == 410, what="the end of its time")
        page.until(STATE, "ready", what="the page knows that the daemon is back")
        page.click("stage-recipe")
        page.click("delete")
        page.click("delete")
        page.until("return document.querySelectorAll('[data-testid=tile]').length === 0", what="the tile is gone")
        page.says("gallery-note", "Nothing yet")
        check(not page.shown("banner"), f"the banner says {page.text('banner')!r}")


@test
def two_tabs_see_the_same_pictures():
    with Daemon() as one, Page(one.address) as page:
        page.ready()
        first = page.chromium.window()
        second = page.chromium.new_window()
        page.chromium.open(one.address)
        page.ready()
        fill_form(page, steps="2")
        page.click("generate")
        job_id = stage_job(page)
        page.chromium.close_window()
        check(second not in page.chromium.windows(), "the second tab is still open")
        page.chromium.switch(first)
        page.until("return document.querySelector(`[data-testid=tile][data-job='${arguments[0]}']`)", job_id, what="the other tab's picture")


run(__name__)
