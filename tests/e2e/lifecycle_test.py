"""Starting, stopping, being killed: nothing accepted is lost, and every refusal to start is one clear line."""
from harness import *  # noqa: F403
import contextlib
import re
import resource
import shutil


MANY = 32 if SLOW == 1 else 4  # images of a job that must not be over too soon; a sanitizer's build computes slowly


def refused(*command, environment=None):
    """Runs a command that must refuse; (exit status, its one line)."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=dict(os.environ, **(environment or {})))
    lines = [line for line in done.stderr.splitlines() if line]
    same(len(lines), 1, f"lines of {done.stderr!r}")
    return done.returncode, lines[0]


def serve(data, listen="127.0.0.1:0", model=None, *more):
    return [PROGRAM, "serve", "--listen", listen, "--data", data, "--model", f"tiny={model or tiny_model()}", *more]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Slow(Daemon):
    """The program with fault points."""

    def command(self):
        return [FAULTS, *super().command()[1:]]


@test
def ready_within_a_second():
    if SLOW > 1:
        raise Skip("a sanitizer's build is slow")
    took, used = [], []
    while len(took) < 20 and min(took, default=9) > 1.5 and min(used, default=9) > 0.7:  # what others do on the machine only adds
        began = time.monotonic()
        with Daemon() as daemon:
            eventually(lambda d=daemon: d.get("/readyz").status == 200, what="readiness")
            took.append(time.monotonic() - began)
            used.append(sum(cpu_seconds(pid) for pid in [daemon.process.pid, *daemon.worker_pids()]))
    # On a machine that is never free for a second the work that there is to do has to tell.
    check(min(took) < 1.5 or min(used) < 0.7, f"ready after {took} s, of which they worked for {used} s")


@test
def help_fits_a_screen():
    commands = subprocess.run([PROGRAM, "help"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^  ([a-z]+) ", commands, re.M)
    check(len(names) >= 12 and "serve" in names, names)
    for name in names:
        text = commands if name in ("help", "version") else subprocess.run([PROGRAM, name, "--help"], capture_output=True, text=True, check=True).stdout
        lines = text.splitlines()
        check(len(lines) <= 40 and max(map(len, lines)) <= 100, f"{name}: {len(lines)} lines, of {max(map(len, lines))} columns")


@test
def a_port_in_use():
    with Daemon() as daemon:
        status, line = refused(*serve(scratch("data"), f"127.0.0.1:{daemon.port}"))
        same(status, 75, "status")
        check("address in use" in line, line)


@test
def a_second_daemon_on_the_same_data():
    with Daemon() as daemon:
        status, line = refused(*serve(daemon.data))
        same(status, 75, "status")
        check("in use" in line or "another" in line, line)
        same(daemon.make(steps=1)["state"], "succeeded", "the first goes on")


@test
def a_data_directory_that_cannot_be_written():
    data = scratch("data")
    if os.geteuid() == 0:
        os.chmod(os.path.dirname(data), 0o755)
        os.chmod(os.path.dirname(os.path.dirname(data)), 0o1777)
        os.chmod(data, 0o555)
        model = tiny_model()
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *serve(data, model=model)]
    else:
        os.chmod(data, 0o555)
        command = serve(data)
    if os.geteuid() == 0 and subprocess.run([*command[:6], PROGRAM, "version"], capture_output=True, check=False).returncode != 0:
        raise Skip("the program cannot be run as nobody here")
    status, line = refused(*command)
    same(status, 78, "status")
    check("not writable" in line or "denied" in line, line)


@test
def a_database_from_a_newer_version():
    with Daemon() as daemon:
        data = daemon.data
        same(daemon.stop(), 0, "status")
    with sqlite3.connect(os.path.join(data, "denoised.db")) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()
    status, line = refused(*serve(data))
    same(status, 78, "status")
    check("newer" in line, line)


@test
def a_corrupt_database():
    with Daemon() as daemon:
        data = daemon.data
        daemon.stop()
    path = os.path.join(data, "denoised.db")
    size = os.path.getsize(path)
    with open(path, "r+b") as db:
        db.write(b"\0" * 100)
    status, line = refused(*serve(data))
    same(status, 78, "status")
    same(os.path.getsize(path), size, "the file is left as it was")


@test
def broken_models():
    folder = os.path.join(scratch("model"), "m")
    cases = []

    def broken(what, change, *words):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_model(), folder)
        change()
        status, line = refused(*serve(scratch("data"), model=folder))
        same(status, 78, f"status of {what}")
        check(all(word in line for word in words), f"{what}: {line}")
        cases.append(what)

    weights = os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors")

    def truncate():
        with open(weights, "r+b") as out:
            out.truncate(os.path.getsize(weights) - 100)

    def rename_tensor():
        data = open(weights, "rb").read()
        with open(weights, "wb") as out:
            out.write(data.replace(b'"conv_in.bias"', b'"conv_im.bias"'))

    def grow_header():
        with open(weights, "r+b") as out:
            out.write((1 << 62).to_bytes(8, "little"))

    broken("truncated weights", truncate, "diffusion_pytorch_model.safetensors")
    broken("a renamed tensor", rename_tensor, "diffusion_pytorch_model.safetensors", "conv_in.bias", "missing")
    broken("a lying header", grow_header, "diffusion_pytorch_model.safetensors")
    broken("no weights", lambda: os.unlink(weights), "diffusion_pytorch_model.safetensors")
    broken("a config that is no JSON", lambda: open(os.path.join(folder, "unet", "config.json"), "w").write("{"), "config.json")
    same(len(cases), 5, "cases")
    status, line = refused(*serve(scratch("data"), model="/nonexistent"))
    same(status, 78, "status of a folder that is not there")


def good_and_bad(name):
    """A copy of the tiny model that can be spoilt, and its weights' path."""
    folder = os.path.join(scratch(name), "m")
    shutil.copytree(tiny_model(), folder)
    return folder, os.path.join(folder, "unet", "diffusion_pytorch_model.safetensors")


