"""--device, everywhere it can be said: what it takes and refuses, what auto comes to and says, and an emulated GPU that serves, generates,
explains itself and stands in pictures. Libraries of tests/shims play the driver; build/VARIANT/emulated holds the library over the emulator."""
import re
import struct

from harness import *  # noqa: F403

OUT = os.path.dirname(PROGRAM)
SHIMS = os.path.join(OUT, "tests", "shims")
EMULATED = os.path.join(OUT, "emulated")
BARE = {name: value for name, value in os.environ.items() if not name.startswith(("DENOISED_DEVICE", "DENOISED_BACKEND", "DENOISED_EMULATOR"))}
GPU = {"DENOISED_BACKEND_DIR": EMULATED}
LATENT = os.path.join(ROOT, "tests/golden/pipe_dit_ddpm10_cfg4")


def denoised(*arguments, environment=None):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**BARE, **(environment or {})})


def machine_with_a_driver(**says):
    """An environment in which libcuda.so.1 is the tests' own."""
    shim = os.path.join(SHIMS, "gpu_driver.so")
    if not os.path.exists(shim):
        raise Skip(f"{shim} is not built")
    folder = scratch("driver")
    os.symlink(shim, os.path.join(folder, "libcuda.so.1"))
    return {"LD_LIBRARY_PATH": folder, **{name.upper(): str(value) for name, value in says.items()}}


def bare_machine():
    if json.loads(denoised("inspect", "--gpu", "--json").stdout)["driver"]:
        raise Skip("this machine has a driver")


def emulator():
    if not os.path.exists(os.path.join(EMULATED, "libdenoised_cuda.so")):
        raise Skip(f"{EMULATED} is not built")


def generated(path, *options, environment=None, seed=5):
    done = denoised("generate", "--model", tiny_model(), "--class", "3", "--seed", seed, "--steps", "4", "--output", path, *options,
                    environment=environment)
    same(done.returncode, 0, done.stderr)
    return done


def recipe(path):
    with open(path, "rb") as file:
        return json.loads(png_texts(file.read())["denoised"])


# ---- Without a GPU

COMMANDS = {"generate": ["--model", tiny_model(), "--output", "/nonexistent/x.png"], "verify": ["--model", tiny_model(), __file__],
            "inspect": ["--quick", tiny_model()], "forward": ["--model", tiny_model(), "--input", "x", "--output", "y"],
            "evaluate": ["--model", tiny_model(), "--data", "x"], "serve": ["--data", "/nonexistent/x", "--model", f"tiny={tiny_model()}"]}


@test
def a_name_that_is_none_is_refused():
    for command in ("serve", "inspect", "evaluate"):
        done = denoised(command, *COMMANDS[command], "--device", "gpu")
        check(done.returncode in (65, 78), f"{command}: {done.returncode}")
        check('device "gpu" is none of auto, cpu, cuda, cuda:N' in done.stderr, f"{command}: {done.stderr}")
    done = denoised("serve", *COMMANDS["serve"], "--device", "cuda:0,cuda:0")
    check(done.returncode == 78 and "cuda:0 is named twice" in done.stderr, done.stderr)


@test
def a_gpu_that_is_named_is_used_or_refused():
    bare_machine()
    for command in ("serve", "inspect", "evaluate"):
        done = denoised(command, *COMMANDS[command], "--device", "cuda")
        check(done.returncode in (69, 78), f"{command}: {done.returncode}")
        check("no NVIDIA driver is installed (libcuda.so.1): install driver 580" in done.stderr, f"{command}: {done.stderr}")
    path = os.path.join(scratch("refused"), "x.png")
    done = denoised("generate", "--model", tiny_model(), "--device", "cuda:1", "--output", path)
    check(done.returncode == 69 and "no NVIDIA driver" in done.stderr and not os.path.exists(path), done.stderr)
    done = denoised("generate", "--model", tiny_model(), "--output", path, environment={"DENOISED_DEVICE": "cuda"})
    check(done.returncode == 69 and not os.path.exists(path), done.stderr)


