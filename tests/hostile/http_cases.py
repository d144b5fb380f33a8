"""Hostile HTTP, one case a line: (name, bytes as sent, the exact answer[, the answer through nginx, why it differs]).

An answer is a line of words: the statuses in the order in which they come, the problem's code, and "close" or "keep": whether the server ends
the connection itself, or goes on to serve the next request on it. "closed" alone: the connection ends without a word.
"""

HOST = b"Host: localhost\r\n"
END = b"\r\n"
JSON = b"Content-Type: application/json\r\n"
SECOND = b"GET /models HTTP/1.1\r\n" + HOST + END  # what a smuggled request would be: an answer to it shows as one answer too many


def get(path=b"/healthz", headers=b"", version=b"HTTP/1.1", host=HOST, method=b"GET"):
    return method + b" " + path + b" " + version + b"\r\n" + host + headers + END


def post(headers, body=b"", version=b"HTTP/1.1", path=b"/generate", json=JSON):
    return b"POST " + path + b" " + version + b"\r\n" + HOST + json + headers + END + body


def sized(body, headers=b"", **rest):
    return post(b"Content-Length: %d\r\n" % len(body) + headers, body, **rest)


def chunked(chunks, headers=b""):
    return post(b"Transfer-Encoding: chunked\r\n" + headers, chunks)


BODY = b'{"steps": 1}'
OVER = b" " * (2 << 20)
BAD_HTTP = "400 malformed-http close"
# What differs behind nginx, and why.
HTML = ("400 close", BAD_HTTP, "the parser of libmicrohttpd answers in HTML, nginx with a problem")
TWICE = ("400 more", BAD_HTTP, "libmicrohttpd 0.9.75 says it twice, in HTML")
TWICE_413 = ("413 more", BAD_HTTP, "libmicrohttpd 0.9.75 says it twice, in HTML; to nginx the number is none")
VERSION = ("505 close", BAD_HTTP, "libmicrohttpd answers in HTML, nginx with a problem")
MUTE = ("closed", BAD_HTTP, "libmicrohttpd closes without a word, nginx answers first")
UNSEEN = ("200 keep", BAD_HTTP, "libmicrohttpd hides it from every callback; nginx refuses it")
CLEANED = ("200 keep", "200 keep", "a bare line feed may end a line (RFC 9112, 2.2): nginx writes it anew")
HOSTS = ("421 wrong-host close", "421 wrong-host keep", "the daemon closes nginx's connection, nginx keeps the client's")
KEPT = ("400 malformed-http close", "400 malformed-http keep", "the daemon closes nginx's connection, nginx keeps the client's")
FOREIGN = ("403 forbidden close", "403 forbidden keep", "refused before its body; the daemon closes nginx's connection, nginx keeps the client's")
NO_HOST = ("421 wrong-host close", BAD_HTTP, "nginx knows that it is no host")
PASSED = ("200 keep", "nginx speaks HTTP/1.1 to the daemon, and any 1.x to clients")
URI = ("414 close", "414 malformed-http close", "libmicrohttpd answers in HTML, nginx with a problem")
LARGE = ("431 close", "431 malformed-http close", "libmicrohttpd answers in HTML, nginx with a problem")
READ = ("413 too-large close", "413 too-large keep", "nginx has read the body, and keeps the connection")
SWALLOWED = ("413 too-large close", "413 too-large swallow", "nginx refuses it, and reads what comes without a look at it, for a while")

