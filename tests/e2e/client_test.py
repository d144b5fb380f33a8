"""The commands that talk to a daemon (submit, watch, get, jobs, cancel): against real daemons, through proxies that cut, and against servers
that answer nonsense."""
import hashlib
import http.server
import re

from harness import *  # noqa: F403
import harness
import png
import screen
from screen import Screen

SLOWLY = {"DENOISED_FAULT": "step_k:1:slow200"}  # every tick takes 200 ms more: a job of 1,000 steps outlives what is done to it
UNKNOWN = "a" * 26


def url_of(daemon):
    address = daemon.address
    return (f"unix:{address[5:]}:{harness.BASE_PATH}" if harness.BASE_PATH else address) if address.startswith("unix:") else (
        f"http://127.0.0.1:{daemon.port}{harness.BASE_PATH}")


def client(daemon, *words, folder=None, status=0, **environment):
    """Runs `denoised WORDS` against a daemon, or an address."""
    environment["DENOISED_URL"] = daemon if isinstance(daemon, str) else url_of(daemon)
    done = subprocess.run([PROGRAM, *map(str, words)], capture_output=True, cwd=folder or scratch("client"), env=screen.clean(environment),
                          timeout=PATIENCE, check=False)
    out = subprocess.CompletedProcess(done.args, done.returncode, done.stdout, done.stderr.decode())
    same(out.returncode, status, f"the exit status of {words} ({out.stderr})")
    check(b"\x1b" not in out.stdout or "--show" in words or "-" in words, "escape codes in a pipe")
    check("\x1b" not in out.stderr, "escape codes on standard error")
    return out


def text(done):
    return done.stdout.decode()


def submit(daemon, *words, **settings):
    job_id = text(client(daemon, "submit", *words, **settings)).strip()
    check(re.fullmatch("[a-z2-7]{26}", job_id), job_id)
    return job_id


def running(daemon, job_id):
    eventually(lambda: daemon.get(f"/jobs/{job_id}").json["state"] == "running", what="a running job")


def slow_daemon(*options, **settings):
    return Daemon(*options, program=FAULTS, environment=SLOWLY, **settings)


def read(path):
    with open(path, "rb") as stream:
        return stream.read()


def write(name, data, mode=0o600):
    path = os.path.join(scratch("file"), name)
    with open(path, "wb") as stream:
        stream.write(data)
    os.chmod(path, mode)
    return path


# ---- Submit

@test
def every_field_arrives():
    picture = write("picture.png", png.png(8, 8, lambda x, y, c: 30 * x + 2 * y + c))
    mask = write("mask.png", png.png(8, 8, lambda x, y, c: 255 * (x > 3), colour=0))
    with Daemon() as daemon:
        job_id = submit(daemon, "--model", "tiny", "--class", "sneaker", "--guidance-scale", "2.5", "--steps", 3, "--sampler", "ddim", "--seed", 2 ** 64 - 1,
                        "-n", 2, "--priority", -3, "--deadline", 100000, "--eta", 0.5, "--timestep-spacing=trailing", "--init-image", picture, "--strength", 0.9,
                        "--mask-image", mask, "--negative-class", "2", "--variation-seed", 7, "--variation-strength", 0.25)
        request = daemon.wait(job_id)["request"]
        for key, value in {"model": "tiny", "class_label": 7, "guidance_scale": 2.5, "steps": 3, "sampler": "ddim", "seed": str(2 ** 64 - 1), "n": 2, "priority": -3,
                           "deadline_ms": 100000000, "eta": 0.5, "timestep_spacing": "trailing", "strength": 0.9, "variation_strength": 0.25}.items():
            same(request.get(key), value, key)
        same(request["negative_class"], 2, "negative_class")
        same(request["init_image"]["sha256"], hashlib.sha256(read(picture)).hexdigest(), "the picture")
        check("mask_image" in request, request)
        request = daemon.wait(submit(daemon, "--mixture", "2:0.5,Bag:0.25", "--steps", 2))["request"]
        same([(one["class_label"], one["weight"]) for one in request["class_mixture"]], [(2, 0.5), (8, 0.25)], "the mixture")