@test
def without_a_driver_auto_is_silent():
    bare_machine()
    folder = scratch("auto")
    quiet, named = (generated(f"{folder}/{name}.png", *options) for name, options in (("auto", []), ("cpu", ["--device", "cpu"])))
    same(quiet.stderr.replace("auto.png", ""), named.stderr.replace("cpu.png", ""), "what is said")
    with open(f"{folder}/auto.png", "rb") as one, open(f"{folder}/cpu.png", "rb") as other:
        same(one.read(), other.read(), "bytes")
    with Daemon(environment={"DENOISED_DEVICE": "auto"}) as daemon:
        answer = daemon.get("/models").json
        same((answer["device_note"], answer["models"][0]["gpu"], answer["models"][0]["plan"]), (None, None, None), "of a CPU")
        check("on the CPU" not in daemon.log_text(), daemon.log_text())


@test
def with_a_driver_auto_says_why_not():
    old = machine_with_a_driver(driver_version=12040)
    wanted = "the NVIDIA driver is too old: it supports CUDA 12.4, and 13.0 is needed"
    done = generated(os.path.join(scratch("old"), "x.png"), environment=old)
    check(f"denoised generate: on the CPU: no GPU can be used: {wanted}" in done.stderr, done.stderr)
    done = denoised("generate", "--model", tiny_model(), "--device", "cuda", environment=old)
    check(done.returncode == 69 and wanted in done.stderr, done.stderr)
    with Daemon(environment={**old, "DENOISED_DEVICE": "auto"}) as daemon:
        check(wanted in daemon.get("/models").json["device_note"], daemon.get("/models").json)
        check(f"on the CPU: no GPU can be used: {wanted}" in daemon.log_text(), daemon.log_text())
        same(daemon.make(class_label=1, steps=2)["state"], "succeeded", "a job")
    refused = denoised("serve", "--listen", "127.0.0.1:0", "--data", scratch("data"), "--model", f"tiny={tiny_model()}", "--device", "cuda",
                       environment=old)
    check(refused.returncode == 78 and wanted in refused.stderr, refused.stderr)


@test
def inspect_says_what_there_is():
    cards = machine_with_a_driver()
    said = json.loads(denoised("inspect", "--gpu", "--json", environment=cards).stdout)
    same((said["driver"], said["driver_cuda"], [card["name"] for card in said["cards"]]), (True, "13.0", ["Imagined GPU 0", "Imagined GPU 1"]), "driver")
    same((said["cards"][1]["capability"], said["cards"][1]["memory"], said["emulated"]), ("9.0", 2 << 30, False), "a card")
    text = denoised("inspect", "--gpu", environment=cards).stdout
    for words in ("for CUDA 13.0", "Imagined GPU 1, compute capability 9.0, 2.0 GiB"):
        check(words in text, text)
    missing = denoised("inspect", "--gpu", environment={**cards, "DENOISED_BACKEND_DIR": scratch("empty")})
    check(missing.returncode == 0 and "not used      no libdenoised_cuda.so in " in missing.stdout, missing.stdout)
    same(denoised("inspect", "--gpu", "--cpu").returncode, 64, "two things at once")


@test
def likelihood_stays_on_the_cpu():
    emulator()
    done = denoised("evaluate", *COMMANDS["evaluate"], "--likelihood", "4", "--device", "cuda", environment=GPU)
    check(done.returncode == 69 and "--likelihood runs on the CPU alone" in done.stderr, done.stderr)


# ---- Over the emulated GPU

