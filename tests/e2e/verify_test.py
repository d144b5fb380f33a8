"""POST /verify: a picture is made again from its own metadata; every verdict, and every reason for it."""
from harness import *  # noqa: F403
import hashlib
import struct
import zlib

daemon = Daemon()
ASKED = {"class_label": "Sneaker", "seed": 42, "steps": 6, "guidance_scale": 2.3, "sampler": "euler_ancestral", "eta": 0.1}


def chunks(png):
    """(type, data) of each chunk."""
    out, at = [], 8
    while at < len(png):
        length = int.from_bytes(png[at:at + 4], "big")
        out.append((png[at + 4:at + 8], png[at + 8:at + 8 + length]))
        at += 12 + length
    return out


def joined(parts):
    return png_head() + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)


def png_head():
    return b"\x89PNG\r\n\x1a\n"


def retold(png, change):
    """The same picture with another recipe; change(recipe) gives it, or None for none."""
    out = []
    for kind, data in chunks(png):
        if kind in (b"tEXt", b"iTXt") and data.startswith(b"denoised\0"):
            told = change(json.loads(png_texts(png)["denoised"]))
            if told is not None:
                out.append((b"tEXt", b"denoised\0" + (told if isinstance(told, bytes) else json.dumps(told).encode())))
        else:
            out.append((kind, data))
    return joined(out)


def repacked(png, change=lambda raw: raw):
    """The same picture compressed otherwise; change(raw rows) edits its pixels."""
    parts = chunks(png)
    raw = zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT"))
    packed = zlib.compress(change(raw), 1)
    first = [index for index, (kind, _) in enumerate(parts) if kind == b"IDAT"][0]
    return joined([part for part in parts[:first]] + [(b"IDAT", packed[:9]), (b"IDAT", packed[9:])] + [part for part in parts[first:] if part[0] != b"IDAT"])


def made(one=daemon, **asked):
    answer = one.post(asked or ASKED, Accept="image/png")
    same(answer.status, 200, f"a picture: {answer.body[:300]}")
    return answer.body


def verify(png, one=daemon, **headers):
    headers = {"Content_Type": "image/png", "Prefer": "wait=300", **headers}
    return one.call("POST", "/verify", png, **headers)


def verdict(png, one=daemon, **headers):
    answer = verify(png, one, **headers)
    same((answer.status, answer.headers["content-type"]), (200, "application/json"), f"status: {answer.body[:300]}")
    shown = answer.json
    same(shown["file"]["sha256"], hashlib.sha256(png).hexdigest(), "the file's hash")
    same(shown["file"]["bytes"], len(png), "its size")
    return shown["verdict"], [reason["code"] for reason in shown["reasons"]], shown


@test
def its_own_pictures_are_made_again_byte_by_byte():
    png = made()
    answer = verify(png)
    same((answer.status, answer.headers["preference-applied"]), (200, "wait=300"), "answer")
    shown = answer.json
    same((shown["verdict"], shown["reasons"]), ("same-bytes", []), "verdict")
    job = shown["job"]
    same((job["state"], answer.headers["location"]), ("succeeded", job["urls"]["self"]), "its job")
    for name in ("sampler", "seed", "steps", "guidance_scale", "eta", "class_label"):
        same(job["request"][name], shown["claimed"]["request"][name], name)
    image = job["images"][0]
    for name in ("sha256", "pixels_sha256", "bytes", "device", "build"):
        same(shown["found"][name], image[name], name)
    same((shown["file"]["pixels_sha256"], shown["claimed"]["pixels_sha256"]), (image["pixels_sha256"],) * 2, "pixels")
    same(daemon.image(job["id"]), png, "the new file")