@test
def a_broken_model_loses_no_job_of_the_last_run():
    folder, weights = good_and_bad("model")
    with Daemon(model=folder) as daemon:
        ids = [daemon.post({"steps": 400, "n": 32, "seed": i}).json["id"] for i in range(8)]
        daemon.kill()
        shutil.copy(weights, weights + ".good")
        os.truncate(weights, 1000)
        same(refused(*daemon.command()[:2], "--listen", "127.0.0.1:0", *daemon.command()[4:])[0], 78, "status")
        os.replace(weights + ".good", weights)
        daemon.start()
        states = {daemon.get(f"/jobs/{job}").json["state"] for job in ids}
        check(states <= {"queued", "running", "succeeded"}, states)


@test
def a_model_that_breaks_fails_its_jobs_and_no_others():
    folder, weights = good_and_bad("model")
    with Daemon("--model", f"other={folder}") as daemon:
        eventually(lambda: daemon.get("/models/other").json["state"] == "unloaded", what="both models")
        doomed = daemon.post({"model": "other", "steps": 1000, "n": 64, "seed": 1}).json["id"]
        sound = daemon.post({"steps": 400, "n": 2, "seed": 1}).json["id"]
        for job in (doomed, sound):  # both under way: neither can be blamed for the worker's death
            eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 0, what="it has begun")
        os.truncate(weights, 1000)
        for pid in daemon.worker_pids():
            os.kill(pid, signal.SIGKILL)
        ended = daemon.wait(doomed)
        same((ended["state"], ended["error"]["code"]), ("failed", "model-load"), "the job of the broken model")
        same(daemon.get("/models/other").json["state"], "failed", "the broken model")
        same(daemon.wait(sound)["state"], "succeeded", "the other model's job")
        same(daemon.make(steps=2)["state"], "succeeded", "a new one")


@test
def bad_options():
    for more in (["--listen", "nowhere"], ["--listen", "127.0.0.1:99999"], ["--keep-bytes", "10Q"], ["--base-path", "x"], ["--listen", "0.0.0.0:0"],
                 ["--public-url", "ftp://x"], ["--socket-mode", "9"]):
        status, line = refused(*serve(scratch("data")), *more)
        same(status, 78, f"status of {more}")
    status, line = refused(*serve(scratch("data")), "--nonsense")
    same(status, 64, "status of an unknown option")


