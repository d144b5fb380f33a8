"""The generate command: goldens through latents files, pictures and their texts, refusals, Ctrl-C."""
import struct

from harness import *  # noqa: F403

GOLDEN = os.path.join(ROOT, "tests", "golden", "pipe_unet_ddim10_cfg3")


def file(name):
    return os.path.join(scratch("generate"), name)


def generate(*arguments, model=None, **options):
    command = [PROGRAM, "generate", "--model", model or tiny_model(), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)


def made(*arguments, **options):
    answer = generate(*arguments, **options)
    same(answer.returncode, 0, f"the exit status ({answer.stderr})")
    return answer


def tensors(path):
    """name -> (shape, list of numbers) of a safetensors file of F32 and I64 tensors."""
    with open(path, "rb") as stream:
        data = stream.read()
    size, = struct.unpack("<Q", data[:8])
    out = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if name != "__metadata__" and info["dtype"] in ("F32", "I64"):
            first, last = info["data_offsets"]
            code = "f" if info["dtype"] == "F32" else "q"
            count = (last - first) // struct.calcsize(code)
            out[name] = (info["shape"], struct.unpack(f"<{count}{code}", data[8 + size + first:8 + size + last]))
    return out


def write_latents(path, shape, values):
    header = json.dumps({"latents": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * len(values)]}}).encode()
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(values)}f", *values))


@test
def numbers_agree_with_another_implementation():
    golden = tensors(os.path.join(GOLDEN, "case.safetensors"))
    start, end = file("start.safetensors"), file("end.safetensors")
    write_latents(start, *golden["init_noise"])
    made("--latents", start, "--output-latents", end, "--class", ",".join(map(str, golden["class_labels"][1])), "--sampler", "model",
         "--steps", 10, "--guidance-scale", 3, model=GOLDEN)
    shape, values = tensors(end)["latents"]
    same(shape, [2, 3, 8, 8], "the shape")
    path = golden["x"][1]
    most = max(map(abs, path))
    off = max(abs(a - b) for a, b in zip(values, path[-len(values):]))
    check(off <= 1e-4 * most, f"off by {off} of {most}")


@test
def the_same_spec_gives_the_same_files():
    folders = [scratch("a"), scratch("b")]
    for folder, threads in zip(folders, (1, 2)):
        made("--class", "1,2,3", "--seed", 5, "--steps", 4, "--output-dir", folder, "--threads", threads)
    for i in range(3):
        with open(f"{folders[0]}/{i:05}.png", "rb") as a, open(f"{folders[1]}/{i:05}.png", "rb") as b:
            same(a.read(), b.read(), f"image {i}")
    single = file("single.png")
    made("--class", "3", "--seed", 7, "--steps", 4, "--output", single)
    with open(f"{folders[0]}/00002.png", "rb") as a, open(single, "rb") as b:
        same(a.read(), b.read(), "image 2 made alone")


@test
def a_picture_carries_its_recipe():
    path = file("one.png")
    made("--class", "Sneaker", "--seed", 42, "--steps", 3, "--sampler", "ddim", "--eta", 0.5, "--guidance-scale", 2, "--output", path)
    with open(path, "rb") as stream:
        texts = png_texts(stream.read())
    check("Steps: 3, Sampler: DDIM" in texts["parameters"] and "Seed: 42" in texts["parameters"], texts["parameters"])
    request = json.loads(texts["denoised"])["request"]
    same((request["seed"], request["class_label"], request["eta"]), ("42", 7, 0.5), "the recipe")


def compressed_pixels(path):
    with open(path, "rb") as stream:
        data, at, out = stream.read(), 8, b""
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        out += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return out


@test
def the_library_example_makes_the_same_picture():
    example, theirs, ours = os.path.join(os.path.dirname(PROGRAM), "examples", "generate"), file("example.png"), file("command.png")
    if not os.path.exists(example):
        raise Skip(f"{example} is not built (make examples)")
    subprocess.run([example, tiny_model(), theirs], check=True, timeout=PATIENCE)
    made("--class", "7", "--seed", 42, "--steps", 20, "--sampler", "dpmpp_2m", "--guidance-scale", 2, "--output", ours)
    check(len(compressed_pixels(theirs)) > 20, "an empty picture")
    same(compressed_pixels(theirs), compressed_pixels(ours), "the pixels")


@test
def a_sheet_has_rows_and_columns():
    path = file("sheet.png")
    made("-n", 6, "--class", "Bag", "--seed", 1, "--steps", 2, "--columns", 3, "--output", path)
    with open(path, "rb") as stream:
        width, height = png_size(stream.read())
    check(width > height, f"{width} x {height}")


@test
def refusals_name_what_is_wrong():
    for arguments, words in [(("--class", "Sneakr"), "Sneaker"), (("--class", "10"), "classes"), (("--class", "trainer"), "several"),
                             (("--steps", "0"), "--steps"), (("--steps", "1001"), "--steps"), (("--guidance-scale", "nan"), "--guidance-scale"),
                             (("--sampler", "nope"), "sampler"), (("--sampler", "euler", "--eta", "0.5"), "eta"), (("--seed", "18446744073709551616"), "--seed"),
                             (("--latents", "/nonexistent"), "/nonexistent"), (("--bogus",), "--bogus"), (("-n", "0"), "-n")]:
        path = file("refused.png")
        answer = generate(*arguments, "--output", path)
        check(answer.returncode not in (0, 70) and answer.returncode > 0, f"{arguments}: status {answer.returncode}")
        check(words.lstrip("-") in answer.stderr, f"{arguments}: {answer.stderr!r}")
        check(not os.path.exists(path), f"{arguments}: a file was written")
    check(generate("--output", "/nonexistent/x.png", "--steps", "1").returncode == 74, "an unwritable output")
    check(generate(model="/nonexistent").returncode > 0, "no model")


