"""Several models in one daemon: described without being loaded, loaded when wanted, put out of memory for others, fair to each other."""
from harness import *  # noqa: F403
import shutil

BUILT_IN = os.path.join(ROOT, "models/fashion-mnist")


def state_of(daemon, name):
    return daemon.get(f"/models/{name}").json["state"]


def told(daemon, name, state, seconds=30):
    return eventually(lambda: state_of(daemon, name) == state, seconds, f"{name} {state}")


@test
def a_model_is_loaded_when_it_is_first_wanted():
    with Daemon("--model", f"fashion={BUILT_IN}", "--model", f"second={tiny_model()}") as daemon:
        told(daemon, "tiny", "ready")
        told(daemon, "fashion", "unloaded")
        model = daemon.get("/models/fashion").json
        same((model["class_count"], model["width"], model["error"]), (10, 32, None), "description of what is not loaded")
        answer = daemon.post({"model": "fashion", "class_label": "Snaeker"})
        same((answer.status, answer.json["field"]), (422, "/class_label"), "validated without being loaded")
        job = daemon.make(model="fashion", class_label="Sneaker", steps=4, seed=3)
        same(job["state"], "succeeded", "state")
        same(state_of(daemon, "fashion"), "ready", "state after use")
        same(state_of(daemon, "second"), "unloaded", "state of the one nobody wanted")
        check(len(daemon.get("/models/fashion").json["weights_sha256"]) == 64, "hash of the weights")


@test
def what_ticks_take_is_told_of_what_is_in_memory():
    with Daemon("--model", f"fashion={BUILT_IN}") as daemon:
        same(daemon.get("/models/fashion").json["batch"], None, "of a model that is not loaded")
        same(daemon.make(model="fashion", class_label=1, steps=2)["state"], "succeeded", "state")
        for name in ("tiny", "fashion"):
            batch = eventually(lambda: daemon.get(f"/models/{name}").json["batch"], what=f"the table of {name}")
            same(sorted(batch), ["rows_max", "tick_ms"], f"members of {name}'s")
            rows, milliseconds = zip(*batch["tick_ms"])
            check(2 <= batch["rows_max"] <= 128, f"{name}: {batch}")
            same(list(rows), [2**i for i in range(len(rows))], f"rows of {name}'s ticks")
            check(all(one > 0 for one in milliseconds), f"{name}: {batch}")
            listed = next(one for one in daemon.get("/models").json["models"] if one["name"] == name)
            same(listed["batch"]["rows_max"] > 0, True, f"the list has {name}'s too")
    with Daemon("--rows-max", "4") as daemon:
        batch = eventually(lambda: daemon.get("/models/tiny").json["batch"], what="the table")
        same(batch["rows_max"], 4, "rows that were asked for")


@test
def preload_loads_them_all():
    with Daemon("--model", f"second={tiny_model()}", "--preload") as daemon:
        told(daemon, "second", "ready")


@test
def models_that_do_not_fit_together_take_turns():
    # The built-in model takes about 39 MiB.
    with Daemon("--model", f"a={BUILT_IN}", "--model", f"b={BUILT_IN}", "--rows-max", "2", "--memory-limit", "50M") as daemon:
        pictures = {}
        for round_number in range(2):
            for name in ("a", "b"):
                job = daemon.make(model=name, class_label=7, steps=3, seed=11)
                same(job["state"], "succeeded", f"{name} in round {round_number}: {job['error']}")
                pictures.setdefault(job["images"][0]["pixels_sha256"], set()).add(name)
        same(list(pictures.values()), [{"a", "b"}], "the same pictures before and after")
        same((state_of(daemon, "a"), state_of(daemon, "b")), ("unloaded", "ready"), "only the last one used is in memory")


@test
def both_are_served_while_they_push_each_other_out():
    with Daemon("--model", f"a={BUILT_IN}", "--model", f"b={BUILT_IN}", "--rows-max", "2", "--memory-limit", "50M") as daemon:
        jobs = [daemon.post({"model": name, "class_label": 1, "steps": 5, "seed": seed}).json["id"] for seed in range(3) for name in ("a", "b")]
        for job_id in jobs:
            job = daemon.wait(job_id, 120)
            same(job["state"], "succeeded", f"{job['error']}")
        states = sorted(state_of(daemon, name) for name in ("a", "b"))
        check("ready" in states and states != ["ready", "ready"], f"states {states}: only one of them has room")


