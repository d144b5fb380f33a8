#!/usr/bin/env python3
"""The operator's view: its numbers are those of GET /stats, they move with what is made, and it asks for nothing while nobody looks."""
import re

from page import *  # noqa: F403


def asked(page):
    """How often this page has asked for /stats."""
    return page.js("return performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/stats')).length")


@test
def the_machine_shows_what_the_daemon_says():
    with Daemon("--rows-max", "1", **slow(50)) as one, Page(one.address, "/#/machine") as page:
        page.says("machine-note", "Live")
        check(not page.shown("form"), "the studio is still there")
        same(page.js("return document.querySelector('[data-testid=nav-machine]').getAttribute('aria-current')"), "page", "where it is")
        page.says("machine-queue", "^0$")
        ids = [job["id"] for job in one.post([{"class_label": 1, "steps": 1000, "sampler": "ddim"}] * 6).json["jobs"]]
        eventually(lambda: one.get("/stats").json["queue"]["queued"] == 4, what="four that wait")
        page.says("machine-queue", "^4$")
        page.says("machine-rows", r"^[1-9]")
        page.says("machine-tick", r"^\d.* m?s$")
        pid = one.get("/stats").json["workers"][0]["pid"]
        page.says("machine-workers", rf"^{pid}\s")
        page.says("machine-models", r"^tiny\s+ready")
        words = page.js("return [...document.querySelectorAll('.chart')].map((one) => one.getAttribute('aria-label'))")
        check(len(words) == 4 and all(re.search(r": now .*, at most ", text) for text in words), f"charts in words: {words}")
        for job_id in ids:
            one.call("DELETE", f"/jobs/{job_id}")
        page.says("machine-queue", "^0$")
        page.says("machine-rest", r"Jobs cancelled\s+6\b")


@test
def nobody_is_asked_while_nobody_looks():
    with Daemon() as one, Page(one.address, "/#/machine") as page:
        page.says("machine-note", "Live")
        eventually(lambda: asked(page) >= 2, what="it asks again")
        page.click("nav-studio")
        page.ready()
        page.js("performance.clearResourceTimings()")
        fill_form(page, steps="2")
        for _ in range(3):
            before = page.js("return document.querySelector('[data-testid=stage]').dataset.job || ''")
            page.click("generate")
            stage_job(page, other_than=before)
        check(asked(page) <= 1, f"{asked(page)} questions from a view that is not shown")  # one may have been on its way
        page.click("nav-machine")
        page.says("machine-note", "Live")
        eventually(lambda: asked(page) >= 2, what="it asks again when somebody looks")


run(__name__)