@test
def every_option_of_the_table_is_a_flag_that_errors_name():
    flags = [line.split()[0] for line in subprocess.run([PROGRAM, "generate", "--help-sampling"], capture_output=True, text=True,
                                                        check=True).stdout.splitlines() if line.startswith("  --")]
    check(len(flags) > 30 and "--sigma-schedule" in flags and "--variation-strength" in flags, flags)
    path = file("never.png")
    for flag in flags:
        switch = flag in ("--clip-sample", "--thresholding", "--lower-order-final", "--rescale-betas-zero-snr")
        answer = generate(f"{flag}=nonsense", "--output", path)
        check(answer.returncode in (64, 65) and flag in answer.stderr, f"{flag}: {answer.returncode} {answer.stderr!r}")
        answer = generate(flag, "--output", path) if not switch else generate(flag, "false", "extra", "--output", path)
        check(answer.returncode == 64, f"{flag}: {answer.returncode} {answer.stderr!r}")
    check(not os.path.exists(path), "a file was written")


@test
def help_fits_a_screen_and_lists_what_there_is():
    def said(*words):
        return subprocess.run([PROGRAM, "generate", *words], capture_output=True, text=True, check=True).stdout
    lines = said("--help").splitlines()
    check(len(lines) <= 24 and max(map(len, lines)) <= 80, f"{len(lines)} lines, the longest {max(map(len, lines))}")
    check("--mask-image" not in said("--help") and "--mask-image" in said("--help-all") and "--sigma-schedule" in said("--help-all"), "every option")
    with Daemon() as daemon:
        for row in daemon.get("/samplers").json["samplers"]:
            check(f"\n{row['name']}: {row['title']}; order {row['order']}" in said("--list-samplers"), row["name"])


@test
def flags_of_conditioning_are_checked_together():
    with open(file("8x8.png"), "wb") as stream:
        stream.write(bytes(20))
    one = file("one-8x8.png")
    made("--class", "7", "--seed", 1, "--steps", 2, "--output", one)
    for arguments, words in [(("--strength", 0.5), "--strength"), (("--mask-image", one), "--mask-image"),
                             (("--init-image", one, "--resample", 2), "--resample"), (("--variation-seed", 7), "--variation-seed"),
                             (("--variation-strength", 0.5), "--variation-strength"), (("--negative-class", 2), "--negative-class"),
                             (("--class", 1, "--guidance-scale", 1, "--negative-class", 2), "--negative-class"),
                             (("--class", 1, "--mixture", "1:1"), "--mixture"), (("--mixture", "Sneaker"), "--mixture"),
                             (("--mixture", "1:0.5,Sneakr:0.5"), "--mixture"), (("--mixture", "1:0.5,1:0.5"), "--mixture"),
                             (("--mixture", ""), "--mixture"), (("--mixture", "1:11"), "--mixture"),
                             (("--init-image", "/nonexistent.png"), "/nonexistent.png"), (("--init-image", file("8x8.png")), "8x8.png"),
                             (("--init-image", os.path.join(ROOT, "models/fashion-mnist/grid.png")), "grid.png"),
                             (("--class", 1, "--guidance-method", "cfg_pp", "--sampler", "ddim", "--guidance-scale", 2), "--guidance-scale"),
                             (("--class", 1, "--guidance-method", "cfg_pp", "--guidance-scale", 0.5, "--sampler", "dpmpp_2m"), "--guidance-method"),
                             (("--class", 1, "--guidance-method", "auto"), "--guidance-method"),
                             (("--sampler", "flow_euler"), "--sampler"), (("--sampler", "edm_euler", "--sigma-min", 5, "--sigma-max", 1), "--sigma-min")]:
        path = file("refused.png")
        answer = generate(*arguments, "--output", path, "--steps", 2)
        check(answer.returncode in (64, 65, 69, 74) and words in answer.stderr, f"{arguments}: {answer.returncode} {answer.stderr!r}")
        check(not os.path.exists(path), f"{arguments}: a file was written")


@test
def latent_models_give_pictures_and_latents():
    path, latents = file("latent.png"), file("latent.safetensors")
    made("--class", "7", "--seed", 1, "--steps", 2, "--output", path, "--output-latents", latents, model=os.path.join(ROOT, "tests", "golden", "pipe_dit_ddpm10_cfg4"))
    with open(path, "rb") as stream:
        same(png_size(stream.read()), (64, 64), "the picture")
    same(tensors(latents)["latents"][0], [1, 4, 8, 8], "the latents")


@test
def ctrl_c_leaves_no_broken_file():
    folder = scratch("interrupted")
    process = subprocess.Popen([PROGRAM, "generate", "--model", tiny_model(), "-n", "4096", "--steps", "1000", "--output", f"{folder}/x.png"],
                               stderr=subprocess.DEVNULL)

    def listens():
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            caught = next(line for line in status if line.startswith("SigCgt:"))
        return int(caught.split()[1], 16) & 1 << signal.SIGINT - 1
    eventually(listens, what="a program that takes signals")
    process.send_signal(signal.SIGINT)
    same(process.wait(PATIENCE), 130, "the exit status")
    same(os.listdir(folder), [], "the folder")


run(__name__)
