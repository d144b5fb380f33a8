"""The soak's clients: jobs that arrive at random, with keys, arrays, cancels, purges and event streams, all in the ledger."""
import http.client
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import harness  # noqa: E402
from ledger import Ledger  # noqa: E402

ENDED = ("succeeded", "failed", "canceled")
WATCHED_MAX = 16  # streams at a time


class Load:
    """daemon: a harness.Daemon that may be restarted meanwhile. Any arrival is one task of a pool; the ledger knows every ask."""

    def __init__(self, daemon, seed):
        self.daemon, self.dice, self.ledger = daemon, random.Random(seed), Ledger()
        self.pool, self.watching = ThreadPoolExecutor(48), threading.Semaphore(WATCHED_MAX)
        self.rate, self.stopping, self.number, self.model = 0.0, False, 0, "tiny"
        self.accepted = self.refused = self.cut_streams = 0
        self.faults = []  # what a client saw that no fault excuses
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.arrive, daemon=True)

    # ---- Arrivals

    def job(self):
        self.number += 1
        body = {"model": self.model, "class_label": self.dice.randrange(10), "steps": self.dice.choice((2, 5, 10, 20)), "seed": self.number,
                "guidance_scale": self.dice.choice((1, 2))}
        if self.dice.random() < 0.2:
            body["n"] = self.dice.randint(2, 4)
        return body

    def start(self, rate):
        self.rate = rate
        self.thread.start()

    def arrive(self):
        """Poisson arrivals at self.rate a second."""
        at = time.monotonic()
        while not self.stopping:
            at += self.dice.expovariate(self.rate)
            time.sleep(max(0.0, at - time.monotonic()))
            at = max(at, time.monotonic() - 1)  # what could not arrive while this program was held up is not made up for
            jobs = [self.job() for _ in range(self.dice.choice((1, 1, 1, 1, 3)))]
            key = f"soak-{self.number}" if self.dice.random() < 0.5 else None
            after = self.dice.choice(("watch", "watch", "cancel", "purge") + ("leave",) * 6)
            self.pool.submit(self.guarded, self.client, jobs, key, after)

    def guarded(self, function, *arguments):
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - a client's own error must not be lost in the pool
            self.faults.append(f"{function.__name__}: {type(error).__name__}: {error}")

    def stop(self):
        self.stopping = True
        self.thread.join()
        self.pool.shutdown(wait=True)

    # ---- One client

    def call(self, method, path, body=None, **headers):
        """The answer; None: nothing came back, and it may have been heard; False: it was not sent."""
        try:
            return self.daemon.call(method, path, body, **headers)
        except ConnectionRefusedError:
            return False
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def client(self, jobs, key, after):
        with self.lock:
            ask = self.ledger.ask(jobs, key)
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.call("POST", "/generate", jobs if len(jobs) > 1 else jobs[0], **headers)
        while not self.note(ask, answer) and key:
            time.sleep(0.3)
            answer = self.call("POST", "/generate", jobs if len(jobs) > 1 else jobs[0], **headers)
        if not ask.ids or after == "leave":
            return
        if after == "watch" and self.watching.acquire(blocking=False):
            try:
                self.watch(ask.ids[0])
            finally:
                self.watching.release()
        elif after in ("cancel", "purge"):
            self.drop(ask.ids[0], after)

    def note(self, ask, answer):
        """Writes down what came back; False: the outcome is in doubt."""
        if answer is False:
            return not ask.doubts  # nobody was there
        if answer is None or (answer.status == 503 and answer.json["code"] == "outcome-unknown"):
            ask.doubt()
            return False
        if answer.status == 202:
            told = answer.json.get("jobs", [answer.json])
            ask.accept([one["id"] for one in told], answer.headers.get("idempotency-replayed") == "true")
            self.accepted += 1
            return True
        if answer.status not in (429, 503, 507):
            self.faults.append(f"POST: status {answer.status}: {answer.body[:200]}")
        ask.refuse()
        self.refused += 1
        return not ask.doubts  # what was in doubt before must still become known

    def drop(self, job_id, how):
        purge = how == "purge"
        (self.ledger.purge if purge else self.ledger.cancel)(job_id)
        if purge:
            self.ledger.cancel(job_id)
        answer = self.call("DELETE", f"/jobs/{job_id}" + ("?purge=1" if purge else ""))
        if not answer or answer.status not in (200, 202):
            return
        if purge:
            self.ledger.purge(job_id, True)
        if answer.status == 202 or answer.json["state"] == "canceled":
            self.ledger.cancel(job_id, True)

    def watch(self, job_id):
        """Every milestone once and in order, over as many connections as it takes."""
        last, name = 0, ""
        while name not in ENDED:
            try:
                events = self.daemon.events(f"/jobs/{job_id}/events", {"Last-Event-ID": str(last)})
            except (OSError, http.client.HTTPException, ValueError):
                events = []
                self.cut_streams += 1
            if not isinstance(events, list):
                if events.status in (204, 410, 404):
                    if events.status == 404:
                        self.faults.append(f"the stream of job {job_id}: {events.body[:200]}")
                    return
                events = []
            for one in events:
                if "id" in one:
                    if int(one["id"]) != last + 1:
                        self.faults.append(f"the stream of job {job_id}: event {one['id']} after {last}")
                    last, name = int(one["id"]), one["event"]
            if not events:
                time.sleep(0.3)

    # ---- Before the run

    def capacity(self, seconds):
        """Jobs of the soak's kind a second when there are always enough: what half of it is half of."""
        ends, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            jobs = [self.job() for _ in range(32)]
            ask = self.ledger.ask(jobs)
            answer = self.daemon.post(jobs, Prefer="wait=300")
            harness.same(answer.status, 200, "status of an array")
            ask.accept([one["id"] for one in answer.json["jobs"]])
            ends += len(jobs)
        return ends / (time.monotonic() - began)

    def fill(self, count):
        """So many quick jobs first: a database larger than its readers' caches, so that these are full before anything is measured."""
        for _ in range(0, count, 64):
            jobs = [{**self.job(), "steps": 1, "n": 1} for _ in range(64)]
            ask = self.ledger.ask(jobs)
            ask.accept([one["id"] for one in self.daemon.post(jobs, Prefer="wait=300").json["jobs"]])

    def read_all(self, pages):
        """Lists from the newest on, on several connections at once, as each reader of the store has a cache of its own."""
        def read():
            cursor = ""
            for _ in range(pages):
                answer = self.call("GET", "/jobs?limit=100" + (f"&cursor={cursor}" if cursor else ""))
                cursor = answer.json["next_cursor"] if answer and answer.status == 200 else None
                if not cursor:
                    break
        threads = [threading.Thread(target=self.guarded, args=(read,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