@test
def what_the_daemon_refuses_names_the_flag():
    with Daemon() as daemon:
        for words, said in [(("--class", "Sneakr"), "(--class)"), (("--sampler", "nope"), "(--sampler)"), (("--class", "99"), "(--class)"),
                            (("--webhook", "https://example.org/"), "(--webhook)"), (("--sampler", "euler", "--eta", "0.5"), "(--eta)"),
                            (("--model", "other"), "(--model)"), (("--seed", "-1"), "(--seed)")]:
            done = client(daemon, "submit", *words, status=65)
            check(said in done.stderr and done.stderr.startswith("denoised submit: ") and not done.stdout, done)
        for words in [("--steps", "0"), ("-n", "65"), ("--bogus",), ("-o", "x.png"), ("--show", "braille"), ("--wait", "-o", "-", "--json"),
                      ("--wait", "-n", "2", "-o", "one.png"), ("--wait", "--json", "--show", "blocks")]:
            client(daemon, "submit", *words, status=64)
        for words in [("--priority", "11"), ("--eta", "much"), ("--mixture", "2"), ("--mixture", "2:x")]:
            check(words[0] in client(daemon, "submit", *words, status=65).stderr, words)
        client(daemon, "submit", "--init-image", "/nonexistent.png", status=74)
        same(daemon.jobs_in_store(), 0, "jobs")


@test
def waiting_saves_what_was_made():
    with Daemon() as daemon:
        folder = scratch("waiting")
        done = client(daemon, "submit", "--class", 7, "--seed", 42, "--steps", 3, "-n", 2, "--wait", folder=folder)
        job_id, *names = text(done).split()
        same(names, [f"{job_id}-0.png", f"{job_id}-1.png"], "names")
        for i, name in enumerate(names):
            same(read(os.path.join(folder, name)), daemon.image(job_id, i), name)
        same(sorted(os.listdir(folder)), sorted(names), "the folder")
        check(f"job {job_id} succeeded, 2 pictures" in done.stderr, done.stderr)
        done = client(daemon, "submit", "--class", 7, "--seed", 42, "--steps", 3, "--wait", "--json", "-o", "sub/", folder=folder)
        told = json.loads(done.stdout)
        same((told["job"]["state"], told["files"][0]["seed"]), ("succeeded", "42"), "what was told")
        same(hashlib.sha256(read(os.path.join(folder, told["files"][0]["file"]))).hexdigest(), told["files"][0]["sha256"], "the file")
        done = client(daemon, "submit", "--class", 7, "--seed", 42, "--steps", 3, "--wait", "-o", "-")
        same(done.stdout, daemon.image(job_id), "to a pipe")
        same(json.loads(client(daemon, "submit", "--class", 7, "--json").stdout)["request"]["class_label"], 7, "the job")


# ---- Watch

@test
def watching_in_lines_and_in_json():
    with Daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 3)
        done = client(daemon, "watch", job_id)
        check(f"job {job_id} succeeded, 1 picture" in done.stderr and not done.stdout, done)
        events = daemon.events(f"/jobs/{job_id}/events")
        lines = [json.loads(line) for line in client(daemon, "watch", job_id, "--json").stdout.splitlines()]
        same([(one["id"], one["event"], one["data"]) for one in lines if one["id"]],
             [(int(one["id"]), one["event"], one["json"]) for one in events if one.get("id")], "milestones")
        client(daemon, "cancel", job_id, status=1)
        folder = scratch("watch")
        same(text(client(daemon, "watch", job_id, "-o", "new/", folder=folder)), f"new/{job_id}-0.png\n", "names")
        same(read(f"{folder}/new/{job_id}-0.png"), daemon.image(job_id), "the file")


