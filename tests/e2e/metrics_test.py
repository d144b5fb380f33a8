"""Every number of /metrics moves when it should, and /stats tells an operator the same. Conditions, never times.

`moved` collects the families that a test has seen move; the last test fails for a family that none has.
"""
import contextlib
import re
import shutil

from harness import *  # noqa: F403
from receiver import Receiver, daemon_for

SLOW_STEPS = {"DENOISED_FAULT": "step_k:1:slow100"}  # with the program FAULTS: a thousand steps take longer than any test
moved = set()
ELSEWHERE = {"denoised_accept_pauses_total": "machine_faults_test.py"}  # what takes more than a daemon and clients
seen = {}  # family to its type, of every page that was read
RESIDENT = 'denoised_worker_resident_memory_bytes{worker="0",device="cpu"}'
CPU_SECONDS = 'denoised_worker_cpu_seconds_total{worker="0",device="cpu"}'


def read(daemon, **headers):
    """A page of /metrics, strictly: {sample with labels: value}. Each family has HELP, TYPE and then its samples, together."""
    text = daemon.get("/metrics", **headers).body.decode()
    values, family = {}, None
    check(text.endswith("\n"), "the page ends in the middle of a line")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            check(family not in seen or family not in {name.split("{")[0] for name in values}, f"{family} stands twice")
        elif line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            same(name, family, "the family of a TYPE")
            seen[name] = kind
        else:
            match = re.fullmatch(r'([a-z_:]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*\})? (\S+)', line)
            check(match, f"no sample: {line!r}")
            name = match.group(1)
            check(name == family or (seen[family] == "histogram" and name in {f"{family}_bucket", f"{family}_sum", f"{family}_count"}), f"{name} in {family}")
            values[name + (match.group(2) or "")] = float(match.group(3))
    return values


def family_of(sample):
    name = sample.split("{")[0]
    return name if name in seen else re.sub("_(bucket|sum|count)$", "", name)


def until(daemon, sample, holds, what=None, **headers):
    """Waits for a sample for which holds(value); missing ones are 0. Returns the page."""
    def probe():
        page = read(daemon, **headers)
        return page if holds(page.get(sample, 0.0)) else None
    page = eventually(probe, 60, what or sample)
    moved.add(family_of(sample))
    return page


def rises(daemon, before, *samples):
    for sample in samples:
        until(daemon, sample, lambda value, sample=sample: value > before.get(sample, 0.0), f"{sample} rises")


def is_at(daemon, before, more):
    for sample, by in more.items():
        until(daemon, sample, lambda value, sample=sample, by=by: value == before.get(sample, 0.0) + by, f"{sample} rises by {by}")


def under_way(daemon, job_id):
    eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 0, what="a first step")


@test
def a_job_is_counted():
    with Daemon() as daemon:
        before = read(daemon)
        same([before[f'denoised_jobs{{state="{state}"}}'] for state in ("queued", "running", "succeeded", "failed", "canceled")], [0.0] * 5, "jobs")
        job = daemon.make(steps=5, n=2, guidance_scale=1)
        same(job["state"], "succeeded", "the job")
        is_at(daemon, before, {"denoised_jobs_accepted_total": 1, "denoised_jobs_succeeded_total": 1, "denoised_images_total": 2, "denoised_steps_total": 10,
                               "denoised_network_rows_total": 10, "denoised_queue_wait_seconds_count": 1, "denoised_admission_wait_seconds_count": 2,
                               "denoised_job_seconds_count": 1, "denoised_job_latency_seconds_count": 1, 'denoised_jobs{state="succeeded"}': 1})
        after = read(daemon)
        same(after["denoised_tick_rows_sum"] - before["denoised_tick_rows_sum"], 10.0, "rows of all ticks")
        same(after["denoised_tick_rows_count"], after["denoised_tick_seconds_count"], "ticks")
        same(after["denoised_image_bytes"], float(sum(image["bytes"] for image in job["images"])), "bytes of images")
        # Accepted, claimed, two images with the end: at least three commits, each for one write or more.
        rises(daemon, before, "denoised_store_commit_seconds_count", "denoised_store_commit_writes_sum", "denoised_image_bytes", "denoised_ticks_total",
              "denoised_tick_rows_count", "denoised_tick_seconds_count", "denoised_store_commit_seconds_sum")
        check(after["denoised_store_commit_seconds_count"] >= 3, "commits")
        same(after["denoised_store_commit_seconds_count"], after["denoised_store_commit_writes_count"], "commits of both histograms")
        for name in ("denoised_job_seconds", "denoised_tick_rows"):
            buckets = [value for sample, value in after.items() if sample.startswith(name + "_bucket")]
            check(buckets == sorted(buckets) and buckets[-1] == after[name + "_count"], f"{name}: buckets add up")


