"""Hostile HTTP: what libmicrohttpd would let through, slow clients, and connections that only hold room."""
from harness import *  # noqa: F403
import re

daemon = Daemon()
GET = b"GET /healthz HTTP/1.1\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SECOND = b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n"

# (name, bytes, first status line's code, closed afterwards)
CASES = [
    ("length and coding", POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND, 400, True),
    ("two equal lengths", POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, True),
    ("two differing lengths", POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + SECOND, 400, True),
    ("two hosts", GET + b"Host: localhost\r\nHost: localhost\r\n\r\n", 400, True),
    ("no host", GET + b"\r\n", 400, True),
    ("negative length", POST + b"Content-Length: -1\r\n\r\n", 400, True),
    ("signed length", POST + b"Content-Length: +4\r\n\r\n{}  ", 400, True),
    ("length with letters", POST + b"Content-Length: 4x\r\n\r\n{}  ", 400, True),
    ("length 2^63", POST + b"Content-Length: 9223372036854775808\r\n\r\n", 413, True),
    ("length 2^64", POST + b"Content-Length: 18446744073709551616\r\n\r\n", 413, True),
    ("length over the limit", POST + b"Content-Length: 2097153\r\n\r\n", 413, True),
    ("unknown coding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, True),
    ("two codings", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, True),
    ("HTTP/1.0 chunked", b"POST /generate HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, True),
    ("space before colon", POST + b"Content-Length : 2\r\n\r\n{}", 400, True),
    ("escaped NUL in the path", b"GET /models%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, True),
    ("escaped line feed", b"GET /models%0a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, True),
    ("broken escape", b"GET /models%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, True),
    ("raw high byte in the path", b"GET /mod\xffels HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, True),
    ("escape sequence in the method", b"G\x1b[31mT /models HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, True),
    ("body on GET", b"GET /models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 413, True),
    ("40 KB header", GET + b"Host: localhost\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431, True),
    ("5000 headers", GET + b"Host: localhost\r\n" + b"A: b\r\n" * 5000 + b"\r\n", 431, True),
    ("40 KB path", b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (414, 431), True),
]


def first_status(out):
    return int(out.split(b" ", 2)[1]) if out.startswith(b"HTTP/") else None


@test
def every_hostile_request_gets_its_answer():
    for name, data, status, closed in CASES:
        out, was_closed = daemon.raw(data)
        wanted = status if isinstance(status, tuple) else (status,)
        check(first_status(out) in wanted, f"{name}: {out[:120]!r}")
        check(was_closed == closed, f"{name}: closed is {was_closed}")
        check(out.count(b"HTTP/1.1 200") == 0, f"{name}: a smuggled request was served")
        same(daemon.get("/healthz").status, 200, f"health after {name}")
    same(daemon.jobs_in_store(), 0, "rows of the job table")
    with open(daemon.log_path, "rb") as log:
        check(re.search(rb"[^\n -~]", log.read()) is None, "a byte that is not printable is in the log")


@test
def garbage_does_not_hurt():
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n", b"\r\n" * 50,
                 bytes(range(256)) * 4, b"NONSENSE\r\n\r\n", b"\0" * 1000):
        daemon.raw(data, 1.0, half_close=True)
        same(daemon.get("/healthz").status, 200, f"health after {data[:10]!r}")


@test
def requests_in_a_pipeline_are_answered_in_order():
    out, _ = daemon.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
                        b"GET /samplers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", out)]
    same(statuses, [200, 404, 200], "statuses")


@test
def head_has_no_body():
    out, _ = daemon.raw(b"HEAD /samplers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = out.partition(b"\r\n\r\n")
    check(b" 200 " in head and b"Content-Length" in head and body == b"", out[:200])


def drip(first, more, limit):
    """Sends a byte now and then; the seconds until the daemon closed."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(first)
        connection.settimeout(0.5)
        while time.monotonic() - began < limit:
            try:
                connection.sendall(more)
                if connection.recv(4096) == b"":
                    break
            except socket.timeout:
                continue
            except ConnectionError:
                break
    return time.monotonic() - began


@test
def slow_heads_and_bodies_are_cut():
    cuts = {}
    threads = [threading.Thread(target=lambda: cuts.update(head=drip(b"GET /healthz HTTP/1.1\r\nHost: local", b"a", 20))),
               threading.Thread(target=lambda: cuts.update(body=drip(POST + b"Content-Length: 60000\r\n\r\n{", b" ", 45)))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        same(daemon.get("/healthz").status, 200, "health meanwhile")
        check(time.monotonic() - began < 1.0 * SLOW, "others were slowed down")
        time.sleep(0.5)
    check(8 < cuts["head"] < 14 * SLOW, f"a slow head was cut after {cuts['head']:.1f} s")
    check(25 < cuts["body"] < 36 * SLOW, f"a slow body was cut after {cuts['body']:.1f} s")


@test
def idle_connections_do_not_lock_others_out():
    idle = [socket.create_connection(("127.0.0.1", daemon.port)) for _ in range(300)]
    same(daemon.get("/healthz").status, 200, "health with 300 idle connections")
    for connection in idle:
        connection.close()


run(__name__)