@test
def previews_are_drawn_and_the_last_is_the_picture():
    with slow_daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 1000, "-n", 2)
        terminal = Screen([PROGRAM, "watch", job_id, "--url", url_of(daemon)], COLORTERM="truecolor")
        terminal.read(until=lambda shown: len(re.findall(rb"\x1b\[0m\r\n\rdenoising \[[#.]{24}\] +[0-9]+ %", shown)) > 3)
        check(not re.search(rb"\x1b\[0m\r\n\x1b\[[0-9]+A", terminal.shown), "a preview over another without a bar below")
        same(daemon.call("DELETE", f"/jobs/{job_id}").status, 202, "the cancel")
        shown, status = terminal.end()
        check(status == 1 and b"canceled, 0 pictures" in shown, f"{status} {shown[-300:]!r}")
    with Daemon() as daemon:
        for words in (("watch", submit(daemon, "--class", 7, "--steps", 3)), ("submit", "--class", "7", "--steps", "3", "--wait", "-o", scratch("shown"))):
            terminal = Screen([PROGRAM, *words, "--url", url_of(daemon)], COLORTERM="truecolor")
            shown, status = terminal.end()
            same(status, 0, "the exit status")
            job_id = re.search(rb"job ([a-z2-7]{26}) succeeded", shown)[1].decode()
            got, rows = screen.block_rows(shown), screen.rows_of(daemon.image(job_id))
            side = screen.factor_of(got[-40:], rows)
            same(got[-40:], screen.scaled(rows, 5), f"the last picture, {side} times as large")


@test
def interrupted_watchers_leave_the_job_alone():
    with slow_daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 1000)
        running(daemon, job_id)
        for words in (["watch", job_id], ["submit", "--class", "3", "--steps", "1000", "--wait"]):
            for number in (signal.SIGINT, signal.SIGTERM):
                process = subprocess.Popen([PROGRAM, *words, "--url", url_of(daemon)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                           env=screen.clean({}), cwd=scratch("interrupted"))
                line = process.stderr.readline()  # once something is told of it, signals are taken
                check(line.startswith(b"denoised "), line)
                process.send_signal(number)
                out, said = process.communicate(timeout=PATIENCE)
                same(process.returncode, 130, f"the exit status ({said})")
                mine = out.decode().strip() or job_id
                check(f"denoised watch {mine}" in said.decode() and f"denoised cancel {mine}" in said.decode(), said)
                check(daemon.get(f"/jobs/{mine}").json["state"] in ("queued", "running"), "the job has ended")


# ---- Lost connections

class Cutter:
    """A proxy before a daemon, connection by connection: cut(request, number) gives the bytes after which an answer is cut, or None."""

    def __init__(self, daemon, cut):
        self.daemon, self.cut, self.requests = daemon, cut, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}{harness.BASE_PATH}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        with near, socket.create_connection(("127.0.0.1", self.daemon.port)) as far:
            request = b""
            while b"\r\n\r\n" not in request:
                piece = near.recv(65536)
                if not piece:
                    return
                request += piece
            length = re.search(rb"content-length: *(\d+)", request, re.I)
            while length and len(request.split(b"\r\n\r\n", 1)[1]) < int(length[1]):
                request += near.recv(65536)
            self.requests.append(request)
            until = self.cut(request, len(self.requests))
            if until == b"":
                return
            # One request a connection, so that each can be judged.
            far.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = b""
            while True:
                piece = far.recv(65536)
                if not piece:
                    return
                answer += piece
                at = answer.find(until) if until else -1
                try:
                    near.sendall(piece if at < 0 else answer[len(answer) - len(piece):at + len(until)] if at + len(until) > len(answer) - len(piece) else b"")
                except OSError:
                    return
                if at >= 0:
                    return


def streams(cutter):
    return [request for request in cutter.requests if b"/events" in request.split(b"\r\n")[0]]


def watched_through(daemon, job_id, cut):
    cutter = Cutter(daemon, cut)
    done = client(cutter.url, "watch", job_id, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    same([(one["id"], one["event"]) for one in lines if one["id"]],
         [(int(one["id"]), one["event"]) for one in daemon.events(f"/jobs/{job_id}/events") if one.get("id")], "milestones")
    check("the connection was lost; trying again" in done.stderr, done.stderr)
    return streams(cutter)


@test
def a_cut_stream_goes_on_after_the_last_event():
    with Daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 3)
        daemon.wait(job_id)
        # Between two events, and within one, whose first half is forgotten. (Chunks of the answer hold whole events.)
        for until in (b'"queue_position":0}\n\n', b"event: started\n", b"event: ima"):
            requests = watched_through(daemon, job_id, lambda request, number, until=until: until if number == 1 else None)
            same(len(requests), 2, "connections")
            check(b"last-event-id" not in requests[0].lower(), "an id in the first")
            wanted = {b'"queue_position":0}\n\n': b"1", b"event: started\n": b"1", b"event: ima": b"2"}[until]
            check(b"last-event-id: " + wanted + b"\r\n" in requests[1].lower(), f"{until!r}: {requests[1]!r}")


