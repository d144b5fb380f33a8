"""Slow clients, and connections that only hold room."""
from harness import *  # noqa: F403

daemon = Daemon()
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


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