# ---- The request line
LINES = [
    ("no host", get(host=b""), BAD_HTTP),
    ("two equal hosts", get(headers=HOST), BAD_HTTP),
    ("two differing hosts", get(headers=b"Host: evil.example\r\n"), BAD_HTTP),
    ("two hosts in other letters", get(headers=b"HOST: localhost\r\n"), BAD_HTTP),
    ("an empty host", get(host=b"Host:\r\n"), *NO_HOST),
    ("a foreign host", get(host=b"Host: evil.example\r\n"), *HOSTS),
    ("a host that ends like ours", get(host=b"Host: evil.localhost\r\n"), *HOSTS),
    ("a host that begins like ours", get(host=b"Host: localhost.evil.example\r\n"), *HOSTS),
    ("a host with a user", get(host=b"Host: localhost@evil.example\r\n"), *HOSTS),
    ("a host with a path", get(host=b"Host: localhost/evil\r\n"), *NO_HOST),
    ("a numeric host", get(host=b"Host: 2130706433\r\n"), *HOSTS),
    ("a short numeric host", get(host=b"Host: 127.1\r\n"), *HOSTS),
    ("another loopback number", get(host=b"Host: 127.0.0.2\r\n"), *HOSTS),
    ("the wildcard address", get(host=b"Host: 0.0.0.0\r\n"), *HOSTS),
    ("a broken IPv6 host", get(host=b"Host: [::1\r\n"), *HOSTS),
    ("two hosts in one line", get(host=b"Host: localhost, evil.example\r\n"), *NO_HOST),
    ("a long host", get(host=b"Host: " + b"a" * 5000 + b"\r\n"), *HOSTS),
    ("a good host with a port", get(host=b"Host: localhost:8080\r\n"), "200 keep"),
    ("a good host in capitals", get(host=b"Host: LOCALHOST\r\n"), "200 keep"),
    ("a good IPv6 host", get(host=b"Host: [::1]:8080\r\n"), "200 keep"),
    ("spaces around the host", get(host=b"Host:    localhost  \r\n"), "200 keep"),
    ("HTTP/1.0 without a host", get(version=b"HTTP/1.0", host=b""), "200 close", BAD_HTTP, "nginx passes the host on, and there is none"),
    ("HTTP/1.0 with a host", get(version=b"HTTP/1.0"), "200 close"),
    ("HTTP/1.0 that keeps alive", get(version=b"HTTP/1.0", headers=b"Connection: keep-alive\r\n"), "200 keep"),
    ("HTTP/0.9", b"GET /healthz\r\n\r\n", "400 close", "headless", "an answer in HTTP/0.9 has no head"),
    ("HTTP/1.2", get(version=b"HTTP/1.2"), BAD_HTTP, *PASSED),
    ("HTTP/2.0 in words", get(version=b"HTTP/2.0"), *VERSION),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *VERSION),
    ("HTTP/3.7", get(version=b"HTTP/3.7"), *VERSION),
    ("HTTP/1.10", get(version=b"HTTP/1.10"), "400 close", *PASSED),
    ("http in small letters", get(version=b"http/1.1"), *HTML),
    ("a version that is none", get(version=b"FTP/1.1"), *HTML),
    ("a version with letters", get(version=b"HTTP/1.x"), *HTML),
    ("words after the version", get(version=b"HTTP/1.1 x"), *HTML),
    ("two spaces in the request line", get(path=b" /healthz"), "200 keep"),
    ("a tab in the request line", b"GET\t/healthz\tHTTP/1.1\r\n" + HOST + END, *MUTE),
    ("a space before the method", b" " + get(), *MUTE),
    ("an empty line first", b"\r\n" + get(), "200 keep"),
    ("PUT", get(path=b"/jobs", method=b"PUT"), "405 method-not-allowed keep"),
    ("PATCH", get(path=b"/jobs", method=b"PATCH"), "405 method-not-allowed keep"),
    ("OPTIONS of a path", get(path=b"/jobs", method=b"OPTIONS"), "405 method-not-allowed keep"),
    ("OPTIONS of everything", get(path=b"*", method=b"OPTIONS"), "404 not-found keep", BAD_HTTP, "nginx takes targets alone that begin with a slash"),
    ("TRACE", get(path=b"/jobs", method=b"TRACE"), "405 method-not-allowed keep", "405 method-not-allowed close", "nginx refuses it itself"),
    ("CONNECT", get(path=b"localhost:80", method=b"CONNECT"), "404 not-found keep", BAD_HTTP, "nginx takes targets alone that begin with a slash"),
    ("a method of our own", get(path=b"/jobs", method=b"BREW"), "405 method-not-allowed keep"),
    ("a method in small letters", get(path=b"/jobs", method=b"get"), "405 method-not-allowed keep", BAD_HTTP, "nginx takes methods in capitals alone"),
    ("a long method", get(path=b"/jobs", method=b"A" * 40), *KEPT),
    ("a method with a control character", get(path=b"/jobs", method=b"G\x1b[31mT"), BAD_HTTP),
    ("a method with a NUL", get(path=b"/jobs", method=b"G\0T"), "405 method-not-allowed keep", BAD_HTTP, UNSEEN[2]),
    ("a method with a high byte", get(path=b"/jobs", method=b"G\xffT"), BAD_HTTP),
    ("no method", b" /healthz HTTP/1.1\r\n" + HOST + END, *MUTE),
    ("DELETE of the list", get(path=b"/jobs", method=b"DELETE"), "405 method-not-allowed keep"),
    ("POST of the list", sized(b"{}", path=b"/jobs"), "405 method-not-allowed close", "405 method-not-allowed keep", READ[2]),
    ("GET of generate", get(path=b"/generate"), "405 method-not-allowed keep"),
    ("HEAD of generate", get(path=b"/generate", method=b"HEAD"), "405 keep"),
    ("HEAD of a page", get(path=b"/samplers", method=b"HEAD"), "200 keep"),
    ("garbage", b"NONSENSE\r\n\r\n", *MUTE),
    ("NUL bytes", b"\0" * 1000, *MUTE),
    ("every byte", bytes(range(256)) * 4, *HTML),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), *MUTE),
    ("a SOCKS hello", b"\x05\x01\x00", *MUTE),
    ("an SSH hello", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", *MUTE),
    ("an SMTP hello", b"EHLO localhost\r\n\r\n", *HTML),
]

