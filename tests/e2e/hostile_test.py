"""Every case of tests/hostile gets its exact answer, directly and through nginx, and leaves the daemon well; mutations of the cases too.

`hostile_test.py --torture SEED COUNT` sends COUNT mutated requests, each made from its own seed: SEED, SEED + 1, ...
"""
from harness import *  # noqa: F403
import contextlib
import http.client
import random
import re
import shlex
import hostile
from proxy import UNLIMITED, ProxiedDaemon, have_nginx

sys.path.insert(0, os.path.join(ROOT, "tests", "hostile"))
import command_cases  # noqa: E402
import http_cases  # noqa: E402
import json_cases  # noqa: E402
import path_cases  # noqa: E402

HTTP = ("LINES", "TARGETS", "HEADERS", "LENGTHS", "MEDIA", "PIPELINES")
KEY = "Bearer " + http_cases.KEY.decode()
OTHER = "Bearer " + "b" * 32
counted = {}


def key_file():
    path = os.path.join(scratch("keys"), "keys")
    with open(path, "w", encoding="ascii") as out:
        out.write(f"alice {http_cases.KEY.decode()}\nbob {'b' * 32}\n")
    os.chmod(path, 0o600)
    return path


def start(proxied, *options):
    return ProxiedDaemon(*options, proxy_changes=UNLIMITED) if proxied else Daemon(*options)


def connector(daemon):
    def connect():
        connection = socket.create_connection(("127.0.0.1", daemon.port))
        connection.settimeout(PATIENCE)
        return connection
    return connect


class Health:
    """/healthz on a connection of its own, after every case; the slowest answer is kept."""

    def __init__(self, daemon, base=""):
        self.daemon, self.base, self.slowest = daemon, base, 0.0
        self.connection = daemon.connect()

    def check(self, what):
        began = time.monotonic()
        try:
            self.connection.request("GET", self.base + "/healthz")
            answer = self.connection.getresponse()
            answer.read()
        except OSError:  # an idle connection may have been closed meanwhile
            self.connection.close()
            self.connection.request("GET", self.base + "/healthz")
            answer = self.connection.getresponse()
            answer.read()
        same(answer.status, 200, f"health after {what}")
        self.slowest = max(self.slowest, time.monotonic() - began)


def accepted(answers):
    """Ids of the jobs that these answers have accepted."""
    ids = []
    for status, _, body in answers:
        if status == 202:
            job = json.loads(body)
            ids += [one["id"] for one in job.get("jobs", [job])]
    return ids


def purge(daemon, ids, base="", **headers):
    for job in ids:
        check(daemon.call("DELETE", f"{base}/jobs/{job}?purge=1", **headers).status in (200, 202), "purge")


def expected(case, at, proxied):
    """The answer of a case: at `at`, behind nginx one further where it differs."""
    return case[at + 1] if proxied and len(case) > at + 1 else case[at]


def count(what, names):
    same(len(names), len(set(names)), f"names of {what} that differ")
    counted[what] = len(names)


def run_http(daemon, groups, proxied, base="", **headers):
    health, ids = Health(daemon, base), []
    follow = hostile.FOLLOW.replace(b"/healthz", base.encode() + b"/healthz")
    cases = [(f"{group}: {case[0]}", case) for group in groups for case in getattr(http_cases, group)]
    count(f"http {' '.join(groups)}", [name for name, _ in cases])
    for name, case in cases:
        got, answers = hostile.ask(connector(daemon), case[1], expected(case, 2, proxied), follow)
        same(got, expected(case, 2, proxied), name)
        ids += accepted(answers)
        health.check(name)
    # A new connection has a place in the table of jobs only when it was told 202.
    same(daemon.jobs_in_store(), len(ids), "rows of the job table")
    purge(daemon, ids, base, **headers)
    check_log(daemon)
    print(f"     {len(cases)} HTTP cases {'through nginx' if proxied else 'directly'}; health within {1000 * health.slowest:.0f} ms")


def run_json(daemon, proxied):
    health, total = Health(daemon), 0
    before = daemon.jobs_in_store()
    for group, cases in json_cases.GROUPS.items():
        count(f"json {group}", [case[0] for case in cases])
        for name, body, wanted in cases:
            body = body if isinstance(body, bytes) else body.encode()
            answer = daemon.call("POST", "/generate", body)
            words = hostile.told([(answer.status, answer.headers, answer.body)])
            if answer.status == 202:
                ids = accepted([(answer.status, answer.headers, answer.body)])
                shown = daemon.get(f"/jobs/{ids[0]}").json["request"]
                for member in wanted.split(" ")[1:]:
                    field, _, value = member.partition("=")
                    words.append(f"{field}={shown.get(field)}")
                same(daemon.jobs_in_store() >= before + len(ids), True, f"{name}: rows")
                purge(daemon, ids)
            same(" ".join(words), wanted, f"{group}: {name}")
            health.check(name)
            total += 1
    check_log(daemon)
    print(f"     {total} bodies {'through nginx' if proxied else 'directly'}; health within {1000 * health.slowest:.0f} ms")