@test
def a_drain_finishes_what_runs_and_refuses_what_comes():
    with Slow(environment={"DENOISED_FAULT": "step_k:1:slow8"}) as daemon:  # the drain takes five seconds at least
        job = daemon.post({"steps": 600, "n": 8, "seed": 3}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["state"] == "running", what="it runs")
        worker = daemon.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)  # so that the drain is not over before we have looked
        daemon.process.send_signal(signal.SIGTERM)
        refusal = eventually(lambda: (lambda a: a if a.status == 503 else None)(daemon.post({"steps": 1})), what="the refusal")
        same(refusal.json["code"], "draining", "code")
        check("retry-after" in refusal.headers, "Retry-After")
        same(daemon.get("/readyz").status, 503, "readiness")
        with contextlib.suppress(ProcessLookupError):  # on a machine so slow that it was taken for frozen
            os.kill(worker, signal.SIGCONT)
        same(daemon.process.wait(PATIENCE), 0, "status")
        daemon.start()
        ended = daemon.wait(job)
        same((ended["state"], ended["attempt"]), ("succeeded", 1), "the job")


@test
def a_second_signal_hurries_and_the_job_resumes():
    with Daemon("--snapshot-every", "0.05", **paced(5)) as daemon:
        alone = daemon.post({"steps": 1000, "n": 1, "seed": 77, "class_label": 5}, Accept="image/png", Prefer="wait=200").body
        job = daemon.post({"steps": 1000, "n": 8, "seed": 77, "class_label": 5}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 100, what="it has begun")
        daemon.terminate_at_once()
        same(daemon.process.wait(PATIENCE), 0, "status")  # that it hurried the event says, below
        daemon.start()
        ended = daemon.wait(job, 120)
        same((ended["state"], ended["attempt"]), ("succeeded", 1), "the job")
        names = [e["event"] for e in daemon.events(f"/jobs/{job}/events") if "id" in e]
        check("requeued" in names, names)
        check(daemon.image(job, 0) == alone, "the resumed picture differs")


@test
def killed_and_started_again_everything_finishes():
    with Daemon("--snapshot-every", "0.05") as daemon:
        bodies = [{"steps": 200, "n": 2, "seed": i, "class_label": i % 10} for i in range(12)]
        ids = [daemon.post(body).json["id"] for body in bodies]
        for _ in range(4):
            time.sleep(0.25)
            daemon.kill()
            daemon.start()
        pictures = {}
        for job_id, body in zip(ids, bodies):
            ended = daemon.wait(job_id, 120)
            same((ended["state"], len(ended["images"])), ("succeeded", 2), f"job {job_id}")
            pictures[job_id] = daemon.image(job_id, 0)
        for job_id, body in list(zip(ids, bodies))[:4]:
            fresh = daemon.post(dict(body, n=1), Accept="image/png").body
            check(fresh == pictures[job_id], "a picture made across kills differs")
        files = os.listdir(os.path.join(daemon.data, "images"))
        same(len(files), sum(1 for _ in files if _.endswith(".png")), "stray files")


@test
def a_killed_worker_is_replaced():
    with Daemon("--snapshot-every", "0.05") as daemon:
        alone = daemon.post({"steps": 500, "n": 1, "seed": 8}, Accept="image/png", Prefer="wait=200").body
        job = daemon.post({"steps": 500, "n": MANY, "seed": 8}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 50, what="it has begun")
        for pid in daemon.worker_pids():
            os.kill(pid, signal.SIGKILL)
        same(daemon.get("/healthz").status, 200, "the daemon lives")
        same(daemon.wait(job, 120)["state"], "succeeded", "state")
        check(daemon.image(job, 0) == alone, "the picture differs")
        check("denoised_worker_restarts_total 1" in daemon.get("/metrics").body.decode(), "restarts are counted")


@test
def no_worker_survives_its_daemon():
    daemon = Daemon()
    pids = daemon.worker_pids()
    check(pids, "a worker process")
    daemon.kill()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the worker is gone")
    with Daemon(data=daemon.data) as again:
        same(again.make(steps=1)["state"], "succeeded", "state")


