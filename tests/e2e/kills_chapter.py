"""One chapter of kills: one data directory, one workload, some kills at named points one after another, and the ledger's verdict.

A chapter is made by its seed alone: which points, at which pass of each, what the clients do. The points come from one shuffled deck that
the chapters go through in turn, so that every point has its share whatever the number of kills.
"""
import random
import subprocess
import time

from harness import FAULTS, PATIENCE, check, eventually, os, same, sqlite3
from kills_points import POINTS
from kills_victim import Victim
from kills_workload import DRAWN, VERY_LONG, Workload, spec_name

CHAPTER_KILLS = 25
BOOTS_MAX = 4  # a job that ten daemons die under fails: it is given peace before that
# At most so many passes of a point before the kill; others: COUNT_MAX. Rare moments are taken at once, or at the second time.
COUNT_MAX = 10
COUNTS = {"step_k": 200, "http_body_read": 30, "worker_lane_taken": 30, "checkpoint": 1, "checkpoint_done": 1, "worker_model_loaded": 1,
          "worker_started": 1, "after_insert": 20}
TWICE = ("fail_", "cancel_", "canceled_", "purge_")
# Milliseconds that a step is made longer by, where the moment needs a job that is under way.
SLOW_WORKER = {"canceled": 4, "cancel": 4, "snapshot": 4, "worker_snapshot_made": 4, "requeue": 20, "drain": 20, "worker_draining": 20}


def deck():
    names = sorted(name for name, phase in POINTS.items() if phase not in ("first", "migrate", "webhook"))
    random.Random("the deck").shuffle(names)
    return names


def count_for(rng, point):
    if point.startswith(TWICE):
        return rng.randint(1, 2)
    if POINTS[point] not in ("load", "worker"):
        return 1
    return rng.randint(1, COUNTS.get(point, COUNT_MAX))


class Totals:
    """What all chapters of a run came to."""

    def __init__(self):
        self.kills = self.compound = self.missed = self.chapters = 0
        self.at = {name: 0 for name in POINTS}
        self.lost = self.unexpected = self.duplicated = self.wrong = self.recovered = self.jobs = self.images = 0
        self.ready, self.ready_cpu = [], []  # seconds of starts, and what they computed for
        self.faults = []

    def add(self, verdict):
        self.chapters += 1
        for name in ("lost", "unexpected", "duplicated", "wrong"):
            setattr(self, name, getattr(self, name) + len(getattr(verdict, name)))
        self.jobs += verdict.jobs
        self.images += verdict.images
        self.recovered += verdict.recovered

    def ledger(self):
        return (f"jobs {self.jobs} images {self.images} lost {self.lost} unexpected {self.unexpected} duplicated {self.duplicated} wrong {self.wrong} "
                f"recovered {self.recovered}")

    def __str__(self):
        ready = sorted(self.ready) or [0]
        return (f"{self.kills} kills at {sum(1 for count in self.at.values() if count)} points ({self.compound} more beside them): {self.ledger()}; "
                f"ready after p50 {ready[len(ready) // 2]:.3f} s, worst {ready[-1]:.3f} s of {len(ready)} starts")