def run_paths(daemon, proxied):
    def made(authorization):
        job = daemon.call("POST", "/generate", {"steps": 1, "n": 2}, Authorization=authorization).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{job}", Authorization=authorization).json["state"] == "succeeded", 60, "the job's end")
        return job
    job, other = made(KEY), made(OTHER)
    made(KEY)
    places = {"{job}": job, "{other}": other, "{cursor}": daemon.get("/jobs?limit=1", Authorization=KEY).json["next_cursor"]}
    health, total = Health(daemon), 0
    for group, cases in path_cases.GROUPS.items():
        count(f"paths {group}", [case[0] for case in cases])
        for case in cases:
            target = case[1]
            for place, put in places.items():
                target = target.replace(place, put)
            header = case[2] + "\r\n" if case[2] else ""
            data = f"{target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {KEY}\r\n{header}\r\n".encode("latin1")
            got, _ = hostile.ask(connector(daemon), data, expected(case, 3, proxied))
            same(got, expected(case, 3, proxied), f"{group}: {case[0]}")
            health.check(case[0])
            total += 1
    same(daemon.get(f"/jobs/{other}", Authorization=OTHER).json["state"], "succeeded", "the other client's job")
    check_log(daemon)
    print(f"     {total} ids and queries {'through nginx' if proxied else 'directly'}; health within {1000 * health.slowest:.0f} ms")


REQUEST_LINE = re.compile(r"\S+Z info http: [A-Za-z_-]{1,16} (-|[!-~]{1,256}) \d{1,3}( route=\S+)? bytes=\d+ seconds=\d+\.\d{6} client=\S+"
                          r" request_id=[0-9a-f]{32}")


def check_log(daemon):
    """Nothing in the log can move a terminal's cursor, nor is there a line that no request made."""
    with open(daemon.log_path, "rb") as log:
        text = log.read()
    check(re.search(rb"[^\n -~]", text) is None, "a byte that is not printable ASCII is in the log")
    # A line of a request is one: what a client chose of it has no space, and stands in its place.
    for line in text.decode("ascii").splitlines():
        check(re.match(r"\d{4}-\d\d-\d\dT[0-9:.]{12}Z (info|warning|error) [a-z]+: ", line), line)
        check(" http: " not in line or "images/" in line or REQUEST_LINE.fullmatch(line), line)
    check(http_cases.KEY not in text and b"DROP TABLE" not in text and b"passwd HTTP" not in text, "what a client sent is in the log")


def both_ways(function):
    """A test directly, and one through nginx."""
    def through_nginx():
        if not have_nginx():
            raise Skip("nginx is not installed")
        function(True)
    through_nginx.__name__ = function.__name__ + "_through_nginx"

    def directly():
        function(False)
    directly.__name__ = function.__name__
    test(directly)
    test(through_nginx)
    return function


@both_ways
def hostile_requests_get_their_answers(proxied):
    with start(proxied, "--patience", "0.3") as daemon:  # some cases end when their head's time is over
        run_http(daemon, HTTP, proxied)


@both_ways
def hostile_requests_under_a_base_path_get_their_answers(proxied):
    with start(proxied, "--base-path", "/v1/api") as daemon:
        run_http(daemon, ("BASE_PATH",), proxied, "/v1/api")


@both_ways
def hostile_keys_get_their_answers(proxied):
    with start(proxied, "--api-key-file", key_file()) as daemon:
        run_http(daemon, ("KEYS",), proxied, Authorization=KEY)


@both_ways
def hostile_bodies_get_their_answers(proxied):
    with start(proxied) as daemon:
        run_json(daemon, proxied)


@both_ways
def hostile_ids_and_queries_get_their_answers(proxied):
    with start(proxied, "--api-key-file", key_file()) as daemon:
        run_paths(daemon, proxied)


