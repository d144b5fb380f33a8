"""A cheap HTTP client for one thread: sockets that never block under one epoll, a timetable, and callbacks. It shares the machine with what it
measures, so it parses no more than it must. Requests wait for nothing but their own answer: an arrival is never late because of another."""
import heapq
import itertools
import json
import selectors
import socket
import time


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    def __init__(self, port, secret=None):
        self.port, self.selector = port, selectors.EpollSelector()
        self.head = f"Host: 127.0.0.1:{port}\r\n" + (f"Authorization: Bearer {secret}\r\n" if secret else "")
        self.idle, self.timetable, self.order, self.asked = [], [], itertools.count(), 0

    def close(self):
        for connection in [key.fileobj for key in self.selector.get_map().values()]:
            connection.close()
        self.selector.close()

    def at(self, when, function, *arguments):
        """Calls function(*arguments) at a time of time.monotonic()."""
        heapq.heappush(self.timetable, (when, next(self.order), function, arguments))

    def call(self, then, method, path, body=None, wait=None):
        """then(answer) once it is there. wait: seconds of Prefer: wait."""
        connection = self.idle.pop() if self.idle else self.connect()
        text = f"{method} {path} HTTP/1.1\r\n{self.head}"
        if wait is not None:
            text += f"Prefer: wait={wait}\r\n"
        data = b""
        if body is not None:
            data = json.dumps(body).encode()
            text += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        connection.sendall(text.encode() + b"\r\n" + data)
        self.asked += 1
        self.selector.modify(connection, selectors.EVENT_READ, [then, bytearray()])

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.selector.register(connection, selectors.EVENT_READ, None)
        return connection

    def ask(self, method, path, body=None, wait=None):
        """One request and its answer, with everything else going on meanwhile."""
        got = []
        self.call(got.append, method, path, body, wait)
        self.run(lambda: got)
        return got[0]

    def run(self, until):
        """Answers and timetable until until() is true, which is asked after each of them."""
        while not until():
            while self.timetable and self.timetable[0][0] <= time.monotonic():
                _, _, function, arguments = heapq.heappop(self.timetable)
                function(*arguments)
                if until():
                    return
            left = self.timetable[0][0] - time.monotonic() if self.timetable else 5.0
            for key, _ in self.selector.select(max(0.0, min(left, 5.0))):
                self.receive(key.fileobj, key.data)

    def receive(self, connection, state):
        data = connection.recv(262144)
        if state is None or not data:  # an idle connection was closed, or one in use: then there is no answer
            self.selector.unregister(connection)
            connection.close()
            self.idle = [one for one in self.idle if one is not connection]
            if state is not None:
                raise ConnectionError(f"the daemon closed a connection after {bytes(state[1])!r}")
            return
        then, got = state
        got += data
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(got[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15:].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(got) < end + 4 + length:
            return
        self.selector.modify(connection, selectors.EVENT_READ, None)
        self.idle.append(connection)
        then(Answer(int(head[9:12]), bytes(got[end + 4:])))


__all__ = ["Answer", "Client"]
