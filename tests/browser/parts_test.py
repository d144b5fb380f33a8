#!/usr/bin/env python3
"""The page's files as the daemon serves them, without a browser: their size, headers, caching, and what their sources must not do."""
import gzip
import re

from harness_path import *  # noqa: F403
from harness import *  # noqa: F403

WEB = os.path.join(ROOT, "server/web")
PAGE_BYTES_MAX = 60 * 1024  # of everything, compressed
HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
POLICY = {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' blob: data:", "connect-src": "'self'", "base-uri": "'none'",
          "form-action": "'none'", "frame-ancestors": "'none'"}
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


def sources():
    names = sorted(name for name in os.listdir(WEB) if not name.endswith(".md"))
    check("index.html" in names, "there is no page")
    return names


def source(name):
    with open(os.path.join(WEB, name), "rb") as file:
        return file.read()


def path_of(name):
    return "/" if name == "index.html" else "/page/" + name


def fetch(daemon, name, base="", method="GET", **headers):
    return daemon.call(method, base + path_of(name), Accept=HTML if name == "index.html" else "*/*", **headers)


def mentioned(text):
    """Names of parts in markup, styles or a module."""
    return set(re.findall(r"""page/([\w-]+\.\w+)""", text)) | set(re.findall(r"""(?:from|import\(?)\s*['"]\./([\w-]+\.js)['"]""", text))


@test
def every_file_of_the_page_is_served_as_it_is():
    with Daemon() as daemon:
        total = 0
        for name in sources():
            plain, small = fetch(daemon, name), fetch(daemon, name, Accept_Encoding="gzip, deflate, br")
            same([plain.status, small.status], [200, 200], name)
            same([plain.headers["content-type"], small.headers["content-type"]], [TYPES[name.rsplit(".", 1)[1]]] * 2, f"type of {name}")
            check(plain.body == source(name) and "content-encoding" not in plain.headers, f"{name} is served otherwise")
            same(small.headers["content-encoding"], "gzip", f"encoding of {name}")
            check(gzip.decompress(small.body) == source(name), f"{name} compressed is not {name}")
            total += len(small.body)
            check(name == "index.html" or any(name in mentioned(source(other).decode()) for other in sources()), f"nothing asks for {name}")
        check(total < PAGE_BYTES_MAX, f"the page is {total} bytes compressed")
        print(f"# {len(sources())} files, {total} bytes compressed")
        for name in set().union(*(mentioned(source(other).decode()) for other in sources())):
            check(name in sources(), f"{name} is asked for and is not there")


@test
def caches_are_told_the_truth():
    with Daemon() as daemon:
        for name in sources():
            tags = set()
            for coding in ("gzip", "identity"):
                first = fetch(daemon, name, Accept_Encoding=coding)
                tag = first.headers["etag"]
                check(re.fullmatch(r'"[\w-]+"', tag), f"{name}: {tag}")
                check("Accept-Encoding" in first.headers["vary"], f"Vary of {name}")
                check(name != "index.html" or re.search(r"\bAccept\b(?!-)", first.headers["vary"]), "Vary of the page")
                again = fetch(daemon, name, Accept_Encoding=coding, If_None_Match=tag)
                same((again.status, again.body, again.headers["etag"]), (304, b"", tag), f"{name} again")
                same(fetch(daemon, name, Accept_Encoding=coding, If_None_Match='"other"').status, 200, f"{name} with another tag")
                head = fetch(daemon, name, method="HEAD", Accept_Encoding=coding)
                same((head.status, head.body, head.headers["etag"], head.headers["content-length"]), (200, b"", tag, str(len(first.body))), f"HEAD of {name}")
                tags.add(tag)
            same(len(tags), 2, f"tags of {name}: other bytes, other tag")
        before = {name: fetch(daemon, name).headers["etag"] for name in sources()}
        daemon.kill()
        daemon.start()
        same({name: fetch(daemon, name).headers["etag"] for name in sources()}, before, "tags after a restart")


@test
def nothing_else_may_run_in_it():
    with Daemon() as daemon:
        for name in sources():
            headers = fetch(daemon, name).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";") if part.strip())
            same(policy, POLICY, f"policy of {name}")
            same(headers.get("x-content-type-options"), "nosniff", f"X-Content-Type-Options of {name}")
            check("set-cookie" not in headers, f"{name} sets a cookie")


@test
def sources_write_no_markup_and_name_no_other_host():
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*['\"`]|createContextualFragment|DOMParser|document\.cookie"
    for name in sources():
        text = source(name).decode()
        if name.endswith(".js"):
            same(re.findall(forbidden, text), [], f"what {name} must not use")
        if name.endswith((".html", ".svg")):
            same(re.findall(r"""\s(on\w+\s*=|style\s*=)""", text), [], f"inline handlers or styles in {name}")
            check(not re.search(r"<script(?![^>]*\bsrc=)|<style", text), f"an inline script or style in {name}")
        hosts = [url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"`)]*", re.sub(r"^\s*(/?\*|//).*$", "", text, flags=re.M))
                 if not url.startswith("http://www.w3.org/")]
        same(hosts, [], f"hosts in {name}")


@test
def the_page_is_for_browsers():
    with Daemon() as daemon:
        check(daemon.get("/", Accept=HTML).body.lstrip().startswith(b"<!doctype html>"), "a browser gets the page")
        for accept in ("*/*", "text/plain", "application/json", "text/plain, text/html;q=0.5"):
            answer = daemon.get("/", Accept=accept)
            same((answer.status, answer.headers["content-type"]), (200, "text/plain; charset=utf-8"), f"Accept: {accept}")
        same(daemon.get("/").headers["content-type"], "text/plain; charset=utf-8", "without Accept")
        for path in ("/page/", "/page/none.js", "/page/index.html", "/page/../denoised", "/page/%2e%2e/x", "/page/index.html/x", "/page"):
            same(daemon.get(path).status, 404, path)
        same(daemon.call("POST", "/page/style.css", "x").status, 405, "POST")


@test
def it_is_served_under_a_base_path():
    with Daemon("--base-path", "/made/here") as daemon:
        for name in sources():
            answer = daemon.get("/made/here" + path_of(name), Accept=HTML if name == "index.html" else "*/*")
            check(answer.status == 200 and answer.body == source(name), f"{name} under a base path: {answer.status}")
        same(daemon.get("/page/style.css").status, 404, "outside the base path")
        for method in ("GET", "HEAD"):
            answer = daemon.call(method, "/made/here", Accept=HTML)
            same((answer.status, answer.headers["location"]), (308, "/made/here/"), f"{method} of the base without its slash")
        same(daemon.call("POST", "/made/here", "{}").status, 404, "POST to the base without its slash")


run(__name__)
