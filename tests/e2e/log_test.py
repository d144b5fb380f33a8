"""The log: lines that machines read, one search for a job's story, traces that go on, and no secret in any line or answer."""
import contextlib
import http.client
import re

from harness import *  # noqa: F403
from receiver import SECRET, Receiver, daemon_for

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CANARY = "canary0123456789abcdef"  # in whatever is sent: a log or an answer that has it has what a client sent


def lines(daemon):
    """All lines so far that are whole, each an object with what every line has."""
    with open(daemon.log_path, encoding="utf8") as log:
        whole = [json.loads(line) for line in log.read().split("\n")[:-1]]
    for line in whole:
        check({"time", "level", "component", "message"} <= set(line), line)
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) and line["level"] in ("info", "warning", "error"), line)
    return whole


def line_of(daemon, answer):
    """The one line of a request; it is written when its answer has gone."""
    name = answer.headers["x-request-id"]
    found = eventually(lambda: [line for line in lines(daemon) if line.get("request_id") == name and line["component"] == "http"], what="a request's line")
    same(len(found), 1, f"lines of {name}")
    return found[0]


def story(daemon, job_id, last):
    """What the log says of a job, once it has said the last of it."""
    def told():
        found = [line for line in lines(daemon) if line.get("job") == job_id]
        return found if found and found[-1]["message"] == last else None
    return eventually(told, what=f"{last!r} of {job_id}")


def queued_event(daemon, job_id):
    return next(event["json"] for event in daemon.events(f"/jobs/{job_id}/events") if event["event"] == "queued")


@test
def every_line_is_json_and_every_request_has_one():
    with Daemon("--log-format", "json") as daemon:
        posted = daemon.post({"steps": 2})
        for answer, wanted in ((daemon.get("/models/tiny?x=1"), ("GET", "/models/tiny", "/models/{}", 200)), (daemon.call("PUT", "/jobs"), ("PUT", "/jobs", None, 405)),
                               (posted, ("POST", "/generate", "/generate", 202)), (daemon.get("/nothing"), ("GET", "/nothing", None, 404))):
            line = line_of(daemon, answer)
            same((line["method"], line["path"], line.get("route"), line["status"]), wanted, "the request")
            same((line["bytes"], line["client"]), (len(answer.body), "local"), "bytes and client")
            check(line["seconds"] >= 0 and "trace_id" not in line and "traceparent" not in answer.headers, "a trace was invented")
        daemon.wait(posted.json["id"])
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        eventually(lambda: any(line["component"] == "dispatcher" and "signal 9" in line["message"] for line in lines(daemon)), what="the worker's end")
        eventually(lambda: len([line for line in lines(daemon) if line["component"] == "worker" and "is in memory" in line["message"]]) == 2, what="the next worker")
        daemon.stop()
        check(any("draining" in line["message"] for line in lines(daemon)), "the drain")


