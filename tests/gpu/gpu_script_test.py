"""`make gpu-test` itself, where there is no GPU: what it leaves out, what it makes of programs that fail, and what figures are held against."""
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]
import figures  # noqa: E402
from harness import PATIENCE, PROGRAM, SLOW, Skip, check, run, same, scratch, test  # noqa: E402
from phases import PHASES  # noqa: E402

OUT = os.path.dirname(os.path.abspath(PROGRAM))
NAMES = [name for name, _, _ in PHASES]


def script(out, *words, seconds=600):
    """Exit status, results, and the text that it prints."""
    path = os.path.join(scratch("results"), "gpu.json")
    done = subprocess.run([sys.executable, os.path.join(HERE, "run.py"), "--out", out, "--json", path, "--seconds", str(seconds), *words],
                          capture_output=True, text=True, timeout=seconds + 2 * PATIENCE, check=False)
    check(os.path.exists(path), f"no results: {done.stdout[-500:]}{done.stderr[-500:]}")
    with open(path, encoding="utf8") as file:
        return done.returncode, json.load(file), done.stdout


def built(**programs):
    """A build folder without a CUDA library. programs: instead of ours, Python."""
    out = scratch("out")
    os.makedirs(os.path.join(out, "tests/gpu"))
    os.symlink(PROGRAM, os.path.join(out, "denoised"))
    for name in os.listdir(os.path.join(OUT, "tests/gpu")):
        if name not in programs:
            os.symlink(os.path.join(OUT, "tests/gpu", name), os.path.join(out, "tests/gpu", name))
    for name, text in programs.items():
        with open(os.open(os.path.join(out, "tests/gpu", name), os.O_WRONLY | os.O_CREAT, 0o700), "w", encoding="utf8") as file:
            file.write(f"#!{sys.executable}\n{text}\n")
    return out


def well_formed(result):
    same(result["format"], 1, "format")
    check({"when", "machine", "phases", "checks", "figures", "notes", "skips", "seconds", "emulated"} <= set(result), sorted(result))
    for kind, members in (("checks", {"phase", "name", "ok", "detail"}), ("figures", {"phase", "figure", "value", "unit"}), ("notes", {"phase", "text"}),
                          ("skips", {"phase", "reason"}), ("phases", {"name", "seconds"})):
        for one in result[kind]:
            check(members <= set(one), f"{kind}: {one}")


@test
def without_a_gpu_every_phase_is_left_out_and_that_is_no_failure():
    status, result, text = script(built())
    well_formed(result)
    same((status, [one["name"] for one in result["phases"]]), (0, NAMES), "status and phases")
    same(sorted({one["phase"] for one in result["skips"]}), sorted(NAMES), "phases that say why they were left out")
    same((result["checks"], result["figures"]), ([], []), "checks and figures")
    check(all("no GPU can be used" in one["reason"] for one in result["skips"]), result["skips"])
    check(all(f"\n{name} " in "\n" + text for name in NAMES), text[-800:])


@test
def over_the_emulated_gpu_every_phase_runs():
    if SLOW > 1:
        raise Skip("the release build's run shows it")
    status, result, text = script(OUT, "--emulated", seconds=2400)  # four times what phases usually have
    well_formed(result)
    same([one for one in result["checks"] if not one["ok"]], [], "checks that failed")
    same((status, [one["name"] for one in result["phases"]]), (0, NAMES), f"status and phases; {text[-500:]}")
    same([(one["phase"], one["reason"]) for one in result["skips"]], [("peers", "PyTorch has no emulated GPU")], "what was left out")
    found = {phase: [one["figure"] for one in result["figures"] if one["phase"] == phase] for phase in NAMES}
    for phase, figure in (("ceilings", "copy on the card, read and written"), ("ceilings", "product square rows 1"), ("speed", "dit_default rows 2"),
                          ("start", "first image, cold plan cache"), ("start", "first image, warm plan cache"), ("served", "bare engine"),
                          ("served", "daemon, full queue, continuous"), ("served", "load 0.8, continuous, p95"), ("served", "load 0.8, one at a time, p95")):
        check(figure in found[phase], f"{phase} has no {figure!r}: {found[phase]}")
    names = " ".join(one["name"] for one in result["checks"])
    for word in ("test_kernels", "programs/4097", "gelu/tanh", "unet_default/bf16/batches", "slots", "replays", "graphs", "company", "dit_default/fp32", "vae_default",
                 "pictures of"):
        check(word in names, f"no check of {word}")
    check("device_properties" in next(one for one in result["figures"] if one["figure"] == "card"), "the card's properties")