@test
def everything_that_can_be_asked_for_can_be_asked_for_again():
    for asked in ({}, {"class_label": None, "guidance_scale": 0}, {"class_label": 2, "negative_class": "Bag", "guidance_scale": 3.14159},
                  {"class_mixture": [{"class_label": 1, "weight": 0.1}, {"class_label": "Coat", "weight": 0.30000000000000004}], "guidance_scale": 2},
                  {"class_label": 5, "variation_seed": 2 ** 64 - 1, "variation_strength": 0.3, "seed": 2 ** 63 + 1},
                  {"class_label": 5, "guidance_method": "apg", "apg_momentum": -0.5, "apg_eta": 0, "guidance_sigma_max": 3},
                  {"class_label": 1, "sampler": "dpmpp_2m", "sigma_schedule": "karras", "rho": 6.5}, {"class_label": 1, "sampler": "model"},
                  {"class_label": 3, "guidance_method": "cfg_pp", "guidance_scale": 0.6, "sampler": "euler"}, {"class_label": 4, "sampler": "rk45", "rtol": 1e-3}):
        steps = {} if "steps" in asked else {"steps": 4}
        got = verdict(made(**asked, **steps))
        same(got[:2], ("same-bytes", []), f"{asked}")


@test
def json_carries_the_same_picture():
    png = made()
    body = {"image": base64.b64encode(png).decode()}
    answer = daemon.post(body, "/verify", Prefer="wait=300", Idempotency_Key="verify-json")
    same((answer.status, answer.json["verdict"]), (200, "same-bytes"), "verdict")
    raw = verify(png, Idempotency_Key="verify-json")
    same((raw.json["job"]["id"], raw.headers["idempotency-replayed"]), (answer.json["job"]["id"], "true"), "the same request in another form")
    same(verify(repacked(png), Idempotency_Key="verify-json").json["code"], "idempotency-mismatch", "another picture under the same key")
    same(daemon.post({"class_label": 1}, Idempotency_Key="verify-json").json["code"], "idempotency-mismatch", "another route under the same key")


@test
def without_waiting_there_is_a_job_and_the_verdict_later():
    png = made()
    accepted = verify(png, Prefer="", Idempotency_Key="later")
    shown = accepted.json
    same((accepted.status, shown["verdict"], shown["reasons"], shown["found"]), (202, None, [], None), "at once")
    same(accepted.headers["location"], shown["job"]["urls"]["self"], "Location")
    check(int(accepted.headers["retry-after"]) >= 1, "Retry-After")
    daemon.wait(shown["job"]["id"])
    later = verify(png, Prefer="", Idempotency_Key="later")
    same((later.status, later.json["verdict"], later.json["job"]["id"]), (200, "same-bytes", shown["job"]["id"]), "asked again")


@test
def files_that_are_packed_otherwise_have_the_same_pixels():
    png = made()
    code, reasons, shown = verdict(repacked(png))
    same((code, reasons), ("same-pixels", ["edited-file"]), "compressed otherwise")
    same(shown["file"]["pixels_sha256"], shown["found"]["pixels_sha256"], "pixels")
    code, reasons, _ = verdict(joined([(kind, data) for kind, data in chunks(png) if not data.startswith(b"parameters\0")]))
    same((code, reasons), ("same-pixels", ["edited-file"]), "without its infotext")
    code, reasons, shown = verdict(retold(png, lambda told: {**told, "build": "0" * 64}))
    same((code, reasons), ("same-pixels", ["other-build"]), "of another build")
    check("0000000000000000" in shown["reasons"][0]["detail"], shown["reasons"])
    code, reasons, _ = verdict(retold(png, lambda told: {**told, "numerics": 1, "device": "cuda"}))
    same((code, reasons), ("same-pixels", ["other-numerics", "other-build"]), "of another numerics and device")
    code, reasons, _ = verdict(retold(png, lambda told: {**told, "request": {**told["request"], "model": "renamed"}}))
    same((code, reasons), ("same-pixels", ["other-name"]), "under another name")


