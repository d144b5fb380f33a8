"""What Prometheus and Grafana are given in deploy/: their own tool finds it well, alerts fire when they should, and what dashboard and alerts
name is what the daemon says."""
import contextlib
import re
import shutil

from harness import *  # noqa: F403
from proxy import Nginx


def text_of(name):
    with open(os.path.join(ROOT, "deploy", name), encoding="utf8") as file:
        return file.read()


def yaml_of(name):
    try:
        import yaml
    except ImportError as missing:
        raise Skip("python3-yaml is not installed") from missing
    return yaml.safe_load(text_of(name))


def promtool(*words):
    program = shutil.which("promtool")
    if not program:
        raise Skip("promtool is not installed (package prometheus)")
    done = subprocess.run([program, *words], capture_output=True, text=True, cwd=os.path.join(ROOT, "deploy"), timeout=PATIENCE, check=False)
    same(done.returncode, 0, f"promtool {' '.join(words)}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def dashboard():
    return json.loads(text_of("grafana/denoised.json"))


def expressions():
    """(where, PromQL) of every panel and alert."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for rule in re.findall(r"alert: (\w+)\n +expr: (.*)\n", text_of("alerts.yml")):
        yield rule


@test
def promtool_accepts_configuration_and_rules():
    folder = scratch("prometheus")
    key = os.path.join(folder, "key")
    with open(key, "w", encoding="ascii"):
        pass
    shutil.copy(os.path.join(ROOT, "deploy/alerts.yml"), folder)
    text = text_of("prometheus.yml")
    check("/run/secrets/metrics_key" in text, "the key's place")
    with open(os.path.join(folder, "prometheus.yml"), "w", encoding="utf8") as out:
        out.write(text.replace("/run/secrets/metrics_key", key))
    promtool("check", "config", os.path.join(folder, "prometheus.yml"))
    promtool("check", "rules", "alerts.yml")


@test
def alerts_fire_when_they_should_and_else_not():
    promtool("test", "rules", "alerts_test.yml")
    tests = yaml_of("alerts_test.yml")["tests"]
    outcomes = {(one["alertname"], bool(one["exp_alerts"])) for part in tests for one in part["alert_rule_test"]}
    names = {rule["alert"] for rule in yaml_of("alerts.yml")["groups"][0]["rules"]}
    same(outcomes, {(name, fires) for name in names for fires in (True, False)}, "each alert is seen to fire, and not to")


@test
def every_alert_says_what_to_do():
    for rule in yaml_of("alerts.yml")["groups"][0]["rules"]:
        same((sorted(rule["annotations"]), rule["labels"]["severity"] in ("page", "ticket")), (["action", "summary"], True), rule["alert"])


@test
def what_is_named_is_what_the_daemon_says():
    with Daemon() as daemon:
        daemon.make(steps=1)
        page = eventually(lambda: (lambda text: text if 'route="/generate"' in text else None)(daemon.get("/metrics").body.decode()), what="a counted request")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
    samples = {name + end for name, kind in kinds.items() for end in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
    labels = {name: set(re.findall(r'(\w+)="', "".join(re.findall(rf"^{name}(?:_bucket)?{{(.*)}} ", page, re.M)))) for name in kinds}
    named = set()
    for where, expression in expressions():
        for name, braces in re.findall(r"\b((?:denoised|process)_\w+)(?:\{([^}]*)\})?", expression):
            check(name in samples, f"{where}: there is no {name}")
            family = name if name in kinds else re.sub("_(bucket|sum|count)$", "", name)
            named.add(family)
            for label in re.findall(r"(\w+)=", braces):
                check(label in labels[family] | {"job"}, f"{where}: {family} has no label {label}")
            counted = kinds[family] != "gauge"
            check(counted == bool(re.search(rf"(rate|increase)\({name}\b", expression)), f"{where}: {name} is a {kinds[family]}")
        for group in re.findall(r"by \(([^)]*)\)", expression):
            found = {label for name in re.findall(r"\b((?:denoised|process)_\w+)", expression) for label in labels[re.sub("_(bucket|sum|count)$", "", name)]}
            check(set(group.split(", ")) <= found | {"le"}, f"{where}: by ({group})")
    shown = {name for name in kinds if name.startswith("denoised_")}
    same(sorted(shown - named - {"denoised_build_info", "denoised_database_checked", "denoised_keys"}), [], "families that nobody looks at")


@test
def the_dashboard_is_whole():
    board = dashboard()
    panels = board["panels"]
    same(len({panel["id"] for panel in panels}), len(panels), "ids of panels")
    places = set()
    for panel in panels:
        grid = panel["gridPos"]
        check(grid["x"] + grid["w"] <= 24, panel["title"])
        squares = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
        check(not squares & places, f"{panel['title']} lies over another")
        places |= squares
        check(panel["type"] == "row" or (panel["description"] and panel["targets"]), panel["title"])
    for file, name in (("grafana/datasource.yml", "prometheus"), ("docker-compose.yml", "grafana")):
        check(yaml_of(file), name)
    uid = yaml_of("grafana/datasource.yml")["datasources"][0]["uid"]
    same({source["datasource"]["uid"] for panel in panels for source in panel.get("targets", [])}, {uid}, "data sources")


@test
def compose_mounts_what_is_there():
    services = yaml_of("docker-compose.yml")["services"]
    for name in ("scrape", "prometheus", "grafana"):
        same(services[name]["profiles"], ["observe"], f"{name}: profile")
        for mount in services[name]["volumes"]:
            check(not mount.startswith("./") or os.path.isfile(os.path.join(ROOT, "deploy", mount.split(":")[0])), f"{name}: {mount}")
    target = yaml_of("prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    same(target, ["scrape:" + re.search(r"listen (\d+);", text_of("scrape.conf")).group(1)], "what is scraped")
    if shutil.which("docker-compose"):
        done = subprocess.run(["docker-compose", "-f", os.path.join(ROOT, "deploy/docker-compose.yml"), "--profile", "observe", "config", "-q"],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        same((done.returncode, done.stdout), (0, ""), done.stderr[-500:])


@test
def prometheus_reaches_the_metrics_and_nothing_else():
    nginx = Nginx(name="scrape.conf", listen="listen 9464;")
    data = scratch("data")
    key = metrics_key(data)
    # As compose starts it: one host is named, and nginx is another.
    with Daemon("--allowed-host", "images.example.org", listen=f"unix:{nginx.socket_path}", data=data):
        def ask(method, path, **headers):
            with contextlib.closing(nginx.connect()) as connection:
                connection.request(method, path, headers={"Host": "scrape:9464", **headers})
                answer = connection.getresponse()
                return answer.status, answer.read()
        same(ask("GET", "/metrics")[0], 401, "without a key")
        status, page = ask("GET", "/metrics", Authorization=key)
        check(status == 200 and b"\ndenoised_ready 1\n" in page, f"{status} {page[:100]}")
        same([ask("GET", path, Authorization=key)[0] for path in ("/", "/jobs", "/models", "/metrics/", "/metricsx")], [404] * 5, "other paths")
        same([ask(method, "/metrics", Authorization=key)[0] for method in ("POST", "DELETE", "PUT")], [403] * 3, "other methods")
    nginx.stop()


run(__name__)
