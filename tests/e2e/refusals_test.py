"""Bad input gets a precise refusal that names the field, and leaves no job row."""
from harness import *  # noqa: F403

daemon = Daemon()

# (body as sent, status, code, field)
BODIES = [
    ('{"class_lable": 7}', 422, "invalid-field", "/class_lable"),
    ('{"steps": "20"}', 422, "invalid-field", "/steps"),
    ('{"steps": 0}', 422, "invalid-field", "/steps"),
    ('{"steps": -1}', 422, "invalid-field", "/steps"),
    ('{"steps": 1000000000}', 422, "invalid-field", "/steps"),
    ('{"steps": 1001}', 422, "invalid-field", "/steps"),
    ('{"steps": 1.5}', 422, "invalid-field", "/steps"),
    ('{"steps": null}', 422, "invalid-field", "/steps"),
    ('{"class_label": "Submarine"}', 422, "invalid-field", "/class_label"),
    ('{"class_label": "trainer"}', 422, "invalid-field", "/class_label"),
    ('{"class_label": 10}', 422, "invalid-field", "/class_label"),
    ('{"class_label": -1}', 422, "invalid-field", "/class_label"),
    ('{"class_label": 7.5}', 422, "invalid-field", "/class_label"),
    ('{"class_label": "7"}', 422, "invalid-field", "/class_label"),
    ('{"class_label": true}', 422, "invalid-field", "/class_label"),
    ('{"class_label": ""}', 422, "invalid-field", "/class_label"),
    ('{"guidance_scale": 100.5}', 422, "invalid-field", "/guidance_scale"),
    ('{"guidance_scale": "2"}', 422, "invalid-field", "/guidance_scale"),
    ('{"guidance_scale": NaN}', 400, "malformed-json", None),
    ('{"guidance_scale": Infinity}', 400, "malformed-json", None),
    ('{"guidance_scale": 1e999}', 400, "malformed-json", None),
    ('{"seed": 18446744073709551616}', 422, "invalid-field", "/seed"),
    ('{"seed": "18446744073709551616"}', 422, "invalid-field", "/seed"),
    ('{"seed": -1}', 422, "invalid-field", "/seed"),
    ('{"seed": 1.0}', 422, "invalid-field", "/seed"),
    ('{"seed": "0x10"}', 422, "invalid-field", "/seed"),
    ('{"n": 0}', 422, "invalid-field", "/n"),
    ('{"n": 65}', 422, "invalid-field", "/n"),
    ('{"sampler": "nope"}', 422, "invalid-field", "/sampler"),
    ('{"sampler": 3}', 422, "invalid-field", "/sampler"),
    ('{"model": "nope"}', 422, "invalid-field", "/model"),
    ('{"model": "../../etc/passwd"}', 422, "invalid-field", "/model"),
    ('{"priority": 11}', 422, "invalid-field", "/priority"),
    ('{"sampler": "dpmpp_2m", "eta": 0.5}', 422, "unsupported-option", "/eta"),
    ('{"sampler": "ddim", "eta": 1.5}', 422, "invalid-field", "/eta"),
    ('[]', 422, "invalid-field", ""),
    ('[{"steps": 5}, {"steps": 0}]', 422, "invalid-field", "/1/steps"),
    ('"text"', 422, "invalid-field", ""),
    ('', 400, "malformed-json", None),
    ('{"steps": 5', 400, "malformed-json", None),
    ('{"steps": 5} x', 400, "malformed-json", None),
    ('{"steps": 5}{"steps": 5}', 400, "malformed-json", None),
    ('{"steps": 5, "steps": 6}', 400, "malformed-json", None),
    ('{"st\\u0065ps": 5, "steps": 6}', 400, "malformed-json", None),
    ('{"steps": 005}', 400, "malformed-json", None),
    ("{'steps': 5}", 400, "malformed-json", None),
    ('\ufeff{"steps": 5}', 400, "malformed-json", None),
    ('{"class_label": "a\\u0000b"}', 400, "malformed-json", None),
    ('{"class_label": "\\ud800"}', 400, "malformed-json", None),
    ("[" * 200 + "]" * 200, 400, "malformed-json", None),
]