@test
def edits_are_seen():
    png = made()

    def brighter(raw):
        return bytes([raw[0], raw[1] ^ 1]) + raw[2:]
    code, reasons, shown = verdict(repacked(png, brighter))
    same((code, reasons), ("different", ["edited-pixels"]), "one bit of one pixel")
    check("made again, the picture has them" in shown["reasons"][0]["detail"], shown["reasons"])
    same(shown["claimed"]["pixels_sha256"], shown["found"]["pixels_sha256"], "pixels as they were")
    code, reasons, _ = verdict(retold(png, lambda told: {**told, "request": {**told["request"], "seed": "43"}}))
    same((code, reasons), ("different", ["edited-file"]), "another seed")
    code, reasons, _ = verdict(retold(png, lambda told: {**told, "pixels_sha256": "0" * 64}))
    same((code, reasons), ("same-pixels", ["edited-pixels"]), "another hash of the pixels")
    broken = [(kind, data[:10] + bytes([data[10] ^ 255]) + data[11:]) if kind == b"IDAT" else (kind, data) for kind, data in chunks(png)]
    code, reasons, shown = verdict(joined(broken))
    same((code, reasons, shown["file"]["pixels_sha256"]), ("different", ["unreadable"], None), "pixels that cannot be unpacked")
    larger = [(kind, struct.pack(">II", 4096, 4096) + data[8:]) if kind == b"IHDR" else (kind, data) for kind, data in chunks(png)]
    same(verdict(joined(larger))[:2], ("different", ["unreadable"]), "another size")


@test
def what_cannot_be_made_again_is_said():
    png = made()
    before = daemon.jobs_in_store()
    request = json.loads(png_texts(png)["denoised"])["request"]
    for change, code in ((lambda told: None, "no-metadata"), (lambda told: {}, "bad-metadata"), (lambda told: b"{", "bad-metadata"),
                         (lambda told: b"[" * 10000, "bad-metadata"), (lambda told: {**told, "request": 5}, "bad-metadata"),
                         (lambda told: {**told, "pixels_sha256": "x" * 64}, "bad-metadata"), (lambda told: {**told, "width": 1e9}, "bad-metadata"),
                         (lambda told: {**told, "weights_sha256": "f" * 64}, "other-weights"),
                         (lambda told: {**told, "request": {**request, "sampler": "none"}}, "refused"),
                         (lambda told: {**told, "request": {**request, "class_label": 99}}, "refused"),
                         (lambda told: {**told, "request": {**request, "init_image": {"sha256": "0" * 64, "bytes": 1}}}, "needs-inputs")):
        got = verify(retold(png, change), Prefer="")
        same(got.status, 200, f"{code}: {got.body[:200]}")
        shown = got.json
        same((shown["verdict"], [r["code"] for r in shown["reasons"]], shown["job"], shown["found"]), ("cannot", [code], None, None), "verdict")
    cut = verify(png[:-30] + b"\0" * 30, Prefer="").json
    check(cut["verdict"] in ("cannot", None), cut["verdict"])
    same(verify(joined([part for part in chunks(png) if part[0] not in (b"tEXt", b"iTXt")])).json["claimed"], None, "claims of a bare file")
    check(daemon.jobs_in_store() - before <= 1, "jobs for what cannot be made")


@test
def pictures_made_from_pictures_need_them():
    start = made(class_label=1, seed=9, steps=3)
    text = base64.b64encode(start).decode()
    asked = {"class_label": 2, "seed": 3, "steps": 5, "init_image": text, "strength": 0.7}
    png = made(**asked)
    code, reasons, shown = verdict(png)
    same((code, reasons), ("cannot", ["needs-inputs"]), "without it")
    check(hashlib.sha256(start).hexdigest() in shown["reasons"][0]["detail"], shown["reasons"])
    body = {"image": base64.b64encode(png).decode(), "init_image": text}
    same(daemon.post(body, "/verify", Prefer="wait=300").json["verdict"], "same-bytes", "with it")
    other = base64.b64encode(made(class_label=1, seed=10, steps=3)).decode()
    same([r["code"] for r in daemon.post({**body, "init_image": other}, "/verify").json["reasons"]], ["other-inputs"], "with another")
    answer = daemon.post({**body, "init_image": "AAAA"}, "/verify").json
    same((answer["code"], answer["field"]), ("invalid-field", "/init_image"), "with none")
    answer = daemon.post({**body, "image": text, "init_image": text}, "/verify").json
    same((answer["code"], answer["field"]), ("invalid-field", "/init_image"), "where none is needed")


