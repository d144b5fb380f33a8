"""--precision: what it changes and what not, how it is named everywhere, and how it is refused; and that the program's code holds the
instructions that it is about. A transformer large enough for the table of shapes is made here, of drawn weights."""
import array
import platform
import random
import re
import struct

from harness import *  # noqa: F403

WIDTH, HEADS, LAYERS, CLASSES_OF_IT = 192, 3, 3, 10
FLAGS = ""
if platform.machine() == "x86_64":
    with open("/proc/cpuinfo", encoding="ascii") as stream:
        FLAGS = next((line for line in stream if line.startswith("flags")), "")


def shapes():
    """name -> shape of a DiTTransformer2DModel with the dimensions above, 16x16 samples of 4 channels, answers of 4."""
    out = {"pos_embed.proj.weight": [WIDTH, 4, 2, 2], "pos_embed.proj.bias": [WIDTH]}
    for layer in range(LAYERS):
        linear = {"norm1.emb.timestep_embedder.linear_1": (WIDTH, 256), "norm1.emb.timestep_embedder.linear_2": (WIDTH, WIDTH),
                  "norm1.linear": (6 * WIDTH, WIDTH), "attn1.to_q": (WIDTH, WIDTH), "attn1.to_k": (WIDTH, WIDTH), "attn1.to_v": (WIDTH, WIDTH),
                  "attn1.to_out.0": (WIDTH, WIDTH), "ff.net.0.proj": (4 * WIDTH, WIDTH), "ff.net.2": (WIDTH, 4 * WIDTH)}
        for name, (rows, columns) in linear.items():
            out[f"transformer_blocks.{layer}.{name}.weight"] = [rows, columns]
            out[f"transformer_blocks.{layer}.{name}.bias"] = [rows]
        out[f"transformer_blocks.{layer}.norm1.emb.class_embedder.embedding_table.weight"] = [CLASSES_OF_IT + 1, WIDTH]
    out.update({"proj_out_1.weight": [2 * WIDTH, WIDTH], "proj_out_1.bias": [2 * WIDTH], "proj_out_2.weight": [16, WIDTH], "proj_out_2.bias": [16]})
    return out


def transformer():
    """A folder of that network; the same numbers each time."""
    folder = os.path.join(scratch("precision"), "dit")
    os.makedirs(folder)
    generator, header, parts, at = random.Random(5), {}, [], 0
    normals = [generator.gauss(0.0, 1.0) for _ in range(65521)]
    for name, shape in shapes().items():
        count, fan = 1, 1
        for i, side in enumerate(shape):
            count, fan = count * side, fan * (side if i else 1)
        scale = 0.7 / fan ** 0.5 if len(shape) > 1 else 0.1
        first = generator.randrange(65521)
        values = array.array("f", (scale * normals[(first + i) % 65521] for i in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * count]}
        parts.append(values.tobytes())
        at += 4 * count
    text = json.dumps(header).encode()
    with open(os.path.join(folder, "diffusion_pytorch_model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    with open(os.path.join(folder, "config.json"), "w", encoding="ascii") as file:
        json.dump({"_class_name": "DiTTransformer2DModel", "num_attention_heads": HEADS, "attention_head_dim": WIDTH // HEADS, "num_layers": LAYERS,
                   "patch_size": 2, "sample_size": 16, "in_channels": 4, "out_channels": 4, "num_embeds_ada_norm": CLASSES_OF_IT}, file)
    return folder


def denoised(*arguments, **environment):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, **environment})


def gained():
    """The precisions that this machine gains by."""
    model = os.path.join(ROOT, "models", "fashion-mnist")
    return [name for name in ("fp16", "bf16") if denoised("inspect", "--quick", "--precision", name, model).returncode == 0]


def latents(folder, *options):
    path = os.path.join(scratch("latents"), "x.safetensors")
    done = denoised("generate", "--model", folder, "--class", "3,7", "--seed", "8", "--steps", "20", "--sampler", "ddim", "--guidance-scale", "2",
                    "--output-latents", path, *options)
    same(done.returncode, 0, done.stderr)
    with open(path, "rb") as file:
        data = file.read()
    size, = struct.unpack("<Q", data[:8])
    first, last = json.loads(data[8:8 + size])["latents"]["data_offsets"]
    return struct.unpack(f"<{(last - first) // 4}f", data[8 + size + first:8 + size + last])