@test
def what_is_known_only_after_loading_counts_against_the_limit():
    # Of its 39 MiB 29 are weights, which are known before.
    with Daemon("--model", f"a={BUILT_IN}", "--model", f"b={BUILT_IN}", "--rows-max", "2", "--memory-limit", "72M", "--preload") as daemon:
        told(daemon, "b", "ready")
        eventually(lambda: (state_of(daemon, "a"), state_of(daemon, "b")) == ("unloaded", "ready"), what="preloaded models make room for the last")
        for name in ("a", "b", "a"):
            same(daemon.make(model=name, class_label=1, steps=2)["state"], "succeeded", name)
            states = [state_of(daemon, one) for one in ("a", "b")]
            check(sorted(states) == ["ready", "unloaded"], f"states {states} after {name}: two take 78 MiB")


@test
def jobs_of_a_model_that_is_no_longer_there_fail_and_do_not_wait_for_ever():
    options = ["--model", f"second={tiny_model()}"]
    with Daemon(*options) as daemon:
        blocker = daemon.post({"steps": 1000, "n": 64}).json["id"]
        jobs = [daemon.post({"model": "second", "steps": 1000, "n": 64, "seed": seed}).json["id"] for seed in range(30)]
        kept = daemon.post({"steps": 2}).json["id"]
        daemon.kill()
        daemon.options = []
        daemon.start()
        for job_id in jobs:
            job = daemon.wait(job_id)
            same((job["state"], job["error"]), ("failed", {"code": "model-load", "detail": "the model is not configured"}), "end")
        daemon.call("DELETE", f"/jobs/{blocker}")
        same(daemon.wait(kept)["state"], "succeeded", "a job of the model that stayed")
        with open(daemon.log_path, encoding="utf8") as log:
            check("model second, which is not configured" in log.read(), "the log says so at the start")


@test
def with_preload_ready_means_all_of_them():
    with Daemon("--model", f"a={BUILT_IN}", "--model", f"b={BUILT_IN}", "--preload", ready=False) as daemon:
        line = daemon.read_line()
        check(line.startswith("denoised ready on"), line)
        daemon.address = line.split()[3]
        same([state_of(daemon, name) for name in ("tiny", "a", "b")], ["ready"] * 3, "states when ready is said")


@test
def each_model_has_its_own_pace():
    with Daemon("--model", f"slow={BUILT_IN}", "--rows-max", "2") as daemon:
        daemon.make(model="slow", steps=20, class_label=1)
        daemon.make(steps=20)
        blockers = [daemon.post({"model": name, "steps": 1000, "n": 64}).json["id"] for name in ("tiny", "slow")]
        for job_id in blockers:
            eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 0, what="it runs")
        etas = {}
        for name in ("tiny", "slow"):
            job_id = daemon.post({"steps": 1000, "n": 64, "model": name}).json["id"]
            etas[name] = daemon.get(f"/jobs/{job_id}").json["eta_seconds"]
            daemon.call("DELETE", f"/jobs/{job_id}")
        check(etas["slow"] > 1.5 * etas["tiny"], f"{etas}: behind the same jobs, a row of one takes many times a row of the other")


@test
def a_model_that_takes_few_steps_only_is_loaded():
    for name, scheduler in (("short", {"num_train_timesteps": 40}), ("consistent", {"_class_name": "LCMScheduler"})):
        folder = os.path.join(scratch("model"), "m")
        shutil.copytree(tiny_model(), folder)
        with open(os.path.join(folder, "model_index.json"), encoding="utf8") as file:
            index = json.load(file)
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), encoding="utf8") as file:
            config = json.load(file)
        index["scheduler"][1] = scheduler.get("_class_name", "DDIMScheduler")
        del index["denoised"]
        for path, value in (("model_index.json", index), ("scheduler/scheduler_config.json", {**config, **scheduler})):
            with open(os.path.join(folder, path), "w", encoding="utf8") as file:
                json.dump(value, file)
        with Daemon(model=folder) as daemon:
            model = daemon.get("/models").json["models"][0]
            same((model["state"], model["error"]), ("ready", None), f"the model of {name}")
            # A busy machine measures as far as its time goes.
            check(len(model["batch"]["tick_ms"]) >= 1, f"what its ticks take: {model['batch']}")
            same(daemon.make(steps=8)["state"], "succeeded", name)


