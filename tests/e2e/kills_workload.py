"""Clients that know what they were told: a seeded load for a daemon that is killed under it, written down in a ledger.

Pictures are few and known, so that each one made under kills can be compared with the same one made in peace.
"""
import contextlib
import hashlib
import http.client
import json
import random
import threading
import time

from harness import PATIENCE, UnixConnection, base64, read_events
from ledger import Ledger
from png import png

CLIENTS = 3
PENDING_MAX = 24  # jobs that may wait or run, as far as the clients know


PICTURE = base64.b64encode(png(8, 8, lambda x, y, c: 21 * x + 7 * c + 31 * y)).decode()
BROKEN = base64.b64encode(png(8, 8, lambda x, y, c: 0, packed=b"\x78\x9c\x01")).decode()  # its rows end at once: only the worker finds out
SHORT = [{"steps": 2 + i, "n": 1 + i % 3, "seed": str(100 + i), "class_label": i, "sampler": ("ddim", "dpmpp_2m", "ddpm")[i % 3]} for i in range(9)]
LONG = [{"steps": 150, "n": 2, "seed": str(200 + i), "class_label": i, "sampler": ("ddim", "dpmpp_2m")[i % 2]} for i in range(4)]
# It goes before all others: whoever waits for its first step waits for nothing else.
VERY_LONG = {"steps": 1000, "n": 2, "seed": "250", "class_label": 4, "sampler": "ddim", "priority": 10}
DRAWN = [{"steps": 10 + i, "n": 1, "seed": str(300 + i), "class_label": i, "sampler": "ddim", "init_image": PICTURE, "strength": 0.5} for i in range(3)]
FAILING = {"steps": 5, "n": 1, "seed": "400", "class_label": 1, "sampler": "ddim", "init_image": BROKEN, "strength": 0.5}

# How often each action is taken: usually, and where the fault to come is about it.
USUAL = {"post": 40, "array": 6, "long": 3, "drawn": 6, "failing": 2, "cancel": 4, "purge": 3, "poll": 16, "events": 8, "picture": 6, "list": 2}
FAVOURED = {"fail": {"failing": 40}, "cancel": {"cancel": 30, "long": 20}, "canceled": {"cancel": 40, "long": 30}, "purge": {"purge": 40},
            "input": {"drawn": 40}, "snapshot": {"long": 30}, "worker_snapshot": {"long": 30}, "checkpoint": {"post": 200}, "step": {"long": 5},
            "after_insert": {"array": 30}}


def favoured(point):
    weights = dict(USUAL)
    for beginning, more in FAVOURED.items():
        if point and point.startswith(beginning + "_"):
            weights.update(more)
    return weights


def spec_name(request):
    """What makes a stored request's pictures what they are, as a dictionary's key."""
    return request["class_label"], request["steps"], request["sampler"], request["seed"], bool(request.get("init_image"))


def undisturbed(daemon):
    """{(spec, index): SHA-256 of its PNG}, from a daemon that nobody disturbs."""
    pictures = {}
    for spec in [*SHORT, *LONG, VERY_LONG, *DRAWN]:
        job = daemon.make(**spec)
        for image in job["images"]:
            digest = hashlib.sha256(daemon.image(job["id"], image["index"])).hexdigest()
            pictures[spec_name(spec), image["index"]] = digest
    return pictures


class Trouble(Exception):
    """An answer that must not be, whatever is killed."""