@test
def generate_runs_on_it_and_says_so():
    emulator()
    folder = scratch("generate")
    for device, name in (("cuda", "a"), ("cuda:0", "b"), ("auto", "c")):
        generated(f"{folder}/{name}.png", "--device", device, environment=GPU)
    pictures = [open(f"{folder}/{name}.png", "rb").read() for name in "abc"]
    check(pictures[0] == pictures[1] == pictures[2], "the same request, other bytes")
    made = recipe(f"{folder}/a.png")
    check(re.fullmatch(r"cuda sm_\d+ bf16", made["device"]), made["device"])
    check(made["gpu"] and re.fullmatch(r"[0-9a-f]{16}", made["plan"]), made)
    generated(f"{folder}/cpu.png", "--device", "cpu")
    plain = recipe(f"{folder}/cpu.png")
    check("gpu" not in plain and plain["device"].startswith("cpu ") and plain["build"] != made["build"], plain)
    generated(f"{folder}/fp32.png", "--device", "cuda", "--precision", "fp32", environment=GPU)
    same(recipe(f"{folder}/fp32.png")["device"], made["device"].removesuffix(" bf16"), "in fp32")
    generated(f"{folder}/fast.png", "--device", "cuda", "--fast", environment=GPU)
    same(recipe(f"{folder}/fast.png")["device"], made["device"] + " fast", "with --fast")
    done = denoised("generate", "--model", tiny_model(), "--device", "cuda", "--precision", "fp16", environment=GPU)
    check(done.returncode == 69 and "fp16" in done.stderr, done.stderr)
    done = denoised("generate", "--model", tiny_model(), "--device", "cuda:1", environment=GPU)
    check(done.returncode == 69 and "there is no cuda:1: this machine has 1 GPU, " in done.stderr, done.stderr)


@test
def a_classifier_guides_on_the_cpu_alone():
    emulator()
    model = os.path.join(ROOT, "models", "fashion-mnist")
    for option, value in (("--guidance-method", "classifier"), ("--classifier-scale", "2")):
        path = os.path.join(scratch("classifier"), "x.png")
        done = denoised("generate", "--model", model, "--device", "cuda", "--class", "3", option, value, "--output", path, environment=GPU)
        wanted = f"denoised generate: {option}: classifier guidance runs on the CPU alone, and this model is on a GPU"
        check(done.returncode == 65 and wanted in done.stderr, f"{done.returncode}: {done.stderr}")
    said = denoised("inspect", "--quick", "--device", "cuda", model, environment=GPU).stdout
    check("for classifier guidance, which runs on the CPU alone" in said, said)


@test
def verify_tells_devices_apart():
    emulator()
    folder = scratch("verify")
    generated(f"{folder}/gpu.png", "--device", "cuda", environment=GPU)
    generated(f"{folder}/cpu.png", "--device", "cpu")

    def verdict(path, device):
        done = denoised("verify", "--model", tiny_model(), "--json", "--device", device, path, environment=GPU)
        check(done.returncode in (0, 1), done.stderr)
        return json.loads(done.stdout)
    same(verdict(f"{folder}/gpu.png", "cuda")["verdict"], "same-bytes", "a GPU's on a GPU")
    same(verdict(f"{folder}/cpu.png", "cpu")["verdict"], "same-bytes", "a CPU's on a CPU")
    for path, device, here in ((f"{folder}/gpu.png", "cpu", None), (f"{folder}/cpu.png", "cuda", recipe(f"{folder}/gpu.png")["gpu"])):
        found = verdict(path, device)
        check(found["verdict"] in ("different", "same-pixels"), found["verdict"])
        reasons = {reason["code"]: reason["detail"] for reason in found["reasons"]}
        check("other-build" in reasons and (recipe(f"{folder}/gpu.png")["gpu"][:40] in reasons["other-build"]), reasons)
        same(found["found"]["gpu"], here, "where it was made again")