@test
def a_unix_socket_is_made_and_removed():
    path = os.path.join(scratch("socket"), "s")
    with Daemon(listen=f"unix:{path}") as daemon:
        same(os.stat(path).st_mode & 0o777, 0o660, "mode")
        same(daemon.make(steps=1)["state"], "succeeded", "state")
        health = subprocess.run([PROGRAM, "health", "--ready", "--socket", path], check=False)
        same(health.returncode, 0, "health")
        same(daemon.stop(), 0, "status")
        check(not os.path.exists(path), "the socket file is left")
    same(subprocess.run([PROGRAM, "health", "--socket", path], capture_output=True, check=False).returncode, 1, "health of nobody")


@test
def what_lies_at_a_sockets_path_is_left_alone():
    path = os.path.join(scratch("socket"), "s")
    with Daemon(listen=f"unix:{path}") as daemon:
        status, line = refused(*serve(scratch("data"), f"unix:{path}"))
        same(status, 75, "status")
        check("address in use" in line, line)
        same(daemon.get("/healthz").status, 200, "the first is still reached")
    file = os.path.join(scratch("socket"), "letter")
    with open(file, "w", encoding="utf8") as out:
        out.write("dear")
    same(refused(*serve(scratch("data"), f"unix:{file}"))[0], 78, "status")
    same(open(file, encoding="utf8").read(), "dear", "the file")


@test
def more_descriptors_are_allowed_than_the_usual_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        daemon = Daemon()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with daemon:
        limits = open(f"/proc/{daemon.process.pid}/limits", encoding="utf8").read()
        allowed = int(next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3])
        check(allowed >= min(hard, 4096), f"{allowed} descriptors")


@test
def a_key_file_that_is_not_there():
    status, line = refused(*serve(scratch("data")), "--api-key-file", "/nonexistent/keys")
    same(status, 78, "status")
    check("/nonexistent/keys" in line, line)


@test
def keys_are_needed_where_they_are_given():
    keys = os.path.join(scratch("keys"), "keys")
    with open(keys, "w", encoding="utf8") as out:
        out.write("# two clients\nann 0123456789abcdef-ann\nbob 0123456789abcdef-bob\n")
    os.chmod(keys, 0o644)
    same(refused(*serve(scratch("data")), "--api-key-file", keys)[0], 78, "a file that others may read")
    os.chmod(keys, 0o600)
    with Daemon("--api-key-file", keys) as daemon:
        ann, bob = "Bearer 0123456789abcdef-ann", "Bearer 0123456789abcdef-bob"
        same(daemon.get("/jobs").status, 401, "no key")
        same(daemon.get("/jobs", Authorization="Bearer wrong").status, 401, "a wrong key")
        check("www-authenticate" in daemon.get("/jobs").headers, "WWW-Authenticate")
        same(daemon.get("/healthz").status, 200, "health needs no key")
        job = daemon.call("POST", "/generate", {"steps": 1}, Authorization=ann, Prefer="wait=20").json["id"]
        same(daemon.get(f"/jobs/{job}", Authorization=ann).status, 200, "one's own job")
        for path in (f"/jobs/{job}", f"/jobs/{job}/events", f"/jobs/{job}/images/0.png"):
            same(daemon.get(path, Authorization=bob).status, 404, f"another's {path}")
        same(daemon.call("DELETE", f"/jobs/{job}", Authorization=bob).status, 404, "another's job cannot be deleted")
        same(daemon.get("/jobs", Authorization=bob).json["jobs"], [], "another's list")
        with open(keys, "w", encoding="utf8") as out:
            out.write("bob 0123456789abcdef-bob\n")
        eventually(lambda: daemon.get("/jobs", Authorization=ann).status == 401, what="a revoked key stops working")
        check("0123456789abcdef" not in daemon.tail(), "a secret is in the log")


@test
def a_base_path_is_carried():
    with Daemon("--base-path", "/pictures") as daemon:
        same(daemon.get("/models").status, 404, "without it")
        answer = daemon.post({"steps": 1}, "/pictures/generate", Prefer="wait=20")
        check(answer.json["images"][0]["url"].startswith("/pictures/jobs/"), answer.json["images"][0]["url"])
        same(daemon.get(answer.json["images"][0]["url"]).status, 200, "the image")


run(__name__)