# ---- The target
TARGETS = [
    ("an absolute target of this host", get(path=b"http://localhost/healthz"), "404 not-found keep", "200 keep", "nginx passes the path on alone"),
    ("an absolute target of another host", get(path=b"http://evil.example/healthz"), "404 not-found keep", "200 keep", "nginx passes the path on alone"),
    ("a target without its slash", get(path=b"healthz"), "404 not-found keep", BAD_HTTP, "nginx takes targets alone that begin with a slash"),
    ("a NUL in the target", get(path=b"/mod\0els"), "404 not-found keep", BAD_HTTP, UNSEEN[2]),
    ("an escape character in the target", get(path=b"/\x1b[2J"), BAD_HTTP),
    ("a high byte in the target", get(path=b"/mod\xffels"), *KEPT),
    ("a tab in the target", get(path=b"/mod\tels"), BAD_HTTP),
    ("an escaped NUL", get(path=b"/models%00"), BAD_HTTP),
    ("an escaped NUL in the query", get(path=b"/models?a=%00"), *KEPT),
    ("an escaped line feed", get(path=b"/models%0a"), *KEPT),
    ("an escaped carriage return in the query", get(path=b"/models?a=%0d%0aSet-Cookie:x"), *KEPT),
    ("an escaped DEL", get(path=b"/models%7f"), *KEPT),
    ("an escape that is cut", get(path=b"/models%"), BAD_HTTP),
    ("an escape cut in the middle", get(path=b"/models%4"), BAD_HTTP),
    ("an escape without digits", get(path=b"/models%zz"), BAD_HTTP),
    ("an escape in the IIS form", get(path=b"/models%u0041"), BAD_HTTP),
    ("an escaped letter", get(path=b"/model%73"), "404 not-found keep"),
    ("an escaped slash", get(path=b"/models%2ftiny"), "404 not-found keep"),
    ("a double escape", get(path=b"/models%252e"), "404 not-found keep"),
    ("an escaped high byte", get(path=b"/models%ff"), "404 not-found keep"),
    ("an overlong escape of a slash", get(path=b"/models%c0%af"), "404 not-found keep"),
    ("a bidi control, escaped", get(path=b"/models%e2%80%ae"), "404 not-found keep"),
    ("a parent folder", get(path=b"/jobs/../models"), "404 not-found keep"),
    ("above the root", get(path=b"/../../etc/passwd"), "404 not-found keep", BAD_HTTP, "nginx refuses what climbs above the root"),
    ("a parent folder, escaped", get(path=b"/jobs/%2e%2e/models"), "404 not-found keep"),
    ("above the root, escaped", get(path=b"/%2e%2e/%2e%2e/etc/passwd"), "404 not-found keep", BAD_HTTP, "nginx refuses what climbs above the root"),
    ("a backslash", get(path=b"/jobs\\..\\models"), "404 not-found keep"),
    ("two slashes", get(path=b"//models"), "404 not-found keep"),
    ("a slash at the end", get(path=b"/models/"), "404 not-found keep"),
    ("a dot", get(path=b"/./models"), "404 not-found keep"),
    ("a parameter", get(path=b"/models;a=b"), "404 not-found keep"),
    ("a fragment", get(path=b"/models#a"), "404 not-found keep"),
    ("capitals", get(path=b"/MODELS"), "404 not-found keep"),
    ("a query that nobody reads", get(path=b"/models?a=b&a=c&&=&%41"), "200 keep"),
    ("a query of quotes and brackets", get(path=b"/models?<script>'\"`{|}^"), "200 keep"),
    ("a target of 8 KB", get(path=b"/" + b"a" * 8000), "404 not-found keep"),
    ("a target of 40 KB", get(path=b"/" + b"a" * 40000), *URI),
    ("a query of 40 KB", get(path=b"/models?" + b"a" * 40000), *URI),
    ("a thousand parameters", get(path=b"/models?" + b"a=b&" * 1000), *KEPT),
]

