"""The inspect command: what it says of folders that load, and why others do not, without the daemon."""
import re
import struct

from harness import *  # noqa: F403

GOLDEN = os.path.join(ROOT, "tests", "golden")
LATENT = os.path.join(GOLDEN, "pipe_dit_ddpm10_cfg4")


def inspect(path, *options):
    return subprocess.run([PROGRAM, "inspect", str(path), *options], capture_output=True, text=True, timeout=PATIENCE, check=False)


def facts(path, *options):
    answer = inspect(path, "--json", *options)
    same(answer.returncode, 0, answer.stderr)
    return json.loads(answer.stdout)


def copy_of(folder):
    path = os.path.join(scratch("copy"), "model")
    shutil_copy(folder, path)
    return path


def shutil_copy(folder, path):
    subprocess.run(["cp", "-rL", folder, path], check=True)
    subprocess.run(["chmod", "-R", "u+w", path], check=True)


def header_of(path):
    with open(path, "rb") as stream:
        data = stream.read()
    size, = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_tensors(path, header, data):
    text = json.dumps(header).encode()
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + data)


@test
def the_built_in_model_is_explained():
    said = facts(os.path.join(ROOT, "models", "fashion-mnist"))
    same((said["error"], said["pipeline"], said["parameters"]), (None, "DDPMPipeline", 1806529), "what it is")
    same((said["weights"]["files"], said["weights"]["types"]), (1, {"F16": 1806529}), "what is stored")
    same((said["model"]["class_count"], said["model"]["null_class"], said["model"]["defaults"]["sampler"]), (10, 10, "dpmpp_2m"), "what it can")
    costs = said["costs"]
    check(costs["packed_bytes"] >= 4 * 1806529 and costs["first_row_bytes"] > costs["further_row_bytes"] > 0, costs)
    check(costs["first_row_bytes"] < costs["tick_bytes"] <= 2 * costs["rows_max"] * costs["first_row_bytes"], costs)
    check(1 << 20 < costs["kept_bytes"] <= 4 << 20, costs)
    check(costs["row_ms"] > 0 and costs["rows_max"] >= 2 and costs["decode_ms"] is None, costs)
    text = inspect(os.path.join(ROOT, "models", "fashion-mnist")).stdout
    for words in ("UNet2DModel, in a DDPMPipeline", "null class in row 10", "GFLOP a row", "rows a tick", "times and conditions met before", "dpmpp_2m ddim"):
        check(words in text, words)


@test
def what_it_says_is_what_the_service_says():
    with Daemon(model=LATENT) as daemon:
        served, said = daemon.get("/models/tiny").json, facts(LATENT)["model"]
    for name in ("name", "state", "batch"):  # each measures its own ticks
        served.pop(name, None), said.pop(name, None)
    same(said, served, "the description")


@test
def quick_reads_no_weights_and_says_the_same():
    path = copy_of(tiny_model())
    whole = facts(path)
    weights = os.path.join(path, "unet", "diffusion_pytorch_model.safetensors")
    header, data = header_of(weights)
    write_tensors(weights, header, bytes(len(data) - 4) + b"\xff\xff\xff\x7f")  # a NaN, which whoever reads it refuses
    check(inspect(path).returncode == 78, "the broken number was not seen")
    quick = facts(path, "--quick")
    same((quick["costs"]["row_ms"], quick["costs"]["first_row_bytes"]), (None, None), "nothing was run")
    for said in (whole, quick):
        said.pop("costs")
        for name in ("weights_sha256", "build"):  # both are made of the weights
            said["model"].pop(name)
    for part in (*quick, *quick["model"]):
        same(quick.get(part, quick["model"].get(part)), whole.get(part, whole["model"].get(part)), part)
    same(set(quick) ^ set(whole), set(), "the parts")


@test
def latents_have_a_codec():
    said = facts(LATENT)
    same((said["model"]["latent"], said["model"]["width"], said["model"]["channels"]), ({"width": 8, "height": 8, "channels": 4}, 64, 3), "sizes")
    check(said["codec"].endswith("/vae") and said["costs"]["decode_ms"] > 0 and said["model"]["learned_variance"], said["codec"])


@test
def shards_are_counted():
    path = os.path.join(scratch("shards"), "unet")
    shutil_copy(os.path.join(GOLDEN, "unet_noattn"), path)
    whole = os.path.join(path, "diffusion_pytorch_model.safetensors")
    header, data = header_of(whole)
    header.pop("__metadata__", None)
    names, places = sorted(header), {}
    for k, part in enumerate((names[::2], names[1::2])):
        out, pieces, at = {}, [], 0
        for name in part:
            first, last = header[name]["data_offsets"]
            out[name] = dict(header[name], data_offsets=[at, at + last - first])
            pieces.append(data[first:last])
            at += last - first
            places[name] = f"diffusion_pytorch_model-0000{k + 1}-of-00002.safetensors"
        write_tensors(os.path.join(path, places[part[0]]), out, b"".join(pieces))
    os.remove(whole)
    with open(whole + ".index.json", "w", encoding="utf8") as stream:
        json.dump({"metadata": {}, "weight_map": places}, stream)
    said = facts(path)
    same((said["weights"]["files"], said["weights"]["tensors"], said["parameters"]), (2, len(names), facts(os.path.join(GOLDEN, "unet_noattn"))["parameters"]), "shards")


