"""What deploy/ says is what the program does: the commands of compose, unit and image start it, limits agree, and the unit is tight."""
from harness import *  # noqa: F403
from proxy import have_nginx
import re
import shlex
import shutil


def text_of(path):
    with open(os.path.join(ROOT, path), encoding="utf8") as file:
        return file.read()


def compose():
    try:
        import yaml
    except ImportError as missing:
        raise Skip("python3-yaml is not installed") from missing
    return yaml.safe_load(text_of("deploy/docker-compose.yml"))


def starts(command, health):
    """Runs a deployment's command with its paths moved into a scratch folder, and its health check; it must end well on SIGTERM."""
    folder = scratch("run")
    places = {"/run/denoised": f"{folder}/run", "/var/lib/denoised": f"{folder}/lib", "${DENOISED_HOST:-localhost}": "localhost"}
    os.mkdir(places["/run/denoised"])
    os.mkdir(places["/var/lib/denoised"])

    def place(word):
        for name, put in places.items():
            word = word.replace(name, put)
        return re.sub(r"=/usr/(local/)?share/denoised/models/fashion-mnist$", "=" + tiny_model(), word)
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen([PROGRAM, *map(place, command)], stdout=log, stderr=log)
    try:
        def healthy():
            check(process.poll() is None, f"it ended with {process.returncode}")
            return subprocess.run([PROGRAM, *map(place, health)], capture_output=True, check=False).returncode == 0
        eventually(healthy, 20, "health")
        path = places["/run/denoised"] + "/denoised.sock"
        same(oct(os.stat(path).st_mode & 0o777), "0o660", "mode of the socket")
        process.send_signal(signal.SIGTERM)
        same(process.wait(PATIENCE), 0, "exit status")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


READY = ["health", "--ready", "--socket", "/run/denoised/denoised.sock"]


@test
def the_compose_file_starts_it():
    service = compose()["services"]["denoised"]
    same(service["healthcheck"]["test"][2:], READY, "health check")
    check("ports" not in service, "the daemon publishes a port")
    starts(service["command"], READY)


@test
def the_image_starts_it():
    dockerfile = text_of("Dockerfile")
    command = json.loads(re.search(r"^CMD (\[.*\])$", dockerfile, re.M).group(1))
    health = json.loads(re.search(r"CMD (\[.*health.*\])$", dockerfile, re.M).group(1))
    same(health[0], "/usr/bin/denoised", "the health check's program")
    starts(command, [*health[1:2], "--ready", *health[2:]])


@test
def the_unit_starts_it():
    command = shlex.split(re.search(r"^ExecStart=(.*)$", text_of("deploy/denoised.service"), re.M).group(1))
    same(command[0], "/usr/local/bin/denoised", "program")
    starts(command[1:], READY)


@test
def the_unit_is_tight():
    if not shutil.which("systemd-analyze"):
        raise Skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", os.path.join(ROOT, "deploy/denoised.service")],
                          capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for denoised.service: ([0-9.]+)", done.stdout)
    if not found:
        raise Skip(f"systemd-analyze security does not work here: {done.stderr.strip()[:100]}")
    check(float(found.group(1)) <= 2.0, f"exposure {found.group(1)}")


@test
def the_compose_file_is_tight():
    services = compose()["services"]
    same(sorted(services), ["denoised", "grafana", "prometheus", "proxy", "scrape"], "services")
    same(sorted(name for name, service in services.items() if "profiles" not in service), ["denoised", "proxy"], "services without a profile")
    for name, service in services.items():
        same((service["read_only"], service["cap_drop"]), (True, ["ALL"]), f"{name}: root file system and capabilities")
        check("no-new-privileges:true" in service["security_opt"], f"{name}: new privileges")
        check(not any("unconfined" in option for option in service["security_opt"]), f"{name}: its system call filter is off")
        check(re.fullmatch(r"\d+:\d+", service["user"]) and not service["user"].startswith("0:"), f"{name}: user {service['user']}")
        check(not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & set(service), f"{name}: more than it needs")
        for mount in service["tmpfs"]:
            check(all(word in mount.split(":", 1)[1].split(",") for word in ("noexec", "nosuid", "nodev", "mode=0700")), f"{name}: {mount}")
    daemon, proxy = services["denoised"], services["proxy"]
    same(daemon["user"], "10001:10001", "user of the daemon")
    same((daemon["pids_limit"], daemon["ulimits"], daemon["init"]), (512, {"nofile": 65536, "core": 0}, True), "limits")
    check(daemon["mem_limit"] and daemon["restart"] == "on-failure:5", "memory and restarts")
    same([name for name, service in services.items() if "ports" in service], ["proxy", "grafana"], "who publishes a port")
    check(all(port.startswith("127.0.0.1:") for port in services["grafana"]["ports"]), "Grafana is for this host")
    check(not any(set(daemon["networks"]) & set(service["networks"]) for name, service in services.items() if name != "denoised"), "the daemon's network is its own")
    same((services["scrape"]["networks"], compose()["networks"]["observe"]), (["observe"], {"internal": True}), "who reaches the metrics")
    check(not set(daemon["networks"]) & set(proxy["networks"]), "the daemon is on the proxy's network")
    check(all(compose()["networks"][name]["internal"] for name in daemon["networks"]), "the daemon reaches the world")


