"""What clients were told, held against what the data directory has: lost, unexpected, duplicated, recovered.

Every ask of a client is written down before it is sent, and what came back after: accepted, refused, or nothing (in doubt: it may be there
or not). When everything has ended, judge() reads the database and the files as they are on disk:

- lost: acknowledged, and not there, not whole, or ended otherwise than it was told;
- unexpected: there, and nobody asked for it (a refused job, part of an array, a cancel that nobody sent, a file that no row knows);
- duplicated: two results for one (job, index), or one ask with two sets of jobs;
- recovered: nobody could tell the client, and it came out (no fault).

Valid is lost 0, unexpected 0, duplicated 0.
"""
import contextlib
import hashlib
import json
import os
import sqlite3

ENDED = {2: "succeeded", 3: "failed", 4: "canceled"}


class Ask:
    """One POST of one job or an array, with all its retries. jobs: what was posted; key: its Idempotency-Key, or None; end: how its jobs
    end where nobody cancels them."""

    def __init__(self, jobs, key=None, client="local", end="succeeded"):
        self.jobs, self.key, self.client, self.end = jobs, key, client, end
        self.ids = None  # as acknowledged
        self.answers = set()  # every distinct set of ids that an answer named
        self.no = False
        self.doubts = 0  # tries without an answer
        self.replayed = False

    def doubt(self):
        self.doubts += 1

    def accept(self, ids, replayed=False):
        self.ids = list(ids)
        self.answers.add(tuple(ids))
        self.replayed |= replayed

    def refuse(self):
        """An answer that says that nothing was taken; counts only while no try is in doubt and none was accepted."""
        self.no = True


class Verdict:
    def __init__(self):
        self.lost, self.unexpected, self.duplicated, self.wrong = [], [], [], []
        self.recovered = self.jobs = self.images = 0

    @property
    def valid(self):
        return not (self.lost or self.unexpected or self.duplicated or self.wrong)

    def __str__(self):
        counts = (f"jobs {self.jobs} images {self.images} lost {len(self.lost)} unexpected {len(self.unexpected)} "
                  f"duplicated {len(self.duplicated)} wrong {len(self.wrong)} recovered {self.recovered}")
        faults = self.lost[:5] + self.unexpected[:5] + self.duplicated[:5] + self.wrong[:5]
        return counts + ("" if self.valid else ": " + "; ".join(faults))


def _agrees(posted, stored):
    """Whether a stored request is what was posted; pictures are not compared, and what was left out fits anything."""
    for name, value in posted.items():
        if name in ("init_image", "mask_image"):
            if not stored.get(name):
                return False
        elif name == "seed":
            if str(stored.get(name)) != str(value):
                return False
        elif stored.get(name) != value:
            return False
    return True


def give(rows, asks):
    """[(ask, its rows)] that uses up the rows in their order, each ask once at most; None: there is no such way."""
    if not rows:
        return []
    tried = []
    for ask in asks:
        group = rows[:len(ask.jobs)]
        if ask.jobs in tried or len(group) < len(ask.jobs):
            continue
        tried.append(ask.jobs)
        if all(row["request"] and _agrees(spec, json.loads(row["request"])) for row, spec in zip(group, ask.jobs)):
            later = give(rows[len(group):], [one for one in asks if one is not ask])
            if later is not None:
                return [(ask, group), *later]
    return None