@test
def what_is_there_is_shown():
    with Daemon() as daemon:
        page = until(daemon, "denoised_database_checked", lambda value: value == 1)
        info = [sample for sample in page if sample.startswith("denoised_build_info{")]
        stats = daemon.get("/stats").json
        same(info, [f'denoised_build_info{{version="{stats["version"]}",build="{stats["build"]}"}}'], "build_info")
        same(page[info[0]], 1.0, "build_info")
        until(daemon, "denoised_ready", lambda value: value == 1)
        until(daemon, "denoised_workers", lambda value: value == 1)
        until(daemon, 'denoised_worker_up{worker="0",device="cpu"}', lambda value: value == 1)
        until(daemon, 'denoised_model_memory_bytes{model="tiny",state="ready"}', lambda value: value > 10000)
        worker = daemon.worker_pids()[0]
        with open(f"/proc/{daemon.process.pid}/limits", encoding="ascii") as limits:
            most = float(re.search(r"^Max open files +(\d+)", limits.read(), re.M)[1])
        same(page["process_max_fds"], most, "process_max_fds")
        check(5 < page["process_open_fds"] < 500, f"process_open_fds: {page['process_open_fds']}")
        held = [daemon.connect() for _ in range(20)]
        for connection in held:
            connection.connect()
        until(daemon, "process_open_fds", lambda value: value >= page["process_open_fds"] + 20)
        with open(f"/proc/{worker}/statm", encoding="ascii") as statm:
            resident = int(statm.read().split()[1]) * 4096
        check(resident / 2 < read(daemon)[RESIDENT] < 2 * resident, "the worker's memory")
        check(1e6 < page["process_resident_memory_bytes"] < page["process_virtual_memory_bytes"], "memory")
        check(abs(page["process_start_time_seconds"] - time.time()) < 3600, "process_start_time_seconds")
        check(page["process_threads"] >= 5, "process_threads")
        disk = os.statvfs(daemon.data)
        check(0.5 * disk.f_bavail * disk.f_frsize < page["denoised_store_free_bytes"] < 2 * disk.f_bavail * disk.f_frsize, "free bytes")
        check(page["denoised_store_database_bytes"] % 4096 == 0 and page["denoised_store_wal_bytes"] >= 0, "sizes")
        daemon.make(steps=1)
        until(daemon, "denoised_store_wal_bytes", lambda value: value > 0)
        before = read(daemon)
        while read(daemon)["process_cpu_seconds_total"] <= before["process_cpu_seconds_total"]:
            daemon.get("/samplers")
        while read(daemon)[CPU_SECONDS] <= before[CPU_SECONDS]:
            daemon.make(steps=200)
        moved.update({"denoised_build_info", "process_max_fds", family_of(RESIDENT), "process_resident_memory_bytes", "process_threads",
                      "process_virtual_memory_bytes", "process_start_time_seconds", "denoised_store_free_bytes", "denoised_store_database_bytes",
                      "process_cpu_seconds_total", family_of(CPU_SECONDS)})
        daemon.kill()
        daemon.start()
        same(read(daemon)['denoised_jobs{state="succeeded"}'] >= 1, True, "jobs of the run before")


@test
def what_waits_runs_and_ends_otherwise_is_counted():
    with Daemon("--rows-max", "2", program=FAULTS, environment=SLOW_STEPS) as daemon:
        before = read(daemon)
        running = daemon.post({"steps": 1000, "n": 64}).json["id"]
        under_way(daemon, running)
        waiting = daemon.post({"steps": 1000, "n": 64, "guidance_scale": 1, "priority": -10}).json["id"]
        until(daemon, "denoised_queue_depth", lambda value: value == 1)
        until(daemon, "denoised_queue_evaluations", lambda value: value == 64000)
        until(daemon, "denoised_lanes_running", lambda value: value > 0)
        same([read(daemon)[f'denoised_jobs{{state="{state}"}}'] for state in ("queued", "running")], [1.0, 1.0], "jobs")
        stream = daemon.connect()
        stream.request("GET", f"/jobs/{waiting}/events")
        until(daemon, "denoised_event_streams", lambda value: value == 1)
        stats = daemon.get("/stats").json
        same((stats["queue"], stats["streams"]), ({"queued": 1, "running": 1, "cost": 64000}, 1), "queue and streams of /stats")
        same((stats["latency_ms"], stats["images_per_second"]), ({"p50": None, "p90": None, "p99": None}, {"10s": 0, "60s": 0}), "nothing has ended")
        check(0 < stats["rows_per_tick"] <= 2 and 0 < stats["tick_ms"]["p50"] <= stats["tick_ms"]["p99"], f"ticks of /stats: {stats['rows_per_tick']}, {stats['tick_ms']}")
        stream.close()
        until(daemon, "denoised_event_streams", lambda value: value == 0)
        urgent = daemon.post({"steps": 3, "priority": 10}).json["id"]
        daemon.wait(urgent)
        rises(daemon, before, "denoised_lanes_set_aside_total")
        same(daemon.call("DELETE", f"/jobs/{waiting}").status, 200, "a queued job is canceled")
        is_at(daemon, before, {"denoised_jobs_canceled_total": 1, "denoised_steps_wasted_total": 0})
        daemon.call("DELETE", f"/jobs/{running}")
        is_at(daemon, before, {"denoised_jobs_canceled_total": 2})
        rises(daemon, before, "denoised_steps_wasted_total")
        late = daemon.post({"steps": 1000, "n": 2, "deadline_ms": 1000}).json["id"]
        same(daemon.wait(late)["state"], "failed", "a job that is too late")
        is_at(daemon, before, {"denoised_jobs_failed_total": 1, 'denoised_jobs{state="failed"}': 1})


