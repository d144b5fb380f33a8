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
        same(process.wait(30 * SLOW), 0, "exit status")
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
