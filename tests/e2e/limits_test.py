"""What happens at the edges: a full queue, a full disk, results that retention takes, a network that answers with infinity, the log."""
from harness import *  # noqa: F403
import hashlib
import re
import shutil
import struct


@test
def a_client_has_at_most_a_thousand_jobs_pending():
    # A tick takes 20 ms at least, on any machine: no job ends meanwhile.
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as daemon:
        hog = [{"steps": 1000, "n": 64, "seed": i} for i in range(64)]
        for _ in range(15):
            same(daemon.post(hog).status, 202, "status")
        answer = daemon.post(hog)
        same((answer.status, answer.json["code"]), (429, "quota"), "job 1001")
        check(int(answer.headers["retry-after"]) >= 1, "Retry-After")
        same(daemon.jobs_in_store(), 960, "rows: an array is taken whole or not at all")
        same(daemon.post(hog[:40]).status, 202, "up to the limit")
        same(daemon.post(hog[:1]).status, 429, "beyond it")
        queued = daemon.get("/jobs?limit=1").json["jobs"][0]
        check(queued["queue_position"] > 900, f"position {queued['queue_position']}")
        check("denoised_queue_depth 9" in daemon.get("/metrics").body.decode(), "queue depth")


@test
def a_disk_without_room_refuses_new_jobs():
    folder = scratch("small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False).returncode != 0:
        raise Skip("mounting a small file system needs the superuser")
    try:
        with Daemon(data=os.path.join(folder, "data")) as daemon:
            answer = daemon.post({"steps": 1})
            same((answer.status, answer.json["code"]), (507, "storage-full"), "answer")
            check("retry-after" in answer.headers, "Retry-After")
            same(daemon.jobs_in_store(), 0, "rows")
            same(daemon.get("/readyz").status, 200, "what is there can still be read")
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@test
def results_beyond_the_limit_in_bytes_expire():
    with Daemon() as daemon:
        old = daemon.make(steps=1, n=2, seed=1)
        same(daemon.stop(), 0, "status")
        daemon.options += ["--keep-bytes", "1"]
        daemon.start()  # retention looks at once after a start
        eventually(lambda: daemon.get(f"/jobs/{old['id']}").status == 410, what="the end of its time")
        for path in ("", "/events", "/images/0.png"):
            same(daemon.get(f"/jobs/{old['id']}{path}").json["code"], "expired", f"code of {path}")
        same(daemon.call("DELETE", f"/jobs/{old['id']}").status, 410, "status of a cancel")
        same(daemon.get("/jobs").json["jobs"], [], "the list")
        eventually(lambda: not os.listdir(os.path.join(daemon.data, "images")), what="no files")


def overflowing_model():
    """The tiny model with a first layer so large that the network answers with infinity or NaN; every weight is finite."""
    folder = os.path.join(scratch("model"), "m")
    shutil.copytree(tiny_model(), folder)
    path = os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors")
    data = bytearray(open(path, "rb").read())
    size = struct.unpack("<Q", data[:8])[0]
    tensor = json.loads(data[8:8 + size])["conv_out.weight"]
    first, last = (8 + size + offset for offset in tensor["data_offsets"])
    same(tensor["dtype"], "F32", "dtype")
    data[first:last] = struct.pack("<f", 3e38) * ((last - first) // 4)
    with open(path, "wb") as out:
        out.write(data)
    return folder


@test
def a_network_that_overflows_fails_its_job_and_no_other():
    with Daemon(model=overflowing_model()) as daemon:
        job = daemon.make(steps=5, seed=1, n=2)
        same((job["state"], job["error"]["code"], job["images"]), ("failed", "engine", []), "job")
        check(re.search(r"step \d", job["error"]["detail"]), job["error"]["detail"])
        answer = daemon.post({"steps": 5, "seed": 1}, Accept="image/png")
        same((answer.status, answer.json["code"]), (500, "job-failed"), "as PNG")
        same(daemon.events(f"/jobs/{job['id']}/events")[-1]["event"], "failed", "the last event")
        same(daemon.get("/readyz").status, 200, "readiness")
        check("denoised_worker_restarts_total 0" in daemon.get("/metrics").body.decode(), "the worker lives")


@test
def one_log_line_a_request():
    with Daemon() as daemon:
        answers = [daemon.get("/samplers"), daemon.get("/nothing?secret=1"), daemon.post({"steps": 0}), daemon.call("PUT", "/jobs")]
        for answer, wanted in zip(answers, ("GET /samplers 200", "GET /nothing 404", "POST /generate 422", "PUT /jobs 405")):
            name = answer.headers["x-request-id"]
            lines = eventually(lambda: [line for line in daemon.log_text().splitlines() if name in line], what="a line")
            same(len(lines), 1, "lines")
            check(wanted in lines[0], lines[0])
        check("secret" not in daemon.log_text(), "a query is in the log")


@test
def equal_files_have_equal_tags():
    with Daemon() as daemon:
        answers = [daemon.post({"steps": 2, "seed": 3}, Accept="image/png") for _ in range(2)]
        same({answer.headers["etag"] for answer in answers}, {f'"{hashlib.sha256(answers[0].body).hexdigest()}"'}, "tags")


run(__name__)
