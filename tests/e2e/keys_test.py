"""API keys: made, listed and revoked beside a running daemon; what each scope may do; rates, pending jobs and budgets."""
import contextlib
import re
import sqlite3

from harness import *  # noqa: F403


def key_command(data, *words, status=0):
    done = subprocess.run([PROGRAM, "key", *words, "--data", data], capture_output=True, text=True, timeout=PATIENCE, check=False)
    same(done.returncode, status, f"exit status of key {' '.join(words)}: {done.stderr}")
    return done


def add(data, name, *options):
    """The key, as an Authorization header."""
    secret = key_command(data, "add", name, *options).stdout.strip()
    check(re.fullmatch(r"dn_[a-z2-7]{8}_[a-z2-7]{43}", secret), "the key's form")
    return f"Bearer {secret}"


def number_of(bearer):
    return bearer.split("_")[1]


def jobs_of(daemon, bearer):
    return [job["id"] for job in daemon.get("/jobs", Authorization=bearer).json["jobs"]]


@test
def keys_are_made_listed_and_revoked_beside_a_daemon():
    data = scratch("data")
    with Daemon(data=data) as daemon:
        same(daemon.get("/jobs").status, 200, "without any key, from this machine")
        alice = add(data, "alice")
        eventually(lambda: daemon.get("/jobs").status == 401, 10, "a key is needed")
        same(daemon.get("/jobs").headers["www-authenticate"], 'Bearer realm="denoised"', "WWW-Authenticate")
        same([daemon.get(path).status for path in ("/healthz", "/readyz", "/openapi.json")], [200] * 3, "open routes")
        same(daemon.get("/jobs", Authorization=alice).status, 200, "with the key")
        for wrong in ("Bearer", "Bearer ", "Basic " + alice[7:], alice + "a", alice[:-1], alice.upper(), "Bearer dn_aaaaaaaa_" + "a" * 43):
            same(daemon.get("/jobs", Authorization=wrong).status, 401, f"{wrong[:12]}...")
        with open(os.path.join(data, "denoised.db"), "rb") as db, open(os.path.join(data, "denoised.db-wal"), "rb") as log:
            check(alice[7:].encode() not in db.read() + log.read(), "the key itself is kept")
        listed = json.loads(key_command(data, "list", "--json").stdout)
        same([(k["key"], k["name"], k["scopes"], k["rate"], k["revoked_at"]) for k in listed],
             [(number_of(alice), "alice", "submit,read", None, None)], "the list")
        check(number_of(alice) in key_command(data, "list").stdout, "the table")
        same(daemon.stop(), 0, "exit status")
        daemon.start()
        same((daemon.get("/jobs").status, daemon.get("/jobs", Authorization=alice).status), (401, 200), "after a restart")
        key_command(data, "revoke", number_of(alice))
        eventually(lambda: daemon.get("/jobs", Authorization=alice).status == 401, 10, "the revoked key's end")
        same(daemon.get("/jobs").status, 401, "revoking the last key opens nothing")
        key_command(data, "revoke", number_of(alice), status=1)
        with open(daemon.log_path, encoding="utf8") as log:
            check(alice[7:] not in log.read(), "a key stands in the log")


def opened(daemon, path, key, body=None):
    """An event stream that has begun."""
    headers = {"Authorization": key, "Accept": "text/event-stream", "Content-Type": "application/json"}
    connection = daemon.connect()
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, {**headers, "Prefer": "wait=0"})
    answer = connection.getresponse()
    same((answer.status, answer.headers["content-type"].split(";")[0]), (200, "text/event-stream"), path)
    check(answer.readline(), "the first line")
    return answer