class Workload:
    """The clients of one data directory, over all its restarts. Threads live within run() only."""

    def __init__(self, seed, socket_path):
        self.seed, self.path, self.rounds = seed, socket_path, 0
        self.ledger = Ledger()
        self.lock = threading.Lock()  # all below, and the ledger
        self.retries = []  # asks with a key whose outcome is unknown
        self.jobs = {}  # id: {"ended", "gone", "spec"}
        self.milestones = {}  # (id, seq): what a stream said
        self.digests = {}  # url: SHA-256
        self.troubles = []
        self.next_key = 0

    def run(self, over, point=None, clients=CLIENTS):
        """Talks until over() or until the daemon is gone for good (over() says so too)."""
        self.rounds += 1
        threads = [threading.Thread(target=self._client, args=(number, over, favoured(point)), daemon=True) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.troubles:
            raise Trouble("; ".join(self.troubles[:3]))

    def pending(self):
        """Jobs that may wait or run. One that a client has tried to purge is asked about no more, so that its end would never be heard of: it
        does not count. What is in doubt may be there."""
        with self.lock:
            known = sum(1 for job in self.jobs.values() if not job["ended"] and not job["gone"])
            return known + sum(len(ask.jobs) for ask in self.retries)

    def settle_doubts(self):
        """Sends again what may or may not have been taken, until each is answered."""
        end = time.monotonic() + PATIENCE
        while self.retries:
            if time.monotonic() > end:
                raise Trouble(f"{len(self.retries)} asks are never answered")
            try:
                self._retry(random.Random(0))
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)

    # ---- single asks, for a test that needs one

    def send(self, spec):
        """The id of a new job, asked for until it is accepted."""
        with self.lock:
            self.next_key += 1
            ask = self.ledger.ask([spec], f"key-{self.next_key}")
        while not ask.ids:
            asked = time.monotonic()
            self._answered(ask, *self._call("POST", "/generate", json.dumps(spec), Idempotency_Key=ask.key), asked)
        return ask.ids[0]

    def purge(self, job_id):
        try:
            self._purge_one(job_id)
        except (OSError, http.client.HTTPException):
            pass

    # ---- one client

    def _client(self, number, over, weights):
        rng = random.Random(f"{self.seed} {self.rounds} {number}")
        names, shares = list(weights), list(weights.values())
        while not over():
            action = rng.choices(names, shares)[0]
            if action in ("post", "array", "long", "drawn", "failing") and self.pending() >= PENDING_MAX:
                action = "poll"
            if self.retries and rng.random() < 0.5:
                action = "retry"
            try:
                getattr(self, "_" + action)(rng)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                time.sleep(0.002)  # it is gone, or not there yet
            except Exception as error:  # noqa: BLE001 - told by run()
                with self.lock:
                    self.troubles.append(f"{action}: {type(error).__name__}: {error}")
                return

    def _call(self, method, path, body=None, **headers):
        """(status, headers, body). A connection that breaks raises OSError or HTTPException: the outcome is unknown."""
        with contextlib.closing(UnixConnection(self.path, PATIENCE)) as connection:
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    # ---- asking

    def _new_ask(self, rng, jobs, end="succeeded"):
        with self.lock:
            self.next_key += 1
            key = f"key-{self.next_key}" if rng.random() < 0.7 else None
            return self.ledger.ask(jobs, key, end=end)

    def _post(self, rng):
        self._send(rng, self._new_ask(rng, [rng.choice(SHORT)]))

    def _long(self, rng):
        self._send(rng, self._new_ask(rng, [rng.choice(LONG)]))

    def _drawn(self, rng):
        self._send(rng, self._new_ask(rng, [rng.choice(DRAWN)]))

    def _failing(self, rng):
        self._send(rng, self._new_ask(rng, [FAILING], end="failed"))

    def _array(self, rng):
        self._send(rng, self._new_ask(rng, [rng.choice(SHORT) for _ in range(rng.randint(2, 5))]), array=True)

    def _retry(self, rng):
        with self.lock:
            if not self.retries:
                return
            ask = self.retries.pop(0)
        self._send(rng, ask, array=len(ask.jobs) > 1)

    def _send(self, rng, ask, array=False):
        """One try. What is in doubt afterwards and has a key is put down for a retry."""
        headers = {"Idempotency_Key": ask.key} if ask.key else {}
        form = rng.random()
        if not array and ask.jobs[0]["n"] == 1 and form < 0.15:
            headers["Accept"] = "image/png"
        elif not array and form < 0.3:
            headers["Accept"] = "text/event-stream"
        elif form < 0.5:
            headers["Prefer"] = "wait=2"
        body = json.dumps(ask.jobs if array else ask.jobs[0])
        answered = False
        try:
            if headers.get("Accept") == "text/event-stream":
                self._stream("POST", "/generate", body, headers, ask)
            elif ask.key and form > 0.95:  # nobody waits for this answer
                self._shout(body, headers)
                raise ConnectionError("closed before the answer")
            else:
                asked = time.monotonic()
                self._answered(ask, *self._call("POST", "/generate", body, **headers), asked)
            answered = ask.ids is not None or ask.no
        finally:
            with self.lock:
                if not answered:
                    ask.doubt()
                if ask.key and not ask.ids and not (ask.no and not ask.doubts):
                    self.retries.append(ask)

    def _shout(self, body, headers):
        connection = UnixConnection(self.path, PATIENCE)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/generate", body, {**headers, "Content-Type": "application/json"})
        connection.close()

    def _answered(self, ask, status, headers, body, asked):
        problem = headers.get("content-type", "").startswith("application/problem+json")
        code = json.loads(body)["code"] if problem else ""
        ids = None
        if status in (200, 202) and headers.get("content-type", "").startswith("application/json"):
            told = json.loads(body)
            told = told if isinstance(told, list) else told.get("jobs", [told])
            ids = [job["id"] for job in told]
            for job in told:
                self._saw(job, asked)
        elif "location" in headers and status in (200, 202, 409, 500):
            ids = [headers["location"].rsplit("/", 1)[1]]
        elif code in ("loading", "draining", "quota"):
            ask.refuse()
        elif code not in ("outcome-unknown", "queue-full"):
            raise Trouble(f"an ask was answered {status} {code}")
        if ids:
            self._accepted(ask, ids, headers.get("idempotency-replayed") == "true")

    def _accepted(self, ask, ids, replayed):
        with self.lock:
            ask.accept(ids, replayed)
            for job_id in ids:
                self.jobs.setdefault(job_id, {"ended": False, "gone": False})

    def _saw(self, job, asked):
        """A state that an answer told; asked: when its question was sent. What was under way then may have ended before the answer is read."""
        with self.lock:
            known = self.jobs.setdefault(job["id"], {"ended": False, "gone": False})
            ended = job["state"] in ("succeeded", "failed", "canceled")
            overtaken = not ended and known.get("ended_at", asked) >= asked
            if not overtaken and not self.ledger.saw(job["id"], job["state"]):
                raise Trouble(f"job {job['id']} had {self.ledger.ends[job['id']]}, now it is {job['state']}")
            if ended and not known["ended"]:
                known["ended"], known["ended_at"] = True, time.monotonic()

    # ---- asking about

    def _pick(self, rng, pending=None):
        with self.lock:
            ids = [job_id for job_id, job in self.jobs.items() if not job["gone"] and (pending is None or job["ended"] != pending)]
            return rng.choice(ids[-40:]) if ids else None

    def _gone(self, job_id):
        with self.lock:
            return self.jobs[job_id]["gone"]

    def _poll(self, rng):
        job_id = self._pick(rng, pending=True if rng.random() < 0.8 else None)
        if not job_id:
            return
        headers, asked = {"Prefer": "wait=1"} if rng.random() < 0.3 else {}, time.monotonic()
        status, _, body = self._call("GET", f"/jobs/{job_id}", **headers)
        if status in (200, 202):
            self._saw(json.loads(body), asked)
        elif status != 503 and not self._gone(job_id):
            raise Trouble(f"GET of job {job_id}, which was acknowledged: {status}")

    def _list(self, rng):
        asked = time.monotonic()
        status, _, body = self._call("GET", f"/jobs?limit={rng.randint(1, 100)}")
        if status not in (200, 503):  # 503: it is about to stop
            raise Trouble(f"the list was answered {status}")
        for job in json.loads(body)["jobs"] if status == 200 else []:
            if job["id"] in self.jobs:
                self._saw(job, asked)

    def _picture(self, rng):
        """A picture that was told of stays, with the same bytes."""
        job_id = self._pick(rng, pending=False)
        if not job_id:
            return
        status, _, body = self._call("GET", f"/jobs/{job_id}")
        for image in json.loads(body)["images"] if status == 200 else []:
            status, _, png = self._call("GET", image["url"])
            digest = hashlib.sha256(png).hexdigest()
            if status == 200 and digest != image["sha256"]:
                raise Trouble(f"{image['url']} is not what the job says")
            if status not in (200, 503) and not self._gone(job_id):
                raise Trouble(f"{image['url']}: {status}")
            with self.lock:
                if status == 200 and self.digests.setdefault(image["url"], digest) != digest:
                    raise Trouble(f"{image['url']} has changed")

    def _cancel(self, rng):
        job_id = self._pick(rng, pending=True)
        if not job_id:
            return
        with self.lock:
            self.ledger.cancel(job_id)
        asked = time.monotonic()
        status, _, body = self._call("DELETE", f"/jobs/{job_id}")
        if status not in (200, 202):
            if status != 503 and not self._gone(job_id):
                raise Trouble(f"the cancel of job {job_id} was answered {status}")
            return
        job = json.loads(body)
        with self.lock:
            self.ledger.cancel(job_id, status == 202 or job["state"] == "canceled")
        self._saw(job, asked)

    def _purge(self, rng):
        job_id = self._pick(rng)
        if job_id:
            self._purge_one(job_id)

    def _purge_one(self, job_id):
        with self.lock:
            self.jobs[job_id]["gone"] = True
            self.ledger.purge(job_id)
        status, _, body = self._call("DELETE", f"/jobs/{job_id}?purge=1")
        if status in (200, 202):
            with self.lock:
                self.ledger.purge(job_id, True)
                self.jobs[job_id]["ended"] = True

    # ---- event streams

    def _events(self, rng):
        job_id = self._pick(rng)
        if not job_id:
            return
        with self.lock:
            last = max([seq for one, seq in self.milestones if one == job_id], default=0)
        after = rng.randint(0, last)
        self._stream("GET", f"/jobs/{job_id}/events?previews=0", None, {"Last_Event_ID": str(after)} if after else {}, None, job_id, after,
                     rng.randint(1, 8))

    def _stream(self, method, path, body, headers, ask, job_id=None, after=0, most=4):
        connection, asked = UnixConnection(self.path, PATIENCE), time.monotonic()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {**headers, **({"Content-Type": "application/json"} if body else {})})
        heard = []

        def enough(event):
            heard.append(event)
            if "id" in event:
                self._milestone(job_id, int(event["id"]), event["event"], event["data"])
            return len(heard) >= most

        answer = _Peek(connection)
        if ask is not None:
            if answer.status != 200:
                self._answered(ask, answer.status, answer.headers_lower, answer.read(), asked)
                connection.close()
                return
            job_id = answer.headers_lower["location"].rsplit("/", 1)[1]
            self._accepted(ask, [job_id], answer.headers_lower.get("idempotency-replayed") == "true")
        elif answer.status not in (200, 204, 503) and not self._gone(job_id):
            raise Trouble(f"the events of job {job_id}: {answer.status}")
        if answer.status == 200:
            with contextlib.suppress(OSError, http.client.HTTPException):
                read_events(answer, enough)
        connection.close()
        numbers = [int(event["id"]) for event in heard if "id" in event]
        if numbers and numbers != list(range(after + 1, after + 1 + len(numbers))):
            raise Trouble(f"the events of job {job_id} after {after} are numbered {numbers}")

    def _milestone(self, job_id, seq, name, data):
        with self.lock:
            if self.milestones.setdefault((job_id, seq), (name, data)) != (name, data):
                raise Trouble(f"event {seq} of job {job_id} was {self.milestones[job_id, seq][0]}, now it is {name}")


class _Peek:
    """A connection whose answer's head has been read; read_events takes it as a connection."""

    def __init__(self, connection):
        self.connection, self.answer = connection, connection.getresponse()
        self.status = self.answer.status
        self.headers_lower = {name.lower(): value for name, value in self.answer.getheaders()}

    def getresponse(self):
        return self.answer

    def read(self):
        return self.answer.read()

    def close(self):
        self.connection.close()