class Chapter:
    def __init__(self, seed, pictures, totals):
        self.rng = random.Random(f"chapter {seed}")
        self.seed, self.pictures, self.totals = seed, pictures, totals
        self.victim = Victim("--drain-seconds", "30")
        self.work = Workload(seed, self.victim.socket)
        names = deck()
        self.points = [names[(seed * CHAPTER_KILLS + i) % len(names)] for i in range(CHAPTER_KILLS - 1)]

    def run(self):
        try:
            self._first()
            for point in self.points:
                getattr(self, "_" + POINTS[point])(point)
                self._maybe_again()
                self._give_peace()
            self._end()
        finally:
            self.totals.ready += self.victim.ready_seconds
            self.totals.ready_cpu += self.victim.ready_cpu
            self.victim.remove()

    # ---- one kill

    def _faults(self, point, count=None):
        count = count or count_for(self.rng, point)
        slow = SLOW_WORKER.get(point, SLOW_WORKER.get(point.split("_")[0]))
        return f"{point}:{count}" + (f",step_k:1:slow{slow}" if slow else "")

    def _killed(self, point):
        """The daemon is gone: by the point, and by nothing else."""
        status = self.victim.process.wait()
        check(status == -9 and point in self.victim.fired(), f"{point}: it ended with {status}; fired {self.victim.fired()}; log: {self.victim.tail()}")
        self.totals.kills += 1
        self.totals.at[point] += 1

    def _work_until(self, over, point):
        end = time.monotonic() + PATIENCE
        self.work.run(lambda: over() or time.monotonic() > end, point)
        check(over(), f"{point} was not reached in {PATIENCE:.0f} s; log: {self.victim.tail()}")

    def _load(self, point):
        self.victim.start(self._faults(point))
        self._work_until(self.victim.dead, point)
        self._killed(point)

    def _worker(self, point):
        """The worker dies at its point; the daemon lives on, and is killed at a moment nobody chose."""
        self.victim.start(self._faults(point))
        self._work_until(lambda: point in self.victim.fired() or self.victim.dead(), point)
        check(not self.victim.dead(), f"{point}: the daemon ended with {self.victim.process.returncode}; log: {self.victim.tail()}")
        self.totals.kills += 1
        self.totals.at[point] += 1
        pause = time.monotonic() + self.rng.random() * 0.3
        self.work.run(lambda: time.monotonic() > pause, point)
        self.victim.kill()

    def _boot(self, point):
        if point.startswith("gc_"):
            self._leave_purge()
        self._leave_litter()
        self.victim.start(self._faults(point))
        eventually(self.victim.dead, 60, f"{point}")
        self._killed(point)

    def _drain(self, point):
        """A drain that finds jobs under way; the second signal hurries it, so that it has something to put back."""
        self.victim.start(self._faults(point))
        self._until_running()
        self.victim.process.terminate()
        self.victim.process.terminate()  # merged with the first one where that was not heard yet
        again = time.monotonic() + 0.2
        while not self.victim.dead():
            check(time.monotonic() < again + PATIENCE, f"{point} was not reached; log: {self.victim.tail()}")
            if time.monotonic() > again:
                again = time.monotonic() + 0.2
                self.victim.process.terminate()
            time.sleep(0.005)
        self._killed(point)

    def _worker_drain(self, point):
        self.victim.start(self._faults(point))
        self._until_running()
        while not self.victim.dead():
            self.victim.process.terminate()
            time.sleep(0.05)
        status = self.victim.process.wait()
        check(status == 0 and point in self.victim.fired(), f"{point}: status {status}, fired {self.victim.fired()}; log: {self.victim.tail()}")
        self.totals.kills += 1
        self.totals.at[point] += 1

    def _until_running(self):
        """A job under way that stays so: a thousand steps on a worker that takes its time over each."""
        self.victim.wait_ready()
        job_id = self.work.send(VERY_LONG)
        eventually(lambda: self.victim.get(f"/jobs/{job_id}")["progress"]["done"] > 0, 60, "its first step")

    def _backup(self, point):
        """A backup that is killed leaves the daemon and the next backup alone, and cannot be taken for a whole one."""
        self.victim.start()
        self.victim.wait_ready()
        self.work.run(lambda: self.victim.ask("SELECT count(*) FROM image")[0][0] > 2, "post")
        target = os.path.join(self.victim.folder, f"backup-{self.rng.random()}")
        command = [FAULTS, "backup", "--data", self.victim.data, target]
        done = subprocess.run(command, env=self.victim.environment(self._faults(point)), capture_output=True, text=True, check=False)
        check(done.returncode == -9 and point in self.victim.fired(), f"{point}: the backup ended with {done.returncode}: {done.stderr}")
        self.totals.kills += 1
        self.totals.at[point] += 1
        cut = Victim(data=target)
        done = subprocess.run(cut.command(), env=cut.environment(""), capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(done.returncode == 78, f"a backup killed at {point} was taken as a data directory (status {done.returncode}): {done.stderr}")
        cut.remove()
        self.victim.kill()

    # ---- between kills

    def _first(self):
        """The first start of all, on an empty folder."""
        point = self.rng.choice(sorted(name for name, phase in POINTS.items() if phase == "first"))
        self.victim.start(f"{point}:1")
        eventually(self.victim.dead, 60, point)
        self._killed(point)

    def _maybe_again(self):
        """Compound: killed again within 100 ms of the next start."""
        while self.rng.random() < 0.25:
            self.victim.start()
            time.sleep(self.rng.random() * 0.1)
            self.victim.kill()
            self.totals.compound += 1

    def _give_peace(self):
        worn = self.victim.ask("SELECT coalesce(max(boots),0),coalesce(max(crashes),0) FROM job WHERE state<2")[0]
        if worn[0] >= BOOTS_MAX or worn[1] > 0:
            self._peace()

    def _peace(self):
        self.victim.start()
        self.victim.all_ended()
        self.victim.kill()

    def _leave_purge(self):
        """Kills the daemon where a running job with an input picture is to be purged: the next start's retention takes its files. A job that
        lets go before the purge is stored leaves nothing to that start: then once more."""
        left = []
        self._peace()
        while left != [(1, 1)]:
            self.victim.start("purge_after_commit:1,step_k:2:slow500")
            self.victim.wait_ready()
            job_id = self.work.send(DRAWN[0])
            eventually(lambda: self.victim.get(f"/jobs/{job_id}")["progress"]["done"] > 0, 60, "its first step")
            self.work.purge(job_id)
            eventually(self.victim.dead, 60, "the kill after the purge")
            left = self.victim.ask("SELECT state,purge FROM job WHERE id=?", job_id)
            self.totals.compound += 1

    def _leave_litter(self):
        """What a crash between two steps leaves: files half-written, and whole ones whose rows were never committed."""
        name = "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz234567", k=26))
        for path in (f"images/{name}-0-1.png", f"images/{name}-1-1.png.tmp", f"inputs/{name}-init.png", f"snapshots/{name}-0.snap"):
            with open(os.path.join(self.victim.data, path), "wb") as file:
                file.write(b"half")

    # ---- the end

    def _end(self):
        self.victim.start()
        self.victim.wait_ready()
        self.work.settle_doubts()
        self.victim.all_ended()
        same(self.victim.terminate(), 0, f"status of the last drain; log: {self.victim.tail()}")
        self.victim.start()  # what a start sweeps
        self.victim.wait_ready()
        eventually(lambda: not self.victim.strays(), 60, "the sweep of stray files")
        same(self.victim.terminate(), 0, f"status of the last stop; log: {self.victim.tail()}")
        with sqlite3.connect(os.path.join(self.victim.data, "denoised.db")) as db:
            sound = db.execute("PRAGMA integrity_check").fetchall()
        db.close()
        check(sound == [("ok",)], f"integrity_check: {sound}")
        ballast = os.stat(os.path.join(self.victim.data, "ballast"))
        check(ballast.st_size > 1 << 20 and ballast.st_blocks * 512 >= ballast.st_size, f"the ballast has {ballast.st_size} bytes, {ballast.st_blocks} blocks")
        verdict = self.work.ledger.judge(self.victim.data, lambda request, index: self.pictures.get((spec_name(request), index)))
        self.totals.add(verdict)
        check(verdict.valid, str(verdict))
