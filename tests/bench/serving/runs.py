"""The single measurements: a full queue, Poisson arrivals, cancels under load, a newcomer beside a client with a long queue."""
import calendar
import random
import time

from client import Client
from machine import Usage, counters, quantile
from traffic import rows_of

ETA_EVERY = 0.2  # seconds between two looks at the ETA of a random job
ETA_LEAST = 0.25  # seconds still to go below which a relative error says nothing


def epoch(text):
    """Seconds of a time as the API writes it."""
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) + float(text[19:-1])


def scrape(client):
    return counters(client.ask("GET", "/metrics").body.decode())


def accepted(answer, count=None):
    if answer.status != 202:
        raise RuntimeError(f"not accepted: {answer.status} {answer.body[:300]}")
    jobs = answer.json["jobs"] if count is not None else [answer.json]
    return jobs


def post_all(client, requests):
    """Queues them in arrays; their ids."""
    ids = []
    for first in range(0, len(requests), 64):
        ids += [job["id"] for job in accepted(client.ask("POST", "/generate", requests[first:first + 64]), 64)]
    return ids


def wait_all(client, ids, state="succeeded"):
    """The jobs, once all have ended."""
    ended = []

    def look(job_id):
        client.call(lambda answer: take(job_id, answer), "GET", f"/jobs/{job_id}", wait=300)

    def take(job_id, answer):
        job = answer.json
        if job["state"] in ("queued", "running"):
            look(job_id)
        elif job["state"] != state:
            raise RuntimeError(f"job {job_id}: {job['state']}: {job['error']}")
        else:
            ended.append(job)
    for first in range(0, len(ids), 32):
        for job_id in ids[first:first + 32]:
            look(job_id)
        client.run(lambda f=first: len(ended) >= min(f + 32, len(ids)))
    return ended


def full_queue(daemon, requests):
    """Rows a second while jobs wait: neither the start nor the emptying at the end counts."""
    client, seen = Client(daemon.port), []
    ids = post_all(client, requests)

    def look():
        client.call(take, "GET", "/metrics")

    def take(answer):
        found = counters(answer.body.decode())
        seen.append((time.monotonic(), found["denoised_network_rows_total"], found["denoised_queue_depth"]))
        client.at(time.monotonic() + 0.1, look)
    look()
    client.run(lambda: len(seen) > 3 and seen[-1][2] == 0)
    busy = [one for one in seen[2:] if one[2] > 0]
    if len(busy) < 2:  # too few jobs to tell their middle from their ends
        busy = seen
    wait_all(client, ids)
    client.close()
    (t0, rows0, _), (t1, rows1, _) = busy[0], busy[-1]
    return (rows1 - rows0) / (t1 - t0)


class Poisson:
    """One run: requests[i] at times[i] seconds after the start, each followed to its end on a connection of its own."""

    def __init__(self, daemon, pids, requests, times, seed):
        self.daemon, self.pids, self.requests, self.times = daemon, pids, requests, times
        self.draws, self.latencies, self.open, self.looks = random.Random(seed), [], {}, []

    def measure(self):
        self.client = client = Client(self.daemon.port)
        before, usage = scrape(client), Usage(self.pids)
        began = time.monotonic() + 0.05
        for request, due in zip(self.requests, self.times):
            client.at(began + due, self.send, request, began + due)
        client.at(began + ETA_EVERY, self.look)
        client.run(lambda: len(self.latencies) == len(self.requests))
        shares, after = usage.shares(), scrape(client)
        client.close()
        return self.summary(shares, {name: after[name] - before[name] for name in before if name in after})

    def send(self, request, due):
        self.client.call(lambda answer: self.take(answer, due), "POST", "/generate", request)

    def take(self, answer, due):
        job = accepted(answer)[0]
        self.open[job["id"]] = []
        self.note(job["id"], job, "accepted")
        self.follow(job["id"], due)

    def follow(self, job_id, due):
        self.client.call(lambda answer: self.end(job_id, answer, due), "GET", f"/jobs/{job_id}", wait=300)

    def end(self, job_id, answer, due):
        job = answer.json
        if job["state"] in ("queued", "running"):
            self.follow(job_id, due)
            return
        if job["state"] != "succeeded":
            raise RuntimeError(f"job {job_id}: {job['state']}: {job['error']}")
        self.latencies.append(time.monotonic() - due)
        self.looks += [(when, told, epoch(job["finished_at"]) - at) for when, told, at in self.open.pop(job_id)]

    def look(self):
        """At the ETA of any job that is not done."""
        if self.open:
            job_id = self.draws.choice(sorted(self.open))
            self.client.call(lambda answer: self.note(job_id, answer.json, answer.json["state"]), "GET", f"/jobs/{job_id}")
        self.client.at(time.monotonic() + ETA_EVERY, self.look)

    def note(self, job_id, job, when):
        if job_id in self.open and job["state"] in ("queued", "running"):
            self.open[job_id].append((when, job["eta_seconds"], time.time()))

    def summary(self, shares, counted):
        images = len(self.latencies)
        ticks = counted["denoised_ticks_total"] or 1
        rows = counted["denoised_network_rows_total"]
        foretold = sum(rows_of(request) for request in self.requests)
        if rows != foretold:
            raise RuntimeError(f"{rows:.0f} rows were run, {foretold} were foretold")
        return {"images": images, "seconds": shares["seconds"], "images_per_second": images / shares["seconds"],
                "latency": {name: quantile(self.latencies, share) for name, share in (("p50", .5), ("p95", .95), ("p99", .99))},
                "admission_seconds": counted["denoised_admission_wait_seconds_sum"] / images,
                "rows_per_tick": rows / ticks, "tick_ms": 1000 * counted["denoised_tick_seconds_sum"] / ticks,
                "eta": {when: eta_errors(self.looks, when) for when in ("accepted", "queued", "running")}, "shares": shares}


