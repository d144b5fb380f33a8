#!/usr/bin/env python3
"""The page's modules that compute: the noise of a seed, PNG files, what was typed, event streams; each against what others say."""
import struct
import zlib

from harness_path import *  # noqa: F403
from page import *  # noqa: F403

# dn_noise_normal of engine/base/philox.c: elements 0 to 7 of the start noise, and of element 1020 to 1023 of seed 42.
NOISE = {"42": [-0.970190, 0.194019, -1.235621, 1.923927, -0.073182, 0.139137, -1.106665, 0.326683],
         "18446744073709551615": [1.098596, 0.632302, 0.645860, 0.729511, -0.590948, 2.055552, -0.700036, -0.696867]}


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def module(page, name, script, *arguments):
    """The value of `script`, in which m is a module of the page and a, b, ... are arguments."""
    return page.js(f"const [a, b, c, d] = arguments; return import('./page/{name}').then(async (m) => {{ {script} }})", *arguments)


def texts(page, data):
    script = "const found = await m.texts(Uint8Array.from(atob(a), (x) => x.charCodeAt(0)).buffer); return found && [found, m.recipe(found)]"
    return module(page, "png.js", script, base64.b64encode(data).decode())


@test
def the_stage_shows_the_engines_noise():
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        for seed, wanted in NOISE.items():
            got = module(page, "noise.js", "return [...m.normals(a, 8)]", seed)
            check(max(abs(x - y) for x, y in zip(got, wanted)) < 2e-6, f"seed {seed}: {got}")
        longer = module(page, "noise.js", "return [...m.normals('42', 1021)]")
        same(len(longer), 1021, "numbers of a count that four does not divide")
        check(max(abs(x - y) for x, y in zip(longer, NOISE["42"])) < 2e-6, "the first do not depend on how many there are")
        check(abs(sum(longer) / 1021) < 0.2 and 0.8 < sum(x * x for x in longer) / 1021 < 1.2, "they are standard normals")


@test
def pngs_say_what_they_were_made_of():
    ours = b'{"request":{"model":"tiny","class_label":3,"seed":"18446744073709551615","steps":7}}'
    infotext = b"Dress\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 8x8, Class: 3 (Dress), Model: x"
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        wanted = {"model": "tiny", "class_label": 3, "seed": "18446744073709551615", "steps": 7}
        for kind, body in ((b"tEXt", b"denoised\0" + ours), (b"zTXt", b"denoised\0\0" + zlib.compress(ours)),
                           (b"iTXt", b"denoised\0\0\0en\0keyword\0" + ours), (b"iTXt", b"denoised\0\1\0\0\0" + zlib.compress(ours))):
            same(texts(page, png(chunk(kind, body)))[1], wanted, f"recipe in {kind}")
        same(texts(page, png(chunk(b"tEXt", b"parameters\0" + infotext)))[1], {"seed": "42", "steps": 20, "guidance_scale": 7.5, "class_label": 3}, "an infotext")
        same(texts(page, png()), [{}, None], "a PNG that says nothing")
        same(texts(page, b"GIF89a" + bytes(40)), None, "no PNG")
        for broken in (png(chunk(b"tEXt", b"denoised\0{")), png(chunk(b"iTXt", b"denoised\0\1\0\0\0no deflate")), png(chunk(b"tEXt", b"denoised")),
                       png(chunk(b"tEXt", b"denoised\0" + ours))[:60], png(b"\xff\xff\xff\xfftEXtdenoised\0" + ours), png(chunk(b"tEXt", b"denoised\0null")),
                       png(chunk(b"zTXt", b"denoised\0\0" + zlib.compress(ours + b" " * (2 << 20))))):
            same(texts(page, broken)[1], None, f"recipe of a broken one: {broken[33:60]!r}")
        job = daemon.make(class_label=7, seed="18446744073709551615", steps=3, guidance_scale=-2.5, sampler="ddim", eta=0.5)
        found, recipe = texts(page, daemon.image(job["id"]))
        same(json.loads(found["denoised"])["request"], recipe, "the daemon's own")
        same((recipe["seed"], recipe["eta"], recipe["class_label"]), ("18446744073709551615", 0.5, 7), "the daemon's recipe")