@test
def a_lost_worker_is_counted():
    with Daemon("--snapshot-every", "3600", program=FAULTS, environment=SLOW_STEPS) as daemon:
        before = read(daemon)
        job = daemon.post({"steps": 1000}).json["id"]
        under_way(daemon, job)
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        # Without a snapshot the steps that were made are made again.
        rises(daemon, before, "denoised_steps_redone_total")
        is_at(daemon, before, {"denoised_worker_restarts_total": 1, "denoised_jobs_requeued_total": 1, "denoised_lanes_resumed_total": 0})
        worker = daemon.get("/stats").json["workers"][0]
        same((worker["pid"], worker["restarts"]), (daemon.worker_pids()[0], 1), "the worker of /stats")
        daemon.terminate_at_once()  # a drain makes snapshots
        same(daemon.process.wait(PATIENCE), 0, "status")
        daemon.start()
        until(daemon, "denoised_lanes_resumed_total", lambda value: value == 1)


@test
def webhooks_are_counted():
    agrees, never = Receiver(204), Receiver(500)
    with daemon_for(agrees, never, pause="3600") as daemon:
        before = read(daemon)
        daemon.make(steps=1, webhook=f"http://127.0.0.1:{agrees.port}/")
        is_at(daemon, before, {"denoised_webhooks_delivered_total": 1})
        daemon.make(steps=1, webhook=f"http://127.0.0.1:{never.port}/")
        is_at(daemon, before, {"denoised_webhooks_failed_total": 1, "denoised_webhooks_pending": 1, "denoised_webhooks_given_up_total": 0})
        agrees.answers = [410]
        daemon.make(steps=1, webhook=f"http://127.0.0.1:{agrees.port}/")
        is_at(daemon, before, {"denoised_webhooks_failed_total": 2, "denoised_webhooks_given_up_total": 1, "denoised_webhooks_pending": 1})
    agrees.close()
    never.close()


@test
def requests_and_refusals_are_counted():
    with Daemon() as daemon:
        before = read(daemon)
        for _ in range(3):
            daemon.get("/jobs/" + "a" * 26)
        daemon.get("/jobs/" + "b" * 26 + "?secret=1")
        daemon.post({"steps": 0})
        daemon.post("{", path="/generate")
        daemon.call("PUT", "/jobs")
        daemon.call("BREW", "/coffee")
        daemon.call("HEAD", "/models")
        with contextlib.closing(daemon.connect()) as leaver:  # before its body has come
            leaver.putrequest("POST", "/generate")
            leaver.putheader("Content-Type", "application/json")
            leaver.putheader("Content-Length", "100")
            leaver.endheaders(b"{")
        is_at(daemon, before, {'denoised_http_requests_total{route="/jobs/{}",method="GET",status="404"}': 4,
                               'denoised_http_requests_total{route="/generate",method="POST",status="422"}': 1,
                               'denoised_http_requests_total{route="/generate",method="POST",status="400"}': 1,
                               'denoised_http_requests_total{route="/generate",method="POST",status="0"}': 1,
                               'denoised_http_requests_total{route="/models",method="HEAD",status="200"}': 1,
                               'denoised_http_requests_total{route="none",method="PUT",status="405"}': 1,
                               'denoised_http_requests_total{route="none",method="other",status="404"}': 1,
                               'denoised_http_request_duration_seconds_count{route="/jobs/{}",method="GET"}': 4,
                               'denoised_http_refusals_total{code="not-found"}': 5, 'denoised_http_refusals_total{code="invalid-field"}': 1,
                               'denoised_http_refusals_total{code="malformed-json"}': 1, 'denoised_http_refusals_total{code="method-not-allowed"}': 1})
        page = daemon.get("/metrics").body.decode()
        check("secret" not in page and "coffee" not in page and "aaaa" not in page, "what a client sent is in /metrics")