def eta_errors(looks, when):
    """Relative errors of what was told, where it was told and something was to come."""
    of_kind = [(told, truth) for kind, told, truth in looks if kind == when and truth >= ETA_LEAST]
    errors = [abs(told - truth) / truth for told, truth in of_kind if told is not None]
    return {"looks": len(of_kind), "unknown": len(of_kind) - len(errors), "errors": errors}


def cancels(daemon, request, count):
    """Cancels running jobs one by one while the batch is full and others wait: [(seconds until it is canceled, ticks meanwhile)], and the
    seconds of a tick."""
    client, found = Client(daemon.port), []
    ids = post_all(client, [dict(request, seed=i) for i in range(count + 96)])
    before = scrape(client)
    client.at(time.monotonic() + 1.0, found.append, None)
    client.run(lambda: found)
    found.clear()
    while len(found) < count:
        running = [job["id"] for job in client.ask("GET", "/jobs?state=running&limit=100").json["jobs"]]
        if not running:
            raise RuntimeError("nothing runs that could be canceled")
        ticks, began = scrape(client)["denoised_ticks_total"], time.monotonic()
        answer = client.ask("DELETE", f"/jobs/{running[len(running) // 2]}")
        if answer.status != 202:
            continue
        state = client.ask("GET", f"/jobs/{running[len(running) // 2]}", wait=60).json["state"]
        took = time.monotonic() - began
        if state == "canceled":
            found.append((took, scrape(client)["denoised_ticks_total"] - ticks))
    after = scrape(client)
    tick = (after["denoised_tick_seconds_sum"] - before["denoised_tick_seconds_sum"]) / (after["denoised_ticks_total"] - before["denoised_ticks_total"])
    for job_id in ids:
        client.call(lambda answer: None, "DELETE", f"/jobs/{job_id}")
    client.run(lambda: len(client.idle) == len(client.selector.get_map()))  # nothing is in the air
    client.close()
    return found, tick


def newcomer(daemon, secrets, flood, request, rounds):
    """secrets: of two clients. The first keeps 1,000 jobs waiting (what a client may); the second posts one now and then. Returns the
    second's latencies alone, its latencies beside the other with the wait for its start, how long a job of the other's takes from start to
    end, and how many jobs waited on average."""
    crowd, one = Client(daemon.port, secrets[0]), Client(daemon.port, secrets[1])

    def first_image(seed):
        began = time.monotonic()
        job_id = accepted(one.ask("POST", "/generate", dict(request, seed=seed)))[0]["id"]
        job = wait_all(one, [job_id])[0]
        return time.monotonic() - began, epoch(job["started_at"]) - epoch(job["created_at"])
    alone = [first_image(i)[0] for i in range(rounds)]
    ids, beside, depths = [], [], []
    for i in range(rounds):
        room = 1000 - int(scrape(crowd)["denoised_queue_depth"]) - 64
        ids += post_all(crowd, [dict(flood, seed=len(ids) + k) for k in range(max(0, room // 64 * 64))])
        depths.append(scrape(crowd)["denoised_queue_depth"])
        beside.append(first_image(i))
    ended = crowd.ask("GET", "/jobs?state=succeeded&limit=100").json["jobs"]
    own = [epoch(job["finished_at"]) - epoch(job["started_at"]) for job in ended]
    crowd.close()
    one.close()
    return alone, beside, own, depths