@test
def numbers_are_read_and_never_guessed():
    wanted = {"3": 3, " 0,5 ": 0.5, "-1.25": -1.25, "1e2": 100, "": None, "0,125": 0.125, "1,000": "1,000", "-12,345,678": "-12,345,678", "many": "many", "Infinity": "Infinity"}
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        same(module(page, "fields.js", "return a.map((one) => m.typed(one) ?? null)", list(wanted)), list(wanted.values()), "numbers")


@test
def pngs_that_the_page_writes_are_pngs():
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        for width, height, channels in ((1, 1, 1), (7, 5, 1), (3, 4, 3), (300, 200, 3)):
            pixels = bytes((i * 37 + i // 256) % 256 for i in range(width * height * channels))
            script = "return m.base64(await m.encode(Uint8Array.from(atob(a), (x) => x.charCodeAt(0)), b, c, d))"
            data = base64.b64decode(module(page, "png.js", script, base64.b64encode(pixels).decode(), width, height, channels))
            at, packed, kinds = 8, b"", []
            while at < len(data):
                length, kind = struct.unpack(">I4s", data[at:at + 8])
                body = data[at + 8:at + 8 + length]
                same(struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], zlib.crc32(kind + body), f"checksum of {kind}")
                kinds.append(kind)
                packed += body if kind == b"IDAT" else b""
                if kind == b"IHDR":
                    same(struct.unpack(">IIBBBBB", body), (width, height, 8, 0 if channels == 1 else 2, 0, 0, 0), "head")
                at += 12 + length
            same((data[:8], kinds), (b"\x89PNG\r\n\x1a\n", [b"IHDR", b"IDAT", b"IEND"]), "chunks")
            raw, row = zlib.decompress(packed), width * channels
            same(b"".join(raw[y * (row + 1) + 1:(y + 1) * (row + 1)] for y in range(height)), pixels, "pixels")
        # What the daemon has made, read and written again, is the same picture to it.
        job = daemon.make(class_label=7, seed=1, steps=2)
        script = "return m.base64(await m.fitted(new Blob([Uint8Array.from(atob(a), (x) => x.charCodeAt(0))], {type: 'image/png'}), b))"
        model = daemon.get("/models/tiny").json
        again = module(page, "png.js", script, base64.b64encode(daemon.image(job["id"])).decode(), model)
        first, second = (daemon.make(class_label=3, seed=5, steps=4, init_image=text, strength=0.5)["images"][0]["pixels_sha256"]
                         for text in (base64.b64encode(daemon.image(job["id"])).decode(), again))
        same(first, second, "what starts from it")


@test
def what_is_typed_goes_out_as_it_is_meant():
    cases = {"3": 3, " 2.5 ": 2.5, "2,5": 2.5, "-1e2": -100, "abc": "abc", "1 2": "1 2", "0x10": 16, "Infinity": "Infinity", "": None, "  ": None}
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        for text, wanted in cases.items():
            same(module(page, "fields.js", "return m.typed(a) ?? null", text), wanted, repr(text))


@test
def events_are_read_however_they_are_cut():
    stream = 'retry: 2000\n\nid: 1\nevent: queued\ndata: {"queue_position":3}\n\n: ping\n\nevent: progress\ndata: {"name":"Gr\u00fc\u00dfe"}\n\n'
    wanted = [["queued", {"queue_position": 3}, 1], ["progress", {"name": "Gr\u00fc\u00dfe"}, 0]]
    script = """const all = new TextEncoder().encode(a), real = window.fetch, out = [];
        window.fetch = async () => new Response(new ReadableStream({start(s) {
            for (let i = 0; i < all.length; i += b) s.enqueue(all.slice(i, i + b)); s.close(); }}), {status: 200});
        try { await m.events('/jobs/x/events', (...event) => out.push(event)); } finally { window.fetch = real; } return out;"""
    with Daemon() as daemon, Page(daemon.address) as page:
        page.ready()
        for piece in (1, 2, 3, 7, 1000):
            same(module(page, "api.js", script, stream, piece), wanted, f"in pieces of {piece} bytes")


run(__name__)