@test
def refusals_name_what_is_wrong():
    png = made()
    text = base64.b64encode(png).decode()
    for body, headers, wanted in ((b"", {}, (422, "invalid-field", None)), (b"GIF89a", {}, (422, "invalid-field", None)), (png[:20], {}, (422, "invalid-field", None)),
                                  (png, {"Content_Type": "text/plain"}, (415, "unsupported-media-type", None)),
                                  (png, {"Content_Encoding": "gzip"}, (415, "unsupported-media-type", None)),
                                  (png, {"Idempotency_Key": "x" * 256}, (422, "invalid-field", None)),
                                  ("{", {"Content_Type": "application/json"}, (400, "malformed-json", None)),
                                  ("{}", {"Content_Type": "application/json"}, (422, "invalid-field", "/image")),
                                  ("[]", {"Content_Type": "application/json"}, (422, "invalid-field", None)),
                                  (json.dumps({"image": 5}), {"Content_Type": "application/json"}, (422, "invalid-field", "/image")),
                                  (json.dumps({"image": "AAAA"}), {"Content_Type": "application/json"}, (422, "invalid-field", "/image")),
                                  (json.dumps({"image": text + "="}), {"Content_Type": "application/json"}, (422, "invalid-field", "/image")),
                                  (json.dumps({"image": text, "more": 1}), {"Content_Type": "application/json"}, (422, "invalid-field", None)),
                                  (json.dumps({"image": text, "mask_image": 1}), {"Content_Type": "application/json"}, (422, "invalid-field", "/mask_image"))):
        answer = verify(body, **headers)
        same((answer.status, answer.json["code"], answer.json["field"]), wanted, f"{body[:30]!r} {headers}")
    said, _ = daemon.raw(b"POST /verify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 2097153\r\n\r\n")
    check(b" 413 " in said and b"too-large" in said, said[:200])
    same(daemon.get("/verify").headers["allow"], "POST", "other methods")


@test
def limits_keys_and_drains_hold_here_too():
    keys = os.path.join(scratch("keys"), "keys")
    with open(keys, "w", encoding="utf8") as out:
        out.write("page a-secret-of-many-letters\n")
    os.chmod(keys, 0o600)
    png = made()
    key = {"Authorization": "Bearer a-secret-of-many-letters"}
    data = scratch("data")
    reader = subprocess.run([PROGRAM, "key", "add", "reader", "--scopes", "read", "--data", data], capture_output=True, text=True, check=True).stdout.strip()
    small = subprocess.run([PROGRAM, "key", "add", "small", "--budget", "0.0001", "--data", data], capture_output=True, text=True, check=True).stdout.strip()
    with Daemon("--api-key-file", keys, "--base-path", "/x", data=data) as guarded:
        def asked(**headers):
            return guarded.call("POST", "/x/verify", png, Content_Type="image/png", **headers)
        same(asked().status, 401, "no key")
        same(asked(Authorization=f"Bearer {reader}").json["code"], "forbidden", "a key that may read alone")
        same(asked(Authorization=f"Bearer {small}").json["code"], "quota", "beyond a budget")
        answer = asked(Prefer="wait=300", **key)
        same((answer.status, answer.json["verdict"]), (200, "same-bytes"), "a key that may submit")
        check(answer.headers["location"].startswith("/x/jobs/"), answer.headers["location"])
        job = answer.json["job"]["id"]
        same(guarded.get(f"/x/jobs/{job}", Authorization=f"Bearer {reader}").status, 404, "another client's job")


@test
def nobody_compares_pixels_for_a_client_that_left():
    """The connection is reset while a repeated request waits for the store, which knows a job that has ended. (What went wrong here was
    memory given back too early, which the sanitizers' variant sees.)"""
    with Daemon(program=FAULTS, environment={"DENOISED_FAULT": "before_commit:1:slow500"}) as slow:
        png = repacked(made(slow))
        same(verdict(png, slow, Idempotency_Key="again")[0], "same-pixels", "verdict")
        for _ in range(5):
            slow.vanish("POST", "/verify", png, Content_Type="image/png", Prefer="wait=300", Idempotency_Key="again")
        answer = verify(png, slow, Idempotency_Key="again")
        same((answer.json["verdict"], answer.headers["idempotency-replayed"]), ("same-pixels", "true"), "asked again")
        same(slow.stop(), 0, "the daemon's exit status")