@test
def every_bad_body_names_its_field_and_leaves_no_row():
    for body, status, code, field in BODIES:
        answer = daemon.post(body.encode())
        what = body[:60]
        same(answer.status, status, f"status of {what} ({answer.body[:200]!r})")
        same(answer.headers["content-type"], "application/problem+json", f"type of {what}")
        problem = answer.json
        same(problem["code"], code, f"code of {what}")
        same(problem["type"], f"urn:denoised:{code}", f"type of {what}")
        same(problem["status"], status, f"status field of {what}")
        if field is not None:
            same(problem["field"] or "", field, f"field of {what}")
        else:
            check(isinstance(problem["offset"], int), f"offset of {what}")
        same(problem["request_id"], answer.headers["x-request-id"], f"request id of {what}")
    same(daemon.jobs_in_store(), 0, "rows of the job table")


@test
def values_are_never_echoed():
    answer = daemon.post('{"sampler": "<script>alert(1)</script>"}')
    check(b"script" not in answer.body, "the value came back")
    answer = daemon.post('{"<b>": 1}')
    same(answer.status, 422, "status")
    check(b"<b>" not in answer.body, "the unknown name came back")


@test
def an_ambiguous_class_lists_its_indices():
    detail = daemon.post({"class_label": "trainer"}).json["detail"]
    check("7" in detail and "9" in detail, detail)


@test
def invalid_utf8_is_refused():
    same(daemon.post(b'{"class_label": "\xff\xfe"}').status, 400, "status")


@test
def media_types_are_checked():
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "multipart/form-data"):
        answer = daemon.call("POST", "/generate", '{"steps": 5}', Content_Type=content_type)
        same(answer.status, 415, f"status of {content_type}")
        same(answer.json["code"], "unsupported-media-type", "code")
    same(daemon.call("POST", "/generate", b"\x1f\x8b", Content_Type="application/json", Content_Encoding="gzip").status, 415, "status of gzip")
    same(daemon.call("POST", "/generate", '{"steps": 1}', Accept="image/webp").status, 406, "status of an unknown form")
    same(daemon.call("POST", "/generate", '{"n": 2}', Accept="image/png").json["field"], "/n", "field of many in one PNG")
    same(daemon.call("POST", "/generate", '[{"n": 1}]', Accept="image/png").status, 406, "status of an array as PNG")
    same(daemon.jobs_in_store(), 0, "rows of the job table")


@test
def bodies_over_the_limit_are_refused():
    answer = daemon.post('{"class_label": "' + "x" * 70000 + '"}')
    same(answer.status, 413, "status")
    same(answer.json["code"], "too-large", "code")
    out, closed = daemon.raw(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                             + b"".join(b"2000\r\n" + b" " * 8192 + b"\r\n" for _ in range(300)) + b"0\r\n\r\n")
    check(b" 413 " in out.split(b"\r\n")[0], out[:100])


@test
def idempotency_keys_are_checked():
    same(daemon.call("POST", "/generate", "{}", Idempotency_Key="x" * 256).status, 422, "status of a long key")
    same(daemon.call("POST", "/generate", "{}", Idempotency_Key="caf\u00e9".encode("latin1")).status, 422, "status of a key that is not ASCII")


@test
def methods_and_paths():
    answer = daemon.call("PUT", "/generate", "{}")
    same((answer.status, answer.headers["allow"]), (405, "POST"), "PUT /generate")
    answer = daemon.call("POST", "/jobs", "{}")
    same((answer.status, answer.headers["allow"]), (405, "GET, HEAD"), "POST /jobs")
    for path in ("/nothing", "/jobs/", "/jobs//events", "/models/none", "//", "/jobs/abc/images/0.png", "/generate/"):
        same(daemon.get(path).status, 404, f"status of {path}")
    for job in ("a" * 26, "A" * 26, "../../../etc/passwd", "a" * 25, "1" * 26):
        # nginx refuses a path above the root as malformed before the daemon sees it.
        same(daemon.get(f"/jobs/{job}").status, 400 if PROXIED and job[0] == "." else 404, f"status of job {job}")
    same(daemon.get("/jobs?limit=0").status, 422, "limit 0")
    same(daemon.get("/jobs?limit=101").status, 422, "limit 101")
    same(daemon.get("/jobs?state=odd").status, 422, "an unknown state")
    same(daemon.get("/jobs?cursor=%21%21").json["code"], "bad-cursor", "a bad cursor")


@test
def wrong_hosts_are_misdirected():
    answer = daemon.call("GET", "/models", Host="evil.example")
    same((answer.status, answer.json["code"]), (421, "wrong-host"), "an unknown host")
    for host in ("localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        same(daemon.call("GET", "/models", Host=host).status, 200, f"status with host {host}")


@test
def the_daemon_is_well_after_all_this():
    same(daemon.get("/healthz").status, 200, "health")
    job = daemon.make(class_label="sneaker", steps=2, seed=1)
    same(job["state"], "succeeded", "state")


run(__name__)