# ---- Header fields
HEADERS = [
    ("a space before the colon", get(headers=b"X-A : b\r\n"), *HTML),
    ("a tab before the colon", get(headers=b"X-A\t: b\r\n"), *HTML),
    ("a length with a space before its colon", post(b"Content-Length : 2\r\n", b"{}"), *HTML),
    ("a coding with a space before its colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), *HTML),
    ("no colon", get(headers=b"X-A\r\n"), "400 close", "200 keep", "nginx passes it on with an empty value"),
    ("no name", get(headers=b": b\r\n"), *UNSEEN),
    ("a space in a name", get(headers=b"X A: b\r\n"), *HTML),
    ("a slash in a name", get(headers=b"X/A: b\r\n"), *KEPT),
    ("a bracket in a name", get(headers=b"X(A): b\r\n"), *KEPT),
    ("a high byte in a name", get(headers=b"X-\xff: b\r\n"), *KEPT),
    ("a control character in a name", get(headers=b"X-\x01: b\r\n"), BAD_HTTP),
    ("a NUL in a name", get(headers=b"X\0A: b\r\n"), *HTML),
    ("a NUL in a value", get(headers=b"X-A: b\0c\r\n"), *UNSEEN),
    ("an escape character in a value", get(headers=b"X-A: \x1b[31m\r\n"), *KEPT),
    ("a bell in a value", get(headers=b"X-A: a\x07b\r\n"), *KEPT),
    ("a DEL in a value", get(headers=b"X-A: a\x7fb\r\n"), *KEPT),
    ("a carriage return in a value", get(headers=b"X-A: a\rb\r\n"), BAD_HTTP),
    ("a high byte in a value", get(headers=b"X-A: caf\xe9\r\n"), "200 keep"),
    ("a tab in a value", get(headers=b"X-A: a\tb\r\n"), "200 keep"),
    ("an empty value", get(headers=b"X-A:\r\n"), "200 keep"),
    ("a folded header", get(headers=b"X-A: b\r\n folded\r\n"), *UNSEEN),
    ("a header folded by a tab", get(headers=b"X-A: b\r\n\tfolded\r\n"), *UNSEEN),
    ("a folded first header", get(host=b" X-A: b\r\nHost: localhost\r\n"), *HTML),
    ("a folded length", post(b"Content-Length:\r\n 2\r\n", b"{}"), "400 malformed-json @0 then 400", BAD_HTTP, UNSEEN[2]),
    ("a bare line feed after a header", b"GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n", *CLEANED),
    ("bare line feeds alone", b"GET /healthz HTTP/1.1\nHost: localhost\n\n", *CLEANED),
    ("a bare line feed that hides a header", get(headers=b"X-A: b\nContent-Length: 5\r\n") + b"hello", *READ),
    ("a header of 16 KB", get(headers=b"X: " + b"a" * 16000 + b"\r\n"), "200 keep", "431 malformed-http close", "nginx takes 8 KB a header"),
    ("a header of 40 KB", get(headers=b"X: " + b"a" * 40000 + b"\r\n"), *LARGE),
    ("a name of 40 KB", get(headers=b"a" * 40000 + b": b\r\n"), *LARGE),
    ("a hundred headers", get(headers=b"A: b\r\n" * 100), "200 keep"),
    ("five thousand headers", get(headers=b"A: b\r\n" * 5000), *LARGE),
    ("an upgrade to HTTP/2", get(headers=b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n"), "200 keep"),
    ("an upgrade to a web socket", get(headers=b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n"), "200 keep"),
    ("a connection that closes", get(headers=b"Connection: close\r\n"), "200 close"),
    ("a connection that closes and keeps alive", get(headers=b"Connection: close, keep-alive\r\n"), "200 close"),
    ("a range", get(path=b"/samplers", headers=b"Range: bytes=0-0,1-1,2-2\r\n"), "200 keep"),
    ("a cookie", get(headers=b"Cookie: a=b; c=\"d\r\n"), "200 keep"),
    ("a method that overrides", get(path=b"/jobs", headers=b"X-HTTP-Method-Override: DELETE\r\n"), "200 keep"),
    ("a forwarded origin", get(headers=b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=1.2.3.4\r\n"), "200 keep"),
]

# ---- How long a body is
LENGTHS = [
    ("length and coding", post(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SECOND), BAD_HTTP),
    ("coding and length", post(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"0\r\n\r\n" + SECOND), BAD_HTTP),
    ("two equal lengths", post(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"), BAD_HTTP),
    ("two differing lengths", post(b"Content-Length: 2\r\nContent-Length: 40\r\n", b"{}" + SECOND), BAD_HTTP),
    ("two lengths in one line", post(b"Content-Length: 2, 2\r\n", b"{}"), *TWICE),
    ("an empty length", post(b"Content-Length:\r\n", b"{}"), *TWICE),
    ("a negative length", post(b"Content-Length: -1\r\n"), *TWICE),
    ("a signed length", post(b"Content-Length: +4\r\n", b"{}  "), *TWICE),
    ("a length with letters", post(b"Content-Length: 4x\r\n", b"{}  "), *TWICE),
    ("a hexadecimal length", post(b"Content-Length: 0x4\r\n", b"{}  "), *TWICE),
    ("a length with a point", post(b"Content-Length: 4.0\r\n", b"{}  "), *TWICE),
    ("a length with an exponent", post(b"Content-Length: 1e1\r\n", b"{}        "), *TWICE),
    ("a length with a space inside", post(b"Content-Length: 1 2\r\n", b"{}          "), *TWICE),
    ("a length in quotes", post(b"Content-Length: \"2\"\r\n", b"{}"), *TWICE),
    ("a length of 2^63", post(b"Content-Length: 9223372036854775808\r\n"), "413 too-large close", BAD_HTTP, TWICE_413[2]),
    ("a length of 2^64", post(b"Content-Length: 18446744073709551616\r\n"), *TWICE_413),
    ("a length of 2^64 and two", post(b"Content-Length: 18446744073709551618\r\n", b"{}"), *TWICE_413),
    ("a length of a thousand digits", post(b"Content-Length: " + b"9" * 1000 + b"\r\n"), *TWICE_413),
    ("a length with leading zeros", sized(BODY).replace(b"Length: 12", b"Length: 00000000000000000000000000012"), "202 keep"),
    ("a length one over the limit", post(b"Content-Length: 2097153\r\n"), *SWALLOWED),
    ("a length at the limit", sized(OVER), "400 malformed-json @2097152 keep"),
    ("64 KiB of spaces and a job", sized(b" " * (65536 - len(BODY)) + BODY), "202 keep"),
    ("a byte over 64 KiB without a picture", sized(b" " * (65537 - len(BODY)) + BODY), "413 too-large keep"),
    ("no length and no coding", post(b""), "400 malformed-json @0 keep"),
    ("a length of nothing", post(b"Content-Length: 0\r\n"), "400 malformed-json @0 keep"),
    ("a body on GET", get(path=b"/models", headers=b"Content-Length: 5\r\n") + b"hello", *READ),
    ("a chunked body on GET", get(path=b"/models", headers=b"Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n", *READ),
    ("a body on DELETE", get(path=b"/jobs/" + b"a" * 26, method=b"DELETE", headers=b"Content-Length: 2\r\n") + b"{}", *READ),
    ("a body on HEAD", get(path=b"/models", method=b"HEAD", headers=b"Content-Length: 5\r\n") + b"hello", "413 close", "413 keep", READ[2]),
    ("a body for nobody", sized(b"{}", path=b"/nothing"), "404 not-found close", "404 not-found keep", READ[2]),
    ("an unknown coding", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("chunked, identity", post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("identity, chunked", post(b"Transfer-Encoding: identity, chunked\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("chunked twice", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("chunked and identity in two lines", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("an empty coding", post(b"Transfer-Encoding:\r\n", b"{}"), BAD_HTTP),
    ("chunked with a vertical tab", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("chunked in quotes", post(b"Transfer-Encoding: \"chunked\"\r\n", b"0\r\n\r\n"), BAD_HTTP),
    ("chunked in capitals", post(b"Transfer-Encoding: CHUNKED\r\n", b"c\r\n" + BODY + b"\r\n0\r\n\r\n"), "202 keep"),
    ("chunked in HTTP/1.0", post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", version=b"HTTP/1.0"), BAD_HTTP),
    ("a good chunk", chunked(b"c\r\n" + BODY + b"\r\n0\r\n\r\n"), "202 keep"),
    ("a chunk a byte", chunked(b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in BODY) + b"0\r\n\r\n"), "202 keep"),
    ("a chunk with an extension", chunked(b"c;a=b\r\n" + BODY + b"\r\n0\r\n\r\n"), "202 keep"),
    ("a chunk with leading zeros", chunked(b"000c\r\n" + BODY + b"\r\n0\r\n\r\n"), "202 keep"),
    ("a trailer", chunked(b"c\r\n" + BODY + b"\r\n0\r\nX-Trailer: a\r\n\r\n"), "202 keep"),
    ("a hexadecimal chunk size with a prefix", chunked(b"0xc\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("a negative chunk size", chunked(b"-c\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("a signed chunk size", chunked(b"+c\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("an empty chunk size", chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("a chunk size that is none", chunked(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("a chunk size that overflows", chunked(b"fffffffffffffffffffff\r\n" + BODY), "413 close", BAD_HTTP,
     "libmicrohttpd answers in HTML; to nginx the number is none"),
    ("a chunk size of 2^64 - 1", chunked(b"ffffffffffffffff\r\n" + BODY), "silence", BAD_HTTP,
     "the daemon waits for it as long as for any body; nginx knows better"),
    ("a chunk shorter than it says", chunked(b"e\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("a chunk longer than it says", chunked(b"b\r\n" + BODY + b"\r\n0\r\n\r\n"), *HTML),
    ("chunks beyond the limit", chunked(b"".join(b"2000\r\n" + b" " * 8192 + b"\r\n" for _ in range(300)) + b"0\r\n\r\n"), "413 too-large close"),
]

# ---- What a body is, and what is asked back
MEDIA = [
    ("no content type", sized(BODY, json=b""), "415 unsupported-media-type keep"),
    ("an empty content type", sized(BODY, json=b"Content-Type:\r\n"), "415 unsupported-media-type keep"),
    ("text", sized(BODY, json=b"Content-Type: text/plain\r\n"), "415 unsupported-media-type keep"),
    ("a form", sized(b"steps=1", json=b"Content-Type: application/x-www-form-urlencoded\r\n"), "415 unsupported-media-type keep"),
    ("parts", sized(b"--x--", json=b"Content-Type: multipart/form-data; boundary=x\r\n"), "415 unsupported-media-type keep"),
    ("another character set", sized(BODY, json=b"Content-Type: application/json; charset=latin1\r\n"), "415 unsupported-media-type keep"),
    ("UTF-16", sized(BODY.decode().encode("utf-16"), json=b"Content-Type: application/json; charset=utf-16\r\n"), "415 unsupported-media-type keep"),
    ("nearly JSON", sized(BODY, json=b"Content-Type: application/jsonx\r\n"), "415 unsupported-media-type keep"),
    ("JSON with a suffix", sized(BODY, json=b"Content-Type: application/problem+json\r\n"), "415 unsupported-media-type keep"),
    ("JSON in capitals", sized(BODY, json=b"Content-Type: APPLICATION/JSON; charset=UTF-8\r\n"), "202 keep"),
    ("gzip", sized(b"\x1f\x8b", b"Content-Encoding: gzip\r\n"), "415 unsupported-media-type keep"),
    ("an identity coding", sized(BODY, b"Content-Encoding: identity\r\n"), "415 unsupported-media-type keep"),
    ("two content types", sized(BODY, json=JSON + b"Content-Type: text/plain\r\n"), *KEPT),
    ("a form that is not served", sized(BODY, b"Accept: image/webp\r\n"), "406 not-acceptable keep"),
    ("nothing is wanted", sized(BODY, b"Accept: */*;q=0\r\n"), "406 not-acceptable keep"),
    ("a quality that is none", sized(BODY, b"Accept: application/json;q=x\r\n"), "406 not-acceptable keep"),
    ("an Accept of 8 KB", sized(BODY, b"Accept: " + b"a/b, " * 1600 + b"*/*\r\n"), "202 keep"),
    ("many pictures in one PNG", sized(b'{"n": 2}', b"Accept: image/png\r\n"), "422 invalid-field /n keep"),
    ("an array as a PNG", sized(b'[{"n": 1}]', b"Accept: image/png\r\n"), "406 not-acceptable keep"),
    ("an array as events", sized(b'[{"n": 1}]', b"Accept: text/event-stream\r\n"), "406 not-acceptable keep"),
    ("a wait that is none", sized(BODY, b"Prefer: wait=x\r\n"), "202 keep"),
    ("a negative wait", sized(BODY, b"Prefer: wait=-1\r\n"), "202 keep"),
    ("a wait of 2^64", sized(b'{"steps": 0}', b"Prefer: wait=18446744073709551616\r\n"), "422 invalid-field /steps keep"),
    ("an empty key", sized(BODY, b"Idempotency-Key:\r\n"), "422 invalid-field keep"),
    ("a key of 256 bytes", sized(BODY, b"Idempotency-Key: " + b"k" * 256 + b"\r\n"), "422 invalid-field keep"),
    ("a key of 255 bytes", sized(BODY, b"Idempotency-Key: " + b"k" * 255 + b"\r\n"), "202 keep"),
    ("a key that is not ASCII", sized(BODY, b"Idempotency-Key: caf\xe9\r\n"), "422 invalid-field keep"),
    ("two keys", sized(BODY, b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), *KEPT),
    ("two origins, the first one ours", sized(BODY, b"Origin: http://localhost\r\nOrigin: https://app.example\r\n"), *KEPT),
    ("another site's origin", sized(BODY, b"Origin: https://app.example\r\n"), *FOREIGN),
    ("an origin of no site", sized(BODY, b"Origin: null\r\n"), *FOREIGN),
    ("an origin that is our name and more", sized(BODY, b"Origin: http://localhost.app.example\r\n"), *FOREIGN),
    ("another site, told by the browser alone", sized(BODY, b"Sec-Fetch-Site: cross-site\r\n"), *FOREIGN),
    ("our own page", sized(BODY, b"Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"), "202 keep"),
    ("a body that is announced", sized(BODY, b"Expect: 100-continue\r\n"), "100 202 keep"),
    ("a body that is announced, and too long", post(b"Content-Length: 2097153\r\nExpect: 100-continue\r\n"), *SWALLOWED),
    ("a body that is announced for nobody", post(b"Content-Length: 9\r\nExpect: 100-continue\r\n", b"{}       ", path=b"/nothing"),
     "404 not-found close", "100 404 not-found keep", READ[2]),
    ("an expectation that nobody meets", sized(BODY, b"Expect: 200-ok\r\n"), "202 keep"),
]

# ---- Several requests on one connection
PIPELINES = [
    ("three in a row", get() + get(path=b"/nothing") + get(path=b"/samplers"), "200 404 200 keep"),
    ("a hundred in a row", get() * 100, " ".join(["200"] * 100) + " keep"),
    ("a job between two others", get() + sized(BODY) + get(path=b"/models"), "200 202 200 keep"),
    ("a good one, then a bad one", get() + get(host=b""), "200 400 malformed-http close"),
    ("a bad one, then a good one", get(host=b"") + get(), BAD_HTTP),
    ("one behind a body that is refused", sized(b"x" * 100, json=b"Content-Type: text/plain\r\n") + SECOND, "415 200 keep"),
    ("one behind a body that is longer than said", post(b"Content-Length: 12\r\n", BODY + SECOND), "202 200 keep"),
    ("one inside a body", sized(SECOND), "400 malformed-json @0 keep"),
    ("one behind a length that is refused", post(b"Content-Length: 1x\r\n", b"{" + SECOND), *TWICE),
    ("one behind a connection that closes", get(headers=b"Connection: close\r\n") + SECOND, "200 close"),
    ("empty lines between", get() + b"\r\n\r\n" + get(), "200 200 keep"),
    ("garbage behind a good one", get() + b"garbage\r\n\r\n", "200 close", "200 400 malformed-http close", MUTE[2]),
    ("half of one behind a good one", get() + b"GET /hea", "200 half"),
]

# ---- Under --base-path /v1/api
BASE_PATH = [
    ("inside", get(path=b"/v1/api/healthz"), "200 keep"),
    ("outside", get(path=b"/healthz"), "404 not-found keep"),
    ("the base alone", get(path=b"/v1/api"), "308 keep"),
    ("the base with a slash", get(path=b"/v1/api/"), "200 keep"),
    ("half of the base", get(path=b"/v1/healthz"), "404 not-found keep"),
    ("the base run on", get(path=b"/v1/apihealthz"), "404 not-found keep"),
    ("the base twice", get(path=b"/v1/api/v1/api/healthz"), "404 keep"),  # in the words of OpenAI's dialect, whose paths begin with /v1
    ("the base in capitals", get(path=b"/V1/API/healthz"), "404 not-found keep"),
    ("the base, escaped", get(path=b"/v1%2fapi/healthz"), "404 not-found keep"),
    ("out of the base", get(path=b"/v1/api/../healthz"), "404 not-found keep"),
    ("into the base", get(path=b"/x/../v1/api/healthz"), "404 not-found keep"),
    ("two slashes in the base", get(path=b"/v1//api/healthz"), "404 not-found keep"),
    ("a method that is not served", get(path=b"/v1/api/jobs", method=b"PUT"), "405 method-not-allowed keep"),
    ("a bad job", sized(b'{"steps": 0}', path=b"/v1/api/generate"), "422 invalid-field /steps keep"),
    ("a job outside", sized(BODY, path=b"/generate"), "404 not-found close", "404 not-found keep", READ[2]),
    ("a good job", sized(BODY, path=b"/v1/api/generate"), "202 keep"),
]

# ---- With --api-key-file: alice has the key 0123456789abcdef0123456789abcdef
KEY = b"0123456789abcdef0123456789abcdef"
REFUSED = "401 unauthorized keep"


def key(value, path=b"/jobs"):
    return get(path=path, headers=b"Authorization: " + value + b"\r\n")


KEYS = [
    ("no key", get(path=b"/jobs"), REFUSED),
    ("the right key", key(b"Bearer " + KEY), "200 keep"),
    ("the scheme in small letters", key(b"bearer " + KEY), "200 keep"),
    ("a wrong key", key(b"Bearer " + KEY[:-1] + b"0"), REFUSED),
    ("half a key", key(b"Bearer " + KEY[:16]), REFUSED),
    ("a key and more", key(b"Bearer " + KEY + b"0"), REFUSED),
    ("a key and a word", key(b"Bearer " + KEY + b" x"), REFUSED),
    ("the name of the client", key(b"Bearer alice"), REFUSED),
    ("the key in capitals", key(b"Bearer " + KEY.upper()), REFUSED),
    ("an empty key", key(b"Bearer "), REFUSED),
    ("the scheme alone", key(b"Bearer"), REFUSED),
    ("another scheme", key(b"Basic YWxpY2U6eA=="), REFUSED),
    ("no scheme", key(KEY), REFUSED),
    ("a key in the query", get(path=b"/jobs?key=" + KEY), REFUSED),
    ("two keys, the first one wrong", get(path=b"/jobs", headers=b"Authorization: Bearer x\r\nAuthorization: Bearer " + KEY + b"\r\n"), BAD_HTTP),
    ("two keys, the second one wrong", get(path=b"/jobs", headers=b"Authorization: Bearer " + KEY + b"\r\nAuthorization: Bearer x\r\n"), BAD_HTTP),
    ("a key of 16 KB", key(b"Bearer " + b"k" * 16000), REFUSED, "431 malformed-http close", "nginx takes 8 KB a header"),
    ("a job without a key, before its body", post(b"Content-Length: 60000\r\n"), "401 unauthorized close", "silence", "nginx waits for the body first"),
    ("the metrics without a key", get(path=b"/metrics"), REFUSED),
    ("a path that is not there, without a key", get(path=b"/nothing"), "404 not-found keep"),
    ("health without a key", get(), "200 keep"),
    ("the description without a key", get(path=b"/openapi.json", method=b"HEAD"), "200 keep"),
]
