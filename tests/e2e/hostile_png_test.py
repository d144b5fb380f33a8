"""Hostile pictures through POST /generate: each gets its one answer, in the worker and never in the daemon, and disturbs nobody."""
from harness import *  # noqa: F403
from hostile_png_cases import DECODED, FINE, GOOD, MASKS, REFUSED, base

SPEC = {"class_label": 2, "steps": 1, "seed": 5, "sampler": "ddim", "strength": 1.0}


def value(one):
    return base(one) if isinstance(one, bytes) else one


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def judge(daemon, field, cases, common):
    """Posts every case; those that become jobs are waited for behind all of them. Returns what was not as it must be."""
    wrong, jobs = [], []
    for name, one, answer in cases:
        posted = daemon.post({**SPEC, **common, field: value(one)})
        if isinstance(answer[0], int):
            got = posted.json
            if (posted.status, got.get("code"), got.get("field")) != (answer[0], "invalid-field", "/" + field) or answer[1] not in got["detail"]:
                wrong.append(f"{field}, {name}: {posted.status} {posted.body[:200]!r}")
        elif posted.status != 202:
            wrong.append(f"{field}, {name}: {posted.status} {posted.body[:200]!r}")
        else:
            jobs.append((name, posted.json["id"], answer))
    for name, job_id, answer in jobs:
        job = daemon.wait(job_id)
        if answer == FINE:
            if job["state"] != "succeeded":
                wrong.append(f"{field}, {name}: {job['state']}, {job['error']}")
        elif (job["state"], (job["error"] or {}).get("code")) != ("failed", answer[0]) or answer[1] not in job["error"]["detail"] \
                or not job["error"]["detail"].startswith(field + ": "):
            wrong.append(f"{field}, {name}: {job['state']}, {job['error']}")
    return wrong


@test
def every_hostile_picture_gets_its_answer():
    with Daemon() as daemon:
        workers, before = daemon.worker_pids(), peak_bytes(daemon.process.pid)
        wrong = judge(daemon, "init_image", REFUSED, {}) + judge(daemon, "init_image", DECODED, {})
        wrong += judge(daemon, "mask_image", MASKS, {"init_image": base(GOOD)})
        for name, mask in (("alone", base(GOOD)), ("alone and no PNG", "x")):
            posted = daemon.post({"class_label": 2, "steps": 1, "mask_image": mask})
            if posted.status != 422 or posted.json["field"] != "/mask_image":
                wrong.append(f"mask_image, {name}: {posted.status} {posted.body[:200]!r}")
        print(f"hostile files: {len(REFUSED) + len(DECODED) + len(MASKS) + 2} cases of pictures", flush=True)
        for line in wrong:
            print("  " + line)
        same(len(wrong), 0, "cases with another answer")
        same(daemon.worker_pids(), workers, "workers, which no picture may end")
        if SLOW == 1.0:  # no sanitizer's memory
            check(peak_bytes(daemon.process.pid) - before < 64 << 20, "the daemon unpacks no picture")
        same(daemon.make(**SPEC, init_image=base(GOOD))["state"], "succeeded", "an honest job behind them")


@test
def a_picture_cut_at_any_byte_is_refused():
    with Daemon() as daemon:
        jobs = []
        for cut in range(len(GOOD)):
            posted = daemon.post({**SPEC, "init_image": base(GOOD[:cut])})
            same(posted.status, 422 if cut < 33 else 202, f"status of {cut} bytes")
            if cut >= 33:
                jobs.append((cut, posted.json["id"]))
        for cut, job_id in jobs:
            same((daemon.wait(job_id)["error"] or {}).get("code"), "bad-input-image", f"error of {cut} bytes")


run(__name__)
