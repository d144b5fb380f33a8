"""The daemon behind Debian's nginx with deploy/nginx.conf: streams, limits, refusals, what is passed on, drain; and the API's own tests through it."""
from harness import *  # noqa: F403
import re
import select
from proxy import Nginx, ProxiedDaemon, have_nginx

POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def needs_nginx(function):
    def guarded():
        if not have_nginx():
            raise Skip("nginx is not installed")
        function()
    guarded.__name__ = function.__name__
    return test(guarded)


def split(out):
    """A raw answer: (status, headers in small letters, body)."""
    head, _, body = out.partition(b"\r\n\r\n")
    lines = head.decode("latin1").split("\r\n")
    return int(lines[0].split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}, body


def is_problem(answer, status, code, what):
    """An Answer or raw bytes that must be the API's kind of refusal."""
    if isinstance(answer, bytes):
        check(answer.startswith(b"HTTP/1.1 "), f"{what}: no answer but {answer[:80]!r}")
        got, headers, body = split(answer)
    else:
        got, headers, body = answer.status, answer.headers, answer.body
    same((got, headers.get("content-type")), (status, "application/problem+json"), what)
    problem = json.loads(body)
    same((problem["status"], problem["code"], problem["type"]), (status, code, f"urn:denoised:{code}"), f"{what}: problem")
    check(problem["title"] and problem["detail"], f"{what}: title and detail")
    same(problem["request_id"], headers["x-request-id"], f"{what}: request id")
    if status in (429, 503):
        check(int(headers["retry-after"]) >= 1, f"{what}: Retry-After")
    return problem


class Recorder:
    """Takes the daemon's place on a Unix socket: keeps every request's bytes and answers with 200, or never."""

    def __init__(self, path, answer=True):
        self.requests, self.answer, self.held = [], answer, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o660)
        self.listener.listen(512)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return
            data += piece
        self.requests.append(data)
        if self.answer:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connection.close()
        else:
            self.held.append(connection)


def send(nginx, data, seconds=5.0):
    """Bytes as they are; what came back until nginx closed, or said nothing more for so long."""
    with socket.create_connection(("127.0.0.1", nginx.port)) as connection:
        connection.settimeout(PATIENCE)
        out = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                out += piece
                connection.settimeout(seconds * SLOW)
        except OSError:
            pass
        return out


def timed_events(connection, path, into):
    connection.request("GET", path)
    into.extend(read_events(connection))