@test
def a_daemon_that_comes_back_is_found_again():
    folder = scratch("socket")
    with slow_daemon(listen=f"unix:{folder}/d.sock") as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 1000)
        running(daemon, job_id)
        process = subprocess.Popen([PROGRAM, "watch", job_id, "--url", url_of(daemon)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=screen.clean({}))
        check(process.stderr.readline().startswith(b"denoised watch: "), "it began")
        daemon.kill()
        said = process.stderr.readline()
        while b"trying again" not in said:
            check(said, "nothing was said of it")
            said = process.stderr.readline()
        daemon.environment = None  # and now as fast as it can
        daemon.start()
        said += process.communicate(timeout=PATIENCE)[1]
        same(process.returncode, 0, f"the exit status ({said})")
        check(b"succeeded, 1 picture" in said, said)


@test
def a_daemon_that_stays_away_is_given_up():
    with slow_daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 1000)
        cutter = Cutter(daemon, lambda request, number: b"event: queued\n" if number == 1 else b"")
        done = client(cutter.url, "watch", job_id, "--give-up", 0.2, status=75)
        check(f"denoised watch {job_id}" in done.stderr, done.stderr)
        same(daemon.get(f"/jobs/{job_id}").json["cancel_requested"], False, "the job was cancelled")


@test
def a_lost_answer_makes_no_second_job():
    with Daemon() as daemon:
        cutter = Cutter(daemon, lambda request, number: b"HTTP/1.1 2" if number == 1 else None)
        job_id = submit(cutter.url, "--class", 7, "--steps", 2)
        same(len(cutter.requests), 2, "requests")
        keys = [re.search(rb"idempotency-key: (\S+)", request, re.I)[1] for request in cutter.requests]
        same(keys[0], keys[1], "the key")
        same(daemon.jobs_in_store(), 1, "jobs")
        same(daemon.wait(job_id)["state"], "succeeded", "the job")
        same(submit(daemon, "--class", 7, "--idempotency-key", "mine"), submit(daemon, "--class", 7, "--idempotency-key", "mine"), "by a key of one's own")
        check("--idempotency-key" in client(daemon, "submit", "--class", 8, "--idempotency-key", "mine", status=65).stderr, "no hint")


# ---- Get, jobs, cancel

@test
def pictures_are_fetched():
    with slow_daemon() as daemon:
        job_id = submit(daemon, "--class", 7, "--steps", 2, "-n", 2)
        daemon.wait(job_id)
        folder = scratch("get")
        same(text(client(daemon, "get", job_id, folder=folder)).split(), [f"{job_id}-{i}.png" for i in range(2)], "names")
        same(text(client(daemon, "get", job_id, "-o", "a/b/", folder=folder)).split(), [f"a/b/{job_id}-{i}.png" for i in range(2)], "names in a folder")
        same(read(f"{folder}/a/b/{job_id}-1.png"), daemon.image(job_id, 1), "the file")
        check("several pictures" in client(daemon, "get", job_id, "-o", "one.png", folder=folder, status=64).stderr, "no word of it")
        one = submit(daemon, "--class", 7, "--steps", 2)
        daemon.wait(one)
        same(client(daemon, "get", one, "-o", "-").stdout, daemon.image(one), "to a pipe")
        told = json.loads(client(daemon, "get", one, "-o", "one.png", "--json", folder=folder).stdout)
        same((told["files"][0]["file"], told["job"]["id"], read(f"{folder}/one.png")), ("one.png", one, daemon.image(one)), "what was told")
        shown = client(daemon, "get", one, "--show", "blocks", COLORTERM="truecolor").stdout
        same(screen.block_rows(shown), screen.scaled(screen.rows_of(daemon.image(one)), 5), "what was drawn")
        client(daemon, "get", one, "-o", "/nonexistent/x.png", status=74)
        slow = submit(daemon, "--class", 7, "--steps", 1000)
        check(f"denoised watch {slow}" in client(daemon, "get", slow, status=75).stderr, "no hint")
        client(daemon, "cancel", slow)
        daemon.wait(slow)
        check("canceled, 0 pictures" in client(daemon, "get", slow, status=1).stderr, "no word of it")


