"""Many clients in one thread: event streams under one epoll, and jobs polled on connections that stay. Standard library only.

For tests, the soak and the benchmarks; nothing here judges what it reads."""
import json
import multiprocessing
import selectors
import socket
import threading
import time


class Chunks:
    """Bytes of a chunked body as they come, without the chunks' heads."""

    def __init__(self):
        self.raw, self.left, self.over = bytearray(), 0, False

    def take(self, data):
        self.raw += data
        out = bytearray()
        while self.raw and not self.over:
            if self.left > 2:  # of a chunk; 2: its end of line
                count = min(self.left - 2, len(self.raw))
                out += self.raw[:count]
                del self.raw[:count]
                self.left -= count
            elif self.left > 0:
                count = min(self.left, len(self.raw))
                del self.raw[:count]
                self.left -= count
            else:
                line, end, rest = self.raw.partition(b"\r\n")
                if not end:
                    break
                size = int(line, 16)
                self.left, self.over = size + 2, size == 0
                self.raw = bytearray(rest)
        return bytes(out)


class Stream:
    """One event stream. events: (arrival on the monotonic clock, arrival on the wall clock, fields) of each, comments left out."""

    def __init__(self, name, connection):
        self.name, self.connection, self.chunks, self.text, self.events, self.ended = name, connection, Chunks(), b"", [], False

    def take(self, data):
        now, wall = time.monotonic(), time.time()
        self.text += self.chunks.take(data)
        while b"\n\n" in self.text:
            event, _, self.text = self.text.partition(b"\n\n")
            if b"event: " in event or b"event:" in event:
                self.events.append((now, wall, event))

    def told(self):
        """The events as dictionaries with event, data (parsed) and, where it has one, id."""
        for now, wall, event in self.events:
            fields = {}
            for line in event.decode().split("\n"):
                name, _, value = line.partition(":")
                fields[name] = value[1:] if value.startswith(" ") else value
            yield {"event": fields["event"], "data": json.loads(fields["data"]), "id": int(fields["id"]) if "id" in fields else None, "now": now, "wall": wall}


class Streams:
    """port: of a daemon on the loopback. Opened one after another, then read by run() or in a thread between start() and stop()."""

    def __init__(self, port):
        self.port, self.selector, self.streams, self.open, self.refused = port, selectors.EpollSelector(), [], 0, 0
        self.thread, self.stopping = None, False

    def add(self, name, job_id, secret=None, after=None):
        """False: refused."""
        connection = socket.create_connection(("127.0.0.1", self.port))
        key = f"Authorization: Bearer {secret}\r\n" if secret else ""
        past = f"Last-Event-ID: {after}\r\n" if after is not None else ""
        connection.sendall(f"GET /jobs/{job_id}/events?previews=0 HTTP/1.1\r\nHost: localhost\r\n{key}{past}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                raise ConnectionError(f"closed after {head!r}")
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            self.refused += 1
            connection.close()
            return False
        stream = Stream(name, connection)
        stream.take(rest)
        connection.setblocking(False)
        self.streams.append(stream)
        self.open += 1
        self.selector.register(connection, selectors.EVENT_READ, stream)
        return True

    def turn(self, seconds):
        for key, _ in self.selector.select(seconds):
            stream = key.data
            try:
                data = stream.connection.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            stream.take(data)
            if not data or stream.chunks.over:
                stream.ended = stream.chunks.over
                self.selector.unregister(stream.connection)
                stream.connection.close()
                self.open -= 1

    def run(self, seconds):
        """Until every stream has ended; False: some have not."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            self.turn(0.2)
        return self.open == 0

    def start(self):
        def read():
            while not self.stopping:
                self.turn(0.1)
        self.thread = threading.Thread(target=read, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping = True
        if self.thread:
            self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Aside:
    """Runs function(pipe) in a process of its own, so that clients do not wait for each other; what it returns is what finish() gives."""

    def __init__(self, function, *arguments):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=lambda: theirs.send(function(theirs, *arguments)), daemon=True)
        self.process.start()

    def finish(self):
        self.pipe.send("stop")
        result = self.pipe.recv()
        self.process.join()
        return result