@test
def final_latents_are_near_those_of_floats():
    precisions = gained()
    if not precisions:
        raise Skip("this CPU gains by no 16-bit precision")
    folder = transformer()
    wanted = latents(folder)
    same(latents(folder, "--precision", "fp32"), wanted, "fp32, said or not")
    for name in precisions:
        got = latents(folder, "--precision", name)
        same(latents(folder, "--precision", name, "--threads", "1"), got, f"{name} on one thread")
        off = sum((a - b) ** 2 for a, b in zip(got, wanted)) / sum(b * b for b in wanted)
        print(f"{name}: relative RMS error of the final latents {off ** 0.5:.2e}")
        # One pass is off by half a percent; a network of drawn weights is no denoiser, and twenty steps enlarge that some times.
        check(1e-5 < off ** 0.5 < 5e-2, f"{name}: relative RMS error {off ** 0.5:.2e}")


@test
def the_share_of_the_work_is_told():
    folder = transformer()
    facts = json.loads(denoised("inspect", "--quick", "--json", folder).stdout)
    same(facts["costs"]["gflop_row_16_bit"], 0, "in fp32")
    for name in gained():
        costs = json.loads(denoised("inspect", "--quick", "--json", "--precision", name, folder).stdout)["costs"]
        check(0.8 < costs["gflop_row_16_bit"] / costs["gflop_row"] < 0.99, f"{name}: {costs}")
        text = denoised("inspect", "--quick", "--precision", name, folder).stdout
        check(f"% of them in {name}" in text, text)


@test
def the_daemon_names_it_everywhere():
    for name in ["fp32", *gained()]:
        with Daemon("--precision", name) as daemon:
            model = daemon.get("/models/tiny").json
            same(model["precision"], name, "of the model")
            same(model["device"].split()[-1] == name, name != "fp32", f"in its device, {model['device']}")
            job = daemon.make(class_label=1, seed=4, steps=3)
            same(job["state"], "succeeded", f"state, {job['error']}")
            made = json.loads(png_texts(daemon.image(job["id"]))["denoised"])
            same(made["device"], model["device"], "in the PNG")
            same(made["build"], model["build"], "build")


@test
def builds_of_precisions_differ():
    builds = set()
    for name in ["fp32", *gained()]:
        with Daemon("--precision", name) as daemon:
            daemon.make(class_label=1, seed=4, steps=1)
            builds.add(daemon.get("/models/tiny").json["build"])
    same(len(builds), 1 + len(gained()), "builds")


@test
def what_the_cpu_lacks_is_refused_at_the_start():
    if platform.machine() != "x86_64":
        raise Skip("another kind of machine")
    model = os.path.join(ROOT, "models", "fashion-mnist")
    for command in (["generate", "--model", model], ["inspect", model], ["serve", "--data", scratch("refused"), "--model", f"m={model}"]):
        done = denoised(*command, "--precision", "bf16", DENOISED_ISA="avx2" if "avx2" in FLAGS else "sse2")
        check(done.returncode not in (0, -11), f"{command[0]}: {done.returncode}")
        check("needs a CPU with AVX512_BF16" in done.stderr and "--precision fp32" in done.stderr, done.stderr)
        done = denoised(*command, "--precision", "fp8")
        check(done.returncode != 0 and "none of auto, fp32, fp16, bf16" in done.stderr, done.stderr)
    if "avx512_fp16" not in FLAGS:
        done = denoised("inspect", "--precision", "fp16", model)
        check(done.returncode == 78 and "AVX512-FP16" in done.stderr, done.stderr)


@test
def kernels_are_compiled_to_the_instructions_they_are_named_for():
    if platform.machine() != "x86_64":
        raise Skip("another kind of machine")
    if not os.path.exists("/usr/bin/objdump"):
        raise Skip("no objdump")
    code = subprocess.run(["/usr/bin/objdump", "-d", "--no-show-raw-insn", PROGRAM], capture_output=True, text=True, check=True).stdout
    # A tile of 14 x 32 floats, and one of 12 x 64 numbers in 16 bits: two vectors a row each.
    check(len(re.findall(r"vdpbf16ps +%zmm", code)) >= 28, "vdpbf16ps")
    check(len(re.findall(r"vfmadd...ph +%zmm", code)) >= 24, "vfmadd231ph")
    same(re.findall(r"vmulph +%zmm[^\n]*|vaddph +%zmm[^\n]*", code), [], "products and sums in two roundings")


run(__name__)