@test
def jobs_are_listed():
    with slow_daemon() as daemon:
        first = submit(daemon, "--class", 7, "--steps", 1000, "--priority", 10)
        running(daemon, first)
        for _ in range(2):
            same(daemon.post([{"class_label": 3}] * 64).status, 202, "the posts")
        rows = [line.split() for line in text(client(daemon, "jobs", "--limit", 3)).splitlines()]
        same(rows[0], ["ID", "STATE", "DONE", "IMAGES", "STEPS", "AGE", "CLASS"], "the head")
        same([row[6] for row in rows[1:]], ["Dress"] * 3, "classes")
        same(max(map(len, text(client(daemon, "jobs")).splitlines())) <= 80, True, "80 columns")
        jobs = json.loads(client(daemon, "jobs", "--limit", 120, "--json").stdout)["jobs"]
        same(len({job["id"] for job in jobs}), 120, "jobs of two pages")
        same(len(json.loads(client(daemon, "jobs", "--limit", 1000, "--json").stdout)["jobs"]), 129, "all jobs")
        same([job["id"] for job in json.loads(client(daemon, "jobs", "--state", "running", "--json").stdout)["jobs"]][-1], first, "what runs")
        same(json.loads(client(daemon, "jobs", "--model", "tiny", "--state", "failed", "--json").stdout), {"jobs": []}, "what failed")
        check("state" in client(daemon, "jobs", "--state", "lost", status=65).stderr, "no word of it")


@test
def jobs_are_canceled():
    with slow_daemon("--batching", "single") as daemon:
        first = submit(daemon, "--class", 7, "--steps", 1000)
        running(daemon, first)
        *others, second, third = (submit(daemon, "--class", 7, "--steps", 1000) for _ in range(6))  # one at a time, and one ahead
        check(text(client(daemon, "cancel", second)) in (f"{second} canceled\n", f"{second} is being canceled\n"), "a waiting one, or one that was claimed")
        same(daemon.wait(second)["state"], "canceled", "its end")
        same(text(client(daemon, "cancel", first)), f"{first} is being canceled\n", "a running one")
        daemon.wait(first)
        same(json.loads(client(daemon, "cancel", third, "--json").stdout)["id"], third, "as JSON")
        same(text(client(daemon, "cancel", *others)).count("canceled\n"), len(others), "several")
        done = submit(daemon, "--class", 7, "--steps", 1, "--priority", 10)
        daemon.wait(done, 600)
        same(text(client(daemon, "cancel", done, status=1)), f"{done} had ended: succeeded\n", "an ended one")
        client(daemon, "cancel", done, "--purge")
        gone = client(daemon, "get", done, status=1)
        check("denoised get: " in gone.stderr, gone.stderr)
        for command in ("get", "watch", "cancel"):
            check("denoised jobs" in client(daemon, command, UNKNOWN, status=1).stderr, command)
            client(daemon, command, "../../etc", status=64)
            client(daemon, command, status=64)


# ---- Keys, sockets, addresses

