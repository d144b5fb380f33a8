"""A receiver of webhooks, and daemons that may tell it."""
import http.server
import ssl

from harness import *  # noqa: F403

SECRET = b"a secret of webhooks, thirty-two"


class Receiver:
    """An HTTP server that keeps what it is sent. answers: statuses in turn, the last for ever; "hang", "endless" and "redirect" are others."""

    def __init__(self, *answers, certificate=None, port=0):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((time.time(), self.path, dict(self.headers.items()), body))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                receiver.answer(self, answer)

            def do_GET(self):
                receiver.received.append((time.time(), "GET " + self.path, {}, b""))

            def log_message(self, *unused):
                pass

        self.answers, self.received, self.connections = list(answers or [204]), [], 0
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler, bind_and_activate=False)
        self.server.daemon_threads = self.server.allow_reuse_address = True
        self.server.server_bind()
        self.server.server_activate()
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *unused: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @staticmethod
    def answer(handler, answer):
        if answer == "hang":
            time.sleep(30)
            return
        handler.send_response(302 if answer == "redirect" else 200 if answer == "endless" else answer)
        if answer == "redirect":
            handler.send_header("Location", "http://127.0.0.1:1/latest/meta-data/")
        handler.send_header("Content-Length", "1000000000" if answer == "endless" else "0")
        handler.end_headers()
        try:
            while answer == "endless":
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def secret_file(text=SECRET):
    path = os.path.join(scratch("secret"), "secret")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
        out.write(text)
    return path


def daemon_for(*receivers, more=(), pause="0.05", **options):
    allowed = [word for r in receivers for word in ("--webhook-allow", f"127.0.0.1:{r.port}")]
    return Daemon("--webhook-secret-file", secret_file(), *allowed, "--webhook-pause", pause, *more, **options)


__all__ = ["SECRET", "Receiver", "daemon_for", "secret_file"]
