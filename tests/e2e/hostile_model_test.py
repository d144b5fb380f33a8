"""A model's files change under a running daemon: what is loaded goes on, what cannot be loaded is refused, and nothing crashes."""
from harness import *  # noqa: F403
import shutil

SPEC = {"class_label": 2, "steps": 2, "seed": 5, "sampler": "ddim"}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def honest_copy():
    folder = scratch("model") + "/model"
    shutil.copytree(tiny_model(), folder)
    return folder


def in_place(path, change):
    """The same file, other bytes: what a copy over it does."""
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        data = change(data)
        file.seek(0)
        file.truncate(0)
        file.write(data)


def flipped(data):
    data[-3] ^= 1  # a low bit of the last number
    return data


DAMAGES = {
    "cut in the middle": lambda path: os.truncate(path, os.path.getsize(path) // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "a byte behind its end": lambda path: os.truncate(path, os.path.getsize(path) + 1),
    "overwritten": lambda path: in_place(path, lambda data: os.urandom(len(data))),
    "another file in its place": lambda path: (shutil.copy(os.path.join(ROOT, "README.md"), path + ".new"), os.rename(path + ".new", path)),
    "removed": os.unlink,
    "a FIFO": lambda path: (os.unlink(path), os.mkfifo(path)),
    "a folder": lambda path: (os.unlink(path), os.mkdir(path)),
    "a link to itself": lambda path: (os.unlink(path), os.symlink(os.path.basename(path), path)),
}


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def state(daemon):
    return daemon.get("/models").json["models"][0]


def end_worker(daemon):
    """Kills the worker; returns when another has taken its place."""
    before = daemon.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: [pid for pid in daemon.worker_pids() if pid not in before], 30, "another worker")


@test
def a_running_daemon_outlives_every_change_of_its_weights():
    folder = honest_copy()
    path = os.path.join(folder, WEIGHTS)
    with Daemon(model=folder) as daemon:
        made = daemon.make(**SPEC)["images"][0]["pixels_sha256"]
        pid = daemon.process.pid
        for name, damage in DAMAGES.items():
            damage(path)
            job = daemon.make(**SPEC)  # by the weights in memory
            same((job["state"], job["images"][0]["pixels_sha256"]), ("succeeded", made), f"picture with weights {name}")
            end_worker(daemon)
            eventually(lambda: state(daemon)["state"] == "failed", 30, f"refusal of weights {name}")
            check(WEIGHTS.split("/")[1] in state(daemon)["error"], f"{name}: {state(daemon)['error']}")
            same(daemon.get("/healthz").status, 200, "health")
            remove(path)
            shutil.copy(os.path.join(tiny_model(), WEIGHTS), path + ".new")
            os.rename(path + ".new", path)
            eventually(lambda: state(daemon)["state"] != "failed", 30, f"the honest weights after {name}")
            same(daemon.make(**SPEC)["images"][0]["pixels_sha256"], made, f"picture after {name}")
        same((daemon.process.poll(), daemon.process.pid), (None, pid), "the daemon")


@test
def other_weights_are_told_by_their_hash():
    folder = honest_copy()
    path = os.path.join(folder, WEIGHTS)
    with Daemon(model=folder) as daemon:
        name = state(daemon)["name"]
        honest = daemon.get(f"/models/{name}").json["weights_sha256"]
        in_place(path, flipped)
        same(daemon.make(**SPEC)["state"], "succeeded", "with the weights in memory")
        same(daemon.get(f"/models/{name}").json["weights_sha256"], honest, "hash of the weights in memory")
        end_worker(daemon)
        eventually(lambda: daemon.get(f"/models/{name}").json["weights_sha256"] != honest, 30, "the other hash")
        same(daemon.make(**SPEC)["state"], "succeeded", "with the other weights")


run(__name__)