def answers(*options):
    """What the tiny model's network says to two rows of simple numbers."""
    folder = scratch("forward")
    shape = json.loads(denoised("inspect", "--quick", "--json", tiny_model()).stdout)["model"]
    dims = [2, shape["channels"], shape["height"], shape["width"]]
    values = dims[0] * dims[1] * dims[2] * dims[3]
    header = json.dumps({"sample": {"dtype": "F32", "shape": dims, "data_offsets": [0, 4 * values]},
                         "timestep": {"dtype": "F32", "shape": [2], "data_offsets": [4 * values, 4 * values + 8]},
                         "class_labels": {"dtype": "F32", "shape": [2], "data_offsets": [4 * values + 8, 4 * values + 16]}}).encode()
    with open(f"{folder}/in", "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        out.write(struct.pack(f"<{values}f", *(((37 * i) % 101 - 50) / 40 for i in range(values))) + struct.pack("<4f", 3, 700, 2, 9))
    done = denoised("forward", "--model", tiny_model(), "--input", f"{folder}/in", "--output", f"{folder}/out", "--trace", f"{folder}/trace", *options,
                    environment=GPU)
    same(done.returncode, 0, done.stderr)
    with open(f"{folder}/out", "rb") as file:
        data = file.read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return struct.unpack(f"<{(len(data) - start) // 4}f", data[start:])


@test
def forward_runs_on_it():
    emulator()
    wanted = answers()
    same(answers("--device", "cpu"), wanted, "the CPU, said or not")
    for precision, most in (("fp32", 1e-4), ("bf16", 2e-2)):
        got = answers("--device", "cuda", "--precision", precision)
        off = (sum((a - b) ** 2 for a, b in zip(got, wanted)) / sum(b * b for b in wanted)) ** 0.5
        check(len(got) == len(wanted) and off < most, f"{precision}: relative RMS error {off:.2e}")
        print(f"{precision}: relative RMS error against the CPU {off:.2e}")


@test
def inspect_counts_what_it_takes_there():
    emulator()
    said = json.loads(denoised("inspect", "--json", "--device", "cuda", tiny_model(), environment=GPU).stdout)
    check(re.fullmatch(r"\d+ steps, \d+ products, buckets of 1 2 4 .*rows", said["costs"]["form"]), said["costs"])
    check(said["costs"]["packed_bytes"] > 0 and said["costs"]["further_row_bytes"] > 0 and said["costs"]["row_ms"] > 0, said["costs"])
    text = denoised("inspect", "--device", "cuda", tiny_model(), environment=GPU).stdout
    for words in ("device        cuda:0 ", "compiled      ", "plan          ", "100 % of them in bf16"):
        check(words in text, text)
    gpu = json.loads(denoised("inspect", "--gpu", "--json", environment=GPU).stdout)
    same((gpu["emulated"], gpu["usable"], gpu["not_used"], len(gpu["cards"])), (True, True, None, 1), "inspect --gpu")
    check("bf16" in gpu["cards"][0]["precisions"] and gpu["cards"][0]["memory"] > 0, gpu["cards"])
    several = json.loads(denoised("inspect", "--gpu", "--json", environment={**GPU, "DENOISED_EMULATOR": "devices=3"}).stdout)
    same([card["device"] for card in several["cards"]], ["cuda:0", "cuda:1", "cuda:2"], "three cards")
    none = json.loads(denoised("inspect", "--gpu", "--json", environment={**GPU, "DENOISED_EMULATOR": "devices=0"}).stdout)
    check(not none["usable"] and none["not_used"], none)


@test
def the_daemon_serves_on_it():
    emulator()
    folder = scratch("served")
    with Daemon("--device", "cuda", environment=GPU) as daemon:
        model = daemon.get("/models/tiny").json
        check(re.fullmatch(r"cuda sm_\d+ bf16", model["device"]) and model["precision"] == "bf16", model["device"])
        check(model["gpu"] and model["plan"], model)
        check(f"(model tiny, {model['device']}, {model['gpu'].split(',')[0]})" in daemon.ready_line, daemon.ready_line)
        with open(f"/proc/{daemon.process.pid}/maps", encoding="utf8") as maps:
            check("libdenoised_cuda" not in maps.read(), "the daemon itself has opened the library")
        job = daemon.make(class_label=3, seed=5, steps=4)
        same(job["state"], "succeeded", f"state, {job['error']}")
        same(job["images"][0]["device"], model["device"], "of the picture")
        picture = daemon.image(job["id"])
        with open(f"{folder}/served.png", "wb") as file:
            file.write(picture)
        told = recipe(f"{folder}/served.png")
        same((told["gpu"], told["plan"], told["build"]), (model["gpu"], model["plan"], model["build"]), "in the PNG")
        answer = daemon.call("POST", "/verify", picture, **{"Content-Type": "image/png", "Prefer": "wait=300"})
        same((answer.json["verdict"], answer.json["found"]["gpu"]), ("same-bytes", model["gpu"]), "verified there")
        refused = daemon.post({"class_label": 1, "guidance_scale": 2, "guidance_method": "classifier"})
        check(refused.status == 422 and "classifier guidance runs on the CPU alone" in refused.json["detail"], refused.body)
    generated(f"{folder}/alone.png", "--device", "cuda", environment=GPU)
    # The model's name apart, which the service gives it, the picture of the command line is the daemon's.
    same(recipe(f"{folder}/alone.png")["pixels_sha256"], told["pixels_sha256"], "pixels")


@test
def a_fallback_begins_where_no_gpu_can_be_used():
    old = machine_with_a_driver(driver_init=100)
    with Daemon("--device", "cuda", "--device-fallback", "cpu", environment=old) as daemon:
        check("the NVIDIA driver finds no GPU" in daemon.get("/models").json["device_note"], daemon.get("/models").json)
        job = daemon.make(class_label=1, steps=2)
        check(job["images"][0]["device"].startswith("cpu "), job)
    done = denoised("serve", *COMMANDS["serve"], "--device-fallback", "cuda")
    check(done.returncode == 78 and "--device-fallback must be cpu" in done.stderr, done.stderr)


@test
def plans_are_kept_where_they_are_looked_for():
    emulator()
    home, folder = scratch("home"), scratch("plans")
    for environment, path in (({"HOME": home, "XDG_CACHE_HOME": ""}, f"{home}/.cache/denoised/plans"),
                              ({"HOME": home, "XDG_CACHE_HOME": f"{home}/x/y"}, f"{home}/x/y/denoised/plans")):
        generated(f"{folder}/a.png", "--device", "cpu", environment={**GPU, **environment})
        check(not os.path.exists(path), "the CPU has no plans")
        generated(f"{folder}/a.png", "--device", "cuda", environment={**GPU, **environment})
        check(os.path.isdir(path), path)
    generated(f"{folder}/a.png", "--device", "cuda", "--plan-cache", f"{folder}/own/deep", environment=GPU)
    check(os.path.isdir(f"{folder}/own/deep"), "a folder of one's own")
    long = "/".join([folder, *["long" * 50] * 6])
    generated(f"{folder}/a.png", "--device", "cuda", "--plan-cache", long, environment=GPU)
    check(os.path.isdir(long), "one with a long path, whole")
    generated(f"{folder}/a.png", "--device", "cuda", environment={**GPU, "HOME": "/proc/none", "XDG_CACHE_HOME": ""})
    done = denoised("generate", "--model", tiny_model(), "--device", "cuda", "--plan-cache", "/proc/none/x", environment=GPU)
    check(done.returncode == 74 and "/proc/none" in done.stderr, f"{done.returncode}: {done.stderr}")
    with Daemon("--device", "cuda", environment=GPU) as daemon:
        with open(f"/proc/{daemon.worker_pids()[0]}/cmdline", encoding="utf8") as words:
            told = words.read().split("\0")
        same(told[told.index("--plan-cache") + 1], f"{daemon.data}/plans", "the daemon's are with its data")


@test
def latents_are_decoded_on_it():
    emulator()
    path = os.path.join(scratch("latent"), "x.png")
    done = denoised("generate", "--model", LATENT, "--class", "3", "--seed", "8", "--steps", "2", "--device", "cuda", "--output", path, environment=GPU)
    same(done.returncode, 0, done.stderr)
    done = denoised("verify", "--model", LATENT, "--device", "cuda", path, environment=GPU)
    check(done.returncode == 0 and "same-bytes" in done.stdout, done.stdout + done.stderr)


@test
def a_daemon_without_its_gpu_does_not_start():
    emulator()
    done = denoised("serve", "--listen", "127.0.0.1:0", "--data", scratch("data"), "--model", f"tiny={tiny_model()}", "--device", "cuda:1",
                    environment=GPU)
    check(done.returncode == 78 and "there is no cuda:1: this machine has 1 GPU" in done.stderr, done.stderr)
    done = denoised("serve", "--listen", "127.0.0.1:0", "--data", scratch("data"), "--model", f"tiny={tiny_model()}", "--device", "cuda",
                    "--precision", "fp16", environment=GPU)
    check(done.returncode == 78 and "fp16" in done.stderr, done.stderr)


run(__name__)
