"""Webhooks from the outbox: signed, told at least once whatever dies, tried again, given up, and never sent where they must not go."""
import hashlib
import hmac
import sqlite3

from harness import *  # noqa: F403
from receiver import SECRET, Receiver, daemon_for, secret_file

def told(daemon, job_id, state="delivered", seconds=60):
    def settled():
        job = daemon.get(f"/jobs/{job_id}").json
        return job if job["webhook"]["state"] == state else None
    return eventually(settled, seconds, f"webhook of job {job_id} {state}")


def check_message(receiver, number, job, kind):
    at, _, headers, body = receiver.received[number]
    message = json.loads(body)
    same(message["type"], f"job.{kind}", "type")
    same(message["timestamp"], job["finished_at"], "timestamp")
    without = {k: v for k, v in job.items() if k != "webhook"}
    same(message["data"]["job"], without, "the job told")
    same(headers["webhook-id"], f"job_{job['id']}", "webhook-id")
    stamp = headers["webhook-timestamp"]
    check(abs(int(stamp) - at) < PATIENCE, "the time of sending")
    digest = hmac.new(SECRET, f"{headers['webhook-id']}.{stamp}.".encode() + body, hashlib.sha256).digest()
    same(headers["webhook-signature"], "v1," + base64.b64encode(digest).decode(), "signature")
    same(headers["Content-Type"], "application/json", "media type")


@test
def what_the_store_is_too_busy_to_hear_is_not_sent_again():
    """From the receiver's answer on another process holds the database's lock, for longer than the daemon waits for it."""
    receiver, tried = Receiver(204), []
    usual = receiver.answer
    with daemon_for(receiver) as daemon:
        def answer(handler, word):
            if not tried:
                tried.append(sqlite3.connect(os.path.join(daemon.data, "denoised.db"), timeout=60, isolation_level=None, check_same_thread=False))
                tried[0].execute("BEGIN IMMEDIATE")
            usual(handler, word)

        receiver.answer = answer
        job_id = daemon.make(class_label=7, steps=1, seed=1, webhook=f"http://127.0.0.1:{receiver.port}/")["id"]
        eventually(lambda: len(receiver.received) > 0, 60, "the delivery")
        # New jobs are refused when the lock has not come for five seconds: so has the mark been, which asked before.
        same(daemon.post({"class_label": 7, "steps": 1}).status, 503, "a job while the lock is held")
        time.sleep(1)
        tried[0].execute("ROLLBACK")
        same(told(daemon, job_id)["webhook"]["tries"], 1, "tries")
        same(len(receiver.received), 1, "deliveries")
        tried[0].close()
    receiver.close()


@test
def ends_are_told_and_signed():
    receiver = Receiver(204)
    url = f"http://127.0.0.1:{receiver.port}/hooks?token=a%20b"
    with daemon_for(receiver) as daemon:
        made = daemon.make(class_label=7, steps=4, seed=1, webhook=url)
        job = told(daemon, made["id"])
        same((job["state"], job["webhook"]), ("succeeded", {"state": "delivered", "tries": 1, "error": None}), "the job")
        same(job["request"]["webhook"], url, "the accepted request")
        check_message(receiver, 0, job, "succeeded")
        same(receiver.received[0][1], "/hooks?token=a%20b", "path")
        texts = " ".join(png_texts(daemon.image(job["id"])).values())
        check("webhook" not in texts and "token" not in texts, "a picture tells where its webhook went")
        plain = daemon.make(class_label=7, steps=4, seed=1)
        same(daemon.image(plain["id"]) == daemon.image(job["id"]), True, "the picture is that of a job without a webhook")
        check("webhook" not in daemon.get(f"/jobs/{plain['id']}").json, "a job without a webhook shows one")
        canceled = daemon.post({"class_label": 7, "steps": 1000, "n": 64, "webhook": url}).json
        daemon.call("DELETE", f"/jobs/{canceled['id']}")
        check_message(receiver, 1, told(daemon, canceled["id"]), "canceled")
        late = daemon.post({"class_label": 7, "steps": 1000, "n": 64, "deadline_ms": 1, "webhook": url}).json
        check_message(receiver, 2, told(daemon, late["id"]), "failed")
        both = daemon.post([{"steps": 4, "webhook": url}, {"steps": 4, "webhook": url + "&b"}]).json["jobs"]
        for one in both:
            told(daemon, one["id"])
        same(sorted(r[1] for r in receiver.received[3:]), ["/hooks?token=a%20b", "/hooks?token=a%20b&b"], "both of an array")
        metrics = daemon.get("/metrics").body.decode()
        check("\ndenoised_webhooks_delivered_total 5\n" in metrics, "deliveries are counted")
    receiver.close()