@test
def keys_are_counted_and_not_named():
    path = os.path.join(scratch("keys"), "keys")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
        out.write("alice 0123456789abcdef-alice\nbob 0123456789abcdef-bob\n")
    with Daemon("--api-key-file", path) as daemon:
        alice = {"Authorization": "Bearer 0123456789abcdef-alice"}
        same([daemon.get(path).status for path in ("/metrics", "/stats")], [401, 401], "without a key")
        same([daemon.get(path, **alice).status for path in ("/metrics", "/stats")], [403, 403], "with a key for jobs")
        reader = {"Authorization": metrics_key(daemon.data)}
        eventually(lambda: daemon.get("/metrics", **reader).status == 200, what="the key is known")
        page = until(daemon, "denoised_keys", lambda value: value == 3, **reader)
        until(daemon, 'denoised_http_refusals_total{code="unauthorized"}', lambda value: value >= 2, **reader)
        until(daemon, 'denoised_http_refusals_total{code="forbidden"}', lambda value: value == 2, **reader)
        check(not any("alice" in sample or "bob" in sample for sample in page), "names of clients are labels")


@test
def stats_tell_the_operator():
    with Daemon() as daemon:
        jobs = [daemon.make(steps=4, n=2) for _ in range(3)]
        # Counted right after the commit that clients see.
        stats = eventually(lambda: (lambda got: got if got["latency_ms"]["p50"] is not None and got["images_per_second"]["60s"] > 0.09 else None)(
            daemon.get("/stats").json), what="three jobs in /stats")
        same(sorted(stats), sorted(["uptime_seconds", "version", "build", "queue", "jobs", "images_per_second", "rows_per_tick", "tick_ms", "latency_ms",
                                    "wait_ms", "workers", "models", "streams", "resident_bytes", "store"]), "fields")
        same((stats["queue"], stats["jobs"]), ({"queued": 0, "running": 0, "cost": 0}, {"succeeded": len(jobs), "failed": 0, "canceled": 0}), "jobs")
        same((sorted(stats["tick_ms"]), sorted(stats["latency_ms"]), sorted(stats["wait_ms"])), (["p50", "p99"], ["p50", "p90", "p99"], ["p50", "p90", "p99"]), "quantiles")
        check(0 < stats["latency_ms"]["p50"] <= stats["latency_ms"]["p90"] <= stats["latency_ms"]["p99"], stats["latency_ms"])
        check(0 <= stats["wait_ms"]["p50"] <= stats["latency_ms"]["p99"], stats["wait_ms"])
        worker = stats["workers"][0]
        same((worker["pid"], worker["state"], worker["restarts"]), (daemon.worker_pids()[0], "ready", 0), "the worker")
        same([(model["name"], model["state"]) for model in stats["models"]], [("tiny", "ready")], "models")
        check(min(worker["resident_bytes"], stats["resident_bytes"], stats["models"][0]["bytes"], stats["store"]["free_bytes"], stats["uptime_seconds"]) > 0, stats)
        check(0 < stats["store"]["commit_ms"]["p50"] <= stats["store"]["commit_ms"]["p99"], stats["store"])
        head = daemon.call("HEAD", "/stats")
        same((head.status, head.body), (200, b""), "HEAD")
        same(daemon.post({}, path="/stats").status, 405, "POST")


@test
def promtool_finds_nothing_to_say():
    promtool = shutil.which("promtool")
    if not promtool:
        raise Skip("promtool is not installed (package prometheus)")
    with Daemon() as daemon:
        daemon.make(steps=2)
        page = daemon.get("/metrics").body
        done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=PATIENCE, check=False)
        same((done.returncode, done.stdout + done.stderr), (0, b""), "promtool check metrics")


@test
def every_family_has_moved():
    if len(sys.argv) > 1:
        raise Skip("only some tests were asked for")
    for name, where in ELSEWHERE.items():
        with open(os.path.join(ROOT, "tests/e2e", where), encoding="utf8") as text:
            check(name in text.read(), f"{where} says nothing of {name}")
    missing = sorted(set(seen) - moved - set(ELSEWHERE))
    same(missing, [], "families that no test has seen move")


run(__name__)