@test
def programs_that_fail_fail_the_run_and_no_other_phase():
    fine = "print('{\"note\": \"here\"}')"
    figure = "print('{\"figure\": \"x rows 2\", \"value\": 2.0, \"unit\": \"ms\", \"flops\": 79e9, \"weight_bytes\": 1, \"model\": \"dit_xl_2\", \"rows\": 2}')"
    out = built(gpu_speed=fine + "\nimport sys\nif '--rows' in sys.argv:\n    " + figure,
                gpu_bitwise="print('nonsense')\nprint('{\"check\": \"a row\", \"ok\": false, \"detail\": \"differs\"}')\nimport sys\nsys.exit(1)",
                gpu_parity="import os\nos.abort()", gpu_generate="import sys, time\nif '0' in sys.argv:\n    time.sleep(1000)")
    status, result, text = script(out, "--only", "bitwise,parity,start,speed", "--emulated", seconds=180)  # the start has 15 of them
    well_formed(result)
    same(status, 1, "status")
    failed = [(one["phase"], one["name"]) for one in result["checks"] if not one["ok"]]
    same(failed, [("bitwise", "a row"), ("parity", "gpu_parity ends well"), ("parity", "parity goes through")], "what failed")
    check("FAILED bitwise: a row: differs" in text, text[-800:])
    check({"phase": "bitwise", "text": "gpu_bitwise: nonsense"} in result["notes"], result["notes"])
    same([one["name"] for one in result["phases"]], ["bitwise", "parity", "start", "speed"], "phases that went on")
    same([one["phase"] for one in result["skips"] if "gpu_generate: its time was over" in one["reason"]], ["start"], "what was cut off")
    same([(one["phase"], one["met"]) for one in result["figures"]], [("speed", False)] * 2, "figures")


@test
def figures_are_held_against_floors_and_targets():
    one = figures.speed({"figure": "x", "value": 2.0, "unit": "ms", "flops": 790e9, "weight_bytes": 1.0, "model": "dit_xl_2", "rows": 64})
    same((round(one["floor"], 6), round(one["ratio"], 6), one["target"], one["met"]), (1.0, 0.5, 0.6, False), "half of the floor")
    one = figures.speed({"figure": "x", "value": 2.0, "unit": "ms", "flops": 1.0, "weight_bytes": 4.3e9, "model": "dit_xl_2", "rows": 2})
    same((round(one["floor"], 6), one["met"]), (1.0, True), "weights are read once")
    one = figures.hold({"figure": "first", "value": 3.5, "unit": "s"}, target=3.0, least=False)
    same(one["met"], False, "too long")
    lines = list(figures.table({"phases": [{"name": "start", "seconds": 1.0}], "checks": [], "skips": [], "figures": [{"phase": "start", **one}]}))
    check(lines[-1].endswith("MISSED") and "3.5" in lines[-1], lines)


@test
def the_notes_have_a_prediction_for_what_has_a_target():
    with open(os.path.join(HERE, "..", "bench", "NOTES.md"), encoding="utf8") as file:
        notes = file.read().partition("## GPU: floors and predictions")[2]
    for word in ("60 %", "25 %", "0.97", "2 times", "1.2 times", "3 times", "at most 0.5", "| 3 s |", "12.8 ms", "790"):
        check(word in notes, f"the notes say nothing of {word}")


@test
def an_unknown_phase_is_refused():
    done = subprocess.run([sys.executable, os.path.join(HERE, "run.py"), "--only", "nonsense"], capture_output=True, text=True, check=False)
    same(done.returncode, 2, "status")
    check("no phase nonsense" in done.stderr, done.stderr)


run(__name__)
