"""After any kill at any moment a job goes on from its last snapshot, and its PNGs are those of an undisturbed run, byte for byte.

Rounds of a few jobs are drawn from every sampler of two models, with and without guidance, from pictures and masks, and disturbed at random
moments: the worker killed, the daemon killed, a drain, a kill while it starts again. `--torture SEED COUNT` runs COUNT rounds from SEED on.
"""
from harness import *  # noqa: F403
import hashlib
import random
import re
import shutil
import struct
from png import png

LATENT = os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4")
PACE = {"DENOISED_FAULT": "step_k:1:slow3"}  # every tick takes 3 ms more: jobs are under way when they are disturbed, on any machine
KILLS = 100 if SLOW == 1 else 12
CRASHES_SPARED = 2  # a job may crash its worker alone so often in a round; the third would be the last
BOOTS_SPARED = 7  # and daemons may die with it: one more kill than this at most, of the ten that end a job
DEATHS = {"worker": 0, "daemon": 1, "starting": 2, "drain": 1}  # of the daemon; a drain may be one, if it is not in time


HEADER, FIXED = 8 + 26 + 4 + 4 + 8 + 32, 8 + 26 + 4 + 4 + 8  # of a snapshot's file


class Slow(Daemon):  # noqa: F405
    """The program with fault points, whose ticks are slow."""

    def __init__(self, *options, environment=None, **more):
        super().__init__("--snapshot-every", "0.01", "--model", f"latent={LATENT}", *options, environment=environment or PACE, program=FAULTS, **more)


def picture(side):
    return base64.b64encode(png(side, side, lambda x, y, c: x * 29 + y * 7)).decode()


