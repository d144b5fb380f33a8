#!/usr/bin/env python3
"""Makes samplers.png, guidance.png and conditioning.png beside this file: sheets of the built-in model's pictures, which README.md shows.

usage: sheets.py [PROGRAM]      default: build/denoised. Standard library only. It says what each row is, from the top.
"""
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else "build/denoised"
SIDE, GAP, COLUMNS = 32, 2, 10
WORK = pathlib.Path(tempfile.mkdtemp())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_grey(path, rows):
    packed = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 9)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def read_grey(path):
    """The rows of an 8-bit grey PNG that is not interlaced."""
    data, at, packed = path.read_bytes(), 8, b""
    width, height = struct.unpack(">II", data[16:24])
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    raw, rows, above = zlib.decompress(packed), [], bytes(width)
    for y in range(height):
        kind, row = raw[y * (width + 1)], bytearray(raw[y * (width + 1) + 1:(y + 1) * (width + 1)])
        for i in range(width):
            a, b, c = (row[i - 1] if i else 0), above[i], (above[i - 1] if i else 0)
            near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, near)[kind]) % 256
        above = bytes(row)
        rows.append(above)
    return rows


def make(*options):
    """The pictures of one call of the program, as lists of rows."""
    folder = WORK / "made"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    subprocess.run([PROGRAM, "generate", "--model", str(HERE), "--output-dir", str(folder), *map(str, options)], check=True, capture_output=True)
    return [read_grey(path) for path in sorted(folder.iterdir())]


def sheet(name, rows):
    print(f"{name}: {'; '.join(title for title, _ in rows)}")
    lines, width = [], COLUMNS * (SIDE + GAP) - GAP
    for k, (_, pictures) in enumerate(rows):
        lines += [b"\xff" * width] * (GAP if k else 0)
        lines += [(b"\xff" * GAP).join(picture[y] for picture in pictures) for y in range(SIDE)]
    write_grey(HERE / name, lines)


def suited(name, flags):
    """What suits this model. Its own noise levels begin at 20,000 times the picture, where second-order steps go wild: 80 is plenty. Its
    scheduler spaces timesteps from the end."""
    options = ["--sigma-schedule", "karras"] if "--sigma-schedule" in flags else []
    options += ["--sigma-max", 80] if "--sigma-max" in flags else []
    options += ["--timestep-spacing", "trailing"] if "--timestep-spacing" in flags and "--sigma-schedule" not in flags else []
    return [*options, "--steps", 100 if name in ("euler_maruyama", "predictor_corrector") else 15]


def samplers():
    listed = subprocess.run([PROGRAM, "generate", "--list-samplers"], check=True, capture_output=True, text=True).stdout
    rows = []
    for entry in listed.split("\n\n")[1:]:
        head, *fields = entry.splitlines()
        name = head.split(":")[0]
        try:
            if "--init-image" not in head:
                rows.append((name, make("--class", "0,1,2,3,4,5,6,7,8,9", "--seed", 42, "--sampler", name, *suited(name, [f.split()[0] for f in fields]))))
        except subprocess.CalledProcessError:
            pass  # one that does not serve this model
    sheet("samplers.png", rows)


def guidance():
    common = ("--class", "0,1,2,3,4,5,6,7,8,9", "--seed", 3, "--sampler", "euler", "--sigma-schedule", "karras", "--sigma-max", 80, "--steps", 30)
    sheet("guidance.png", [
        ("off", make(*common, "--guidance-scale", 1)),
        ("cfg 2", make(*common, "--guidance-scale", 2)),
        ("cfg 5", make(*common, "--guidance-scale", 5)),
        ("cfg 5, rescale 0.7", make(*common, "--guidance-scale", 5, "--guidance-rescale", 0.7)),
        ("cfg 5 up to sigma 3", make(*common, "--guidance-scale", 5, "--guidance-sigma-max", 3)),
        ("cfg_pp 0.6", make(*common, "--guidance-scale", 0.6, "--guidance-method", "cfg_pp")),
        ("apg 5", make(*common, "--guidance-scale", 5, "--guidance-method", "apg", "--apg-eta", 0, "--apg-momentum", -0.5)),
        ("cfg 3, away from Shirt", make(*common, "--guidance-scale", 3, "--negative-class", "Shirt")),
        ("classifier 2, no other guidance", make(*common, "--guidance-scale", 1, "--guidance-method", "classifier", "--classifier-scale", 2)),
    ])


def conditioning():
    init, mask = WORK / "init.png", WORK / "mask.png"
    sneaker = make("--class", "Sneaker", "--seed", 42)[0]
    write_grey(init, sneaker)
    write_grey(mask, [bytes(0 if x < SIDE // 2 else 255 for x in range(SIDE)) for _ in range(SIDE)])
    tenths = [i / 9 for i in range(10)]
    boot = ("--class", "Ankle boot", "--init-image", init)
    paint = ("--init-image", init, "--mask-image", mask, "--sampler", "ddim", "--timestep-spacing", "trailing", "-n", 9)
    sheet("conditioning.png", [
        ("a sneaker towards an ankle boot, strength 0.55 to 1", [make(*boot, "--seed", 1, "--strength", (11 + i) / 20)[0] for i in range(10)]),
        ("its right half painted anew as nine sandals", [sneaker, *make("--class", "Sandal", "--seed", 1, *paint)]),
        ("the same with every step taken four times", [sneaker, *make("--class", "Sandal", "--seed", 1, "--resample", 4, *paint)]),
        ("a bag from seed 1 to seed 2", [make("--class", "Bag", "--seed", 1, "--variation-seed", 2, "--variation-strength", t)[0] for t in tenths]),
        ("from pullover to dress by weight", [make("--mixture", f"Pullover:{1 - t},Dress:{t}", "--seed", 3)[0] for t in tenths]),
    ])


if __name__ == "__main__":
    samplers()
    guidance()
    conditioning()
