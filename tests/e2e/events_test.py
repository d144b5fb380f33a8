"""The event stream: milestones with ids, progress and previews without, replay, refusals, limits."""
from harness import *  # noqa: F403

daemon = Daemon()


def start(**body):
    answer = daemon.post(body)
    same(answer.status, 202, "status")
    return answer.json["id"]


@test
def a_finished_job_replays_its_milestones_verbatim():
    job = start(steps=3, n=2, seed=1)
    daemon.wait(job)
    first = daemon.events(f"/jobs/{job}/events")
    second = daemon.events(f"/jobs/{job}/events")
    milestones = [(e["id"], e["event"], e["data"]) for e in first if "id" in e]
    same([e[1] for e in milestones], ["queued", "started", "image", "image", "succeeded"], "milestones")
    same([(e["id"], e["event"], e["data"]) for e in second if "id" in e], milestones, "the second replay")
    same(first[-1]["json"]["job"]["state"], "succeeded", "the last event's job")
    same(first[0].get("retry"), "2000", "the retry line")


@test
def a_stream_goes_on_where_it_was():
    job = start(steps=2, n=3, seed=1)
    daemon.wait(job)
    whole = [e["id"] for e in daemon.events(f"/jobs/{job}/events") if "id" in e]
    for after in whole[:-1]:
        rest = [e["id"] for e in daemon.events(f"/jobs/{job}/events", {"Last-Event-ID": after}) if "id" in e]
        same(rest, whole[whole.index(after) + 1:], f"after {after}")
        rest = [e["id"] for e in daemon.events(f"/jobs/{job}/events?after={after}") if "id" in e]
        same(rest, whole[whole.index(after) + 1:], f"?after={after}")
    same(daemon.get(f"/jobs/{job}/events", Last_Event_ID=whole[-1]).status, 204, "at the end")
    for bad in ("99", "x", "-1", "1.5", "9" * 30, ""):
        answer = daemon.get(f"/jobs/{job}/events", Last_Event_ID=bad)
        same((answer.status, answer.json["code"]), (400, "bad-event-id"), f"id {bad!r}")


@test
def progress_and_previews_arrive_while_it_runs():
    with Daemon(**paced(5)) as slow:  # ten seconds and more: it is listened to long before its end
        job = slow.post({"steps": 1000, "n": 24, "seed": 1}).json["id"]
        events = slow.events(f"/jobs/{job}/events")
    names = [event["event"] for event in events]
    check("progress" in names, names)
    check("preview" in names, names)
    progress = [event["json"] for event in events if event["event"] == "progress"]
    check(all(a["done"] <= b["done"] for a, b in zip(progress, progress[1:])), "progress goes back")
    check(all(0 <= p["fraction"] <= 1 and p["total"] == 24000 for p in progress), progress[:3])
    for event in events:
        check(("id" in event) == (event["event"] in ("queued", "started", "image", "requeued", "succeeded", "failed", "canceled")), event["event"])
        if event["event"] == "preview":
            same(png_size(base64.b64decode(event["json"]["png"])), (event["json"]["width"], event["json"]["height"]), "preview size")
    same(names[-1], "succeeded", "the last event")


@test
def previews_can_be_left_out():
    job = start(steps=300, n=2, seed=1)
    check("preview" not in [event["event"] for event in daemon.events(f"/jobs/{job}/events?previews=0")], "a preview came")


@test
def an_end_that_a_client_asks_for_ends_its_stream():
    job = start(steps=2, seed=1)
    daemon.wait(job)
    events = []
    with Daemon(**paced()) as slow:
        running = slow.post({"steps": 1000, "n": 8, "seed": 1}).json["id"]
        reader = threading.Thread(target=lambda: events.extend(slow.events(f"/jobs/{running}/events?previews=0")))
        reader.start()
        eventually(lambda: slow.get(f"/jobs/{running}").json["state"] == "running", what="it runs")
        slow.call("DELETE", f"/jobs/{running}")
        reader.join(PATIENCE)
    same(events[-1]["event"], "canceled", "the last event")


@test
def a_waiting_job_is_told_its_position():
    jobs = [start(steps=1000, n=64, seed=i) for i in range(8)]
    eventually(lambda: (daemon.get(f"/jobs/{jobs[-1]}").json["queue_position"] or 0) >= 3, what="a queue")
    events = []
    reader = threading.Thread(target=lambda: daemon.events(f"/jobs/{jobs[-1]}/events", until=events.append))
    reader.start()

    def told():
        return [event["json"]["queue_position"] for event in events if event["event"] == "position"]

    first = eventually(told, what="the first position")[-1]
    for job in jobs[-3:-1]:
        daemon.call("DELETE", f"/jobs/{job}")
    eventually(lambda: told()[-1] <= first - 2, what="a later position")
    check("eta_seconds" in [event for event in events if event["event"] == "position"][-1]["json"], "eta")
    for job in jobs[::-1]:
        daemon.call("DELETE", f"/jobs/{job}")
    reader.join(PATIENCE)
    same(told(), sorted(told(), reverse=True), "positions")
    same(events[-1]["event"], "canceled", "the last event")


@test
def unknown_jobs_have_no_stream():
    same(daemon.get("/jobs/" + "a" * 26 + "/events").status, 404, "status")


@test
def a_reader_that_leaves_hurts_nobody():
    job = start(steps=500, n=4, seed=1)
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", daemon.port))
        connection.sendall(f"GET /jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connection.recv(100)
        connection.close()
    same(daemon.wait(job)["state"], "succeeded", "state")


@test
def a_client_has_at_most_one_hundred_streams():
    jobs = [start(steps=1000, n=64, seed=1) for _ in range(8)]
    job = jobs[-1]  # it waits behind the others, and ends no stream
    streams = []
    for _ in range(100):
        connection = socket.create_connection(("127.0.0.1", daemon.port))
        connection.sendall(f"GET /jobs/{job}/events?previews=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        check(b" 200 " in connection.recv(20), "a stream was refused too early")
        streams.append(connection)
    answer = daemon.get(f"/jobs/{job}/events")
    same((answer.status, answer.json["code"]), (429, "quota"), "stream 101")
    check("retry-after" in answer.headers, "Retry-After")
    rows = daemon.jobs_in_store()
    answer = daemon.post({"steps": 1}, Accept="text/event-stream")
    same((answer.status, answer.json["code"], daemon.jobs_in_store()), (429, "quota", rows), "a job whose stream has no room")
    same(daemon.get("/healthz").status, 200, "health")
    for connection in streams:
        connection.close()
    for job in jobs[::-1]:
        daemon.call("DELETE", f"/jobs/{job}")
    daemon.wait(jobs[0])


run(__name__)