class Ledger:
    def __init__(self):
        self.asks = []
        self.cancels = {}  # id: whether an answer promised that it ends as canceled (False: in doubt, or it had ended)
        self.purges = {}  # id: whether an answer promised that its files go
        self.ends = {}  # id: the end that some answer told of

    def ask(self, jobs, key=None, client="local", end="succeeded"):
        made = Ask(jobs, key, client, end)
        self.asks.append(made)
        return made

    def cancel(self, job_id, promised=False):
        """Before a cancel is sent, and again with promised when it is answered by 202, or by 200 with the state canceled."""
        self.cancels[job_id] = promised or self.cancels.get(job_id, False)

    def purge(self, job_id, promised=False):
        self.purges[job_id] = promised or self.purges.get(job_id, False)

    def saw(self, job_id, state):
        """A client was told this state. False: it contradicts an end that was told before."""
        if state in ENDED.values():
            return self.ends.setdefault(job_id, state) == state
        return job_id not in self.ends

    # ---- judging

    def judge(self, folder, picture=None, retention=False):
        """folder: a data directory whose jobs have all ended. picture(request, index): SHA-256 of the right PNG, or None to leave it out.
        retention: ended jobs may have expired."""
        verdict = Verdict()
        uri = f"file:{os.path.join(folder, 'denoised.db')}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute("SELECT row,id,client,idempotency,request,n,state,expired,cancel_requested,images_done FROM job ORDER BY row").fetchall()
            images = db.execute("SELECT job.id AS id,image.* FROM image JOIN job ON job.row=image.job").fetchall()
            keys = db.execute("SELECT row,client,key,jobs FROM idempotency").fetchall()
            events = db.execute("SELECT job.id AS id,event.name,event.data FROM event JOIN job ON job.row=event.job").fetchall()
        by_id = {row["id"]: row for row in rows}
        owner = self._explain(verdict, rows, by_id, keys)
        self._judge_jobs(verdict, rows, images, owner, retention)
        self._judge_results(verdict, folder, by_id, images, events, picture)
        verdict.jobs, verdict.images = len(rows), len(images)
        return verdict

    def _explain(self, verdict, rows, by_id, keys):
        """{id: its ask}; tells of asks whose rows are missing and of rows without an ask."""
        owner = {}
        kept = {(key["client"], key["key"]): [key["jobs"][i:i + 26] for i in range(0, len(key["jobs"]), 26)] for key in keys}
        for ask in self.asks:
            if len(ask.answers) > 1:
                verdict.duplicated.append(f"key {ask.key} was answered with {len(ask.answers)} sets of jobs")
            ids = ask.ids or (kept.get((ask.client, ask.key)) if ask.key else None) or []
            for job_id in ids:
                if job_id not in by_id:
                    verdict.lost.append(f"job {job_id} is not there")
                owner[job_id] = ask
            if ask.key and ask.ids and kept.get((ask.client, ask.key)) != ask.ids:
                verdict.lost.append(f"key {ask.key} of job {ask.ids[0]} is not there, or names others")
            if ask.no and not ask.doubts and not ask.ids and ids:
                verdict.unexpected.append(f"jobs {ids} of an ask that was refused")
            recovered = bool(ids) and ask.doubts and (not ask.ids or ask.replayed)
            verdict.recovered += recovered
            if ids and len(ids) != len(ask.jobs):
                verdict.unexpected.append(f"{len(ids)} jobs for an ask of {len(ask.jobs)}")
        self._explain_rest(verdict, [row for row in rows if row["id"] not in owner], owner)
        return owner

    def _explain_rest(self, verdict, rest, owner):
        """Rows that no acknowledged id and no key explains: asks in doubt without a key, each a whole array of rows one after another. All
        ways of giving them to each other are tried, as an ask that fits some rows may be the only one that fits later ones."""
        open_asks = sorted((a for a in self.asks if not a.key and not a.ids and a.doubts), key=lambda a: -len(a.jobs))
        given = give(rest, open_asks)
        for row in rest if given is None else ():
            verdict.unexpected.append(f"job {row['id']} (row {row['row']}) is one of {len(rest)} that the asks in doubt do not explain: {row['request']}; "
                                      f"in doubt: {[[one.get('seed') for one in ask.jobs] for ask in open_asks]}")
        for ask, group in given or ():
            for row in group:
                owner[row["id"]] = ask
            verdict.recovered += 1

    def _judge_jobs(self, verdict, rows, images, owner, retention):
        counts = {}
        for image in images:
            counts[image["id"]] = counts.get(image["id"], 0) + 1
        by_ask = {}
        for row in rows:
            job_id, state = row["id"], ENDED.get(row["state"])
            if job_id in owner:
                by_ask.setdefault(id(owner[job_id]), set()).add(job_id)
            canceled = job_id in self.cancels or job_id in self.purges
            wanted = owner[job_id].end if job_id in owner else "succeeded"
            if state is None:
                verdict.lost.append(f"job {job_id} has not ended (state {row['state']})")
            elif state != wanted and not (state == "canceled" and canceled):
                verdict.lost.append(f"job {job_id} ended as {state}, not {wanted}")
            elif self.cancels.get(job_id) and state != "canceled":
                verdict.lost.append(f"the cancel of job {job_id}: it {state}")
            if job_id in self.ends and state != self.ends[job_id]:
                verdict.lost.append(f"job {job_id} was told to have {self.ends[job_id]}, and is {state}")
            if row["expired"] and job_id not in self.purges and not retention:
                verdict.lost.append(f"job {job_id} has expired")
            if self.purges.get(job_id) and not row["expired"]:
                verdict.lost.append(f"the purge of job {job_id}")
            if state == "succeeded" and not row["expired"] and counts.get(job_id, 0) != row["n"]:
                verdict.lost.append(f"job {job_id} has {counts.get(job_id, 0)} of {row['n']} images")
        for ask in self.asks:
            if len(by_ask.get(id(ask), ())) > len(ask.jobs):
                verdict.duplicated.append(f"{len(by_ask[id(ask)])} jobs for an ask of {len(ask.jobs)}")

    @staticmethod
    def _judge_results(verdict, folder, by_id, images, events, picture):
        named = set()
        for image in images:
            where = f"image {image['number']} of job {image['id']}"
            if (image["id"], image["number"]) in named:
                verdict.duplicated.append(where)
            named.add((image["id"], image["number"]))
            try:
                with open(os.path.join(folder, "images", image["file"]), "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            except OSError as error:
                verdict.lost.append(f"{where}: {error}")
                continue
            if digest != image["sha256"]:
                verdict.wrong.append(f"{where}: the file is not what its row says")
            right = picture(json.loads(by_id[image["id"]]["request"]), image["number"]) if picture else None
            if right and digest != right:
                verdict.wrong.append(f"{where}: differs from an undisturbed one")
        told = set()
        for event in events:
            if event["name"] == "image":
                mark = (event["id"], json.loads(event["data"])["image"]["index"])
                if mark in told:
                    verdict.duplicated.append(f"the image event of {mark}")
                told.add(mark)
        ends = [event["id"] for event in events if event["name"] in ENDED.values()]
        for job_id in {one for one in ends if ends.count(one) > 1} if len(ends) != len(set(ends)) else ():
            verdict.duplicated.append(f"the end of job {job_id}")
        Ledger._judge_files(verdict, folder, {image["file"] for image in images})

    @staticmethod
    def _judge_files(verdict, folder, files):
        """Everything has ended: images are those of rows, and nothing else is left."""
        for name in sorted(os.listdir(os.path.join(folder, "images"))):
            if name not in files:
                verdict.unexpected.append(f"file images/{name}")
        for inside in ("inputs", "snapshots"):
            for name in sorted(os.listdir(os.path.join(folder, inside))):
                verdict.unexpected.append(f"file {inside}/{name}")