@test
def pictures_of_the_command_line_are_verified_too():
    folder = scratch("cli")
    done = subprocess.run([PROGRAM, "generate", "--model", tiny_model(), "--class", "Bag", "--seed", "7", "--steps", "5", "--output", "bag.png"], cwd=folder,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    same(done.returncode, 0, done.stderr)
    with open(os.path.join(folder, "bag.png"), "rb") as png:
        code, reasons, shown = verdict(png.read())
    wanted = ("same-bytes", []) if shown["claimed"]["request"]["model"] == "tiny" else ("same-pixels", ["other-name"])
    same((code, reasons), wanted, "a picture of denoised generate")


def verified(folder, *words, model=None):
    done = subprocess.run([PROGRAM, "verify", "--model", model or tiny_model(), "--threads", "1", *words], cwd=folder, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


@test
def the_command_line_says_the_same_without_a_daemon():
    folder = scratch("cli")
    start = made(class_label=1, seed=9, steps=3)
    shown = daemon.get("/models/tiny").json

    def keep(name, png):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(png)
    png = made()
    keep("start.png", start)
    keep("good.png", png)
    keep("packed.png", repacked(png))
    keep("edited.png", repacked(png, lambda raw: bytes([raw[0], raw[1] ^ 1]) + raw[2:]))
    keep("bare.png", retold(png, lambda told: None))
    keep("other.png", retold(png, lambda told: {**told, "weights_sha256": "f" * 64}))
    keep("refused.png", retold(png, lambda told: {**told, "request": {**told["request"], "sampler": "none"}}))
    keep("from.png", made(class_label=2, seed=3, steps=5, init_image=base64.b64encode(start).decode(), strength=0.7))
    keep("none.png", b"none")
    status, lines, said = verified(folder, "good.png", "start.png")
    same((status, said), (0, ""), "its own pictures")
    same(lines, ["good.png: same-bytes", "start.png: same-bytes"], "what is told")
    check(shown["device"] in json.loads(verified(folder, "--json", "good.png")[1][0])["found"]["device"], "device")
    status, lines, _ = verified(folder, "packed.png")
    same((status, lines), (0, ["packed.png: same-pixels: the pixels agree, but the file's text or compression is not what denoised writes"]), "packed otherwise")
    for name, wanted in (("edited.png", "different"), ("bare.png", "cannot"), ("other.png", "cannot"), ("refused.png", "cannot"), ("from.png", "cannot")):
        status, lines, _ = verified(folder, name, "good.png")
        same(status, 1, f"exit status for {name}")
        check(lines[0].startswith(f"{name}: {wanted}: ") and lines[1] == "good.png: same-bytes", lines)
        ours = json.loads(verified(folder, "--json", name)[1][0])
        with open(os.path.join(folder, name), "rb") as kept:
            theirs = verdict(kept.read())[2]
        same((ours["verdict"], [r["code"] for r in ours["reasons"]], ours["claimed"]),
             (theirs["verdict"], [r["code"] for r in theirs["reasons"]], theirs["claimed"]), f"{name}: what a daemon says")
    same(verified(folder, "--init-image", "start.png", "from.png")[:2], (0, ["from.png: same-bytes"]), "with what it was made from")
    same(verified(folder, "--init-image", "good.png", "from.png")[0], 1, "with another")
    status, lines, said = verified(folder, "none.png")
    check(status == 65 and "not a PNG" in said, (status, said))
    check(verified(folder, "missing.png")[0] != 0 and verified(folder)[0] == 64, "no file")


@test
def a_hostile_picture_breaks_nothing():
    png = made()
    pid = daemon.worker_pids()
    bomb = zlib.compress(b"\0" * (1 << 24), 9)
    parts = chunks(png)
    for name, bad in (("a bomb", [part for part in parts if part[0] != b"IDAT"][:-1] + [(b"IDAT", bomb), (b"IEND", b"")]),
                      ("no pixels", [part for part in parts if part[0] != b"IDAT"]), ("two headers", parts[:1] + parts),
                      ("a palette of nothing", [(parts[0][0], parts[0][1][:8] + b"\x08\x03" + parts[0][1][10:])] + parts[1:])):
        shown = verify(joined(bad)).json
        same(shown["verdict"], "different" if name != "a bomb" else shown["verdict"], name)
        check(shown["verdict"] != "same-bytes", name)
    same(daemon.worker_pids(), pid, "the worker")
    same(verdict(png)[0], "same-bytes", "afterwards")


run(__name__)