@test
def streams_end_with_the_key_that_opened_them():
    """Of jobs that run, wait, and say nothing since their worker stands still; those of another key of the same client go on."""
    data = scratch("data")
    leaves, stays = add(data, "alice"), add(data, "alice")
    keys = os.path.join(scratch("keys"), "keys")
    lines = ["of_the_file a-secret-of-the-file\n", "another another-secret-of-it\n"]
    with open(os.open(keys, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf8") as out:
        out.writelines(lines)
    with Daemon("--api-key-file", keys, data=data) as daemon:
        long = {"steps": 1000, "n": 64}
        jobs = [daemon.post(long, Authorization=stays).json["id"] for _ in range(4)]
        eventually(lambda: daemon.get(f"/jobs/{jobs[0]}", Authorization=stays).json["progress"]["done"] > 0, what="the first runs")
        worker = daemon.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            ends = [opened(daemon, f"/jobs/{job}/events?previews=0", leaves) for job in jobs] + [opened(daemon, "/generate", leaves, long)]
            goes_on = opened(daemon, f"/jobs/{jobs[-1]}/events?previews=0", stays)
            of_file = opened(daemon, "/generate", "Bearer a-secret-of-the-file", long)
            key_command(data, "revoke", number_of(leaves))
            for stream in ends:  # to its end, which is no error, and not the job's
                check(b"event: succeeded" not in stream.read(), "a stream went on to its job's end")
            with open(keys, "w", encoding="utf8") as out:
                out.writelines(lines[1:])
            check(b"event: succeeded" not in of_file.read(), "the stream of a key of the file went on to its job's end")
            same(daemon.get(f"/jobs/{jobs[0]}/events", Authorization=leaves).status, 401, "the way back")
        finally:
            with contextlib.suppress(ProcessLookupError):  # on a machine so slow that it was taken for frozen
                os.kill(worker, signal.SIGCONT)
        for job in jobs[::-1]:
            daemon.call("DELETE", f"/jobs/{job}", Authorization=stays)
        check(b"event: canceled" in goes_on.read(), "the other key's stream was cut")


@test
def clients_see_their_own_and_scopes_hold():
    data = scratch("data")
    alice, again, bob = add(data, "alice"), add(data, "alice"), add(data, "bob")
    writer, reader = add(data, "alice", "--scopes", "submit"), add(data, "alice", "--scopes", "read")
    auditor, boss = add(data, "carol", "--scopes", "read-all"), add(data, "dave", "--scopes", "admin")
    prometheus = add(data, "prometheus", "--scopes", "metrics")
    with Daemon(data=data, **paced()) as daemon:
        made = daemon.post({"steps": 2}, Authorization=alice).json
        eventually(lambda: daemon.get(f"/jobs/{made['id']}", Authorization=alice).json["state"] == "succeeded", 60, "the job")
        slow = daemon.post({"steps": 1000, "n": 64}, Authorization=alice).json["id"]
        one = f"/jobs/{made['id']}"
        paths = [one, f"{one}/images/0.png", f"{one}/events", "/jobs", "/models", "/samplers", "/metrics", "/stats"]
        own = [200] * 6 + [403, 403]  # the daemon's numbers tell of everybody
        expected = {alice: own, again: own, reader: own, auditor: [200] * 7 + [403], boss: [200] * 8, bob: [404] * 3 + own[3:],
                    writer: [403] * 4 + own[4:], prometheus: [403] * 6 + [200, 403]}
        for key, statuses in expected.items():
            same([daemon.get(path, Authorization=key).status for path in paths], statuses, f"what {number_of(key)} may read")
        same(sorted(jobs_of(daemon, alice)), sorted([made["id"], slow]), "alice's list")
        same(jobs_of(daemon, again), jobs_of(daemon, alice), "another key of hers")
        same(jobs_of(daemon, bob), [], "bob's list")
        same(jobs_of(daemon, auditor), jobs_of(daemon, alice), "the auditor's list")
        for key, status in ((alice, 202), (writer, 202), (bob, 202), (reader, 403), (auditor, 403), (boss, 403)):
            answer = daemon.post({"steps": 2}, Authorization=key)
            same(answer.status, status, f"submitting as {number_of(key)}")
            check(status != 403 or answer.json["code"] == "forbidden", "the code")
        for key, status in ((bob, 404), (reader, 403), (auditor, 403)):
            same(daemon.call("DELETE", f"/jobs/{slow}", Authorization=key).status, status, f"cancelling as {number_of(key)}")
        unknown = daemon.get("/jobs/" + "a" * 26, Authorization=bob).json
        hidden = daemon.get(one, Authorization=bob).json
        same({k: v for k, v in unknown.items() if k != "request_id"}, {k: v for k, v in hidden.items() if k != "request_id"}, "another's job")
        check(daemon.call("DELETE", f"/jobs/{slow}", Authorization=boss).status in (200, 202), "an admin cancels")
        eventually(lambda: daemon.get(f"/jobs/{slow}", Authorization=alice).json["state"] == "canceled", 30, "the cancelled job")


@test
def rates_are_kept_and_waits_are_honest():
    data = scratch("data")
    slow, free = add(data, "slow", "--rate", "0.5"), add(data, "free")
    with Daemon(data=data) as daemon:
        statuses = [daemon.get("/models", Authorization=slow)]
        while statuses[-1].status == 200 and len(statuses) < 50:  # each one slower than 2 s would be needed to get so far
            statuses.append(daemon.get("/models", Authorization=slow))
        same([a.status for a in statuses[:2]], [200, 200], "a burst of five seconds' worth")
        wait = int(statuses[-1].headers["retry-after"])
        check(1 <= wait <= 2 and statuses[-1].json["code"] == "quota", f"Retry-After {wait}")
        same(daemon.get("/models", Authorization=free).status, 200, "another key")
        time.sleep(wait + 0.05)
        same(daemon.get("/models", Authorization=slow).status, 200, "after the wait that was told")


@test
def pending_jobs_and_budgets_are_kept():
    data = scratch("data")
    few, poor = add(data, "few", "--pending-jobs", "2"), add(data, "poor", "--budget", "0.01")
    long = {"steps": 1000, "n": 64, "guidance_scale": 1}
    with Daemon(data=data, **paced()) as daemon:
        ids = [daemon.post(long, Authorization=few).json["id"] for _ in range(2)]
        answer = daemon.post(long, Authorization=few)
        same((answer.status, answer.json["code"]), (429, "quota"), "the third job")
        check("limit is 2" in answer.json["detail"] and int(answer.headers["retry-after"]) >= 1, answer.json["detail"])
        for job in ids:
            daemon.call("DELETE", f"/jobs/{job}", Authorization=few)
        # 8x8 pictures: 100 steps are 0.0064 megapixel-steps.
        body = {"steps": 100, "guidance_scale": 1, "sampler": "ddim"}
        first = daemon.post(body, Authorization=poor, Idempotency_Key="one")
        again = daemon.post(body, Authorization=poor, Idempotency_Key="one")
        same((first.status, again.headers.get("idempotency-replayed")), (202, "true"), "a repetition is no new cost")
        same(daemon.post(dict(body, steps=50), Authorization=poor).status, 202, "what is left of the budget")
        over = daemon.post(body, Authorization=poor)
        same((over.status, over.json["code"]), (429, "quota"), "over the budget")
        check(1000 < int(over.headers["retry-after"]) < 3600, f"Retry-After {over.headers['retry-after']}")
        never = daemon.post(dict(body, steps=200), Authorization=poor)
        same((never.status, never.headers.get("retry-after")), (429, None), "more than a whole hour's budget")


@test
def nobody_comes_in_from_outside_without_a_key():
    data = scratch("data")

    def serve_outside(*words):
        done = subprocess.run([PROGRAM, "serve", "--listen", "0.0.0.0:0", "--data", data, "--model", f"tiny={tiny_model()}", *words],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stderr.splitlines()[0]
    line = ("denoised serve: listening beyond loopback without keys: make one with `denoised key add`, give --api-key-file FILE, or --insecure "
            "if a proxy guards this port")
    same(serve_outside(), (78, line), "without a database")
    with Daemon(data=data) as daemon:
        daemon.stop()
    same(serve_outside(), (78, line), "with a database that has no key")
    key = add(data, "alice")
    with Daemon(data=data, listen="0.0.0.0:0") as daemon:
        same((daemon.get("/jobs").status, daemon.get("/jobs", Authorization=key).status), (401, 200), "with a key")
        key_command(data, "revoke", number_of(key))
        eventually(lambda: daemon.get("/jobs", Authorization=key).status == 401, 10, "the revoked key's end")


@test
def a_daemon_that_cannot_read_its_keys_opens_nothing():
    data = scratch("data")
    with Daemon(data=data) as daemon:
        add(data, "alice")
        daemon.stop()
    with sqlite3.connect(os.path.join(data, "denoised.db")) as db:
        db.execute("DROP TABLE api_key")
    db.close()
    done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data", data, "--model", f"tiny={tiny_model()}"],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    same(done.returncode, 78, "exit status")
    check("api_key" in done.stderr and "restore a backup" in done.stderr and "ready" not in done.stdout, done.stderr)


@test
def wrong_words_are_refused():
    data = scratch("data")
    for words in (("add",), ("add", "a b"), ("add", ""), ("add", "x" * 65), ("add", "x", "--scopes", "all"), ("add", "x", "--scopes", ""),
                  ("add", "x", "--rate", "-1"), ("add", "x", "--rate", "fast"), ("add", "x", "--pending-jobs", "1001"), ("lists",), ("list", "x"),
                  ("revoke",), ("revoke", "a", "b"), ()):
        done = subprocess.run([PROGRAM, "key", *words, "--data", data], capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(done.returncode == 64 and done.stderr.startswith("denoised key: "), f"key {words}: {done.returncode} {done.stderr!r}")
    for words in (("list",), ("revoke", "aaaaaaaa")):  # the wrong folder is no folder without keys
        done = subprocess.run([PROGRAM, "key", *words, "--data", os.path.join(data, "none")], capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(done.returncode == 74 and "--data" in done.stderr and not done.stdout, f"key {words} in no folder: {done.returncode} {done.stderr!r}")
    same(os.listdir(data), [], "what asking leaves behind")
    add(data, "alice")
    key_command(data, "revoke", "aaaaaaaa", status=1)


run(__name__)
