"""The same requests in any order, among any others, give the same files: mixed samplers, steps, guidance, classes, options and models, shuffled
anew for every policy of batching, number of threads and cap of rows, with random priorities, clients side by side, and a crash midway.

DENOISED_SEED=N draws other requests and orders; the seed is printed."""
from harness import *  # noqa: F403
import random

SEED = int(os.environ.get("DENOISED_SEED", "20261122"))
JOBS = 100 if SLOW == 1 else 40
DIT = os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4")  # latents, with an autoencoder: its pictures are decoded beside the ticks
CLIENTS = (1, 4, 16)  # at once

draws = random.Random(SEED)
specs, wanted = [], []  # requests, and the sha256 of each one's files when it was made alone
print(f"seed {SEED}", flush=True)


def daemon_of(threads, policy, *options, data=None):
    return Daemon("--model", f"dit={DIT}", "--preload", "--threads", str(threads), "--batching", policy, *options, data=data)


def value_of(field):
    """Of a field as /samplers and /models describe it: an end, or anything between."""
    if field["type"] == "boolean":
        return draws.random() < 0.5
    if field["type"] == "choice":
        return draws.choice(field["choices"])
    low, high = field["minimum"], field["maximum"]
    value = draws.choice([low, high, draws.uniform(low, high), draws.uniform(low, min(high, low + 3))])
    return int(value) if field["type"] == "integer" else value


def draw(models, samplers, picture):
    model = draws.choice([models["tiny"]] * 3 + [models["dit"]])
    sampler = samplers[draws.choice(model["samplers"])]
    spec = {"model": model["name"], "sampler": sampler["name"], "steps": draws.randint(1, 8), "seed": draws.randrange(2 ** 64),
            "guidance_scale": draws.choice([1, 1, 0, 2, 7.5, -3]), "n": draws.choice([1, 1, 1, 2, 3])}
    kind = draws.randrange(6)
    if kind == 0:
        spec["class_mixture"] = [{"class_label": draws.randrange(10), "weight": draws.uniform(-0.5, 1)} for _ in range(draws.randint(1, 4))]
    elif kind > 1:
        spec["class_label"] = draws.randrange(10)
    if draws.random() < 0.2:
        spec["negative_class"] = draws.randrange(10)
    if model["name"] == "tiny" and (sampler["needs_init_image"] or draws.random() < 0.15):
        spec["init_image"] = picture
    for field in [f for f in sampler["fields"] + model["fields"] if draws.random() < 0.12]:
        spec[field["name"]] = value_of(field)
    if sampler["adaptive"]:
        spec.update(rtol=0.2, atol=0.2)
    return spec


def files_of(job):
    same(job["state"], "succeeded", f"{str(job['request'])[:300]}: {job['error']}")
    return [image["sha256"] for image in job["images"]]


def ended(daemon, job_id):
    answer = daemon.get(f"/jobs/{job_id}", Prefer="wait=60")
    same(answer.status, 200, "status")
    return answer.json if answer.json["state"] in ("succeeded", "failed", "canceled") else daemon.wait(job_id, 120)


@test
def requests_made_alone():
    """What the others are compared with. Requests that are refused, or that no finite picture comes of, are drawn again."""
    with daemon_of(1, "single") as daemon:
        models = {name: daemon.get(f"/models/{name}").json for name in ("tiny", "dit")}
        samplers = {one["name"]: one for one in daemon.get("/samplers").json["samplers"]}
        picture = base64.b64encode(daemon.image(daemon.make(steps=3, class_label=1)["id"])).decode()
        refused = 0
        while len(specs) < JOBS:
            check(refused < 20 * JOBS, f"{refused} requests were refused")
            spec = draw(models, samplers, picture)
            answer = daemon.post(spec, Prefer="wait=60")
            if answer.status == 422 or (answer.status == 200 and answer.json["state"] == "failed" and answer.json["error"]["code"] == "engine"):
                refused += 1
                continue
            same(answer.status, 200, f"status: {answer.body[:300]}")
            specs.append(spec)
            wanted.append(files_of(answer.json))
        check(len({s["sampler"] for s in specs}) > 12, "hardly any samplers")
        check({s["model"] for s in specs} == {"tiny", "dit"}, "both models")


def submit(daemon, order, clients):
    """Posts specs[i] for i in order from so many clients at once, alone or in arrays of up to 5; {i: job id}."""
    pieces, at, ids, refused = [], 0, {}, []
    while at < len(order):
        count = draws.choice([1, 1, 1, draws.randint(2, 5)])
        pieces.append([(i, dict(specs[i], priority=draws.randint(-10, 10))) for i in order[at:at + count]])
        at += count

    def client(mine):
        for piece in mine:
            answer = daemon.post([body for _, body in piece] if len(piece) > 1 else piece[0][1])
            if answer.status != 202:
                refused.append(answer.body[:300])
                return
            jobs = answer.json["jobs"] if len(piece) > 1 else [answer.json]
            ids.update({i: job["id"] for (i, _), job in zip(piece, jobs)})
    threads = [threading.Thread(target=client, args=(pieces[c::clients],)) for c in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(refused, [], "refusals")
    return ids


def ticks(daemon):
    """Ticks so far, and how many of them had more than 4 rows."""
    text = daemon.get("/metrics").body.decode()
    every, few = (int(text.split(f'denoised_tick_rows_bucket{{le="{bound}"}} ')[1].split()[0]) for bound in ("+Inf", "4"))
    return every, every - few


def shuffled(threads, policy, *options, held=False, crash=False):
    """held: the worker stands still until every job waits."""
    if len(specs) < JOBS:
        raise Skip("there is nothing to compare with")
    order = draws.sample(range(JOBS), JOBS)
    with daemon_of(threads, policy, *options) as daemon:
        eventually(lambda: daemon.get("/readyz").status == 200, 30, "readiness")
        workers = daemon.worker_pids() if held else []
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        ids = submit(daemon, order, draws.choice(CLIENTS))
        for pid in workers:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:  # so slow a machine that it was taken for frozen: another worker has begun before all waited
                held = False
        if crash:
            eventually(lambda: ticks(daemon)[0] > 20, 30, "some ticks")
            daemon.kill()
            daemon.start()
        same(len(set(ids.values())), JOBS, "jobs")
        for i in draws.sample(range(JOBS), JOBS):
            files = files_of(ended(daemon, ids[i]))
            check(files == wanted[i], f"seed {SEED}, {policy}, {threads} threads, {options}: request {i} differs from itself made alone: {str(specs[i])[:400]}")
        every, wide = ticks(daemon)
        check(not held or crash or (wide == 0 if policy == "single" else wide > 0), f"{wide} of {every} ticks had more than 4 rows")


@test
def continuous_on_one_thread():
    shuffled(1, "continuous", held=True)


@test
def continuous_on_two_threads_as_they_come():
    shuffled(2, "continuous")


@test
def few_rows_at_a_time():
    shuffled(2, "continuous", "--rows-max", "3")


@test
def request_batches_on_two_threads():
    shuffled(2, "request", held=True)


@test
def request_batches_on_one_thread():
    shuffled(1, "request", "--rows-max", "7")


@test
def one_at_a_time_on_two_threads():
    shuffled(2, "single", held=True)


@test
def a_crash_midway():
    shuffled(2, "continuous", "--rows-max", "6", "--snapshot-every", "0.01", held=True, crash=True)


run(__name__)