@test
def keys_come_from_files_and_the_environment():
    data = scratch("data")

    def key(*words):
        return subprocess.run([PROGRAM, "key", "--data", data, *words], capture_output=True, check=True, text=True).stdout.strip()
    alice, reader, bob = key("add", "alice"), key("add", "--scopes", "read", "reader"), key("add", "--pending-jobs", "1", "bob")
    with slow_daemon(data=data) as daemon:
        for words in (("submit", "--class", "7"), ("jobs",), ("get", UNKNOWN), ("watch", UNKNOWN), ("cancel", UNKNOWN)):
            done = client(daemon, *words, status=77)
            check("--key-file" in done.stderr and "DENOISED_API_KEY" in done.stderr, done.stderr)
        check("--key-file" in client(daemon, "jobs", status=77, DENOISED_API_KEY="dn_wrong").stderr, "a wrong key")
        job_id = submit(daemon, "--class", 7, "--steps", 2, DENOISED_API_KEY=alice)
        client(daemon, "watch", job_id, "--key-file", write("key", f"# mine\n{alice}\n".encode()), DENOISED_API_KEY=bob)
        client(daemon, "watch", job_id, "--key-file", write("key", f"alice {alice}\n".encode(), 0o640))
        check("chmod 600" in client(daemon, "watch", job_id, "--key-file", write("key", alice.encode(), 0o644), status=78).stderr, "others may read it")
        check("holds no key" in client(daemon, "jobs", "--key-file", write("key", b"# none\n"), status=78).stderr, "no key")
        client(daemon, "jobs", "--key-file", "/nonexistent", status=74)
        client(daemon, "jobs", status=64, DENOISED_API_KEY="two words\x07 three")
        check("scope" in client(daemon, "submit", "--class", "7", status=77, DENOISED_API_KEY=reader).stderr, "a scope")
        client(daemon, "get", job_id, status=1, DENOISED_API_KEY=bob)
        submit(daemon, "--class", 7, "--steps", 1000, DENOISED_API_KEY=bob)
        done = client(daemon, "submit", "--class", 7, status=75, DENOISED_API_KEY=bob)
        check("it may do in " in done.stderr and "denoised jobs --state queued" in done.stderr, done.stderr)


@test
def sockets_and_base_paths():
    folder = scratch("socket")
    for options, listen in (((), f"unix:{folder}/a.sock"), (("--base-path", "/v1"), f"unix:{folder}/b.sock"), (("--base-path", "/v1"), "127.0.0.1:0")):
        if options and harness.BASE_PATH:
            continue
        with Daemon(*options, listen=listen) as daemon:
            prefix = options[1] if options else ""
            url = daemon.address + (f":{prefix}" if prefix else "") if listen.startswith("unix:") else f"http://127.0.0.1:{daemon.port}{prefix}/"
            job_id = text(client(url, "submit", "--class", "7", "--steps", "2", "--wait")).split()[0]
            check(job_id in text(client(url, "jobs")), "not listed")
            client("http://127.0.0.1:1", "jobs", "--url", url)


@test
def wrong_addresses_say_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
        taken.close()
        for words in (("submit", "--class", "7"), ("jobs",), ("get", UNKNOWN), ("watch", UNKNOWN), ("cancel", UNKNOWN)):
            done = client(f"http://127.0.0.1:{free}", *words, status=69)
            check("denoised serve" in done.stderr and "--url" in done.stderr and f"127.0.0.1:{free}" in done.stderr, done.stderr)
    client("unix:/nonexistent/socket", "jobs", status=69)
    for url in ("127.0.0.1:8080", "ftp://x", "http://", "http://a b", "http://me:secret@host/", "http://x/?y", "unix:", "unix:" + "x" * 200):
        done = client(url, "jobs", status=64)
        check("secret" not in done.stderr, done.stderr)


# ---- Servers that are no daemons

class Fake(http.server.ThreadingHTTPServer):
    """answers: by path (without its query), (status, headers, body)."""
    daemon_threads = True

    def __init__(self, answers):
        self.answers, self.seen = answers, []
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class FakeHandler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(self)
        status, headers, body = self.server.answers.get(self.path.split("?")[0], (404, {}, b"<html>not here</html>"))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *unused):
        pass