@test
def why_it_does_not_start_is_json_too():
    done = subprocess.run([PROGRAM, "serve", "--log-format", "json", "--data", scratch("data"), "--model", "tiny=/nowhere"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    same((done.returncode, json.loads(done.stderr)["level"]), (78, "error"), "status and line")
    done = subprocess.run([PROGRAM, "serve", "--log-format", "xml", "--model", "tiny=/nowhere"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    same((done.returncode, done.stderr), (78, "denoised serve: --log-format must be text or json\n"), "another format")


@test
def what_is_said_on_standard_output_and_by_a_worker_that_fails_is_json_too():
    with Daemon("--log-format", "json") as daemon:
        ready = json.loads(daemon.ready_line)
        same((ready["component"], ready["message"], ready["url"], ready["model"]), ("serve", "ready", daemon.address, "tiny"), "the ready line")
        check({"time", "level", "device"} <= set(ready), ready)
        daemon.stop()
        same(b"".join(daemon.said), b"", "what else it prints")
    ours, its = socket.socketpair()
    with ours, its:
        ours.sendall(b"\xff" * 4096)
        command = [PROGRAM, "worker", "--fd", str(its.fileno()), "--log-format", "json", "--model", "tiny=/nowhere"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, pass_fds=[its.fileno()])
    said = [json.loads(line) for line in done.stderr.splitlines()]
    check(done.returncode not in (0, 64) and any((line["level"], line["component"]) == ("error", "worker") for line in said), f"{done.returncode}: {done.stderr}")


@test
def text_has_the_same_fields():
    with Daemon() as daemon:
        job = daemon.make(steps=2)
        found = eventually(lambda: [line for line in open(daemon.log_path, encoding="utf8") if f"job={job['id']} " in line and "job ended" in line], what="the end")
        check(re.fullmatch(r"\S+Z info jobs: job ended job=\S+ client=local model=tiny n=1 attempt=1 state=succeeded steps=2 seconds=\d+\.\d{6}\n", found[0]), found[0])
        answer = daemon.get("/samplers", traceparent=f"00-{TRACE}-{SPAN}-01")
        name = answer.headers["x-request-id"]
        line = eventually(lambda: [line for line in open(daemon.log_path, encoding="utf8") if name in line], what="a line")[0]
        check(re.fullmatch(rf"\S+Z info http: GET /samplers 200 route=/samplers bytes=\d+ seconds=\d+\.\d{{6}} client=local request_id={name} trace_id={TRACE}\n", line), line)


@test
def one_search_tells_a_jobs_story():
    with Daemon("--log-format", "json", program=FAULTS, environment={"DENOISED_FAULT": "step_k:1:slow20"}) as daemon:
        posted = daemon.post({"steps": 3, "n": 2})
        job = daemon.wait(posted.json["id"])
        told = story(daemon, job["id"], "job ended")
        same([line["message"] for line in told], ["job accepted", "job started", "job ended"], "the story")
        same([(line["client"], line["model"], line["n"], line["component"]) for line in told], [("local", "tiny", 2, "jobs")] * 3, "client, model, images")
        same(told[0]["request_id"], posted.headers["x-request-id"], "the request")
        same((told[1]["attempt"], told[2]["state"], told[2]["steps"]), (1, "succeeded", 6), "attempt, end, steps")
        check(told[1]["waited_seconds"] >= 0 and told[2]["seconds"] > 0 and "code" not in told[2], told)
        endless = daemon.post({"steps": 1000, "n": 64}).json["id"]
        waiting = daemon.post({"steps": 1000, "n": 64, "priority": -10}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{endless}").json["progress"]["done"] > 0, what="a first step")
        daemon.call("DELETE", f"/jobs/{waiting}")
        daemon.call("DELETE", f"/jobs/{endless}")
        same([story(daemon, one, "job ended")[-1]["state"] for one in (waiting, endless)], ["canceled"] * 2, "ends")
        late = daemon.post({"steps": 1000, "deadline_ms": 500}).json["id"]
        end = story(daemon, late, "job ended")[-1]
        same((end["state"], end["code"]), ("failed", "deadline"), "the end of a job that is too late")
        crashed = daemon.post({"steps": 1000}).json["id"]
        eventually(lambda: daemon.get(f"/jobs/{crashed}").json["progress"]["done"] > 0, what="a first step")
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        back = story(daemon, crashed, "job goes back to the queue")[-1]
        same((back["reason"], back["attempt"]), ("worker-crashed", 1), "why it goes back")
        eventually(lambda: [line["message"] for line in lines(daemon) if line.get("job") == crashed][-1] == "job started", what="its second start")
        daemon.call("DELETE", f"/jobs/{crashed}")


@test
def a_trace_goes_from_the_request_to_the_webhook():
    receiver = Receiver(500, 204)
    with daemon_for(receiver, more=("--log-format", "json")) as daemon:
        posted = daemon.post({"steps": 2, "webhook": f"http://127.0.0.1:{receiver.port}/"}, traceparent=f"00-{TRACE}-{SPAN}-01")
        job = posted.json["id"]
        check("traceparent" not in posted.headers, "an answer has a traceparent")
        same(line_of(daemon, posted)["trace_id"], TRACE, "the request's line")
        same([line["trace_id"] for line in story(daemon, job, "job ended")], [TRACE] * 3, "the job's lines")
        same(queued_event(daemon, job)["trace_id"], TRACE, "the event queued")
        eventually(lambda: len(receiver.received) == 2, what="two tries")
        headers = [headers["traceparent"] for _, _, headers, _ in receiver.received]
        found = [re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", header) for header in headers]
        check(all(found) and len({one[1] for one in found} | {SPAN, "0" * 16}) == 4, f"spans: {headers}")
        daemon.kill()  # the trace is the job's, not the process'
        daemon.start()
        same(queued_event(daemon, job)["trace_id"], TRACE, "after a restart")
    receiver.close()


@test
def a_malformed_trace_is_as_if_it_were_not_there():
    receiver = Receiver(204)
    with daemon_for(receiver, more=("--log-format", "json")) as daemon:
        for wrong in (f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01", "x"):
            answer = daemon.get("/samplers", traceparent=wrong)
            same(answer.status, 200, f"traceparent: {wrong}")
            check("trace_id" not in line_of(daemon, answer), wrong)
        head = f"GET /samplers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\ntraceparent: 00-{TRACE}-{SPAN}-01\r\ntraceparent: 00-{TRACE}-{SPAN}-01\r\n\r\n"
        out, _ = daemon.raw(head.encode())
        check(out.startswith(b"HTTP/1.1 200 "), out[:60])
        job = daemon.make(steps=1, webhook=f"http://127.0.0.1:{receiver.port}/")
        eventually(lambda: len(receiver.received) == 1, what="the delivery")
        check("traceparent" not in {name.lower() for name in receiver.received[0][2]}, "a trace was invented")
        same(set(queued_event(daemon, job["id"])), {"id", "queue_position"}, "the event queued")
        check(not any("trace_id" in line for line in lines(daemon)), "a trace in the log")
    receiver.close()


def canaries(key):
    """What is sent to every route: headers and a body, each with the canary somewhere."""
    json_type, bearer = {"Content-Type": "application/json"}, {"Authorization": key}
    broken = ('{"class_label": "%s' % CANARY).encode()
    body = json.dumps({CANARY + " ": CANARY, "model": CANARY, "prompt": CANARY, "class_label": CANARY, "image": CANARY, "init_image": CANARY, "seed": CANARY}).encode()
    yield {"Authorization": f"Bearer dn_aaaaaaaa_{CANARY}"}, None
    yield {"Authorization": f"Basic {CANARY}"}, None
    yield {**bearer, "X-Canary": CANARY, "Cookie": CANARY, "User-Agent": CANARY, "Referer": CANARY, "Accept": f"{CANARY}/x", "Prefer": CANARY, "Range": CANARY,
           "If-None-Match": CANARY, "Last-Event-ID": CANARY, "traceparent": CANARY, "tracestate": CANARY, "X-Forwarded-For": CANARY}, None
    yield {**bearer, "Host": CANARY}, None
    yield {**bearer, "Content-Type": CANARY}, b"{}"
    yield {**bearer, **json_type, "Idempotency-Key": CANARY}, b'{"steps": 0}'
    yield {**bearer, **json_type, "Idempotency-Key": CANARY + "\u00e9"}, b'{"steps": 0}'
    yield {**bearer, **json_type}, broken
    yield {**bearer, **json_type}, CANARY.encode()
    yield {**bearer, **json_type}, body
    for field in ("prompt", "class_label", "model", "sampler", "sampler_name", "seed", "webhook", "init_image", "image", "init_images", "user", "size"):
        yield {**bearer, **json_type}, json.dumps({field: CANARY}).encode()
    yield {**bearer, **json_type}, json.dumps({"webhook": f"https://user:{CANARY}@127.0.0.1/{CANARY}?token={CANARY}"}).encode()
    yield {**bearer, **json_type}, json.dumps({"init_image": base64.b64encode(b"\x89PNG\r\n\x1a\n" + CANARY.encode() * 9).decode(), "strength": 0.5}).encode()
    yield {**bearer, **json_type}, (CANARY * 150000).encode()


@test
def no_secret_is_in_a_line_or_an_answer():
    data, receiver = scratch("data"), Receiver(204)
    admin = subprocess.run([PROGRAM, "key", "add", "boss", "--scopes", "submit,read,read-all,admin,metrics", "--data", data], capture_output=True, text=True, check=True)
    key = "Bearer " + admin.stdout.strip()
    with daemon_for(receiver, more=("--log-format", "json"), data=data) as daemon:
        made = daemon.post({"steps": 1, "webhook": f"http://127.0.0.1:{receiver.port}/?token={CANARY}"}, Authorization=key).json
        eventually(lambda: len(receiver.received) == 1, what="the delivery")
        document, sent = daemon.get("/openapi.json").json, 0
        for pattern, methods in document["paths"].items():
            path = pattern.replace("{id}", "a" * 26).replace("{index}", "0").replace("{name}", "tiny").replace("{model}", "tiny")
            for method in [word.upper() for word in methods if word in ("get", "post", "delete", "put")] + ["PUT"]:
                for headers, body in canaries(key):
                    with contextlib.closing(daemon.connect()) as connection:
                        try:
                            connection.putrequest(method, f"{path}?{CANARY}={CANARY}&cursor={CANARY}&after={CANARY}&model={CANARY}", skip_host="Host" in headers)
                            for name, value in headers.items():
                                connection.putheader(name, value.encode("utf8"))
                            if body is not None:
                                connection.putheader("Content-Length", str(len(body)))
                            connection.endheaders()
                            if body is not None:
                                connection.send(body)
                        except (BrokenPipeError, ConnectionResetError):
                            pass  # refused before all of it was read
                        try:
                            answer = connection.getresponse()
                            head, text = str(answer.getheaders()), answer.read()
                        except (ConnectionError, http.client.HTTPException):
                            continue  # the same: what it said is lost with the connection
                    sent += 1
                    check(CANARY not in head and CANARY.encode() not in text, f"{method} {path} answers {answer.status} with what it was sent: {str(headers)[:80]} {str(body)[:80]}")
        check(sent > 300, f"only {sent} requests were answered")
        broken = f"GET /{CANARY}%0g HTTP/1.1\r\nHost: localhost\r\n\r\n"
        check(CANARY.encode() not in daemon.raw(broken.encode())[0], "a broken target is answered with itself")
        daemon.stop()
        with open(daemon.log_path, encoding="utf8", errors="replace") as log:
            text = log.read()
        check(CANARY not in text, f"in the log: {text[max(0, text.find(CANARY) - 300):text.find(CANARY) + 60]}")
        for name, secret in (("key", key[7:]), ("webhook secret", SECRET.decode())):
            check(secret not in text and secret[12:] not in text, f"the {name} is in the log")
        check(len(lines(daemon)) > 300, "lines")
    receiver.close()


run(__name__)