@test
def nothing_that_a_client_sends_is_logged():
    mark = "mark0f7c"
    with Daemon("--api-key-file", key_file()) as daemon:
        fields = ["class_label", "sampler", "model", "seed", "init_image", "steps", "guidance_method", mark]
        bodies = [json.dumps({field: mark}) for field in fields] + [mark, f'{{"{mark}', f'"{mark}"', f'[{{"steps": "{mark}"}}]']
        for body in bodies:
            daemon.call("POST", "/generate", body, Authorization=KEY)
        daemon.call("POST", "/generate", '{"steps": 1}', Authorization=KEY, Idempotency_Key=mark, Prefer=mark, Accept="a/" + mark, Cookie=mark)
        made = daemon.call("POST", "/generate", '{"steps": 1}', Authorization=KEY, Idempotency_Key=mark, X_Request_Id=mark, Referer=mark,
                           User_Agent=mark).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{made}", Authorization=KEY).json["state"] == "succeeded", 60, "the job's end")
        for path in (f"/jobs?limit={mark}", f"/jobs?cursor={mark}", f"/jobs?state={mark}", f"/jobs?model={mark}", f"/jobs?{mark}", f"/jobs/{made}?{mark}=1"):
            daemon.get(path, Authorization=KEY)
        daemon.get("/jobs", Authorization="Bearer " + mark)
        daemon.get(f"/jobs/{made}/events", Authorization=KEY, Last_Event_ID=mark)
        daemon.raw(f"GET /jobs HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n".encode())
        daemon.raw(f"{mark} {mark}\r\n{mark}\r\n\r\n".encode(), half_close=True)
        same(daemon.stop(), 0, "exit status")
        with open(daemon.log_path, "rb") as log:
            text = log.read() + b"".join(daemon.said)
        check(mark.encode() not in text and http_cases.KEY not in text, "a client's text is in the log")
        check_log(daemon)


# ---- Command lines

def lay_out(folder):
    for name, (mode, data) in command_cases.FILES.items():
        path = os.path.join(folder, name)
        os.makedirs(path if data is None else os.path.dirname(path), exist_ok=True)
        if data is not None:
            with open(path, "wb") as out:
                out.write(data)
        os.chmod(path, mode)


def words_of(arguments, places):
    words = shlex.split(arguments)
    if words[:1] == ["+"]:
        given, words = words[1:], ["serve"]
        for option, value in (("--listen", "127.0.0.1:0"), ("--data", "{t}/data")):
            words += [] if option in given else [option, value]
        words += [] if "--model-first" in given else ["--model", "tiny={model}"]
        words += ["--model" if word == "--model-first" else word for word in given]
    for place, put in places.items():
        words = [word.replace(place, put) for word in words]
    return words


@test
def hostile_commands_get_their_answers():
    folder, total = scratch("commands"), 0
    lay_out(folder)
    with Daemon(data=os.path.join(folder, "locked")) as holder, contextlib.closing(socket.socket(socket.AF_UNIX)) as answers:
        answers.bind(os.path.join(folder, "answers"))
        answers.listen(8)
        places = {"{t}": folder, "{model}": tiny_model(), "{taken}": str(holder.port)}
        for group, cases in command_cases.GROUPS.items():
            count(f"commands {group}", [case[0] for case in cases])
            for name, arguments, status, line, *environment in cases:
                for place, put in places.items():
                    line = line.replace(place, put)
                try:
                    done = subprocess.run([PROGRAM, *words_of(arguments, places)], capture_output=True, timeout=PATIENCE, check=False,
                                          env=dict(os.environ, **(environment[0] if environment else {})))
                except subprocess.TimeoutExpired:
                    raise AssertionError(f"{group}: {name}: it started") from None
                first = re.sub(r"^\d{4}-\S+Z ", "", done.stderr.decode("utf8", "replace").split("\n")[0])  # a line of the log has its time
                if line.endswith("..."):
                    line, first = line[:-3], first[:len(line) - 3]
                same((first, done.returncode, done.stdout), (line, status, b""), f"{group}: {name}")
                total += 1
        same(holder.get("/healthz").status, 200, "the other daemon")
    print(f"     {total} command lines and files")


# ---- Memory, and mutations

def refusals():
    """(bytes, answer) of all requests that a healthy daemon refuses or answers at once."""
    made = [(case[1], case[2]) for group in HTTP for case in getattr(http_cases, group) if not set(case[2].split()) & {"202", "silence", "closed", "half"}]
    bodies = [case for cases in json_cases.GROUPS.values() for case in cases if not case[2].startswith("202")]
    return made + [(http_cases.sized(body if isinstance(body, bytes) else body.encode()), answer + " keep") for _, body, answer in bodies]


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1))


@test
def a_thousand_refusals_cost_no_memory():
    if os.environ.get("TEST_VARIANT", "release") != "release":
        raise Skip("sanitizers keep what was freed")
    cases = [case for case in refusals() if len(case[0]) < 100000]  # what one large body leaves in an arena is not what grows
    with Daemon() as daemon:
        def send_all():
            for data, wanted in cases:
                same(hostile.ask(connector(daemon), data, wanted)[0], wanted, "answer")
        send_all()
        send_all()
        before, sent = resident_kib(daemon.process.pid), 0
        while sent < 1000:
            send_all()
            sent += len(cases)
        grown = (resident_kib(daemon.process.pid) - before) * 1000 / sent
        print(f"     {sent} hostile requests: {grown:.0f} KiB more in memory a thousand, of {before} KiB")
        check(grown < 1024, f"{grown:.0f} KiB a thousand requests")
        same(daemon.jobs_in_store(), 0, "rows of the job table")