@test
def failures_are_tried_again_and_given_up():
    slow_to_agree, never, gone = Receiver(500, 503, 200), Receiver(500), Receiver(410)
    around, endless = Receiver("redirect"), Receiver("endless")
    receivers = (slow_to_agree, never, gone, around, endless)
    with daemon_for(*receivers, pause="0.02") as daemon:
        ids = [daemon.post({"steps": 2, "webhook": f"http://127.0.0.1:{r.port}/"}).json["id"] for r in receivers]
        same(told(daemon, ids[0])["webhook"]["tries"], 3, "tries until it agreed")
        same(told(daemon, ids[4])["webhook"]["tries"], 1, "an answer without an end is cut, and counts")
        same(told(daemon, ids[2], "failed")["webhook"], {"state": "failed", "tries": 1, "error": "answered with status 410"}, "410 Gone")
        same(told(daemon, ids[3], "failed", 120)["webhook"]["error"], "answered with status 302", "a redirect")
        same(told(daemon, ids[1], "failed", 120)["webhook"], {"state": "failed", "tries": 5, "error": "answered with status 500"}, "given up")
        time.sleep(0.5)
        same([len(r.received) for r in receivers], [3, 5, 1, 5, 1], "requests received")
        same(len({r[2]["webhook-id"] for r in never.received}), 1, "a repetition has the same webhook-id")
        pauses = [b[0] - a[0] for a, b in zip(never.received, never.received[1:])]
        check(all(p >= 0.9 * 0.5 * 0.02 * 5 ** i for i, p in enumerate(pauses)), f"pauses grow: {pauses}")
    for r in receivers:
        r.close()


@test
def one_receiver_that_hangs_holds_up_no_other():
    hanging, prompt = Receiver("hang"), Receiver(200)
    with daemon_for(hanging, prompt) as daemon:
        for _ in range(8):
            daemon.post({"steps": 2, "webhook": f"http://127.0.0.1:{hanging.port}/"})
        eventually(lambda: len(hanging.received) >= 4, 30, "hanging deliveries")
        job = daemon.make(steps=2, webhook=f"http://127.0.0.1:{prompt.port}/")
        told(daemon, job["id"], seconds=8)
        began = time.monotonic()
        same(daemon.stop(), 0, "exit status")
        print(f"     the daemon's end beside hanging receivers took {time.monotonic() - began:.1f} s")
    hanging.close()
    prompt.close()


@test
def an_end_is_told_though_daemon_and_receiver_died():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    allowed = ("--webhook-secret-file", secret_file(), "--webhook-allow", f"127.0.0.1:{port}", "--webhook-pause", "1")
    with Daemon(*allowed) as daemon:
        job = daemon.make(steps=2, webhook=f"http://127.0.0.1:{port}/")
        eventually(lambda: daemon.get(f"/jobs/{job['id']}").json["webhook"]["tries"] >= 1, 30, "a try")
        running = daemon.post({"steps": 1000, "n": 8, "webhook": f"http://127.0.0.1:{port}/"}).json
        daemon.kill()
        receiver = Receiver(200, port=port)
        daemon.start()
        for one in (job, running):
            daemon.wait(one["id"], 120)
            check(told(daemon, one["id"], seconds=120)["state"] == "succeeded", "told")
        same(sorted({r[2]["webhook-id"] for r in receiver.received}), sorted(f"job_{j['id']}" for j in (job, running)), "what was told")
        receiver.close()


@test
def what_was_sent_but_not_marked_is_sent_again():
    receiver = Receiver(200)
    with daemon_for(receiver, program=FAULTS, environment={"DENOISED_FAULT": "webhook_sent_before_mark:1"}) as daemon:
        job = daemon.post({"steps": 2, "webhook": f"http://127.0.0.1:{receiver.port}/"}).json
        same(daemon.process.wait(PATIENCE), -signal.SIGKILL, "the daemon's end")
        same(len(receiver.received), 1, "requests before the kill")
        daemon.environment = None
        daemon.start()
        same(told(daemon, job["id"])["webhook"]["tries"], 1, "tries that are known of")
        same([r[2]["webhook-id"] for r in receiver.received], [f"job_{job['id']}"] * 2, "what was told")
    receiver.close()


@test
def without_a_secret_there_are_none():
    with Daemon() as daemon:
        answer = daemon.post({"steps": 2, "webhook": "https://example.com/"})
        same((answer.status, answer.json["code"], answer.json["field"]), (422, "unsupported-option", "/webhook"), "webhooks are off")
        same(daemon.jobs_in_store(), 0, "jobs stored")