@needs_nginx
def events_are_not_held_back():
    with ProxiedDaemon() as daemon:
        daemon.make(steps=1)
        job = daemon.post({"steps": 1000, "n": 48, "seed": 1}).json["id"]
        near, far = [], []
        readers = [threading.Thread(target=timed_events, args=(connection, f"/jobs/{job}/events", into))
                   for into, connection in ((near, daemon.connect_directly()), (far, daemon.connect()))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(PATIENCE)
        near, far = ([e for e in events if e["event"]] for events in (near, far))
        same((near[-1]["event"], far[-1]["event"]), ("succeeded", "succeeded"), "the last events")
        same([e["data"] for e in far if "id" in e], [e["data"] for e in near if "id" in e], "milestones through nginx")
        arrived = {(e["event"], e["data"]): e["at"] for e in near}
        late = sorted(e["at"] - arrived[(e["event"], e["data"])] for e in far if (e["event"], e["data"]) in arrived)
        check(len(late) >= 8, f"only {len(late)} events were seen by both")
        # Some may be the test's own reader that waited for a processor; a buffer would hold back nearly all.
        usual, whole = late[len(late) // 2], near[-1]["at"] - near[0]["at"]
        check(usual < max(0.2 * SLOW, 0.2 * whole), f"events came {usual:.3f} s later than without nginx, in {whole:.1f} s")
        names = {e["event"] for e in far}
        check({"progress", "preview"} <= names, f"events through nginx: {names}")
        live = [e["at"] for e in far if e["event"] in ("progress", "preview")]
        check(live[-1] - live[0] > 0.5 * (far[-1]["at"] - far[0]["at"]), "events were held back and came in one piece")
        print(f"     {len(late)} events: later than without nginx by {late[len(late) // 2] * 1000:.1f} ms (median), {usual * 1000:.1f} ms (nine of ten), "
              f"{late[-1] * 1000:.1f} ms (all)")


@needs_nginx
def malformed_requests_get_a_problem_and_reach_nobody():
    nginx = Nginx()
    recorder = Recorder(nginx.socket_path)
    cases = {"folded header": b"X-A: b\r\n folded\r\n", "folded first header": b" X-A: b\r\n", "NUL in a header": b"X-A: b\0c\r\n", "NUL in a name": b"X\0A: b\r\n",
             "space before the colon": b"X-A : b\r\n", "two hosts": b"Host: localhost\r\n",
             "length and coding": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n",
             "signed length": b"Content-Length: +2\r\n", "unknown coding": b"Transfer-Encoding: xchunked\r\n"}
    for name, line in cases.items():
        is_problem(send(nginx, POST + line + b"\r\n{}"), 400, "malformed-http", name)
    is_problem(send(nginx, b"GET /healthz HTTP/1.1\r\n\r\n"), 400, "malformed-http", "no host")
    is_problem(send(nginx, b"GET /healthz HTTP/3.7\r\nHost: localhost\r\n\r\n"), 400, "malformed-http", "another version")
    is_problem(send(nginx, b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400, "malformed-http", "above the root")
    is_problem(send(nginx, b"GET /models%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400, "malformed-http", "escaped NUL")
    is_problem(send(nginx, b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405, "method-not-allowed", "TRACE")
    is_problem(send(nginx, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000 + b"\r\n\r\n"), 431, "malformed-http", "40 KB header")
    is_problem(send(nginx, b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414, "malformed-http", "40 KB target")
    is_problem(send(nginx, b"GET /.problem HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), 404, "not-found", "nginx's own location")
    body = b" " * ((2 << 20) + 1)
    is_problem(send(nginx, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body), 413, "too-large", "a byte over 2 MiB")
    same(recorder.requests, [], "what passed nginx")
    nginx.stop()


@needs_nginx
def its_own_refusals_speak_the_dialect_of_their_route():
    nginx = Nginx()  # and no daemon
    body = b'{"prompt":"' + b"a" * (2 << 20) + b'"}'
    small = b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    large = b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    too_large, away = "the body is larger than 2 MiB", "the daemon is not reachable; it may be starting"
    for path, shown in (("/v1/images/generations", lambda detail, code, kind: {"error": {"message": detail, "type": kind, "param": None, "code": code}}),
                        ("/sdapi/v1/txt2img", lambda detail, code, _: {"error": code.replace("_", "-"), "detail": detail, "body": "", "errors": detail}),
                        ("/internal/progress", lambda detail, code, _: {"error": code.replace("_", "-"), "detail": detail, "body": "", "errors": detail})):
        for rest, status, wanted in ((large, 413, shown(too_large, "too_large", "invalid_request_error")), (small, 503, shown(away, "loading", "server_error"))):
            got, headers, text = split(send(nginx, f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + rest))
            same((got, headers.get("content-type"), json.loads(text)), (status, "application/json", wanted), f"{path} {status}")
            same((headers.get("retry-after"), len(headers["x-request-id"])), ("2" if status == 503 else None, 32), f"{path} {status}: headers")
    for path in ("/generate", "/v1", "/sdapi/v2/x", "/page/app.js", "/verify"):
        is_problem(send(nginx, f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + small), 503, "loading", path)
    for path in ("/.problem-openai", "/.problem-sdapi"):
        is_problem(send(nginx, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()), 404, "not-found", path)
    nginx.stop()


@needs_nginx
def what_passes_is_clean():
    nginx = Nginx()
    recorder = Recorder(nginx.socket_path)
    # A bare line feed may end a line (RFC 9112, 2.2), and nginx takes it so: the daemon never sees one.
    out = send(nginx, b"GET /a HTTP/1.1\nHost: localhost\nX-Kept: yes\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
                      b"X-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nLast-Event-ID: 3\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n")
    check(out.startswith(b"HTTP/1.1 200"), out[:100])
    same(len(recorder.requests), 1, "requests that passed")
    request = recorder.requests[0]
    same(request.replace(b"\r\n", b"").count(b"\n"), 0, "bare line feeds behind nginx")
    lines = request.decode("latin1").split("\r\n")
    same(lines[0], "GET /a HTTP/1.1", "request line")
    fields = [line.split(": ", 1) for line in lines[1:] if line]
    headers = {k.lower(): v for k, v in fields}
    same(len(headers), len(fields), "headers that stand twice")
    wanted = {"host": "localhost", "x-kept": "yes", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http", "x-real-ip": "127.0.0.1", "last-event-id": "3"}
    for name, value in wanted.items():
        same(headers.get(name), value, name)
    for name in ("x-forwarded-host", "forwarded", "connection"):
        check(name not in headers, f"{name} passed: {headers.get(name)!r}")
    check("1.2.3.4" not in request.decode("latin1") and "evil" not in request.decode("latin1"), "a forged origin passed")
    nginx.stop()


@needs_nginx
def rates_and_connections_are_limited():
    nginx = Nginx()
    recorder = Recorder(nginx.socket_path, answer=False)
    held = []
    for _ in range(140):
        connection = socket.create_connection(("127.0.0.1", nginx.port))
        connection.sendall(b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        held.append(connection)
    answered = eventually(lambda: (lambda ready: ready if len(ready) >= 12 else None)(select.select(held, [], [], 0.1)[0]), 20,
                          f"12 of 140 connections are refused ({len(recorder.requests)} passed; {nginx.log()})")
    eventually(lambda: len(recorder.requests) == 128, 20, "128 connections pass")
    same(len(answered), 12, "connections refused")
    for connection in answered:
        is_problem(connection.recv(65536), 429, "quota", "a connection too many")
    for connection in held:
        connection.close()
    nginx.stop()

    nginx = Nginx()
    recorder = Recorder(nginx.socket_path)
    answers = []

    def post(times):
        for _ in range(times):
            answers.append(send(nginx, POST + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"))
    began = time.monotonic()
    threads = [threading.Thread(target=post, args=(50,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    refusals = [out for out in answers if b" 429 " in out[:20]]
    allowed = 101 + 50 * took
    check(len(recorder.requests) <= allowed + 2, f"{len(recorder.requests)} posts passed in {took:.2f} s")
    same(len(recorder.requests) + len(refusals), 400, "posts")
    if allowed < 395:
        is_problem(refusals[0], 429, "quota", "a post too many")
    # Polling is not rationed.
    for _ in range(150):
        check(send(nginx, b"GET /jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200"), "a poll was refused")
    nginx.stop()


@needs_nginx
def metrics_are_for_the_host_itself():
    with ProxiedDaemon() as daemon:
        same(daemon.get("/metrics").status, 200, "from 127.0.0.1")
        # Another address of the same machine is a stranger; what it says of itself does not count.
        for path in ("/metrics", "/%6detrics", "//metrics", "/x/../metrics", "/metrics?a=b"):
            connection = daemon.nginx.connect(source="127.0.0.2")
            connection.request("GET", path, headers={"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"})
            answer = connection.getresponse()
            is_problem(Answer(answer.status, answer.getheaders(), answer.read()), 403, "forbidden", path)
            connection.close()


@needs_nginx
def one_connection_serves_many_requests():
    with ProxiedDaemon() as daemon:
        connection = daemon.connect()
        sockets = set()
        for path in ("/healthz", "/models", "/nothing", "/samplers") * 5:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            same(answer.status, 404 if path == "/nothing" else 200, path)
            sockets.add(connection.sock.getsockname())
        same(len(sockets), 1, "connections")
        out, _ = daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
                            b"GET /samplers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        same([int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", out)], [200, 404, 200], "a pipeline")


@needs_nginx
def a_daemon_drains_and_comes_back_behind_it():
    with ProxiedDaemon() as daemon:
        job = daemon.post({"steps": 1000, "n": 32, "seed": 3}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}").json["state"] == "running", what="it runs")
        seen = []
        reader = threading.Thread(target=lambda: seen.extend(daemon.events(f"/jobs/{job}/events?previews=0")))
        reader.start()
        daemon.process.send_signal(signal.SIGTERM)
        refusal = eventually(lambda: next((a for a in [daemon.post({"steps": 1})] if a.status == 503), None), what="a refusal while it drains")
        check(is_problem(refusal, 503, refusal.json["code"], "a post while it drains")["code"] in ("draining", "loading"), refusal.json["code"])
        same(daemon.process.wait(PATIENCE), 0, "exit status")
        reader.join(PATIENCE)
        check(not reader.is_alive(), "the stream never ended")
        is_problem(daemon.get("/healthz"), 503, "loading", "while the daemon is down")
        is_problem(daemon.post({"steps": 1}), 503, "loading", "a post while the daemon is down")
        daemon.start()
        same(daemon.get("/healthz").status, 200, "at once after the restart")
        same(daemon.wait(job, 90)["state"], "succeeded", "the job that was drained")


def api_tests(name, proxied="1", base_path=""):
    """Every test of a file, its daemon behind nginx, under a base path, or both. The limits stand as they are: the tests stay below them."""
    if SLOW > 1:
        raise Skip("the release build's run shows it")
    environment = dict(os.environ, DENOISED_PROXY=proxied, DENOISED_BASE_PATH=base_path)
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tests/e2e", name)], env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAIL ")]
    passed = sum(line.startswith("PASS ") for line in lines)
    check(done.returncode == 0 and not failed and passed > 0, f"{passed} passed; {failed or done.stderr[-500:]}")
    print(f"     {passed} tests of {name} pass{' through nginx' if proxied else ''}{f' under {base_path}' if base_path else ''}")


@needs_nginx
def the_refusals_pass_through_it():
    api_tests("refusals_test.py")


@needs_nginx
def the_api_tests_pass_through_it():
    api_tests("generate_test.py")


@needs_nginx
def the_api_tests_pass_through_it_under_a_base_path():
    api_tests("generate_test.py", base_path="/v1/api")


@test
def the_api_tests_pass_under_a_base_path():
    api_tests("generate_test.py", proxied="", base_path="/v1/api")


run(__name__)