@test
def nonsense_is_told_as_such():
    problem = json.dumps({"code": "queue-full", "detail": "the queue is full\x1b[31m\u009b2J", "field": None}).encode()
    job = {"id": UNKNOWN, "state": "succeeded", "request": {"n": 1}, "images": [{"index": 0, "seed": "1", "sha256": "0" * 64}]}
    fake = Fake({"/html/jobs": (200, {}, b"<html>\x1b[31mhello</html>"), "/list/jobs": (200, {}, b"[]"), "/empty/jobs": (200, {}, b""),
                 "/moved/jobs": (302, {"Location": "http://127.0.0.1:1/jobs"}, b""), "/gateway/jobs": (502, {}, b"<html>bad gateway</html>"),
                 "/full/generate": (503, {"Retry-After": "17"}, problem), "/deep/jobs": (200, {}, b"[" * 5000),
                 f"/damaged/jobs/{UNKNOWN}": (200, {}, json.dumps(job).encode()), f"/damaged/jobs/{UNKNOWN}/images/0.png": (200, {}, b"\x89PNG\r\n\x1a\n"),
                 f"/ended/jobs/{UNKNOWN}/events": (204, {}, b""), f"/ended/jobs/{UNKNOWN}": (200, {}, json.dumps(dict(job, images=[])).encode()),
                 f"/evil/jobs/{UNKNOWN}": (200, {}, json.dumps(dict(job, id="../../evil", images=[{"index": 0}])).encode())})
    for path, words, status in [("html", ("jobs",), 76), ("list", ("jobs",), 76), ("empty", ("jobs",), 76), ("deep", ("jobs",), 76), ("moved", ("jobs",), 76),
                                ("gateway", ("jobs",), 75), ("nowhere", ("jobs",), 76), ("full", ("submit", "--class", "7"), 75), ("ended", ("watch", UNKNOWN), 0)]:
        done = client(f"{fake.url}/{path}", *words, status=status, DENOISED_API_KEY="k" * 20)
        check("k" * 20 not in done.stderr + text(done), "the key was printed")
        check(path != "full" or ("in 17 s" in done.stderr and "the queue is full?[31m?2J" in done.stderr), done.stderr)
    check(all(one.headers["Authorization"] == "Bearer " + "k" * 20 for one in fake.seen), "the key did not go out")
    folder = scratch("damaged")
    done = client(f"{fake.url}/damaged", "get", UNKNOWN, folder=folder, status=74)
    same((os.listdir(folder), "try again" in done.stderr), ([], True), "what is left of a damaged picture")
    client(f"{fake.url}/evil", "get", UNKNOWN, folder=folder, status=76)
    same(os.listdir(folder), [], "files")
    fake.shutdown()


@test
def a_bar_stands_below_every_preview():
    picture = base64.b64encode(png.png(8, 8, lambda x, y, c: 30 * x)).decode()
    preview = "event: preview\ndata: " + json.dumps({"index": 0, "png": picture}) + "\n\n"
    job = {"id": UNKNOWN, "state": "canceled", "request": {"n": 1}, "images": []}
    stream = ("id: 1\nevent: started\ndata: {}\n\nevent: progress\ndata: " + json.dumps({"fraction": 0.5, "eta_seconds": 61}) + "\n\n" + 3 * preview
              + "id: 2\nevent: canceled\ndata: " + json.dumps({"job": job}) + "\n\n")
    fake = Fake({f"/jobs/{UNKNOWN}/events": (200, {"Content-Type": "text/event-stream"}, stream.encode())})
    shown, status = Screen([PROGRAM, "watch", UNKNOWN, "--url", fake.url], COLORTERM="truecolor").end()
    same(status, 1, "the exit status")
    bar = rb"\x1b\[0m\r\n\rdenoising \[#{12}\.{12}\]  50 %, 1:01 left"
    same((len(re.findall(bar, shown)), shown.count(b"\x1b[20A")), (3, 3), "bars below previews, and redrawings")
    fake.shutdown()


@test
def what_became_of_a_cancel_is_told():
    fake = Fake({f"/{state}/jobs/{UNKNOWN}": (status, {}, json.dumps({"id": UNKNOWN, "state": state}).encode())
                 for state, status in (("canceled", 200), ("running", 202), ("failed", 200))})
    for state, said, status in (("canceled", "canceled", 0), ("running", "is being canceled", 0), ("failed", "had ended: failed", 1)):
        same(text(client(f"{fake.url}/{state}", "cancel", UNKNOWN, status=status)), f"{UNKNOWN} {said}\n", state)
    fake.shutdown()


run(__name__)