def mutated(seed, cases):
    draw = random.Random(seed)
    data = bytearray(draw.choice(cases))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
        elif kind == 2:
            del data[at:at + draw.randint(1, 40)]
        elif kind == 3:
            data[at:at] = data[at:at + draw.randint(1, 200)] * draw.randint(1, 4)
        elif kind == 4:
            other = draw.choice(cases)
            begin = draw.randrange(len(other) + 1)
            data[at:at] = other[begin:begin + draw.randint(1, 300)]
        elif kind == 5:
            data[at:at] = draw.choice([b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff", b" ", b"{", b"[", b'"', b"%", b"18446744073709551616",
                                       b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Host: localhost\r\n"])
        else:
            del data[at:]
    return bytes(data)


def send(daemon, data):
    """Bytes as they are, then a good request that ends the connection, however it is understood by then; all that comes back."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", daemon.port))) as connection:
        connection.settimeout(PATIENCE)  # the daemon ends every connection by itself
        out = b""
        try:
            connection.sendall(data + b"\r\n\r\n" + hostile.FOLLOW)
            while piece := connection.recv(65536):
                out += piece
        except ConnectionError:
            pass
        return out


def patiently(daemon, *request):
    """A call of our own, again when a daemon in a hurry has cut it while this machine was busy."""
    for attempt in range(20):
        try:
            return daemon.call(*request)
        except (OSError, http.client.HTTPException):
            if attempt == 19 or daemon.process.poll() is not None:
                raise


def mutate(daemon, cases, seed):
    """One mutated request: no answer of it may be a failure of ours, the daemon lives, and what it was talked into is taken away again."""
    data = mutated(seed, cases)
    out = send(daemon, data)
    check(daemon.process.poll() is None, f"the daemon ended with {daemon.process.returncode}: {daemon.tail()[-500:]}")
    statuses = [int(status) for status in re.findall(rb"(?:^|\n|[}>])HTTP/1\.[01] (\d{3}) ", out)]
    bad = [status for status in statuses if status >= 500 and status != 505]
    check(not bad, f"status {bad} of {data[:200]!r}")
    for job in set(re.findall(rb'"id":"([a-z2-7]{26})"', out)):
        patiently(daemon, "DELETE", f"/jobs/{job.decode()}?purge=1")


def torture(seed, number):
    """Returns how many cases failed; each says how it is repeated."""
    cases = sorted({case[1] for group in HTTP for case in getattr(http_cases, group)} | {data for data, _ in refusals()})
    cases = [case for case in cases if len(case) < 100000]  # the largest ones only take time
    failed, queue, lock = [], iter(range(seed, seed + number)), threading.Lock()
    daemon = Daemon("--patience", "0.1")

    def work():
        while True:
            with lock:
                one = next(queue, None)
            if one is None or daemon.process.poll() is not None:
                return
            try:
                mutate(daemon, cases, one)
                if one % 16 == 0:
                    same(patiently(daemon, "GET", "/healthz").status, 200, "health")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this seed's
                failed.append(one)
                print(f"FAIL hostile: seed={one} commit={commit()}: {type(error).__name__}: {error}\n"
                      f"replay: python3 tests/e2e/hostile_test.py --torture {one} 1", flush=True)
    threads = [threading.Thread(target=work) for _ in range(min(48, number))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(daemon.process.poll() is None, f"the daemon ended with {daemon.process.returncode}: {daemon.tail()[-500:]}")
    job = patiently(daemon, "POST", "/generate", {"class_label": "bag", "steps": 2}).json["id"]
    eventually(lambda: patiently(daemon, "GET", f"/jobs/{job}").json["state"] == "succeeded", 60, "a job after all this")
    check_log(daemon)
    daemon.kill()
    return len(failed)


def commit():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


@test
def mutations_hurt_nobody():
    same(torture(1, 1000), 0, "mutations that failed")


@test
def there_are_enough_of_them():
    if len(counted) < 10:
        raise Skip("the tables were not run")
    total = sum(counted.values())
    kinds = {kind: sum(n for name, n in counted.items() if name.startswith(kind)) for kind in ("http", "json", "paths", "commands")}
    print(f"     {total} hostile cases with exact answers: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}")
    check(kinds["http"] >= 250 and kinds["json"] >= 300 and kinds["paths"] >= 110 and kinds["commands"] >= 100, f"fewer than there were: {kinds}")


if "--torture" in sys.argv:
    first, wanted = (int(word) for word in sys.argv[sys.argv.index("--torture") + 1:][:2])
    broken = torture(first, wanted)
    print(f"TORTURE key=hostile seed={first} done={wanted} failed={broken}")
    sys.exit(1 if broken else 0)
run(__name__)