@test
def what_would_take_days_is_not_measured():
    path = copy_of(os.path.join(GOLDEN, "unet_default"))
    file = os.path.join(path, "config.json")
    with open(file, encoding="utf8") as stream:
        config = json.load(stream)
    config["sample_size"] = 4096
    with open(file, "w", encoding="utf8") as stream:
        json.dump(config, stream)
    said = facts(path)
    check(said["costs"]["row_ms"] is None and said["costs"]["first_row_bytes"] > 1e9, said["costs"])
    check("not measured" in inspect(path).stdout, "why there is no speed")


def cpu(*options, **variables):
    return subprocess.run([PROGRAM, "inspect", "--cpu", *options], capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env=dict(os.environ, **variables))


@test
def the_processor_is_explained():
    answer = cpu("--json")
    same(answer.returncode, 0, answer.stderr)
    said = json.loads(answer.stdout)
    sets = {row["name"]: row["runs"] for row in said["instruction_sets"]}
    best = next(name for name, runs in sets.items() if runs)
    same((said["instruction_set"], said["why"]), (os.environ.get("DENOISED_ISA", best), said["why"]), "the kernels")
    with open("/proc/cpuinfo", encoding="utf8") as stream:
        flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", stream.read(), re.M)[1].split())
    for row in said["instruction_sets"]:
        same(row["runs"], set(row["needs"].split()) <= flags, row)
    check(set(said["features"].split()) <= flags, said["features"])
    same((said["cpus"]["affinity"], "fp32" in said["precisions"]), (len(os.sched_getaffinity(0)), True), said)
    for part in ("peak_gflops", "memory_gbytes"):
        check(said[part]["core"] > 0 and said[part]["all"] > 0, said[part])
    text = cpu("--threads", "1").stdout
    for words in (f"kernels       {said['instruction_set']}", "GFLOP/s of one core", "floats a vector", "1 threads", said["cpu"]):
        check(words in text, f"{words} is not in {text}")


@test
def an_instruction_set_can_be_forced():
    for row in json.loads(cpu("--json").stdout)["instruction_sets"]:
        answer = cpu("--json", DENOISED_ISA=row["name"])
        if row["runs"]:
            said = json.loads(answer.stdout)
            same((said["instruction_set"], said["why"]), (row["name"], "DENOISED_ISA says so"), "what was forced")
        else:
            same(answer.returncode, 78, answer.stdout)
    answer = cpu("--json", DENOISED_ISA="mmx")
    same(answer.returncode, 78, answer.stdout)
    check('"mmx" is none of' in answer.stderr and "mmx" in json.loads(answer.stdout)["error"], answer.stderr)


@test
def a_model_or_the_processor_is_asked_for():
    for words in ([], ["--cpu", tiny_model()]):
        answer = subprocess.run([PROGRAM, "inspect", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
        same(answer.returncode, 64, answer.stderr)


@test
def what_cannot_be_loaded_is_explained():
    def broken(change):
        path = copy_of(tiny_model())
        change(path)
        return path

    def edit(name, **keys):
        def change(path):
            with open(os.path.join(path, name), encoding="utf8") as stream:
                config = json.load(stream)
            config.update(keys)
            with open(os.path.join(path, name), "w", encoding="utf8") as stream:
                json.dump(config, stream)
        return change

    def rename_tensor(path):
        file = os.path.join(path, "unet", "diffusion_pytorch_model.safetensors")
        header, data = header_of(file)
        header["conv_inn.weight"] = header.pop("conv_in.weight")
        write_tensors(file, header, data)

    def cut(path):
        file = os.path.join(path, "unet", "diffusion_pytorch_model.safetensors")
        os.truncate(file, os.path.getsize(file) - 10)

    rows = [
        ("/nonexistent", ["/nonexistent"]),
        (os.path.join(GOLDEN, "vae_default"), ["AutoencoderKL"]),
        (broken(lambda path: os.remove(os.path.join(path, "unet", "config.json"))), ["unet"]),
        (broken(lambda path: os.remove(os.path.join(path, "unet", "diffusion_pytorch_model.safetensors"))), ["unet"]),
        (broken(edit("unet/config.json", _class_name="UNet3DModel")), ["config.json", "UNet3DModel"]),
        (broken(edit("unet/config.json", layers_per_block=0)), ["config.json", "layers_per_block"]),
        (broken(edit("unet/config.json", in_channels=5)), ["conv_in.weight", "[8,5,3,3]", "[8,3,3,3]"]),
        (broken(edit("scheduler/scheduler_config.json", beta_schedule="magic")), ["scheduler_config.json", "beta_schedule"]),
        (broken(edit("model_index.json", id2label={"0": "a", "2": "b"})), ["model_index.json", "id2label"]),
        (broken(edit("model_index.json", denoised={"steps": 0})), ["denoised.steps"]),
        (broken(rename_tensor), ["diffusion_pytorch_model.safetensors", "conv_in"]),
        (broken(cut), ["diffusion_pytorch_model.safetensors"]),
    ]
    for path, words in rows:
        for options in ((), ("--quick",), ("--json",)):
            answer = inspect(path, *options)
            same(answer.returncode, 78, f"{path} {options}: {answer.stdout}{answer.stderr}")
            for word in words:
                check(word in answer.stderr, f"{word} is not in {answer.stderr!r}")
            if options == ("--json",):
                check(json.loads(answer.stdout)["error"] in answer.stderr, answer.stdout)
            else:
                same(answer.stdout, "", "standard output")


run(__name__)