@test
def what_a_load_took_is_foreseen_for_nobody_else():
    with Daemon("--model", f"slow={BUILT_IN}") as daemon:
        brief = {"model": "slow", "steps": 1, "guidance_scale": 1, "class_label": 1}
        began = time.monotonic()
        same(daemon.make(**brief)["state"], "succeeded", "loads")
        loaded, etas = time.monotonic() - began, []
        while len(etas) < 5 or (min(etas) >= loaded / 2 and len(etas) < 60):  # a machine may have become slower since
            job = daemon.post(brief).json
            etas.append(job["eta_seconds"] or 0)
            daemon.wait(job["id"])
        check(min(etas) < loaded / 2, f"{etas} s, where loading took {loaded:.2f} s")


@test
def a_model_larger_than_the_limit_fails_with_the_figures():
    with Daemon("--model", f"big={BUILT_IN}", "--memory-limit", "4M") as daemon:
        job = daemon.make(model="big", class_label=1, steps=1)
        same((job["state"], job["error"]["code"]), ("failed", "model-load"), "end")
        check("memory-limit" in job["error"]["detail"] and "MiB" in job["error"]["detail"], job["error"]["detail"])
        same(daemon.make(steps=2)["state"], "succeeded", "the other model")


@test
def a_quick_model_is_not_held_up_by_a_slow_one():
    with Daemon("--model", f"slow={BUILT_IN}", "--rows-max", "8") as daemon:
        same(daemon.make(model="slow", steps=1, class_label=0)["state"], "succeeded", "loads")
        slow = [daemon.post({"model": "slow", "class_label": c, "steps": 1000, "n": 8}).json["id"] for c in range(3)]
        eventually(lambda: daemon.get(f"/jobs/{slow[0]}").json["progress"]["done"] > 0, what="the slow one computes")
        job = daemon.make(steps=20, n=2)
        same(job["state"], "succeeded", "state")
        busy = daemon.get(f"/jobs/{slow[0]}").json
        same(busy["state"], "running", "the slow one, fifty times as long, when twenty steps of the quick one have been made beside it")
        eventually(lambda: daemon.get(f"/jobs/{slow[0]}").json["progress"]["done"] > busy["progress"]["done"], what="the slow one goes on")
        for job_id in slow:
            daemon.call("DELETE", f"/jobs/{job_id}")


@test
def a_broken_model_is_tried_again_when_it_is_mended():
    folder = os.path.join(scratch("model"), "m")
    shutil.copytree(tiny_model(), folder)
    config = os.path.join(folder, "unet", "config.json")
    with open(config, encoding="utf8") as file:
        whole = file.read()
    with open(config, "w", encoding="utf8") as file:
        file.write(whole.replace("UNet2DModel", "UNet9DModel"))
    with Daemon("--model", f"mended={folder}") as daemon:
        told(daemon, "mended", "failed")
        check("UNet9DModel" in daemon.get("/models/mended").json["error"], "the cause")
        answer = daemon.post({"model": "mended"})
        same((answer.status, answer.json["field"]), (422, "/model"), "a request for it")
        check("UNet9DModel" in answer.json["detail"], answer.json["detail"])
        with open(config, "w", encoding="utf8") as file:
            file.write(whole)
        os.utime(folder)
        told(daemon, "mended", "unloaded")
        same(daemon.make(model="mended", steps=2)["state"], "succeeded", "state")


@test
def a_worker_that_dies_leaves_models_to_be_loaded_again():
    with Daemon("--model", f"fashion={BUILT_IN}", "--snapshot-every", "0.01") as daemon:
        job_id = daemon.post({"model": "fashion", "class_label": 7, "steps": 400, "seed": 5}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job_id}").json["progress"]["done"] > 20, what="some steps")
        for pid in daemon.worker_pids():
            os.kill(pid, signal.SIGKILL)
        same(daemon.wait(job_id, 120)["state"], "succeeded", "state")
        same(daemon.get("/readyz").status, 200, "ready")


@test
def the_memory_limit_is_read_strictly():
    for text in ("x", "-1", "101%", "0%", "5Q", "%"):
        done = subprocess.run([PROGRAM, "serve", "--data", scratch("d"), "--model", f"m={tiny_model()}", "--memory-limit", text],
                              capture_output=True, text=True, check=False)
        same(done.returncode, 78, f"status for {text}")
        check("--memory-limit" in done.stderr, done.stderr)


run(__name__)
