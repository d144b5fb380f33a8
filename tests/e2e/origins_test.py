"""Pages of other sites: what they may read (CORS), and what they may do to a daemon without keys."""
from harness import *  # noqa: F403
from keys import add_key, basic

APP = "https://app.example"
BODY = {"class_label": 7, "steps": 2, "guidance_scale": 1, "seed": 1}
daemon = Daemon()
open_daemon = Daemon("--cors-origin", APP, "--cors-origin", "http://localhost:3000", "--public-url", "https://pictures.example:8443/denoised")


def cors(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-") or name == "vary"}


def preflight(one, path="/generate", origin=APP, method="POST", **more):
    return one.call("OPTIONS", path, Origin=origin, Access_Control_Request_Method=method, **more)


def own(one):
    """The origin of the page that this daemon would serve to a browser."""
    return f"http://localhost:{one.port}"


@test
def without_the_option_nothing_is_said_of_origins():
    answer = preflight(daemon)
    same((answer.status, answer.json["code"], answer.headers["allow"]), (405, "method-not-allowed", "POST"), "a preflight")
    same(cors(answer), {}, "its headers")
    for path in ("/models", "/healthz", "/nothing"):
        same(cors(daemon.get(path, Origin=APP)), {}, path)


@test
def another_sites_page_cannot_make_a_daemon_without_keys_work():
    before = daemon.jobs_in_store()
    for headers in ({"Origin": APP}, {"Origin": "null"}, {"Origin": f"https://localhost.app.example:{daemon.port}"}, {"Origin": "http://localhost:3000"},
                    {"Origin": own(daemon) + "0"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": APP, "Sec_Fetch_Site": "cross-site"},
                    {"Origin": APP, "Sec_Fetch_Site": "same-site"}, {"Origin": "nonsense"}, {"Origin": ""}):
        answer = daemon.post(BODY, **headers)
        same((answer.status, answer.json["code"]), (403, "forbidden"), f"{headers}")
        check("--cors-origin" in answer.json["detail"], answer.json["detail"])
    same(daemon.jobs_in_store(), before, "jobs")
    job = daemon.make(**BODY)
    same(daemon.call("DELETE", f"/jobs/{job['id']}?purge=1", Origin=APP).status, 403, "a purge from elsewhere")
    same(daemon.get(f"/jobs/{job['id']}", Origin=APP, Sec_Fetch_Site="cross-site").status, 200, "a read, whose answer its page cannot see")


@test
def programs_and_own_pages_go_on_as_ever():
    host = {"Host": f"localhost:{daemon.port}"}
    for headers in ({}, {"Origin": own(daemon), **host}, {"Origin": own(daemon).replace("http:", "https:"), **host}, {"Sec_Fetch_Site": "none"},
                    {"Origin": own(daemon), "Sec_Fetch_Site": "same-origin", **host}, {"Origin": "http://renamed.example", "Sec_Fetch_Site": "same-origin"},
                    {"Sec_Fetch_Site": "same-site"}):
        same(daemon.post(BODY, **headers).status, 202, f"{headers}")


@test
def a_named_origin_may_ask_and_read():
    answer = preflight(open_daemon, Access_Control_Request_Headers="authorization,content-type")
    same((answer.status, answer.body), (204, b""), "a preflight")
    same(cors(answer), {"access-control-allow-origin": APP, "access-control-allow-methods": "POST", "access-control-max-age": "600", "vary": "Origin",
                        "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key, Prefer, Last-Event-ID, " + ", ".join(
                            f"X-Stainless-{name}" for name in ("Arch", "Lang", "OS", "Package-Version", "Read-Timeout", "Retry-Count", "Runtime",
                                                               "Runtime-Version", "Timeout")),
                        "access-control-expose-headers": "Allow, ETag, Idempotency-Replayed, Location, Preference-Applied, Retry-After, "
                                                         "WWW-Authenticate, X-Request-Id, X-Should-Retry"}, "its headers")
    same(preflight(open_daemon, "/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", method="DELETE").headers["access-control-allow-methods"], "GET, HEAD, DELETE",
         "methods of a job")
    local = preflight(open_daemon, Access_Control_Request_Private_Network="true")
    same(local.headers["access-control-allow-private-network"], "true", "asked from the public web")
    posted = open_daemon.post(BODY, Origin=APP, Sec_Fetch_Site="cross-site")
    same((posted.status, posted.headers["access-control-allow-origin"]), (202, APP), "a job")
    job = open_daemon.wait(posted.json["id"])
    for path, status in ((f"/jobs/{job['id']}/images/0.png", 200), (f"/jobs/{job['id']}/events", 200), ("/jobs?limit=0", 422), ("/nothing", 404)):
        answer = open_daemon.get(path, Origin=APP)
        same((answer.status, answer.headers.get("access-control-allow-origin")), (status, APP), path)
        check("Origin" in answer.headers["vary"], f"Vary of {path}: {answer.headers['vary']}")


@test
def other_origins_hear_no_more_than_before():
    for origin in ("https://other.example", "http://app.example", APP + ".evil.example", APP + ":8443", "null"):
        answer = preflight(open_daemon, origin=origin)
        same((answer.status, cors(answer)), (405, {"vary": "Origin"}), f"a preflight from {origin}")
        same(open_daemon.post(BODY, Origin=origin).status, 403, f"a job from {origin}")
        same(cors(open_daemon.get("/models", Origin=origin)), {"vary": "Origin"}, f"models from {origin}")
    same(open_daemon.call("OPTIONS", "/generate").status, 405, "OPTIONS that are no preflight")
    same(open_daemon.call("OPTIONS", "/nothing", Origin=APP, Access_Control_Request_Method="POST").status, 404, "of nothing")
    same(open_daemon.post(BODY, Origin="https://pictures.example:8443").status, 202, "a page of the public URL")
    same(open_daemon.post(BODY, Origin="https://pictures.example").status, 403, "of another port")


@test
def with_keys_the_key_decides():
    keys = os.path.join(scratch("keys"), "keys")
    with open(keys, "w", encoding="utf8") as out:
        out.write("page a-secret-of-many-letters\n")
    os.chmod(keys, 0o600)
    with Daemon("--api-key-file", keys, "--cors-origin", APP) as guarded:
        key = {"Authorization": "Bearer a-secret-of-many-letters"}
        same(guarded.post(BODY, Origin="https://other.example", **key).status, 202, "a key, from anywhere")
        refused = guarded.post(BODY, Origin=APP)
        same((refused.status, refused.headers["access-control-allow-origin"]), (401, APP), "no key, told to the page")
        same(preflight(guarded).status, 204, "a preflight brings no key")
        check("access-control-allow-origin" not in guarded.post(BODY, Origin="https://other.example", **key).headers, "others read nothing")


@test
def a_key_that_browsers_add_by_themselves_says_nothing_of_the_page():
    """HTTP Basic, which AUTOMATIC1111's clients may use: a browser that knows the password sends it with the requests of every page."""
    keys = os.path.join(scratch("keys"), "keys")
    alice = add_key(keys, "alice")
    known = {"Authorization": basic("alice", alice["Authorization"].split()[1])}
    with Daemon("--api-key-file", keys, "--cors-origin", APP) as guarded:
        for path in ("/sdapi/v1/interrupt", "/sdapi/v1/skip", "/sdapi/v1/refresh-checkpoints"):
            for headers in ({"Origin": "https://other.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
                refused = guarded.post("", path, **headers, **known)
                same((refused.status, refused.json["error"]), (403, "forbidden"), f"{path} with {headers}")
                same(guarded.post("", path, **headers, **alice).status, 200, f"{path} with {headers} and a key that the page itself knows")
            for headers in ({}, {"Origin": APP}, {"Origin": own(guarded), "Host": f"localhost:{guarded.port}"}, {"Sec_Fetch_Site": "same-origin"}):
                same(guarded.post("", path, **headers, **known).status, 200, f"{path} with {headers}")
        same(guarded.get("/sdapi/v1/options", Origin="https://other.example", **known).status, 200, "a read, whose answer its page cannot see")


@test
def all_origins_are_for_daemons_without_keys():
    data = scratch("data")
    with Daemon("--cors-origin", "*", data=data) as daemon_for_all:
        answer = daemon_for_all.post(BODY, Origin="https://any.example")
        same((answer.status, answer.headers["access-control-allow-origin"]), (202, "https://any.example"), "any page")
        made = subprocess.run([PROGRAM, "key", "add", "late", "--data", data], capture_output=True, text=True, check=True)
        check(made.stdout.startswith("dn_"), "a key")
        eventually(lambda: daemon_for_all.get("/jobs").status == 401, what="a key is needed")
        check("access-control-allow-origin" not in daemon_for_all.get("/models", Origin="https://any.example").headers, "all origins, with keys")
    refused = subprocess.run([*daemon_for_all.command()], capture_output=True, text=True, timeout=PATIENCE, check=False)
    same(refused.returncode, 78, "exit status")
    check("--cors-origin *" in refused.stderr, refused.stderr)
    for wrong in ("app.example", "https://app.example/", "https://APP.example", "https://", "", "null", "https://a b"):
        refused = subprocess.run([PROGRAM, "serve", "--model", f"tiny={tiny_model()}", "--data", scratch("data"), "--cors-origin", wrong],
                                 capture_output=True, text=True, timeout=PATIENCE, check=False)
        same(refused.returncode, 78, f"exit status for {wrong!r}")
        check("must be an origin" in refused.stderr, refused.stderr)


@test
def capabilities_say_what_this_daemon_was_told():
    keys = os.path.join(scratch("keys"), "keys")
    secret = os.path.join(scratch("keys"), "secret")
    for path, text in ((keys, "page a-secret-of-many-letters\n"), (secret, "whsec_" + base64.b64encode(bytes(32)).decode() + "\n")):
        with open(path, "w", encoding="utf8") as out:
            out.write(text)
        os.chmod(path, 0o600)

    def told(one, **headers):
        shown = one.get("/capabilities", **headers).json
        return shown["auth_required"], shown["webhooks"], shown["cors"]
    same(told(daemon), (False, False, False), "a daemon that was told nothing")
    same(told(open_daemon), (False, False, True), "one with origins")
    with Daemon("--api-key-file", keys, "--webhook-secret-file", secret) as guarded:
        same(told(guarded, Authorization="Bearer a-secret-of-many-letters"), (True, True, False), "one with keys and webhooks")
    shown = daemon.get("/capabilities").json
    same(shown["dialects"], [name for name, path in (("native", "/generate"), ("openai", "/v1/images/generations"), ("sdapi", "/sdapi/v1/txt2img"))
                             if daemon.call("PUT", path).status == 405], "dialects")


run(__name__)