def mask(side):
    return base64.b64encode(png(side, side, lambda x, y, c: 255 if x >= side // 2 else 0, colour=0)).decode()


def catalogue(samplers):
    """Specs of jobs; some samplers refuse some of them, which is found out when they are first made."""
    specs = []
    for number, sampler in enumerate(samplers):
        base = {"sampler": sampler, "class_label": number % 10, "seed": 100 + number, "n": 1 + number % 3}
        specs.append({**base, "steps": 90, "guidance_scale": 1})
        specs.append({**base, "steps": 60, "guidance_scale": 2.5, "n": 2})
        specs.append({**base, "steps": 80, "guidance_scale": 2.0, "init_image": picture(8), "strength": 0.8})
        specs.append({**base, "steps": 80, "guidance_scale": 1, "init_image": picture(8), "mask_image": mask(8), "strength": 1})
        specs.append({**base, "model": "latent", "steps": 40, "guidance_scale": 3.0})
        specs.append({**base, "model": "latent", "steps": 40, "guidance_scale": 1.0, "n": 1, "init_image": picture(64), "strength": 0.7})
    for seed in range(4):
        base = {"class_label": seed, "seed": seed, "steps": 90, "n": 2}
        specs.append({**base, "guidance_scale": 3.0, "guidance_method": "apg", "apg_momentum": -0.5})
        specs.append({**base, "guidance_scale": 2.0, "sampler": "ddim", "eta": 1.0, "variation_seed": 9, "variation_strength": 0.3})
        specs.append({**base, "guidance_scale": 2.0, "sampler": "ddpm", "init_image": picture(8), "mask_image": mask(8), "strength": 1, "resample": 2})
        specs.append({**base, "guidance_scale": 2.0, "class_label": None, "class_mixture": [{"class_label": 7, "weight": 0.5}, {"class_label": 2, "weight": 0.5}]})
    return specs


class Undisturbed:
    """What the same jobs give when nobody disturbs them: made by the program itself, once each."""

    def __init__(self):
        self.daemon = Daemon("--model", f"latent={LATENT}")  # noqa: F405
        self.known, self.refused = {}, 0
        self.specs = catalogue(self.daemon.get("/models/tiny").json["samplers"])

    def pictures(self, specs):
        """For each spec the SHA-256 of its PNGs; None: it is refused."""
        keys = [json.dumps(spec, sort_keys=True) for spec in specs]
        jobs = {}
        for key, spec in zip(keys, specs):
            if key not in self.known and key not in jobs:
                answer = self.daemon.post(spec)
                check(answer.status in (202, 422), f"{answer.status} {answer.body[:200]}")
                if answer.status == 202:
                    jobs[key] = answer.json["id"]
                else:
                    self.known[key], self.refused = None, self.refused + 1
        for key, job_id in jobs.items():
            job = self.daemon.wait(job_id, 120)
            same(job["state"], "succeeded", f"{key[:200]}: {job['error']}")
            self.known[key] = [image["sha256"] for image in job["images"]]
        return [self.known[key] for key in keys]


class Tally:
    def __init__(self):
        self.kills = self.drains = self.resumed = self.failed = 0
        self.steps_made = self.steps_needed = self.redone = 0


def metric(daemon, name):
    return int(float(re.search(rf"^{name} (\S+)", daemon.get("/metrics").body.decode(), re.M).group(1)))


class Round:
    def __init__(self, reference, seed, fresh):
        self.seed, self.random, self.reference = seed, random.Random(seed), reference
        wanted, self.specs = 5, []
        while len(self.specs) < wanted:
            drawn = [dict(self.random.choice(reference.specs)) for _ in range(wanted - len(self.specs))]
            for spec in drawn:
                if fresh:
                    spec["seed"] = self.random.randrange(1 << 64)
            self.specs += [spec for spec, made in zip(drawn, reference.pictures([{**spec, "seed": str(spec["seed"])} for spec in drawn])) if made]
        self.specs = [{**spec, "seed": str(spec["seed"])} for spec in self.specs]

    def run(self, daemon, tally):
        """False: a picture differs, or a job failed; it has been told."""
        before = metric(daemon, "denoised_steps_total"), metric(daemon, "denoised_steps_redone_total")
        ids = [daemon.post(spec).json["id"] for spec in self.specs]
        disturbed, crashes, boots = set(), 0, 0
        while boots < BOOTS_SPARED:
            time.sleep(self.random.random() * 0.15)
            jobs = {job["id"]: job for job in daemon.get("/jobs?limit=50").json["jobs"] if job["id"] in ids}
            left = {job_id for job_id, job in jobs.items() if job["state"] in ("queued", "running")}
            if not left:
                break
            disturbed |= {job_id for job_id in left if jobs[job_id]["progress"]["done"] > 0}
            kind = self.random.choice(["worker"] * 2 * (crashes < CRASHES_SPARED) + ["daemon", "daemon", "starting", "drain"])
            crashes += kind == "worker"
            boots += DEATHS[kind]
            if kind != "worker":
                tally.steps_made += metric(daemon, "denoised_steps_total") - before[0]
                tally.redone += metric(daemon, "denoised_steps_redone_total") - before[1]
                before = 0, 0
            self.disturb(daemon, kind, tally)
        made = [daemon.wait(job_id, 120) for job_id in ids]
        tally.steps_made += metric(daemon, "denoised_steps_total") - before[0]
        tally.redone += metric(daemon, "denoised_steps_redone_total") - before[1]
        tally.steps_needed += sum(job["progress"]["done"] for job in made)
        tally.resumed += len(disturbed)
        return self.judge(daemon, made, tally)

    def disturb(self, daemon, kind, tally):
        if kind == "worker":
            for pid in daemon.worker_pids():
                os.kill(pid, signal.SIGKILL)
        elif kind == "drain":
            tally.drains += 1
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(self.random.random() * 0.02)
            daemon.process.send_signal(signal.SIGTERM)
            same(daemon.process.wait(PATIENCE), 0, "status of a drain")
            daemon.start()
        else:
            daemon.kill()
            if kind == "starting":  # and once more before it is ready
                daemon.start(ready=False)
                time.sleep(self.random.random() * 0.12)
                daemon.kill()
                tally.kills += 1
            daemon.start()
        tally.kills += kind != "drain"

    def judge(self, daemon, made, tally):
        expected, fine = self.reference.pictures(self.specs), True
        for spec, job, hashes in zip(self.specs, made, expected):
            got = [hashlib.sha256(daemon.image(job["id"], i)).hexdigest() for i in range(len(job["images"]))]
            if job["state"] != "succeeded" or got != hashes:
                fine = False
                tally.failed += 1
                told = {name: value for name, value in spec.items() if name not in ("init_image", "mask_image")}
                print(f"seed={self.seed} commit={commit()}: {job['state']} {job['error']} {told}: {got} instead of {hashes}")
        if not fine:
            print(f"again: DENOISED={PROGRAM} python3 tests/e2e/resume_test.py --torture {self.seed} 1")
        return fine


def commit():
    done = subprocess.run([PROGRAM, "version"], capture_output=True, text=True, check=False)
    return done.stdout.split()[-1] if done.stdout else "unknown"


@test
def a_hundred_kills_cost_no_byte():
    reference, tally, seed = Undisturbed(), Tally(), 1
    with Slow() as daemon:
        while tally.kills < KILLS:
            check(Round(reference, seed, fresh=False).run(daemon, tally), f"a picture differs in round {seed}")
            seed += 1
    check(tally.resumed >= KILLS / 3, f"only {tally.resumed} jobs were under way when they were disturbed")
    print(f"{tally.kills} kills and {tally.drains} drains in {seed - 1} rounds: {tally.resumed} jobs disturbed, all as undisturbed; {tally.steps_made} steps "
          f"made for {tally.steps_needed}, {tally.redone} of them again")


def steps_in_files(daemon):
    """Of each snapshot that is whole on disk."""
    folder, steps = os.path.join(daemon.data, "snapshots"), []
    for name in os.listdir(folder):
        if name.endswith(".snap"):
            with open(os.path.join(folder, name), "rb") as file:
                steps.append(struct.unpack("<I", file.read(HEADER)[38:42])[0])
    return steps


def killed_worker(snapshot_every):
    """Steps when a job's worker was killed: done, at least; in snapshots, at least; that are made again; and of the next `started`."""
    with Slow("--snapshot-every", str(snapshot_every), environment=paced(20)["environment"]) as daemon:
        job = daemon.post({"steps": 1000, "n": 4, "seed": 8, "guidance_scale": 1}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 400, 60, "steps")
        eventually(lambda: len(steps_in_files(daemon)) == 4 or snapshot_every > 100, 60, "a snapshot of each image")
        done, kept = daemon.get(f"/jobs/{job}").json["progress"]["done"], sum(steps_in_files(daemon))
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        events = daemon.events(f"/jobs/{job}/events", until=lambda e: e["event"] == "started" and e["json"]["attempt"] == 2)
        saved = [event["json"]["resumed_done"] for event in events if event["event"] == "started"][-1]
        eventually(lambda: metric(daemon, "denoised_steps_redone_total") + saved >= done, 60, "steps made again")
        daemon.call("DELETE", f"/jobs/{job}")
        return done, kept, metric(daemon, "denoised_steps_redone_total"), saved


@test
def few_steps_are_made_again():
    """Those after the last snapshot, and no others; and they are counted."""
    done, kept, redone, saved = killed_worker(0.2)
    check(saved >= kept > 0, f"of {done} steps {kept} were in snapshots, and {saved} are saved")
    print(f"of {done} steps {saved} were saved by snapshots, and {redone} are made again")
    done, kept, redone, saved = killed_worker(3600)
    check(saved == kept == 0 and redone >= done, f"without a snapshot of {done} steps {saved} were saved, and {redone} are made again")


# ---- Snapshots that do not fit

SPEC = {"steps": 250, "n": 2, "seed": 31, "class_label": 4, "guidance_scale": 2.0}


def spoil_payload(change):
    """A change of what the worker said, whose checksums are right: of the file, and of the snapshot itself."""
    def spoil(data):
        payload = bytearray(data[HEADER:-32])
        change(payload)
        payload += hashlib.sha256(bytes(payload)).digest()
        fixed = data[:FIXED - 8] + struct.pack("<Q", len(payload))
        return fixed + hashlib.sha256(fixed + payload).digest() + bytes(payload)
    return spoil


def put(at, data):
    return spoil_payload(lambda payload: payload.__setitem__(slice(at, at + len(data)), data))


def spoiled(daemon, spoil, spec=SPEC):
    """A job whose daemon was killed under way and whose snapshots are spoilt, and where the log goes on. Until then each tick takes 100 ms: the job
    cannot end before its snapshots are looked at."""
    usual = daemon.environment
    daemon.kill()
    daemon.environment = paced(100)["environment"]
    daemon.start()
    job = daemon.post(spec).json["id"]
    folder = os.path.join(daemon.data, "snapshots")
    eventually(lambda: daemon.get(f"/jobs/{job}").json["progress"]["done"] > 20 and len(steps_in_files(daemon)) == spec["n"], 60, "snapshots")
    daemon.kill()
    daemon.environment = usual
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.endswith(".snap"):
            with open(path, "rb") as file:
                data = file.read()
            with open(path, "wb") as file:
                file.write(spoil(data))
    before = os.path.getsize(daemon.log_path)
    return job, before


def finish(daemon, job, before):
    made = daemon.wait(job, 120)
    same(made["state"], "succeeded", f"{made['error']}")
    with open(daemon.log_path, encoding="utf8", errors="replace") as log:
        log.seek(before)
        said = log.read()
    return [image["sha256"] for image in made["images"]], said, metric(daemon, "denoised_lanes_resumed_total")


@test
def a_snapshot_that_does_not_fit_is_not_used():
    with Daemon() as daemon:  # noqa: F405
        expected = [image["sha256"] for image in daemon.make(**SPEC)["images"]]
    cases = [("another build", put(16, b"0123456789abcdef"), "another build"),
             ("other weights", put(16 + 65, b"0123456789abcdef"), "other weights"),
             ("another shape", put(16 + 4 * 65, struct.pack("<Q", 4 * 4 * 3)), "shape"),
             ("another version", put(8, struct.pack("<Q", 99)), "version"),
             ("a byte of the file", lambda data: data[:-50] + bytes([data[-50] ^ 1]) + data[-49:], "damaged"),
             ("cut off", lambda data: data[:len(data) // 2], "damaged"),
             ("empty", lambda data: b"", "damaged"),
             ("another job's", lambda data: data[:8] + b"a" * 26 + data[34:], "damaged")]
    with Slow() as daemon:
        for what, spoil, words in cases:
            job, before = spoiled(daemon, spoil)
            daemon.start()
            got, said, resumed = finish(daemon, job, before)
            same(got, expected, f"pictures after {what}")
            same(resumed, 0, f"images that went on from {what}")
            check(job in said and words in said and "starts at step 0" in said, f"{what}: {said[-600:]}")


@test
def another_precision_or_model_starts_anew():
    with Daemon() as daemon:  # noqa: F405
        exact = [image["sha256"] for image in daemon.make(**SPEC)["images"]]
    folder = os.path.join(scratch("models"), "m")
    shutil.copytree(tiny_model(), folder)
    with Slow(model=folder) as daemon:
        job, before = spoiled(daemon, lambda data: data)
        weights = os.path.join(folder, "unet/diffusion_pytorch_model.safetensors")
        with open(weights, "rb") as file:
            data = bytearray(file.read())
        data[-3] ^= 0x20  # of one weight: still a number
        with open(weights, "wb") as file:
            file.write(data)
        daemon.start()
        got, said, resumed = finish(daemon, job, before)
        check("other weights" in said and resumed == 0, said[-600:])
        other = [image["sha256"] for image in daemon.make(**SPEC)["images"]]
        check(got == other != exact, "the pictures are the other model's")
        options = list(daemon.options)
        job, before = spoiled(daemon, lambda data: data)
        daemon.options = [*options, "--precision", "bf16"]
        daemon.start(ready=False)
        line = daemon.read_line()
        if not line.startswith("denoised ready"):
            raise Skip("this machine has no bf16: the other model was tried")
        daemon.address = line.split()[3]
        got, said, resumed = finish(daemon, job, before)
        check("another build" in said and resumed == 0, said[-600:])
        same(got, [image["sha256"] for image in daemon.make(**SPEC)["images"]], "the pictures are those of the other precision")


def torture(first, count):
    reference, tally = Undisturbed(), Tally()
    with Slow() as daemon:
        for seed in range(first, first + count):
            Round(reference, seed, fresh=seed % 2 == 0).run(daemon, tally)
    print(f"{tally.kills} kills, {tally.drains} drains, {tally.steps_made} steps made for {tally.steps_needed}, {tally.redone} again")
    print(f"TORTURE key=resumes seed={first} done={tally.resumed} failed={tally.failed}", flush=True)
    sys.exit(1 if tally.failed else 0)


if len(sys.argv) == 4 and sys.argv[1] == "--torture":
    torture(int(sys.argv[2]), int(sys.argv[3]))
run(__name__)
