"""How a case of tests/hostile is put to a daemon, and how its answer is written: the statuses in order, the problem's code, its field, and what
became of the connection (the tables say the same of every case)."""
import json
import re
import socket

FOLLOW = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Reader:
    """Answers from one connection, as a client reads them."""

    def __init__(self, connection):
        self.connection, self.data, self.ended = connection, b"", False

    def more(self):
        try:
            piece = self.connection.recv(65536)
        except ConnectionError:
            piece = b""
        self.ended = not piece
        self.data += piece
        return not self.ended

    def until(self, mark):
        while mark not in self.data:
            if not self.more():
                return None
        head, _, self.data = self.data.partition(mark)
        return head

    def exactly(self, count):
        while len(self.data) < count:
            if not self.more():
                break
        body, self.data = self.data[:count], self.data[count:]
        return body

    def chunks(self):
        body = b""
        while True:
            line = self.until(b"\r\n")
            size = int(line, 16) if line else 0
            body += self.exactly(size)
            self.exactly(2)
            if size == 0:
                return body

    def answer(self, bodiless=False):
        """(status, headers in small letters, body); None: the connection ended before one began."""
        head = self.until(b"\r\n\r\n")
        if head is None:
            if self.data:
                raise AssertionError(f"the connection ended within a head: {self.data[:60]!r}")
            return None
        lines = head.decode("latin1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d{3}) .*", lines[0])
        if not match:
            raise AssertionError(f"no answer but {head[:60]!r}")
        status = int(match.group(1))
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        if bodiless or status < 200 or status in (204, 304):
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, self.chunks()
        if "content-length" in headers:
            return status, headers, self.exactly(int(headers["content-length"]))
        while self.more():
            pass
        body, self.data = self.data, b""
        return status, headers, body


def told(answers):
    """The answers in the words of the tables: the statuses, then code and field of the last one's problem."""
    words = [str(status) for status, _, _ in answers]
    status, headers, body = answers[-1]
    if headers.get("content-type") == "application/problem+json" and body:
        problem = json.loads(body)
        wanted = (status, f"urn:denoised:{problem['code']}", headers.get("x-request-id"))
        got = (problem["status"], problem["type"], problem["request_id"])
        if got != wanted or not problem["title"] or not problem["detail"]:
            raise AssertionError(f"a problem that contradicts itself: {body!r}")
        words.append(problem["code"])
        if problem["field"]:
            words.append(problem["field"])
        if problem["offset"] is not None:
            words.append(f"@{problem['offset']}")
    return words


def ask(connect, data, wanted, follow=FOLLOW):
    """Sends the bytes, reads as many answers as `wanted` has, then looks what became of the connection. Returns (the answer in words, answers)."""
    count = len(re.match(r"(\d{3} )*", wanted + " ").group(0)) // 4
    with connect() as connection:
        reader = Reader(connection)
        if wanted.endswith("silence"):
            connection.settimeout(0.5)
        try:
            connection.sendall(data)
            if wanted == "closed":
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        answers = []
        try:
            while len(answers) < max(count, 1):
                answer = reader.answer(data.startswith(b"HEAD "))
                if answer is None:
                    break
                answers.append(answer)
        except AssertionError:
            return "headless", answers
        except socket.timeout:
            return " ".join((told(answers) if answers else []) + ["silence"]), answers
        if not answers:
            return "closed", answers
        words = told(answers)
        if wanted.endswith(" half"):
            return " ".join([*words, "half" if not reader.data else "more"]), answers
        if wanted.endswith((" close", " more")):
            ending = after_close(reader)
        else:
            if wanted.endswith(" swallow"):  # the answer was given all the time it needs
                connection.settimeout(0.5)
            ending = after_keep(connection, reader, follow)
        return " ".join([*words, ending]), answers


def after_close(reader):
    """Nothing more may come but the end."""
    try:
        while reader.more():
            pass
    except socket.timeout:
        return "open" if not reader.data else "more"
    return "close" if not reader.data else "more"


def after_keep(connection, reader, follow):
    """The next request on the connection gets the next answer, and nothing else comes."""
    try:
        connection.sendall(follow)
        answer = reader.answer()
    except (ConnectionError, socket.timeout):
        answer = None
    if answer is None:
        return "close" if reader.ended else "swallow"
    return "keep" if answer[0] == 200 and after_close(reader) == "close" else f"then {answer[0]}"
