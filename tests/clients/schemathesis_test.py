"""Schemathesis against running daemons: every route of api/openapi.yaml, all checks, in every phase (examples, coverage, fuzzing, stateful).

Two runs: the description as it is against a daemon without keys; and narrowed to what one model takes, with keys, where every valid body
must be taken and a request without its key must not. Cases do not depend on chance; `make api-fuzz CASES=5000` (--cases N) draws more.
"""
import argparse
import copy
import json
import os
import re
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
try:
    import schemathesis  # noqa: F401
except ImportError:
    print("SKIP clients/schemathesis: no build/venv (tests/clients/venv.sh says why)")
    sys.exit(0)

from harness import Daemon, ROOT, scratch  # noqa: E402

PROGRAM = os.path.join(os.path.dirname(sys.executable), "schemathesis")
SECRET = "a-secret-of-many-letters"
EXAMPLES = 6  # an operation and phase, in `make test`


def document():
    with open(os.path.join(ROOT, "api", "openapi.json"), encoding="utf8") as text:
        return json.load(text)


def narrowed(whole, model):
    """For one model: fields that every request may have, in any company, with values that exist. Then nothing valid is refused."""
    narrow = copy.deepcopy(whole)
    narrow["security"] = [{"key": []}]
    request = narrow["components"]["schemas"]["GenerateRequest"]
    steps = {"type": "integer", "minimum": 1, "maximum": 20}
    request["properties"] = {**{name: request["properties"][name] for name in ("guidance_scale", "seed", "priority", "deadline_ms")},
                             "model": {"type": "string", "enum": [model["name"]]}, "steps": steps,
                             "class_label": {"type": "integer", "minimum": 0, "maximum": model["class_count"] - 1},
                             "sampler": {"type": "string", "enum": ["ddim", "euler", "dpmpp_2m"]}, "n": {"type": "integer", "minimum": 1, "maximum": 3}}
    request["required"] = ["class_label", "model"]
    webui = narrow["components"]["schemas"]["SdapiRequest"]
    webui["properties"] = {**{name: webui["properties"][name] for name in ("seed", "cfg_scale", "restore_faces", "hr_scale", "save_images", "alwayson_scripts")},
                           "prompt": {"type": "string", "enum": ["sneaker", "class:8"]}, "steps": steps, "n_iter": request["properties"]["n"],
                           "sampler_name": {"type": "string", "enum": ["Euler a", "DDIM", "DPM++ 2M"]}, "width": {"enum": [model["width"], None]}}
    webui["required"] = ["prompt"]
    title = f"{model['name']} [{model['weights_sha256'][:10]}]"
    narrow["components"]["schemas"]["SdapiOptions"]["properties"]["sd_model_checkpoint"] = {"enum": [title, None]}
    for path in ("/sdapi/v1/img2img", "/sdapi/v1/png-info"):  # their pictures must have a size, or be some
        del narrow["paths"][path]
    return narrow


class Tidy(threading.Thread):
    """Cancels what waits, so that the queue stays short however large the jobs are that are asked for."""

    def __init__(self, daemon, headers):
        super().__init__(daemon=True)
        self.target, self.headers, self.over = daemon, headers, threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            for state in ("running", "queued"):
                for job in self.target.get(f"/jobs?limit=100&state={state}", **self.headers).json["jobs"]:
                    self.target.call("DELETE", f"/jobs/{job['id']}", **self.headers)


def attack(name, daemon, described, examples, seed, headers, phases="examples,coverage,fuzzing,stateful"):
    """One run; the number of its cases, or None where something failed (which is printed)."""
    folder = scratch("schemathesis")
    with open(os.path.join(folder, "openapi.json"), "w", encoding="utf8") as out:
        json.dump(described, out)
    how = ["--generation-deterministic"] if seed is None else ["--seed", str(seed), "--generation-database", "none"]
    command = [PROGRAM, "--no-color", "--config-file", os.path.join(HERE, "schemathesis.toml"), "run", "openapi.json", "--url", daemon.address,
               "--max-examples", str(examples), "--no-shrink", "--phases", phases, *how, *(part for key, value in headers.items() for part in ("-H", f"{key}: {value}"))]
    tidy = Tidy(daemon, headers)
    tidy.start()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    tidy.over.set()
    tidy.join()
    cases = re.search(r"(\d+) generated", done.stdout)
    if done.returncode != 0 or cases is None or daemon.process.poll() is not None:
        print(done.stdout[-12000:], done.stderr[-4000:], daemon.tail() if daemon.process.poll() is not None else "")
        print(f"FAIL schemathesis_{name}: schemathesis_test.py: exit status {done.returncode}, {len(re.findall(r'^- ST', done.stdout, re.M))} failures")
        return None
    return int(cases.group(1))


def both(examples, seed):
    whole = document()
    with Daemon() as daemon:
        # The coverage phase is nine tenths of all cases: in `make test` the other run has it, whose cases are fewer.
        phases = ("examples,fuzzing,stateful",) if seed is None else ()
        cases = attack("the_whole_description", daemon, whole, examples, seed, {}, *phases)
        model = daemon.get("/models/tiny").json
    keys = os.path.join(scratch("keys"), "keys")
    with open(keys, "w", encoding="utf8") as out:
        out.write(f"tester {SECRET}\n")
    os.chmod(keys, 0o600)
    with Daemon("--api-key-file", keys) as daemon:
        keyed = attack("with_keys", daemon, narrowed(whole, model), examples, seed, {"Authorization": f"Bearer {SECRET}"})
    return cases, keyed


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--cases", type=int, default=0, help="so many at least, by chance")
    asked.add_argument("--seed", type=int, default=1, help="of the first round")
    wanted = asked.parse_args()
    if wanted.cases == 0:
        cases, keyed = both(EXAMPLES, None)
        for name, count in (("the_whole_description", cases), ("with_keys", keyed)):
            if count is not None:
                print(f"PASS schemathesis_{name}")
                print(f"     {count} cases, no failures")
        sys.exit(0 if cases is not None and keyed is not None else 1)
    made, seed = 0, wanted.seed
    while made < wanted.cases:
        cases, keyed = both(100, seed)
        if cases is None or keyed is None:
            print(f"again: tests/clients/schemathesis_test.py --cases 1 --seed {seed}")
            sys.exit(1)
        made, seed = made + cases + keyed, seed + 1
        print(f"     {made} cases after seed {seed - 1}, no failures", flush=True)


main()