@test
def receivers_that_must_not_be_are_refused():
    with daemon_for() as daemon:
        for url in ("http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://169.254.169.254/latest/", "https://[::1]/",
                    "https://a:b@example.com/", "https://example.com/#x", "https://example.com:25/", "https://2130706433/"):
            answer = daemon.post({"steps": 2, "webhook": url})
            same((answer.status, answer.json["code"], answer.json["field"]), (422, "invalid-field", "/webhook"), url)
            check(url[8:] not in answer.body.decode(), "the URL is echoed")
        for wrong in ("", "https://example.com/a b", "https://example.com/\n", "https://b\u00fccher.example/", 7, None, ["https://example.com"],
                      "https://example.com/" + "a" * 2048):
            answer = daemon.post({"steps": 2, "webhook": wrong})
            same((answer.status, answer.json["field"], answer.json["detail"]),
                 (422, "/webhook", "webhook must be a URL of 1 to 2048 printable ASCII characters"), f"webhook {wrong!r:.40}")
        answer = daemon.post([{"steps": 2, "webhook": "https://example.com/"}, {"steps": 2, "webhook": "https://10.0.0.1/"}])
        same((answer.status, answer.json["field"]), (422, "/1/webhook"), "of an array")
        same(daemon.jobs_in_store(), 0, "jobs stored")


class Renamed(Daemon):
    """A daemon that finds a name at an address inside: its /etc/hosts is another."""

    hosts = None

    def command(self):
        return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', self.hosts, *super().command()]


@test
def a_name_that_leads_inside_is_never_connected_to():
    Renamed.hosts = os.path.join(scratch("hosts"), "hosts")
    with open(Renamed.hosts, "w", encoding="utf8") as out:
        out.write("127.0.0.1 localhost\n127.0.0.1 inside.example.com\n8.8.8.8 mixed.example.com\n127.0.0.1 mixed.example.com\n")
    if subprocess.run(["unshare", "-m", "mount", "--bind", Renamed.hosts, "/etc/hosts"], capture_output=True, check=False).returncode != 0:
        raise Skip("a mount namespace of its own needs the superuser")
    try:
        listener = socket.create_server(("127.0.0.1", 8443))
    except OSError as reason:
        raise Skip(f"port 8443 is taken: {reason}") from reason
    with listener, Renamed("--webhook-secret-file", secret_file(), "--webhook-pause", "0.02") as daemon:
        listener.settimeout(0.5)
        job = daemon.make(steps=2, webhook="https://inside.example.com:8443/")
        webhook = told(daemon, job["id"], "failed")["webhook"]
        same((webhook["tries"], webhook["error"][:8]), (1, "blocked:"), "the delivery")
        try:
            listener.accept()
            raise AssertionError("it was connected to")
        except socket.timeout:
            pass


def certificate(name, folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


@test
def certificates_are_checked():
    right, wrong = certificate("receiver", scratch("right")), certificate("receiver", scratch("wrong"))
    trusted, stranger = Receiver(200, certificate=right), Receiver(200, certificate=wrong)
    with daemon_for(trusted, stranger, more=("--webhook-ca-file", right[0]), pause="0.02") as daemon:
        same(told(daemon, daemon.make(steps=2, webhook=f"https://127.0.0.1:{trusted.port}/")["id"])["webhook"]["tries"], 1, "tries")
        refused = told(daemon, daemon.make(steps=2, webhook=f"https://127.0.0.1:{stranger.port}/")["id"], "failed", 120)
        check("certificate" in refused["webhook"]["error"].lower() or "ssl" in refused["webhook"]["error"].lower(), refused["webhook"]["error"])
        same(len(stranger.received), 0, "requests sent to a stranger")
    trusted.close()
    stranger.close()


@test
def bad_settings_are_refused():
    def refused(*words):
        done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data", scratch("data"), "--model", f"tiny={tiny_model()}", *words],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stderr
    code, said = refused("--webhook-secret-file", secret_file(b"short"))
    check(code == 78 and "24 to 64 bytes" in said, f"{code}: {said}")
    code, said = refused("--webhook-allow", "127.0.0.1:80")
    check(code == 78 and "--webhook-secret-file" in said, f"{code}: {said}")
    shown = secret_file()
    os.chmod(shown, 0o644)
    code, said = refused("--webhook-secret-file", shown)
    check(code == 78 and "chmod" in said, f"{code}: {said}")


run(__name__)