@test
def the_image_for_gpus_is_the_other_with_a_card():
    plain, gpu = text_of("Dockerfile"), text_of("deploy/Dockerfile.gpu")
    last = [part[part.rindex("\nFROM "):] for part in (plain, gpu)]
    for kind in ("USER", "VOLUME", "STOPSIGNAL", "ENTRYPOINT", "CMD"):
        rule = rf"^{kind} .*$"
        same(re.findall(rule, last[1], re.M), re.findall(rule, last[0], re.M), kind)
    copied = [set(re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M)) for text in (plain, gpu)]
    same(copied[1], copied[0], "what is built from")
    health = [re.search(r"HEALTHCHECK .* (CMD .*)$", text, re.M).group(1) for text in (plain, gpu)]
    same(health[1], health[0], "health check")
    check(re.search(r"test -e /out/usr/lib/denoised/libdenoised_cuda\.so", gpu), "an image without the library would pass")
    library = text_of("engine/backend/gpu_library.c")
    needed = set(re.findall(r'\{"(lib\w+\.so\.\d+)"', library))
    check(needed and needed <= set(gpu.replace(";", " ").split()), f"{needed} are not all in the image")
    same(set(re.findall(r"-l:(lib\w+\.so\.\d+)", text_of("deploy/cuda.mk"))), needed, "what the library is linked to, and what is explained where it is missing")


@test
def a_gpu_is_all_that_the_override_adds():
    try:
        import yaml
    except ImportError as missing:
        raise Skip("python3-yaml is not installed") from missing
    over = yaml.safe_load(text_of("deploy/docker-compose.gpu.yml"))
    same((list(over), list(over["services"])), (["services"], ["denoised"]), "what it touches")
    service = over["services"]["denoised"]
    same(sorted(service), ["build", "deploy", "environment", "healthcheck", "image", "mem_limit"], "of the daemon")
    same(service["deploy"], {"resources": {"reservations": {"devices": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}}}, "the card")
    check(os.path.exists(os.path.join(ROOT, service["build"]["dockerfile"])), "its Dockerfile")
    if not shutil.which("docker-compose"):
        raise Skip("docker-compose is not installed")
    done = subprocess.run(["docker-compose", "-f", "deploy/docker-compose.yml", "-f", "deploy/docker-compose.gpu.yml", "config", "-q"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    same(done.returncode, 0, done.stderr[-300:])


@test
def a_worker_gives_up_what_it_never_needs():
    with Daemon() as daemon:
        daemon.make(steps=1)
        workers = daemon.worker_pids()
        same(len(workers), 1, "workers")
        with open(f"/proc/{workers[0]}/status", encoding="ascii") as status:
            said = dict(line.split(":\t", 1) for line in status.read().splitlines() if ":\t" in line)
        if said.get("Seccomp") is None:
            raise Skip("this kernel tells nothing of privileges")
        same((said["NoNewPrivs"], said["Seccomp"]), ("1", "2"), "new privileges and the filter of calls")
        limits = text_of(f"/proc/{workers[0]}/limits")
        check(re.search(r"Max core file size +0 +0 ", limits), "a core may be left")
        check(re.search(rf"Max file size +{4 << 30} +{4 << 30} ", limits), "files of any size may be written")


@test
def limits_and_times_agree():
    limits = dict(re.findall(r"#define (API_\w+) (\d+)", text_of("api/limits.h")))
    conf = text_of("deploy/nginx.conf")
    megabytes = int(re.search(r"client_max_body_size (\d+)m;", conf).group(1))
    same(megabytes << 20, int(limits["API_BODY_IMAGE_BYTES_MAX"]), "body limit of nginx")
    read = int(re.search(r"proxy_read_timeout (\d+)s;", conf).group(1))
    check(read > int(limits["API_WAIT_SECONDS_MAX"]), "nginx gives up before the longest wait")
    idle = int(re.search(r"HTTP_BLOCKED_SECONDS (\d+)u", text_of("server/http_internal.h")).group(1))
    upstream = conf[conf.index("upstream denoised"):]
    check(int(re.search(r"keepalive_timeout (\d+)s;", upstream).group(1)) < idle, "nginx keeps connections that the daemon closes")
    drain = float(re.search(r"\.drain_seconds = ([0-9.]+)", text_of("server/serve_options.c")).group(1))
    check(int(re.search(r"TimeoutStopSec=(\d+)", text_of("deploy/denoised.service")).group(1)) >= drain + 15, "systemd's patience")
    check(int(compose()["services"]["denoised"]["stop_grace_period"].rstrip("s")) >= drain + 15, "compose's patience")


@test
def nginx_accepts_its_file():
    program = have_nginx()
    if not program:
        raise Skip("nginx is not installed")
    folder = scratch("nginx")
    conf = os.path.join(folder, "nginx.conf")
    with open(conf, "w", encoding="utf8") as out:
        out.write(text_of("deploy/nginx.conf").replace(" /tmp/", f" {folder}/"))
    done = subprocess.run([program, "-t", "-e", "stderr", "-p", folder, "-c", conf], capture_output=True, text=True, check=False)
    same(done.returncode, 0, done.stderr[-300:])
    check("warn" not in done.stderr, done.stderr[-300:])


run(__name__)
